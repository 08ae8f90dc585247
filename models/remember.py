"""What models once gave, and whether they still do: numbers of small filled models, stored beside the code.

They were made while the models agreed with their papers' published code. A term that is dropped tomorrow moves one of
them. Weights and inputs come from an arithmetic rule (`numbers`) and everything is computed in float64, so that the
stored numbers hold on every processor. `outpace models remember NAME` makes them again and prints what changed.
"""

from __future__ import annotations

import dataclasses
import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .companion import HOME, MODELS, Check
from .create import TOY, configuration, create, sizes_of
from .numbers import fill, numbers
from .settings import to_data

FOLDER = Path(__file__).parent / "cases" / "remembered"
SAMPLES = 12
"""Numbers of every output that are stored as they are."""
NEAR = 1e-7
"""How far numbers may be from what they were, over their size: float64 rounds at 1e-16."""
SIGMAS = 6.0
"""How far the spread of fresh weights may be, over what chance does to it: versions of torch may draw others."""
STRUCTURE, FRESH, GRADIENTS = "structure", "fresh", "gradients of the toy"
KEPT = (
    "p", "eps", "momentum", "affine", "elementwise_affine", "normalized_shape", "num_groups", "in_features",
    "out_features", "in_channels", "out_channels", "kernel_size", "stride", "padding", "output_padding", "dilation",
    "groups", "num_embeddings", "embedding_dim", "negative_slope", "approximate", "upscale_factor",
)  # fmt: skip
"""What of torch's own layers is part of a model's structure."""

Case = Callable[[], Any]
Digest = dict[str, Any]
_CASES: dict[str, dict[str, tuple[Case, float]]] = {}


def case(model: str, name: str, *, near: float = NEAR) -> Callable[[Case], Case]:
    """A decorator: what the function gives (tensors and numbers, nested as it likes) is remembered of `model`.

    Args:
        near: how far it may be from what it was.
    """

    def decorate(run: Case) -> Case:
        if name in _CASES.setdefault(model, {}):
            raise ValueError(f"{model} has a case '{name}' already")
        _CASES[model][name] = (run, near)
        return run

    return decorate


def filled(module: Any) -> Any:
    """A module in float64 and eval mode, with every number set by the rule."""
    return fill(module.double()).eval()


def filled_model(name: str, **changes: Any) -> Any:
    """A toy that is created and filled."""
    return filled(create(name, TOY, **changes))


def example_of(name: str, model: Any) -> tuple[Tensor, ...]:
    """What its card gives to a forward pass, in float64."""
    card = MODELS[name]
    assert card.example is not None
    config = getattr(model, "settings", None) or model.config
    return tuple(part.double() if part.is_floating_point() else part for part in card.example(config))


def given(name: str, **changes: Any) -> Any:
    """What a filled model makes of its example."""
    model = filled_model(name, **changes)
    with torch.no_grad():
        return model(*example_of(name, model))


@torch.no_grad()
def thinned(name: str, **changes: Any) -> Any:
    """What it makes of its example where dropping halves what goes through: in training every site is seen to drop."""
    model = filled_model(name, **changes)
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.register_forward_hook(_halved)
    return model(*example_of(name, model))


def _halved(_part: nn.Module, _given: object, out: Tensor) -> Tensor:
    return out / 2


def cases_of(name: str) -> dict[str, tuple[Case, float]]:
    """Every case of a model; its structure and its fresh weights where it builds one."""
    if name not in _CASES and find_spec(f"{HOME}.cases.{name}") is not None:
        import_module(f"{HOME}.cases.{name}")
    own = dict(_CASES.get(name, {}))
    if MODELS[name].build is not None:
        own |= {STRUCTURE: (lambda: structure(name), 0.0), FRESH: (lambda: fresh(name), 1.0)}
        own[GRADIENTS] = (lambda: gradients(name), 1e-6)
    return own


