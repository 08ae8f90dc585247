"""Loading without the chatter of the libraries below: what matters of it is in our own errors."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_loading(progress: bool = False) -> Iterator[None]:
    """Silence advice to the authors of programs that diffusers and transformers give while loading.

    Args:
        progress: keep their bars, for weights that take minutes.
    """
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    loggings = (diffusers_logging, transformers_logging)
    verbosities = [logging.get_verbosity() for logging in loggings]
    bars = [logging.is_progress_bar_enabled() for logging in loggings]
    for logging in loggings:
        logging.set_verbosity_error()
        if not progress:
            logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # The argument's name depends on the version of diffusers; the old one works in all that we support.
            warnings.filterwarnings("ignore", message=".*torch_dtype.*", category=FutureWarning)
            yield
    finally:
        for logging, verbosity, bar in zip(loggings, verbosities, bars, strict=True):
            logging.set_verbosity(verbosity)
            if bar:
                logging.enable_progress_bar()
