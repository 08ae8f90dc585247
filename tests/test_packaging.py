"""One import name over folders beside each other: in a checkout, in a wheel, and next to Hugging Face's `kernels`."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("accel", "evaluation", "kernels", "models", "pipelines")
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def python(code: str, *options: str, folder: Path | None = None, path: str = "") -> str:
    """What `code` prints in a new interpreter."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    done = subprocess.run(
        [sys.executable, *options, "-c", code],
        cwd=folder,
        env={**environment, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def folders_with_code() -> set[str]:
    found = {
        ".".join(["outpace", *file.relative_to(ROOT).parent.parts])
        for part in PARTS
        for file in (ROOT / part).rglob("*.py")
    }
    return found | {".".join(f.relative_to(ROOT).parent.parts) for f in (ROOT / "outpace").rglob("*.py")}


def test_every_package_is_listed() -> None:
    listed = SETUP["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(folders_with_code())
    assert len(set(listed)) == len(listed)


def test_every_package_has_an_init() -> None:
    mapping = SETUP["tool"]["setuptools"]["package-dir"]
    for package in SETUP["tool"]["setuptools"]["packages"]:
        head, part, *rest = [*package.split("."), ""]
        folder = mapping.get(f"{head}.{part}", f"outpace/{part}" if part else "outpace")
        assert (ROOT / folder / "/".join(rest).strip("/") / "__init__.py").is_file(), package


def test_a_checkout_works_without_being_installed() -> None:
    # -S: no site-packages, so no editable install can help.
    where = python("import outpace.kernels; print(outpace.kernels.__file__)", "-S", folder=ROOT)
    assert Path(where) == ROOT / "kernels" / "__init__.py"


def test_kernels_gives_hugging_face_its_name_back(tmp_path: Path) -> None:
    theirs = tmp_path / "kernels"
    theirs.mkdir()
    (theirs / "__init__.py").write_text("owner = 'theirs'\n")
    code = "import kernels, outpace.kernels as ours; print(kernels.owner, hasattr(ours, 'owner'))"
    assert python(code, "-S", folder=ROOT, path=str(tmp_path)) == "theirs False"


def test_kernels_is_harmless_where_theirs_is_not_installed() -> None:
    # An empty module, as `except ImportError` elsewhere expects at worst: no second copy of ours under a bare name.
    code = "import kernels, sys; print(hasattr(kernels, 'forecast'), [m for m in sys.modules if 'kernels.' in m])"
    assert python(code, "-S", folder=ROOT) == "False []"


def test_import_is_light() -> None:
    code = (
        "import time, sys; t = time.process_time(); import outpace; t = time.process_time() - t; "
        "print(t, [m for m in ('torch', 'diffusers', 'numpy', 'click') if m in sys.modules])"
    )
    answers = [python(code, folder=ROOT).split(" ", 1) for _ in range(3)]
    assert {loaded for _, loaded in answers} == {"[]"}
    assert min(float(seconds) for seconds, _ in answers) < 0.05


def test_listing_the_commands_imports_nothing_heavy() -> None:
    heavy = "('torch', 'diffusers', 'numpy', 'scipy', 'PIL', 'matplotlib', 'jinja2', 'tqdm', 'imageio_ffmpeg')"
    code = (
        "import sys, click; from outpace.cli import main; "
        "[main.get_command(click.Context(main), name) for name in main.list_commands(click.Context(main))]; "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    assert python(code, folder=ROOT) == "[]"


@pytest.mark.parametrize("words", [["--help"], ["generate", "--help"], ["compare", "--help"], ["--version"]])
def test_help_answers_at_once(words: list[str]) -> None:
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "outpace", *words], cwd=ROOT, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 0.3


def test_every_public_name_resolves() -> None:
    import outpace

    for public in outpace.__all__:
        assert getattr(outpace, public) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        outpace.nonsense  # noqa: B018


def test_the_wheel_holds_everything_and_works(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    source, out, installed = tmp_path / "source", tmp_path / "wheel", tmp_path / "installed"
    source.mkdir()
    out.mkdir()
    for item in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / item, source)
    for part in (*PARTS, "outpace"):
        shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(out)!r})"
    python(build, folder=source)
    (wheel,) = out.glob("*.whl")
    everything = zipfile.ZipFile(wheel).namelist()
    # Weights made from somebody else's data travel with who that is.
    (notice,) = [name for name in everything if name.endswith(".dist-info/licenses/NOTICE")]
    assert "CC BY 4.0" in zipfile.ZipFile(wheel).read(notice).decode()
    names = {name for name in everything if ".dist-info/" not in name}
    expected = {
        ("" if file.relative_to(source).parts[0] == "outpace" else "outpace/") + file.relative_to(source).as_posix()
        for part in (*PARTS, "outpace")
        for file in (ROOT / part).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and not file.name.startswith(".")
        for file in [source / file.relative_to(ROOT)]
    }
    assert sorted(expected - names) == []
    assert sorted(names - expected) == []
    zipfile.ZipFile(wheel).extractall(installed)
    code = "import outpace, outpace.kernels, outpace.evaluation; print(outpace.__file__, outpace.__path__)"
    assert str(ROOT) not in python(code, folder=tmp_path, path=str(installed))
    code = "import sys; sys.argv = ['outpace', '--version']; from outpace.cli import main; main()"
    assert "outpace, version" in python(code, folder=tmp_path, path=str(installed))
