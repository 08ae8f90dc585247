"""More published models written out plainly: see `plain_models`."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from plain_models import Book, offsets, recurrence, softmax_attention, swiglu, windows
from torch import Tensor


def equal_linear(b: Book, name: str, x: Tensor, out: int, *, rate: float = 1.0) -> Tensor:
    weight = b(f"{name}.weight", out, x.shape[-1], kind="free") / rate
    b.weights[f"{name}.weight"] = b.weights[f"{name}.weight"]
    return F.linear(x, weight * rate * rate / x.shape[-1] ** 0.5, b(f"{name}.bias", out, kind="bias") * rate)


def blurred(x: Tensor, *, up: bool) -> Tensor:
    """Twice or half the side, through the low pass (1, 3, 3, 1)."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    filters = (taps[:, None] * taps / 64 * (4 if up else 1)).expand(x.shape[1], 1, 4, 4)
    if up:
        wide = torch.zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
        wide[:, :, ::2, ::2] = x
        return F.conv2d(F.pad(wide, (2, 1, 2, 1)), filters, groups=x.shape[1])
    return F.conv2d(F.pad(x, (1, 1, 1, 1)), filters, stride=2, groups=x.shape[1])


def styleswin(b: Book, noise: Tensor, *, widths: tuple[int, ...], window: int, mapping: int) -> Tensor:
    style = noise / (noise.square().mean(1, keepdim=True) + 1e-8).sqrt()
    for i in range(mapping):
        style = F.leaky_relu(equal_linear(b, f"style.{i + 1}", style, noise.shape[1], rate=0.01), 0.2) * 2**0.5
    x = b("input.input", 1, widths[0], 4, 4, kind="free").expand(len(noise), -1, -1, -1).movedim(1, -1)
    skip = None
    for level, C in enumerate(widths):
        side = 4 * 2**level
        w = min(side, window)
        shift, heads = (w // 2 if side > window else 0), max(C // 32, 4) // 2
        for j in range(2):
            p = f"layers.{level}.blocks.{j}"

            def styled(x: Tensor, name: str) -> Tensor:
                factor, offset = equal_linear(b, f"{name}.style", style, 2 * x.shape[-1])[:, None, None].chunk(2, -1)
                mean = x.mean((1, 2), keepdim=True)
                return factor * (x - mean) / ((x - mean).square().mean((1, 2), keepdim=True) + 1e-5).sqrt() + offset

            qkv = b.linear(f"{p}.qkv", styled(x, f"{p}.norm1"), 3 * C)
            found = []
            for half, moved in enumerate((0, shift)):
                down, right = offsets(w, w)
                table = b(f"{p}.attn.{half}.relative_position_bias_table", (2 * w - 1) ** 2, heads, kind="free")
                bias = table[(down + w - 1) * (2 * w - 1) + right + w - 1].permute(2, 0, 1)
                here = slice(half * C // 2, (half + 1) * C // 2)
                parts = [part[..., here].roll((-moved, -moved), (1, 2)) for part in qkv.chunk(3, -1)]
                q, k, v = (windows(part, w, w) for part in parts)
                seen: Tensor | float = bias
                if moved:  # what a shift brings together stays apart
                    place = torch.arange(side)
                    region = (place >= side - w).long() + (place >= side - moved).long()
                    labels = windows((3 * region[:, None] + region)[None, :, :, None].float(), w, w)
                    apart = torch.where(labels == labels.transpose(1, 2), 0.0, -100.0)
                    seen = bias + apart.repeat(len(noise), 1, 1)[:, None]
                out = softmax_attention(q, k, v, heads, seen)
                out = out.view(-1, side // w, side // w, w, w, C // 2).transpose(2, 3).reshape(-1, side, side, C // 2)
                found.append(out.roll((moved, moved), (1, 2)))
            x = x + b.linear(f"{p}.proj", torch.cat(found, -1), C)
            x = x + b.linear(f"{p}.mlp.fc2", F.gelu(b.linear(f"{p}.mlp.fc1", styled(x, f"{p}.norm2"), 4 * C)), C)
        if level < len(widths) - 1:
            p, C = f"layers.{level}.upsample", widths[level + 1]
            x = F.interpolate(x.movedim(-1, 1), scale_factor=2, mode="bilinear").movedim(1, -1)
            x = b.linear(f"{p}.reduction", b.norm(f"{p}.norm", x), C, bias=False)
            count = C // 4
            rates = 10_000.0 ** (-torch.arange(count) / (count - 1))
            angles = torch.arange(1, 2 * side + 1)[:, None] * rates
            axis = torch.cat([angles.sin(), angles.cos()], -1)
            places = torch.cat([axis[None].expand(2 * side, -1, -1), axis[:, None].expand(-1, 2 * side, -1)], -1)
            x = x + b(f"{p}.alpha", 1, kind="norm") * places
        rgb = b.conv(f"to_rgbs.{level}.conv", x.movedim(-1, 1), 3, 1) + b(
            f"to_rgbs.{level}.bias", 1, 3, 1, 1, kind="bias"
        )
        last = level == len(widths) - 1
        skip = rgb if skip is None else rgb + (skip if last else blurred(skip, up=True))
    assert skip is not None
    return skip


def svt(b: Book, x: Tensor, *, widths: tuple[int, ...], depths: tuple[int, ...], heads: tuple[int, ...], expansion: int,
        stem: int, scattered: int, parts: int, tokens: bool, transform: object, inverse: object) -> Tensor:  # fmt: skip
    """The wavelets are handed in: they have tests of their own beside the package."""
    for i, (size, stride) in enumerate(((7, 2), (3, 1), (3, 1))):
        x = b.conv(f"patch_embed1.conv.{3 * i}", x, stem, size, bias=False, stride=stride, padding=size // 2)
        x = F.relu(b.batch_norm(f"patch_embed1.conv.{3 * i + 1}", x))
    for i, (C, depth, count) in enumerate(zip(widths, depths, heads, strict=True)):
        p = f"patch_embed{i + 1}"
        x = b.norm2d(f"{p}.norm", b.conv(f"{p}.proj", x, C, 3, stride=2, padding=1))
        for j in range(depth):
            p = f"block{i + 1}.{j}"
            h = b.norm2d(f"{p}.norm1", x, 1e-6)
            if i < scattered:
                x = x + _scattered(b, f"{p}.attn", h, parts, tokens, transform, inverse)
            else:
                t = h.flatten(2).transpose(1, 2)
                k, v = b.linear(f"{p}.attn.kv", t, 2 * C).chunk(2, -1)
                t = b.linear(f"{p}.attn.proj", softmax_attention(b.linear(f"{p}.attn.q", t, C), k, v, count), C)
                x = x + t.transpose(1, 2).unflatten(-1, x.shape[2:])
            h = b.linear(f"{p}.mlp.fc1", b.norm2d(f"{p}.norm2", x, 1e-6).movedim(1, -1), expansion * C).movedim(-1, 1)
            h = F.gelu(b.conv(f"{p}.mlp.dwconv.dwconv", h, expansion * C, 3, groups=expansion * C, padding=1))
            x = x + b.linear(f"{p}.mlp.fc2", h.movedim(1, -1), C).movedim(-1, 1)
        if i < len(widths) - 1:
            x = b.norm2d(f"norm{i + 1}", x, 1e-6)
    t, p, C = x.flatten(2).transpose(1, 2), "post_network.0", widths[-1]
    t = torch.cat([t.mean(1, keepdim=True), t], 1)
    n = b.norm(f"{p}.norm1", t, 1e-6)
    k, v = b.linear(f"{p}.attn.kv", n, 2 * C).chunk(2, -1)
    one = t[:, :1] + b.linear(
        f"{p}.attn.proj", softmax_attention(b.linear(f"{p}.attn.q", n[:, :1], C), k, v, heads[-1]), C
    )
    h = F.gelu(b.linear(f"{p}.mlp.fc1", b.norm(f"{p}.norm2", one, 1e-6), expansion * C))
    one = one + b.linear(f"{p}.mlp.fc2", h, C)
    t = b.norm(f"norm{len(widths)}", torch.cat([one, t[:, 1:]], 1), 1e-6)
    return b.linear("head", t[:, 0], 5) + 0.5 * b.linear("aux_head", t[:, 1:], 5).amax(1)


def _scattered(b: Book, p: str, x: Tensor, parts: int, tokens: bool, transform: object, inverse: object) -> Tensor:
    C, side = x.shape[1], x.shape[2]
    far = C // 2 if tokens else C
    near = b.conv(f"{p}.conv", x[:, : C - far], C - far, 3, groups=C - far, padding=1) if tokens else None

    def network(z: Tensor, end: str, blocks: int, size: int) -> Tensor:
        """Two complex matrices, in real numbers: (..., blocks, size)."""
        re, im = z.real, z.imag
        for layer in (1, 2):
            w = b(f"{p}.complex_weight_lh_{layer}{end}", 2, blocks, size, size, kind="free") / size**0.5
            b.weights[f"{p}.complex_weight_lh_{layer}{end}"] = w
            c = b(f"{p}.complex_weight_lh_b{layer}{end}", 2, blocks, size, kind="bias")
            each = "...bd,bdk->...bk"
            a = torch.einsum(each, re, w[0]) - torch.einsum(each, im, w[1]) + c[0]
            d = torch.einsum(each, re, w[1]) + torch.einsum(each, im, w[0]) + c[1]
            re, im = (F.relu(a), F.relu(d)) if layer == 1 else (a, d)
        return torch.complex(re, im)

    low, high = transform(x[:, C - far :])  # type: ignore[operator]
    low = low * b(f"{p}.complex_weight_ll", far, side, side, kind="free")
    bands = network(high.movedim(1, -1).unflatten(-1, (parts, -1)), "", parts, far // parts).flatten(-2).movedim(-1, 1)
    bands = network(bands, "_t", side // 2, side // 2) if tokens else bands
    made = inverse(low, bands)  # type: ignore[operator]
    return made if near is None else torch.stack([near, made], 2).flatten(1, 2)


def mosaic_bert(
    b: Book, tokens: Tensor, *, vocabulary: int, width: int, layers: int, heads: int, hidden: int
) -> Tensor:
    words = b("bert.embeddings.word_embeddings.weight", vocabulary, width)
    x = F.embedding(tokens, words) + b("bert.embeddings.token_type_embeddings.weight", 2, width)[0]
    x = b.norm("bert.embeddings.LayerNorm", x, 1e-12)
    T = tokens.shape[1]
    apart = (torch.arange(T)[:, None] - torch.arange(T)).abs()
    bias = -torch.tensor([2.0 ** (-8 * (h + 1) / heads) for h in range(heads)])[:, None, None] * apart
    for i in range(layers):
        p = f"bert.encoder.layer.{i}"
        q, k, v = b.linear(f"{p}.attention.self.Wqkv", x, 3 * width).chunk(3, -1)
        h = b.linear(f"{p}.attention.output.dense", softmax_attention(q, k, v, heads, bias), width)
        x = b.norm(f"{p}.attention.output.LayerNorm", x + h, 1e-12)
        gate, value = b.linear(f"{p}.mlp.gated_layers", x, 2 * hidden, bias=False).chunk(2, -1)
        x = b.norm(f"{p}.mlp.layernorm", x + b.linear(f"{p}.mlp.wo", F.gelu(gate) * value, width), 1e-12)
    x = F.gelu(b.linear("cls.predictions.transform.dense", x, width))
    x = b.norm("cls.predictions.transform.LayerNorm", x, 1e-12)
    b.weights["cls.predictions.decoder.weight"] = words
    return x @ words.T + b("cls.predictions.decoder.bias", vocabulary, kind="bias")


def turned(x: Tensor) -> Tensor:
    """(B, H, T, D) by positions, halves of a head as pairs."""
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[2])[:, None] * 10_000.0 ** (-torch.arange(half) / half)
    a, c = x[..., :half], x[..., half:]
    return torch.cat([a * angles.cos() - c * angles.sin(), c * angles.cos() + a * angles.sin()], -1)


def fla(
    b: Book, tokens: Tensor, *, kinds: tuple[str, ...], vocabulary: int, width: int, heads: int, hidden: int,
    bounded: bool = False,
) -> Tensor:  # fmt: skip
    """flash-linear-attention's models, a token at a time: one of its mixers a layer."""
    x = F.embedding(tokens, b("model.embeddings.weight", vocabulary, width, kind="free"))
    for i, kind in enumerate(kinds):
        p = f"model.layers.{i}"
        told = {}
        if bounded and i:
            shares = b("model.lower_bounds", len(kinds), width, kind="free").softmax(0)
            told["lowest"] = shares[1 : i + 1].sum(0)
        x = x + MIXERS[kind](b, f"{p}.attn", b.rms(f"{p}.attn_norm", x, 1e-6), heads, **told)
        h = b.rms(f"{p}.mlp_norm", x, 1e-6)
        h = F.silu(b.linear(f"{p}.mlp.gate_proj", h, hidden, bias=False)) * b.linear(
            f"{p}.mlp.up_proj", h, hidden, bias=False
        )
        x = x + b.linear(f"{p}.mlp.down_proj", h, width, bias=False)
    return b.linear("lm_head", b.rms("model.norm", x, 1e-6), vocabulary, bias=False)


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _merged(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def _gla(b: Book, p: str, x: Tensor, heads: int) -> Tensor:
    D = x.shape[-1]
    q, k = (_heads(b.linear(f"{p}.{n}_proj", x, D // 2, bias=False), heads) for n in "qk")
    v = _heads(b.linear(f"{p}.v_proj", x, D, bias=False), heads)
    gate = b.linear(f"{p}.gk_proj.1", b.linear(f"{p}.gk_proj.0", x, 16, bias=False), D // 2)
    o = b.rms(f"{p}.g_norm_swish_gate", recurrence(q, k, v, _heads(F.logsigmoid(gate) / 16, heads)), 1e-6)
    return b.linear(f"{p}.o_proj", _merged(o) * F.silu(b.linear(f"{p}.g_proj", x, D, bias=False)), D, bias=False)


def _retnet(b: Book, p: str, x: Tensor, heads: int) -> Tensor:
    D = x.shape[-1]
    q, k = (turned(_heads(b.linear(f"{p}.{n}_proj", x, D, bias=False), heads)) for n in "qk")
    v = _heads(b.linear(f"{p}.v_proj", x, 2 * D, bias=False), heads)
    decay = torch.log(1 - 2.0 ** (-5 - torch.arange(heads)))[None, :, None, None].expand_as(q)
    o = b.rms(f"{p}.g_norm_swish_gate", recurrence(q, k, v, decay), 1e-6)
    return b.linear(f"{p}.o_proj", _merged(o) * F.silu(b.linear(f"{p}.g_proj", x, 2 * D, bias=False)), D, bias=False)


def _hgrn2(b: Book, p: str, x: Tensor, heads: int, lowest: Tensor | float = 0.0) -> Tensor:
    D = x.shape[-1]
    gate = lowest + (1 - lowest) * b.linear(f"{p}.f_proj", x, D, bias=False).sigmoid()
    gate = _heads(gate.log(), heads)
    q = _heads(F.silu(b.linear(f"{p}.q_proj", x, D, bias=False)), heads)
    v = _heads(b.linear(f"{p}.i_proj", x, D, bias=False), heads)
    return b.linear(
        f"{p}.o_proj", b.rms(f"{p}.g_norm", _merged(recurrence(q, 1 - gate.exp(), v, gate)), 1e-6), D, bias=False
    )


def _hgrn(b: Book, p: str, x: Tensor, heads: int, lowest: Tensor | float = 0.0) -> Tensor:
    D = x.shape[-1]
    keep = lowest + (1 - lowest) * b.linear(f"{p}.f_proj", x, D, bias=False).sigmoid()
    put = F.silu(b.linear(f"{p}.i_proj", x, D, bias=False)) * (1 - keep)
    state, out = torch.zeros(len(x), D), []
    for t in range(x.shape[1]):
        state = keep[:, t] * state + put[:, t]
        out.append(state)
    o = b.rms(f"{p}.g_norm", torch.stack(out, 1), 1e-6)
    return b.linear(f"{p}.o_proj", o * F.silu(b.linear(f"{p}.g_proj", x, D, bias=False)), D, bias=False)


def _delta(b: Book, p: str, x: Tensor, heads: int, *, gated: bool = False) -> Tensor:
    D = x.shape[-1]
    keys, values = (D * 3 // 4, D * 3 // 2) if gated else (D, D)

    def mixed(n: str, size: int) -> Tensor:
        y = b.linear(f"{p}.{n}_proj", x, size, bias=False).transpose(1, 2)
        y = F.conv1d(F.pad(y, (3, 0)), b(f"{p}.{n}_conv1d.weight", size, 1, 4, kind="bias"), groups=size)
        return _heads(F.silu(y.transpose(1, 2)), heads)

    q, k, v = mixed("q", keys), mixed("k", keys), mixed("v", values)
    q, k = (part / part.norm(dim=-1, keepdim=True) for part in (q, k))
    beta = b.linear(f"{p}.b_proj", x, heads, bias=False).sigmoid().transpose(1, 2)
    forget = torch.zeros(len(x), heads, x.shape[1])
    if gated:
        speed, rate = b(f"{p}.A_log", heads, kind="bias"), b.linear(f"{p}.a_proj", x, heads, bias=False)
        forget = (-speed.exp() * F.softplus(rate + b(f"{p}.dt_bias", heads, kind="bias"))).transpose(1, 2)
    state, out = torch.zeros(len(x), heads, keys // heads, values // heads), []
    for t in range(x.shape[1]):
        state = state * forget[:, :, t, None, None].exp()
        held = (k[:, :, t, :, None] * state).sum(2)
        state = state + k[:, :, t, :, None] * ((v[:, :, t] - held) * beta[:, :, t, None])[:, :, None]
        out.append((q[:, :, t, :, None] * state).sum(2) * q.shape[-1] ** -0.5)
    o = _merged(b.rms(f"{p}.o_norm", torch.stack(out, 2), 1e-6))
    o = o * F.silu(b.linear(f"{p}.g_proj", x, values, bias=False)) if gated else o
    return b.linear(f"{p}.o_proj", o, D, bias=False)


def _full(b: Book, p: str, x: Tensor, heads: int) -> Tensor:
    D, T = x.shape[-1], x.shape[1]
    q, k, v = (b.linear(f"{p}.{n}_proj", x, D, bias=False) for n in "qkv")
    q, k = (_merged(turned(_heads(part, heads))) for part in (q, k))
    later = torch.full((T, T), -math.inf).triu(1)
    return b.linear(f"{p}.o_proj", softmax_attention(q, k, v, heads, later), D, bias=False)


MIXERS = {
    "gla": _gla,
    "retnet": _retnet,
    "hgrn": _hgrn,
    "hgrn2": _hgrn2,
    "deltanet": _delta,
    "gated_deltanet": lambda b, p, x, heads: _delta(b, p, x, heads, gated=True),
    "full": _full,
}


def swin(b: Book, x: Tensor, *, width: int, depths: tuple[int, ...], heads: tuple[int, ...], window: int) -> Tensor:
    x = b.norm("patch_embed.norm", b.conv("patch_embed.proj", x, width, 4, stride=4).movedim(1, -1))
    for i, (depth, count) in enumerate(zip(depths, heads, strict=True)):
        B, side, _, C = x.shape
        w = min(window, side)
        for j in range(depth):
            p = f"layers.{i}.blocks.{j}"
            moved = w // 2 if j % 2 and side > w else 0
            q, k, v = b.linear(f"{p}.attn.qkv", b.norm(f"{p}.norm1", x).roll((-moved, -moved), (1, 2)), 3 * C).chunk(
                3, -1
            )
            down, right = offsets(w, w)
            table = b(f"{p}.attn.relative_position_bias_table", (2 * w - 1) ** 2, count, kind="free")
            bias = table[(down + w - 1) * (2 * w - 1) + right + w - 1].permute(2, 0, 1)
            if moved:
                place = torch.arange(side)
                region = (place >= side - w).long() + (place >= side - moved).long()
                labels = windows((3 * region[:, None] + region)[None, :, :, None].float(), w, w)
                bias = bias + torch.where(labels == labels.transpose(1, 2), 0.0, -100.0).repeat(B, 1, 1)[:, None]
            out = softmax_attention(*(windows(part, w, w) for part in (q, k, v)), count, bias)
            out = out.view(B, side // w, side // w, w, w, C).transpose(2, 3).reshape(B, side, side, C)
            x = x + b.linear(f"{p}.attn.proj", out, C).roll((moved, moved), (1, 2))
            x = x + b.linear(f"{p}.mlp.fc2", F.gelu(b.linear(f"{p}.mlp.fc1", b.norm(f"{p}.norm2", x), 4 * C)), C)
        if i < len(depths) - 1:
            p = f"layers.{i}.downsample"
            x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
            x = b.linear(f"{p}.reduction", b.norm(f"{p}.norm", x), 2 * C, bias=False)
    return b.linear("head", b.norm("norm", x).mean((1, 2)), 5)


__all__ = ["fla", "mosaic_bert", "styleswin", "svt", "swiglu", "swin"]
