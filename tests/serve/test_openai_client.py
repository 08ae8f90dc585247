"""OpenAI's own client against a running server: what it sends is understood, and what it is told it reads."""

from __future__ import annotations

import base64
import io

import httpx
import openai
import pytest
from PIL import Image

from outpace.serve.app import ServeSettings


@pytest.fixture
def client(toy, serve):
    with serve(toy, ServeSettings(queue=4, api_key="cheese", seconds=1)) as url:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="cheese", max_retries=0, timeout=20) as client:
            yield client


def opened(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGBA", (24, 16)).save(file, "PNG")
    return file.getvalue()


def test_generations(client) -> None:
    made = client.images.generate(
        model="toy", prompt="a line", n=3, size="32x16", quality="high", user="me", extra_body={"seed": 5, "steps": 4}
    )
    assert (made.size, made.quality, made.output_format, len(made.data)) == ("32x16", "high", "png", 3)
    assert [opened(data.b64_json).getpixel((0, 0))[0] for data in made.data] == [5, 6, 7]
    assert [data.outpace["seed"] for data in made.data] == [5, 6, 7]
    assert len(made.data[0].outpace["computed"]["steps"]) == 4


def test_addresses(client) -> None:
    made = client.images.generate(prompt="a line", response_format="url", quality="standard")
    assert made.data[0].b64_json is None
    assert made.data[0].url.startswith(str(client.base_url))
    assert httpx.get(made.data[0].url).content.startswith(b"\x89PNG")


def test_edits(client, toy) -> None:
    sent = {"image": ("a.png", png()), "mask": ("m.png", png())}
    made = client.images.edit(**sent, prompt="a line", n=2, quality="low", extra_body={"seed": 5, "strength": 0.5})
    assert len(made.data) == 2 and made.quality == "low"
    assert [(order.strength, order.source == png()) for order in toy.orders] == [(0.5, True)] * 2
    made = client.images.edit(image=[("a.png", png())], prompt="a line")
    assert len(made.data) == 1


def test_streams(client) -> None:
    events = list(client.images.generate(prompt="a line", stream=True, extra_body={"seed": 5, "steps": 2}))
    assert [event.type for event in events] == ["image_generation.progress"] * 2 + ["image_generation.completed"]
    assert opened(events[-1].b64_json).getpixel((0, 0))[0] == 5
    events = list(client.images.edit(image=("a.png", png()), prompt="a line", stream=True, extra_body={"steps": 2}))
    assert events[-1].type == "image_edit.completed"


def test_models(client) -> None:
    assert [model.id for model in client.models.list()] == ["toy"]


@pytest.mark.parametrize(
    ("asked", "kind", "words"),
    [
        ({"prompt": "refuse"}, openai.BadRequestError, "no such word"),
        ({"prompt": "a", "size": "10000x10000"}, openai.BadRequestError, "100000000 pixels"),
        ({"prompt": "a", "quality": "hgih"}, openai.BadRequestError, "did you mean 'high'"),
        ({"prompt": "a", "model": "dall-e-3"}, openai.NotFoundError, "this server has 'toy'"),
        ({"prompt": "fail"}, openai.InternalServerError, "its log says why"),
        ({"prompt": "wait"}, openai.InternalServerError, "not done within 1 s"),
    ],
)
def test_errors(client, asked: dict, kind: type[openai.APIStatusError], words: str) -> None:
    with pytest.raises(kind, match=words):
        client.images.generate(**asked)


def test_a_wrong_key(client) -> None:
    with pytest.raises(openai.AuthenticationError, match="API key"):
        client.with_options(api_key="x").images.generate(prompt="a")


def test_an_error_within_a_stream(client) -> None:
    with pytest.raises(openai.APIError, match="no such word"):
        list(client.images.generate(prompt="refuse", stream=True))
