"""A miniature denoising loop around a tiny transformer: what a diffusers pipeline does, in forty lines.

The samples of a batch are made from seeds one by one, so that sample i is the same alone and among others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from tiny_models import SPECIMENS, WIDTH, TinyModel
from torch import nn

TEXT_TOKENS = 5


def noise(model: TinyModel, seeds: Sequence[int]) -> torch.Tensor:
    """Starting latents, one sample a seed."""
    return torch.stack([torch.randn(model.latent, generator=torch.Generator().manual_seed(s)) for s in seeds])


def texts(seeds: Sequence[int]) -> torch.Tensor:
    """Text tokens, one sample a seed."""
    shape = (TEXT_TOKENS, WIDTH)
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(1000 + s)) for s in seeds])


class TinyPipeline:
    """Has what `accelerate` looks for: `.transformer`, `.scheduler`, perhaps `.transformer_2`.

    Args:
        cls: class name of the transformer, or a model of the size that a test needs.
        scheduler: any diffusers scheduler; Euler on a rectified flow by default.
        boundary: time in 0..1000 below which a second transformer takes over, as in Wan 2.2.
    """

    def __init__(
        self, cls: str | TinyModel, scheduler: Any = None, *, boundary: float | None = None, **settings: Any
    ) -> None:
        self.model = SPECIMENS[cls] if isinstance(cls, str) else cls
        self.transformer: Any = self.model.build(**settings)
        self.scheduler = scheduler or FlowMatchEulerDiscreteScheduler()
        self.boundary = boundary
        if boundary is not None:
            self.transformer_2 = self.model.build(seed=1, **settings)

    def __call__(
        self,
        seeds: Sequence[int] = (0,),
        steps: int = 8,
        *,
        guidance: str | None = None,
        guided_steps: int = 1000,
        context: bool = False,
        callback: Callable[[int, torch.Tensor], torch.Tensor | None] | None = None,
        begin: int = 0,
        set_begin: bool = True,
        **more: Any,
    ) -> torch.Tensor:
        """Latents after all steps.

        Args:
            guidance: "batched" in one tensor, "separate" calls, or None.
            guided_steps: guidance is switched off from this step on.
            context: enter `cache_context`, as 52 of the pipelines of diffusers do.
            callback: called after each step; may return other latents.
            begin: first step that is taken, as in image-to-image.
            set_begin: tell the scheduler about `begin`, as newer pipelines do.
            more: goes to the transformer.
        """
        latents, text, empty = noise(self.model, seeds), texts(seeds), texts([-1] * len(seeds))
        self.scheduler.set_timesteps(steps)
        if begin and set_begin:
            self.scheduler.set_begin_index(begin)
        per_step = len(self.scheduler.timesteps) // steps
        with torch.no_grad():
            for step, t in enumerate(self.scheduler.timesteps[begin * per_step :]):
                second = self.boundary is not None and t < self.boundary
                denoiser = self.transformer_2 if second else self.transformer
                guided = guidance if step < guided_steps else None

                def run(x: torch.Tensor, c: torch.Tensor, name: str, d: Any = denoiser, t: Any = t) -> torch.Tensor:
                    with d.cache_context(name) if context else nullcontext():
                        return self.model.call(d, x, t.expand(len(x)).float(), c, **more)

                if guided == "batched":
                    both = run(torch.cat([latents, latents]), torch.cat([text, empty]), "cond_uncond")
                    cond, uncond = both.chunk(2)
                    field = uncond + 2.0 * (cond - uncond)
                elif guided == "separate":
                    cond = run(latents, text, "cond")
                    uncond = run(latents, empty, "uncond")
                    field = uncond + 2.0 * (cond - uncond)
                else:
                    field = run(latents, text, "cond")
                latents = self.scheduler.step(field, t, latents, return_dict=False)[0]
                if callback is not None and (changed := callback(step, latents)) is not None:
                    latents = changed
        return latents


class BlockCounter:
    """Counts how often each block of a family's stacks really ran, by plain forward hooks."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        self.counts = [0] * len(blocks)
        self.rows: list[int] = []
        self._handles = [b.register_forward_hook(self._hook(i)) for i, b in enumerate(blocks)]

    def _hook(self, index: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            self.counts[index] += 1
            tensors = [output] if isinstance(output, torch.Tensor) else [part for part in output if part is not None]
            self.rows.append(len(tensors[0]))

        return hook

    @property
    def total(self) -> int:
        return sum(self.counts)

    def clear(self) -> None:
        self.counts = [0] * len(self.counts)
        self.rows.clear()

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


class AdapterLayer(nn.Module):
    """What PEFT leaves in a layer that it adapts, as far as it says which adapters are on."""

    def __init__(self) -> None:
        super().__init__()
        self.scaling = {"style": 1.0}
        self.active_adapters = ["style"]
        self.disable_adapters = False
