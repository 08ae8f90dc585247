"""The `wan` pocket: captioned clips of one moving shape. A WanPipeline of 20 thin blocks, trained from nothing.

Guided as Wan is, with one call of the transformer for the caption and one for the empty caption.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from . import clips
from .clips import FOLD, SMALL, Stage
from .text import AttributeReader, build_t5_tokenizer, caption_words
from .training import FitResult, FitSettings, first_process_first, fit

LENGTH = 8
"""Tokens of a caption; pass it as `max_sequence_length`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WanRecipe:
    """All that decides how the pocket is trained."""

    autoencoder: FitSettings = FitSettings(steps=1500, batch=8, rate=2e-3, average=0.99, autocast=False, seed=21)
    text: FitSettings = FitSettings(steps=250, batch=64, rate=2e-3, average=0.98, autocast=False, seed=22)
    denoiser: FitSettings = FitSettings(
        steps=900, batch=32, rate=2e-3, muon_rate=4e-3, average=0.995, autocast=False, seed=23
    )
    clips: int = 6144
    """Clips encoded once and trained on."""
    latent_channels: int = 8
    text_width: int = 64
    blocks: int = 20
    heads: int = 4
    head_width: int = 20
    feed_forward: int = 240
    uncaptioned: float = 0.1
    """Share of samples trained with the empty caption, for guidance."""
    patch: int = 2
    """Latents a token covers, in height and in width."""
    query_gain: float = 1.0
    """Of the normalised queries before training: higher starts with sharper attention."""
    shift: float = 2.0
    """Of the scheduler's noise levels, towards noise."""
    stage: Stage = SMALL
    """What the autoencoder sees, and the denoiser."""
    fold: int = FOLD
    """Of captions that are held out."""
    seed: int = 0
    """Of the weights before training and of the clips that are encoded once."""


def build_autoencoder(latent_channels: int, *, seed: int = 0) -> Any:
    """An untrained video autoencoder: four times smaller in space, twice in time."""
    from diffusers import AutoencoderKLWan

    torch.manual_seed(seed)
    return AutoencoderKLWan(
        base_dim=16,
        z_dim=latent_channels,
        dim_mult=[1, 2],
        num_res_blocks=1,
        attn_scales=[],
        temperal_downsample=[True],
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=4,
        scale_factor_temporal=2,
        latents_mean=[0.0] * latent_channels,
        latents_std=[1.0] * latent_channels,
    )


def draw_clips(
    count: int, generator: torch.Generator, stage: clips.Stage = clips.SMALL, *, fold: int = clips.FOLD
) -> tuple[list[clips.Clip], torch.Tensor]:
    """`count` training clips with their pictures (B, 3, T, Y, X) in -1..1, decided by `generator`."""
    source = random.Random(int(torch.randint(0, 2**62, (1,), generator=generator)))
    drawn = clips.draw(source, count, fold=fold)
    media = torch.from_numpy(clips.render(drawn, source, stage)).permute(0, 4, 1, 2, 3)
    return drawn, media.contiguous() * 2 - 1


def train_clip_autoencoder(
    recipe: WanRecipe, folder: Path, device: torch.device, *, progress: bool = True
) -> tuple[Any, FitResult, dict[str, float]]:
    """Train the autoencoder and measure its latents; with its fidelity on fresh clips, in dB and as read."""
    model = build_autoencoder(recipe.latent_channels, seed=recipe.seed).to(device)

    def loss_of(generator: torch.Generator, batch: int) -> torch.Tensor:
        media = draw_clips(batch, generator, recipe.stage, fold=recipe.fold)[1].to(device)
        mean, log_variance = model.encode(media).latent_dist.parameters.float().chunk(2, 1)
        log_variance = log_variance.clamp(-12, 4)
        noise = torch.randn(mean.shape, generator=generator).to(device)
        remade = model._decode(mean + noise * (0.5 * log_variance).exp(), return_dict=False)[0].float()
        # A small bright shape on a large dark frame: without the weight the frame alone is learnt.
        weight = 1 + 4 * (media > 2 * (recipe.stage.ceiling + 0.04) - 1).any(1, keepdim=True).float()
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        return (weight * ((remade - media).abs() + 2 * (remade - media) ** 2)).mean() + 1e-3 * divergence

    result = fit("autoencoder", model.train(), loss_of, recipe.autoencoder, folder, progress=progress)
    model.eval()
    drawn, media = draw_clips(96, torch.Generator().manual_seed(999_979), recipe.stage, fold=recipe.fold)
    with torch.no_grad():
        latents = torch.cat([model.encode(part.to(device)).latent_dist.mode() for part in media.split(16)])
        remade = torch.cat([model.decode(part).sample for part in latents.split(16)]).cpu().clamp(-1, 1)
    model.register_to_config(
        latents_mean=latents.mean((0, 2, 3, 4)).tolist(), latents_std=latents.std((0, 2, 3, 4)).tolist()
    )
    pictures = [clip.permute(1, 2, 3, 0).numpy() / 2 + 0.5 for clip in remade]
    hits = clips.check(pictures, [clip.caption for clip in drawn], recipe.stage)
    facts = {name: float(np.mean([hit[name] for hit in hits])) for name in hits[0]}
    facts["psnr_decibel"] = float(-10 * torch.log10(F.mse_loss(remade / 2, media / 2)))
    return model, result, facts


