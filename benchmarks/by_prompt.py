"""What benchmarks of expensive prompts share: what was measured is kept prompt by prompt, and a run goes on."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def asked(about: str, *, prompts: int, result: Path, page: Path) -> argparse.Namespace:
    """The options of such a benchmark: how many prompts in all and in this run, and where its files are."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--prompts", type=int, default=prompts, help="how many in all")
    parser.add_argument("--at-most", type=int, default=1 << 30, help="how many this run adds")
    parser.add_argument("--result", type=Path, default=result)
    parser.add_argument("--page", type=Path, default=page)
    return parser.parse_args()


def known(result: Path) -> dict[str, Any]:
    """What earlier runs measured, by prompt."""
    return json.loads(result.read_text(encoding="utf-8")) if result.exists() else {"prompts": {}}
