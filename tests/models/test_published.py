"""Weights in the layout of published code give what that code gives: against models written out plainly, in float32."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import more_plain_models as more
import plain_diffusion as diffusion
import plain_models as plain
import pytest
import torch
from plain_maxim import maxim
from plain_moat import moat as moat_of_deeplab
from torch import Tensor, nn

from outpace.errors import ConfigError, UnknownNameError
from outpace.kernels.wavelets import dual_tree, inverse_dual_tree
from outpace.models import create, load_published
from outpace.models.published import LAYOUTS
from outpace.pipelines.dit3d import DiT3DTransformerModel
from outpace.pipelines.ladine import LadineDenoiser, LadineEncoder, LadineMapping
from outpace.pipelines.lego import LegoTransformer2DModel
from outpace.pipelines.vdt import VDTTransformer3DModel
from outpace.weights import plain as without_wrappers

torch.set_num_threads(1)
Case = tuple[nn.Module, Any, Callable[..., Tensor]]
"""A model, what goes in (one input or several), and the published model written out."""


def pictures(rows: int, columns: int | None = None, seed: int = 9) -> Tensor:
    return torch.rand(2, 3, rows, columns or rows, generator=torch.Generator().manual_seed(seed))


def words(vocabulary: int = 32) -> Tensor:
    return torch.randint(vocabulary, (2, 11), generator=torch.Generator().manual_seed(3))


def hornet(*, gf: bool) -> Case:
    model = create("hornet", "toy", depths=(1, 2, 1), orders=(2, 3, 3), global_filters=gf)
    return model, pictures(32), lambda b, x: plain.hornet(b, x, width=16, depths=(1, 2, 1), orders=(2, 3, 3), gf=gf)


def predformer(layout: str) -> Case:
    letters = {"bin-ts": 2, "fac-ts": 2, "fac-st": 2, "triplet-sts": 3, "quad-tsst": 4}[layout]
    model = create("predformer", "toy", layout=layout, blocks=2 * letters, channels=2, picture=(8, 12), frames=3,
                   legacy_order=layout == "fac-st")  # fmt: skip
    x = torch.rand(2, 3, 2, 8, 12, generator=torch.Generator().manual_seed(1))
    return model, x, lambda b, x: plain.predformer(b, x, layout=layout, width=16, heads=2, patch=4, repeats=2)


def svt(*, tokens: bool) -> Case:
    sizes: dict[str, Any] = {"widths": (8, 16, 16), "depths": (2, 1, 1), "heads": (2, 2, 4)}
    model = create(
        "svt", "toy", **sizes, expansions=(2, 2, 2), token_mixing=tokens, scattered=2 - (not tokens), picture=64
    )
    return model, pictures(64), lambda b, x: more.svt(
        b, x, **sizes, expansion=2, stem=4, scattered=2 - (not tokens), parts=2, tokens=tokens,
        transform=dual_tree, inverse=inverse_dual_tree,
    )  # fmt: skip


def fla(*kinds: str, bounded: bool = False) -> Case:
    model = create("hybrid", "toy", layer_types=kinds, tied=False, norm_eps=1e-6, lower_bounds=bounded)
    sizes = {"vocabulary": 32, "width": 16, "heads": 2, "hidden": 24}
    return model, words(), lambda b, x: more.fla(b, x, kinds=kinds, bounded=bounded, **sizes)


HEADS: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 8}
BRICKS = ((4, 2, 1), (8, 4, 2), (16, 2, 1))
LEGO: dict[str, Any] = {
    **HEADS, "sample_size": 16, "brick_sizes": (4, 8, 16), "patch_sizes": (2, 4, 2), "num_layers": (1, 2, 1),
    "freq_shift": 0.0, "down_first": True,
}  # fmt: skip


def normal(*shape: int, seed: int = 4) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def moat(side: int) -> Case:
    sizes: dict[str, Any] = {"stem": 8, "widths": (16, 32, 64), "depths": (1, 2, 1), "attention": (1, 2), "classes": 5}
    model = create("moat", "toy", **sizes, picture=64, table_corners=False)
    return model, pictures(side, side + 5), lambda b, x: moat_of_deeplab(b, x, **sizes, tables=(8, 4))


def vdt() -> Case:
    model = VDTTransformer3DModel(
        **HEADS, in_channels=3, num_layers=2, sample_size=8, norm_eps=1e-6, freq_shift=0.0, places_in_stream=True
    )
    inputs = normal(2, 3, 4, 8, 8), torch.tensor([3.0, 700.0])
    return model, inputs, lambda b, x, t: diffusion.vdt(b, x, t, width=16, layers=2, heads=2, patch=2)


def dit3d() -> Case:
    sizes: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 6, "num_layers": 2, "voxel_size": 8}
    model = DiT3DTransformerModel(**sizes, num_embeds_ada_norm=3, activation_fn="gelu", norm_eps=1e-6, freq_shift=0.0)
    inputs = normal(2, 14, 3), torch.tensor([3.0, 700.0]), torch.tensor([1, 3])
    return model, inputs, lambda b, *given: diffusion.dit3d(b, *given, width=12, layers=2, heads=2, voxels=8, patch=4)


def lego() -> Case:
    model = LegoTransformer2DModel(**LEGO, num_embeds_ada_norm=5)
    inputs = normal(2, 3, 16, 16), torch.tensor([0.3, -0.7]), torch.tensor([2, 5])
    return model, inputs, lambda b, *given: diffusion.lego(b, *given, width=16, heads=2, classes=5, bricks=BRICKS)


def ladine_member() -> Case:
    """What is read of a picture, and what is seen in a label: the two halves of the released model."""
    denoiser = LadineDenoiser(members=1, num_classes=4, width=12, num_train_timesteps=9, picture_layers=3, norm="batch")
    part: Any = denoiser.parts[0]
    whole = part.forward
    part.forward = lambda picture, y, z, times: whole(y, z, part.picture(picture), times)
    inputs = normal(3, 1, 8, 8), normal(3, 4, seed=5), normal(3, 4, seed=6).softmax(-1), torch.tensor([0, 4, 8])
    return part, inputs, lambda b, *given: diffusion.ladine_member(b, *given, width=12, steps=9)


def ladine_mapping() -> Case:
    mapping = LadineMapping(members=2, tokens=5, token_width=4, width=(8, 6, 5), num_classes=3, dropout=0.0)
    network: Any = mapping.networks[1]
    return network, normal(2, 20), lambda b, x: diffusion.ladine_mapping(b, x, widths=(8, 6, 5), classes=3)


def ladine_encoder(*, bare: bool) -> Case:
    """What the transformer says, or what its second block makes of patches alone."""
    encoder: Any = LadineEncoder(sample_size=8, width=12, num_layers=3, num_heads=2, num_classes=5, in_channels=3,
                                 norm_eps=1e-6, centred=False, bare=True)  # fmt: skip
    if bare:
        encoder.forward = lambda x: encoder.tokens(x, 2)[1]

    def written_out(b: plain.Book, x: Tensor) -> Tensor:
        said, seen = diffusion.vision_transformer(b, x, width=12, layers=3, heads=2, patch=2, classes=5)
        return seen[1] if bare else said

    return encoder, pictures(8), written_out


CASES: dict[str, Callable[[], Case]] = {
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
    "hgrn and hgrn2 with lower bounds": lambda: fla("hgrn2", "hgrn", "hgrn2", bounded=True),
    "deltanet of flash-linear-attention": lambda: fla("deltanet"),
    "gated deltanet of flash-linear-attention": lambda: fla("gated_deltanet"),
    "a hybrid of flash-linear-attention": lambda: fla("gla", "full"),
    "moat": lambda: moat(64),
    "moat, its tables resized": lambda: moat(91),
    "vdt": vdt,
    "dit3d": dit3d,
    "lego": lego,
    "a member of ladine": ladine_member,
    "a mapping network of ladine": ladine_mapping,
    "the transformer of ladine": lambda: ladine_encoder(bare=False),
    "patches in the transformer of ladine": lambda: ladine_encoder(bare=True),
    "swin": lambda: (
        create("swin", "toy", width=12, depths=(2, 2), heads=(3, 6), drop_path=0.0),
        pictures(32),
        lambda b, x: more.swin(b, x, width=12, depths=(2, 2), heads=(3, 6), window=4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_published_weights_give_what_published_code_gives(name: str) -> None:
    model, inputs, written_out = CASES[name]()
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    book = plain.Book()
    written_out(book, *inputs)  # makes the weights
    expected = written_out(book, *inputs)
    found = load_published(
        model.eval(), {"state_dict": {f"module.{key}": value for key, value in book.weights.items()}}
    )(*inputs)
    found = next(part for part in (found, *(getattr(found, name, None) for name in ("logits", "sample")))
                 if isinstance(part, Tensor))  # fmt: skip
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


OTHER_NAMES: dict[str, tuple[str, list[tuple[str, Any]], dict[str, Tensor]]] = {
    # timm counts the halving of a grid to the stage after it, and has a layer inside its head
    "swin of timm": ("swin", [
        (r"^layers\.(\d)\.downsample", lambda found: f"layers.{int(found[1]) + 1}.downsample"),
        (r"^head\.", "head.fc."),
    ], {"layers.0.blocks.0.attn.relative_position_index": torch.zeros(16, 16)}),
    "mosaic_bert in composer": ("mosaic_bert", [(r"^", "model.")], {
        "model.bert.pooler.dense.weight": torch.zeros(16, 16), "model.bert.embeddings.position_ids": torch.zeros(1, 9),
    }),
    "a head's bias beside its matrix": ("mosaic_bert", [(r"predictions\.decoder\.bias", "predictions.bias")], {}),
    "gla with the words of transformers": ("gla of flash-linear-attention", [
        (r"^model\.embeddings", "model.embed_tokens"), (r"\.g_norm\.", ".g_norm_swish_gate."),
    ], {}),
    "gla without its head": ("gla of flash-linear-attention", [(r"^model\.", "")], {}),
    "maxim's parameters": ("maxim", [(r"^", "params/")], {"state/step": torch.zeros(())}),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER_NAMES)
@torch.no_grad()
def test_other_names_in_use_are_taken_too(name: str) -> None:
    case, rules, beside = OTHER_NAMES[name]
    model, inputs, book, expected = book_of(case)
    weights = {}
    for key, value in book.weights.items():
        for pattern, made in rules:
            key = re.sub(pattern, made, key)
        weights[key] = value
    assert weights.keys() != book.weights.keys()
    found = load_published(model.eval(), weights | beside)(*inputs)
    found = found if isinstance(found, Tensor) else found.logits
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


@torch.no_grad()
def test_a_head_that_is_the_embedding_is_left_out_and_no_other() -> None:
    sizes: dict[str, Any] = {"layer_types": ("gla",), "norm_eps": 1e-6}
    own, tied = (create("hybrid", "toy", tied=tied, **sizes).eval() for tied in (False, True))
    book, tokens = plain.Book(), words()
    more.fla(book, tokens, kinds=("gla",), bounded=False, vocabulary=32, width=16, heads=2, hidden=24)
    with pytest.raises(ConfigError, match=r"head\.weight"):
        load_published(tied, book.weights)
    shared = {**book.weights, "lm_head.weight": book.weights["model.embeddings.weight"].clone()}
    expected = load_published(own, shared)(tokens)
    alone = {name: value for name, value in shared.items() if name != "lm_head.weight"}
    for weights in (shared, alone):
        torch.testing.assert_close(load_published(tied, weights)(tokens), expected)
    with pytest.raises(ConfigError, match=r"head\.weight"):
        load_published(own, alone)


def test_what_is_around_weights_is_taken_off() -> None:
    inner = {"module.a": torch.zeros(1), "module.b": torch.ones(1)}
    assert list(without_wrappers({"model": inner, "epoch": 3})) == ["a", "b"]
    assert list(without_wrappers({"a": torch.zeros(1), "step": 2})) == ["a"]


def book_of(name: str) -> tuple[Any, Any, plain.Book, Tensor]:
    """A case's model, its inputs, its weights, and what published code gives."""
    model, inputs, written_out = CASES[name]()
    inputs, book = inputs if isinstance(inputs, tuple) else (inputs,), plain.Book()
    with torch.no_grad():
        written_out(book, *inputs)
        return model, inputs, book, written_out(book, *inputs)


