"""What `outpace serve` claims, on servers that run as a user starts them: company changes nothing, nobody is lost."""

from __future__ import annotations

import importlib.util
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import openai
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="Ray Serve and its processes are looked for on Linux"),
]

ROOT = Path(__file__).resolve().parents[2]
GENERATIONS = "/v1/images/generations"
STEPS = 16
HUNG = 2
"""Clients that ask for much and leave, before all others."""


@pytest.fixture(scope="module")
def load() -> ModuleType:
    """benchmarks/serve.py: servers, strangers and the comparison of what they get."""
    spec = importlib.util.spec_from_file_location("serve_benchmark", ROOT / "benchmarks" / "serve.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def ask(url: str, **asked: Any) -> httpx.Response:
    wanted = {"prompt": "a red circle on black", "steps": 4, **asked}
    return httpx.post(f"{url}{GENERATIONS}", json=wanted, timeout=120)


def hang_up(url: str, *, after: float, **asked: Any) -> None:
    """Ask, and be gone after so many seconds."""
    body = json.dumps(asked).encode()
    head = f"POST {GENERATIONS} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
        connection.sendall(head.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body)
        time.sleep(after)


@pytest.fixture(scope="module")
def found(load: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """200 strangers asked three ways, and once more with a replica killed."""
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    options = ("--replicas", "2", "--max-batch", "8", "--queue", "200", "--timeout", "1800", "--max-steps", "1000")
    with load.running("dit", *options, log=log) as (url, server):
        for _ in range(HUNG):
            hang_up(url, after=1.0, prompt="3", steps=900, n=8)
        # If what they asked for went on, this would wait for thousands of times its own work.
        after = [ask(url, prompt="3", seed=seed).status_code for seed in range(2)]
        told = load.compare(url, server, load.wanted_of("dit", 200, STEPS))
        told["after"] = after
        told["metrics"] = httpx.get(f"{url}/metrics").text
        told["health"] = httpx.get(f"{url}/health", timeout=60).json()
        family = [server, *server.children(recursive=True)]
        told["log"] = log.read_text(encoding="utf-8")
    told["left"] = [process.pid for process in family if process.is_running() and process.status() != "zombie"]
    yield told


def test_every_picture_equals_the_one_made_alone(found: dict[str, Any]) -> None:
    assert found["alone"], "made alone they were alone"
    assert found["ways"]["mixed"]["batch"] > 3, "and in company they were not"
    assert found["difference"]["decisions"] == 0
    assert found["difference"]["pixels"] < 1e-4


def test_qualities_compute_what_they_say(found: dict[str, Any]) -> None:
    shares = found["qualities"]
    assert shares["exact"] == 1.0
    assert shares["exact"] > shares["high"] >= shares["medium"] > shares["low"]


def test_a_killed_replica_loses_nobody_and_changes_nothing(found: dict[str, Any]) -> None:
    killed = found["killed"]
    assert (killed["processes"], killed["answers"]) == (1, 200)
    assert killed["decisions"] == 0 and killed["pixels"] < 1e-4
    assert "a replica died over an order, which is sent again" in found["log"]


def test_what_was_done_is_counted_once(found: dict[str, Any]) -> None:
    families = {family.name: family for family in text_string_to_metric_families(found["metrics"])}
    answers = [s for s in families["outpace_answers"].samples if s.name.endswith("_total")]
    asked = sum(s.value for s in answers if s.labels["status"] == "200")
    made = {s.labels["tier"]: s.value for s in families["outpace_pictures"].samples if s.name.endswith("_total")}
    everybody = found["killed"]["answers"] + sum(
        round["pictures"] for way in found["ways"].values() for round in way["rounds"]
    )
    assert asked == sum(made.values()) == 2 + 4 + everybody
    first = {"medium": 2}  # after the hang-ups
    exact = sum(round["pictures"] for round in found["ways"]["exact"]["rounds"])
    shares = {tier: 1 + (everybody - exact) // 4 + first.get(tier, 0) for tier in ("exact", "high", "medium", "low")}
    assert made == {**shares, "exact": shares["exact"] + exact}
    assert found["health"]["queue"] == 0 and found["health"]["wanted"] == 2


def test_who_hangs_up_on_replicas_does_not_hold_them(found: dict[str, Any]) -> None:
    assert found["after"] == [200, 200]
    families = {family.name: family for family in text_string_to_metric_families(found["metrics"])}
    left = [s.value for s in families["outpace_answers"].samples if s.labels.get("status") == "499"]
    assert left == [HUNG]


def test_nothing_is_left_running(found: dict[str, Any]) -> None:
    assert found["left"] == []


@pytest.fixture(scope="module")
def small(load: ModuleType) -> Iterator[tuple[str, psutil.Process]]:
    """A server of one process and a short queue."""
    with load.running("flux", "--replicas", "0", "--queue", "12", "--max-batch", "4") as pair:
        yield pair


class Watch:
    """The most memory that a process had while watched, in bytes beyond what it had before."""

    def __init__(self, process: psutil.Process) -> None:
        self.process, self.stop = process, threading.Event()
        self.before = self.most = process.memory_info().rss
        self.thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self.stop.wait(0.02):
            self.most = max(self.most, self.process.memory_info().rss)

    def __enter__(self) -> Watch:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()

    @property
    def grown(self) -> int:
        return self.most - self.before


def test_bad_weather(small: tuple[str, psutil.Process]) -> None:
    """Hang-ups, bodies of 100 MB, no JSON, too many pixels and a flood: answered as said, and memory stays."""
    url, process = small
    for _ in range(3):
        assert ask(url, n=4).status_code == 200
    with Watch(process) as watch:
        for _ in range(12):
            hang_up(url, after=0.05, prompt="a red circle on black", steps=50, n=4)
        json_head = {"content-type": "application/json"}
        with ThreadPoolExecutor(4) as people:
            large = [
                people.submit(httpx.post, url + GENERATIONS, content=b"x" * 100_000_000, headers=json_head, timeout=120)
                for _ in range(4)
            ]
            assert {one.result().status_code for one in large} == {413}
        del large
        assert httpx.post(url + GENERATIONS, content=b"{x", headers=json_head).status_code == 400
        assert ask(url, size="10000x10000").status_code == 400
        with ThreadPoolExecutor(200) as people:
            flood = list(people.map(lambda number: ask(url, seed=number), range(400)))
    answered = {one.status_code for one in flood}
    assert answered == {200, 429}
    assert all("retry-after" in one.headers for one in flood if one.status_code == 429)
    assert watch.grown < 64 * 2**20, f"memory grew by {watch.grown / 2**20:.0f} MiB"
    assert httpx.get(f"{url}/health").json()["queue"] == 0
    assert ask(url).status_code == 200


def test_pictures_are_changed(small: tuple[str, psutil.Process]) -> None:
    import base64
    import io

    import numpy as np
    from PIL import Image

    url, _ = small
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        wanted = {"seed": 3, "steps": 20}
        made = client.images.generate(prompt="a red circle left of a blue square on black", extra_body=wanted)
        source = base64.b64decode(made.data[0].b64_json or "")
        mask = Image.new("RGBA", (48, 48), (0, 0, 0, 255))
        mask.paste((0, 0, 0, 0), (24, 0, 48, 48))
        file = io.BytesIO()
        mask.save(file, "PNG")
        edited = client.images.edit(
            image=("a.png", source),
            mask=("m.png", file.getvalue()),
            prompt="a red circle left of a green square on black",
            n=2,
            extra_body={**wanted, "strength": 0.9},
        )
        with pytest.raises(openai.BadRequestError, match="no PNG, JPEG or WEBP"):
            client.images.edit(image=("a.png", b"x"), prompt="a red circle on black")
        with pytest.raises(openai.BadRequestError, match="no transparency"):
            client.images.edit(image=("a.png", source), mask=("m.png", source), prompt="a red circle on black")
    before, *after = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data.b64_json or ""))).convert("RGB"), dtype=float)
        for data in (*made.data, *edited.data)
    )
    for picture in after:
        kept, painted = np.abs(picture - before)[:, :20].mean(), np.abs(picture - before)[:, 28:].mean()
        assert painted > 3 * kept, "what the mask leaves opaque is kept"