def encode_captions(encoder: Any, tokenizer: Any, captions: list[str]) -> torch.Tensor:
    """Text as WanPipeline gives it to the denoiser: (B, LENGTH, width), zero behind the end of each caption."""
    read = tokenizer(captions, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
    device = next(encoder.parameters()).device
    mask = read.attention_mask.to(device)
    return encoder(read.input_ids.to(device), mask).last_hidden_state * mask[..., None]


def train_text(
    recipe: WanRecipe, folder: Path, device: torch.device, *, progress: bool = True
) -> tuple[Any, Any, FitResult, float]:
    """Train the text encoder to say what a caption says; with the share of all captions it understands fully."""
    from transformers import UMT5Config, UMT5EncoderModel

    captions = [clip.caption for clip in clips.EVERY_CLIP]
    tokenizer = build_t5_tokenizer(caption_words(captions), LENGTH)
    torch.manual_seed(recipe.seed)
    config = UMT5Config(
        vocab_size=len(tokenizer),
        d_model=recipe.text_width,
        d_kv=recipe.text_width // 4,
        d_ff=2 * recipe.text_width,
        num_layers=2,
        num_heads=4,
        relative_attention_num_buckets=16,
        relative_attention_max_distance=16,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
    )
    encoder: Any = UMT5EncoderModel(config)
    encoder.to(device)
    reader = AttributeReader(recipe.text_width, [len(values) for values in clips.ATTRIBUTES.values()]).to(device)
    both = nn.ModuleDict({"encoder": encoder, "reader": reader})
    labels = torch.tensor([clip.labels() for clip in clips.EVERY_CLIP])

    def loss_of(generator: torch.Generator, batch: int) -> torch.Tensor:
        chosen = torch.randint(0, len(captions), (batch,), generator=generator)
        encoded = encode_captions(encoder, tokenizer, [captions[i] for i in chosen])
        wrong = [
            F.cross_entropy(scores.float(), labels[chosen, index].to(device))
            for index, scores in enumerate(reader(encoded))
        ]
        return torch.stack(wrong).sum() + 1e-3 * encoded.float().square().mean()

    result = fit("text", both.train(), loss_of, recipe.text, folder, progress=progress)
    encoder.eval().requires_grad_(False)
    with torch.no_grad():
        scores = reader(encode_captions(encoder, tokenizer, captions))
    right = torch.stack([s.argmax(1).cpu() == labels[:, index] for index, s in enumerate(scores)]).all(0)
    return encoder, tokenizer, result, float(right.float().mean())


def build_denoiser(recipe: WanRecipe) -> Any:
    """The untrained transformer."""
    from diffusers import WanTransformer3DModel

    torch.manual_seed(recipe.seed)
    model = WanTransformer3DModel(
        patch_size=(1, recipe.patch, recipe.patch),
        num_attention_heads=recipe.heads,
        attention_head_dim=recipe.head_width,
        in_channels=recipe.latent_channels,
        out_channels=recipe.latent_channels,
        text_dim=recipe.text_width,
        freq_dim=64,
        ffn_dim=recipe.feed_forward,
        num_layers=recipe.blocks,
        rope_max_seq_len=64,
    )
    for name, weight in model.named_parameters():
        if name.endswith(("attn1.to_out.0.weight", "attn2.to_out.0.weight", "ffn.net.2.weight")):
            nn.init.normal_(weight, std=0.02)
        elif name.startswith("proj_out"):
            nn.init.zeros_(weight)
        elif name.endswith("attn1.norm_q.weight"):
            nn.init.constant_(weight, recipe.query_gain)
    return model


@torch.no_grad()
def encode_clips(
    recipe: WanRecipe, autoencoder: Any, encoder: Any, tokenizer: Any, folder: Path, name: str = "latents"
) -> dict[str, torch.Tensor]:
    """Normalised latents and encoded captions of the training set, encoded once into `folder`."""
    path = folder / f"{name}.pt"
    if path.is_file():
        return torch.load(path)
    generator = torch.Generator().manual_seed(24 + recipe.seed)
    device = next(autoencoder.parameters()).device
    mean, std = (
        torch.tensor(v).view(1, -1, 1, 1, 1) for v in (autoencoder.config.latents_mean, autoencoder.config.latents_std)
    )
    latents, texts = [], []
    for _ in range(recipe.clips // 32):
        drawn, media = draw_clips(32, generator, recipe.stage, fold=recipe.fold)
        made = autoencoder.encode(media.to(device)).latent_dist.mode().float().cpu()
        latents.append(((made - mean) / std).half())
        texts.append(encode_captions(encoder, tokenizer, [clip.caption for clip in drawn]).cpu().half())
    held = {"latents": torch.cat(latents), "texts": torch.cat(texts)}
    held["empty"] = encode_captions(encoder, tokenizer, [""]).cpu()
    part = path.with_suffix(".part")
    torch.save(held, part)
    part.replace(path)
    return held


def train_denoiser(
    recipe: WanRecipe,
    held: dict[str, torch.Tensor],
    folder: Path,
    device: torch.device,
    *,
    model: Any = None,
    name: str = "denoiser",
    progress: bool = True,
) -> tuple[Any, FitResult]:
    """Teach the transformer, a new one unless `model` is given, the velocity from clips to noise."""
    model = (build_denoiser(recipe) if model is None else model).to(device)

    def loss_of(generator: torch.Generator, batch: int) -> torch.Tensor:
        chosen = torch.randint(0, len(held["latents"]), (batch,), generator=generator)
        clean, text = held["latents"][chosen].float(), held["texts"][chosen].float()
        text[torch.rand(batch, generator=generator) < recipe.uncaptioned] = held["empty"][0].float()
        sigma = torch.sigmoid(torch.randn(batch, generator=generator) + 0.3)
        even = torch.rand(batch, generator=generator)
        sigma = torch.where(torch.rand(batch, generator=generator) < 0.2, even, sigma)
        noise = torch.randn(clean.shape, generator=generator)
        level = sigma[:, None, None, None, None]
        noised = (1 - level) * clean + level * noise
        seen = model(noised.to(device), (sigma * 1000).to(device), text.to(device), return_dict=False)[0]
        return F.mse_loss(seen.float(), (noise - clean).to(device))

    matrices = [w for name, w in model.named_parameters() if w.ndim == 2 and name.startswith("blocks.")]
    result = fit(name, model.train(), loss_of, recipe.denoiser, folder, matrices=matrices, progress=progress)
    return model.eval(), result


def assemble(recipe: WanRecipe, denoiser: Any, autoencoder: Any, encoder: Any, tokenizer: Any) -> Any:
    """An ordinary WanPipeline of the trained parts."""
    from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline

    return WanPipeline(
        tokenizer=tokenizer,
        text_encoder=encoder.eval(),
        vae=autoencoder.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=recipe.shift),
        transformer=denoiser.eval(),
    )


def train_wan(
    folder: Path, recipe: WanRecipe, *, device: str = "cpu", progress: bool = True
) -> tuple[Any, dict[str, Any]]:
    """Train every part, or continue where `folder` stands; the pipeline and the facts for the card."""
    place = torch.device(device)
    autoencoder, first, fidelity = train_clip_autoencoder(recipe, folder, place, progress=progress)
    encoder, tokenizer, second, understood = train_text(recipe, folder, place, progress=progress)
    with first_process_first():
        held = encode_clips(recipe, autoencoder, encoder, tokenizer, folder)
    denoiser, last = train_denoiser(recipe, held, folder, place, progress=progress)
    facts: dict[str, Any] = {
        "parts": {"autoencoder": first, "text": second, "denoiser": last},
        "captions_understood": round(understood, 4),
        "autoencoder": {name: round(value, 4) for name, value in fidelity.items()},
    }
    return assemble(recipe, denoiser, autoencoder, encoder, tokenizer), facts
