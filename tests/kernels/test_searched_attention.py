"""Output, log-sum-exp and mass in one pass are those of dense attention and of the mass apart."""

from __future__ import annotations

import pytest
import torch

from outpace.errors import ConfigError
from outpace.kernels.attention import searched as room
from outpace.kernels.attention import searched_attention
from outpace.kernels.attention import torch as plain
from outpace.kernels.attention.reference import reference_dense, reference_mass

BLOCKS = [(16, 16), (32, 32), (64, 64), (128, 64), (128, 128)]


def inputs(
    tokens: int, heads: int, key_heads: int, width: int, dtype: torch.dtype = torch.float32, sharp: float = 1.0
) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(tokens + width)
    q = sharp * torch.randn(2, tokens, heads, width, generator=generator).transpose(1, 2)
    k, v = (torch.randn(2, tokens, key_heads, width, generator=generator).transpose(1, 2) for _ in range(2))
    return [q, k, v]


@pytest.mark.parametrize("blocks", BLOCKS, ids=str)
@pytest.mark.parametrize(
    ("tokens", "heads", "key_heads", "lengths"),
    [(200, 2, 2, None), (256, 4, 2, None), (130, 2, 1, [130, 77]), (65, 2, 2, [0, 64])],
    ids=["ragged", "grouped", "padded", "nothing to see"],
)
@pytest.mark.parametrize("sharp", [1.0, 60.0, 4000.0], ids=["usual", "shifted", "repaired"])
def test_one_pass_gives_what_two_give(
    blocks: tuple[int, int], tokens: int, heads: int, key_heads: int, lengths: list[int] | None, sharp: float
) -> None:
    q, k, v = inputs(tokens, heads, key_heads, 32, sharp=sharp)
    padding = None if lengths is None else torch.tensor(lengths, dtype=torch.int32)
    given = {"query_block": blocks[0], "key_block": blocks[1]}
    with torch.no_grad():
        out, lse, mass = searched_attention(q, k, v, **given, key_lengths=padding)
    scale = 32**-0.5
    for b in range(2):
        length = tokens if lengths is None else lengths[b]
        one = slice(b, b + 1)
        if length == 0:
            assert not out[b].any() and not mass[b].any() and bool((lse[b] == -torch.inf).all())
            continue
        truth, exact = reference_dense(q[one], k[one, :, :length], v[one, :, :length], scale=scale)
        held = reference_mass(q[one], k[one], exact, **given, scale=scale, key_lengths=torch.tensor([length]))
        near = 2e-6 * max(10.0, sharp)  # the rounding of a score is that of its weight's exponent
        torch.testing.assert_close(out[one].double(), truth.double(), rtol=near, atol=near)
        torch.testing.assert_close(lse[one].double(), exact.double(), rtol=1e-5, atol=near)
        torch.testing.assert_close(mass[one].double(), held.double(), rtol=near, atol=blocks[0] * near)
        rows = torch.full((tokens,), 1.0).split(blocks[0])
        sums = torch.stack([row.sum() for row in rows]).expand(1, heads, -1)
        torch.testing.assert_close(mass[one].sum(-1), sums, rtol=1e-4, atol=1e-4)


def test_where_kernels_do_the_mass_it_is_done_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = inputs(200, 2, 2, 32)
    with torch.no_grad():
        fused = searched_attention(q, k, v, query_block=64, key_block=64)
        monkeypatch.setattr(room, "sparse_with_mass", lambda *_, **__: pytest.fail("in one pass"))
        with torch.enable_grad():
            apart = searched_attention(q, k, v, query_block=64, key_block=64)
    for one, other in zip(fused, apart, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_the_workspace_is_left_as_attention_over_some_blocks_finds_it() -> None:
    """The same buffers serve both: nothing of a search may be left in the next sparse call."""
    q, k, v = inputs(200, 2, 2, 32)
    with torch.no_grad():
        first = searched_attention(q, k, v, query_block=64, key_block=64)
        assert plain._kept.workspace is not None and plain._kept.workspace.blocks is not None
        plain._kept.workspace.blocks.fill_(torch.nan)
        again = searched_attention(q, k, v, query_block=64, key_block=64)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def test_slips_are_those_of_the_two() -> None:
    q, k, v = inputs(64, 2, 2, 32)
    with torch.no_grad():
        with pytest.raises(ConfigError):
            searched_attention(q, k, v, query_block=48, key_block=0)
        with pytest.raises(ConfigError):
            searched_attention(q, k[..., :16], v, query_block=64, key_block=64)
