"""Distances between what a contender made and what a reference made: one small file each, listed here."""

from . import latent_l2, psnr, ssim
from .metric import METRICS, Metric

__all__ = ["METRICS", "Metric", "latent_l2", "psnr", "ssim"]
