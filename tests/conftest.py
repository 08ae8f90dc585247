"""What every test stands on: one thread a process, no network, and a tiny random pipeline for plumbing."""

from __future__ import annotations

import gc
import json
import os
import sys

# Before torch is imported anywhere: threads that wait by spinning slow down every other process of the machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"
# Before anything imports Triton, diffusers included: its kernels, and those it brings along, then run on a CPU.
os.environ.setdefault("TRITON_INTERPRET", "1")

from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # for `closeness`, which all of them share


def pytest_collection_finish() -> None:
    """What was imported until now stays: collections of garbage, which measuring memory asks for again and again, need
    not walk through it each time, a fifth of a second or more."""
    gc.collect()
    gc.freeze()


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


@pytest.fixture(scope="session")
def toy_comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished comparison whose pictures are drawn by hand: more blocks, less noise."""
    import numpy as np

    from outpace.evaluation import Contender, Request, Result, Study, build_results, run_study

    folder = tmp_path_factory.mktemp("toy-comparison")

    def contender(name: str, kind: str, blocks: int, noise: float) -> Contender:
        def generate(requests: list[Request]) -> list[Result]:
            made = []
            for request in requests:
                rng = np.random.default_rng(request.seed)
                media = rng.random((16, 16, 3)) + noise * np.random.default_rng(blocks).normal(size=(16, 16, 3))
                made.append(Result(media=media.clip(0, 1).astype(np.float32), latents=None, blocks=blocks))
            return made

        return Contender(name=name, label=name, kind=kind, curve=kind, steps=20, generate=generate)

    study = Study(
        contenders=[
            contender("plain", "plain", 480, 0.001),
            contender("converged", "converged", 4800, 0.0),
            *(contender(f"gated-{blocks}", "gated", blocks, 6 / blocks) for blocks in (260, 200, 150)),
            *(contender(f"fewer-{blocks}", "fewer-steps", blocks, 18 / blocks) for blocks in (264, 192, 144)),
        ],
        requests=[Request(index=index, prompt="noise", seed=index) for index in range(4)],
        folder=folder,
    )
    results = build_results(
        study,
        run_study(study, progress=False),
        pipeline={"name": "toy", "class": "Toy", "family": "toy", "kind": "image", "scheduler": "Euler", "steps": 20,
                  "call": {}},
        command="outpace compare toy",
        environment={"device": "a desk", "torch threads": "1", "torch": "2.13.0"},
    )  # fmt: skip
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return folder
