"""Bad inputs for every command: each has to end in one line, with exit code 2, and leave nothing behind.

A case is a name, the words of a command, and what is prepared in the folder that it runs in. Values come from the
commands' own options, so that a new option is tried without being named here; paths, damaged files and contradictions
are listed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from outpace.cli import COMMANDS, main


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One bad input."""

    name: str
    words: tuple[str, ...]
    prepare: Callable[[Path], None] | None = None
    """Called with the folder that the command runs in."""
    limit_bytes: int | None = None
    """No file may grow larger, as on a disk that is full."""
    late: bool = False
    """The disk is full only once the work is done: looking beforehand finds nothing wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Things:
    """What the cases are made from."""

    tiny: Path
    """A pipeline of classes."""
    texts: Path
    """A pipeline with a text encoder and a tokenizer."""
    comparison: Path
    """A finished comparison."""


BASES: dict[str, tuple[str, ...]] = {
    "generate": ("generate", "dit", "--prompt", "3"),
    "compare": ("compare", "dit", "--prompts", "2"),
    "tune": ("tune", "dit", "--target", "psnr>=30"),
    "convert": ("convert", "dit", "--out", "made"),
    "distill": ("distill", "dit", "--out", "made"),
    "report": ("report", "nowhere"),
    "calibration": ("calibration", "ladine"),
    "diff": ("diff", "nowhere", "elsewhere"),
    "estimate": ("estimate", "flux.1"),
    "flops": ("flops", "flux.1"),
    "methods": ("methods", "gated_taylor"),
    "pocket check": ("pocket", "check", "dit"),
    "pocket train": ("pocket", "train", "dit", "--out", "made"),
    "models show": ("models", "show", "gam"),
    "models check": ("models", "check", "gam"),
    "models bench": ("models", "bench", "gam"),
    "serve": ("serve", "dit"),
    "doctor": ("doctor",),
}
"""A command of each kind, right but for what a case adds."""

PLACES = ("", ".", "..", "/dev/null", "/proc/outpace/x", "/sys/outpace", "n" * 300, "nul\0name", "pipe", "full",
          "file/below", "device")  # fmt: skip
"""Where nothing can be written."""

PATH_OPTIONS = {
    "generate": ("--out",), "compare": ("--out",), "tune": ("--out",), "convert": ("--out",), "distill": ("--out",),
    "calibration": ("--out",), "pocket train": ("--out",),
}  # fmt: skip

NAMES = ("", " ", "nonsense", "../nowhere", "a b/c", "/dev/null", "n" * 300, "nul\0name", "é", "dit/", "file", "-")
"""No pipeline, model or method has such a name."""


def places(folder: Path) -> None:
    """What the names in PLACES lie beside."""
    (folder / "file").write_text("a file", encoding="utf-8")
    os.mkfifo(folder / "pipe")
    (folder / "device").symlink_to("/dev/null")
    (folder / "full" / "report.html").mkdir(parents=True)
    (folder / "full" / "model_index.json").mkdir()


def command_of(name: str) -> click.Command:
    """The command that a key of BASES names."""
    found: Any = main
    for word in name.split():
        found = found.get_command(click.Context(found), word)
    return found


def bad_values(kind: click.ParamType) -> list[str]:
    """Words that no option of this kind takes."""
    if isinstance(kind, click.Choice):
        return ["", "nonsense", "float32,bfloat16", "n" * 300]
    if isinstance(kind, click.IntRange):
        below = [str(int(kind.min) - 1)] if kind.min is not None else []
        above = [str(int(kind.max) + 1)] if kind.max is not None else []
        return [*below, *above, "", "abc", "1.5", "nan", "9" * 400, "0x10"]
    if isinstance(kind, click.FloatRange):
        below = [str(kind.min - 1)] if kind.min is not None else []
        above = [str(kind.max * 2 + 1)] if kind.max is not None else []
        return [*below, *above, "", "abc", "nan", "inf", "-inf", "1e400"]
    return []


def values() -> Iterator[Case]:
    """Every option of every command with values that it does not take."""
    for name, base in BASES.items():
        for option in command_of(name).params:
            if not isinstance(option, click.Option) or option.name in ("help", "debug"):
                continue
            flag = option.opts[-1]
            for value in bad_values(option.type):
                yield Case(name=f"{name} {flag} {value[:20]!r}", words=(*base, flag, value))
        yield Case(name=f"{name} with an unknown option", words=(*base, "--nonsense"))
        yield Case(name=f"{name} with a word too many", words=(*base, "one", "more"))
        for flag in ("--device",):
            if any(flag in o.opts for o in command_of(name).params) and name not in ("estimate",):
                for value in ("", "abacus", "meta", "cuda:99", "cpu:x", "n" * 300):
                    yield Case(name=f"{name} {flag} {value[:20]!r}", words=(*base, flag, value))


def paths() -> Iterator[Case]:
    """Every command that writes, at places that cannot be written to."""
    for name, flags in PATH_OPTIONS.items():
        for flag in flags:
            for place in PLACES:
                if name == "generate" and place in (".", "..", "full"):
                    continue  # folders for pictures
                if name in ("compare", "calibration", "pocket train") and place in (".", ".."):
                    continue
                words = (*BASES[name], flag, place)
                yield Case(name=f"{name} {flag} {place[:20]!r}", words=words, prepare=places)


def names() -> Iterator[Case]:
    """Names of pipelines, models and methods that are none."""
    for command, words in {
        "generate": ("--prompt", "3"), "compare": ("--prompts", "2"), "tune": ("--target", "psnr>=30"),
        "convert": ("--out", "made"), "distill": ("--out", "made"), "estimate": (), "flops": (), "calibration": (),
        "report": (), "methods": (), "serve": (),
    }.items():  # fmt: skip
        for name in NAMES:
            if command == "methods" and not name:
                continue
            yield Case(name=f"{command} {name[:20]!r}", words=(command, *words, "--", name), prepare=places)
    for group in (("pocket", "check"), ("models", "show"), ("models", "check"), ("models", "bench")):
        for name in NAMES:
            yield Case(name=f"{' '.join(group)} {name[:20]!r}", words=(*group, "--", name), prepare=places)
    for name in ("nonsense", "", "Generate", "gen erate"):
        yield Case(name=f"no command {name!r}", words=(name,))
    assert set(COMMANDS) >= {words[0] for words in BASES.values()}


def prompts() -> Iterator[Case]:
    """Prompts, seeds, methods, targets and budgets that cannot be read."""

    def file(content: bytes) -> Callable[[Path], None]:
        return lambda folder: (folder / "prompts.txt").write_bytes(content) and None

    contents = {"empty": b"", "blank": b"\n \n", "latin-1": b"\xe9t\xe9\n", "utf-16": "3\n".encode("utf-16"),
                "nul": b"3\x003\n", "escape": b"3\x1b[0m\n", "mark alone": b"\xef\xbb\xbf"}  # fmt: skip
    for command in ("generate", "compare", "tune", "convert"):
        base = (command, "dit", *(("--target", "psnr>=30") if command == "tune" else ()))
        base += ("--out", "made") if command == "convert" else ()
        for what, content in contents.items():
            yield Case(
                name=f"{command} prompts {what}", words=(*base, "--prompts", "prompts.txt"), prepare=file(content)
            )
        for place in ("nowhere.txt", "/dev", "n" * 300, "nul\0name", "file/below"):
            yield Case(name=f"{command} prompts at {place[:12]!r}", words=(*base, "--prompts", place), prepare=places)
        for count in ("0", "-1", "1000000000000", "9" * 40):
            if command != "generate":
                yield Case(name=f"{command} {count[:12]} prompts", words=(*base, "--prompts", count))
    for seed in ("", "x", "-1", "1-", "5-3", "1,,2", "0-99999999", "9" * 20, "9" * 5000, "1.5", "9223372036854775807-"):
        yield Case(name=f"seeds {seed[:20]!r}", words=(*BASES["generate"], "--seed", seed))
    for text in ("", "11", "x", "-1", "3\0", "\ud800", "3" * 5000):
        yield Case(name=f"prompt {text[:8]!r}", words=("generate", "dit", "--prompt", text))
    for text in ("", ":", "gated", "threshold=", "threshold=x", "threshold=-1", "threshold=nan", "order=9", "gate=none",
                 "adaspa:recall=2", "adaspa:recall=0.9,recall=0.8", "nope=1", "solver:solver=euler", "=",
                 "threshold=0.1+adaspa:recall=x", "gated_taylor:threshold=1e999", "a" * 300):  # fmt: skip
        for command in ("generate", "compare"):
            yield Case(name=f"{command} method {text[:24]!r}", words=(*BASES[command], "--method", text))
    for text in ("", "psnr", "psnr>30", "psnr<=30", "psnr>=x", "psnr>=nan", "psnr>=-5", "psnr>=1000", "ssim>=2",
                 "ssim>=98%x", "blocks>=1", "blocks<=2", "blocks<=0", "time<=0%", "psrn>=30", "30"):  # fmt: skip
        yield Case(name=f"target {text!r}", words=("tune", "dit", "--target", text))
    for text in ("", "x", "0", "-5m", "1d", "nan", "1e99h", "9" * 40):
        yield Case(name=f"budget {text[:12]!r}", words=(*BASES["tune"], "--budget", text))
    for text in ("", ",", "none", "plain", "nonsense", "main,nonsense", "gated-99", "all,", " , ,"):
        if text != "all,":
            yield Case(name=f"methods {text!r}", words=(*BASES["compare"], "--steps", "4", "--methods", text))
    for text in ("0S12E2A", "1S12E13A", "1S0E0A", "x", "", "1S12E2A1", "-1S2E1A"):
        yield Case(name=f"layout {text!r}", words=(*BASES["convert"], "--layout", text))
    for text in ("20-27:4", "1-0:1", "x", "", "1-2:9", "-1-2:1"):
        yield Case(name=f"group {text!r}", words=(*BASES["convert"], "--group", text))
    for text in ("low_rank:0", "low_rank:x", "nonsense", "", "low_rank:99999"):
        yield Case(name=f"modulation {text!r}", words=(*BASES["convert"], "--modulation", text))
    for text in ("joint", "joint:0", "joint:x", "nonsense:10", "", "joint:-1", ":5"):
        yield Case(name=f"stage {text!r}", words=(*BASES["distill"], "--stage", text))
    for text in ("nonsense", "", "forecast=nonsense", "forecast,attention", "=", "forecast=gated-99"):
        yield Case(name=f"axis {text!r}", words=(*BASES["compare"], "--matrix", "--axis", text))
    for text in ("nonsense", "", "noise-999", "n" * 300):
        yield Case(name=f"corruption {text[:12]!r}", words=("calibration", "--corruption", text))


def contradictions() -> Iterator[Case]:
    """Options that do not go together."""
    generate, compare, convert = BASES["generate"], BASES["compare"], BASES["convert"]
    for words in (
        (*generate, "--plain", "--preset", "fast"),
        (*generate, "--plain", "--method", "threshold=0.1"),
        (*generate, "--preset", "fast", "--method", "threshold=0.1"),
        (*generate, "--preset", "nonsense"),
        (*generate, "--preset", ""),
        (*generate, "--method", "threshold=0.1", "--method", "interval_taylor"),
        (*generate, "--profile", "nowhere.json"),
        (*generate, "--profile", "nowhere.json", "--plain"),
        (*generate, "--profile", "/dev"),
        (*generate, "--format", "mp4"),
        (*generate, "--format", "gif", "--out", "x.png"),
        (*generate, "--out", "x.jpg"),
        (*generate, "--out", "x.png", "--prompt", "4"),
        (*generate, "--height", "64"),
        (*generate, "--frames", "9"),
        (*generate, "--seed", "1,2,3", "--prompt", "4"),
        ("generate", "dit"),
        ("generate", "wan", "--prompt", "nonsense words"),
        ("generate", "wan", "--prompt", "a white square moves up slowly", "--height", "7"),
        ("generate", "flux", "--prompt", "a blue circle above a yellow circle on black", "--frames", "3"),
        ("generate", "flux", "--prompt", "a blue circle above a yellow circle on black", "--width", "3"),
        (*compare, "--axis", "forecast"),
        (*compare, "--also", "nowhere"),
        (*compare, "--also", "flux"),
        (*compare, "--also", "dit:step=4"),
        (*compare, "--accept", "nowhere.toml"),
        (*compare, "--seed", str(2**63 - 1)),
        (*compare, "--method", "threshold=0.1+threshold=0.2"),
        ("compare", "flux", "--prompts", "2", "--frames", "3"),
        (*BASES["tune"], "--prompts", "1"),
        (*BASES["tune"], "--target", "psnr>=31"),
        (*BASES["tune"], "--risk", "0.001"),
        ("tune", "dit"),
        (*convert, "--count"),
        (*convert[:2],),
        (*convert, "--to", "depth"),
        (*convert, "--to", "depth", "--drop", "999"),
        (*convert, "--to", "width", "--layout", "1S12E2A"),
        (*convert, "--keep", "0.5"),
        (*convert, "--products"),
        ("distill", "dit"),
        (*BASES["distill"],),
        (*BASES["distill"], "--teacher", "nonsense"),
        ("pocket", "check", "dit", "--folder", "nowhere"),
        ("pocket", "check", "dit", "--folder", "/dev/null"),
        ("pocket", "check", "dit", "--steps", "9999"),
        ("pocket", "train", "dit", "--out", "made", "--processes", "2", "--device", "abacus"),
        ("models", "check"),
        ("models", "check", "gam", "--all"),
        ("calibration", "dit"),
        ("estimate", "flux.1", "--device", "abacus"),
        ("estimate", "flux.1", "--height", "1000"),
        ("estimate", "flux.1", "--frames", "9"),
        ("flops", "flux.1", "--height", "1000"),
        ("flops", "lego"),
        ("serve", "dit", "--quality", "nonsense"),
    ):
        yield Case(name=f"{' '.join(words)[:70]}", words=tuple(words))


def damaged(things: Things) -> Iterator[Case]:
    """Folders, profiles and results with one file cut, emptied, replaced or taken away."""
    ways: dict[str, Callable[[Path], object]] = {
        "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        "empty": lambda path: path.write_bytes(b""),
        "noise": lambda path: path.write_bytes(b"\x93\x00noise\xff" * 9),
        "list": lambda path: path.write_text("[1]"),
    }

    def damage(source: Path, file: Path, way: Callable[[Path], object] | None) -> Callable[[Path], None]:
        def prepare(folder: Path) -> None:
            shutil.copytree(source, folder / "pipe")
            place = folder / "pipe" / file
            if way is None:
                place.unlink()
            else:
                way(place)

        return prepare

    for source, prompt in ((things.tiny, "3"), (things.texts, "a blue circle above a yellow circle on black")):
        for path in sorted(source.rglob("*")):
            file = path.relative_to(source)
            if not path.is_file() or path.suffix not in (".json", ".safetensors") or "special_tokens" in path.name:
                continue
            words = ("generate", "pipe", "--prompt", prompt, "--steps", "1", "--device", "cpu")
            for what, way in ways.items():
                yield Case(name=f"{file} {what}", words=words, prepare=damage(source, file, way))
            if path.suffix == ".safetensors" or path.name == "model_index.json":
                yield Case(name=f"{file} missing", words=words, prepare=damage(source, file, None))

    def part(source: Path, name: str) -> Callable[[Path], None]:
        def prepare(folder: Path) -> None:
            shutil.copytree(source, folder / "pipe")
            shutil.rmtree(folder / "pipe" / name)

        return prepare

    for source in (things.tiny, things.texts):
        for path in sorted(source.iterdir()):
            if path.is_dir():
                words = ("generate", "pipe", "--prompt", "3", "--steps", "1", "--device", "cpu")
                yield Case(name=f"{path.name} missing", words=words, prepare=part(source, path.name))

    def index(**changes: Any) -> Callable[[Path], None]:
        def prepare(folder: Path) -> None:
            shutil.copytree(things.tiny, folder / "pipe")
            path = folder / "pipe" / "model_index.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

        return prepare

    for changes in ({"_class_name": "NoSuchPipeline"}, {"_class_name": 3}, {"_class_name": None},
                    {"transformer": ["diffusers", "NoSuchTransformer"]}, {"transformer": ["nowhere", "Thing"]},
                    {"scheduler": [None, None]}, {"vae": ["diffusers", "DDIMScheduler"]}):  # fmt: skip
        words = ("generate", "pipe", "--prompt", "3", "--steps", "1", "--device", "cpu")
        yield Case(name=f"index {changes}", words=words, prepare=index(**changes))
    yield from edited_profiles()
    yield from edited_results(things)


def edited_profiles() -> Iterator[Case]:
    """Profiles with one entry changed or taken away."""
    from outpace.accel import GatedTaylor, Profile

    whole = Profile(methods=(GatedTaylor(),), steps=20).to_dict()

    def write(content: str) -> Callable[[Path], None]:
        return lambda folder: (folder / "p.json").write_text(content) and None

    words = ("generate", "dit", "--prompt", "3", "--profile", "p.json")
    for key in whole:
        if key in ("kind", "version", "methods", "steps"):
            without = {k: v for k, v in whole.items() if k != key}
            yield Case(name=f"profile without {key}", words=words, prepare=write(json.dumps(without)))
        if key in ("kind", "version", "methods", "steps", "fingerprint"):
            for value in (None, [], "x", -1):
                if (key, value) != ("methods", []):
                    changed = json.dumps({**whole, key: value})
                    yield Case(name=f"profile {key} {value}", words=words, prepare=write(changed))
    for content in ("", "[]", "null", "{", "\x00", '{"kind": "outpace profile", "version": 99}'):
        yield Case(name=f"profile {content[:12]!r}", words=words, prepare=write(content))


def edited_results(things: Things) -> Iterator[Case]:
    """results.json with one entry null or missing, for the two commands that read it."""
    whole = json.loads((things.comparison / "results.json").read_text(encoding="utf-8"))

    def write(change: Callable[[Any], object] | str) -> Callable[[Path], None]:
        def prepare(folder: Path) -> None:
            shutil.copytree(things.comparison, folder / "made")
            if isinstance(change, str):
                (folder / "made" / "results.json").write_text(change, encoding="utf-8")
                return
            results = json.loads((things.comparison / "results.json").read_text(encoding="utf-8"))
            change(results)
            (folder / "made" / "results.json").write_text(json.dumps(results), encoding="utf-8")

        return prepare

    def null(*place: Any) -> Callable[[Any], None]:
        def change(results: Any) -> None:
            for key in place[:-1]:
                results = results[key]
            results[place[-1]] = None

        return change

    def gone(*place: Any) -> Callable[[Any], None]:
        def change(results: Any) -> None:
            for key in place[:-1]:
                results = results[key]
            del results[place[-1]]

        return change

    chosen: list[tuple[Any, ...]] = [(key,) for key in ("schema", "pipeline", "study", "metrics", "kinds", "requests",
                                                        "contenders", "speedups", "cells", "environment")]  # fmt: skip
    chosen += [("study", key) for key in ("plain", "references", "samples", "headline", "target", "timed", "batch")]
    chosen += [("pipeline", key) for key in ("name", "class", "kind", "steps")]
    chosen += [("contenders", 0, key) for key in ("name", "label", "kind", "curve", "steps", "settings", "samples",
                                                  "blocks", "metrics", "timeline")]  # fmt: skip
    chosen += [("contenders", 0, "samples", 0, key) for key in ("index", "blocks", "metrics")]
    chosen += [("metrics", whole["study"]["headline"], key) for key in ("label", "unit", "better")]
    chosen += [("requests", 0, key) for key in ("index", "seed")]
    for place in chosen:
        for what, make in (("null", null), ("missing", gone)):
            told = ".".join(map(str, place))
            yield Case(name=f"report {told} {what}", words=("report", "made"), prepare=write(make(*place)))
            if place[0] in ("study", "contenders", "requests") and what == "null":
                words = ("diff", "made", str(things.comparison))
                yield Case(name=f"diff {told} {what}", words=words, prepare=write(make(*place)))
    for content in ("", "[]", "null", "{", "{}", '{"schema": 1}', '{"schema": 99}', "[" * 5000, '{"schema": NaN}'):
        yield Case(name=f"report {content[:12]!r}", words=("report", "made"), prepare=write(content))
        yield Case(name=f"diff {content[:12]!r}", words=("diff", "made", "made"), prepare=write(content))

    def blocked(name: str) -> Callable[[Path], None]:
        def prepare(folder: Path) -> None:
            shutil.copytree(things.comparison, folder / "made", ignore=shutil.ignore_patterns("report.*"))
            (folder / "made" / name).mkdir()

        return prepare

    for name in ("report.html", "report.md"):
        yield Case(name=f"a folder called {name}", words=("report", "made"), prepare=blocked(name))


def full_disks(things: Things) -> Iterator[Case]:
    """Files that may not grow: at once, and only once the work is done."""
    tiny = str(things.tiny)
    short = ("--steps", "1", "--device", "cpu")
    for limit in (0, 100, 4000):
        for words in (
            (*BASES["generate"], "--out", "x.png"),
            ("generate", "wan", "--prompt", "a white square moves up slowly", "--format", "mp4"),
            (*BASES["compare"],),
            (*BASES["tune"],),
            (*BASES["convert"],),
            ("distill", tiny, "--teacher", tiny, "--out", "made"),
            ("calibration",),
            ("pocket", "train", "dit", "--out", "made"),
        ):
            yield Case(name=f"disk with {limit} bytes: {' '.join(words)[:40]}", words=words, limit_bytes=limit)
    late = {
        "weights": ("convert", tiny, "--to", "int8", "--out", "made", *short),
        "a picture": ("generate", tiny, "--prompt", "3", "--plain", *short),
        "a clip": ("generate", "wan", "--prompt", "a white square moves up slowly", "--plain", *short),
        "frames": ("generate", "wan", "--prompt", "a white square moves up slowly", "--format", "gif", *short),
        "a report": ("report", "made"),
        "a comparison": ("compare", "dit", "--prompts", "1", "--methods", "steps-2", "--converged-steps", "0",
                         "--steps", "4", "--device", "cpu", "--out", "made"),
    }  # fmt: skip

    def with_comparison(folder: Path) -> None:
        shutil.copytree(things.comparison, folder / "made")
        for name in ("report.html", "report.md"):
            (folder / "made" / name).write_text("old", encoding="utf-8")

    for what, words in late.items():
        prepare = with_comparison if what == "a report" else None
        limit = 5000 if what == "weights" else 300
        yield Case(name=f"disk full of {what}", words=words, prepare=prepare, limit_bytes=limit, late=True)


def every_case(things: Things) -> list[Case]:
    """All of them, each name once."""
    made = [*values(), *paths(), *names(), *prompts(), *contradictions(), *damaged(things), *full_disks(things)]
    found: dict[str, Case] = {}
    for case in made:
        name, number = case.name, 2
        while name in found:
            name, number = f"{case.name} ({number})", number + 1
        found[name] = case
    return [
        Case(name=name, words=c.words, prepare=c.prepare, limit_bytes=c.limit_bytes, late=c.late)
        for name, c in found.items()
    ]
