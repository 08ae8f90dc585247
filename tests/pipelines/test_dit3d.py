"""DiT-3D: volumes against brute force, attention against masks, blocks from an image model, files and pictures."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiTTransformer2DModel
from torch import nn
from torch.nn import functional as F

import outpace
from outpace.errors import ConfigError, InputError, UnknownNameError
from outpace.pipelines import load_pocket
from outpace.pipelines.boxes import BoxAttention
from outpace.pipelines.dit3d import (
    ATTENTIONS,
    DiT3DPipeline,
    DiT3DTransformerModel,
    devoxelize,
    merge_scales,
    read_ply,
    small_parameters,
    voxel_places,
    voxelize,
    write_ply,
)
from outpace.pipelines.dit3d.picture import picture, read_picture
from outpace.pipelines.load import Loaded, Source, call_arguments, read_prompts, run_pipeline
from outpace.pipelines.pocket.dit3d import assemble, shape_loss
from outpace.pipelines.pocket.recipes import POCKETS
from outpace.pipelines.pocket.shapes import SHAPES, check_shapes, draw_shapes, shape_residuals

TINY = {"num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 3, "voxel_size": 8, "patch_size": 2,
        "num_embeds_ada_norm": 4}  # fmt: skip


def opened(model: Any) -> Any:
    """`model` with every weight drawn: gates and output start at zero, where anything equals anything."""
    torch.manual_seed(0)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.1)
    return model.eval().requires_grad_(False)


def tiny(**settings: Any) -> DiT3DTransformerModel:
    return opened(DiT3DTransformerModel(**{**TINY, **settings}))


def seen(model: Any, clouds: torch.Tensor) -> torch.Tensor:
    count = len(clouds)
    with torch.no_grad():
        return model(clouds, torch.arange(count) * 200 + 5, torch.arange(count) % 5).sample


@pytest.fixture(scope="module")
def pipe() -> DiT3DPipeline:
    made = assemble(tiny())
    made.set_progress_bar_config(disable=True)
    return made


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def test_voxels_hold_the_mean_of_their_points():
    points = torch.randn(2, 40, 3)
    places = voxel_places(points, 4)
    assert places.min() >= 0 and places.max() <= 3
    expected = torch.zeros(2, 3, 4, 4, 4)
    for cloud in range(2):
        voxels = places[cloud].round().long()
        for x, y, z in itertools.product(range(4), repeat=3):
            inside = (voxels == torch.tensor([x, y, z])).all(1)
            if inside.any():
                expected[cloud, :, x, y, z] = points[cloud][inside].mean(0)
    assert (voxelize(points, places, 4) - expected).abs().max() < 1e-6


def test_places_do_not_change_when_a_cloud_moves_or_grows():
    points = torch.randn(2, 30, 3)
    assert (voxel_places(points, 16) - voxel_places(points * 7 + 3, 16)).abs().max() < 1e-3
    assert torch.isfinite(voxel_places(torch.zeros(1, 5, 3), 16)).all()


def corners(volume: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Trilinear values from the eight voxels around a place, one by one."""
    low = places.floor().clamp(0, volume.shape[-1] - 2)
    part = places - low
    made = torch.zeros(*places.shape[:2], volume.shape[1], dtype=volume.dtype)
    for corner in itertools.product((0, 1), repeat=3):
        weight = torch.stack([part[..., a] if side else 1 - part[..., a] for a, side in enumerate(corner)]).prod(0)
        x, y, z = (low.long() + torch.tensor(corner)).unbind(2)
        values = torch.stack([volume[b][:, x[b], y[b], z[b]].T for b in range(len(volume))])
        made = made + weight[..., None] * values
    return made


