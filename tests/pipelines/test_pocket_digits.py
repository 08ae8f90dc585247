"""Digits: what is drawn stays readable, and the shipped reader reads strokes that it was not trained on."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from outpace.errors import MissingDependencyError
from outpace.pipelines.pocket import digits


def pictures_of(strokes: torch.Tensor, seed: int = 0) -> list[np.ndarray]:
    return list(digits.render_digits(strokes, torch.Generator().manual_seed(seed)).permute(0, 2, 3, 1).numpy())


def test_drawn_digits_are_pictures_with_their_classes():
    pytest.importorskip("sklearn")
    pictures, classes = digits.draw_digits(64, torch.Generator().manual_seed(0))
    assert pictures.shape == (64, 3, 32, 32)
    assert 0 <= pictures.min() and pictures.max() <= 1
    assert set(classes.tolist()) <= set(range(10))
    again, _ = digits.draw_digits(64, torch.Generator().manual_seed(0))
    assert torch.equal(pictures, again)


def test_the_reader_reads_strokes_it_has_not_seen():
    pytest.importorskip("sklearn")
    strokes, classes = digits.digit_strokes()
    unseen = slice(digits.TRAIN_COUNT, None)
    hits = digits.check_digits(pictures_of(strokes[unseen]), classes[unseen].tolist())
    assert np.mean([hit["digit"] for hit in hits]) > 0.93


def test_the_reader_does_not_read_what_was_not_drawn():
    pytest.importorskip("sklearn")
    strokes, classes = digits.digit_strokes()
    wrong = ((classes[:200] + 1) % 10).tolist()
    assert np.mean([hit["digit"] for hit in digits.check_digits(pictures_of(strokes[:200]), wrong)]) < 0.05


def test_the_ink_does_not_change_what_is_read():
    pytest.importorskip("sklearn")
    strokes, _ = digits.digit_strokes()
    pictures = pictures_of(strokes[:100])
    turned = [picture[:, :, [2, 0, 1]] for picture in pictures]
    assert np.mean(np.array(digits.read_digits(pictures)) == np.array(digits.read_digits(turned))) == 1.0


def test_without_scikit_learn_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    digits.digit_strokes.cache_clear()
    with pytest.raises(MissingDependencyError, match=r"outpace\[train\]"):
        digits.digit_strokes()


def test_features_of_the_reader_tell_classes_apart() -> None:
    from outpace.evaluation.metrics.kernel_distance import kernel_distance
    from outpace.pipelines.pocket.digits import digit_features, draw_digits

    pictures, classes = draw_digits(400, torch.Generator().manual_seed(0))
    found = digit_features([picture.permute(1, 2, 0).numpy() for picture in pictures])
    assert found.shape == (400, 48)
    zeros, ones = found[(classes == 0).numpy()][:10], found[(classes == 1).numpy()][:20]
    assert len(zeros) == 10 and len(ones) == 20
    assert kernel_distance(zeros, ones[:10]) > 3 * abs(kernel_distance(ones[10:], ones[:10]))
