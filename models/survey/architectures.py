"""Published transformers as lists of their parts.

Source: Devlin et al., 2018, arXiv:1810.04805 (BERT); Black et al., 2022, arXiv:2204.06745 (GPT-NeoX); Touvron et al.,
2023, arXiv:2307.09288 (Llama); Dosovitskiy et al., 2020, arXiv:2010.11929 (ViT); Jiang et al., 2024, arXiv:2401.04088
(Mixtral); Peebles and Xie, 2022, arXiv:2212.09748 (DiT); Black Forest Labs, 2024 (FLUX.1, as in diffusers).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ...registry import Registry
from .cost import ALL_TOKENS, ONCE, Attention, Matrix, Part, Table


def square_attention(width: int, layers: int, heads: int, *, causal: bool = False) -> tuple[Part, ...]:
    """Queries, keys, values and the way out, each of the whole width and with a bias."""
    matrices = (
        Matrix(name=name, inputs=width, outputs=width, layers=layers) for name in ("query", "key", "value", "out")
    )
    return *matrices, Attention(layers=layers, heads=heads, head_width=width // heads, causal=causal)


def feed_forward(width: int, hidden: int, layers: int, *, streams: tuple[str, ...] = ALL_TOKENS) -> tuple[Part, ...]:
    """Up and down with a bias."""
    return (
        Matrix(name="up", inputs=width, outputs=hidden, layers=layers, streams=streams),
        Matrix(name="down", inputs=hidden, outputs=width, layers=layers, streams=streams),
    )


def bert(
    *, width: int = 768, layers: int = 12, heads: int = 12, hidden: int = 3072, vocabulary: int = 30522,
    positions: int = 512,
) -> tuple[Part, ...]:  # fmt: skip
    """An encoder with its pooler, without a head."""
    return (
        Table(name="tokens", numbers=vocabulary * width, looked_up=True),
        Table(name="positions", numbers=(positions + 2) * width, looked_up=True),
        Table(name="norms", numbers=2 * width),
        *square_attention(width, layers, heads),
        *feed_forward(width, hidden, layers),
        Table(name="norms", numbers=4 * width, layers=layers),
        Matrix(name="pooler", inputs=width, outputs=width, streams=ONCE),
    )


def gpt_neox(
    *, width: int = 6144, layers: int = 44, heads: int = 64, hidden: int = 24576, vocabulary: int = 50432
) -> tuple[Part, ...]:
    """A decoder with attention and feed-forward side by side."""
    return (
        Table(name="tokens", numbers=vocabulary * width, looked_up=True),
        *square_attention(width, layers, heads, causal=True),
        *feed_forward(width, hidden, layers),
        Table(name="norms", numbers=4 * width, layers=layers),
        Table(name="norms", numbers=2 * width),
        Matrix(name="head", inputs=width, outputs=vocabulary, bias=False),
    )


def llama(
    *, width: int = 4096, layers: int = 32, heads: int = 32, key_heads: int | None = None, hidden: int = 11008,
    vocabulary: int = 32000, experts: int = 1, chosen: int = 1,
) -> tuple[Part, ...]:  # fmt: skip
    """A decoder with a gated feed-forward network, of which it may have several to choose from."""
    keys = (key_heads or heads) * (width // heads)
    sides = {"query": (width, width), "key": (width, keys), "value": (width, keys), "out": (width, width)}
    ffn = {"gate": (width, hidden), "up": (width, hidden), "down": (hidden, width)}
    router = (Matrix(name="router", inputs=width, outputs=experts, bias=False, layers=layers),) if experts > 1 else ()
    return (
        Table(name="tokens", numbers=vocabulary * width, looked_up=True),
        *(Matrix(name=name, inputs=i, outputs=o, bias=False, layers=layers) for name, (i, o) in sides.items()),
        Attention(layers=layers, heads=heads, key_heads=key_heads, head_width=width // heads, causal=True),
        *router,
        *(
            Matrix(name=name, inputs=i, outputs=o, bias=False, layers=layers, experts=experts, chosen=chosen)
            for name, (i, o) in ffn.items()
        ),
        Table(name="norms", numbers=2 * width, layers=layers),
        Table(name="norms", numbers=width),
        Matrix(name="head", inputs=width, outputs=vocabulary, bias=False),
    )


def vit(
    *, width: int = 768, layers: int = 12, heads: int = 12, hidden: int = 3072, patch: int = 16, picture: int = 224,
    classes: int = 1000,
) -> tuple[Part, ...]:  # fmt: skip
    """An encoder of patches; "tokens" are the patches and one more for the class, "patches" those without it."""
    return (
        Matrix(name="patches", inputs=3 * patch**2, outputs=width, streams=("patches",)),
        Table(name="positions", numbers=((picture // patch) ** 2 + 2) * width),
        *square_attention(width, layers, heads),
        *feed_forward(width, hidden, layers),
        Table(name="norms", numbers=4 * width, layers=layers),
        Table(name="norms", numbers=2 * width),
        Matrix(name="head", inputs=width, outputs=classes, streams=ONCE),
    )


def dit(
    *, width: int = 1152, layers: int = 28, heads: int = 16, patch: int = 2, channels: int = 4, positions: int = 256,
    classes: int = 1001, embedders: int = 1, learned_spread: bool = True,
) -> tuple[Part, ...]:  # fmt: skip
    """A diffusion transformer of latents, told the time and a class by its norms.

    `embedders` is how many copies of the time's and the class's there are: one in the paper, one a layer in diffusers.
    """
    made = patch**2 * channels * (1 + learned_spread)
    return (
        Matrix(name="patches", inputs=patch**2 * channels, outputs=width),
        Table(name="positions", numbers=positions * width),
        Matrix(name="time", inputs=256, outputs=width, layers=embedders, streams=ONCE),
        Matrix(name="time", inputs=width, outputs=width, layers=embedders, streams=ONCE),
        Table(name="classes", numbers=classes * width, layers=embedders, looked_up=True),
        Matrix(name="modulation", inputs=width, outputs=6 * width, layers=layers, streams=ONCE),
        *square_attention(width, layers, heads),
        *feed_forward(width, 4 * width, layers),
        Matrix(name="modulation", inputs=width, outputs=2 * width, streams=ONCE),
        Matrix(name="head", inputs=width, outputs=made),
    )


def flux(
    *, heads: int = 24, head_width: int = 128, double: int = 19, single: int = 38, channels: int = 64,
    text_width: int = 4096, pooled_width: int = 768, guidance: bool = True,
) -> tuple[Part, ...]:  # fmt: skip
    """Picture and text side by side, then as one; streams "image" and "text"."""
    width, both = heads * head_width, ("text", "image")
    told = {"time": 256, "pooled": pooled_width} | ({"guidance": 256} if guidance else {})
    sides = [
        part
        for stream in both
        for part in (
            *(
                Matrix(name=name, inputs=width, outputs=width, layers=double, streams=(stream,))
                for name in ("query", "key", "value", "out")
            ),
            *feed_forward(width, 4 * width, double, streams=(stream,)),
            Matrix(name="modulation", inputs=width, outputs=6 * width, layers=double, streams=ONCE),
            Table(name="norms", numbers=2 * head_width, layers=double),
        )
    ]
    return (
        Matrix(name="patches", inputs=channels, outputs=width, streams=("image",)),
        Matrix(name="text", inputs=text_width, outputs=width, streams=("text",)),
        *(Matrix(name=name, inputs=i, outputs=width, streams=ONCE) for name, i in told.items()),
        *(Matrix(name=name, inputs=width, outputs=width, streams=ONCE) for name in told),
        *sides,
        Attention(layers=double, heads=heads, head_width=head_width, streams=both),
        *(
            Matrix(name=name, inputs=width, outputs=width, layers=single, streams=both)
            for name in ("query", "key", "value")
        ),
        Attention(layers=single, heads=heads, head_width=head_width, streams=both),
        Matrix(name="up", inputs=width, outputs=4 * width, layers=single, streams=both),
        Matrix(name="out", inputs=5 * width, outputs=width, layers=single, streams=both),
        Matrix(name="modulation", inputs=width, outputs=3 * width, layers=single, streams=ONCE),
        Table(name="norms", numbers=2 * head_width, layers=single),
        Matrix(name="modulation", inputs=width, outputs=2 * width, streams=ONCE),
        Matrix(name="head", inputs=width, outputs=channels, streams=("image",)),
    )


ARCHITECTURES: Registry[Callable[[], tuple[Part, ...]]] = Registry("architecture")
for _name, _make in {
    "bert-base": bert,
    "bert-large": partial(bert, width=1024, layers=24, heads=16, hidden=4096),
    "gpt-neox-20b": gpt_neox,
    "llama-2-7b": llama,
    "llama-3-8b": partial(llama, key_heads=8, hidden=14336, vocabulary=128256),
    "mixtral-8x7b": partial(llama, key_heads=8, hidden=14336, experts=8, chosen=2),
    "vit-b/16": vit,
    "dit-xl/2": dit,
    "flux.1-dev": flux,
}.items():
    ARCHITECTURES.add(_name, _make)