def remembered(name: str, folder: Path = FOLDER) -> dict[str, list[Digest]]:
    """What is stored of a model."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def made_now(name: str) -> dict[str, list[Digest]]:
    """The same, from the code as it is."""
    return {one: digest(run()) for one, (run, _) in cases_of(name).items()}


def remember(name: str, folder: Path = FOLDER) -> list[str]:
    """Store what a model gives now; a line for each thing that changed.

    Raises: UnknownNameError: no model has this name.
    """
    _ = MODELS[name]
    before, now = remembered(name, folder), made_now(name)
    lines = [f"{one}: gone" for one in before if one not in now]
    for one, (_, near) in cases_of(name).items():
        if one not in before:
            lines.append(f"{one}: new, {len(now[one])} outputs")
        elif (far := distance(before[one], now[one])) > near:
            lines.append(f"{one}: {far:.2g} from what it was (at most {near:.0e})")
    if now:
        path = folder / f"{name}.json"
        path.write_text(json.dumps(now, indent=1, separators=(",", ":")) + "\n", encoding="utf-8")
    return lines


def checks_of(name: str) -> list[Check]:
    """One for each case: how far it is from what is stored."""

    def measure(one: str, run: Case) -> float:
        stored = remembered(name).get(one)
        return math.inf if stored is None else distance(stored, digest(run()))

    return [
        Check(about=f"as remembered: {one}", measure=lambda one=one, run=run: measure(one, run), at_most=near)
        for one, (run, near) in cases_of(name).items()
    ]


def digest(output: Any) -> list[Digest]:
    """A few numbers that tell one output from another: shape, size, three weighted sums, some of its own."""
    if isinstance(output, Spreads):
        return [{"spreads": {part: list(told) for part, told in output.parts.items()}}]
    return [_digest_of(part) for part in _parts(output)]


def distance(stored: Sequence[Digest], now: Sequence[Digest]) -> float:
    """The largest difference over the size of the numbers; infinite where shapes or texts differ."""
    if len(stored) != len(now):
        return math.inf
    worst = 0.0
    for a, b in zip(stored, now, strict=True):
        if "spreads" in a or "spreads" in b:
            parts = {part: tuple(told) for part, told in b.get("spreads", {}).items()}
            worst = max(worst, Spreads(parts).beyond(a.get("spreads", {})))
            continue
        if a.get("text") != b.get("text") or a.get("shape") != b.get("shape"):
            return math.inf
        if "text" in a:
            continue
        size = max(abs(a["size"]), 1e-300)
        pairs = zip((a["size"], *a["sums"], *a["values"]), (b["size"], *b["sums"], *b["values"]), strict=True)
        for x, y in pairs:
            apart = abs(x - y) / size
            worst = max(worst, math.inf if math.isnan(apart) else apart)
    return worst


def structure(name: str) -> list[str]:
    """Every named size as text: its configuration, and of every layer what is not learned (as a sum for large ones)."""
    return defaults(name) + [built(name, size)[1] for size in sizes_of(MODELS[name])]


def defaults(name: str) -> list[str]:
    """The configuration that `create` takes without a size, as one line; none where it has to be said."""
    if not _has_defaults(MODELS[name].config):
        return []
    return [f"defaults {json.dumps(to_data(configuration(name)), sort_keys=True)}"]


@cache
def built(name: str, size: str) -> tuple[int, str]:
    """(how many numbers a named size learns, its structure as one line): built once for both, without memory."""
    model = create(name, size, device="meta")
    return sum(parameter.numel() for parameter in model.parameters()), described(name, size, model)


def described(name: str, size: str, model: nn.Module) -> str:
    """What `structure` says of one size, from a model of it."""
    data = json.dumps(to_data(configuration(name, size)), sort_keys=True)
    return f"{size} {zlib.crc32((data + chr(10).join(_layers(model))).encode()):08x}"


def fresh(name: str) -> Spreads:
    """How parameters are drawn: the spread of all that play the same part, or their number where it is one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = create(name, TOY)
    alike: dict[str, list[Tensor]] = {}
    for place, parameter in model.named_parameters():
        part = ".".join("*" if word.isdigit() else word for word in place.split("."))
        alike.setdefault(part, []).append(parameter.detach().double().flatten())
    return Spreads({part: _spread(torch.cat(values)) for part, values in alike.items()})


@dataclasses.dataclass(frozen=True)
class Spreads:
    """(how many numbers, their mean square's root, their mean) of parameters, by their part in a model."""

    parts: dict[str, tuple[int, float, float]]

    def beyond(self, stored: Mapping[str, Sequence[float]]) -> float:
        """How far they are from others, over `SIGMAS` times what chance does to so many draws."""
        if self.parts.keys() != stored.keys():
            return math.inf
        worst = 0.0
        for part, (count, size, mean) in self.parts.items():
            was_count, was_size, was_mean = stored[part]
            alike = math.isclose(size, abs(mean), rel_tol=NEAR)
            if count != was_count or alike != math.isclose(was_size, abs(was_mean), rel_tol=NEAR):
                return math.inf
            if alike:  # all the same number: nothing was drawn, and sums of it round as the processor adds
                worst = max(worst, 0.0 if math.isclose(mean, was_mean, rel_tol=NEAR) else math.inf)
                continue
            both = 2**0.5  # two draws, each with its own chance
            apart = abs(math.log(size / was_size)) * count**0.5, abs(mean - was_mean) / was_size * count**0.5
            worst = max(worst, *(far / both / SIGMAS for far in apart))
        return worst


