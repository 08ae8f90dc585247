"""Published diffusion models written out plainly, on weights named and shaped as their own code has them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from plain_models import Book, softmax_attention
from torch import Tensor


def sines(places: Tensor, width: int) -> Tensor:
    """(N, width): sines, then cosines, of places at falling rates."""
    half = width // 2
    angles = places.double()[:, None] * 10_000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    return torch.cat([angles.sin(), angles.cos()], 1).float()


def plane(width: int, side: int) -> Tensor:
    """Places of a square: half of the width for columns, half for rows."""
    place = torch.arange(side * side)
    return torch.cat([sines(place % side, width // 2), sines(place // side, width // 2)], 1)


def told_times(b: Book, name: str, times: Tensor, width: int) -> Tensor:
    waves = sines(times, 256)
    waves = torch.cat([waves[:, 128:], waves[:, :128]], 1)
    return b.linear(f"{name}.mlp.2", F.silu(b.linear(f"{name}.mlp.0", waves, width)), width)


def bare_norm(x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def moved(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return bare_norm(x) * (1 + scale[:, None]) + shift[:, None]


def attended(b: Book, name: str, x: Tensor, heads: int) -> Tensor:
    q, k, v = b.linear(f"{name}.qkv", x, 3 * x.shape[-1]).chunk(3, -1)
    return b.linear(f"{name}.proj", softmax_attention(q, k, v, heads), x.shape[-1])


def block(b: Book, p: str, x: Tensor, c: Tensor, heads: int, gelu: str, *, parts: int = 1) -> Tensor:
    """A DiT block whose tokens see those of their own part of the sequence."""
    width = x.shape[-1]
    modulation = b.linear(f"{p}.adaLN_modulation.1", F.silu(c), 6 * width)
    shift, scale, gate, shift2, scale2, gate2 = modulation.chunk(6, 1)
    seen = moved(x, shift, scale).unflatten(1, (parts, -1)).flatten(0, 1)
    x = x + gate[:, None] * attended(b, f"{p}.attn", seen, heads).unflatten(0, (-1, parts)).flatten(1, 2)
    hidden = F.gelu(b.linear(f"{p}.mlp.fc1", moved(x, shift2, scale2), 4 * width), approximate=gelu)
    return x + gate2[:, None] * b.linear(f"{p}.mlp.fc2", hidden, width)


def last(b: Book, p: str, x: Tensor, c: Tensor, out: int) -> Tensor:
    shift, scale = b.linear(f"{p}.adaLN_modulation.1", F.silu(c), 2 * x.shape[-1]).chunk(2, 1)
    return b.linear(f"{p}.linear", moved(x, shift, scale), out)


def vdt(b: Book, x: Tensor, times: Tensor, *, width: int, layers: int, heads: int, patch: int) -> Tensor:
    """(B, C, T, Y, X) in and out; all labels are 0."""
    B, C, T, side, _ = x.shape
    few = side // patch
    flat = x.transpose(1, 2).flatten(0, 1)
    tokens = b.conv("x_embedder.proj", flat, width, patch, stride=patch).flatten(2).transpose(1, 2)
    b.weights.setdefault("pos_embed", plane(width, few)[None])
    b.weights.setdefault("time_embed", sines(torch.arange(T), width)[None])
    z = (tokens + b.weights["pos_embed"]).unflatten(0, (B, T)) + b.weights["time_embed"][:, :, None]
    c = told_times(b, "t_embedder", times, width) + b("y_embedder.embedding_table.weight", 2, width, kind="free")[0]
    for i in range(layers):
        over_time = z.transpose(1, 2).flatten(0, 1)
        over_time = b.linear(
            f"blocks.{i}.temporal_fc",
            attended(b, f"blocks.{i}.temporal_attn", b.norm(f"blocks.{i}.temporal_norm1", over_time), heads),
            width,
        )
        z = z + over_time.unflatten(0, (B, -1)).transpose(1, 2)
        z = block(b, f"blocks.{i}", z.flatten(1, 2), c, heads, "tanh", parts=T).unflatten(1, (T, -1))
    made = last(b, "final_layer", z.flatten(1, 2), c, patch * patch * C).view(B, T, few, few, patch, patch, C)
    return made.permute(0, 6, 1, 2, 4, 3, 5).reshape(B, C, T, side, side)


def dit3d(
    b: Book, x: Tensor, times: Tensor, labels: Tensor, *, width: int, layers: int, heads: int, voxels: int, patch: int
) -> Tensor:
    """(B, N, 3) in and out: voxels hold the means of their points, points read the eight voxels around them."""
    B, N, C = x.shape
    from_middle = x - x.mean(1, keepdim=True)
    reach = from_middle.norm(dim=2).amax(1)[:, None, None]
    places = ((from_middle / (2 * reach) + 0.5) * voxels).clamp(0, voxels - 1)
    volume = torch.zeros(B, C, voxels, voxels, voxels)
    for cloud in range(B):
        nearest = places[cloud].round().long().tolist()
        for place in {tuple(one) for one in nearest}:
            here = [point for point in range(N) if tuple(nearest[point]) == place]
            volume[(cloud, slice(None), *place)] = x[cloud, here].mean(0)
    few = voxels // patch
    cubes = volume.unfold(2, patch, patch).unfold(3, patch, patch).unfold(4, patch, patch)
    cubes = cubes.permute(0, 2, 3, 4, 1, 5, 6, 7).reshape(B, few**3, -1)
    kernel, bias = b("x_embedder.proj.weight", width, C, patch, patch, patch), b("x_embedder.proj.bias", width)
    place = torch.arange(few**3)
    axes = (place // few**2, place // few % few, place % few)
    b.weights.setdefault("pos_embed", torch.cat([sines(axis, width // 3) for axis in axes], 1)[None])
    z = cubes @ kernel.flatten(1).T + bias + b.weights["pos_embed"]
    c = (
        told_times(b, "t_embedder", times, width)
        + b("y_embedder.embedding_table.weight", 4, width, kind="free")[labels]
    )
    for i in range(layers):
        z = block(b, f"blocks.{i}", z, c, heads, "none")
    made = last(b, "final_layer", z, c, patch**3 * C).view(B, few, few, few, patch, patch, patch, C)
    made = made.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(B, voxels, voxels, voxels, C)
    out = torch.zeros_like(x)
    for cloud in range(B):
        for point in range(N):
            low = places[cloud, point].floor().long()
            share = places[cloud, point] - low
            for corner in range(8):
                step = torch.tensor([corner >> 2 & 1, corner >> 1 & 1, corner & 1])
                weight = torch.where(step == 1, share, 1 - share).prod()
                a, e, f = (low + step).clamp(max=voxels - 1).tolist()
                out[cloud, point] += weight * made[cloud, a, e, f]
    return out


def lego(
    b: Book, x: Tensor, times: Tensor, labels: Tensor, *, width: int, heads: int, classes: int,
    bricks: tuple[tuple[int, int, int], ...],
) -> Tensor:  # fmt: skip
    """Bricks of (sub-image's side, patch, layers); a label that is `classes` is none."""
    B, C, side, _ = x.shape
    line = torch.linspace(-1, 1, side)
    seen = torch.cat([x, line[:, None].expand(B, 1, side, side), line.expand(B, 1, side, side)], 1)
    named = torch.cat([torch.eye(classes), torch.zeros(1, classes)])[labels]
    c = told_times(b, "model.t_embedder", times, width) + b.linear("model.y_embedder.embedding_table", named, width)
    answer = None
    for i, (size, patch, layers) in enumerate(bricks):
        p, given = f"model.model.{i}", seen if answer is None else torch.cat([answer, seen], 1)
        parts, few = side // size, size // patch
        answer = torch.zeros_like(x)
        b.weights.setdefault(f"{p}.pos_embed", plane(width, few)[None])
        for row in range(parts):
            for column in range(parts):
                here = (slice(None), slice(None), slice(row * size, (row + 1) * size),
                        slice(column * size, (column + 1) * size))  # fmt: skip
                z = b.conv(f"{p}.x_embedder.proj", given[here], width, patch, stride=patch).flatten(2).transpose(1, 2)
                z = z + b.weights[f"{p}.pos_embed"]
                for j in range(layers):
                    z = block(b, f"{p}.blocks.{j}", z, c, heads, "tanh")
                made = last(b, f"{p}.final_layer", z, c, patch * patch * C).view(B, few, few, patch, patch, C)
                answer[here] = made.permute(0, 5, 1, 3, 2, 4).reshape(B, C, size, size)
    assert answer is not None
    return answer


def batch_rows(b: Book, name: str, x: Tensor) -> Tensor:
    return b.batch_norm(name, x[..., None, None])[..., 0, 0]


def ladine_member(
    b: Book, picture: Tensor, y: Tensor, guess: Tensor, times: Tensor, *, width: int, steps: int
) -> Tensor:
    h = picture.flatten(1)
    for i in (0, 3):
        h = F.softplus(batch_rows(b, f"encoder_x.{i + 1}", b.linear(f"encoder_x.{i}", h, width)))
    code = batch_rows(b, "norm", b.linear("encoder_x.6", h, width))
    h = torch.cat([y, guess], 1)
    for i in (1, 2, 3):
        scale = b(f"lin{i}.embed.weight", steps + 1, width, kind="norm")[times]
        h = F.softplus(batch_rows(b, f"unetnorm{i}", scale * b.linear(f"lin{i}.lin", h, width)))
        h = code * h if i == 1 else h
    return b.linear("lin4", h, y.shape[1])


def ladine_mapping(b: Book, rows: Tensor, *, widths: tuple[int, ...], classes: int) -> Tensor:
    h = rows.flatten(1)
    for i, width in enumerate(widths, 1):
        h = F.relu(b.linear(f"linear{i}", h, width))
    return b.linear(f"linear{len(widths) + 1}", h, classes)


def vision_transformer(
    b: Book, x: Tensor, *, width: int, layers: int, heads: int, patch: int, classes: int
) -> tuple[Tensor, list[Tensor]]:
    """timm's logits, and what its blocks make of patches alone."""
    patches = b.conv("patch_embed.proj", x, width, patch, stride=patch).flatten(2).transpose(1, 2)
    z = torch.cat([b("cls_token", 1, 1, width, kind="free").expand(len(x), -1, -1), patches], 1)
    z, bare = z + b("pos_embed", 1, z.shape[1], width, kind="free"), []
    for i in range(layers):
        made = []
        for h in (z, patches):
            h = h + attended(b, f"blocks.{i}.attn", b.norm(f"blocks.{i}.norm1", h, 1e-6), heads)
            up = F.gelu(b.linear(f"blocks.{i}.mlp.fc1", b.norm(f"blocks.{i}.norm2", h, 1e-6), 4 * width))
            made.append(h + b.linear(f"blocks.{i}.mlp.fc2", up, width))
        z, patches = made
        bare.append(patches)
    return b.linear("head", b.norm("norm", z, 1e-6)[:, 0], classes), bare
