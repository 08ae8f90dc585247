"""Pipelines of diffusers itself around tiny transformers, for what only their own calls ask of a scheduler.

Text encoders are left out, their embeddings are passed; pictures come back as latents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
from PIL import Image
from tiny_models import SPECIMENS, WIDTH

FLUX, SD3, QWEN = "FluxTransformer2DModel", "SD3Transformer2DModel", "QwenImageTransformer2DModel"


@dataclass(frozen=True, kw_only=True)
class Real:
    """How to build one pipeline, and how to call it."""

    transformer: str
    call: dict[str, Any]
    latents: int = 4
    """Channels of the autoencoder's latents."""

    scheduler: Callable[[], Any] = diffusers.FlowMatchEulerDiscreteScheduler
    changes: dict[str, Any] = field(default_factory=dict)
    """Settings of the transformer that differ from the tiny one's."""

    parts: Callable[[], dict[str, Any]] = dict
    """Components that only this pipeline has, and those that it lacks as None."""

    cls: str = ""
    """Class of the pipeline, where it is not the name it is listed under."""


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def picture(size: int = 16) -> Image.Image:
    return Image.new("RGB", (size, size), (90, 140, 30))


def mask(size: int = 16) -> Image.Image:
    made = Image.new("L", (size, size), 0)
    made.paste(255, (0, 0, size // 2, size))
    return made


def autoencoder(channels: int) -> Any:
    torch.manual_seed(0)
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=1,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.1,
        scaling_factor=0.9,
    ).eval()


TEXT = {"prompt_embeds": numbers(1, 5, WIDTH), "pooled_prompt_embeds": numbers(1, WIDTH, seed=1)}
NO_TEXT = {"text_encoder": None, "text_encoder_2": None, "tokenizer": None, "tokenizer_2": None}
NO_THIRD = {**NO_TEXT, "text_encoder_3": None, "tokenizer_3": None}
ONE_TEXT = {"text_encoder": None, "tokenizer": None}
SMALL, SMALL_SANA = {"height": 16, "width": 16}, {"height": 32, "width": 32}
DYNAMIC = lambda: diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)  # noqa: E731
EDIT = {"image": picture(), "strength": 0.7}


def flux(**more: Any) -> Real:
    given = {"latents": 4, "scheduler": DYNAMIC, "changes": {"in_channels": 16}, "parts": lambda: NO_TEXT, **more}
    return Real(transformer=FLUX, call={**SMALL, **TEXT, "guidance_scale": 3.0, **given.pop("call", {})}, **given)


def flux_control_net() -> dict[str, Any]:
    torch.manual_seed(1)
    settings = {**SPECIMENS[FLUX].settings, "in_channels": 16, "num_layers": 1, "num_single_layers": 1}
    return {**NO_TEXT, "controlnet": diffusers.FluxControlNetModel(**settings).eval()}


def sd3_call(**more: Any) -> dict[str, Any]:
    negative = {f"negative_{name}": value.roll(1) for name, value in TEXT.items()}
    return {**SMALL, **TEXT, **negative, "guidance_scale": 3.0, **more}


def sd3_parts() -> dict[str, Any]:
    return NO_THIRD


def sd3_control_net() -> dict[str, Any]:
    torch.manual_seed(1)
    settings = {**SPECIMENS[SD3].settings, "num_layers": 2, "dual_attention_layers": ()}
    return {**NO_THIRD, "controlnet": diffusers.SD3ControlNetModel(**settings).eval()}


def masked_text(length: int = 5, width: int = WIDTH) -> dict[str, torch.Tensor]:
    return {"prompt_embeds": numbers(1, length, width), "prompt_embeds_mask": torch.ones(1, length).long()}


def attended_text(length: int = 5) -> dict[str, torch.Tensor]:
    embeds, negative = numbers(1, length, WIDTH), numbers(1, length, WIDTH, seed=2)
    return {
        "prompt_embeds": embeds,
        "prompt_attention_mask": torch.ones(1, length).bool(),
        "negative_prompt_embeds": negative,
        "negative_prompt_attention_mask": torch.ones(1, length).bool(),
    }


VIDEO = {**SMALL, "num_frames": 5}
GUIDED = {"prompt_embeds": numbers(1, 5, WIDTH), "negative_prompt_embeds": numbers(1, 5, WIDTH, seed=2)}


def wan_autoencoder() -> Any:
    torch.manual_seed(0)
    return diffusers.AutoencoderKLWan(
        base_dim=3, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    ).eval()  # fmt: skip


def ltx_autoencoder() -> Any:
    torch.manual_seed(0)
    return diffusers.AutoencoderKLLTXVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1), decoder_layers_per_block=(1, 1, 1, 1, 1), patch_size=4, patch_size_t=1,
    ).eval()  # fmt: skip


def qwen_autoencoder() -> Any:
    torch.manual_seed(0)
    return diffusers.AutoencoderKLQwenImage(
        base_dim=3, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    ).eval()  # fmt: skip


