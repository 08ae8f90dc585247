"""`outpace doctor`: what this machine can run, and what to do about what it cannot."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass

import click

from outpace import __version__
from outpace.cli.terminal import show_traceback_option
from outpace.errors import UnknownNameError
from outpace.registry import Registry, suggestion

EPILOG = """\b
Examples:
  outpace doctor
  outpace doctor --json
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One line of the report."""

    ok: bool
    """False where something is missing."""
    detail: str
    """What was found: a version, a device, a reason."""
    advice: str = ""
    """What to do, where something is missing."""
    needed: bool = False
    """True where outpace does not work without it."""
    others: tuple[str, ...] = ()
    """What was passed over, with the reason."""


CHECKS: Registry[Callable[[], Finding]] = Registry("check")
BROKEN = (OSError, RuntimeError, AttributeError)
"""What importing a package raises that was built for another torch, or another machine."""


@click.command(epilog=EPILOG, short_help="Say what this machine can run.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@show_traceback_option
@click.option("--family", metavar="CLASS", help="Hold a transformer class to its family's data, on a tiny model of it.")
def doctor(as_json: bool, family: str | None) -> None:
    """Say what this machine can run; exit 1 where something needed is missing."""
    if family is not None:
        _check_family(family, as_json)
        return
    findings = {name: check() for name, check in CHECKS.items()}
    broken = [name for name, finding in findings.items() if finding.needed and not finding.ok]
    if as_json:
        click.echo(json.dumps({name: asdict(finding) for name, finding in findings.items()}, indent=2))
    else:
        for name, finding in findings.items():
            mark = click.style("ok", fg="green") if finding.ok else click.style("--", fg="yellow")
            click.echo(f"{mark}  {name:<18}{finding.detail}")
            for line in ([finding.advice] if finding.advice and not finding.ok else []) + list(finding.others):
                click.echo(f"{'':<22}{line}")
        click.echo(f"needed but missing: {', '.join(broken)}" if broken else "Everything that outpace needs is here.")
    if broken:
        raise SystemExit(1)


def _check_family(cls: str, as_json: bool) -> None:
    """Try whether the family of a class is right with the libraries installed here; exit 1 where it is not."""
    from outpace.accel.check import check_specimen
    from outpace.accel.specimens import SPECIMENS

    if cls not in SPECIMENS:
        raise UnknownNameError(
            f"there is no tiny model of '{cls}' to try{suggestion(cls, sorted(SPECIMENS))}; for a class of your own "
            "call outpace.accel.check_family(transformer, inputs), see docs/adding_a_family.md"
        )
    tried = check_specimen(SPECIMENS[cls])
    if as_json:
        click.echo(json.dumps([asdict(found) for found in tried], indent=2))
    else:
        for found in tried:
            click.echo(found.line())
    if any(found.passed is False for found in tried):
        raise SystemExit(1)


@CHECKS.register("outpace")
def _outpace() -> Finding:
    system = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return Finding(ok=sys.version_info >= (3, 10), detail=f"{__version__} ({system})", needed=True)


def _package(name: str, *, needed: bool, advice: str) -> Finding:
    # Imported, not only looked up: a package built for another torch is installed and yet of no use.
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        return Finding(ok=False, detail=f"cannot be imported: {error}", advice=advice, needed=needed)
    except BROKEN as error:
        return Finding(ok=False, detail=f"installed but broken: {error}", advice=advice, needed=needed)
    return Finding(ok=True, detail=str(getattr(module, "__version__", "found")), needed=needed)


@CHECKS.register("torch")
def _torch() -> Finding:
    found = _package("torch", needed=True, advice="pip install torch")
    if not found.ok:
        return found
    import torch

    return Finding(ok=True, detail=f"{found.detail}, {torch.get_num_threads()} CPU thread(s)", needed=True)


@CHECKS.register("diffusers")
def _diffusers() -> Finding:
    return _package("diffusers", needed=True, advice="pip install diffusers")


@CHECKS.register("transformers")
def _transformers() -> Finding:
    return _package("transformers", needed=True, advice="pip install transformers")


@CHECKS.register("devices")
def _devices() -> Finding:
    try:
        import torch
    except ImportError:
        return Finding(ok=False, detail="unknown without torch")
    found = []
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        found.append(f"cuda:{index} {card.name} ({card.total_memory / 2**30:.0f} GiB)")
    if torch.backends.mps.is_available():
        found.append("mps")
    if found:
        return Finding(ok=True, detail="cpu, " + ", ".join(found))
    advice = "" if torch.version.cuda or torch.version.hip else "this torch is built for CPUs only"
    return Finding(ok=True, detail=f"cpu{f' ({advice})' if advice else ''}")


@CHECKS.register("triton")
def _triton() -> Finding:
    return _package("triton", needed=False, advice="optional, for GPU kernels: pip install 'outpace[triton]' (Linux)")


@CHECKS.register("xformers")
def _xformers() -> Finding:
    return _package("xformers", needed=False, advice="optional, one more attention: pip install 'outpace[xformers]'")


@CHECKS.register("dense attention")
def _dense_attention() -> Finding:
    return _operation("dense attention")


@CHECKS.register("sparse attention")
def _sparse_attention() -> Finding:
    return _operation("sparse attention")


@CHECKS.register("block mass")
def _block_mass() -> Finding:
    return _operation("block mass")


@CHECKS.register("routed experts")
def _routed_experts() -> Finding:
    return _operation("routed experts")


def _operation(name: str) -> Finding:
    """Which implementation is taken here, for heads or experts of width 64; and why not the others."""
    try:
        import torch

        from outpace.kernels.attention import BlockIndex
        from outpace.kernels.dispatch import OPERATIONS
        from outpace.kernels.moe import Experts
    except ImportError as error:
        return Finding(ok=False, detail=f"unknown without torch: {error}")
    device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
    q = torch.zeros(1, 1, 64, 64, device=device, dtype=dtype)
    index = BlockIndex.full(1, 1, queries=64, keys=64, query_block=64, key_block=64, device=device)
    experts = Experts(activation="gelu", up_EDH=q[0].mT, down_EHO=q[0].mT)
    inputs = {
        # With the log-sum-exp.
        "dense attention": (q, q, q, True),
        "sparse attention": (q, q, q, index, True),
        "block mass": (q, q, q[..., 0].float(), 64, 64),
        "routed experts": (q[0, 0], experts, q[0, 0, :, :1].long(), q[0, 0, :, :1]),
    }[name]
    usable, others = [], []
    for backend in OPERATIONS[name].backends:
        try:
            # In this order: "no CUDA device here" tells more than "not unless asked for by name".
            objection = backend.missing() or backend.refuses(*inputs) or backend.hesitates(*inputs)
        except (ImportError, *BROKEN) as error:
            objection = f"installed but broken: {error}"
        usable += [backend.name] if objection is None else []
        others += [f"not {backend.name}: {objection}"] if objection is not None else []
    detail = f"{', else '.join(usable) or 'nothing'}, for {str(dtype).removeprefix('torch.')} on {device}"
    return Finding(ok=bool(usable), detail=detail, others=tuple(others))


@CHECKS.register("repeats")
def _repeats() -> Finding:
    """Whether sums are the same bits again: asked twice, from other memory, in a batch. See docs/honest_numbers.md."""
    try:
        import torch
    except ImportError:
        return Finding(ok=False, detail="unknown without torch")
    make = torch.Generator().manual_seed(0)
    rows, weight = torch.randn(6, 33, 96, generator=make), torch.randn(96, 160, generator=make)

    def block(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        # As in a transformer: a modulation of one row a sample, tokens through a matrix, attention.
        modulation = torch.nn.functional.silu(x.mean(1)) @ w
        hidden = torch.nn.functional.gelu(torch.nn.functional.layer_norm(x, x.shape[-1:]) @ w) + modulation[:, None]
        return torch.nn.functional.scaled_dot_product_attention(hidden, hidden, hidden)

    moved = torch.empty(weight.numel() + 1)[1:].view_as(weight).copy_(weight)  # aligned to 4 bytes only
    plain = block(rows, weight)
    same = {
        "asked again": torch.equal(block(rows, weight), plain),
        "from other memory": torch.equal(block(rows, moved), plain),
        "in another batch": torch.equal(block(rows[:1], weight), plain[:1]),
    }
    kept, lost = ([name for name, equal in same.items() if equal is wanted] for wanted in (True, False))
    detail = f"the same bits {', '.join(kept) or 'never'}" + (f"; not {', '.join(lost)}" if lost else "")
    return Finding(
        ok=same["asked again"],
        detail=f"{detail} (a float32 block on the CPU)",
        advice="plain pipelines do not repeat themselves bit for bit here, so nothing accelerated can either",
    )


@CHECKS.register("torch.compile")
def _compile() -> Finding:
    compiler = next((c for c in (os.environ.get("CXX"), "g++", "clang++") if c and shutil.which(c)), None)
    if compiler is None:
        return Finding(ok=False, detail="no C++ compiler found", advice="optional: apt-get install g++, or set CXX")
    return Finding(ok=True, detail=f"C++ compiler {shutil.which(compiler)}")


@CHECKS.register("ffmpeg")
def _ffmpeg() -> Finding:
    try:
        import imageio_ffmpeg

        return Finding(ok=True, detail=imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        return Finding(ok=False, detail=str(error), advice="needed for .mp4 only: pip install imageio-ffmpeg")


@CHECKS.register("pockets")
def _pockets() -> Finding:
    from outpace.errors import OutpaceError
    from outpace.pipelines.pocket.recipes import POCKETS
    from outpace.pipelines.pocket.store import pocket_path

    missing = []
    for name in POCKETS:
        try:
            pocket_path(name)
        except OutpaceError:
            missing.append(name)
    return Finding(
        ok=not missing,
        detail=", ".join(n for n in POCKETS if n not in missing)
        + (f"; missing {', '.join(missing)}" if missing else ""),
        advice="outpace pocket train NAME makes one again",
    )
