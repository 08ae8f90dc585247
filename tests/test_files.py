"""Writers leave whole files or none, and say in one line, with the path, why they could not write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from outpace.errors import InputError
from outpace.files import check_new_folder, check_writable, read_bytes, whole_file, whole_folder, write_bytes


def test_through_a_link_the_file_it_points_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"


@pytest.mark.parametrize("name", ["device", "pipe", "folder", "", ".", "..", "n" * 300, "nul\0", "file/below"])
def test_what_is_no_ordinary_file_is_refused_and_left_as_it_is(name: str, tmp_path: Path) -> None:
    (tmp_path / "device").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.iterdir())
    path = tmp_path / name if name else Path("")
    for act in (check_writable, lambda p: write_bytes(p, b"x")):
        with pytest.raises(InputError, match="cannot write '") as caught:
            act(path)
        assert len(str(caught.value).splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before and os.path.exists("/dev/null") and not os.path.isfile("/dev/null")


FULL = "Error while serializing: I/O error: No space left on device (os error 28)"


@pytest.mark.parametrize("raised", [OSError(28, "No space left on device"), RuntimeError(FULL), KeyboardInterrupt()])
def test_what_could_not_be_finished_is_not_there(raised: BaseException, tmp_path: Path) -> None:
    kind = InputError if isinstance(raised, Exception) else KeyboardInterrupt
    for make in (whole_file, whole_folder):
        with pytest.raises(kind), make(tmp_path / "new" / "thing") as draft:
            (draft / "part" if draft.is_dir() else draft).write_text("half")
            raise raised
        assert not (tmp_path / "new" / "thing").exists()
        assert [p for p in tmp_path.rglob("*") if not p.is_dir()] == []


def test_a_folder_is_new_or_empty(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "a" / "b") as part:
        (part / "x").touch()
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["x"]
    with pytest.raises(InputError, match="exists already"):
        check_new_folder(tmp_path / "a" / "b")
    with pytest.raises(InputError, match="exists already"), whole_folder(tmp_path / "a" / "b" / "x"):
        pass


def test_reading_says_which_file_and_why(tmp_path: Path) -> None:
    for path, why in (
        (tmp_path / "no", "No such file"),
        (tmp_path, "a directory"),
        (tmp_path / ("n" * 300), "too long"),
    ):
        with pytest.raises(InputError, match=f"cannot read the card '.*': .*{why}"):
            read_bytes(path, "the card")
