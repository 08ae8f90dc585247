"""Text encoders: one token a word, the same numbers in every process, and attributes that can be read off them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from outpace.pipelines.pocket import flux, text
from outpace.pipelines.pocket.scenes import LABEL_SIZES, scene_captions
from outpace.pipelines.pocket.training import FitSettings

WORDS = text.caption_words(scene_captions(500, "train"))
CAPTION = "a red circle left of a blue square on grey"


def test_both_tokenizers_have_one_token_a_word():
    clip = text.build_clip_tokenizer(WORDS, flux.LENGTH)
    t5 = text.build_t5_tokenizer(WORDS, flux.LENGTH)
    count = len(CAPTION.split())
    assert len(clip(CAPTION).input_ids) == count + 2
    assert len(t5(CAPTION).input_ids) == count + 1
    assert t5("").input_ids == [1]


def test_every_word_is_merged_from_its_letters():
    merges = text.byte_pair_merges(["on", "of", "above", "below"])
    made = {first + second for first, second in merges}
    assert {"on</w>", "of</w>", "above</w>", "below</w>"} <= made
    assert merges == text.byte_pair_merges(["on", "of", "above", "below"])


def test_the_shipped_tokenizer_is_the_one_that_training_builds():
    from outpace.pipelines.pocket.store import pocket_path

    built = text.build_clip_tokenizer(text.caption_words(scene_captions(2000, "train")), flux.LENGTH)
    shipped = type(built).from_pretrained(pocket_path("flux") / "tokenizer")
    for caption in scene_captions(50, "held_out"):
        assert shipped(caption).input_ids == built(caption).input_ids


@pytest.mark.parametrize("readout", ["pooled", "tokens"])
def test_a_few_steps_teach_an_encoder_what_captions_say(tmp_path: Path, readout: str):
    length, width = flux.LENGTH, 32
    if readout == "pooled":
        tokenizer = text.build_clip_tokenizer(WORDS, length)
        encoder = text.build_clip_encoder(tokenizer, width=width, length=length)
    else:
        tokenizer = text.build_t5_tokenizer(WORDS, length)
        encoder = text.build_t5_encoder(tokenizer, width=width)

    def draw(count: int, generator: torch.Generator) -> tuple[list[str], torch.Tensor]:
        scenes = flux.draw_scenes(count, generator)
        return [scene.caption for scene in scenes], torch.tensor([scene.labels() for scene in scenes])

    def train(steps: int) -> float:
        result, right = text.train_text_encoder(
            "text",
            encoder,
            tokenizer,
            draw,
            LABEL_SIZES,
            FitSettings(steps=steps, batch=32, rate=4e-3, warmup=5, autocast=False, average=0.9),
            tmp_path / str(steps),
            length=length,
            readout=readout,  # type: ignore[arg-type]
            width=width,
            progress=False,
        )
        assert 0.0 <= right <= 1.0
        return result.loss

    first = train(3)
    encoder.requires_grad_(True)
    assert train(60) < 0.9 * first
    assert not any(weight.requires_grad for weight in encoder.parameters())
