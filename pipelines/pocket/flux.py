"""The `flux` pocket: captioned scenes of coloured shapes. A FluxPipeline of 24 thin blocks, trained from nothing.

Guidance-free as FLUX.1-dev is used; true classifier-free guidance works too, because a tenth of the samples is trained
with an empty caption.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .autoencoder import build_autoencoder, decode_latents, encode_pictures, psnr_decibel, train_autoencoder
from .scenes import FOLD, LABEL_SIZES, SIDE, Scene, Split, check_scenes, draw_scene, render_scenes, scene_captions
from .text import (
    DrawCaptions,
    build_clip_encoder,
    build_clip_tokenizer,
    build_t5_encoder,
    build_t5_tokenizer,
    caption_words,
    encode_captions,
    train_text_encoder,
)
from .training import FitResult, FitSettings, first_process_first, fit

LENGTH = 12
"""Tokens of a caption, in both text encoders; pass it as `max_sequence_length`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FluxRecipe:
    """All that decides how the pocket is trained."""

    autoencoder: FitSettings = FitSettings(steps=1200, batch=16, rate=2e-3, autocast=False, seed=11)
    clip: FitSettings = FitSettings(steps=400, batch=64, rate=3e-3, autocast=False, seed=12)
    t5: FitSettings = FitSettings(steps=400, batch=64, rate=3e-3, autocast=False, seed=13)
    denoiser: FitSettings = FitSettings(
        steps=2050, batch=32, rate=2e-3, muon_rate=4e-3, average=0.995, autocast=False, seed=14
    )
    scenes: int = 12288
    """Pictures encoded once and trained on."""
    latent_channels: int = 4
    text_width: int = 64
    double_blocks: int = 4
    single_blocks: int = 20
    heads: int = 4
    head_width: int = 24
    rope_axes: tuple[int, int, int] = (4, 10, 10)
    uncaptioned: float = 0.1
    """Share of samples trained with an empty caption."""
    fold: int = FOLD
    """Of pairs of things that are held out."""
    seed: int = 0
    """Of the weights before training and of the scenes that are encoded once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Texts:
    """The two frozen text encoders and their tokenizers."""

    clip: Any
    clip_tokenizer: Any
    t5: Any
    t5_tokenizer: Any

    @torch.no_grad()
    def encode(self, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Pooled (B, width) and tokens (B, LENGTH, width)."""
        pooled = encode_captions(self.clip, self.clip_tokenizer, captions, LENGTH, "pooled")
        tokens = encode_captions(self.t5, self.t5_tokenizer, captions, LENGTH, "tokens")
        return pooled.float().cpu(), tokens.float().cpu()


def draw_scenes(count: int, generator: torch.Generator, *, split: Split = "train", fold: int = FOLD) -> list[Scene]:
    """`count` scenes of `split`, decided by `generator`."""
    source = random.Random(int(torch.randint(0, 2**62, (1,), generator=generator)))
    return [draw_scene(source, split=split, fold=fold) for _ in range(count)]


def train_texts(
    recipe: FluxRecipe, folder: Path, device: torch.device, *, progress: bool = True
) -> tuple[Texts, dict[str, FitResult], float]:
    """Train both text encoders on captions of scenes; with the share of captions that both understand fully."""

    def draw(count: int, generator: torch.Generator) -> tuple[list[str], torch.Tensor]:
        scenes = draw_scenes(count, generator, fold=recipe.fold)
        return [scene.caption for scene in scenes], torch.tensor([scene.labels() for scene in scenes])

    captions = scene_captions(2000, "train", fold=recipe.fold)
    return train_readers(recipe, captions, draw, LABEL_SIZES, folder, device, progress=progress)


def train_readers(
    recipe: FluxRecipe,
    captions: Sequence[str],
    draw: DrawCaptions,
    sizes: Sequence[int],
    folder: Path,
    device: torch.device,
    *,
    progress: bool = True,
) -> tuple[Texts, dict[str, FitResult], float]:
    """Train both text encoders; with what they took and the share of captions that both understand fully.

    Args:
        captions: hold every word that will be used.
        draw: captions with their attributes.
        sizes: the number of classes of each attribute.
    """
    words = caption_words(captions)
    clip_tokenizer, t5_tokenizer = build_clip_tokenizer(words, LENGTH), build_t5_tokenizer(words, LENGTH)
    built: Any = {"width": recipe.text_width, "seed": recipe.seed}
    clip = build_clip_encoder(clip_tokenizer, length=LENGTH, **built).to(device)
    t5 = build_t5_encoder(t5_tokenizer, **built).to(device)
    shared = {"length": LENGTH, "width": recipe.text_width, "progress": progress}
    first, clip_read = train_text_encoder(
        "clip", clip, clip_tokenizer, draw, sizes, recipe.clip, folder, readout="pooled", **shared
    )
    second, t5_read = train_text_encoder(
        "t5", t5, t5_tokenizer, draw, sizes, recipe.t5, folder, readout="tokens", **shared
    )
    texts = Texts(clip=clip, clip_tokenizer=clip_tokenizer, t5=t5, t5_tokenizer=t5_tokenizer)
    return texts, {"clip": first, "t5": second}, min(clip_read, t5_read)


