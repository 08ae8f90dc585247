"""Weights in the layout of published code give what that code gives: against models written out plainly, in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import more_plain_models as more
import plain_models as plain
import pytest
import torch
from plain_maxim import maxim
from torch import Tensor, nn

from outpace.errors import ConfigError, UnknownNameError
from outpace.kernels.wavelets import dual_tree, inverse_dual_tree
from outpace.models import create, load_published
from outpace.models.published import LAYOUTS
from outpace.models.published.taking import plain as without_wrappers

torch.set_num_threads(1)
Model = Callable[[plain.Book], Tensor]


def pictures(rows: int, columns: int | None = None, seed: int = 9) -> Tensor:
    return torch.rand(2, 3, rows, columns or rows, generator=torch.Generator().manual_seed(seed))


def words(vocabulary: int = 32) -> Tensor:
    return torch.randint(vocabulary, (2, 11), generator=torch.Generator().manual_seed(3))


def hornet(*, gf: bool) -> tuple[nn.Module, Tensor, Callable[[plain.Book, Tensor], Tensor]]:
    model = create("hornet", "toy", depths=(1, 2, 1), orders=(2, 3, 3), global_filters=gf)
    return model, pictures(32), lambda b, x: plain.hornet(b, x, width=16, depths=(1, 2, 1), orders=(2, 3, 3), gf=gf)


def predformer(layout: str) -> tuple[nn.Module, Tensor, Callable[[plain.Book, Tensor], Tensor]]:
    letters = {"bin-ts": 2, "fac-ts": 2, "fac-st": 2, "triplet-sts": 3, "quad-tsst": 4}[layout]
    model = create("predformer", "toy", layout=layout, blocks=2 * letters, channels=2, picture=(8, 12), frames=3,
                   legacy_order=layout == "fac-st")  # fmt: skip
    x = torch.rand(2, 3, 2, 8, 12, generator=torch.Generator().manual_seed(1))
    return model, x, lambda b, x: plain.predformer(b, x, layout=layout, width=16, heads=2, patch=4, repeats=2)


def svt(*, tokens: bool) -> tuple[nn.Module, Tensor, Callable[[plain.Book, Tensor], Tensor]]:
    sizes: dict[str, Any] = {"widths": (8, 16, 16), "depths": (2, 1, 1), "heads": (2, 2, 4)}
    model = create(
        "svt", "toy", **sizes, expansions=(2, 2, 2), token_mixing=tokens, scattered=2 - (not tokens), picture=64
    )
    return model, pictures(64), lambda b, x: more.svt(
        b, x, **sizes, expansion=2, stem=4, scattered=2 - (not tokens), parts=2, tokens=tokens,
        transform=dual_tree, inverse=inverse_dual_tree,
    )  # fmt: skip


def fla(*kinds: str) -> tuple[nn.Module, Tensor, Callable[[plain.Book, Tensor], Tensor]]:
    model = create("hybrid", "toy", layer_types=kinds, tied=False, norm_eps=1e-6)
    return model, words(), lambda b, x: more.fla(b, x, kinds=kinds, vocabulary=32, width=16, heads=2, hidden=24)


CASES: dict[str, Callable[[], tuple[nn.Module, Tensor, Callable[[plain.Book, Tensor], Tensor]]]] = {
    "hornet": lambda: hornet(gf=False),
    "hornet with global filters": lambda: hornet(gf=True),
    "vig, plain": lambda: (
        create("vig", "toy", widths=(16,), depths=(2,), heads=(2,), picture=48, activated=True, norm_eps=1e-6),
        pictures(48),
        lambda b, x: plain.vig_plain(b, x, width=16, depth=2, heads=2, activated=True),
    ),
    "vig, plain, not activated": lambda: (
        create("vig", "toy", widths=(16,), depths=(1,), heads=(2,), norm_eps=1e-6),
        pictures(32),
        lambda b, x: plain.vig_plain(b, x, width=16, depth=1, heads=2, activated=False),
    ),
    "vig, hierarchical": lambda: (
        create("vig", "toy", depths=(2, 1)),
        pictures(32),
        lambda b, x: plain.vig_hierarchical(b, x, widths=(8, 16), depths=(2, 1), heads=(1, 2)),
    ),
    "craft": lambda: (
        create("craft", "toy", width=64, heads=4, groups=2, blocks=2, window=(4, 8), scale=3),
        pictures(16, 24),
        lambda b, x: plain.craft(b, x, width=64, groups=2, blocks=2, heads=4, scale=3, window=(4, 8)),
    ),
    "dlgsanet": lambda: (
        create("dlgsanet", "toy", groups=2, blocks=2, scale=3),
        pictures(9, 12),
        lambda b, x: plain.dlgsanet(b, x, width=12, groups=2, blocks=2, heads=2, share=3, scale=3),
    ),
    "styleswin": lambda: (
        create("styleswin", "toy", widths=(16, 24, 32, 16), mapping=3),
        torch.randn(2, 12, generator=torch.Generator().manual_seed(2)),
        lambda b, x: more.styleswin(b, x, widths=(16, 24, 32, 16), window=4, mapping=3),
    ),
    "crate": lambda: (
        create("crate", "toy", layers=3),
        pictures(8),
        lambda b, x: plain.crate(b, x, width=16, layers=3, heads=2, patch=4),
    ),
    **{
        f"predformer, {name}": lambda name=name: predformer(name)
        for name in ("bin-ts", "fac-ts", "fac-st", "triplet-sts", "quad-tsst")
    },
    "svt": lambda: svt(tokens=True),
    "svt, over channels alone": lambda: svt(tokens=False),
    "maxim": lambda: (
        create("maxim", "toy"),
        pictures(64)[:1],
        lambda b, x: maxim(b, x, features=4, stages=2, scales=3),
    ),
    "maxim, one stage at one scale": lambda: (
        create("maxim", "toy", features=8, stages=1, scales=1),
        pictures(64, 128)[:1],
        lambda b, x: maxim(b, x, features=8, stages=1, scales=1),
    ),
    "mosaic_bert": lambda: (
        create("mosaic_bert", "toy", heads=4),
        words(),
        lambda b, x: more.mosaic_bert(b, x, vocabulary=32, width=16, layers=2, heads=4, hidden=24),
    ),
    "gla of flash-linear-attention": lambda: fla("gla", "gla"),
    "retnet of flash-linear-attention": lambda: fla("retnet"),
    "hgrn and hgrn2 of flash-linear-attention": lambda: fla("hgrn", "hgrn2"),
    "deltanet of flash-linear-attention": lambda: fla("deltanet"),
    "gated deltanet of flash-linear-attention": lambda: fla("gated_deltanet"),
    "a hybrid of flash-linear-attention": lambda: fla("gla", "full"),
    "swin": lambda: (
        create("swin", "toy", width=12, depths=(2, 2), heads=(3, 6), drop_path=0.0),
        pictures(32),
        lambda b, x: more.swin(b, x, width=12, depths=(2, 2), heads=(3, 6), window=4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_published_weights_give_what_published_code_gives(name: str) -> None:
    model, x, written_out = CASES[name]()
    book = plain.Book()
    written_out(book, x)  # makes the weights
    expected = written_out(book, x)
    found = load_published(
        model.eval(), {"state_dict": {f"module.{key}": value for key, value in book.weights.items()}}
    )(x)
    found = found if isinstance(found, Tensor) else found.logits
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_every_layout_is_tried() -> None:
    tried = {type(make()[0]).__name__ for make in CASES.values()}
    # MossFormer's has a test beside its package, the critic one beside its generator
    known = {kind if isinstance(kind, str) else kind.__name__ for kind in LAYOUTS}
    assert known - tried == {"Mossformer", "Critic"}


def test_what_an_optimiser_keeps_beside_arrays_is_left_out() -> None:
    model = create("maxim", "toy", stages=1, scales=1, device="meta")
    weights = {"opt/target/stage_0_input_conv_0/bias": torch.zeros(4), "opt/state/step": torch.zeros(()),
               "opt/target/stage_0_odd/bias": torch.zeros(1)}  # fmt: skip
    assert sorted(LAYOUTS[type(model)](weights, model)) == ["stage_0_odd/bias", "stages.0.inputs.0.bias"]


def test_weights_that_do_not_fit_change_nothing() -> None:
    model, x, written_out = CASES["crate"]()
    book = plain.Book()
    with torch.no_grad():
        written_out(book, x)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    short = {name: value for name, value in book.weights.items() if "mlp_head" not in name}
    wide = book.weights | {"cls_token": torch.zeros(1, 1, 17)}
    for weights, says in ((short, "head.0.bias"), (wide, r"class_token \(1, 1, 17\) for \(1, 1, 16\)")):
        with pytest.raises(ConfigError, match=f"another model or size: .*{says}"):
            load_published(model, weights)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_is_refused_says_why() -> None:
    with pytest.raises(UnknownNameError, match="no published layout is known for a Linear"):
        load_published(nn.Linear(2, 2), {})
    model, x, written_out = CASES["mosaic_bert"]()
    book = plain.Book()
    with torch.no_grad():
        written_out(book, x)
    odd = book.weights | {"cls.predictions.decoder.weight": torch.zeros(32, 16)}
    with pytest.raises(ConfigError, match="the words of its embedding"):
        load_published(model, odd)
    model, x, written_out = CASES["vig, plain"]()
    book = plain.Book()
    with torch.no_grad():
        written_out(book, x)
    with pytest.raises(ConfigError, match="create the model with picture=48"):
        load_published(create("vig", "toy", widths=(16,), depths=(2,), heads=(2,), picture=32), book.weights)
    with pytest.raises(ConfigError, match="stacks of blocks"):
        load_published(create("predformer", "toy"), {"blocks.0.ts_space_transformer.norm.weight": torch.zeros(16)})
    with pytest.raises(ConfigError, match="is no stack over what layout 'fac-ts'"):
        names = ("space_transformer", "st_space_transformer")
        weights = {f"blocks.0.{name}.norm.weight": torch.zeros(16) for name in names}
        load_published(create("predformer", "toy", layout="fac-ts"), weights)


def test_what_is_around_weights_is_taken_off() -> None:
    inner = {"module.a": torch.zeros(1), "module.b": torch.ones(1)}
    assert list(without_wrappers({"model": inner, "epoch": 3})) == ["a", "b"]
    assert list(without_wrappers({"a": torch.zeros(1), "step": 2})) == ["a"]
