"""Clips from a VDT: out of nothing, or around whatever frames and pixels are given.

Legend: B clips, T frames, Y X pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor

from ...errors import InputError
from .masks import TASKS, compose, draw_mask
from .model import VDTTransformer3DModel


@dataclass
class VDTPipelineOutput(BaseOutput):
    """What was made."""

    frames: Any
    """(B, T, Y, X, C) in 0..1, or as `output_type` asks."""
    masks: np.ndarray
    """(B, T, Y, X), 1 where a pixel was made and 0 where it was known."""


class VDTPipeline(DiffusionPipeline):
    """Makes what a mask leaves open in clips; what the mask keeps comes out as it went in, bit for bit.

    Args:
        transformer: a VDTTransformer3DModel that works on pixels.
        scheduler: any of diffusers' that steps by `step(output, timestep, sample)`.

    >>> pipe(frames=clips, mask=[0, 0, 0, 0, 1, 1, 1, 1]).frames  # doctest: +SKIP
    >>> pipe(frames=clips, task="interpolate").frames  # doctest: +SKIP
    """

    model_cpu_offload_seq = "transformer"

    def __init__(self, transformer: VDTTransformer3DModel, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(transformer=transformer, scheduler=scheduler)

    @torch.no_grad()
    def __call__(
        self,
        frames: Any = None,
        mask: Any = None,
        *,
        task: str | Sequence[str] | None = None,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "np",
        return_dict: bool = True,
    ) -> Any:
        """Clips of the size of `frames`, or of the size that is asked for where none are given.

        Args:
            frames: (B, T, Y, X, C) or one clip without B, floats in 0..1; values where the mask is 1 are not looked at.
            mask: 1 where the clip is to be made: (T,), (B, T), (T, Y, X) or (B, T, Y, X).
            task: instead of a mask, the name of one for all clips, or a name a clip; see TASKS. Without frames and
                mask: "unconditional".
            num_frames, height, width: of clips made from nothing.
            generator: one for all clips, or one a clip, which then does not depend on its batch.
            output_type: "np", "pt" (B, T, C, Y, X), "pil" or "latent" (B, C, T, Y, X in -1..1).

        Raises: InputError where frames, mask and task do not fit each other or the model; UnknownNameError for no task.
        """
        if mask is not None and task is not None:
            raise InputError("a mask and a task exclude each other; keep one")
        if output_type not in ("np", "pt", "pil", "latent"):
            raise InputError(f"no output_type '{output_type}'; choose np, pt, pil or latent")
        names = [task] if isinstance(task, str) else list(task or ())
        known = self._known(frames, len(names) or 1, num_frames, height, width)
        count, channels, *shape = known.shape
        names = names or ["unconditional"]
        names = names * count if len(names) == 1 else names
        if mask is None and frames is None and any(TASKS[name].knows for name in names):
            needy = next(name for name in names if TASKS[name].knows)
            raise InputError(f"the task '{needy}' starts from a clip; give it as frames=")
        if len(names) != count:
            raise InputError(f"{len(names)} tasks for {count} clips; give one, or one a clip")
        generators = generator if isinstance(generator, list) else [generator] * count
        if len(generators) != count:
            raise InputError(f"{len(generators)} generators for {count} clips; give one, or one a clip")
        if mask is None:
            patch = self.transformer.config.patch_size
            drawn = [
                draw_mask(name, (shape[0], shape[1], shape[2]), g or torch.default_generator, patch=patch)
                for name, g in zip(names, generators, strict=True)
            ]
            open_ = torch.stack(drawn)[:, None].to(self.device)
        else:
            open_ = self._mask(mask, count, shape)

        dtype = self.transformer.dtype
        clean = known.to(self.device, dtype) * 2 - 1
        # Noise for all of a clip, known or not: the same seed starts the same clip whatever the mask.
        noise = randn_tensor((count, channels, *shape), generator=generator, device=self.device, dtype=dtype)
        self.scheduler.set_timesteps(num_inference_steps, device=self.device)
        latents = noise * self.scheduler.init_noise_sigma
        progress: Any = self.progress_bar
        for moment in progress(self.scheduler.timesteps):
            seen = compose(self.scheduler.scale_model_input(latents, moment), clean, open_)
            output = self.transformer(seen, moment.expand(count), return_dict=False)[0]
            latents = self.scheduler.step(output[:, :channels], moment, latents, return_dict=False)[0]
        self.maybe_free_model_hooks()
        if output_type == "latent":
            made: Any = compose(latents, clean, open_)
        else:
            made = self._media(compose((latents / 2 + 0.5).clamp(0, 1).float(), known, open_), output_type)
        masks = open_[:, 0].cpu().numpy()
        return VDTPipelineOutput(frames=made, masks=masks) if return_dict else (made, masks)

    def _known(self, frames: Any, count: int, *size: int | None) -> torch.Tensor:
        """Known frames, (B, C, T, Y, X) in 0..1; zeros where there are none."""
        config = self.transformer.config
        if frames is None:
            usual = (config.num_frames, config.sample_size, config.sample_size)
            sizes = [given or own for given, own in zip(size, usual, strict=True)]
            return self._fitting(torch.zeros(count, config.in_channels, *sizes, device=self.device))
        if any(size):
            raise InputError("num_frames, height and width are those of the frames; leave them out")
        clips = torch.as_tensor(np.asarray(frames) if not isinstance(frames, torch.Tensor) else frames).float()
        clips = clips[None] if clips.ndim == 4 else clips
        if clips.ndim != 5 or clips.shape[-1] != config.in_channels:
            raise InputError(
                f"frames of shape {list(clips.shape)}; expected (clips, frames, rows, columns, {config.in_channels})"
            )
        if not bool(((clips >= 0) & (clips <= 1)).all()):
            raise InputError("frames must be numbers in 0..1; divide pixels of 0..255 by 255")
        clips = clips.expand(count, *clips.shape[1:]) if len(clips) == 1 else clips
        return self._fitting(clips.permute(0, 4, 1, 2, 3).to(self.device))

    def _fitting(self, clips: torch.Tensor) -> torch.Tensor:
        patch, (frames, height, width) = self.transformer.config.patch_size, clips.shape[2:]
        if frames < 2 or height % patch or width % patch:
            raise InputError(
                f"{frames} frames of {height} x {width}: this model takes 2 frames or more, sides in steps of {patch}"
            )
        return clips

    def _mask(self, mask: Any, count: int, shape: Sequence[int]) -> torch.Tensor:
        given = torch.as_tensor(np.asarray(mask) if not isinstance(mask, torch.Tensor) else mask)
        frames = shape[0]
        axes = {1: (0, 2, 3), 2: (2, 3), 3: (0,), 4: ()}.get(given.ndim)
        places = given
        for axis in axes or ():
            places = places.unsqueeze(axis)
        fits = (
            axes is not None
            and places.shape[1] == frames
            and all(have in (1, want) for have, want in zip(places.shape, (count, *shape), strict=True))
        )
        if not fits:
            raise InputError(
                f"a mask of shape {list(given.shape)} for {count} clips of {frames} frames of {shape[1]} x {shape[2]}; "
                "give (T,), (B, T), (T, Y, X) or (B, T, Y, X)"
            )
        if not bool(((given == 0) | (given == 1)).all()):
            raise InputError("a mask holds 0 (known) and 1 (to be made), nothing between")
        return places.float().expand(count, *shape)[:, None].to(self.device)

    def _media(self, clips: torch.Tensor, output_type: str) -> Any:
        if output_type == "pt":
            return clips.transpose(1, 2)
        pixels = clips.permute(0, 2, 3, 4, 1).cpu().numpy()
        return [self.numpy_to_pil(clip) for clip in pixels] if output_type == "pil" else pixels