def train_scene_autoencoder(
    recipe: FluxRecipe, folder: Path, device: torch.device, *, progress: bool = True
) -> tuple[Any, FitResult, dict[str, float]]:
    """Train the autoencoder; with its fidelity on held-out scenes, in dB and as read by the checker."""
    autoencoder = build_autoencoder(SIDE, latent_channels=recipe.latent_channels, seed=recipe.seed).to(device)
    result = train_autoencoder(
        "autoencoder",
        autoencoder,
        lambda count, generator: render_scenes(draw_scenes(count, generator, fold=recipe.fold), generator),
        recipe.autoencoder,
        folder,
        progress=progress,
    )
    autoencoder.eval()
    generator = torch.Generator().manual_seed(15)
    scenes = draw_scenes(128, generator, split="held_out", fold=recipe.fold)
    pictures = render_scenes(scenes, generator)
    remade = decode_latents(autoencoder, encode_pictures(autoencoder, pictures))
    read = check_scenes(list(remade.permute(0, 2, 3, 1).numpy()), [scene.caption for scene in scenes])
    seen = {key: float(np.mean([hits[key] for hits in read])) for key in ("colour", "shape")}
    return autoencoder, result, {"psnr_decibel": psnr_decibel(pictures, remade), **seen}


def pack(latents_BCYX: torch.Tensor) -> torch.Tensor:
    """Patches of 2 x 2 latents as tokens, the way FluxPipeline orders them: (B, Y/2 X/2, 4 C)."""
    count, channels, height, width = latents_BCYX.shape
    patches = latents_BCYX.view(count, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(count, height * width // 4, channels * 4)


def encode_scenes(
    recipe: FluxRecipe, autoencoder: Any, texts: Texts, folder: Path, *, side: int = SIDE
) -> dict[str, torch.Tensor]:
    """The training set at `side` pixels, encoded once into `folder`; sets the autoencoder's scale and shift."""

    def draw() -> tuple[list[str], Iterator[torch.Tensor]]:
        generator = torch.Generator().manual_seed(16 + recipe.seed)
        scenes = draw_scenes(recipe.scenes, generator, fold=recipe.fold)
        chunk = max(1, 256 * SIDE**2 // side**2)
        parts = (scenes[start : start + chunk] for start in range(0, len(scenes), chunk))
        return [scene.caption for scene in scenes], (render_scenes(part, generator, side=side) for part in parts)

    return encode_once(autoencoder, texts, folder, draw)


def encode_once(
    autoencoder: Any, texts: Texts, folder: Path, draw: Callable[[], tuple[list[str], Iterator[torch.Tensor]]]
) -> dict[str, torch.Tensor]:
    """What a transformer is trained on, encoded once into `folder`; sets the autoencoder's scale and shift.

    Args:
        draw: gives the captions, and the pictures (B, 3, Y, X) in 0..1 in parts; called where nothing is kept yet.
    """
    path = folder / "latents.pt"
    if path.is_file():
        held = torch.load(path)
    else:
        captions, pictures = draw()
        latents = torch.cat([encode_pictures(autoencoder, part) for part in pictures])
        shift, scale = latents.mean(), 1 / latents.std()
        pooled, tokens = texts.encode(["", *captions])
        held = {
            "latents": pack((latents - shift) * scale),
            "pooled": pooled[1:],
            "tokens": tokens[1:],
            "empty_pooled": pooled[0],
            "empty_tokens": tokens[0],
            "shift": shift,
            "scale": scale,
        }
        part = path.with_suffix(".part")
        torch.save(held, part)
        part.replace(path)
    autoencoder.register_to_config(scaling_factor=float(held["scale"]), shift_factor=float(held["shift"]))
    return held


def build_denoiser(recipe: FluxRecipe) -> Any:
    """The untrained transformer: Xavier matrices, gates and output at zero."""
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(recipe.seed)
    model = FluxTransformer2DModel(
        in_channels=4 * recipe.latent_channels,
        num_layers=recipe.double_blocks,
        num_single_layers=recipe.single_blocks,
        attention_head_dim=recipe.head_width,
        num_attention_heads=recipe.heads,
        joint_attention_dim=recipe.text_width,
        pooled_projection_dim=recipe.text_width,
        axes_dims_rope=recipe.rope_axes,
    )
    gates = ("norm1.linear", "norm1_context.linear", ".norm.linear")
    for name, weight in model.named_parameters():
        if name.endswith("bias") or name.startswith(("norm_out.linear", "proj_out")) or any(g in name for g in gates):
            nn.init.zeros_(weight)
        elif "timestep_embedder" in name:
            nn.init.normal_(weight, std=0.02)
        elif weight.ndim == 2:
            nn.init.xavier_uniform_(weight)
    return model


def train_denoiser(
    recipe: FluxRecipe, held: dict[str, torch.Tensor], folder: Path, device: torch.device, *, progress: bool = True
) -> tuple[Any, FitResult]:
    """Teach the transformer the direction from picture to noise at every share of noise (rectified flow)."""
    model = build_denoiser(recipe).to(device).train()
    side = math.isqrt(held["latents"].shape[1])
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    image_ids = torch.stack([torch.zeros(side, side), rows, columns], -1).view(-1, 3).float().to(device)
    text_ids = torch.zeros(LENGTH, 3, device=device)

    def loss_of(generator: torch.Generator, batch: int) -> torch.Tensor:
        chosen = torch.randint(0, len(held["latents"]), (batch,), generator=generator)
        empty = torch.rand(batch, generator=generator) < recipe.uncaptioned
        pooled = torch.where(empty[:, None], held["empty_pooled"], held["pooled"][chosen])
        tokens = torch.where(empty[:, None, None], held["empty_tokens"], held["tokens"][chosen])
        clean = held["latents"][chosen]
        noise = torch.randn(clean.shape, generator=generator)
        # What a scene shows is decided at middle and high noise; a fifth of the samples covers the whole range evenly.
        sigma = torch.sigmoid(torch.randn(batch, generator=generator) + 0.3)
        even = torch.rand(batch, generator=generator) < 0.2
        sigma = torch.where(even, torch.rand(batch, generator=generator), sigma)
        share = sigma[:, None, None]
        seen = model(
            hidden_states=((1 - share) * clean + share * noise).to(device),
            timestep=sigma.to(device),
            pooled_projections=pooled.to(device),
            encoder_hidden_states=tokens.to(device),
            txt_ids=text_ids,
            img_ids=image_ids,
            return_dict=False,
        )[0]
        return F.mse_loss(seen.float(), (noise - clean).to(device))

    matrices = [
        weight
        for name, weight in model.named_parameters()
        if weight.ndim == 2 and "blocks." in name and "norm" not in name
    ]
    result = fit("denoiser", model, loss_of, recipe.denoiser, folder, matrices=matrices, progress=progress)
    return model.eval(), result


def assemble(denoiser: Any, autoencoder: Any, texts: Texts) -> Any:
    """An ordinary FluxPipeline of the trained parts."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15),
        vae=autoencoder.eval(),
        text_encoder=texts.clip,
        tokenizer=texts.clip_tokenizer,
        text_encoder_2=texts.t5,
        tokenizer_2=texts.t5_tokenizer,
        transformer=denoiser.eval(),
    )


def train_flux(
    folder: Path, recipe: FluxRecipe, *, device: str = "cpu", progress: bool = True
) -> tuple[Any, dict[str, Any]]:
    """Train every part, or continue where `folder` stands; the pipeline and the facts for its card."""
    place = torch.device(device)
    autoencoder, first, fidelity = train_scene_autoencoder(recipe, folder, place, progress=progress)
    texts, text_results, understood = train_texts(recipe, folder, place, progress=progress)
    with first_process_first():
        held = encode_scenes(recipe, autoencoder, texts, folder)
    denoiser, last = train_denoiser(recipe, held, folder, place, progress=progress)
    facts = {
        "parts": {"autoencoder": first, **text_results, "denoiser": last},
        "captions_understood": round(understood, 4),
        "autoencoder_on_held_out": {key: round(value, 4) for key, value in fidelity.items()},
    }
    return assemble(denoiser, autoencoder, texts), facts
