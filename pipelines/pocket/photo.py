"""The `photo` pocket: crops of real photographs, harder than drawn scenes. A FluxPipeline of 16 blocks and 256 tokens.

Drawn scenes are smooth: a forecast of them is 20 dB nearer to the plain picture than one of FLUX.1 is. Texture is not,
and with classifier-free guidance each step counts for more. Parts and training are those of `flux`; the recipe takes
about two hours on one core with AMX, or minutes on a GPU. What is shipped was trained for two thirds of it
(docs/photo.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .autoencoder import build_autoencoder, decode_latents, encode_pictures, psnr_decibel, train_autoencoder
from .flux import FluxRecipe, assemble, encode_once, train_denoiser, train_readers
from .photographs import CAPTIONS, LABEL_SIZES, SIDE, crops, draw_numbers, labels_of
from .training import FitResult, FitSettings, first_process_first

WINDOW = 64
"""Side of the windows of crops that the autoencoder is trained on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PhotoRecipe(FluxRecipe):
    """A recipe of `flux`, and which crops are trained on."""

    left_from: float = 0.0
    """Share of the places along a photograph's width that no crop is taken from."""


PHOTO = PhotoRecipe(
    autoencoder=FitSettings(steps=2000, batch=16, rate=2e-3, autocast=False, seed=41),
    clip=FitSettings(steps=200, batch=64, rate=3e-3, autocast=False, seed=42),
    t5=FitSettings(steps=200, batch=64, rate=3e-3, autocast=False, seed=43),
    denoiser=FitSettings(
        steps=3000,
        batch=16,
        rate=1.5e-3,
        muon_rate=3e-3,
        average=0.998,
        warmup=100,
        compiled=True,
        seed=44,
    ),
    scenes=8192,
    latent_channels=8,
    double_blocks=2,
    single_blocks=14,
    heads=4,
    head_width=64,
    rope_axes=(16, 24, 24),
    seed=40,
)


def train_photo_autoencoder(
    recipe: PhotoRecipe, folder: Path, device: torch.device, *, progress: bool = True
) -> tuple[Any, FitResult, float]:
    """Train the autoencoder on windows of crops; with what it took and its fidelity in dB on other crops."""
    autoencoder = build_autoencoder(SIDE, latent_channels=recipe.latent_channels, seed=recipe.seed).to(device)

    def draw(count: int, generator: torch.Generator) -> torch.Tensor:
        pictures = crops(draw_numbers(count, generator), generator, left_from=recipe.left_from)
        down, right = torch.randint(0, SIDE - WINDOW + 1, (2,), generator=generator).tolist()
        return pictures[:, :, down : down + WINDOW, right : right + WINDOW]

    result = train_autoencoder("autoencoder", autoencoder, draw, recipe.autoencoder, folder, progress=progress)
    autoencoder.eval()
    generator = torch.Generator().manual_seed(45)
    pictures = crops(list(range(len(CAPTIONS))), generator)
    return (
        autoencoder,
        result,
        psnr_decibel(pictures, decode_latents(autoencoder, encode_pictures(autoencoder, pictures))),
    )


def train_photo(
    folder: Path,
    recipe: PhotoRecipe = PHOTO,
    *,
    whole: PhotoRecipe = PHOTO,
    device: str = "cpu",
    progress: bool = True,
) -> tuple[Any, dict[str, Any]]:
    """Train every part, or continue where `folder` stands; the pipeline and the facts for its card.

    Args:
        whole: what `recipe` may be a shorter run of; the card says which share was trained.
    """
    place = torch.device(device)
    folder.mkdir(parents=True, exist_ok=True)
    autoencoder, first, fidelity = train_photo_autoencoder(recipe, folder, place, progress=progress)

    def captions(count: int, generator: torch.Generator) -> tuple[list[str], torch.Tensor]:
        numbers = draw_numbers(count, generator)
        return [CAPTIONS[number] for number in numbers], torch.tensor([labels_of(number) for number in numbers])

    def pictures() -> tuple[list[str], Iterator[torch.Tensor]]:
        generator = torch.Generator().manual_seed(46 + recipe.seed)
        numbers = draw_numbers(recipe.scenes, generator)
        parts = (numbers[start : start + 128] for start in range(0, len(numbers), 128))
        return [CAPTIONS[number] for number in numbers], (
            crops(part, generator, left_from=recipe.left_from) for part in parts
        )

    texts, text_results, understood = train_readers(
        recipe, CAPTIONS, captions, LABEL_SIZES, folder, place, progress=progress
    )
    with first_process_first():
        held = encode_once(autoencoder, texts, folder, pictures)
    denoiser, last = train_denoiser(recipe, held, folder, place, progress=progress)
    facts = {
        "parts": {"autoencoder": first, **text_results, "denoiser": last},
        "captions_understood": round(understood, 4),
        "autoencoder_on_other_crops": {"psnr_decibel": round(fidelity, 2)},
        "share_of_recipe_trained": round(last.steps / whole.denoiser.steps, 6),
    }
    return assemble(denoiser, autoencoder, texts), facts


def unguided(prompts: Sequence[Any]) -> dict[str, Any]:
    """The empty captions that guidance leads away from: FluxPipeline wants one a prompt."""
    return {"negative_prompt": [""] * len(prompts)}