def test_devoxelize_and_its_gradients_equal_brute_force_and_grid_sample():
    volume = torch.randn(2, 5, 4, 4, 4, dtype=torch.float64, requires_grad=True)
    places = (torch.rand(2, 30, 3, dtype=torch.float64) * 3).requires_grad_()
    sampled = F.grid_sample(volume, (places / 1.5 - 1).flip(2)[:, None, None], align_corners=True)
    made, oracle = devoxelize(volume, places), corners(volume, places)
    weight = torch.randn_like(made)
    gradients = [
        torch.autograd.grad((value * weight).sum(), (volume, places))
        for value in (made, oracle, sampled[:, :, 0, 0].transpose(1, 2))
    ]
    assert (made - oracle).abs().max() < 1e-12
    for other in gradients[1:]:
        for mine, theirs in zip(gradients[0], other, strict=True):
            assert (mine - theirs).abs().max() < 1e-11


def test_a_constant_volume_is_that_constant_everywhere():
    places = voxel_places(torch.randn(1, 50, 3), 8)
    assert (devoxelize(torch.full((1, 2, 8, 8, 8), 0.7), places) - 0.7).abs().max() < 1e-6


def test_windows_as_large_as_the_volume_are_global_attention():
    clouds = torch.randn(2, 40, 3)
    assert (seen(tiny(attention="window", window_size=4), clouds) - seen(tiny(), clouds)).abs().max() < 1e-5


@pytest.mark.parametrize("window", [1, 2, 3])  # 3 does not divide the 4 tokens of a side
def test_smaller_windows_equal_masked_attention(window: int, monkeypatch: pytest.MonkeyPatch):
    model, clouds = tiny(attention="window", window_size=window, window_blocks=[0, 2]), torch.randn(3, 40, 3)
    made = seen(model, clouds)
    places = torch.cartesian_prod(*[torch.arange(4)] * 3) // window
    same = (places[:, None] == places[None]).all(2)

    def masked(self: Any, attn: Any, hidden_states: torch.Tensor, grid: Any = None, **_: Any) -> torch.Tensor:
        q, k, v = (
            part(hidden_states).unflatten(2, (2, 12)).transpose(1, 2) for part in (attn.to_q, attn.to_k, attn.to_v)
        )
        scores = q @ k.transpose(2, 3) / 12**0.5
        scores = scores if self.box == (0, 0, 0) else scores.masked_fill(~same, float("-inf"))
        return attn.to_out[0]((scores.softmax(3) @ v).transpose(1, 2).flatten(2))

    monkeypatch.setattr(BoxAttention, "__call__", masked)
    assert (seen(model, clouds) - made).abs().max() < 1e-5
    assert (made - seen(tiny(), clouds)).abs().max() > 1e-3


@pytest.mark.parametrize("attention", list(ATTENTIONS))
def test_neither_the_order_of_points_nor_of_clouds_matters(attention: str):
    model, clouds = tiny(attention=attention, window_size=2), torch.randn(3, 40, 3)
    times, labels = torch.tensor([5, 400, 900]), torch.tensor([0, 1, 4])
    plain = model(clouds, times, labels).sample
    order, points = torch.tensor([2, 0, 1]), torch.randperm(40)
    assert (model(clouds[order], times[order], labels[order]).sample - plain[order]).abs().max() < 1e-5
    assert (model(clouds[:, points], times, labels).sample - plain[:, points]).abs().max() < 1e-5
    assert (model(clouds[1:2], times[1:2], labels[1:2]).sample - plain[1:2]).abs().max() < 1e-5


def test_reduced_attention_takes_a_window_cubed_fewer_products():
    from torch.utils.flop_counter import FlopCounterMode

    def products(**settings: Any) -> int:
        model = tiny(num_layers=1, **settings)
        with (
            FlopCounterMode(display=False) as counter,
            torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        ):
            seen(model, torch.randn(1, 20, 3))
        return counter.get_flop_counts()["Global"].get(torch.ops.aten.bmm, 0)

    assert products() == 8 * products(attention="sr", window_size=2) > 0