@torch.no_grad()
def test_averages_of_a_training_are_taken_where_there_is_nothing_else() -> None:
    model, inputs, book, expected = book_of("moat")
    beside = {f"{name}/ExponentialMovingAverage": value + 1 for name, value in book.weights.items()}
    slots = {f"{name}/AdamW": value for name, value in book.weights.items()} | {"global_step": torch.ones(())}
    found = load_published(model.eval(), beside | book.weights | slots)(*inputs)
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    alone = {f"{name.removeprefix('moat/stem/')}/ExponentialMovingAverage": one for name, one in book.weights.items()}
    torch.testing.assert_close(load_published(model, alone)(*inputs), found)


@torch.no_grad()
def test_a_lego_without_classes_has_a_row_of_nothing() -> None:
    _, (x, times, _), book, _ = book_of("lego")
    model = LegoTransformer2DModel(**LEGO, num_embeds_ada_norm=0).eval()
    weights = {name: one for name, one in book.weights.items() if "y_embedder" not in name}
    found: Any = load_published(model, {**weights, "model.map_augment.weight": torch.zeros(16, 9)})(x, times)
    book.weights["model.y_embedder.embedding_table.bias"] = torch.zeros(16)
    expected = diffusion.lego(book, x, times, torch.tensor([5, 5]), width=16, heads=2, classes=5, bricks=BRICKS)
    assert float((found.sample - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize(
    ("name", "make", "says"),
    [
        ("vdt", lambda: VDTTransformer3DModel(num_layers=1), "places_in_stream=True"),
        ("lego", lambda: LegoTransformer2DModel(num_layers=(1, 1, 1)), "down_first=True"),
        ("a member of ladine", lambda: LadineDenoiser(members=1).parts[0], "norm='batch'"),
        ("moat", lambda: create("moat", "toy"), "another model or size"),
        (
            "dit3d",
            lambda: DiT3DTransformerModel(num_layers=1, voxel_size=8),
            r"pos_embed \(1, 8, 12\) is not the table",
        ),
    ],
)
def test_weights_of_other_settings_are_refused(name: str, make: Callable[[], nn.Module], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_published(make(), book_of(name)[2].weights)


def test_other_places_are_refused() -> None:
    model, _, book, _ = book_of("vdt")
    for name in ("pos_embed", "time_embed"):
        with pytest.raises(ConfigError, match=f"{name} .* is not the table of places"):
            load_published(model, {**book.weights, name: book.weights[name] + 0.01})
