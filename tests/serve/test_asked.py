"""What may be asked for, and the one line that says why something may not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from outpace.errors import ConfigError, UnknownNameError
from outpace.serve.asked import Turned, orders_of, read_asked, read_json
from outpace.serve.orders import About, Order
from outpace.serve.tiers import ALIASES, TIERS, read_profiles, tier_named


@pytest.fixture
def orders(toy):
    """`orders(**fields)`: what a request with these fields orders."""

    def ordered(about: About | None = None, files: dict[str, bytes] | None = None, **fields: Any) -> list[Order]:
        asked = read_asked({"prompt": "a line", **fields})
        return orders_of(asked, about or toy.about, usual="medium", max_pixels=4096, max_steps=40, files=files)

    return ordered


def test_what_is_left_out_is_the_servers(orders) -> None:
    (order,) = orders()
    assert (order.tier, order.steps, order.height, order.guidance, order.source) == ("medium", 10, None, None, None)
    assert orders(seed=None, size=None, quality=None, user=None)[0].tier == "medium"


def test_each_of_several_pictures_has_a_seed_of_its_own(orders) -> None:
    assert [order.seed for order in orders(n=3, seed=7)] == [7, 8, 9]
    drawn = {order.seed for _ in range(8) for order in orders(n=2)}
    assert len(drawn) > 8
    assert [order.seed for order in orders(n=2, seed=2**63 - 1)] == [2**63 - 1, 0]


def test_a_number_is_a_dial_too_and_shares_batches(orders) -> None:
    (own,), (form,), (tier,) = orders(speedup=2.5, quality="auto"), orders(speedup="2.5"), orders(quality="medium")
    assert (own.speedup, own.tier) == (form.speedup, form.tier) == (2.5, "speedup") and tier.speedup is None
    assert own.shape() == tier.shape() and own.dial() == form.dial() != tier.dial()
    assert own.dial() != orders(speedup=3)[0].dial()


def test_the_pipelines_own_size_needs_no_words_and_others_share_a_shape_of_their_own(orders) -> None:
    (own,), (also,), (other,) = orders(), orders(size="24x16"), orders(size="32x16")
    assert own.shape() == also.shape() != other.shape()
    assert (other.height, other.width) == (16, 32)


def test_dials_seeds_and_prompts_do_not_part_strangers_and_steps_do(orders) -> None:
    (one,), (two,) = orders(seed=1, quality="exact"), orders(seed=2, quality="low", prompt="another")
    assert one.shape() == two.shape()
    for other in (dict(steps=11), dict(guidance=2.0), dict(files={"image": b"x"})):
        assert orders(**other)[0].shape() != one.shape()
    assert orders(files={"image": b"x"}, strength=0.5)[0].shape() != orders(files={"image": b"x"})[0].shape()


@pytest.mark.parametrize(("word", "tier"), [*((tier, tier) for tier in TIERS), *ALIASES.items(), ("auto", "high")])
def test_words_for_quality(word: str, tier: str) -> None:
    assert tier_named(word, "high") == tier


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"prompt": ""}, 400, "prompt: "),
        ({"prompt": None}, 400, "prompt: Field required"),
        ({"prompt": "x" * 32_001}, 400, "prompt: "),
        ({"prompt": "\ud800"}, 400, "prompt: "),
        ({"prompt": ["a"]}, 400, "prompt: "),
        ({"n": 0}, 400, "n: "),
        ({"n": 11}, 400, "n: "),
        ({"n": 1.5}, 400, "n: "),
        ({"size": "10000x10000"}, 400, "size: 10000x10000 are 100000000 pixels; at most 4096 here"),
        ({"size": "17x16"}, 400, "size: width and height must be multiples of 8"),
        ({"size": "0x16"}, 400, "size: WIDTHxHEIGHT"),
        ({"size": "large"}, 400, "size: WIDTHxHEIGHT"),
        ({"quality": "hgih"}, 400, "did you mean 'high'?"),
        ({"model": "dall-e-3"}, 404, "no model 'dall-e-3' here; this server has 'toy'"),
        ({"response_format": "file"}, 400, "response_format: "),
        ({"output_format": "bmp"}, 400, "no output_format 'bmp'"),
        ({"steps": 0}, 400, "steps: "),
        ({"steps": 41}, 400, "steps: at most 40 here, not 41"),
        ({"speedup": 0.5}, 400, "speedup: "),
        ({"speedup": float("nan")}, 400, "speedup: "),
        ({"speedup": float("inf")}, 400, "speedup: "),
        ({"speedup": "twice"}, 400, "speedup: "),
        *(
            ({field: True}, 400, f"{field}: a number is wanted")
            for field in ("n", "speedup", "seed", "steps", "guidance", "strength")
        ),
        ({"speedup": 2, "quality": "low"}, 400, "it and quality both say how much is computed; keep one"),
        ({"guidance": float("nan")}, 400, "guidance: "),
        ({"guidance": -1}, 400, "guidance: "),
        ({"seed": -1}, 400, "seed: "),
        ({"seed": 2**63}, 400, "seed: "),
        ({"sede": 3}, 400, "no field 'sede'; did you mean 'seed'?"),
        ({"background": "transparent"}, 400, "background: "),
        ({"partial_images": 2}, 400, "partial_images: "),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else None,
)
def test_what_is_refused(orders, fields: dict, status: int, words: str) -> None:
    with pytest.raises(Turned) as refused:
        orders(**fields)
    assert refused.value.status == status
    assert words in str(refused.value) and "\n" not in str(refused.value)
    assert refused.value.body()["error"]["param"] == next(iter(fields))


def test_what_a_pipeline_does_not_take_is_refused(orders, toy) -> None:
    plain = replace(toy.about, sized=False, guided=False, edits=False, masks=False, tiers={"exact": "plain"})
    allowed = {"quality": "exact"}
    assert orders(plain, size="24x16", **allowed)[0].height is None
    for fields, words in (
        (dict(size="32x32", **allowed), "makes 24x16 and nothing else"),
        (dict(guidance=3, **allowed), "takes no guidance"),
        (dict(quality="low"), "no quality but exact"),
        (dict(speedup=2), "nothing of this pipeline can be left out"),
        (dict(files={"image": b""}, **allowed), "changes no pictures"),
    ):
        with pytest.raises(Turned, match=words):
            orders(plain, **fields)
    with pytest.raises(Turned, match="takes no mask"):
        orders(replace(toy.about, masks=False), files={"image": b"", "mask": b""})


@pytest.mark.parametrize("body", [b"", b"{x", b"[1]", b"\xff\xfe", b"[" * 100_000, b"1" * 5000], ids=repr)
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(Turned, match="the body is not"):
        read_json(body)


def test_profiles_stand_for_a_tier() -> None:
    assert read_profiles(("a.json", "hd=b.json")) == (("medium", "a.json"), ("high", "b.json"))
    for texts, error in ((("exact=a",), ConfigError), (("a", "standard=b"), ConfigError), (("x=a",), UnknownNameError)):
        with pytest.raises(error):
            read_profiles(texts)
