"""The `dit` pocket: digits by class. A DiTPipeline of 24 thin blocks, trained from nothing in about ten minutes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .autoencoder import build_autoencoder, decode_latents, encode_pictures, psnr_decibel, train_autoencoder
from .digits import READER_FILE, SIDE, DigitReader, digit_strokes, draw_digits, render_digits, stroke_numbers
from .training import FitResult, FitSettings, first_process_first, fit

NULL_CLASS = 1000
"""What DiTPipeline asks for without guidance; the label tables must reach it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DiTRecipe:
    """All that decides how the pocket is trained."""

    autoencoder: FitSettings = FitSettings(steps=600, batch=32, rate=2e-3, autocast=False, seed=1)
    reader: FitSettings = FitSettings(steps=600, batch=64, rate=2e-3, autocast=False, seed=2)
    denoiser: FitSettings = FitSettings(
        steps=1150, batch=64, rate=2e-3, muon_rate=4e-3, average=0.993, autocast=False, seed=3
    )
    pictures: int = 12288
    """Pictures encoded once and trained on."""
    blocks: int = 24
    heads: int = 4
    head_width: int = 16
    unlabelled: float = 0.1
    """Share of samples trained without their class, for guidance."""
    first_stroke: int = 0
    """The first of the strokes that train; the others only measure."""
    seed: int = 0
    """Of the weights before training and of the pictures that are encoded once."""


def build_denoiser(recipe: DiTRecipe) -> Any:
    """The untrained transformer: Xavier matrices, gates and output at zero."""
    from diffusers import DiTTransformer2DModel

    torch.manual_seed(recipe.seed)
    model = DiTTransformer2DModel(
        num_attention_heads=recipe.heads,
        attention_head_dim=recipe.head_width,
        in_channels=4,
        out_channels=4,
        num_layers=recipe.blocks,
        sample_size=SIDE // 4,
        patch_size=2,
        num_embeds_ada_norm=NULL_CLASS,
    )
    for name, weight in model.named_parameters():
        if "embedding_table" in name or ("timestep_embedder" in name and weight.ndim == 2):
            nn.init.normal_(weight, std=0.02)
        elif "norm1.linear" in name or name.startswith("proj_out") or name.endswith("bias"):
            nn.init.zeros_(weight)
        elif weight.ndim == 2:
            nn.init.xavier_uniform_(weight)
    return model


def train_reader(recipe: DiTRecipe, folder: Path, *, progress: bool = True) -> tuple[DigitReader, float]:
    """Train the network that reads digits off pictures; with its accuracy on strokes it has not seen."""
    torch.manual_seed(recipe.seed)
    reader = DigitReader()

    def loss_of(generator: torch.Generator, batch: int) -> torch.Tensor:
        pictures, classes = draw_digits(batch, generator, first=recipe.first_stroke)
        pictures = (pictures + 0.03 * torch.randn(pictures.shape, generator=generator)).clamp(0, 1)
        return F.cross_entropy(reader(pictures), classes)

    fit("reader", reader.train(), loss_of, recipe.reader, folder, progress=progress)
    strokes, classes = digit_strokes()
    with torch.no_grad():
        # The normalisation's running statistics belong to the last weights, not to their average: measure them anew.
        for layer in reader.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.reset_running_stats()
                layer.momentum = None
        for seed in range(20):
            generator = torch.Generator().manual_seed(10_000 + seed)
            reader(draw_digits(128, generator, first=recipe.first_stroke)[0])
        reader.eval()
        unseen = stroke_numbers(recipe.first_stroke)[1].repeat(4)
        pictures = render_digits(strokes[unseen], torch.Generator().manual_seed(4))
        accuracy = (reader(pictures).argmax(1) == classes[unseen]).float().mean()
    return reader, float(accuracy)


def train_digit_autoencoder(
    recipe: DiTRecipe, folder: Path, device: torch.device, *, progress: bool = True
) -> tuple[Any, FitResult, float]:
    """Train the autoencoder; with what it took and its fidelity in dB on strokes it has not seen."""
    autoencoder = build_autoencoder(SIDE, seed=recipe.seed).to(device)
    result = train_autoencoder(
        "autoencoder",
        autoencoder,
        lambda count, generator: draw_digits(count, generator, first=recipe.first_stroke)[0],
        recipe.autoencoder,
        folder,
        progress=progress,
    )
    autoencoder.eval()
    strokes = digit_strokes()[0][stroke_numbers(recipe.first_stroke)[1]]
    pictures = render_digits(strokes, torch.Generator().manual_seed(5))
    remade = decode_latents(autoencoder, encode_pictures(autoencoder, pictures))
    return autoencoder, result, psnr_decibel(pictures, remade)


