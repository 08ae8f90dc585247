"""`--accept` on the command line: a file of bands that results must keep."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from outpace.errors import ConfigError, InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

if TYPE_CHECKING:
    from outpace.evaluation.acceptance import Bands


def read_bands_file(path: str) -> Bands:
    """The bands in the TOML file `path`. Raises: InputError where it cannot be read; ConfigError for what it says."""
    from outpace.evaluation.acceptance import read_bands

    try:
        held = tomllib.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the bands '{path}': {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the bands '{path}' are no TOML: {error}") from error
    return read_bands(held)
