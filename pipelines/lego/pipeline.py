"""Pictures of any size from a LEGO model, with any of diffusers' schedulers for noise or EDM.

Legend: B pictures, Y X pixels, C channels.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils.torch_utils import randn_tensor

from ...errors import InputError
from .model import LegoTransformer2DModel
from .precondition import check_scheduler, network_input, scheduler_output


class LegoPipeline(DiffusionPipeline):
    """Makes pictures by class, as large and as wide as asked for.

    Args:
        transformer: a LegoTransformer2DModel, of pixels or of latents.
        scheduler: EDMEulerScheduler, EDMDPMSolverMultistepScheduler, HeunDiscreteScheduler or another for "epsilon".
        vae: what makes pictures of latents; None where the model works on pixels.

    >>> pipe([3, 5], guidance_scale=2.0).images[0]  # doctest: +SKIP
    >>> pipe([3], width=96, overlap=16).images[0]  # doctest: +SKIP
    """

    model_cpu_offload_seq = "transformer->vae"
    _optional_components = ["vae"]  # noqa: RUF012  (diffusers wants a list)

    def __init__(self, transformer: LegoTransformer2DModel, scheduler: Any, vae: Any = None) -> None:
        super().__init__()
        self.register_modules(transformer=transformer, scheduler=scheduler, vae=vae)
        self.pixels_per_latent = 1 if vae is None else 2 ** (len(vae.config.block_out_channels) - 1)
        self.image_processor = VaeImageProcessor(vae_scale_factor=self.pixels_per_latent)

    @torch.no_grad()
    def __call__(
        self,
        class_labels: int | Sequence[int],
        *,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 1.0,
        overlap: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> Any:
        """One picture a label.

        Args:
            height, width: in pixels, no less than the model was trained on; None: as trained.
            guidance_scale: above 1, each picture is drawn away from what it would be without its class.
            overlap: on pictures larger than in training, pixels that the windows of image bricks share and are averaged
                in. The windows of all bricks then move from step to step, so that no border stands still. None: half of
                a window. 0: they lie beside each other, always in the same places; faster, with borders that show.
            generator: one for all pictures, or one a picture, which then does not depend on its batch.
            output_type: "pil", "np" (B, Y, X, C in 0..1), "pt" (B, C, Y, X) or "latent" (B, C, Y, X as the model sees).

        Raises: InputError for labels, sizes or an overlap that the model has no use for; ConfigError for a scheduler.
        """
        config = self.transformer.config
        labels = self._labels(class_labels)
        size = (self._side("height", height), self._side("width", width))
        window = config["sample_size"]
        step = self.pixels_per_latent
        asked = window // 2 * step if overlap is None else overlap
        if asked % step or not 0 <= asked // step < window:
            raise InputError(
                f"an overlap of {asked} pixels; choose one from 0 to {(window - 1) * step}"
                + (f", in steps of {step}" if step > 1 else "")
            )
        shared = asked // step
        if isinstance(generator, list) and len(generator) != len(labels):
            raise InputError(f"{len(generator)} generators for {len(labels)} labels; give one, or one a label")
        if output_type not in ("pil", "np", "pt", "latent"):
            raise InputError(f"no output_type '{output_type}'; choose pil, np, pt or latent")
        sigma_data = config["sigma_data"]
        check_scheduler(self.scheduler, sigma_data)

        guided = guidance_scale > 1
        if guided:
            labels = torch.cat([labels, torch.full_like(labels, config["num_embeds_ada_norm"])])
        self.scheduler.set_timesteps(num_inference_steps, device=self.device)
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(0)
        count = len(labels) // (2 if guided else 1)
        latents = randn_tensor(
            (count, config["in_channels"], *size),
            generator=generator,
            device=self.device,
            dtype=self.transformer.dtype,
        )
        latents = latents * self.scheduler.init_noise_sigma
        progress: Any = self.progress_bar
        for index, timestep in enumerate(progress(self.scheduler.timesteps)):
            seen = network_input(self.scheduler, latents, index, sigma_data)
            # All pictures of all batches share the places of a step's windows, so none depends on its batch.
            places = random.Random(index)
            answer = self.transformer(
                seen.network_input.repeat(2, 1, 1, 1) if guided else seen.network_input,
                timestep=seen.c_noise,
                class_labels=labels,
                overlap=shared,
                shift=(places.randrange(window), places.randrange(window)) if shared else (0, 0),
                return_dict=False,
            )[0]
            if guided:
                with_class, without = answer.chunk(2)
                answer = without + guidance_scale * (with_class - without)
            output = scheduler_output(self.scheduler, seen, answer, sigma_data)
            latents = self.scheduler.step(output, timestep, latents, return_dict=False)[0]
        self.maybe_free_model_hooks()
        if output_type == "latent":
            images: Any = latents
        else:
            if self.vae is not None:
                latents = self.vae.decode(latents / self.vae.config.scaling_factor, return_dict=False)[0]
            images = self.image_processor.postprocess(latents.float(), output_type=output_type)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _labels(self, given: int | Sequence[int]) -> torch.Tensor:
        classes = self.transformer.config["num_embeds_ada_norm"]
        labels = [given] if isinstance(given, int) else list(given)
        for label in labels:
            if not isinstance(label, int) or not 0 <= label < classes:
                raise InputError(f"{label!r} is no class of this model; give numbers from 0 to {classes - 1}")
        if not labels:
            raise InputError("no class_labels; give one number a picture")
        return torch.tensor(labels, device=self.device)

    def _side(self, name: str, given: int | None) -> int:
        least, step = self.transformer.config["sample_size"], self.pixels_per_latent
        if given is None:
            return least
        if given < least * step or given % step:
            raise InputError(
                f"a {name} of {given}: this model takes {least * step} pixels or more"
                + (f", in steps of {step}" if step > 1 else "")
            )
        return given // step
