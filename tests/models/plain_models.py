"""Published models written out plainly, on weights that are named and shaped as their own code has them.

A model here is a function of a `Book` and an input. A book makes a weight the first time that it is asked for, so that
reading a model is also how its weights come about; what it then holds is a state dict in the published layout.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class Book:
    """Weights by name, drawn when first read: matrices that keep the size of what goes through, norms around 1."""

    def __init__(self, seed: int = 0) -> None:
        self.weights: dict[str, Tensor] = {}
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, name: str, *shape: int, kind: str = "matrix") -> Tensor:
        if name not in self.weights:
            drawn = torch.randn(shape, generator=self.generator)
            scale = {"matrix": (math.prod(shape[1:]) or 1) ** -0.5, "norm": 0.3, "bias": 0.3, "free": 1.0}[kind]
            self.weights[name] = drawn * scale + (kind == "norm")
        assert tuple(self.weights[name].shape) == shape, name
        return self.weights[name]

    def linear(self, name: str, x: Tensor, out: int, *, bias: bool = True) -> Tensor:
        b = self(f"{name}.bias", out, kind="bias") if bias else None
        return F.linear(x, self(f"{name}.weight", out, x.shape[-1]), b)

    def conv(
        self, name: str, x: Tensor, out: int, size: int, *, bias: bool = True, groups: int = 1, **how: Any
    ) -> Tensor:
        b = self(f"{name}.bias", out, kind="bias") if bias else None
        return F.conv2d(x, self(f"{name}.weight", out, x.shape[1] // groups, size, size), b, groups=groups, **how)

    def norm(self, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
        width = x.shape[-1]
        scale, shift = self(f"{name}.weight", width, kind="norm"), self(f"{name}.bias", width, kind="bias")
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * scale + shift

    def norm2d(self, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
        return self.norm(name, x.movedim(1, -1), eps).movedim(-1, 1)

    def rms(self, name: str, x: Tensor, eps: float) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * self(f"{name}.weight", x.shape[-1], kind="norm")

    def batch_norm(self, name: str, x: Tensor) -> Tensor:
        c = x.shape[1]
        mean, weight = self(f"{name}.running_mean", c, kind="bias"), self(f"{name}.weight", c, kind="norm")
        variance = self.weights.setdefault(f"{name}.running_var", self(f"{name}.bias", c, kind="bias").square() + 0.5)
        self.weights.setdefault(f"{name}.num_batches_tracked", torch.tensor(7))
        scaled = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
        return scaled * weight[:, None, None] + self.weights[f"{name}.bias"][:, None, None]


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | float = 0.0) -> Tensor:
    """(B, N, C) of (B, N, C): heads are runs of channels."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + bias
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def hornet(b: Book, x: Tensor, *, width: int, depths: tuple[int, ...], orders: tuple[int, ...], gf: bool) -> Tensor:
    for i, (depth, order) in enumerate(zip(depths, orders, strict=True)):
        C = width * 2**i
        if i == 0:
            x = b.norm2d("downsample_layers.0.1", b.conv("downsample_layers.0.0", x, C, 4, stride=4), 1e-6)
        else:
            x = b.conv(f"downsample_layers.{i}.1", b.norm2d(f"downsample_layers.{i}.0", x, 1e-6), C, 2, stride=2)
        for j in range(depth):
            p = f"stages.{i}.{j}"
            dims = [C // 2 ** (order - 1 - k) for k in range(order)]
            h = b.conv(f"{p}.gnconv.proj_in", b.norm2d(f"{p}.norm1", x, 1e-6), 2 * C, 1)
            first, rest = h[:, : dims[0]], h[:, dims[0] :]
            total = sum(dims)
            if gf and i > 1:
                rest = b.norm2d(f"{p}.gnconv.dwconv.pre_norm", rest, 1e-6)
                near, far = rest[:, : total // 2], rest[:, total // 2 :]
                near = b.conv(f"{p}.gnconv.dwconv.dw", near, total // 2, 3, bias=False, groups=total // 2, padding=1)
                size = (x.shape[2], x.shape[3] // 2 + 1)
                spectrum = b(f"{p}.gnconv.dwconv.complex_weight", total // 2, *size, 2, kind="free")
                waves = torch.fft.fft2(far, norm="ortho")[..., : size[1]] * torch.complex(
                    spectrum[..., 0], spectrum[..., 1]
                )
                far = torch.fft.irfft2(waves, x.shape[2:], norm="ortho")
                rest = torch.stack([near, far], 2).flatten(1, 2)
                rest = b.norm2d(f"{p}.gnconv.dwconv.post_norm", rest, 1e-6) / 3
            else:
                rest = b.conv(f"{p}.gnconv.dwconv", rest, total, 7, groups=total, padding=3) / 3
            gates = rest.split(dims, 1)
            h = first * gates[0]
            for k in range(order - 1):
                h = b.conv(f"{p}.gnconv.pws.{k}", h, dims[k + 1], 1) * gates[k + 1]
            gamma1, gamma2 = b(f"{p}.gamma1", C, kind="norm"), b(f"{p}.gamma2", C, kind="norm")
            x = x + gamma1[:, None, None] * b.conv(f"{p}.gnconv.proj_out", h, C, 1)
            h = F.gelu(b.linear(f"{p}.pwconv1", b.norm(f"{p}.norm2", x.movedim(1, -1), 1e-6), 4 * C))
            x = x + (gamma2 * b.linear(f"{p}.pwconv2", h, C)).movedim(-1, 1)
    return b.linear("head", b.norm("norm", x.mean((2, 3)), 1e-6), 5)


def crate(b: Book, x: Tensor, *, width: int, layers: int, heads: int, patch: int) -> Tensor:
    B, C, Y, X = x.shape
    p = x.view(B, C, Y // patch, patch, X // patch, patch).permute(0, 2, 4, 3, 5, 1).reshape(B, -1, patch * patch * C)
    e = "to_patch_embedding"
    z = b.norm(f"{e}.3", b.linear(f"{e}.2", b.norm(f"{e}.1", p), width))
    z = torch.cat([b("cls_token", 1, 1, width, kind="free").expand(B, -1, -1), z], 1)
    z = z + b("pos_embedding", 1, z.shape[1], width, kind="free")
    for i in range(layers):
        t = f"transformer.layers.{i}"
        w = b.linear(f"{t}.0.fn.qkv", b.norm(f"{t}.0.norm", z), width, bias=False)
        z = z + b.linear(f"{t}.0.fn.to_out.0", softmax_attention(w, w, w, heads), width)
        z, D = b.norm(f"{t}.1.norm", z), b(f"{t}.1.fn.weight", width, width)
        z = F.relu(z + 0.1 * (z @ D - z @ D.T @ D) - 0.1 * 0.1)
    return b.linear("mlp_head.1", b.norm("mlp_head.0", z[:, 0]), 5)


STACKS = {
    "bin-ts": ["ts_temporal_transformer", "ts_space_transformer"],
    "triplet-sts": ["space_transformer_first", "temporal_transformer", "space_transformer_second"],
    "quad-tsst": ["ts_temporal_transformer", "ts_space_transformer", "st_space_transformer", "st_temporal_transformer"],
}


def predformer(b: Book, x: Tensor, *, layout: str, width: int, heads: int, patch: int, repeats: int) -> Tensor:
    B, T, C, Y, X = x.shape
    rows, columns = Y // patch, X // patch
    cut = x.view(B, T, C, rows, patch, columns, patch).permute(0, 1, 3, 5, 4, 6, 2).reshape(B, T, rows * columns, -1)
    z = b.linear("to_patch_embedding.1", cut, width)
    places = torch.arange(T * rows * columns, dtype=torch.float64)[:, None]
    i = torch.arange(width)
    angles = places / 10_000.0 ** (2 * (i // 2) / width)
    z = z + torch.where(i % 2 == 0, angles.sin(), angles.cos()).view(T, rows * columns, width).float()

    def stack(name: str, z: Tensor, depth: int, first: int = 0) -> Tensor:
        for j in range(depth):
            p = f"{name}.layers.{j}"
            q, k, v = b.linear(f"{p}.0.fn.to_qkv", b.norm(f"{p}.0.norm", z), 3 * width, bias=False).chunk(3, -1)
            z = z + b.linear(f"{p}.0.fn.to_out.0", softmax_attention(q, k, v, heads), width)
            h = b.norm(f"{p}.1.norm", z)
            h = F.silu(b.linear(f"{p}.1.fn.fc1_g", h, 4 * width)) * b.linear(f"{p}.1.fn.fc1_x", h, 4 * width)
            z = z + b.linear(f"{p}.1.fn.fc2", h, width)
        return b.norm(f"{name}.norm", z)

    def over(name: str, z: Tensor, depth: int = 1) -> Tensor:
        if "temporal" in name:
            return stack(name, z.transpose(1, 2).flatten(0, 1), depth).view(B, -1, T, width).transpose(1, 2)
        return stack(name, z.flatten(0, 1), depth).view(B, T, -1, width)

    if layout == "fac-ts":
        b("space_transformer.norm.weight", width, kind="norm")  # is held first and runs last
        z = over("space_transformer", over("temporal_transformer", z, repeats), repeats)
    elif layout == "fac-st":  # what comes by patch is read by frame
        z = over("temporal_transformer", over("space_transformer", z, repeats), repeats)
        z = z.transpose(1, 2).reshape(z.shape)
    else:
        for block in range(repeats):
            for name in STACKS[layout]:
                z = over(f"blocks.{block}.{name}", z)
    out = b.linear("mlp_head.1", b.norm("mlp_head.0", z), C * patch * patch)
    return out.view(B, T, rows, columns, C, patch, patch).permute(0, 1, 4, 2, 5, 3, 6).reshape(B, T, C, Y, X)


MEAN = torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1)


def gated_network(b: Book, name: str, x: Tensor, hidden: int) -> Tensor:
    h = b.conv(f"{name}.project_in", x, 2 * hidden, 1, bias=False)
    h = b.conv(f"{name}.dwconv", h, 2 * hidden, 3, bias=False, groups=2 * hidden, padding=1)
    return b.conv(f"{name}.project_out", F.gelu(h[:, :hidden]) * h[:, hidden:], x.shape[1], 1, bias=False)


def channels(q: Tensor, k: Tensor, v: Tensor, temperature: Tensor, heads: int, *, relu: bool) -> Tensor:
    size = v.shape[2:]
    q, k, v = (x.flatten(2).unflatten(1, (heads, -1)) for x in (q, k, v))
    q, k = (x / x.norm(dim=-1, keepdim=True).clamp(min=1e-12) for x in (q, k))
    scores = q @ k.transpose(-1, -2) * temperature
    return ((scores.relu() if relu else scores.softmax(-1)) @ v).flatten(1, 2).unflatten(-1, size)


def dlgsanet(b: Book, x: Tensor, *, width: int, groups: int, blocks: int, heads: int, share: int, scale: int) -> Tensor:
    first = b.conv("overlap_embed.0.proj", x - MEAN, width, 3, bias=False, padding=1)
    z = first
    for g in range(groups):
        entered = z
        for j in range(2 * blocks):
            p = f"deep_feature_extraction.{g}.body.{j}"
            if j % 2 == 0:
                h = b.conv(f"{p}.IDynamicDWConv.conv0", b.norm2d(f"{p}.norm1.body", z), width, 1, bias=False)
                f = b.conv(f"{p}.IDynamicDWConv.conv.conv1.0", h, width // 4, 1)
                f = b.conv(f"{p}.IDynamicDWConv.conv.conv1.1", f, width // 4, 7, groups=width // 4, padding=3)
                f = b.conv(f"{p}.IDynamicDWConv.conv.conv2.0", f, 49 * width // share, 1)
                around = F.unfold(h, 7, padding=3).view(len(x), width // share, share, 49, *x.shape[2:])
                h = (around * f.view(len(x), width // share, 1, 49, *x.shape[2:])).sum(3).flatten(1, 2)
                z = z + b.conv(f"{p}.IDynamicDWConv.conv1", h, width, 1, bias=False)
                z = z + gated_network(b, f"{p}.IDynamic_ffn", b.norm2d(f"{p}.norm2.body", z), 2 * width)
            else:
                h = b.conv(f"{p}.restormer_attn.qkv", b.norm2d(f"{p}.norm3.body", z), 3 * width, 1, bias=False)
                h = b.conv(f"{p}.restormer_attn.qkv_dwconv", h, 3 * width, 3, bias=False, groups=3 * width, padding=1)
                heat = b(f"{p}.restormer_attn.temperature", heads, 1, 1, kind="norm")
                h = channels(*h.chunk(3, 1), heat, heads, relu=True)
                z = z + b.conv(f"{p}.restormer_attn.project_out", h, width, 1, bias=False)
                z = z + gated_network(b, f"{p}.restormer_ffn", b.norm2d(f"{p}.norm4.body", z), 2 * width)
        z = entered + b.conv(f"deep_feature_extraction.{g}.body.{2 * blocks}", z, width, 3, padding=1)
    z = first + b.conv(f"deep_feature_extraction.{groups}", z, width, 3, padding=1)
    return F.pixel_shuffle(b.conv("upsample.0", z, 3 * scale**2, 3, padding=1), scale) + MEAN


def windows(x: Tensor, rows: int, columns: int) -> Tensor:
    """(B windows, positions, C) of (B, Y, X, C)."""
    B, Y, X, C = x.shape
    return x.view(B, Y // rows, rows, X // columns, columns, C).transpose(2, 3).reshape(-1, rows * columns, C)


def offsets(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Of a query from a key, (P, P) each."""
    at = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    apart = at[:, None] - at[None]
    return apart[..., 0], apart[..., 1]


def craft(
    b: Book, x: Tensor, *, width: int, groups: int, blocks: int, heads: int, scale: int, window: tuple[int, int]
) -> Tensor:
    """Of pictures that windows fill, so that nothing is padded."""
    half, narrow = width // 2, width // 2 // 16
    first = b.conv("conv_first", x - MEAN, width, 3, padding=1)
    z = first
    for g in range(groups):
        entered = z
        for j in range(blocks):
            r = f"layers.{g}.residual_group"
            low = z.movedim(1, -1)
            for s in range(2):
                p = f"{r}.srwa_blocks.{2 * j + s}"
                qkv = b.linear(f"{p}.qkv", b.norm(f"{p}.norm1", low), 3 * width)
                q, k, v = qkv.chunk(3, -1)
                found = []
                for side, here in enumerate((slice(half), slice(half, None))):
                    rows, columns = window if side == 0 else window[::-1]
                    shift = (-(rows // 2) * s, -(columns // 2) * s)
                    down, right = offsets(rows, columns)
                    place = torch.stack([down, right], -1).float()
                    a = f"{p}.attns.{side}.pos"
                    t = b.linear(f"{a}.pos_proj", place, narrow)
                    for n, out in ((1, narrow), (2, narrow), (3, heads // 2)):
                        t = b.linear(f"{a}.pos{n}.2", F.relu(b.norm(f"{a}.pos{n}.0", t)), out)
                    moved = (windows(part[..., here].roll(shift, (1, 2)), rows, columns) for part in (q, k, v))
                    out = softmax_attention(*moved, heads // 2, t.permute(2, 0, 1))
                    B, Y, X, _ = low.shape
                    out = (
                        out.view(B, Y // rows, X // columns, rows, columns, half).transpose(2, 3).reshape(B, Y, X, half)
                    )
                    found.append(out.roll((-shift[0], -shift[1]), (1, 2)))
                near = b.conv(f"{p}.get_v", v.movedim(-1, 1), width, 3, groups=width, padding=1).movedim(1, -1)
                low = low + b.linear(f"{p}.proj", torch.cat(found, -1) + near, width)
                h = F.gelu(b.linear(f"{p}.mlp.fc1", b.norm(f"{p}.norm2", low), 2 * width))
                low = low + b.linear(f"{p}.mlp.fc2", h, width)
            low, p = low.movedim(-1, 1), f"{r}.hfer_blocks.{j}"
            sharp = F.gelu(b.conv(f"{p}.fc", F.max_pool2d(z[:, half:], 3, 1, 1), half, 1))
            soft = F.gelu(b.conv(f"{p}.conv", z[:, :half], half, 3, padding=1))
            high = z + b.conv(f"{p}.last_fc", torch.cat([soft, sharp], 1), width, 1)
            p = f"{r}.hf_blocks.{j}"
            q = b.conv(f"{p}.attn.q", high, width, 1, bias=False)
            q = b.conv(f"{p}.attn.q_dwconv", q, width, 3, bias=False, groups=width, padding=1)
            kv = b.conv(f"{p}.attn.kv", b.norm2d(f"{p}.norm1.body", low), 2 * width, 1, bias=False)
            kv = b.conv(f"{p}.attn.kv_dwconv", kv, 2 * width, 3, bias=False, groups=2 * width, padding=1)
            heat = b(f"{p}.attn.temperature", heads, 1, 1, kind="norm")
            z = low + b.conv(
                f"{p}.attn.project_out", channels(q, *kv.chunk(2, 1), heat, heads, relu=False), width, 1, bias=False
            )
            z = z + gated_network(b, f"{p}.ffn", b.norm2d(f"{p}.norm2.body", z), int(width * 2.66))
        z = entered + b.conv(f"layers.{g}.conv", z, width, 3, padding=1)
    z = first + b.conv("conv_after_body", b.norm2d("norm.body", z), width, 3, padding=1)
    return F.pixel_shuffle(b.conv("upsample.0", z, 3 * scale**2, 3, padding=1), scale) + MEAN


def recurrence(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
    """Gated linear attention, a token at a time: (B, H, N, V)."""
    state, out = torch.zeros(*q.shape[:2], q.shape[-1], v.shape[-1]), []
    for t in range(q.shape[2]):
        state = state * log_decay[:, :, t, :, None].exp() + k[:, :, t, :, None] * v[:, :, t, None]
        out.append((q[:, :, t, :, None] * state).sum(2) * q.shape[-1] ** -0.5)
    return torch.stack(out, 2)


def vig_mixer(b: Book, p: str, x: Tensor, heads: int, *, activated: bool) -> Tensor:
    """Of (B, C, Y, X)."""
    C = x.shape[1]
    h = b.conv(f"{p}.in_proj.0", x, C, 3, bias=False, groups=C, padding=1).flatten(2).transpose(1, 2)
    h = F.silu(h) if activated else h
    q, k, v = b.linear(f"{p}.qkv_proj", h, 2 * C, bias=False).split([C // 2, C // 2, C], -1)
    gates = F.logsigmoid(b.linear(f"{p}.gk_proj.1", b.linear(f"{p}.gk_proj.0", h, 16, bias=False), C)) / 16
    q, k, v, there, back = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v, *gates.chunk(2, -1)))
    o = recurrence(q, k, v, there) + recurrence(*(part.flip(2) for part in (q, k, v, back))).flip(2)
    o = b.rms(f"{p}.g_norm", o / 2, 1e-5)
    a, near = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (b.linear(f"{p}.g_proj", h, C).sigmoid(), h))
    o = (o * a + b.rms(f"{p}.l_norm", near, 1e-5) * (1 - a)).transpose(1, 2).flatten(2)
    o = b.linear(f"{p}.o_proj", F.silu(o) if activated else o, C, bias=False)
    return o.transpose(1, 2).unflatten(-1, x.shape[2:])


def swiglu(b: Book, up: str, down: str, x: Tensor, hidden: int) -> Tensor:
    gate, value = b.linear(up, x, 2 * hidden, bias=False).chunk(2, -1)
    return b.linear(down, F.silu(gate) * value, x.shape[-1], bias=False)


def vig_plain(b: Book, x: Tensor, *, width: int, depth: int, heads: int, activated: bool) -> Tensor:
    h = F.silu(b.norm2d("patch_embed.proj.1", b.conv("patch_embed.proj.0", x, width // 2, 9, stride=8, padding=1)))
    x = b.norm2d("patch_embed.proj.4", b.conv("patch_embed.proj.3", h, width, 3, stride=2, padding=1))
    positions = b("pos_embed", 1, x.shape[2] * x.shape[3], width, kind="free")
    x = x + positions.transpose(1, 2).unflatten(-1, x.shape[2:])
    for i in range(depth):
        p = f"blocks.{i}"
        h = b.rms(f"{p}.attn_norm", x.movedim(1, -1), 1e-6).movedim(-1, 1)
        x = x + vig_mixer(b, f"{p}.attn", h, heads, activated=activated)
        h = b.rms(f"{p}.mlp_norm", x.movedim(1, -1), 1e-6)
        x = x + swiglu(b, f"{p}.mlp.gate_proj", f"{p}.mlp.down_proj", h, 256).movedim(-1, 1)
    return b.linear("head", b.rms("norm", x.movedim(1, -1), 1e-6).mean((1, 2)), 5)


def vig_hierarchical(
    b: Book, x: Tensor, *, widths: tuple[int, ...], depths: tuple[int, ...], heads: tuple[int, ...]
) -> Tensor:
    h = b.norm2d("patch_embed.2", b.conv("patch_embed.0", x, widths[0] // 2, 3, stride=2, padding=1))
    x = b.norm2d("patch_embed.7", b.conv("patch_embed.5", F.gelu(h), widths[0], 3, stride=2, padding=1))
    for i, (width, depth, count) in enumerate(zip(widths, depths, heads, strict=True)):
        for j in range(depth):
            p = f"layers.{i}.blocks.{j}"
            x = x + vig_mixer(b, f"{p}.op", b.norm2d(f"{p}.norm", x), count, activated=False)
            h = b.norm2d(f"{p}.norm2", x).movedim(1, -1)
            hidden = 32 * math.ceil(int(8 * width / 3) / 32)
            x = x + swiglu(b, f"{p}.mlp.fc1", f"{p}.mlp.fc2", h, hidden).movedim(-1, 1)
        if i < len(widths) - 1:
            x = b.conv(f"layers.{i}.downsample.1", x, widths[i + 1], 3, stride=2, padding=1)
            x = b.norm2d(f"layers.{i}.downsample.3", x)
    return b.linear("classifier.head", b.norm2d("classifier.norm", x).mean((2, 3)), 5)
