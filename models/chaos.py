"""Chaotic systems to forecast, how fast they forget, and how long a forecast of one holds.

Source: Lorenz, 1996, "Predictability" (both systems of his); Kuramoto, 1978, and Sivashinsky, 1977; Kassam and
Trefethen, 2005, "Fourth-order time-stepping for stiff PDEs" (ETDRK4).
Shapes: any batch in front; K slow variables, J fast ones for each, N points of a period.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import ConfigError

Step = Callable[[Tensor], Tensor]
"""A state to the state one step later."""


def lorenz96(x_K: Tensor, *, forcing: float = 8.0) -> Tensor:
    """Derivative: (x[k + 1] - x[k - 2]) x[k - 1] - x[k] + forcing, on a ring."""
    return (x_K.roll(-1, -1) - x_K.roll(2, -1)) * x_K.roll(1, -1) - x_K + forcing


def two_scales(
    x: Tensor, *, slow: int, forcing: float = 10.0, coupling: float = 1.0, spread: float = 10.0, pace: float = 10.0
) -> Tensor:
    """Derivative of K slow variables, then K J fast ones in a ring of their own; J is what the width leaves.

    Args:
        x: (..., K + K J).
        slow: K.
        forcing: of the slow variables.
        coupling: h.
        spread: b, how much smaller the fast ones are.
        pace: c, how much faster they are.
    """
    X, Y = x[..., :slow], x[..., slow:]
    pull = coupling * pace / spread
    fast = -pace * spread * Y.roll(-1, -1) * (Y.roll(-2, -1) - Y.roll(1, -1)) - pace * Y
    own = X.repeat_interleave(Y.shape[-1] // slow, -1)
    sums = Y.unflatten(-1, (slow, -1)).sum(-1)
    return torch.cat([lorenz96(X, forcing=forcing) - pull * sums, fast + pull * own], -1)


def runge_kutta(derivative: Step, dt: float) -> Step:
    """Steps of the classical method of fourth order."""
    if not dt > 0:
        raise ConfigError(f"a step takes a positive time, not {dt}")

    def step(x: Tensor) -> Tensor:
        a = derivative(x)
        b = derivative(x + dt / 2 * a)
        c = derivative(x + dt / 2 * b)
        return x + dt / 6 * (a + 2 * b + 2 * c + derivative(x + dt * c))

    return step


def kuramoto_sivashinsky(points: int, length: float, dt: float) -> Step:
    """Steps of u_t = -u u_x - u_xx - u_xxxx on a period, by ETDRK4 in Fourier space.

    Raises: ConfigError: fewer than 4 points or an odd number of them, or a length or a time that is not positive.
    """
    if points < 4 or points % 2 or not (length > 0 and dt > 0):
        raise ConfigError("a period has an even number of points, at least 4, and a length and a step above 0")
    wave = 2 * math.pi / length * torch.arange(points // 2 + 1, dtype=torch.float64)
    linear = wave**2 - wave**4
    half, whole = torch.exp(linear * dt / 2), torch.exp(linear * dt)
    # the coefficients divide small differences by small numbers: means over a circle around each do not
    circle = torch.exp(1j * math.pi * (torch.arange(32, dtype=torch.float64) + 0.5) / 32)
    z = linear[:, None] * dt + circle

    def mean(values: Tensor) -> Tensor:
        return dt * values.mean(1).real

    q = mean(((z / 2).exp() - 1) / z)
    first = mean((-4 - z + z.exp() * (4 - 3 * z + z**2)) / z**3)
    middle = mean((2 + z + z.exp() * (z - 2)) / z**3)
    last = mean((-4 - 3 * z - z**2 + z.exp() * (4 - z)) / z**3)
    slope = -0.5j * wave
    slope[-1] = 0  # the highest wave of an even number of points has no derivative

    def bend(v: Tensor) -> Tensor:
        return slope * torch.fft.rfft(torch.fft.irfft(v, n=points) ** 2)

    def step(u: Tensor) -> Tensor:
        v = torch.fft.rfft(u)
        at_v = bend(v)
        a = half * v + q * at_v
        at_a = bend(a)
        at_b = bend(half * v + q * at_a)
        at_c = bend(half * a + q * (2 * at_b - at_v))
        return torch.fft.irfft(whole * v + first * at_v + 2 * middle * (at_a + at_b) + last * at_c, n=points)

    return step


def trajectory(step: Step, start: Tensor, steps: int, *, every: int = 1) -> Tensor:
    """(steps + 1, ...): the start and what follows, with `every` inner steps between two."""
    states = [start]
    for _ in range(steps):
        state = states[-1]
        for _ in range(every):
            state = step(state)
        states.append(state)
    return torch.stack(states)


def lyapunov_exponent(step: Step, start: Tensor, dt: float, steps: int, *, apart: float = 1e-7) -> float:
    """How fast two neighbours part, a unit of time: the largest exponent. Their distance is made small every step."""
    off = torch.randn(start.shape, generator=torch.Generator().manual_seed(0), dtype=start.dtype)
    one, other, grown = start, start + apart * off / off.norm(), 0.0
    for _ in range(steps):
        one, other = step(one), step(other)
        distance = (other - one).norm()
        grown += math.log(float(distance) / apart)
        other = one + (other - one) * (apart / distance)
    return grown / (steps * dt)


def valid_steps(predicted: Tensor, true: Tensor, spread: Tensor, *, threshold: float = 0.5) -> Tensor:
    """(B,): steps before the root mean square error over variables, in spreads of the attractor, passes a threshold.

    Shapes: (T, B, K), both; spread (K,).
    """
    error = ((predicted - true) / spread).square().mean(-1).sqrt()
    return (error <= threshold).long().cumprod(0).sum(0)
