"""One way of use: every named size is created by its name, counted, saved, loaded and run in every type."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from outpace.errors import ConfigError, InputError, OutpaceError, UnknownNameError
from outpace.models import MODELS, config_of, configuration, create, load, save
from outpace.models.crate import coding_rate
from outpace.models.create import TOY, sizes_of
from outpace.models.eco_m2f import ExitData
from outpace.models.layers.generation import Generates, drawn
from outpace.models.remember import STRUCTURE, defaults, described, remembered
from outpace.models.settings import changed, from_data, to_data

torch.set_num_threads(1)
BUILT = [name for name, card in MODELS.items() if card.build is not None]
SIZES = [(name, size) for name in BUILT for size in sizes_of(MODELS[name])]
QUICK = 11_000_000
"""Parameters up to which the smallest named size of a model is saved and run by default; larger ones take `-m slow`."""


def example(name: str, config: Any, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    card = MODELS[name]
    assert card.example is not None
    return tuple(part.to(dtype) if part.is_floating_point() else part for part in card.example(config))


def flat(output: Any) -> list[Tensor]:
    """Every tensor that a model gave."""
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if hasattr(output, "values") else output if isinstance(output, (list, tuple)) else ()
    return [tensor for part in parts for tensor in flat(part)]


def run(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    torch.manual_seed(0)
    with torch.no_grad():
        return flat(model(*inputs))


def is_counted(name: str, size: str) -> None:
    """Built without memory, of the size that the card says, with a configuration that survives JSON."""
    card = MODELS[name]
    model = create(name, size, device="meta")
    config = config_of(model)
    assert config == sizes_of(card)[size] == configuration(name, size)
    if size in card.sizes:
        assert sum(parameter.numel() for parameter in model.parameters()) == card.sizes[size].parameters
    assert from_data(type(config), json.loads(json.dumps(to_data(config)))) == config
    # the same build answers the check of its structure, which test_models.py leaves to this test
    assert {"text": described(name, size, model)} in remembered(name)[STRUCTURE]


def is_loaded(name: str, size: str) -> None:
    """Saved and loaded to the bit; the smallest sizes make the same of an example."""
    model = create(name, size).eval()
    inputs = example(name, config_of(model)) if is_smallest(name, size) else None
    expected = [] if inputs is None else run(model, inputs)
    with TemporaryDirectory() as around:  # pytest's would keep gigabytes
        folder = Path(around) / "deep" / "folder"
        assert save(model, folder) == folder
        state = torch.random.get_rng_state()
        again = load(folder)
        assert torch.equal(torch.random.get_rng_state(), state), "loading draws no random numbers of the caller's"
    assert type(again) is type(model) and config_of(again) == config_of(model) and not again.training
    left, right = model.state_dict(), again.state_dict()
    assert left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)
    for one, other in zip(expected, [] if inputs is None else run(again, inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def runs_in(dtype: torch.dtype) -> Callable[[str, str], None]:
    """A forward pass in another type, near that in float32 where the type holds more, and files that keep the type."""

    def check(name: str, size: str) -> None:
        torch.manual_seed(0)
        plain = create(name, size).eval()
        expected = run(plain, example(name, config_of(plain)))
        model, ill_conditioned = plain.to(dtype), list[tuple[torch.Tensor, torch.Tensor]]()
        found = run(model, example(name, config_of(model), dtype))
        assert all(part.dtype == dtype for part in found if part.is_floating_point())
        for one, other in zip(expected, found, strict=True):
            scale = float(one.double().abs().max()) or 1.0
            assert bool(other.isfinite().all())
            if dtype == torch.float64 and not float((one - other).abs().max()) <= 2e-3 * scale:
                ill_conditioned.append((one, other))
        if ill_conditioned:
            shaken = run(with_rounding_of_float32(model), example(name, config_of(model), dtype))
            for one, other in ill_conditioned:
                moved = max(float((again - other).abs().max()) for again in shaken if again.shape == other.shape)
                assert float((one - other).abs().max()) <= 10.0 * moved, "further than rounding the weights moves it"
                assert float((one - other).abs().median()) <= 2e-3 * float(one.double().abs().max())
        if size == TOY:
            with TemporaryDirectory() as folder:
                save(model, folder)
                assert next(load(folder).parameters()).dtype == dtype

    return check


@torch.no_grad()
def with_rounding_of_float32(model: Any) -> Any:
    """The model with each weight moved as far as rounding to float32 may: what that moves is beyond float32.

    Fresh deep models may answer that by far more: in gated linear attention the norm of a head divides what the first
    token reads, one product of query and key, by its size, whichever sign chance has given it.
    """
    for parameter in model.parameters():
        parameter.mul_(1.0 + torch.finfo(torch.float32).eps * torch.randn_like(parameter))
    return model


def is_smallest(name: str, size: str) -> bool:
    sizes = MODELS[name].sizes
    return size == TOY or size == min(sizes, key=lambda one: sizes[one].parameters)


HELD: dict[str, Callable[[str, str], None]] = {
    "counted": is_counted,
    "loaded": is_loaded,
    "float64": runs_in(torch.float64),
    "bfloat16": runs_in(torch.bfloat16),
}


def cells() -> Iterator[Any]:
    """What is held of which size: all are counted and loaded, the smallest are run; what takes long is marked slow."""
    for (name, size), what in itertools.product(SIZES, HELD):
        smallest = is_smallest(name, size)
        quick = size == TOY or (smallest and MODELS[name].sizes[size].parameters <= QUICK)
        if smallest or what in ("counted", "loaded"):
            marks = () if quick or what == "counted" else pytest.mark.slow
            yield pytest.param(name, size, what, id=f"{name}-{size}-{what}", marks=marks)


@pytest.mark.parametrize(("name", "size", "what"), list(cells()))
def test_every_named_size(name: str, size: str, what: str) -> None:
    HELD[what](name, size)


DATA_DECIDES = {
    "eco_m2f": "transformers keeps its sines of positions where it made them first",
    "mosaic_bert": "where texts are filled up is looked up",
    "widenet": "autocast is asked about the device, which it does not know",
}
"""Models that cannot run without numbers, and why."""


@pytest.mark.parametrize("name", [name for name in BUILT if name not in DATA_DECIDES])
@torch.no_grad()
def test_everything_lies_on_the_device_of_the_model(name: str) -> None:
    """Run without memory: a tensor that is made anywhere else, as a GPU would not take it, ends it."""
    there, here = create(name, TOY, device="meta").eval(), create(name, TOY).eval()
    inputs = example(name, config_of(here))
    found = flat(there(*(part.to("meta") for part in inputs)))
    expected = run(here, inputs)
    assert found and all(part.device.type == "meta" for part in found)
    assert [(part.shape, part.dtype) for part in found] == [(part.shape, part.dtype) for part in expected]


def test_what_is_measured_of_tensors_lies_beside_them() -> None:
    z = torch.zeros(6, 4, device="meta")
    assert coding_rate(z, torch.zeros(2, 3, 4, device="meta")).device.type == "meta"
    assert ExitData(seen_PW=z, quality_PE=z).best(0.1).device.type == "meta"


def test_every_size_that_a_card_names_is_among_them() -> None:
    assert {(name, size) for name in BUILT for size in [*MODELS[name].sizes, TOY]} == set(SIZES)
    for name in BUILT:  # and of each the structure is remembered, beside the defaults where there are any
        told = [part["text"] for part in remembered(name)[STRUCTURE]]
        kept = len(defaults(name))
        assert told[:kept] == defaults(name)
        assert [line.rpartition(" ")[0] for line in told[kept:]] == [size for model, size in SIZES if model == name]


def test_changes_may_be_nested() -> None:
    model = create("hybrid", "toy", width=32, attention={"gate": "head"})
    assert (model.config.width, model.config.attention.gate, model.config.attention.heads) == (32, "head", 2)
    assert changed(model.config, {"heads": 4}).heads == 4
    assert create("vig", classes=7, device="meta").config.depths == (12,)
    assert next(create("gam", "toy", dtype=torch.bfloat16).parameters()).dtype == torch.bfloat16


def odd(value: Any) -> list[Any]:
    """Other values of a field: none, less than none, another one, no number, of another length or type."""
    if isinstance(value, bool):
        return [not value, 2]
    if isinstance(value, int):
        return [0, -1, 3 if value != 3 else 5, 1.5, "1"]
    if isinstance(value, float):
        return [0, -1.0, math.nan, math.inf, 1, "1"]
    if isinstance(value, str):
        return ["nonsense", 1]
    if isinstance(value, tuple):
        return [(), 4, value[:-1], value + value[-1:], *((one, *value[1:]) for one in (odd(value[0]) if value else ()))]
    if dataclasses.is_dataclass(value):
        return [{field.name: one} for field in dataclasses.fields(value) for one in odd(getattr(value, field.name))]
    return []


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name == "eco_m2f" else ()) for name in BUILT],
)
@torch.no_grad()
def test_a_changed_field_is_refused_or_works(name: str) -> None:
    """Whatever a toy's fields are changed to, one by one: a model that runs its example, or one clear error."""
    plain, refused = configuration(name, TOY), 0
    for field in dataclasses.fields(plain):
        for value in odd(getattr(plain, field.name)):
            try:
                model = create(name, TOY, **{field.name: value}).eval()
                made = flat(model(*example(name, config_of(model))))
            except OutpaceError:
                refused += 1
                continue
            assert made, f"{field.name}={value}"
            assert from_data(type(plain), json.loads(json.dumps(to_data(config_of(model))))) == config_of(model)
    assert refused > len(dataclasses.fields(plain))


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: create("vigg"), UnknownNameError, "did you mean 'vig'"),
        (lambda: create("vig", "tinny"), UnknownNameError, "did you mean 'tiny'.*hierarchical-base, toy"),
        (lambda: create("vig", "tiny", widht=3), UnknownNameError, "VigConfig has no 'widht'; did you mean 'widths'"),
        (lambda: create("hybrid"), ConfigError, "HybridConfig needs layer_types"),
        (lambda: create("hybrid", "toy", attention={"head": 3}), UnknownNameError, "did you mean 'heads'"),
        (lambda: create("acm"), ConfigError, "'acm' is a method, not a model: outpace.models.acm.adaptive"),
        (lambda: create("vig", "toy", widths=8), ConfigError, "VigConfig cannot be made of .*8 is no tuple"),
        (lambda: create("craft", "toy", window=(2,)), ConfigError, r"\(2,\) is not of length 2"),
        (lambda: create("vig", "toy", classes=2.5), ConfigError, "2.5 is no int"),
        (lambda: create("vig", "toy", classes=True), ConfigError, "True is no int"),
        (lambda: create("hybrid", "toy", attention={"heads": 0}), ConfigError, "heads of AttentionConfig must be at"),
        (lambda: create("svt", "toy", channels=0), ConfigError, "channels of SvtConfig must be at least 1, not 0"),
        (lambda: create("gtrxl", "toy", gate_bias=math.nan), ConfigError, "gate_bias of GtrxlConfig must be finite"),
        (lambda: save(nn.Linear(2, 2), "nowhere"), ConfigError, "Linear is no model that"),
    ],
)
def test_slips_are_answered_with_what_there_is(make: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        make()


def test_every_method_without_a_model_says_how_it_is_used() -> None:
    for name in MODELS:
        if name not in BUILT:
            with pytest.raises(ConfigError, match=f"outpace.models.{name}"):
                create(name)


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda folder: (folder / "config.json").unlink(), "No such file"),
        (lambda folder: (folder / "config.json").write_text("{"), "holds no model"),
        (lambda folder: (folder / "config.json").write_text("[]"), "is not one that"),
        (lambda folder: (folder / "config.json").write_text('{"format": 1, "model": "vigg"}'), "did you mean 'vig'"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"junk"), "holds no model"),
        (lambda folder: save(create("gam", "toy", width=32), folder.parent / "other"), None),
    ],
)
def test_damaged_folders_end_in_one_line(break_it: Any, says: str | None, tmp_path: Path) -> None:
    folder = save(create("gam", "toy"), tmp_path / "one")
    break_it(folder)
    if says is None:  # weights of another size
        (tmp_path / "other" / "model.safetensors").replace(folder / "model.safetensors")
        says = "holds no model"
    with pytest.raises(InputError, match=says) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_a_model_that_learned_tasks_is_loaded_with_them(tmp_path: Path) -> None:
    model = create("gcab", "toy")
    model.add_task(4)
    assert model.config.classes == (2, 3, 4)
    again = load(save(model, tmp_path))
    assert again(torch.zeros(1, 1, 8, 8)).shape == (1, 9)
    assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in model.parameters()]