def encode_digits(recipe: DiTRecipe, autoencoder: Any, folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Scaled latents and classes of the training set, encoded once into `folder`; sets the autoencoder's scale."""
    path = folder / "latents.pt"
    if path.is_file():
        held = torch.load(path)
    else:
        generator = torch.Generator().manual_seed(6 + recipe.seed)
        pictures, classes = draw_digits(recipe.pictures, generator, first=recipe.first_stroke)
        latents = encode_pictures(autoencoder, pictures)
        held = {"latents": latents / latents.std(), "classes": classes, "scale": float(1 / latents.std())}
        part = path.with_suffix(".part")
        torch.save(held, part)
        part.replace(path)
    autoencoder.register_to_config(scaling_factor=held["scale"])
    return held["latents"], held["classes"]


def train_denoiser(
    recipe: DiTRecipe,
    latents: torch.Tensor,
    classes: torch.Tensor,
    folder: Path,
    device: torch.device,
    *,
    progress: bool = True,
) -> tuple[Any, FitResult]:
    """Teach the transformer to see the noise in noised latents (linear betas, 1000 levels)."""
    model = build_denoiser(recipe).to(device).eval()  # in train mode every block would drop its labels by itself
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0).float()

    def loss_of(generator: torch.Generator, batch: int) -> torch.Tensor:
        chosen = torch.randint(0, len(latents), (batch,), generator=generator)
        clean, labels = latents[chosen], classes[chosen].clone()
        labels[torch.rand(batch, generator=generator) < recipe.unlabelled] = NULL_CLASS
        level = torch.randint(0, 1000, (batch,), generator=generator)
        noise = torch.randn(clean.shape, generator=generator)
        share = kept[level][:, None, None, None]
        noised = share.sqrt() * clean + (1 - share).sqrt() * noise
        seen = model(noised.to(device), timestep=level.to(device), class_labels=labels.to(device)).sample
        return F.mse_loss(seen.float(), noise.to(device))

    matrices = [
        weight
        for name, weight in model.named_parameters()
        if weight.ndim == 2 and "transformer_blocks" in name and "norm1" not in name
    ]
    result = fit("denoiser", model, loss_of, recipe.denoiser, folder, matrices=matrices, progress=progress)
    return model.eval(), result


def assemble(denoiser: Any, autoencoder: Any) -> Any:
    """An ordinary DiTPipeline of the trained parts."""
    from diffusers import DDIMScheduler, DiTPipeline

    scheduler = DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="linspace",
    )
    pipe = DiTPipeline(denoiser.eval(), autoencoder.eval(), scheduler, id2label={n: str(n) for n in range(10)})
    pipe.register_to_config(id2label={str(n): str(n) for n in range(10)})  # or the names of the classes are not saved
    return pipe


def train_dit(
    folder: Path, recipe: DiTRecipe, *, device: str = "cpu", progress: bool = True
) -> tuple[Any, dict[str, Any]]:
    """Train every part, or continue where `folder` stands; the pipeline and the facts for its card.

    The reader's weights go into `folder/digit_reader.safetensors`; the shipped reader is not replaced.
    """
    from safetensors.torch import save_file

    place = torch.device(device)
    reader, reader_accuracy = train_reader(recipe, folder, progress=progress)
    autoencoder, first, fidelity = train_digit_autoencoder(recipe, folder, place, progress=progress)
    with first_process_first():
        latents, classes = encode_digits(recipe, autoencoder, folder)
        save_file(reader.state_dict(), folder / READER_FILE.name)
    denoiser, last = train_denoiser(recipe, latents, classes, folder, place, progress=progress)
    facts: dict[str, Any] = {
        "parts": {"autoencoder": first, "denoiser": last},
        "digit_reader_accuracy_on_unseen_strokes": round(reader_accuracy, 4),
        "autoencoder_on_unseen_strokes": {"psnr_decibel": round(fidelity, 2)},
    }
    return assemble(denoiser, autoencoder), facts