def test_blocks_come_from_an_image_model():
    image = opened(DiTTransformer2DModel(num_attention_heads=2, attention_head_dim=12, num_layers=3, sample_size=8,
                                         in_channels=4, num_embeds_ada_norm=1000))  # fmt: skip
    settings = {"voxel_size": 8, "patch_size": 2, "num_embeds_ada_norm": 4}
    model = DiT3DTransformerModel.from_image(image, **settings)
    own, given = model.state_dict(), image.state_dict()
    blocks = [name for name in given if name.startswith("transformer_blocks.")]
    taken = [name for name in blocks if own[name].shape == given[name].shape and torch.equal(own[name], given[name])]
    assert len(taken) == len(blocks) - 3 and all("class_embedder" in name for name in set(blocks) - set(taken))
    same = DiT3DTransformerModel.from_image(image, voxel_size=8, patch_size=2, num_embeds_ada_norm=1000)
    assert all(torch.equal(same.state_dict()[name], given[name]) for name in blocks)
    reduced = DiT3DTransformerModel.from_image(image, **settings, attention="sr", window_size=2)
    assert sum(name.endswith("processor.reduce.weight") for name in reduced.state_dict()) == 1


def test_few_parameters_are_trained_and_fold_in():
    model, clouds = tiny(num_attention_heads=4, attention_head_dim=24), torch.randn(2, 40, 3)
    plain = seen(model, clouds)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    few = small_parameters(model, ends=False)
    assert (seen(model, clouds) - plain).abs().max() == 0.0, "scales start at 1"
    share = sum(w.numel() for w in few) / sum(w.numel() for w in model.parameters())
    assert 0 < share < 0.02, share
    with pytest.raises(ConfigError, match="scales already"):
        small_parameters(model)
    rule, losses = torch.optim.AdamW(few, lr=1e-2), []
    for _ in range(12):
        rule.zero_grad()
        loss = shape_loss(model, torch.Generator().manual_seed(0), 4)
        loss.backward()
        rule.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    names = [n for n, w in model.named_parameters() if not w.requires_grad]
    assert all(torch.equal(model.state_dict()[n], before[n]) for n in names if n in before)
    tuned = seen(model, clouds)
    merged = merge_scales(model)
    assert (seen(merged, clouds) - tuned).abs().max() < 1e-5 and (tuned - plain).abs().max() > 1e-3
    assert merged.state_dict().keys() == before.keys()


def test_threshold_0_is_the_plain_pipeline_bit_for_bit(pipe: DiT3DPipeline):
    def made() -> np.ndarray:
        call = {"num_points": 48, "guidance_scale": 2.0, "num_inference_steps": 10, "output_type": "np"}
        return pipe([2, 0], **call, generator=generators(2)).points

    plain = made()
    with outpace.accelerate(pipe, outpace.GatedTaylor(threshold=0.0)) as run:
        np.testing.assert_array_equal(made(), plain)
    assert run.trace.totals()["forecast"] == 0
    with outpace.accelerate(pipe, outpace.IntervalTaylor(interval=2, warmup=1)) as run:
        assert not np.array_equal(made(), plain)
    assert run.trace.totals()["forecast"] > 0


def test_a_saved_pipeline_makes_the_same(pipe: DiT3DPipeline, tmp_path: Path):
    pipe.save_pretrained(tmp_path)
    again = load_pocket(tmp_path)
    assert type(again) is DiT3DPipeline and again.labels == pipe.labels
    call = {"num_inference_steps": 2, "output_type": "np"}
    made, same = (p(["torus"], **call, generator=generators(1)) for p in (pipe, again))
    np.testing.assert_array_equal(made.points, same.points)
    assert made.points.shape == (1, 256, 3) and made.images.shape == (1, 96, 96, 3)


