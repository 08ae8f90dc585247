"""Smaller adaLN: the matrices that turn the conditioning into shifts, scales and gates, made thin or shared.

They are a quarter of FLUX.1-dev and run once a call, not once a token: compressing them saves memory, hardly time.
"""

from __future__ import annotations

from collections import defaultdict
from typing import cast

import torch
from torch import Tensor, nn

from ...errors import ConfigError, UnsupportedModelError
from ...kernels.precision import widest
from ..families import find_family
from .fused import linear_of, parameter_of
from .settings import Modulation

_HOLDERS = ("img_mod", "txt_mod", "adaLN_modulation")
"""Children of a block whose matrices are modulations; besides those called `linear` in a norm."""


class SharedLinear(nn.Module):
    """A matrix that other blocks use too, with a bias of its own. The matrix belongs to the transformer."""

    def __init__(self, matrix: nn.Linear, bias: Tensor | None) -> None:
        super().__init__()
        self.bias = None if bias is None else parameter_of(bias)
        self._matrix = (matrix,)  # in a tuple, so that it is no child of this module and saved once

    def forward(self, conditioning: Tensor) -> Tensor:
        shared = self._matrix[0](conditioning)
        return shared if self.bias is None else shared + self.bias


def find_modulations(transformer: nn.Module) -> dict[str, nn.Linear]:
    """The modulations inside the blocks by path, in execution order; those outside are one each and small.

    Raises: UnsupportedModelError where no family covers the transformer.
    """
    paths = {id(module): path for path, module in transformer.named_modules()}
    found: dict[str, nn.Linear] = {}
    for _, block in find_family(transformer).blocks(transformer):
        for name, module in block.named_modules():
            parent, _, leaf = name.rpartition(".")
            in_norm = leaf == "linear" and "norm" in parent.rpartition(".")[2]
            if isinstance(module, nn.Linear) and (in_norm or name.split(".")[0] in _HOLDERS):
                found[paths[id(module)]] = module
    return found


def compress_modulation(transformer: nn.Module, settings: Modulation) -> None:
    """Make the modulations of `transformer` smaller, in place.

    "low_rank" keeps the best approximation of each in the least-squares sense, so a full rank changes nothing;
    "shared" the mean over blocks of a kind, with each block's own bias. Both lose something that distillation restores.

    Raises: UnsupportedModelError where blocks have no modulation of their own; ConfigError for a useless rank.
    """
    found = find_modulations(transformer)
    if not found:
        raise UnsupportedModelError(
            f"the blocks of {type(transformer).__name__} have no modulation of their own to compress; leave it out"
        )
    if settings.kind == "low_rank":
        for path, linear in found.items():
            _replace(transformer, path, _thin(path, linear, settings.rank))
        return
    kinds: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for path, linear in found.items():
        kind = [part for part in path.split(".") if not part.isdecimal()]
        kinds[(*kind, str(tuple(linear.weight.shape)))].append(path)
    matrices = nn.ModuleList()
    for members in kinds.values():
        weights = [found[path].weight for path in members]
        total = weights[0].detach().float()
        for weight in weights[1:]:
            total = total + weight.detach().float()
        mean = (total / len(weights)).to(weights[0].dtype).requires_grad_(weights[0].requires_grad)
        matrices.append(linear_of(mean))
    transformer.shared_modulations = matrices
    for matrix, members in zip(matrices, kinds.values(), strict=True):
        for path in members:
            _replace(transformer, path, SharedLinear(cast(nn.Linear, matrix), found[path].bias))


def _thin(path: str, linear: nn.Linear, rank: int) -> nn.Sequential:
    out, width = linear.weight.shape
    if rank * (out + width) >= out * width:
        raise ConfigError(
            f"rank {rank} saves nothing on {path} ({out} x {width}); stay below {out * width // (out + width)}"
        )
    weight = linear.weight.detach()
    if weight.is_meta:
        into, out_of = weight.new_empty(rank, width), weight.new_empty(out, rank)
    else:
        # The best approximation of a rank projects on the largest eigenvectors of the small square matrix.
        exact = weight.to(widest(weight.device))
        basis = torch.linalg.eigh(exact.T @ exact).eigenvectors[:, -rank:]
        into, out_of = basis.T.to(weight.dtype), (exact @ basis).to(weight.dtype)
    trained = linear.weight.requires_grad
    return nn.Sequential(
        linear_of(into.requires_grad_(trained)), linear_of(out_of.requires_grad_(trained), linear.bias)
    )


def _replace(transformer: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(transformer.get_submodule(parent), name, module)
