"""The HTTP side over a maker of colours: answers, errors, limits, counts."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from outpace.serve.app import FAILED, ServeSettings, create_app

GENERATIONS = "/v1/images/generations"
EDITS = "/v1/images/edits"


def png(*, mask: bool = False) -> bytes:
    file = io.BytesIO()
    image = Image.new("RGBA", (24, 16), (9, 9, 9, 255))
    if mask:
        image.paste((0, 0, 0, 0), (0, 0, 8, 8))
    image.save(file, "PNG")
    return file.getvalue()


def opened(data: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data["b64_json"])))


@pytest.fixture
def client(toy) -> TestClient:
    return TestClient(create_app(toy, ServeSettings(queue=8, seconds=1)), raise_server_exceptions=False)


def test_an_answer_carries_pictures_recipes_and_what_was_computed(client) -> None:
    answer = client.post(GENERATIONS, json={"prompt": "a line", "n": 2, "seed": 40, "quality": "hd", "steps": 3})
    told = answer.json()
    assert answer.status_code == 200
    assert (told["size"], told["quality"], told["output_format"]) == ("24x16", "high", "png")
    for place, data in enumerate(told["data"]):
        image = opened(data)
        assert (image.size, image.getpixel((0, 0))) == ((24, 16), (40 + place,) * 3)
        assert (
            json.loads(image.info["outpace"]) == data["outpace"]["recipe"] == {"prompt": "a line", "seed": 40 + place}
        )
        assert data["outpace"]["computed"]["share"] == 0.5 and len(data["outpace"]["computed"]["steps"]) == 3


@pytest.mark.parametrize(("format", "kind"), [("jpeg", "JPEG"), ("webp", "WEBP")])
def test_other_formats(client, format: str, kind: str) -> None:
    told = client.post(GENERATIONS, json={"prompt": "a line", "output_format": format, "seed": 40}).json()
    assert opened(told["data"][0]).format == kind


def test_npy_is_the_very_floats(client) -> None:
    told = client.post(GENERATIONS, json={"prompt": "a", "output_format": "npy", "seed": 40, "size": "32x8"}).json()
    picture = np.load(io.BytesIO(base64.b64decode(told["data"][0]["b64_json"])), allow_pickle=False)
    assert picture.shape == (8, 32, 3) and np.all(picture == np.float32(40 / 255))


def test_a_picture_is_kept_only_where_an_address_is_asked_for(client) -> None:
    kept = client.app.state.service.kept
    client.post(GENERATIONS, json={"prompt": "a line"})
    assert not kept.files
    url = client.post(GENERATIONS, json={"prompt": "a line", "response_format": "url"}).json()["data"][0]["url"]
    answer = client.get(url)
    assert answer.headers["content-type"] == "image/png" and answer.content.startswith(b"\x89PNG")
    assert client.get(url[:-6] + "x.png").status_code == 404
    kept.seconds = 0.0
    assert client.get(url).status_code == 404


def test_old_pictures_make_room_for_new_ones(client) -> None:
    kept = client.app.state.service.kept
    kept.room = 100
    first, second = kept.add(b"a" * 60, "png"), kept.add(b"b" * 60, "png")
    assert list(kept.files) == [second] and first != second and kept.held == 60
    kept.seconds = -1.0
    kept.add(b"c", "png")
    assert not kept.files and kept.held == 0


def test_edits_take_a_form(client, toy) -> None:
    files = {"image": ("a.png", png()), "mask": ("m.png", png(mask=True))}
    answer = client.post(EDITS, data={"prompt": "a line", "n": "2", "seed": "7", "strength": "0.5"}, files=files)
    assert answer.status_code == 200 and len(answer.json()["data"]) == 2
    assert [(o.seed, o.strength, o.source, o.mask) for o in toy.orders] == [
        (7 + place, 0.5, png(), png(mask=True)) for place in range(2)
    ]


@pytest.mark.parametrize(
    ("files", "data", "words"),
    [
        ({}, {"prompt": "a line"}, "image: send the picture to change"),
        ({"image": png(), "other": png()}, {"prompt": "a"}, "other: send one file image"),
        ({"image": png()}, {}, "prompt: Field required"),
        ({"image": png()}, {"prompt": "a", "n": "many"}, "n: "),
    ],
)
def test_edits_that_are_refused(client, files: dict, data: dict, words: str) -> None:
    sent = {name: (f"{name}.png", file) for name, file in files.items()} or {"none": ("", b"")}
    if not files:
        answer = client.post(EDITS, data=data, files={"mask": ("m.png", png())})
    else:
        answer = client.post(EDITS, data=data, files=sent)
    assert answer.status_code == 400 and words in answer.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"--x\r\nbroken", b"\x00" * 100])
@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=x", "multipart/form-data", "text/plain", ""])
def test_a_form_that_is_none_is_refused(client, body: bytes, kind: str) -> None:
    answer = client.post(EDITS, content=body, headers={"content-type": kind})
    assert answer.status_code == 400 and "\n" not in answer.json()["error"]["message"]


def test_steps_are_told_as_they_are_taken(client) -> None:
    asked = {"prompt": "a line", "stream": True, "steps": 3, "n": 2, "seed": 40}
    answer = client.post(GENERATIONS, json=asked)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(part.split("data: ")[1]) for part in answer.text.strip().split("\n\n")]
    for place in range(2):
        own = [event for event in events if event["index"] == place]
        assert [event["type"] for event in own] == ["image_generation.progress"] * 3 + ["image_generation.completed"]
        assert [event.get("step") for event in own] == [1, 2, 3, None]
        assert opened(own[-1]).getpixel((0, 0)) == (40 + place,) * 3


def test_streams_have_a_time_limit_and_give_their_places_back(client) -> None:
    room = client.app.state.service.room
    answer = client.post(GENERATIONS, json={"prompt": "wait", "stream": True, "n": 2})
    assert answer.text.startswith("event: error\n") and "not done within 1 s" in answer.text
    assert room.held == 0


def test_a_client_that_is_gone_before_the_first_event_holds_nothing(toy) -> None:
    """Its generator never begins, so nothing in it can let go."""
    app = create_app(toy, ServeSettings(queue=8))
    body = json.dumps({"prompt": "a line", "stream": True, "n": 3}).encode()
    scope = {
        "type": "http", "method": "POST", "path": GENERATIONS, "query_string": b"", "scheme": "http",
        "headers": [(b"content-type", b"application/json")], "server": ("x", 80), "http_version": "1.1",
    }  # fmt: skip
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> dict[str, Any]:
        return next(messages, {"type": "http.disconnect"})

    async def send(message: dict[str, Any]) -> None:
        raise OSError("gone")

    async def ask() -> None:
        with contextlib.suppress(Exception):
            await app(scope, receive, send)

    asyncio.run(ask())
    assert app.state.service.room.held == 0


def test_an_error_under_way_is_an_event(client) -> None:
    answer = client.post(GENERATIONS, json={"prompt": "refuse", "stream": True})
    assert answer.text.startswith("event: error\n") and "no such word" in answer.text


@pytest.mark.parametrize(
    ("asked", "status", "message"),
    [
        ({"prompt": "refuse this"}, 400, "no such word"),
        ({"prompt": "fail this"}, 500, FAILED),
        ({"prompt": "burst"}, 500, FAILED),
        ({"prompt": "wait"}, 504, "not done within 1 s; ask for fewer pictures or steps"),
        ({"prompt": "a", "n": 9}, 400, "n: at most 8 pictures a request here"),
    ],
)
def test_errors_say_what_happened_and_nothing_of_the_inside(
    client, toy, asked: dict, status: int, message: str
) -> None:
    answer = client.post(GENERATIONS, json=asked)
    assert (answer.status_code, answer.json()["error"]["message"]) == (status, message)
    assert "secret" not in answer.text
    assert client.app.state.service.room.held == 0


def test_other_ways_to_ask_wrongly(client) -> None:
    assert client.post(GENERATIONS, content=b"{x", headers={"content-type": "application/json"}).status_code == 400
    assert client.post(GENERATIONS, content=b'{"prompt": "a"}').status_code == 415  # as a foreign page would send it
    for method, path, status in (("GET", GENERATIONS, 405), ("GET", "/nothing", 404)):
        answer = client.request(method, path)
        assert answer.status_code == status and answer.json()["error"]["type"] == "invalid_request_error"


def test_a_key_is_asked_for_where_there_is_one(toy) -> None:
    client = TestClient(create_app(toy, ServeSettings(api_key="cheese")))
    for headers in (
        {},
        {"authorization": "Bearer x"},
        {"authorization": b"Bearer k\xe4se"},
        {"authorization": "cheese"},
    ):
        answer = client.post(GENERATIONS, json={"prompt": "a"}, headers=headers)
        assert answer.status_code == 401 and "cheese" not in answer.text
        assert client.get("/v1/models", headers=headers).status_code == 401
    assert not toy.orders
    headers = {"authorization": "Bearer cheese"}
    assert client.post(GENERATIONS, json={"prompt": "a"}, headers=headers).status_code == 200
    assert client.get("/health").status_code == 200
    assert '"keyed": true' in client.get("/").text and "cheese" not in client.get("/").text


def test_health_and_models(client, toy) -> None:
    assert client.get("/health").json() == {"status": "ok", "ready": 1, "wanted": 1, "queue": 0}
    toy.ready = 0
    assert client.get("/health").status_code == 503
    assert client.get("/v1/models").json()["data"][0]["id"] == "toy"


def test_metrics_are_what_prometheus_reads(client) -> None:
    for quality, prompt in (("exact", "a"), ("low", "a"), ("low", "refuse")):
        client.post(GENERATIONS, json={"prompt": prompt, "quality": quality, "n": 2})
    families = {f.name: f for f in text_string_to_metric_families(client.get("/metrics").text)}
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert samples["outpace_queue_pictures",] == 0 and samples["outpace_engines_ready",] == 1
    assert samples[("outpace_answers_total", *sorted((GENERATIONS, "200")))] == 2
    assert samples[("outpace_answers_total", *sorted((GENERATIONS, "400")))] == 1
    assert samples["outpace_pictures_total", "low"] == 2
    assert samples["outpace_blocks_computed_share_total", "low"] == 1.0
    assert samples["outpace_batch_pictures_count",] == 4
    assert samples["outpace_latency_seconds_count", "exact"] == 1


def test_a_flood_beyond_the_queue_is_told_when_to_come_again(toy, serve) -> None:
    with serve(toy, ServeSettings(queue=4, seconds=30)) as url, httpx.Client(base_url=url, timeout=20) as http:

        def ask(prompt: str) -> httpx.Response:
            return http.post(GENERATIONS, json={"prompt": prompt})

        with ThreadPoolExecutor(24) as people:
            holders = [people.submit(held, url) for _ in range(4)]
            wait_until(lambda: http.get("/health").json()["queue"] == 4)
            answers = list(people.map(ask, ["a line"] * 20))
            for holder in holders:
                holder.result().close()
            wait_until(lambda: http.get("/health").json()["queue"] == 0)
        assert {answer.status_code for answer in answers} == {429}
        assert all(1 <= int(answer.headers["retry-after"]) <= 120 for answer in answers)
        assert "ask again in" in answers[0].json()["error"]["message"]
        assert toy.gone == 4, "who hangs up is not made for any longer"
        assert ask("a line").status_code == 200


def held(url: str) -> socket.socket:
    """A connection that has asked for what takes a minute."""
    body = b'{"prompt": "wait"}'
    head = f"POST {GENERATIONS} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    connection = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=10)
    connection.sendall(head.encode() + b"\r\n\r\n" + body)
    return connection


def wait_until(true: Any) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, "it did not come to that within ten seconds"
        time.sleep(0.05)


def test_long_bodies_are_answered_and_not_kept(toy, serve) -> None:
    with serve(toy, ServeSettings(json_bytes=1000, form_bytes=2000)) as url, httpx.Client(base_url=url) as http:
        json_head = {"content-type": "application/json"}
        for path, headers in ((GENERATIONS, json_head), (EDITS, {"content-type": "multipart/form-data; boundary=x"})):
            for content in (b"x" * 3_000_000, (b"x" * 100_000 for _ in range(30))):  # with its length, and without
                answer = http.post(path, content=content, headers=headers)
                assert answer.status_code == 413 and "bytes" in answer.json()["error"]["message"]
        assert http.post(GENERATIONS, json={"prompt": "a"}).status_code == 200
    assert len(toy.orders) == 1


def test_a_body_that_never_comes_is_given_up(toy, serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outpace.serve.limits.BODY_SECONDS", 0.3)
    with serve(toy) as url:
        connection = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=10)
        connection.sendall(f"POST {GENERATIONS} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n".encode())
        connection.sendall(b"content-length: 100\r\n\r\n{")
        assert b"408" in connection.recv(1000)
        connection.close()


def test_a_long_body_that_never_ends_is_known_to_be_too_long(toy, serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outpace.serve.limits.BODY_SECONDS", 0.3)
    with serve(toy, ServeSettings(json_bytes=10)) as url:
        connection = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=10)
        connection.sendall(f"POST {GENERATIONS} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n".encode())
        connection.sendall(b"transfer-encoding: chunked\r\n\r\n14\r\n" + b"x" * 20 + b"\r\n")
        assert b"413" in connection.recv(1000)
        connection.close()


def test_the_page_holds_what_its_pipeline_is_and_nothing_that_runs(client, toy) -> None:
    from dataclasses import replace

    toy.about = replace(toy.about, example="</script><script>alert(1)</script>")
    page = client.get("/")
    assert "alert(1)</script>" not in page.text and '"pipeline": "toy"' in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
