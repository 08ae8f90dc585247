"""How the command line meets its user: commands imported when asked for, errors as one line and an exit code."""

from __future__ import annotations

import importlib
import shlex
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import click

from outpace.errors import OutpaceError
from outpace.registry import suggestion

Command = TypeVar("Command", bound=Callable[..., Any])

_DEBUG = "outpace.debug"
_KEPT = "outpace.kept"


def tell_if_stopped(kept: str) -> None:
    """From here on, a command that is stopped with Ctrl-C ends with `kept`: what is kept, and how to go on."""
    context = click.get_current_context(silent=True)
    if context is not None:
        context.meta[_KEPT] = kept


def watched(as_json: bool = False) -> bool:
    """True where progress is shown: somebody looks at a terminal, and no program reads the output."""
    return not as_json and sys.stderr is not None and sys.stderr.isatty()


def show_traceback_option(command: Command) -> Command:
    """Add `--debug` to a command: errors keep their traceback."""

    def remember(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
        if wanted:
            ctx.meta[_DEBUG] = True

    return click.option(
        "--debug", is_flag=True, is_eager=True, expose_value=False, callback=remember, help="Show tracebacks of errors."
    )(command)


def command_line() -> str:
    """The command under way, as it would be typed."""
    context = click.get_current_context()
    words = ["outpace", context.command.name or ""]
    for parameter in context.command.params:
        if parameter.name is None or parameter.name not in context.params:
            continue
        value = context.params[parameter.name]
        if isinstance(parameter, click.Argument):
            words.insert(2, str(value))
        elif context.get_parameter_source(parameter.name) is click.core.ParameterSource.COMMANDLINE:
            several = value if isinstance(value, tuple) else (value,)
            words += [w for v in several for w in ([parameter.opts[0]] if v is True else [parameter.opts[0], str(v)])]
    return shlex.join(words)


class Face(click.Group):
    """A group that imports a command when it is asked for, and ends every error as one line and an exit code.

    2: something the user can put right. 1: a defect of ours or of a library below. 130: stopped with Ctrl-C.

    Args:
        home: the package that holds one module a command, each with a click command of the module's name.
        modules: their names, in the order of the help.
    """

    def __init__(self, *args: Any, home: str = "", modules: tuple[str, ...] = (), **extra: Any) -> None:
        super().__init__(*args, **extra)
        self.home, self.modules = home, modules

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.modules:
            return None
        return getattr(importlib.import_module(f"{self.home}.{cmd_name}"), cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.modules:
            ctx.fail(f"no command '{args[0]}'{suggestion(args[0], list(self.modules))}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
            raise
        except (click.Abort, KeyboardInterrupt):
            kept = ctx.meta.get(_KEPT, "")
            click.echo(f"Stopped.{f' {kept}' if kept else ''}", err=True)
            sys.exit(130)
        except OutpaceError as error:
            _show_traceback(ctx)
            _end(str(error), 2)
        except Exception as error:  # the last stop before the terminal: a defect, too, ends as one line
            _show_traceback(ctx)
            if (why := not_ours(error)) is not None:
                _end(why, 2)
            hint = "" if ctx.meta.get(_DEBUG) else "; run it again with --debug to see where"
            _end(f"{type(error).__name__}: {error} (a defect of outpace or of a library below it{hint})", 1)

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **extra)
        try:
            status = super().main(*args, standalone_mode=False, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            sys.exit(2)
        except click.UsageError as error:
            where = f" (see '{error.ctx.command_path} --help')" if error.ctx is not None else ""
            _end(error.format_message().rstrip(".") + where, 2)
        except click.ClickException as error:
            _end(error.format_message(), 2)
        except (click.Abort, KeyboardInterrupt):
            click.echo("Stopped.", err=True)
            sys.exit(130)
        sys.exit(status if isinstance(status, int) else 0)


def not_ours(error: Exception) -> str | None:
    """What to say of an error of the machine, a full disk or memory that does not suffice; None for any other.

    >>> not_ours(OSError(28, "No space left on device", "out/x.png"))
    "cannot use 'out/x.png': No space left on device"
    """
    from outpace.files import is_of_the_disk, said

    words = str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "not enough memory" in words:
        return "not enough memory for this: take a smaller size, fewer frames, a smaller --batch or another --dtype"
    if is_of_the_disk(error):
        name = getattr(error, "filename", None)
        return f"cannot use '{name}': {said(error)}" if name is not None else said(error)
    return None


def _end(message: str, status: int) -> NoReturn:
    click.echo(f"{click.style('Error:', fg='red')} {' '.join(message.split())}", err=True)
    sys.exit(status)


def _show_traceback(ctx: click.Context) -> None:
    if ctx.meta.get(_DEBUG):
        traceback.print_exc()
