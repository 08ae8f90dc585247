"""`--prompt`, `--prompts` and `--seed` on the command line: what to make, as pairs of a prompt and a seed."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from outpace.cli.options.numbers import MOST_SAMPLES, check_seed
from outpace.errors import InputError
from outpace.files import is_there, read_bytes

if TYPE_CHECKING:
    from outpace.evaluation import Request
    from outpace.pipelines.load import Loaded

MOST_SEEDS = 10_000
"""A range of seeds longer than this is taken for a slip."""


def read_texts(prompts: tuple[str, ...], file: str | None) -> list[str]:
    """The prompts given one by one, then those of `file` (one a line, empty lines skipped, "-" for standard input).

    Raises: InputError where the file cannot be read or there is no prompt at all.
    """
    texts = list(prompts)
    if file is not None:
        lines = [line.strip() for line in _content(file).splitlines() if line.strip()]
        if not lines:
            raise InputError(f"the prompts file '{file}' is empty; write one prompt a line")
        texts += lines
    for text in texts:
        check_text(text)
    if not texts:
        raise InputError('nothing to make: give --prompt "..." (more than once if you like) or --prompts FILE')
    return texts


def check_text(text: str) -> None:
    """Raises: InputError for a prompt with characters that no tokenizer has: NUL and its kin, halves of pairs."""
    for place, character in enumerate(text):
        if (ord(character) < 32 and character not in "\t\n\r") or "\ud800" <= character <= "\udfff":
            raise InputError(
                f"the prompt '{text[:place][:40]}...' has the character {ord(character):#04x} at place {place + 1}; "
                "is its file a text file in UTF-8?"
            )


def _content(file: str) -> str:
    """The text of a prompts file, "-" for standard input, without the mark that some editors put before it."""
    if file == "-":
        if sys.stdin is None or sys.stdin.closed:
            raise InputError("standard input is closed; give --prompts FILE")
        raw = sys.stdin.buffer.read() if hasattr(sys.stdin, "buffer") else sys.stdin.read().encode()
    else:
        raw = read_bytes(file, "the prompts file")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"the prompts file '{file}' is not UTF-8 text: {error.reason}") from error


def read_seeds(text: str) -> list[int]:
    """The seeds that `text` lists.

    >>> read_seeds("7"), read_seeds("1,2,5-8")
    ([7], [1, 2, 5, 6, 7, 8])

    Raises: InputError where it is no list of whole numbers from 0 up.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise InputError(f"cannot read the seeds '{text}'; write whole numbers from 0 up, such as 7 or 1,2,5-8")
        if max(len(first), len(last)) > 25:
            raise InputError(f"a seed of {max(len(first), len(last))} digits is too large; stay below 2 to the 63rd")
        low, high = int(first), int(last) if dash else int(first)
        check_seed(max(low, high))
        if high < low or high - low >= MOST_SEEDS:
            raise InputError(f"'{part.strip()}' in --seed is no range of 1 to {MOST_SEEDS} seeds; write it as 5-8")
        seeds += range(low, high + 1)
    return seeds


def pair(texts: list[str], seeds: list[int]) -> list[tuple[str, int]]:
    """One seed serves every prompt, one prompt is made with every seed, and equal numbers go in pairs.

    Raises: InputError where the numbers do not match.
    """
    if len(seeds) == 1:
        seeds = seeds * len(texts)
    if len(texts) == 1:
        texts = texts * len(seeds)
    if len(texts) != len(seeds):
        raise InputError(
            f"{len(texts)} prompts but {len(seeds)} seeds; give one seed for all prompts, or one seed a prompt"
        )
    return list(zip(texts, seeds, strict=True))


def read_count_or_file(prompts: str) -> int | list[str]:
    """A number of prompts, or the lines of a file.

    Raises: InputError for 0, or a file that cannot be read or is empty.
    """
    if re.fullmatch(r"-?[0-9]+", prompts):
        if len(prompts) > 9 or not 1 <= int(prompts) <= MOST_SAMPLES:
            raise InputError(f"--prompts {prompts[:12]}: at least one prompt is needed, and at most {MOST_SAMPLES}")
        return int(prompts)
    if not is_there(prompts):
        from outpace.evaluation.prompt_sets import PROMPT_SETS

        if prompts.lower() in PROMPT_SETS:
            raise InputError(f"--prompts {prompts}: {PROMPT_SETS[prompts.lower()].how_to_get()}")
    return read_texts((), prompts)


def requests_for(loaded: Loaded, wanted: int | list[str], seed: int) -> list[Request]:
    """One request a prompt, seeds counted upward from `seed`; a pocket's own prompts are ones it never saw in training.

    Raises: InputError where prompts are counted but the pipeline brings none.
    """
    from outpace.evaluation import Request
    from outpace.pipelines.load import read_prompts

    if isinstance(wanted, int) and loaded.pocket is None:
        raise InputError(
            f"'{loaded.source.name}' brings no prompts of its own; name a file with one a line: --prompts FILE"
        )
    check_seed(seed, wanted if isinstance(wanted, int) else len(wanted))
    texts = loaded.pocket.prompts(wanted, "held_out") if isinstance(wanted, int) else read_prompts(loaded, wanted)
    return [Request(index=i, prompt=text, seed=seed + i) for i, text in enumerate(texts)]


def prompts_of(loaded: Loaded, wanted: int | list[str], split: str = "calibration") -> list[Any]:
    """As many prompts of a pocket's split, or those of a file. Raises: InputError."""
    from outpace.pipelines.load import read_prompts

    if not isinstance(wanted, int):
        return read_prompts(loaded, wanted)
    if loaded.pocket is None:
        raise InputError(
            f"'{loaded.source.name}' brings no prompts of its own; name a file with one a line (--prompts FILE), "
            "or go by none (--order weights --start random)"
        )
    return loaded.pocket.prompts(wanted, split)
