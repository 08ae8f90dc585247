"""LaDiNE as a diffusers pipeline: pictures in, probabilities with intervals out.

Legend: B pictures, C channels or classes, K members, M samples of a member.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput

from ...errors import ConfigError, InputError
from .chart import draw_chart
from .denoiser import LadineDenoiser
from .encoder import LadineEncoder
from .mapping import LadineMapping
from .sampling import AVERAGES, answer, draw_labels
from .scheduler import LadineScheduler


@dataclass
class LadinePipelineOutput(BaseOutput):
    """What was seen in each picture; see `sampling.Answer` for the meaning of a field."""

    images: Any
    """Charts of picture, probabilities and intervals: (B, Y, X, 3) in 0..1 ("np") or Pillow images ("pil"); None for
    "probabilities"."""
    probabilities: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    width: torch.Tensor
    variance: torch.Tensor
    votes: torch.Tensor
    labels: torch.Tensor
    """(K * M, B, C): every sample."""


class LadinePipeline(DiffusionPipeline):
    """Classifies pictures by a mixture of K diffusion members on labels.

    Source: Shen et al., arXiv:2310.15952, algorithm 1 and section III-D.

    Args:
        encoder: frozen; its first K blocks are read.
        iota: sharpness of the probabilities for each of `sampling.AVERAGES`, fitted on clean pictures that nothing was
            trained on.
        temperature: the same for the encoder's own logits; only reports use it.
        samples: M, of each member.
        average: "probabilities" (released code, better calibrated) or "labels" (paper), see `sampling.AVERAGES`.

    >>> pipe(pictures, num_inference_steps=20).probabilities  # doctest: +SKIP

    Raises: ConfigError where the parts have different numbers of members or classes.
    """

    model_cpu_offload_seq = "encoder->mapping->denoiser"

    def __init__(
        self,
        encoder: LadineEncoder,
        mapping: LadineMapping,
        denoiser: LadineDenoiser,
        scheduler: LadineScheduler,
        iota: dict[str, float] | None = None,
        temperature: float = 1.0,
        samples: int = 20,
        average: str = "probabilities",
    ) -> None:
        super().__init__()
        if mapping.members != denoiser.members:
            raise ConfigError(f"{mapping.members} mapping networks for {denoiser.members} diffusion members")
        if mapping.members > encoder.config["num_layers"]:
            raise ConfigError(f"{mapping.members} members for an encoder of {encoder.config['num_layers']} blocks")
        if scheduler.config["num_train_timesteps"] != denoiser.config["num_train_timesteps"]:
            raise ConfigError("the scheduler and the denoiser have different numbers of times")
        self.register_modules(encoder=encoder, mapping=mapping, denoiser=denoiser, scheduler=scheduler)
        if iota is None:
            iota = dict.fromkeys(AVERAGES, 0.2)
        if average not in iota:
            raise ConfigError(f"no iota for the average '{average}'; there is one for {', '.join(iota)}")
        self.register_to_config(iota=iota, temperature=temperature, samples=samples, average=average)

    @torch.no_grad()
    def __call__(
        self,
        pictures: Any,
        *,
        num_inference_steps: int = 20,
        samples: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "probabilities",
        return_dict: bool = True,
    ) -> Any:
        """What each picture shows.

        Args:
            pictures: (B, C, Y, X) tensor in 0..1, or a list of such pictures, arrays (Y, X) or (Y, X, C) in 0..1,
                Pillow images or paths of image files; those of another size are resized.
            num_inference_steps: reverse steps; 10 to 20 say what all say.
            samples: M; None takes the pipeline's.
            generator: one for all pictures, or one a picture, whose answer then does not depend on its batch.
            output_type: "probabilities", "np" or "pil": the last two also draw charts.

        Raises: InputError for pictures that cannot be read, or another output_type; ConfigError for steps or samples
            that the scheduler or the mixture do not take.
        """
        if output_type not in ("probabilities", "np", "pil"):
            raise InputError(f"output_type '{output_type}' is none of probabilities, np, pil")
        images = self.read_pictures(pictures)
        if isinstance(generator, list) and len(generator) != len(images):
            raise InputError(f"{len(images)} pictures but {len(generator)} generators; give one a picture")
        images = images.to(self.device, self.encoder.dtype)
        labels = draw_labels(
            self.denoiser,
            self.scheduler,
            images,
            self.guess(images),
            samples=self.config["samples"] if samples is None else samples,
            steps=num_inference_steps,
            generator=generator,
        ).float()
        average = self.config["average"]
        said = answer(labels, self.config["iota"][average], average=average)
        charts: Any = None
        if output_type != "probabilities":
            names = [str(number) for number in range(labels.shape[-1])]
            shown = images.float().cpu().numpy()
            charts = np.stack([draw_chart(picture, said, index, names) for index, picture in enumerate(shown)])
            charts = self.numpy_to_pil(charts) if output_type == "pil" else charts
        parts = {field.name: getattr(said, field.name) for field in fields(said)}
        made = LadinePipelineOutput(images=charts, labels=labels, **parts)
        return made if return_dict else made.to_tuple()

    def guess(self, images_BCYX: torch.Tensor) -> torch.Tensor:
        """z (K, B, C): what the mapping networks say, before any diffusion."""
        return self.mapping(self.encoder.tokens(images_BCYX, self.mapping.members))

    def read_pictures(self, pictures: Any) -> torch.Tensor:
        """Pictures as the encoder takes them, (B, C, Y, X) in 0..1. Raises: InputError where one cannot be read."""
        if isinstance(pictures, torch.Tensor):
            found = pictures
        else:
            listed = list(pictures) if isinstance(pictures, Sequence) and not isinstance(pictures, str) else [pictures]
            found = torch.stack([self._read(one) for one in listed]) if listed else torch.empty(0)
        channels, side = self.encoder.config["in_channels"], self.encoder.config["sample_size"]
        if found.ndim != 4 or not len(found) or found.shape[1] != channels:
            raise InputError(f"pictures of shape {list(found.shape)}; give at least one, [B, {channels}, Y, X]")
        if not bool(torch.isfinite(found).all()) or found.min() < 0 or found.max() > 1:
            raise InputError("the values of a picture have to lie in 0..1")
        if tuple(found.shape[-2:]) != (side, side):
            found = torch.nn.functional.interpolate(found, size=(side, side), mode="bilinear", antialias=True)
        return found

    def _read(self, picture: Any) -> torch.Tensor:
        from PIL import Image, UnidentifiedImageError

        channels, side = self.encoder.config["in_channels"], self.encoder.config["sample_size"]
        if isinstance(picture, torch.Tensor):
            return picture
        if isinstance(picture, str | Path):
            try:
                with Image.open(Path(picture).expanduser()) as file:
                    picture = file.convert("L" if channels == 1 else "RGB")
            except (OSError, UnidentifiedImageError) as error:
                raise InputError(f"cannot read the picture '{picture}': {error}") from error
        if isinstance(picture, Image.Image):
            picture = picture.convert("L" if channels == 1 else "RGB").resize((side, side), Image.Resampling.BOX)
            picture = np.asarray(picture, dtype=np.float32) / 255
        array = torch.as_tensor(np.asarray(picture, dtype=np.float32))
        return array[None] if array.ndim == 2 else array.permute(2, 0, 1)
