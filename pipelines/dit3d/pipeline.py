"""Point clouds by class from a DiT-3D, as points, as pictures and as PLY files.

Legend: B clouds, N points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor

from ...errors import InputError
from .model import DiT3DTransformerModel
from .picture import picture
from .ply import write_ply


@dataclass
class DiT3DPipelineOutput(BaseOutput):
    """What was made."""

    points: Any
    """(B, N, 3); numpy, or a tensor for output_type "pt"."""
    images: Any
    """A picture of each cloud, (B, Y, X, 3) in 0..1, or PIL images; None where points alone were asked for."""

    def save(self, folder: str | Path, stem: str = "cloud") -> list[Path]:
        """Write every cloud as STEM-000.ply and so on into `folder`. Raises: InputError where that cannot be done."""
        place = Path(folder).expanduser()
        clouds = self.points.float().cpu().numpy() if isinstance(self.points, torch.Tensor) else self.points
        return [write_ply(cloud, place / f"{stem}-{index:03d}.ply") for index, cloud in enumerate(clouds)]


class DiT3DPipeline(DiffusionPipeline):
    """Makes clouds of points of the classes that are asked for.

    Args:
        transformer: a DiT3DTransformerModel.
        scheduler: any of diffusers' that steps by `step(output, timestep, sample)`.
        id2label: names of the classes, by number as text.
        scale: what the model's points, of about unit spread, are multiplied by.
        num_points: points of a cloud unless told otherwise.

    >>> made = pipe(class_labels=[2, 0], guidance_scale=2.0)  # doctest: +SKIP
    >>> made.save("clouds"), made.images[0]  # doctest: +SKIP
    """

    model_cpu_offload_seq = "transformer"

    def __init__(
        self,
        transformer: DiT3DTransformerModel,
        scheduler: Any,
        id2label: dict[str, str] | None = None,
        scale: float = 1.0,
        num_points: int = 2048,
    ) -> None:
        super().__init__()
        self.register_modules(transformer=transformer, scheduler=scheduler)
        self.register_to_config(id2label=dict(id2label or {}), scale=scale, num_points=num_points)
        self.labels = {name: int(number) for number, name in (id2label or {}).items()}

    @torch.no_grad()
    def __call__(
        self,
        class_labels: Sequence[int | str] = (0,),
        *,
        num_points: int | None = None,
        guidance_scale: float = 1.0,
        num_inference_steps: int = 50,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> Any:
        """A cloud a class.

        Args:
            class_labels: numbers, or names of the pipeline's own.
            num_points: any number; the model was trained at one.
            guidance_scale: above 1 each cloud is made more typical of its class, at twice the work.
            generator: one for all clouds, or one a cloud, which then does not depend on its batch.
            output_type: "pil" or "np": points and pictures; "pt": points as a tensor, no pictures; "latent": points as
                the model has them, as a tensor.

        Raises: InputError for a class that there is not, no points, or an output_type that is none.
        """
        if output_type not in ("pil", "np", "pt", "latent"):
            raise InputError(f"no output_type '{output_type}'; choose pil, np, pt or latent")
        own: Any = self.config
        classes = self.transformer.config.num_embeds_ada_norm
        numbers = [self._number(label, classes) for label in class_labels]
        count, points = len(numbers), own.num_points if num_points is None else num_points
        if count < 1 or points < 2:
            raise InputError(f"{count} clouds of {points} points: ask for at least one cloud, of 2 points or more")
        labels = torch.tensor(numbers, device=self.device)
        shape = (count, points, self.transformer.config.in_channels)
        self.scheduler.set_timesteps(num_inference_steps, device=self.device)
        cloud = randn_tensor(shape, generator=generator, device=self.device, dtype=self.transformer.dtype)
        cloud = cloud * self.scheduler.init_noise_sigma
        guided = guidance_scale > 1
        if guided:
            labels = torch.cat([labels, torch.full_like(labels, classes)])
        progress: Any = self.progress_bar
        for moment in progress(self.scheduler.timesteps):
            seen = self.scheduler.scale_model_input(cloud, moment)
            seen = torch.cat([seen, seen]) if guided else seen
            output = self.transformer(seen, moment.expand(len(seen)), labels, return_dict=False)[0]
            if guided:
                asked, any_ = output.chunk(2)
                output = any_ + guidance_scale * (asked - any_)
            cloud = self.scheduler.step(output, moment, cloud, return_dict=False)[0]
        self.maybe_free_model_hooks()
        made: Any = cloud if output_type == "latent" else cloud * own.scale
        images: Any = None
        if output_type in ("pil", "np"):
            made = made.float().cpu().numpy()
            images = np.stack([picture(cloud[:, :3]) for cloud in made])
            images = self.numpy_to_pil(images) if output_type == "pil" else images
        return DiT3DPipelineOutput(points=made, images=images) if return_dict else (made, images)

    def _number(self, label: int | str, classes: int) -> int:
        number = self.labels.get(label) if isinstance(label, str) else int(label)
        if number is None or not 0 <= number < classes:
            names = f", or {', '.join(self.labels)}" if self.labels else ""
            raise InputError(f"'{label}' is no class of this pipeline; give a number from 0 to {classes - 1}{names}")
        return number
