"""The truth every backend is tested against: every expert on every token, in float64, most of it times zero."""

from __future__ import annotations

import torch
from torch import Tensor

from .experts import Experts


def reference_expert_ffn(x_ND: Tensor, experts: Experts, expert_index_NK: Tensor, gates_NK: Tensor) -> Tensor:
    """sum over e of A_te FFN_e(x_t), with A_te the sum of the gates of token t for expert e; float64 (N, O)."""
    exact, x = experts.to(torch.float64), x_ND.double()
    gates_NE = x.new_zeros(len(x), experts.count).scatter_add(1, expert_index_NK.long(), gates_NK.double())
    out = x.new_zeros(len(x), exact.down_EHO.shape[2])
    for e, one in enumerate(exact.each()):
        out = out + gates_NE[:, e, None] * exact.hidden(x, one) @ one.down_HO
    return out
