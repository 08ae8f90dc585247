"""LEGO: diffusion models stacked from bricks that can be left out, for pictures of any size."""

from .model import LegoTransformer2DModel
from .pipeline import LegoPipeline
from .sizes import SIZES
from .skipping import skip_brick
from .training import lego_loss

__all__ = ["SIZES", "LegoPipeline", "LegoTransformer2DModel", "lego_loss", "skip_brick"]