def gradients(name: str) -> list[float]:
    """How strongly each parameter of the toy acts on its output: a term cut off from learning is seen."""
    return gradients_of(gradient_norms(name))


def gradients_of(norms: Mapping[str, float]) -> list[float]:
    """log10 of each, so that small ones count as much as large ones; 0 where there is none."""
    return [math.log10(norm) if norm else 0.0 for norm in norms.values()]


def gradient_norms(name: str) -> dict[str, float]:
    """By parameter, the norm of the gradient of a sum of the filled toy's output, weighed by numbers of the rule."""
    model = filled_model(name).requires_grad_(True)
    with torch.enable_grad():
        parts = [part for part in _parts(model(*example_of(name, model))) if isinstance(part, Tensor)]
        whole = torch.stack([(numbers(part.shape, 5) * part).sum() for part in parts if part.requires_grad]).sum()
    whole.backward()
    found = {place: part.grad for place, part in model.named_parameters()}
    norms = {place: 0.0 if grad is None else float(grad.norm()) for place, grad in found.items()}
    # what a softmax does not see, such as the bias of keys, is left with rounding
    return {place: norm if norm > 1e-9 * max(norms.values()) else 0.0 for place, norm in norms.items()}


def _spread(values: Tensor) -> tuple[int, float, float]:
    if float(values.min()) == float(values.max()):
        return len(values), abs(float(values[0])), float(values[0])
    return len(values), float(f"{float(values.square().mean().sqrt()):.5g}"), float(f"{float(values.mean()):.5g}")


def _layers(model: nn.Module) -> Iterator[str]:
    yield f"fixed: {[name for name, value in model.named_parameters() if not value.requires_grad]}"
    for name, part in model.named_modules():
        ours = type(part).__module__.startswith(HOME)
        held = {
            key: value
            for key, value in vars(part).items()
            if (key in KEPT or (ours and not key.startswith("_") and key != "training")) and _is_plain(value)
        }
        yield f"{name} {type(part).__name__} {sorted(held.items())}"


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))


def _has_defaults(config: Any) -> bool:
    return all(
        field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        for field in dataclasses.fields(config)
    )


def _parts(output: Any) -> Iterator[Tensor | str]:
    if isinstance(output, (Tensor, str)):
        yield output
    elif isinstance(output, type):
        raise TypeError(f"a case gives tensors and numbers, not the type {output.__name__}")
    elif isinstance(output, (bool, int, float)):
        yield torch.tensor([float(output)], dtype=torch.float64)
    elif dataclasses.is_dataclass(output):
        yield from _parts([getattr(output, field.name) for field in dataclasses.fields(output)])
    elif isinstance(output, Mapping):
        yield from _parts(list(output.values()))
    elif output is not None:
        parts = list(output)
        if parts and all(isinstance(part, (int, float)) for part in parts):
            yield torch.tensor([float(part) for part in parts], dtype=torch.float64)
        else:
            for part in parts:
                yield from _parts(part)


def _digest_of(part: Tensor | str) -> Digest:
    if isinstance(part, str):
        return {"text": part}
    x = part.detach()
    x = torch.view_as_real(x) if x.is_complex() else x
    flat = x.double().flatten()
    places = torch.linspace(0, max(len(flat) - 1, 0), min(SAMPLES, len(flat))).long()
    size = float(flat.square().mean().sqrt()) if len(flat) else 0.0
    # a sum of n numbers with signs at random is as large as a number times the root of n
    sums = [float((numbers(flat.shape, seed) * flat).sum()) / max(len(flat), 1) ** 0.5 for seed in (1, 2, 3)]
    return {
        "shape": list(part.shape),
        "size": _rounded(size),
        "sums": [_rounded(value) for value in sums],
        "values": [_rounded(value) for value in flat[places].tolist()],
    }


def _rounded(value: float) -> float:
    return float(f"{value:.12g}")
