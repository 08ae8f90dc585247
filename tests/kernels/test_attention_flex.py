"""FlexAttention over a BlockIndex: the mask it gets, the options it is called with, and, compiled, what comes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from outpace.errors import ConfigError
from outpace.kernels.attention import SPARSE, BlockIndex, flex, sparse_attention
from outpace.kernels.attention.reference import reference_sparse


def problem(
    *, heads: int, key_heads: int, groups: int, width: int = 32, lengths: list[int] | None = None
) -> tuple[Tensor, Tensor, Tensor, BlockIndex]:
    """Queries and keys in blocks that do not fit evenly, one row of them with nothing kept."""
    torch.manual_seed(heads + groups)
    q = torch.randn(2, 150, heads, width).transpose(1, 2)
    k, v = torch.randn(2, 2, key_heads, 110, width)
    mask = torch.rand(2, groups, 5, 4) < 0.5
    mask[0, 0, 1] = False
    index = BlockIndex.from_mask(
        mask,
        queries=150,
        keys=110,
        query_block=32,
        key_block=32,
        key_lengths=None if lengths is None else torch.tensor(lengths),
    )
    return q, k, v, index


def uncompiled(seen: dict[str, Any]) -> Callable[..., Any]:
    """FlexAttention as it runs uncompiled, with the kept blocks, which it then ignores, as a mask of tokens."""

    def run(q: Tensor, k: Tensor, v: Tensor, *, block_mask: Any, **options: Any) -> Any:
        seen.update(options)
        (query_block, key_block), blocks, by_token = block_mask.BLOCK_SIZE, block_mask.to_dense(), block_mask.mask_mod

        def kept(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return (blocks[b, h, query // query_block, key // key_block] > 0) & by_token(b, h, query, key)

        mask = torch.nn.attention.flex_attention.create_block_mask(
            kept, q.shape[0], q.shape[1], q.shape[2], k.shape[2], device="cpu"
        )
        return flex_attention(q, k, v, block_mask=mask, **options)

    return run


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(("heads", "key_heads", "groups"), [(2, 2, 1), (4, 2, 2), (2, 2, 2)])
@pytest.mark.parametrize("lengths", [None, [110, 40]])
def test_mask_scale_heads_and_lse_reach_flex_attention(
    heads: int, key_heads: int, groups: int, lengths: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(flex, "_compiled", lambda: uncompiled(seen))
    q, k, v, index = problem(heads=heads, key_heads=key_heads, groups=groups, lengths=lengths)
    truth, truth_lse = reference_sparse(q, k, v, index, scale=0.3)
    out, lse = flex.sparse(q, k, v, index, scale=0.3, return_lse=True)
    assert lse is not None and torch.equal(lse.isinf(), truth_lse.isinf())
    assert torch.allclose(out.double(), truth, atol=1e-5)
    assert torch.allclose(lse.double(), truth_lse, atol=1e-5)
    assert seen["enable_gqa"] == (heads != key_heads) and "kernel_options" not in seen
    out, lse = flex.sparse(q, k, v, index, scale=0.3, return_lse=False)
    assert lse is None and torch.allclose(out.double(), truth, atol=1e-5)


def test_a_fallback_to_uncompiled_attention_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch falls back after too many combinations of shapes, and would then attend to every block."""
    asked = {}
    monkeypatch.setattr(torch, "compile", lambda function, **options: asked.update(options) or function)
    flex._compiled.cache_clear()
    flex._compiled()
    flex._compiled.cache_clear()
    assert asked["fullgraph"] is True


def test_what_it_cannot_take_is_refused_with_the_reason() -> None:
    q, k, v, index = problem(heads=2, key_heads=2, groups=1)
    with pytest.raises(ConfigError, match="on a CPU it gives no LSE"):
        sparse_attention(q, k, v, index, return_lse=True, backend="flex")
    with pytest.raises(ConfigError, match="float64: has float32, float16, bfloat16"):
        sparse_attention(q.double(), k.double(), v.double(), index, backend="flex")
    with pytest.raises(ConfigError, match="on a CPU it has no gradients"):
        sparse_attention(q.requires_grad_(), k, v, index, backend="flex")
    meta = torch.device("meta")
    assert flex.sparse_refuses(q.to(meta), k, v, index, False) == "it runs on CPU and CUDA devices, not on meta"


def test_on_a_cpu_it_is_taken_by_name_only() -> None:
    q, k, v, index = problem(heads=2, key_heads=2, groups=1)
    assert SPARSE.choose(q, k, v, index, False).name != "flex"
    assert SPARSE.choose(q, k, v, index, False, backend="flex").name == "flex"


@pytest.mark.slow
@pytest.mark.parametrize(("heads", "key_heads", "groups"), [(4, 2, 2), (2, 2, 1)])
@pytest.mark.parametrize("lengths", [None, [110, 40]])
def test_compiled_it_equals_the_reference(heads: int, key_heads: int, groups: int, lengths: list[int] | None) -> None:
    q, k, v, index = problem(heads=heads, key_heads=key_heads, groups=groups, width=64, lengths=lengths)
    with torch.no_grad():
        out = sparse_attention(q, k, v, index, backend="flex")
    assert isinstance(out, Tensor)
    assert torch.allclose(out.double(), reference_sparse(q, k, v, index)[0], atol=1e-5)
