"""Distances between what a contender made and what a reference made: one small file each, listed here."""

from . import (
    clip_score,
    fid,
    frechet,
    image_reward,
    kernel_distance,
    latent_l2,
    lpips,
    ms_ssim,
    psnr,
    ssim,
    temporal,
    vbench,
)
from .metric import METRICS, Metric

__all__ = [
    "METRICS",
    "Metric",
    "clip_score",
    "fid",
    "frechet",
    "image_reward",
    "kernel_distance",
    "latent_l2",
    "lpips",
    "ms_ssim",
    "psnr",
    "ssim",
    "temporal",
    "vbench",
]
