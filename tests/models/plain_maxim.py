"""MAXIM written out plainly on a book of weights that are named and shaped as its Flax checkpoints have them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from plain_models import Book
from torch import Tensor

SIDES = (16, 16, 8)


class Flax(Book):
    """Kernels have their inputs first; pictures their channels last."""

    def __init__(self, book: Book) -> None:
        self.weights, self.generator = book.weights, book.generator

    def kernel(self, name: str, *shape: int) -> Tensor:
        if f"{name}/kernel" not in self.weights:
            drawn = torch.randn(shape, generator=self.generator)
            self.weights[f"{name}/kernel"] = drawn * math.prod(shape[:-1]) ** -0.5
        assert tuple(self.weights[f"{name}/kernel"].shape) == shape, name
        return self.weights[f"{name}/kernel"]

    def dense(self, name: str, x: Tensor, out: int) -> Tensor:
        return x @ self.kernel(name, x.shape[-1], out) + self(f"{name}/bias", out, kind="bias")

    def point(self, name: str, x: Tensor, out: int) -> Tensor:
        return x @ self.kernel(name, 1, 1, x.shape[-1], out)[0, 0] + self(f"{name}/bias", out, kind="bias")

    def filter(self, name: str, x: Tensor, out: int, size: int, stride: int = 1) -> Tensor:
        kernel = self.kernel(name, size, size, x.shape[-1], out).permute(3, 2, 0, 1)
        bias = self(f"{name}/bias", out, kind="bias")
        return F.conv2d(x.movedim(-1, 1), kernel, bias, stride, (size - stride + 1) // 2).movedim(1, -1)

    def doubled(self, name: str, x: Tensor, out: int) -> Tensor:
        """Every pixel becomes four, each by its own matrix: the last of the kernel for the first."""
        kernel, (batch, rows, columns, _) = self.kernel(name, 2, 2, x.shape[-1], out), x.shape
        made = x.new_zeros(batch, 2 * rows, 2 * columns, out)
        for a, b in itertools.product(range(2), repeat=2):
            made[:, a::2, b::2] = x @ kernel[1 - a, 1 - b]
        return made + self(f"{name}/bias", out, kind="bias")

    def layer_norm(self, name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scale, shift = self(f"{name}/scale", x.shape[-1], kind="norm"), self(f"{name}/bias", x.shape[-1], kind="bias")
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * scale + shift


def gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def over_blocks(x: Tensor, side: int, mix: Callable[[Tensor], Tensor]) -> Tensor:
    """`mix` over the pixels (last axis) of every block of side x side pixels."""
    batch, rows, columns, channels = x.shape
    cut = x.reshape(batch, rows // side, side, columns // side, side, channels).permute(0, 1, 3, 5, 2, 4)
    mixed = mix(cut.flatten(-2)).unflatten(-1, (side, side))
    return mixed.permute(0, 1, 4, 2, 5, 3).reshape(x.shape)


def over_grid(x: Tensor, side: int, mix: Callable[[Tensor], Tensor]) -> Tensor:
    """`mix` over one pixel (last axis) of each of side x side cells of the picture."""
    batch, rows, columns, channels = x.shape
    cut = x.reshape(batch, side, rows // side, side, columns // side, channels).permute(0, 2, 4, 5, 1, 3)
    mixed = mix(cut.flatten(-2)).unflatten(-1, (side, side))
    return mixed.permute(0, 4, 1, 5, 2, 3).reshape(x.shape)


OVER = {"Grid": over_grid, "Block": over_blocks}


def multi_axis(b: Flax, p: str, x: Tensor, side: int) -> Tensor:
    c = x.shape[-1]
    h = gelu(b.dense(f"{p}/in_project", b.layer_norm(f"{p}/LayerNorm_in", x), 2 * c))
    parts = []
    for word, part in zip(OVER, h.split(c, -1), strict=True):
        q = f"{p}/{word}GmlpLayer"
        u, v = gelu(b.dense(f"{q}/in_project", b.layer_norm(f"{q}/LayerNorm", part), 2 * c)).split(c, -1)
        unit = f"{q}/{word}GatingUnit"
        v = b.layer_norm(f"{unit}/intermediate_layernorm", v)
        v = OVER[word](v, side, lambda z, unit=unit: b.dense(f"{unit}/Dense_0", z, side * side))
        parts.append(part + b.dense(f"{q}/out_project", u * (v + 1), c))
    return x + b.dense(f"{p}/out_project", torch.cat(parts, -1), c)


def channel_gated(b: Flax, p: str, h: Tensor) -> Tensor:
    c = h.shape[-1]
    w = b.point(f"{p}/Conv_0", h.mean((1, 2), keepdim=True), c // 4).relu()
    return h * b.point(f"{p}/Conv_1", w, c).sigmoid()


def level(b: Flax, p: str, x: Tensor, c: int, side: int) -> Tensor:
    x = whole = b.point(f"{p}/Conv_0", x, c)
    for i in range(2):
        x = multi_axis(b, f"{p}/SplitHeadMultiAxisGmlpLayer_{i}", x, side)
        q = f"{p}/channel_attention_block_1{i}"
        h = F.leaky_relu(b.filter(f"{q}/conv1", b.layer_norm(f"{q}/LayerNorm", x), c, 3), 0.2)
        x = x + channel_gated(b, f"{q}/channel_attention", b.filter(f"{q}/conv2", h, c, 3))
    return x + whole


def bottleneck(b: Flax, p: str, x: Tensor) -> Tensor:
    c = x.shape[-1]
    x = whole = b.point(f"{p}/input_proj", x, c)
    for i in range(2):
        x = multi_axis(b, f"{p}/SplitHeadMultiAxisGmlpLayer_{i}", x, 8)
        q = f"{p}/channel_attention_block_1_{i}"
        h = gelu(b.dense(f"{q}/channel_mixing/Dense_0", b.layer_norm(f"{q}/LayerNorm", x), c))
        x = x + channel_gated(b, f"{q}/channel_attention", b.dense(f"{q}/channel_mixing/Dense_1", h, c))
    return x + whole


def gating(b: Flax, p: str, x: Tensor, side: int) -> Tensor:
    c = x.shape[-1]
    u, v = gelu(b.dense(f"{p}/in_project", b.layer_norm(f"{p}/LayerNorm_in", x), 2 * c)).split(c, -1)
    u = over_grid(u, side, lambda z: b.dense(f"{p}/Dense_0", z, side * side))
    v = over_blocks(v, side, lambda z: b.dense(f"{p}/Dense_1", z, side * side))
    return b.dense(f"{p}/out_project", torch.cat([u, v], -1), c)


def cross(b: Flax, p: str, x: Tensor, y: Tensor, c: int, side: int, *, doubles: bool) -> tuple[Tensor, Tensor]:
    y = b.doubled(f"{p}/ConvTranspose_0", y, c) if doubles else y
    x, y = b.point(f"{p}/Conv_0", x, c), b.point(f"{p}/Conv_1", y, c)
    hx = gelu(b.dense(f"{p}/in_project_x", b.layer_norm(f"{p}/LayerNorm_x", x), c))
    hy = gelu(b.dense(f"{p}/in_project_y", b.layer_norm(f"{p}/LayerNorm_y", y), c))
    gx, gy = (gating(b, f"{p}/SplitHeadMultiAxisGating_{s}", h, side) for s, h in (("x", hx), ("y", hy)))
    y = y + b.dense(f"{p}/out_project_y", hy * gx, c)
    return x + y + b.dense(f"{p}/out_project_x", hx * gy, c), y


def maxim(book: Book, picture: Tensor, *, features: int, stages: int, scales: int) -> Tensor:
    """The last stage's full picture (B, 3, Y, X)."""
    b, (rows, columns) = Flax(book), picture.shape[2:]
    at = [(torch.arange(rows >> i) * 2**i + 2**i // 2, torch.arange(columns >> i) * 2**i + 2**i // 2) for i in range(3)]
    given = [picture[:, :, r][..., c].movedim(1, -1) for r, c in at[:scales]]
    counter, widths = itertools.count(), [features, 2 * features, 4 * features]
    before: list[tuple[Tensor, Tensor]] = []  # of the stage before, what encoders and decoders gave, by level
    known: dict[int, Tensor] = {}

    def to_level(x: Tensor, i: int, j: int) -> Tensor:
        size = [round(side * 2.0 ** (j - i)) for side in x.shape[1:3]]
        x = F.interpolate(x.movedim(-1, 1), size, mode="bilinear", antialias=True).movedim(1, -1)
        return b.point(f"UpSampleRatio_{next(counter)}/Conv_0", x, widths[i])

    for s in range(stages):
        p, inputs = f"stage_{s}", []
        for i in range(scales):
            x = b.filter(f"{p}_input_conv_{i}", given[i], widths[i], 3)
            x = cross(b, f"{p}_input_fuse_sam_{i}", x, known[i], widths[i], SIDES[i], doubles=False)[0] if s else x
            inputs.append(x)
        x, encoded = inputs[0], []
        for i in range(3):
            q = f"{p}_encoder_block_{i}"
            x = level(b, q, torch.cat([x, inputs[i]], -1) if i < scales else x, widths[i], SIDES[i])
            if s:
                x = cross(b, f"{q}/cross_gating_block", x, sum(before[i]), widths[i], SIDES[i], doubles=False)[0]
            encoded.append(x)
            x = b.filter(f"{q}/Conv_1", x, widths[i], 4, 2)
        for i in range(2):
            x = bottleneck(b, f"{p}_global_block_{i}", x)
        overall, skips = x, {}
        for i in (2, 1, 0):
            seen = torch.cat([to_level(encoded[j], i, j) for j in range(3)], -1)
            skips[i], overall = cross(
                b, f"{p}_cross_gating_block_{i}", seen, overall, widths[i], SIDES[i], doubles=True
            )
        decoded: dict[int, Tensor] = {}
        last = given[0]
        for i in (2, 1, 0):
            seen = torch.cat([to_level(skips[j], i, j) for j in (2, 1, 0)], -1)
            q = f"{p}_decoder_block_{i}"
            x = b.doubled(f"{q}/ConvTranspose_0", x, widths[i])
            x = decoded[i] = level(b, f"{q}/UNetEncoderBlock_0", torch.cat([x, seen], -1), widths[i], SIDES[i])
            if i < scales and s < stages - 1:
                q = f"{p}_supervised_attention_module_{i}"
                made = b.filter(f"{q}/Conv_1", x, 3, 3) + given[i]
                borne_out = b.filter(f"{q}/Conv_2", made, widths[i], 3).sigmoid()
                known[i] = x + b.filter(f"{q}/Conv_0", x, widths[i], 3) * borne_out
            elif i < scales:  # the full picture comes last
                last = b.filter(f"{p}_output_conv_{i}", x, 3, 3) + given[i]
        before = [(encoded[i], decoded[i]) for i in range(3)]
    return last.movedim(-1, 1)
