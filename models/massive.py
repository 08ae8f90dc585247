"""How the largest activations of a transformer grow while it trains: measured, fitted by a curve, and predicted.

The ratio of the largest to the median activation behind a layer follows, over training time t,
f(t) = A exp(-decay x) log(x) + level with x = scale t + offset. Middle layers rise like a logarithm; early and late
ones have a peak, whose time is known in closed form.

Source: Gallego-Feliciano et al., 2025, arXiv:2508.03616; the ratio: Sun, Chen, Kolter, Liu, 2024, arXiv:2402.17762.
Shapes: B batch, T tokens, D width, N times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..kernels.precision import widened
from .companion import MODELS, Companion

Basis = Callable[[Tensor, float, float], Tensor]
"""Times, and two numbers that a form is not linear in, to its columns, (N, columns)."""
FINER = 12
"""Times that the search of a fit closes in on the best point of its grid."""
GRID = 13


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """f(t) = amplitude exp(-decay x) log(x) + level with x = scale t + offset."""

    amplitude: float
    """A; below 0 the curve falls first."""
    decay: float
    """lambda, at least 0; 0 is a logarithm that never turns."""
    scale: float
    """gamma, above 0."""
    offset: float
    """t0, above 0."""
    level: float
    """K: where it ends, unless decay is 0."""

    def __post_init__(self) -> None:
        if not (self.decay >= 0 and self.scale > 0 and self.offset > 0):
            raise ConfigError("a curve has a decay of at least 0, and a scale and an offset above 0")

    def at(self, times_N: Tensor) -> Tensor:
        """(N,): its values."""
        x = self.scale * times_N + self.offset
        return self.amplitude * torch.exp(-self.decay * x) * torch.log(x) + self.level

    def slope(self, times_N: Tensor) -> Tensor:
        """(N,): its derivative by the time."""
        x = self.scale * times_N + self.offset
        return self.amplitude * self.scale * torch.exp(-self.decay * x) * (1 / x - self.decay * torch.log(x))

    @property
    def peak(self) -> float | None:
        """When it turns, exp(W(1 / decay)) in x; None where that is before training, or never."""
        if self.decay == 0:
            return None
        from scipy.special import lambertw

        time = (math.exp(lambertw(1 / self.decay).real) - self.offset) / self.scale
        return time if time > 0 else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """What a form of curve makes of measurements."""

    values_N: Tensor
    """At the times measured."""
    r_squared: float
    """Share of the spread explained."""
    aic: float
    """Akaike's criterion: lower is better, a parameter more costs 2."""
    rates: tuple[float, float]
    """The two numbers that the form is not linear in."""
    weights: tuple[float, ...]
    """Of its columns."""


def ratio(hidden_BTD: Tensor) -> float:
    """Largest over median activation of each sequence, the mean over sequences."""
    sizes = widened(hidden_BTD.detach().abs().flatten(1))
    return float((sizes.amax(1) / sizes.median(1).values).mean())


@contextmanager
def ratios(blocks: Iterable[nn.Module]) -> Iterator[list[float]]:
    """Fills a list with the ratio behind every block, in the order in which they run.

    A block returns its hidden states, or a tuple that begins with them. The hooks go when the context ends.
    """
    seen: list[float] = []

    def look(_block: nn.Module, _inputs: object, made: Tensor | tuple[Tensor, ...]) -> None:
        seen.append(ratio(made if isinstance(made, Tensor) else made[0]))

    handles = [block.register_forward_hook(look) for block in blocks]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def logarithm_with_decay(times_N: Tensor, decay: float, offset: float) -> Tensor:
    """The paper's form with beta = decay scale and tau = offset / scale: linear in the rest."""
    fading = torch.exp(-decay * times_N)
    return torch.stack([fading * torch.log(times_N + offset), fading, torch.ones_like(times_N)], 1)


