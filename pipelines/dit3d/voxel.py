"""Point clouds to volumes and back, in plain torch.

Source: Liu et al., "Point-Voxel CNN for Efficient 3D Deep Learning", NeurIPS 2019, arXiv:1907.03739, section 3.
Legend: B clouds, N points, C channels, V voxels along each of the axes x, y, z, in that order.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F


def voxel_places(points_BN3: torch.Tensor, side: int) -> torch.Tensor:
    """Where each point lies in a volume of `side` voxels that its cloud just fills: (B, N, 3) in 0..side-1."""
    centred = points_BN3 - points_BN3.mean(1, keepdim=True)
    reach = centred.norm(dim=2).amax(1)[:, None, None].clamp(min=1e-6)
    return ((centred / (2 * reach) + 0.5) * side).clamp(0, side - 1)


def voxelize(features_BNC: torch.Tensor, places_BN3: torch.Tensor, side: int) -> torch.Tensor:
    """The mean of the features in each voxel, zero where it is empty: (B, C, V, V, V)."""
    batch, _, channels = features_BNC.shape
    x, y, z = places_BN3.round().long().unbind(2)
    clouds = torch.arange(batch, device=features_BNC.device)[:, None]
    voxel = (((clouds * side + x) * side + y) * side + z).flatten()
    volume = features_BNC.new_zeros(batch * side**3, channels).index_add(0, voxel, features_BNC.flatten(0, 1))
    points = features_BNC.new_zeros(batch * side**3).index_add(
        0, voxel, torch.ones_like(features_BNC[..., 0]).flatten()
    )
    mean = volume / points.clamp(min=1)[:, None]
    return mean.view(batch, side, side, side, channels).movedim(4, 1)


def devoxelize(volume_BCVVV: torch.Tensor, places_BN3: torch.Tensor) -> torch.Tensor:
    """The volume at each place, trilinear between the middles of voxels: (B, N, C)."""
    # grid_sample counts places from -1 to 1, and the last axis of the volume first.
    places = (places_BN3 / (volume_BCVVV.shape[-1] - 1) * 2 - 1).flip(2)[:, None, None]
    sampled = F.grid_sample(volume_BCVVV, places.to(volume_BCVVV.dtype), align_corners=True, padding_mode="border")
    return sampled[:, :, 0, 0].transpose(1, 2)
