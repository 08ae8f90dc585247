"""What block-sparse attention can gain on a model at a size, said before anything is loaded."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ...errors import ConfigError
from .cost import FEWEST_TOKENS, Cost, break_even, count_cost, even_share, worthwhile
from .devices import Device, find_device
from .sample import Sample, sample_of
from .words import count, duration, flops, memory, percent, row, run_in_words

WORTH = 1.2
"""A predicted speed-up below this is not worth an approximation: leaving out one step in six gives as much."""

MEASURED_DENSITY = 0.54
"""What recall 0.99 kept of the blocks of `wan-long` (docs/results_sparse_attention.md)."""

RIVALS = {"fewer steps": 1.25, "a scheduled forecast": 1.61}
"""How fast a run is made in other ways there that comes as close to the plain clip as recall 0.99."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Even:
    """From where on sparse attention is as fast as another way to the same fidelity, were this model as `wan-long`."""

    rival: str
    speedup: float
    """That of the rival."""
    density: float | None
    """Share of the blocks that may be kept at this size; None: leaving out everything is not enough."""
    tokens: int | None
    """Tokens that become the picture from which on the density of `wan-long` is enough; None: no number is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What a run of a model costs and what block-sparse attention can gain. `summary()` says it in words.

    FLOPs count multiplications and additions one each. Times are a roofline (FLOPs over the device's rates) of the
    denoiser alone: norms, memory traffic, text encoder and decoder are not in them.
    """

    model: str
    transformer: str
    device: str
    device_source: str
    """Where the device's rates come from."""
    height: int
    width: int
    frames: int | None
    """None for pictures."""
    steps: int
    calls: int
    """Calls of the denoiser a step, for one sample."""
    tokens: int
    """Tokens that become the picture."""
    text_tokens: int
    sequence: int
    """Tokens of the longest self-attention: with the text where both are in one sequence; 0 without attention."""
    parameters: int
    """Of one denoiser, saved tables of positions counted."""
    weights_bytes: int
    """Of every denoiser of the pipeline, as the device holds them."""
    fits: bool | None
    """False where these weights alone exceed the device's memory; None where that is not known."""
    attention_flops_per_step: int
    """Self-attention of the picture's tokens."""
    other_attention_flops_per_step: int
    other_flops_per_step: int
    flops_per_step: int
    flops_total: int
    attention_flops_share: float
    attention_time_share: float
    seconds_per_step: float
    seconds_total: float
    ceiling: float
    """Speed-up if self-attention cost nothing at all, at every step."""
    sparsity: float
    dense_steps: int
    """Steps that run dense: the warm-up, the last step of which looks for blocks, and later searches where fresh."""
    searches: int
    effective_sparsity: float
    """What is left out in truth: blocks of text tokens are always kept."""
    predicted_speedup: float
    predicted_seconds: float
    kernel_break_even: float
    """Sparsity above which the sparse kernel beats the dense one."""
    break_even: float | None
    """Sparsity above which the whole run gets faster, search and warm-up counted; None: never."""
    evens: tuple[Even, ...]
    """The same beside ways that come as close to the plain picture."""
    index_bytes: int
    """Block indices of every layer and call, held between searches."""
    worth: bool
    verdict: str
    notes: tuple[str, ...] = ()
    """What had to be assumed."""

    def to_dict(self) -> dict[str, Any]:
        """Every field, for JSON."""
        return asdict(self)

    def summary(self) -> str:
        """The estimate as a few lines of text."""
        return describe(self)


def estimate(
    model: Any,
    *,
    height: int | None = None,
    width: int | None = None,
    frames: int | None = None,
    steps: int | None = None,
    device: str = "auto",
    sparsity: float = 0.8,
    warmup: float = 0.1,
    searches: int = 2,
    fresh: bool = True,
    text_tokens: int | None = None,
    calls: int | None = None,
) -> Estimate:
    """Count what `model` costs at a size, from its configuration alone, and predict the gain of sparse attention.

    The transformer is built and run on the meta device: nothing is downloaded, loaded or computed, and the counts are
    those of the real forward pass.

    Args:
        model: a published model ("hunyuanvideo", see `outpace.accel.estimate.MODELS`), a folder written by
            save_pretrained, a diffusers pipeline or a transformer.
        height, width, frames: of the picture or clip; the model's own size where it is known.
        steps: denoising steps.
        device: "h200", "h100", "a100" ...; "cpu" or "this" measures this machine; "auto" is its GPU, or an H100.
        sparsity: share of the attention left out, 0..1.
        warmup: share of the steps that stay dense at the beginning.
        searches: how many times the blocks are looked for in a run.
        fresh: every search runs dense attention again, as `AdaSpa` does unless told otherwise; False: only the first.
        text_tokens: of the prompt as the denoiser gets it.
        calls: of the denoiser a step: 2 with classifier-free guidance.

    Raises: UnknownNameError, InputError, ConfigError, UnsupportedModelError: with what to do.

    >>> estimate("hunyuanvideo", device="h200").tokens
    118800
    """
    _check_settings(sparsity, warmup, searches)
    rates = find_device(device)
    sample = sample_of(
        model, height=height, width=width, frames=frames, steps=steps, text_tokens=text_tokens, calls=calls
    )
    return _judge(
        sample,
        count_cost(sample.transformer, sample.inputs, sample.latent.tokens),
        rates,
        sparsity=sparsity,
        warmup=warmup,
        searches=searches,
        fresh=fresh,
    )


