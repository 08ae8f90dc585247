"""One thread, no gradients, and the tiny models importable by name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    """Pipelines run without gradients, and so do the stand-ins."""
    with torch.no_grad():
        yield
