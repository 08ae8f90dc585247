"""What to make: prompts, files of prompts, seeds, and how many of each."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outpace.cli.options.prompt import pair, read_seeds, read_texts
from outpace.errors import InputError


def test_prompts_and_a_file_are_joined(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("two\n\n  three  \n", encoding="utf-8")
    assert read_texts(("one",), str(file)) == ["one", "two", "three"]


def test_no_prompt_says_what_to_give() -> None:
    with pytest.raises(InputError, match="--prompt"):
        read_texts((), None)


def test_missing_empty_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_texts((), str(tmp_path / "none.txt"))
    empty = tmp_path / "empty.txt"
    empty.write_text("\n\n")
    with pytest.raises(InputError, match="is empty"):
        read_texts((), str(empty))
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match="not UTF-8"):
        read_texts((), str(binary))
    with pytest.raises(InputError, match="directory"):
        read_texts((), str(tmp_path))


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "1,,2", "5-2", "0-99999999", "9" * 30, "nan"])
def test_bad_seeds(text: str) -> None:
    with pytest.raises(InputError, match="seed"):
        read_seeds(text)


@given(st.text(alphabet="0123456789,- x", max_size=12))
def test_seeds_are_whole_numbers_or_an_error(text: str) -> None:
    try:
        seeds = read_seeds(text)
    except InputError:
        return
    assert seeds and all(0 <= seed < 2**63 for seed in seeds)


def test_one_of_either_serves_all_of_the_other() -> None:
    assert pair(["a", "b"], [7]) == [("a", 7), ("b", 7)]
    assert pair(["a"], [1, 2]) == [("a", 1), ("a", 2)]
    assert pair(["a", "b"], [1, 2]) == [("a", 1), ("b", 2)]


def test_counts_that_do_not_match_are_refused() -> None:
    with pytest.raises(InputError, match="2 prompts but 3 seeds"):
        pair(["a", "b"], [1, 2, 3])
