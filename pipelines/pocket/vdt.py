"""The `vdt` pocket: one model for seven tasks on clips of moving digits. First an image DiT, then a VDT of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..vdt import VDTPipeline, VDTTransformer3DModel, compose, draw_masks, masked_error
from .moving_digits import FRAMES, SIDE, draw_moving_digits
from .training import FitResult, FitSettings, fit


@dataclass(frozen=True, kw_only=True, slots=True)
class VDTRecipe:
    """All that decides how the pocket is trained."""

    image: FitSettings = FitSettings(
        steps=300, batch=96, rate=2e-3, muon_rate=4e-3, average=0.99, autocast=False, seed=31
    )
    denoiser: FitSettings = FitSettings(
        steps=6000, batch=16, rate=2e-3, muon_rate=4e-3, average=0.998, autocast=False, seed=32
    )
    blocks: int = 6
    heads: int = 4
    head_width: int = 24
    patch: int = 4


def build_image_model(recipe: VDTRecipe, *, seed: int = 0) -> Any:
    """The untrained image DiT: Xavier matrices, gates and output at zero."""
    from diffusers import DiTTransformer2DModel

    torch.manual_seed(seed)
    model = DiTTransformer2DModel(
        num_attention_heads=recipe.heads,
        attention_head_dim=recipe.head_width,
        in_channels=3,
        num_layers=recipe.blocks,
        sample_size=SIDE,
        patch_size=recipe.patch,
        num_embeds_ada_norm=1,
    )
    for name, weight in model.named_parameters():
        if "embedding_table" in name or ("timestep_embedder" in name and weight.ndim == 2):
            nn.init.normal_(weight, std=0.02)
        elif "norm1.linear" in name or name.startswith("proj_out") or name.endswith("bias"):
            nn.init.zeros_(weight)
        elif weight.ndim == 2:
            nn.init.xavier_uniform_(weight)
    return model


def build_scheduler() -> Any:
    """Cosine levels of noise, of which more than of linear ones lie where small pictures and clouds are decided.

    The model sees the velocity, which stays defined in pure noise.
    """
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
    )


def noised(clean: torch.Tensor, scheduler: Any, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    """`clean` under noise of levels drawn for it, the levels, and the velocity to be seen in it."""
    level = torch.randint(0, scheduler.config.num_train_timesteps, (len(clean),), generator=generator)
    noise = torch.randn(clean.shape, generator=generator)
    return scheduler.add_noise(clean, noise, level), level, scheduler.get_velocity(clean, noise, level)


def matrices_of(model: nn.Module) -> list[nn.Parameter]:
    """The matrices that Muon trains: those of attention and feed-forward in the blocks."""
    return [w for name, w in model.named_parameters() if w.ndim == 2 and "_blocks" in name and "norm1" not in name]


def train_image_model(
    recipe: VDTRecipe, folder: Path, device: torch.device, *, progress: bool = True
) -> tuple[Any, FitResult]:
    """Teach an image DiT single frames."""
    model = build_image_model(recipe).to(device).eval()  # in train mode blocks would drop their labels by themselves
    scheduler = build_scheduler()

    def loss_of(generator: torch.Generator, batch: int) -> torch.Tensor:
        clips, _ = draw_moving_digits(batch, generator, frames=1)
        x, level, velocity = noised(clips[:, 0].permute(0, 3, 1, 2) * 2 - 1, scheduler, generator)
        labels = torch.zeros(batch, dtype=torch.long, device=device)
        seen = model(x.to(device), timestep=level.to(device), class_labels=labels).sample
        return F.mse_loss(seen.float(), velocity.to(device))

    result = fit("image", model, loss_of, recipe.image, folder, matrices=matrices_of(model), progress=progress)
    return model, result


def train_video_model(
    recipe: VDTRecipe,
    image_model: Any,
    folder: Path,
    device: torch.device,
    *,
    progress: bool = True,
) -> tuple[VDTTransformer3DModel, FitResult]:
    """Make a VDT from the image model and teach it all tasks at once."""
    torch.manual_seed(1)
    model = VDTTransformer3DModel.from_image(image_model, num_frames=FRAMES).to(device).eval()
    scheduler = build_scheduler()

    def loss_of(generator: torch.Generator, batch: int) -> torch.Tensor:
        clean = draw_moving_digits(batch, generator)[0].permute(0, 4, 1, 2, 3) * 2 - 1
        x, level, velocity = noised(clean, scheduler, generator)
        masks = draw_masks(batch, (FRAMES, SIDE, SIDE), generator, patch=recipe.patch)
        seen = model(compose(x, clean, masks).to(device), level.to(device)).sample
        return masked_error(seen.float(), velocity.to(device), masks.to(device))

    result = fit("denoiser", model, loss_of, recipe.denoiser, folder, matrices=matrices_of(model), progress=progress)
    return model, result


def train_vdt(
    folder: Path, recipe: VDTRecipe, *, device: str = "cpu", progress: bool = True
) -> tuple[Any, dict[str, Any]]:
    """Train every part, or continue where `folder` stands; the pipeline and the facts for the card."""
    place = torch.device(device)
    image_model, first = train_image_model(recipe, folder, place, progress=progress)
    model, last = train_video_model(recipe, image_model, folder, place, progress=progress)
    return VDTPipeline(model, build_scheduler()), {"parts": {"image": first, "denoiser": last}}
