"""What every test stands on: one thread a process, no network, and a tiny random pipeline for plumbing."""

from __future__ import annotations

import os

# Before torch is imported anywhere: threads that wait by spinning slow down every other process of the machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"

from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


def tiny_dit() -> Any:
    """A DiT pipeline of six narrow blocks with random weights: good for plumbing, worthless for pictures."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=6,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=1000,
        norm_elementwise_affine=False,
    )
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4, sample_size=8)
    pipe = DiTPipeline(transformer.eval(), vae.eval(), DDIMScheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def tiny_pipe() -> Any:
    """A fresh tiny DiT pipeline."""
    return tiny_dit()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny DiT pipeline as a diffusers directory."""
    folder = tmp_path_factory.mktemp("tiny") / "dit"
    tiny_dit().save_pretrained(folder)
    return folder
