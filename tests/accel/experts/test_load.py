"""Folders of converted transformers: whole, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from dense_models import build, run

from outpace.accel.experts import Conversion, Experts, convert, find_experts, load_transformer
from outpace.accel.experts.converted import ConvertedMixin
from outpace.errors import ConfigError, InputError

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    convert(build("FluxTransformer2DModel"), Conversion(experts=Experts())).save_pretrained(tmp_path / "made")
    return tmp_path / "made"


def test_types_are_kept_and_routers_stay_exact(folder: Path) -> None:
    model = load_transformer(folder, torch_dtype=torch.bfloat16)
    assert not model.training and isinstance(model, ConvertedMixin)
    for layer in find_experts(model).values():
        assert layer.router.weight.dtype == torch.float32
        assert layer.experts.up is not None and layer.experts.up.dtype == torch.bfloat16
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", WEIGHTS]


def test_a_dense_transformer_is_loaded_too(tmp_path: Path) -> None:
    dense = build("FluxTransformer2DModel")
    dense.save_pretrained(tmp_path)
    assert torch.allclose(run(load_transformer(tmp_path)), run(dense), atol=1e-6)


def test_weights_in_several_files_are_loaded(tmp_path: Path) -> None:
    model = convert(build("FluxTransformer2DModel"), Conversion(experts=Experts()))
    model.save_pretrained(tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert torch.allclose(run(load_transformer(tmp_path)), run(model), atol=1e-6)
    model.save_pretrained(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", WEIGHTS], "the old files are gone"


def test_a_save_that_is_cut_short_leaves_nothing_that_loads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_transformer(folder)
    replace = Path.replace

    def die(self: Path, target: Path) -> Path:
        if self.name == "config.json":
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        model.save_pretrained(folder)
    with pytest.raises(InputError, match=r"no config\.json.*saved to the end"):
        load_transformer(folder)
    monkeypatch.undo()
    model.save_pretrained(folder)
    load_transformer(folder)


def test_half_written_and_foreign_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no transformer: it has no config\.json"):
        load_transformer(tmp_path / "nowhere")
    weights = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(weights[: len(weights) // 2])
    with pytest.raises(InputError, match="cannot load the weights in"):
        load_transformer(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(InputError, match="cannot load the weights in"):
        load_transformer(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot read"):
        load_transformer(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(InputError, match="names no class"):
        load_transformer(folder)
    (folder / "config.json").write_text('{"_class_name": "ConvertedNothing"}')
    with pytest.raises(InputError, match="'ConvertedNothing', which this diffusers does not have"):
        load_transformer(folder)


def test_weights_of_another_conversion_are_refused(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / WEIGHTS)
    name = next(name for name in weights if "router" in name)
    save_file({key: value for key, value in weights.items() if key != name}, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(InputError, match=rf"1 are missing, such as {name}"):
        load_transformer(folder)


def test_a_conversion_that_is_not_understood_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    for change, says in (({"version": 2}, "version 2"), ({"depth": 3}, "no setting 'depth'")):
        changed = {**config, "conversion": {**config["conversion"], **change}}
        (folder / "config.json").write_text(json.dumps(changed))
        with pytest.raises(ConfigError, match=says):
            load_transformer(folder)
