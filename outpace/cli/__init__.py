"""The command line: `outpace COMMAND`. One file a command; a command's heavy imports happen when it runs.

A module of this folder whose name is in `COMMANDS` holds a click command of the same name. Listing them imports click and
nothing else of weight, so `outpace --help` answers at once.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from typing import Any, NoReturn

import click

from outpace import __version__
from outpace.errors import OutpaceError

COMMANDS = ("generate", "compare", "report", "methods", "pocket", "doctor")

EPILOG = """\b
Examples:
  outpace generate flux --prompt "a red circle on a blue background" --preset balanced
  outpace compare dit --prompts 8 --steps 50 --out out/dit
  outpace methods
"""


def show_traceback_option(command: Any) -> Any:
    """Add `--debug` to a command: errors keep their traceback."""

    def remember(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
        if wanted:
            ctx.meta["outpace.debug"] = True

    return click.option(
        "--debug", is_flag=True, is_eager=True, expose_value=False, callback=remember, help="Show tracebacks of errors."
    )(command)


def _end(message: str, status: int) -> NoReturn:
    click.echo(f"{click.style('Error:', fg='red')} {' '.join(message.split())}", err=True)
    sys.exit(status)


class Face(click.Group):
    """A group that imports a command when it is asked for, and ends every error as one line and an exit code.

    2: something the user can put right. 1: a defect of ours or of a library below. 130: stopped with Ctrl-C.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return getattr(importlib.import_module(f"outpace.cli.{cmd_name}"), cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except OutpaceError as error:
            self._trace(ctx)
            _end(str(error), 2)
        except Exception as error:  # the last stop before the user's terminal: nothing may pass as a bare traceback
            self._trace(ctx)
            hint = "" if self._wants_trace(ctx) else "; run it again with --debug to see where"
            _end(f"{type(error).__name__}: {error} (this is a defect of outpace or of a library below{hint})", 1)

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **extra)
        try:
            sys.exit(super().main(*args, standalone_mode=False, **extra) or 0)
        except click.UsageError as error:
            where = f" (see '{error.ctx.command_path} --help')" if error.ctx is not None else ""
            _end(error.format_message() + where, 2)
        except click.ClickException as error:
            _end(error.format_message(), 2)
        except click.Abort:
            click.echo("Stopped.", err=True)
            sys.exit(130)

    @staticmethod
    def _wants_trace(ctx: click.Context) -> bool:
        return bool(ctx.meta.get("outpace.debug"))

    def _trace(self, ctx: click.Context) -> None:
        if self._wants_trace(ctx):
            traceback.print_exc()


@click.group(cls=Face, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="outpace")
@show_traceback_option
def main() -> None:
    """Make diffusion transformers run faster, and see what it costs."""
