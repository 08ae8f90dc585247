"""`outpace methods`: methods with their settings, presets and model families, printed from the registries."""

from __future__ import annotations

import dataclasses
import inspect
import json
import textwrap
from typing import Any

import click

from outpace.cli.terminal import show_traceback_option

EPILOG = """\b
Examples:
  outpace methods
  outpace methods gated_taylor
  outpace generate dit --prompt 3 --method gated_taylor:threshold=0.2,order=1
"""


@click.command(epilog=EPILOG, short_help="List methods, their settings, presets and model families.")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@show_traceback_option
def methods(name: str | None, as_json: bool) -> None:
    """List methods with their settings, the presets and the model families; NAME lists one method alone."""
    from outpace.accel import METHODS

    listed = {name: METHODS[name]} if name else dict(METHODS.items())
    described = {key: _describe(cls) for key, cls in listed.items()}
    presets, families = _presets(), _families()
    if as_json:
        whole = {"methods": described} if name else {"methods": described, "presets": presets, "families": families}
        click.echo(json.dumps(whole, indent=2, default=str))
        return
    for key, method in described.items():
        click.secho(key, bold=True)
        click.echo(_block(method["about"], "  "))
        for setting in method["settings"]:
            click.echo(f"    {setting['name']}={setting['default']}  ({setting['type']})")
            click.echo(_block(setting["help"], "        "))
        click.echo()
    if name:
        return
    click.secho("presets", bold=True)
    for key, preset in presets.items():
        click.echo(_block(f"{key}: {preset['about']}", "  "))
        for method, users in sorted(preset["sets"].items(), key=lambda pair: len(pair[1])):
            rest = len(users) == max(map(len, preset["sets"].values()))
            whom = ", ".join(users)
            if rest:
                whom = "every model" if len(preset["sets"]) == 1 else "every other model"
            click.echo(_block(f"{method}  ({whom})", "      "))
    click.echo()
    click.secho("model families", bold=True)
    for key, transformers in families.items():
        click.echo(_block(f"{key}: {', '.join(transformers)}", "  "))


def _describe(cls: Any) -> dict[str, Any]:
    from outpace.accel import settings_help

    settings = [
        {"name": name, "type": kind, "default": default, "help": about}
        for name, kind, default, about in settings_help(cls)
    ]
    return {"about": _first_paragraph(cls), "settings": settings}


def _presets() -> dict[str, dict[str, Any]]:
    """What each preset is for, and the methods that it sets, by the families that it sets them for."""
    from outpace.accel import FAMILIES, PRESETS

    told: dict[str, dict[str, Any]] = {}
    for name, preset in PRESETS.items():
        groups: dict[str, list[str]] = {}
        for family in FAMILIES:
            groups.setdefault(" + ".join(map(_spelt, preset.methods(family))), []).append(family)
        told[name] = {"about": preset.summary, "sets": groups}
    return told


def _spelt(method: Any) -> str:
    """A method as --method takes it, with the setting it goes by even where that is the default."""
    given = {key: value for key, value in method.to_dict().items() if key not in ("method", "version")}
    first = next((f.name for f in dataclasses.fields(method)), None)
    if first is not None and getattr(method, first) is not None:
        given = {first: getattr(method, first), **given}
    words = (f"{key}={'/'.join(map(str, v)) if isinstance(v, (tuple, list)) else v}" for key, v in given.items())
    return f"{method.name}:{','.join(words)}" if given else method.name


def _families() -> dict[str, list[str]]:
    from outpace.accel import FAMILIES

    return {name: list(family.transformers) for name, family in FAMILIES.items()}


def _first_paragraph(thing: Any) -> str:
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


def _block(text: str, indent: str) -> str:
    return textwrap.fill(
        " ".join(text.split()), 110, initial_indent=indent, subsequent_indent=indent, break_long_words=False
    )