def qwen(**more: Any) -> Real:
    call = {"height": 32, "width": 32, **masked_text(), **more.pop("call", {})}
    return Real(
        transformer=QWEN, call=call, scheduler=DYNAMIC, changes={"in_channels": 16, "out_channels": 4, "patch_size": 2},
        parts=lambda: {**ONE_TEXT, "vae": qwen_autoencoder()}, **more,
    )  # fmt: skip


def unipc() -> Any:
    return diffusers.UniPCMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0, num_train_timesteps=1000
    )


PIPELINES: dict[str, Real] = {
    "FluxPipeline": flux(),
    "FluxPipeline (schnell)": flux(cls="FluxPipeline", scheduler=diffusers.FlowMatchEulerDiscreteScheduler),
    "FluxImg2ImgPipeline": flux(call=EDIT),
    "FluxInpaintPipeline": flux(call={**EDIT, "mask_image": mask()}),
    "FluxControlPipeline": flux(changes={"in_channels": 32, "out_channels": 16}, call={"control_image": picture()}),
    "FluxFillPipeline": flux(
        changes={"in_channels": 16 * 2 + 4 * 4, "out_channels": 16}, call={"image": picture(), "mask_image": mask()}
    ),
    "FluxKontextPipeline": flux(call={"image": picture(), "max_area": 256, "_auto_resize": False}),
    "FluxControlNetPipeline": flux(parts=flux_control_net, call={"control_image": picture()}),
    "StableDiffusion3Pipeline": Real(transformer=SD3, call=sd3_call(), parts=sd3_parts),
    "StableDiffusion3Img2ImgPipeline": Real(transformer=SD3, call=sd3_call(**EDIT), parts=sd3_parts),
    "StableDiffusion3InpaintPipeline": Real(
        transformer=SD3,
        latents=16,
        changes={"in_channels": 16, "out_channels": 16},
        call=sd3_call(**EDIT, mask_image=mask()),
        parts=sd3_parts,
    ),
    "StableDiffusion3ControlNetPipeline": Real(
        transformer=SD3, call=sd3_call(control_image=picture()), parts=sd3_control_net
    ),
    "QwenImagePipeline": qwen(),
    "QwenImageImg2ImgPipeline": qwen(call={"image": picture(32), "strength": 0.7}),
    "QwenImageInpaintPipeline": qwen(call={"image": picture(32), "mask_image": mask(32), "strength": 0.7}),
    "ChromaPipeline": Real(
        transformer="ChromaTransformer2DModel",
        changes={"in_channels": 16},
        call={**SMALL, "prompt_embeds": TEXT["prompt_embeds"], "prompt_attention_mask": torch.ones(1, 5).bool(),
              "guidance_scale": 1.0},
        parts=lambda: ONE_TEXT,
    ),
    "ChromaImg2ImgPipeline": Real(
        transformer="ChromaTransformer2DModel",
        changes={"in_channels": 16},
        call={**SMALL, **EDIT, "prompt_embeds": TEXT["prompt_embeds"],
              "prompt_attention_mask": torch.ones(1, 5).bool(), "guidance_scale": 1.0},
        parts=lambda: ONE_TEXT,
    ),
    "Lumina2Pipeline": Real(
        transformer="Lumina2Transformer2DModel", call={**SMALL, **attended_text()}, parts=lambda: ONE_TEXT
    ),
    "ZImagePipeline": Real(
        transformer="ZImageTransformer2DModel",
        call={**SMALL, "prompt_embeds": [numbers(5, WIDTH)], "guidance_scale": 0.0},
        parts=lambda: ONE_TEXT,
    ),
    "ZImageImg2ImgPipeline": Real(
        transformer="ZImageTransformer2DModel",
        call={**SMALL, **EDIT, "prompt_embeds": [numbers(5, WIDTH)], "guidance_scale": 0.0},
        parts=lambda: ONE_TEXT,
    ),
    "AuraFlowPipeline": Real(
        transformer="AuraFlowTransformer2DModel", call={**SMALL, **attended_text()}, parts=lambda: ONE_TEXT
    ),
    "PixArtAlphaPipeline": Real(
        transformer="PixArtTransformer2DModel",
        changes={"out_channels": 8},
        call={**SMALL, **attended_text(), "use_resolution_binning": False, "prompt": None, "negative_prompt": None},
        scheduler=diffusers.DPMSolverMultistepScheduler,
        parts=lambda: ONE_TEXT,
    ),
    "SanaPipeline": Real(
        transformer="SanaTransformer2DModel",
        call={
            **SMALL_SANA, **attended_text(), "use_resolution_binning": False, "prompt": None, "negative_prompt": None
        },
        scheduler=lambda: diffusers.DPMSolverMultistepScheduler(
            use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0
        ),
        parts=lambda: {**ONE_TEXT, "vae": None},
    ),
    "WanPipeline": Real(
        transformer="WanTransformer3DModel",
        call={**VIDEO, "height": 32, "width": 32, **GUIDED},
        scheduler=unipc,
        parts=lambda: {**ONE_TEXT, "vae": wan_autoencoder()},
    ),
    "WanVideoToVideoPipeline": Real(
        transformer="WanTransformer3DModel",
        call={"height": 32, "width": 32, **GUIDED, "video": [picture(32)] * 5, "strength": 0.7},
        scheduler=unipc,
        parts=lambda: {**ONE_TEXT, "vae": wan_autoencoder()},
    ),
    "CogVideoXPipeline": Real(
        transformer="CogVideoXTransformer3DModel",
        call={**VIDEO, **GUIDED},
        scheduler=lambda: diffusers.CogVideoXDDIMScheduler(
            snr_shift_scale=3.0, rescale_betas_zero_snr=True, prediction_type="v_prediction",
            timestep_spacing="trailing",
        ),
        parts=lambda: {**ONE_TEXT, "vae": None},
    ),
    "CogVideoXPipeline (DPM)": Real(
        cls="CogVideoXPipeline",
        transformer="CogVideoXTransformer3DModel",
        call={**VIDEO, **GUIDED},
        scheduler=lambda: diffusers.CogVideoXDPMScheduler(
            snr_shift_scale=1.0, rescale_betas_zero_snr=True, prediction_type="v_prediction",
            timestep_spacing="trailing",
        ),
        parts=lambda: {**ONE_TEXT, "vae": None},
    ),
    "LTXPipeline": Real(
        transformer="LTXVideoTransformer3DModel",
        call={"height": 64, "width": 64, "num_frames": 9, **attended_text()},
        scheduler=DYNAMIC,
        parts=lambda: {**ONE_TEXT, "vae": None},
    ),
    "LTXImageToVideoPipeline": Real(
        transformer="LTXVideoTransformer3DModel",
        call={"height": 64, "width": 64, "num_frames": 9, "image": picture(64), **attended_text()},
        scheduler=DYNAMIC,
        parts=lambda: {**ONE_TEXT, "vae": ltx_autoencoder()},
    ),
    "LTXConditionPipeline": Real(
        transformer="LTXVideoTransformer3DModel",
        call={"height": 64, "width": 64, "num_frames": 9, "image": picture(64), **attended_text()},
        parts=lambda: {**ONE_TEXT, "vae": ltx_autoencoder()},
    ),
    "MochiPipeline": Real(
        transformer="MochiTransformer3DModel",
        call={"height": 32, "width": 32, "num_frames": 7, **attended_text()},
        scheduler=lambda: diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
        parts=lambda: {**ONE_TEXT, "vae": None},
    ),
    "HunyuanVideoPipeline": Real(
        transformer="HunyuanVideoTransformer3DModel",
        call={"height": 32, "width": 32, "num_frames": 5, "prompt_embeds": TEXT["prompt_embeds"],
              "pooled_prompt_embeds": TEXT["pooled_prompt_embeds"], "prompt_attention_mask": torch.ones(1, 5)},
        parts=lambda: {**NO_TEXT, "vae": None},
    ),
    "StableDiffusion3Pipeline (Heun)": Real(
        cls="StableDiffusion3Pipeline",
        transformer=SD3,
        call=sd3_call(),
        scheduler=diffusers.FlowMatchHeunDiscreteScheduler,
        parts=sd3_parts,
    ),
    "PixArtAlphaPipeline (LCM)": Real(
        cls="PixArtAlphaPipeline",
        transformer="PixArtTransformer2DModel",
        changes={"out_channels": 8},
        call={**SMALL, **attended_text(), "use_resolution_binning": False, "prompt": None, "negative_prompt": None},
        scheduler=diffusers.LCMScheduler,
        parts=lambda: ONE_TEXT,
    ),
    "DiTPipeline": Real(
        transformer="DiTTransformer2DModel",
        call={"class_labels": [1], "guidance_scale": 2.0},
        scheduler=diffusers.DDIMScheduler,
    ),
}  # fmt: skip
"""The pipelines that are tried, by what they are called in the table."""


def build(name: str) -> Any:
    """A fresh pipeline."""
    real = PIPELINES[name]
    parts = {"vae": None} | real.parts()
    if real.parts is dict or "vae" not in real.parts():
        parts["vae"] = autoencoder(real.latents)
    transformer = SPECIMENS[real.transformer].build(**real.changes)
    cls = getattr(diffusers, real.cls or name)
    pipe = cls(transformer=transformer, scheduler=real.scheduler(), **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def run(name: str, pipe: Any, steps: int = 9) -> torch.Tensor:
    """What a call of `pipe` gives: latents."""
    kind = "np" if name == "DiTPipeline" else "latent"
    seed = torch.Generator().manual_seed(0)
    out = pipe(num_inference_steps=steps, generator=seed, output_type=kind, **PIPELINES[name].call)[0]
    return torch.as_tensor(out).float()
