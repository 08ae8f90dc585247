"""The command line: `outpace COMMAND`. One file a command; a command's heavy imports happen when it runs.

Listing the commands imports click and nothing else of weight, so `outpace --help` answers at once.
"""

from __future__ import annotations

import os
import sys

import click

from outpace import __version__
from outpace.cli.terminal import Face, show_traceback_option

# Threads that wait by spinning make a small model thirty times slower where another process wants the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if sys.stderr is not None and sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns == 0:
    # A terminal that does not say how wide it is: bars would be drawn in no column at all.
    os.environ.setdefault("TQDM_NCOLS", "79")

COMMANDS = (
    "generate",
    "compare",
    "tune",
    "convert",
    "distill",
    "serve",
    "report",
    "calibration",
    "diff",
    "estimate",
    "flops",
    "methods",
    "pocket",
    "models",
    "doctor",
)
"""Modules of this folder, each with a click command of its own name."""

EPILOG = """\b
Examples:
  outpace generate flux --prompt "a blue circle above a yellow circle on black"
  outpace compare dit --prompts 8 --steps 50 --out out/dit
  outpace doctor
"""


@click.group(
    cls=Face,
    home=__name__,
    modules=COMMANDS,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="outpace")
@show_traceback_option
def main() -> None:
    """Make diffusion transformers run faster, and see what it costs."""