def _check_settings(sparsity: float, warmup: float, searches: int) -> None:
    if not 0.0 <= sparsity < 1.0:
        raise ConfigError(f"sparsity is the share left out, from 0 to below 1, not {sparsity}")
    if not 0.0 <= warmup <= 1.0:
        raise ConfigError(f"warmup is the share of steps that stay dense, from 0 to 1, not {warmup}")
    if searches < 1:
        raise ConfigError(f"searches must be at least 1, not {searches}")


def _judge(
    sample: Sample,
    cost: Cost,
    rates: Device,
    *,
    sparsity: float,
    warmup: float,
    searches: int,
    fresh: bool,
) -> Estimate:
    found, steps, calls, text = sample.model, sample.steps, sample.calls, sample.latent.text
    own, other = calls * cost.attention_flops, calls * cost.other_attention_flops
    rest = calls * cost.other_flops
    attention_seconds = own / (rates.dense * 1e12)
    seconds = attention_seconds + other / (rates.dense * 1e12) + rest / (rates.gemm * 1e12)
    share = attention_seconds / seconds

    dense_steps = min(steps, max(1, round(warmup * steps)))
    searches = min(searches, steps - dense_steps)
    dense_steps += max(0, searches - 1) if fresh else 0
    fraction = (steps - dense_steps) / steps
    search_cost = searches * 0.5 * rates.dense / rates.mass / steps
    kept_text = (cost.tokens / cost.sequence) ** 2 if cost.sequence else 1.0
    effective = sparsity * kept_text
    gain = worthwhile(share, effective, fraction, rates.kernel_ratio, search_cost=search_cost)
    ceiling = 1.0 / (1.0 - share) if share < 1.0 else float("inf")
    even = break_even(fraction, rates.kernel_ratio, search_cost=search_cost)
    even = None if even is None or even / kept_text >= 1.0 else even / kept_text
    evens = tuple(
        _even_with(cost, name, speed, share, kept_text, fraction, rates.kernel_ratio, search_cost)
        for name, speed in RIVALS.items()
    )
    weights = found.copies * cost.parameters * rates.weight_bytes
    worth, verdict = _verdict(cost, share, ceiling, sparsity, gain)
    return Estimate(
        model=found.name,
        transformer=found.transformer,
        device=rates.name,
        device_source=rates.source,
        height=sample.height,
        width=sample.width,
        frames=sample.frames,
        steps=steps,
        calls=calls,
        tokens=cost.tokens,
        text_tokens=text,
        sequence=cost.sequence,
        parameters=cost.parameters,
        weights_bytes=weights,
        fits=None if rates.memory_bytes is None else weights <= rates.memory_bytes,
        attention_flops_per_step=own,
        other_attention_flops_per_step=other,
        other_flops_per_step=rest,
        flops_per_step=own + other + rest,
        flops_total=steps * (own + other + rest),
        attention_flops_share=own / (own + other + rest),
        attention_time_share=share,
        seconds_per_step=seconds,
        seconds_total=steps * seconds,
        ceiling=ceiling,
        sparsity=sparsity,
        dense_steps=dense_steps,
        searches=searches,
        effective_sparsity=effective,
        predicted_speedup=gain,
        predicted_seconds=steps * seconds / gain,
        kernel_break_even=max(0.0, 1.0 - rates.kernel_ratio),
        break_even=even,
        evens=evens,
        index_bytes=calls * cost.index_bytes(1.0 - effective),
        worth=worth,
        verdict=verdict,
        notes=found.notes,
    )


