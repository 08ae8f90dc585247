"""A device without float64 (Apple's) runs sparse attention in float32, and finds the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import TinyPipeline
from torch.utils._python_dispatch import TorchDispatchMode

from outpace.accel import AdaSpa, GatedTaylor, accelerate
from outpace.kernels import precision


class NoFloat64(TorchDispatchMode):
    """Stands for such a device: a tensor of float64 that would lie on it is an error."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (list, tuple)) else (out,):
            if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float64:
                raise TypeError("this device has no float64")
        return out


SETTINGS = [
    {"recall": 0.9},
    {"sparsity": 0.6},
    {"density": 0.5},
    {"error": 0.05},
    {"sparsity": 0.6, "head_adaptive": False, "fresh": False, "searches": (0.0, 0.5)},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_every_target(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = TinyPipeline("WanTransformer3DModel")
    method = AdaSpa(**{"searches": (0.0,), "min_tokens": 1, "min_gain": 0.0, "block": 16, **settings})
    found = []
    for without in (set(), {"cpu"}):
        monkeypatch.setattr(precision, "WITHOUT_FLOAT64", without)
        with accelerate(pipe.transformer, method) as run:
            x = torch.randn(1, *pipe.model.latent, generator=torch.Generator().manual_seed(0))
            text = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(1))
            for t in (900.0, 600.0, 300.0):
                if without:
                    with NoFloat64():
                        pipe.model.call(pipe.transformer, x, torch.tensor([t]), text)
                else:
                    pipe.model.call(pipe.transformer, x, torch.tensor([t]), text)
        assert run.trace.attention.searches
        found.append([s.density for s in run.trace.attention.searches])
    assert found[0] == [pytest.approx(density) for density in found[1]]


def test_a_forecast(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = TinyPipeline("WanTransformer3DModel")
    pipe.scheduler.set_timesteps(8)
    with accelerate(pipe, GatedTaylor(threshold=1e6, gate="paper", correct=True)) as run:
        pipe.scheduler.set_timesteps(8)
        x = torch.randn(1, *pipe.model.latent)
        text = torch.randn(1, 5, 16)
        for t in pipe.scheduler.timesteps:
            with NoFloat64():
                out = pipe.model.call(pipe.transformer, x, t.expand(1).float(), text)
                x = pipe.scheduler.step(out, t, x, return_dict=False)[0]
    assert run.trace.totals()["forecast"] > 0