def first_order_step(times_N: Tensor, rate: float, _unused: float) -> Tensor:
    """A rival: what a system of first order answers to a step."""
    return torch.stack([torch.exp(-rate * times_N), torch.ones_like(times_N)], 1)


def second_order_step(times_N: Tensor, rate: float, frequency: float) -> Tensor:
    """A rival: a damped swing."""
    fading = torch.exp(-rate * times_N)
    return torch.stack(
        [fading * torch.cos(frequency * times_N), fading * torch.sin(frequency * times_N), torch.ones_like(times_N)], 1
    )


FORMS: dict[str, tuple[Basis, int]] = {
    "logarithm with decay": (logarithm_with_decay, 5),
    "first-order step": (first_order_step, 3),
    "second-order step": (second_order_step, 5),
}
"""Name -> (basis, number of parameters)."""


def fit_form(times: Sequence[float] | Tensor, values: Sequence[float] | Tensor, form: str) -> Fit:
    """The least squares of a form: its linear part solved, the two other numbers searched on a grid that closes in.

    Differs from the paper: that runs a trust region from a guess; a search has no guess to start wrong from.

    Raises: ConfigError: no such form, fewer than 6 points, times that do not grow, or a value that is not finite.
    """
    if form not in FORMS:
        raise ConfigError(f"forms of a curve are {', '.join(FORMS)}, not '{form}'")
    basis, parameters = FORMS[form]
    t = torch.as_tensor(times, dtype=torch.float64)
    y = torch.as_tensor(values, dtype=torch.float64)
    if t.shape != y.shape or t.dim() != 1 or len(t) < 6:
        raise ConfigError(f"a curve is fitted to as many values as times, at least 6, not {len(y)} and {len(t)}")
    if not (t[0] >= 0 and bool((t.diff() > 0).all()) and bool(y.isfinite().all())):
        raise ConfigError("times must grow from at least 0, and values must be finite numbers")
    span = float(t[-1])
    unit = t / span

    def solve(point: tuple[float, float]) -> tuple[float, Tensor]:
        columns = basis(unit, math.exp(point[0]), math.exp(point[1]))
        weights = torch.linalg.lstsq(columns, y.unsqueeze(1), driver="gelsd").solution.squeeze(1)
        return float((columns @ weights - y).square().sum()), weights

    centre, reach = (0.0, -2.0), (6.0, 7.0)
    for _ in range(FINER):
        grid = [
            (centre[0] + reach[0] * (2 * i / (GRID - 1) - 1), centre[1] + reach[1] * (2 * j / (GRID - 1) - 1))
            for i in range(GRID)
            for j in range(GRID)
        ]
        grid = [
            point for point in grid if sum(point) < 6
        ]  # exp(their product) is the curve's amplitude: keep it finite
        centre = min(grid, key=lambda point: solve(point)[0])
        reach = (reach[0] / 3, reach[1] / 3)
    left, weights = solve(centre)
    spread = float((y - y.mean()).square().sum())
    floor = max(left / len(y), 1e-300)
    return Fit(
        values_N=basis(unit, math.exp(centre[0]), math.exp(centre[1])) @ weights,
        r_squared=1 - left / spread if spread > 0 else float(left == 0),
        aic=len(y) * math.log(floor) + 2 * parameters,
        rates=(math.exp(centre[0]) / span, math.exp(centre[1]) * span),
        weights=tuple(weights.tolist()),
    )