def _even_with(
    cost: Cost,
    rival: str,
    speedup: float,
    share: float,
    kept_text: float,
    fraction: float,
    kernel_ratio: float,
    search_cost: float,
) -> Even:
    sparsity = break_even(fraction, kernel_ratio, search_cost=search_cost, attention_share=share, speedup=speedup)
    density = None if sparsity is None or sparsity / kept_text >= 1.0 else 1.0 - sparsity / kept_text
    least = even_share(
        (1.0 - MEASURED_DENSITY) * kept_text, fraction, kernel_ratio, search_cost=search_cost, speedup=speedup
    )
    # Attention grows with the square of the tokens, the rest with their number.
    tokens = None if least is None or share in (0.0, 1.0) else cost.tokens * least / (1 - least) * (1 - share) / share
    return Even(rival=rival, speedup=speedup, density=density, tokens=None if tokens is None else round(tokens))


def _verdict(cost: Cost, share: float, ceiling: float, sparsity: float, gain: float) -> tuple[bool, str]:
    if not cost.self_attention:
        return False, "leave it alone: it has no softmax attention among the picture's tokens"
    if cost.tokens < FEWEST_TOKENS:
        return False, f"leave it alone: {cost.tokens:,} tokens are too few blocks to choose among"
    told = f"attention is {100 * share:.0f} % of the time, at best {ceiling:.2f}x, {gain:.2f}x at sparsity {sparsity:g}"
    return gain >= WORTH, f"{'worth it' if gain >= WORTH else 'leave it alone'}: {told}"


def describe(e: Estimate) -> str:
    """A few lines: what is made, what it costs, what can be gained, and the verdict."""
    together = e.sequence > e.tokens
    text = f" + {e.sequence - e.tokens:,} of text" if together else ""
    made = run_in_words(
        e.model, e.transformer, width=e.width, height=e.height, frames=e.frames, steps=e.steps, calls=e.calls
    )
    lines = [
        ("", f"{made}, on {e.device}"),
        ("tokens", f"{e.tokens:,}{text} in self-attention" if e.sequence else f"{e.tokens:,}"),
        ("weights", f"{count(e.parameters)} parameters a denoiser, {memory(e.weights_bytes)}{_room(e)}"),
        ("FLOPs", f"{flops(e.flops_per_step)} a step, {flops(e.flops_total)} in total"),
        (
            "attention",
            f"{percent(e.attention_flops_share)} of the FLOPs, {percent(e.attention_time_share)} of the time",
        ),
        ("dense run", f"{duration(e.seconds_total)}, {duration(e.seconds_per_step)} a step (roofline, denoiser alone)"),
        ("at best", f"{e.ceiling:.2f}x, if attention cost nothing"),
        ("predicted", f"{e.predicted_speedup:.2f}x, {duration(e.predicted_seconds)}, {_how(e)}"),
        ("as long as", _as_long(e)),
        ("break-even", _even(e)),
        ("even with", _even_with_rivals(e)),
        ("index", f"{memory(e.index_bytes)} of block indices (128 x 64)"),
        ("verdict", e.verdict),
        ("rates", e.device_source),
        *(("note", note) for note in e.notes),
    ]
    return "\n".join(row(label, said) if label else said for label, said in lines)


def _room(e: Estimate) -> str:
    if e.fits is None:
        return ""
    return "" if e.fits else f", more than {e.device} holds"


def _how(e: Estimate) -> str:
    searches = "1 search" if e.searches == 1 else f"{e.searches} searches"
    text = "" if abs(e.effective_sparsity - e.sparsity) < 0.005 else f" ({e.effective_sparsity:.2f} with text kept)"
    return f"at sparsity {e.sparsity:g}{text} with {e.dense_steps} of {e.steps} steps dense and {searches}"


def _as_long(e: Estimate) -> str:
    """What the same time buys without leaving anything out, which no count can tell the pictures of."""
    fewer = max(1, round(e.steps / e.predicted_speedup))
    if fewer >= e.steps:
        return f"all {e.steps} steps run plainly: nothing is gained"
    return f"{fewer} plain steps instead of {e.steps}: compare pictures with those before choosing"


def _even(e: Estimate) -> str:
    run = "never for the run" if e.break_even is None else f"{e.break_even:.2f} for the run with its search"
    return f"sparsity {e.kernel_break_even:.2f} for the kernel alone, {run}"


def _even_with_rivals(e: Estimate) -> str:
    """From where on it is as fast as other ways to the same fidelity, by what was measured on a pocket."""
    said = []
    for even in e.evens:
        density = "at no density" if even.density is None else f"from density {even.density:.2f} down"
        tokens = "at no length" if even.tokens is None else f"from {even.tokens:,} tokens on"
        said.append(f"{even.rival} ({even.speedup:.2f}x) {density}, and {tokens} at density {MEASURED_DENSITY:.2f}")
    return f"{'; '.join(said)}: were the picture as sensitive as that of the pocket wan-long"