WRITERS = ["gla", "hybrid", "gated_attention", "quantizable", "gam", "block_transformer"]


@pytest.mark.parametrize("name", WRITERS)
@torch.no_grad()
def test_language_models_write_on(name: str) -> None:
    torch.manual_seed(0)
    model, prompt = create(name, "toy", dtype=torch.float64).eval(), torch.arange(16).view(2, 8) % 7
    for parameter in model.parameters():
        parameter.mul_(3)  # fresh ones say much the same everywhere
    made = model.generate(prompt, 5)
    whole = torch.cat([prompt, made], 1)
    if name != "block_transformer":  # whose own check says the same in blocks
        assert torch.equal(model(whole)[:, 7:-1].argmax(-1), made)
    assert isinstance(model, Generates) or name == "block_transformer"
    assert torch.equal(model.generate(prompt, 3), made[:, :3]) and model.generate(prompt, 0).shape == (2, 0)
    drawn = [model.generate(prompt, 8, temperature=5.0, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    cold = model.generate(prompt, 5, temperature=1e-6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(cold, made), "a low temperature takes the likeliest"
    with pytest.raises(ConfigError, match="a prompt is"):
        model.generate(prompt[:, :0], 3)
    with pytest.raises(ConfigError, match="a prompt is"):
        model.generate(prompt, 3, temperature=-1.0)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_tokens_are_drawn_as_often_as_their_temperature_says(temperature: float) -> None:
    logits, count = torch.tensor([0.0, 1.0, -0.5, 2.0]), 20_000
    found = drawn(logits.expand(count, -1), temperature, torch.Generator().manual_seed(0)).bincount(minlength=4) / count
    expected = torch.tensor([math.exp(one / temperature) for one in logits.tolist()])
    expected = expected / expected.sum()
    # six deviations of so many draws
    assert bool(((found - expected).abs() < 6 * (expected * (1 - expected) / count).sqrt()).all())
    assert drawn(logits[None], 0.0, None).tolist() == [3]
