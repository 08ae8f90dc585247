"""MOAT written out plainly on a book of weights that are named and shaped as DeepLab2's checkpoints have them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from plain_models import Book
from torch import Tensor


class Keras(Book):
    """Kernels have their inputs first; pictures their channels last; borders are padded as TensorFlow pads."""

    def __init__(self, book: Book) -> None:
        self.weights, self.generator = book.weights, book.generator

    def matrix(self, name: str, *shape: int, inputs: int) -> Tensor:
        if name not in self.weights:
            self.weights[name] = torch.randn(shape, generator=self.generator) * inputs**-0.5
        assert tuple(self.weights[name].shape) == shape, name
        return self.weights[name]

    def point(self, name: str, x: Tensor, out: int, *, bias: bool = True) -> Tensor:
        made = x @ self.matrix(f"{name}/kernel", 1, 1, x.shape[-1], out, inputs=x.shape[-1])[0, 0]
        return made + self(f"{name}/bias", out, kind="bias") if bias else made

    def same(self, x: Tensor, kernel: Tensor, stride: int, groups: int = 1) -> Tensor:
        pads = []
        for side in (x.shape[2], x.shape[1]):
            total = max((math.ceil(side / stride) - 1) * stride + 3 - side, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x.movedim(-1, 1), pads), kernel, None, stride, groups=groups).movedim(1, -1)

    def filter(self, name: str, x: Tensor, out: int, stride: int) -> Tensor:
        kernel = self.matrix(f"{name}/kernel", 3, 3, x.shape[-1], out, inputs=9 * x.shape[-1])
        return self.same(x, kernel.permute(3, 2, 0, 1), stride) + self(f"{name}/bias", out, kind="bias")

    def own(self, name: str, x: Tensor, stride: int) -> Tensor:
        kernel = self.matrix(f"{name}/depthwise_kernel", 3, 3, x.shape[-1], 1, inputs=9)
        return self.same(x, kernel.permute(2, 3, 0, 1), stride, x.shape[-1])

    def batch(self, name: str, x: Tensor) -> Tensor:
        C = x.shape[-1]
        mean, shift = self(f"{name}/moving_mean", C, kind="bias"), self(f"{name}/beta", C, kind="bias")
        variance = self.weights.setdefault(f"{name}/moving_variance", shift.square() + 0.5)
        return (x - mean) / (variance + 1e-3).sqrt() * self(f"{name}/gamma", C, kind="norm") + shift

    def layer(self, name: str, x: Tensor) -> Tensor:
        C, centred = x.shape[-1], x - x.mean(-1, keepdim=True)
        scale, shift = self(f"{name}/gamma", C, kind="norm"), self(f"{name}/beta", C, kind="bias")
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * scale + shift


def halved(x: Tensor) -> Tensor:
    """Means of squares of four; of fewer at an odd border."""
    parts = [x[:, i : i + 2, j : j + 2].mean((1, 2)) for i in range(0, x.shape[1], 2) for j in range(0, x.shape[2], 2)]
    return torch.stack(parts, 1).unflatten(1, (math.ceil(x.shape[1] / 2), -1))


def read_table(table: Tensor, down: Tensor, across: Tensor, window: tuple[int, int]) -> Tensor:
    """What a table, resized so that cells stay cells, holds for offsets of a key from a query."""
    made = table
    for axis, side in enumerate(window, 1):
        have, want = table.shape[axis], 2 * side - 1
        places = ((torch.arange(want) + 0.5) * have / want - 0.5).clamp(0, have - 1)
        low, share = places.floor().long(), places - places.floor()
        high = (low + 1).clamp(max=have - 1)
        shape = [1, 1, 1]
        shape[axis] = want
        share = share.view(shape)
        made = made.index_select(axis, low) * (1 - share) + made.index_select(axis, high) * share
    return made[:, down + window[0] - 1, across + window[1] - 1]


def moat(
    b: Book, x: Tensor, *, stem: int, widths: tuple[int, ...], depths: tuple[int, ...], attention: tuple[int, ...],
    tables: tuple[int, ...], classes: int,
) -> Tensor:  # fmt: skip
    k = Keras(b)
    h = F.gelu(k.batch("moat/stem/norm_0", k.filter("moat/stem/conv_0", x.movedim(1, -1), stem, 2)))
    h = k.filter("moat/stem/conv_1", h, stem, 1)
    for stage, (C, depth) in enumerate(zip(widths, depths, strict=True)):
        for block in range(depth):
            p, stride = f"moat/block_{stage:02d}_{block:02d}", 1 if block else 2
            beside = halved(h) if stride == 2 else h
            beside = k.point(f"{p}/shortcut_conv", beside, C) if h.shape[-1] != C else beside
            y = F.gelu(k.batch(f"{p}/expand_norm", k.point(
                f"{p}/expand_conv", k.batch(f"{p}/pre_norm", h), 4 * C, bias=False)))  # fmt: skip
            y = F.gelu(k.batch(f"{p}/depthwise_norm", k.own(f"{p}/depthwise_conv", y, stride)))
            if stage not in attention:
                told = F.silu(k.point(f"{p}/se/reduce_conv2d", y.mean((1, 2), keepdim=True), C // 4))
                y = y * k.point(f"{p}/se/expand_conv2d", told, 4 * C).sigmoid()
            h = beside + k.point(f"{p}/shrink_conv", y, C)
            if stage not in attention:
                continue
            n, rows, columns = k.layer(f"{p}/attention_norm", h).flatten(1, 2), h.shape[1], h.shape[2]
            heads = C // 32
            q, key, v = (
                torch.einsum("bnc,chw->bhnw", n, k.matrix(f"{p}/attention/{name}/weight", C, heads, 32, inputs=C))
                + k(f"{p}/attention/{name}/bias", heads, 32, kind="bias")[:, None]
                for name in "qkv"
            )  # fmt: skip
            side = tables[attention.index(stage)]
            table = k(f"{p}/attention/relative_position_embedding", heads, 2 * side - 1, 2 * side - 1, kind="free")
            place = torch.arange(rows * columns)
            down, across = (one[None] - one[:, None] for one in (place // columns, place % columns))
            scores = q @ key.transpose(-1, -2) * 32**-0.5 + read_table(table, down, across, (rows, columns))
            out = torch.einsum("bhnw,hwc->bnc", scores.softmax(-1) @ v,
                               k.matrix(f"{p}/attention/o/weight", heads, 32, C, inputs=C))  # fmt: skip
            h = h + (out + k(f"{p}/attention/o/bias", C, kind="bias")).unflatten(1, (rows, columns))
    return k.point("moat/logits_head", k.layer("moat/final_layer_norm", h.mean((1, 2))), classes)
