"""Which pipelines have one beside them that changes pictures, of the same parts."""

from __future__ import annotations

import pytest

from outpace.pipelines.editing import EDITORS, editor_of
from outpace.pipelines.load import load_pipeline


@pytest.mark.parametrize("given", EDITORS)
def test_an_editor_has_the_very_parts(given: str) -> None:
    pipe = load_pipeline("flux", progress=False).pipe
    editor = editor_of(pipe, given)
    assert type(editor).__name__ == "Flux" + EDITORS[given]
    for name in ("transformer", "scheduler", "vae", "text_encoder", "text_encoder_2"):
        assert getattr(editor, name) is getattr(pipe, name)


@pytest.mark.parametrize("name", ["dit", "lego"])
def test_others_have_none(name: str) -> None:
    pipe = load_pipeline(name, progress=False).pipe
    assert [editor_of(pipe, given) for given in EDITORS] == [None, None]