def fit_curve(times: Sequence[float] | Tensor, values: Sequence[float] | Tensor) -> tuple[Curve, Fit]:
    """The paper's curve through measurements of one layer, and how good it is.

    Compare curves and peaks, not parameters: quite different ones make nearly the same curve.

    Raises: ConfigError: as of `fit_form`.
    """
    fit = fit_form(times, values, "logarithm with decay")
    beta, tau = fit.rates
    span = float(torch.as_tensor(times)[-1])
    slope, constant, level = fit.weights
    # amplitude log(scale (t + tau)) = slope log((t + tau) / span) + constant, which needs a slope that is not 0
    slope = slope if abs(slope) > 1e-12 else math.copysign(1e-12, slope)
    scale = math.exp(max(-300.0, min(300.0, constant / slope))) / span
    curve = Curve(
        amplitude=slope * math.exp(beta * tau), decay=beta / scale, scale=scale, offset=tau * scale, level=level
    )
    return curve, fit


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A layer in an architecture: what a curve is predicted from."""

    layer: int
    """Counted from 0."""
    layers: int
    """Of the model."""
    width: int
    """Of its residual stream."""
    heads: int
    """Of a layer."""
    hidden: int
    """Of its feed-forward network."""

    def features(self) -> Tensor:
        """(11,): the paper's features, and a constant."""
        depth, d = (self.layer + 1) / self.layers, self.width
        return torch.tensor(
            [1.0, depth, depth**2, depth**3, depth**0.5, self.heads / d, self.hidden / d, d / self.layers,
             self.heads / self.layers, math.log(d), (self.layer + 1) * self.layers], dtype=torch.float64,
        )  # fmt: skip


def predict_curve(known: Sequence[tuple[Place, Curve]], asked: Place, *, penalty: float = 1e-2) -> Curve:
    """The curve of a layer that was not trained, by ridge regression from the curves of others.

    Differs from the paper: ridge regression alone, of the five of it; targets are log(1 + |x|) with the sign of x,
    because an amplitude may be below 0.

    Raises: ConfigError: fewer than 2 curves, or a penalty that is not above 0.
    """
    if len(known) < 2 or not penalty > 0:
        raise ConfigError("a curve is predicted from at least 2 others, with a penalty above 0")
    names = ("amplitude", "decay", "scale", "offset", "level")
    features = torch.stack([place.features() for place, _ in known])
    middle, spread = features.mean(0), features.std(0).clamp(min=1e-9)
    spread[0], middle[0] = 1.0, 0.0
    x = (features - middle) / spread
    raw = torch.tensor([[getattr(curve, name) for name in names] for _, curve in known], dtype=torch.float64)
    y = raw.sign() * raw.abs().log1p()
    ridge = penalty * len(known) * torch.eye(x.shape[1], dtype=torch.float64)
    ridge[0, 0] = 0.0  # the mean is not pulled to 0
    told = ((asked.features() - middle) / spread) @ torch.linalg.solve(x.T @ x + ridge, x.T @ y)
    made = dict(zip(names, (told.sign() * told.abs().expm1()).tolist(), strict=True))
    floors = {"decay": 0.0, "scale": 1e-12, "offset": 1e-12}
    return Curve(**{name: max(value, floors.get(name, -math.inf)) for name, value in made.items()})


MASSIVE = MODELS.add(
    "massive",
    Companion(
        title="Hidden Dynamics of Massive Activations in Transformer Training",
        source="Gallego-Feliciano et al., 2025, arXiv:2508.03616",
        summary="how the largest activations of each layer grow in training: measured, fitted, predicted",
        use="outpace.models.massive.ratios(blocks) watches a model in training",
        done=(
            "the ratio behind every layer of any model, by hooks that go again",
            "the curve of five parameters, its derivative, and its peak in closed form",
            "its fit without a starting guess, beside step responses of first and second order, with R2 and AIC",
            "its parameters from a layer's place and the architecture's shape, by ridge regression",
        ),
        left_out=(
            "training of Pythia's nine sizes",
            "lasso, forests and boosting for the prediction: scikit-learn has them, on `Place.features()`",
        ),
        claim="the curve fits the ratio over training better than step responses do, at every layer",
        limits=(
            "parameters are only weakly determined by a curve: compare curves and peaks",
            "in models of the size trained here no activation is massive: it is the ratio's course that is fitted",
        ),
    ),
)
