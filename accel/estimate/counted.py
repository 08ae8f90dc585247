"""Accounts that were counted beforehand, so that looking one up takes no second: see `benchmarks/counts.py`.

They are those of the published models and of the pockets as they are called by default, and hold for the version of
diffusers that they were counted with; anything else is counted when it is asked for.
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .account import Account
from .models import MODELS

FILE = Path(__file__).with_name("counted.json")


def counted(name: str, folder: Path | None = None) -> Account | None:
    """The account of a model by default, or None where it has to be counted.

    Args:
        name: of a published model, or of a pocket.
        folder: where the pocket lies; None for a published model.
    """
    try:
        known = json.loads(FILE.read_text(encoding="utf-8"))
        entry = known["accounts"].get(name)
        fresh = known["diffusers"] == version("diffusers") and entry and entry["of"] == described(name, folder)
        return Account.from_dict(entry["account"]) if fresh else None
    except (OSError, ValueError, KeyError, TypeError):  # a damaged file costs time, not the answer
        return None


def described(name: str, folder: Path | None = None) -> str:
    """A digest of what an account depends on: the entry of MODELS, or the configuration of a pocket."""
    said: Any = repr(MODELS[name]) if folder is None else (folder / "transformer" / "config.json").read_text("utf-8")
    return hashlib.sha256(str(said).encode()).hexdigest()[:16]