def test_the_command_line_asks_by_name(pipe: DiT3DPipeline):
    loaded = Loaded(
        pipe=pipe, source=Source(name="dit3d", kind="pocket"), pocket=POCKETS["dit3d"], prompt_argument="class_labels"
    )
    assert read_prompts(loaded, ["torus", "box"]) == [2, 1]
    made = run_pipeline(loaded, [2], [0], call_arguments(loaded, steps=2))
    assert made[0].shape == (96, 96, 3) and made[0].min() >= 0 and made[0].max() <= 1
    with pytest.raises(InputError, match="does not know the word 'cone'"):
        read_prompts(loaded, ["cone"])


def test_shapes_are_read_back_from_points_and_from_pictures():
    classes = torch.arange(len(SHAPES)).repeat(6)
    clouds, _ = draw_shapes(len(classes), torch.Generator().manual_seed(2), classes=classes)
    read = [int(shape_residuals(cloud.numpy()).argmin()) for cloud in clouds]
    assert read == classes.tolist()
    hits = check_shapes([picture(cloud.numpy()) for cloud in clouds], classes.tolist())
    assert np.mean([hit["shape"] for hit in hits]) > 0.9
    noise = check_shapes([picture(np.random.default_rng(0).normal(size=(256, 3)) * 0.5)], ["sphere"])
    assert noise[0]["near"] == 0.0
    assert check_shapes([np.ones((96, 96, 3))], [0])[0]["near"] == 0.0


def test_a_picture_tells_where_its_points_are():
    points = np.array([[0.5, -0.25, 0.75], [-0.5, 0.5, -0.5]])
    shown = read_picture(picture(points))
    for point in points:
        assert np.abs(shown - point).max(1).min() < 1e-6


def test_ply_files_come_back(tmp_path: Path, pipe: DiT3DPipeline):
    points = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    np.testing.assert_array_equal(read_ply(write_ply(points, tmp_path / "a.ply")), points)
    files = pipe([0, 1], num_points=9, num_inference_steps=2).save(tmp_path / "made")
    assert [file.name for file in files] == ["cloud-000.ply", "cloud-001.ply"] and len(read_ply(files[1])) == 9
    (tmp_path / "bad.ply").write_text("ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nend_header\n1\n")
    for name in ("bad.ply", "none.ply"):
        with pytest.raises(InputError, match="no text PLY"):
            read_ply(tmp_path / name)
    cut = tmp_path / "a.ply"
    cut.write_text("\n".join(cut.read_text().splitlines()[:-2]) + "\n")
    with pytest.raises(InputError, match="5 of 7"):
        read_ply(cut)
    with pytest.raises(InputError, match="finite"):
        write_ply(np.full((3, 3), np.nan), tmp_path / "b.ply")


@pytest.mark.parametrize(
    ("labels", "call", "message"),
    [
        (["cone"], {}, "'cone' is no class .* sphere, box"),
        ([4], {}, "0 to 3"),
        ([], {}, "at least one cloud"),
        ([0], {"num_points": 1}, "2 points or more"),
        ([0], {"output_type": "ply"}, "no output_type"),
    ],
    ids=str,
)
def test_bad_input_is_answered_in_one_sentence(pipe: DiT3DPipeline, labels: Any, call: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        pipe(labels, num_inference_steps=2, **call)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"attention": "windows"}, UnknownNameError, "did you mean 'window'"),
        ({"attention": "sr", "window_size": 3}, ConfigError, "do not divide"),
        ({"patch_size": 3}, ConfigError, "patches of 3"),
        ({"window_blocks": [3]}, ConfigError, "blocks 0 to 2"),
        ({"attention_head_dim": 7, "num_attention_heads": 1}, ConfigError, "odd"),
    ],
    ids=str,
)
def test_bad_settings_are_refused(settings: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        tiny(**settings)


def test_a_model_without_dit_blocks_gives_none():
    image = DiTTransformer2DModel(num_attention_heads=2, attention_head_dim=12, num_layers=1, attention_bias=False)
    with pytest.raises(ConfigError, match="no blocks"):
        DiT3DTransformerModel.from_image(image)
