"""Serve a pipeline to many users: strangers share batches, and each has a quality of their own."""

import base64
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import uvicorn

from outpace.serve.app import create_app
from outpace.serve.engine import EngineSettings
from outpace.serve.local import LocalMaker

# At a shell: outpace serve dit --port 0
# Here the engine is in this process; outpace.serve.replicas.RayMaker takes its place for replicas on a Ray cluster.
maker = LocalMaker(EngineSettings(pipeline="dit"))
server = uvicorn.Server(uvicorn.Config(create_app(maker), host="127.0.0.1", port=0, log_level="warning"))
thread = threading.Thread(target=server.run)
thread.start()
while not server.started and thread.is_alive():
    time.sleep(0.05)
port = server.servers[0].sockets[0].getsockname()[1]

# From here on it is what a client does, anywhere, in any language that has OpenAI's client.
client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")


def ask(digit: str, quality: str, seed: int) -> dict[str, Any]:
    extra = {"quality": quality, "seed": seed, "steps": 20}
    made: Any = client.images.generate(prompt=digit, extra_body=extra).to_dict()
    return made["data"][0]


# Four strangers at once: each says how much fidelity is wanted.
wanted = [("3", "exact", 1), ("3", "low", 1), ("7", "high", 2), ("5", "medium", 3)]
with ThreadPoolExecutor(len(wanted)) as people:
    pictures = list(people.map(lambda one: ask(*one), wanted))
alone = ask(*wanted[1])
assert alone["outpace"]["computed"] == pictures[1]["outpace"]["computed"], "the company changes nothing"

folder = Path("out/examples")
folder.mkdir(parents=True, exist_ok=True)
for (digit, quality, _), picture in zip(wanted, pictures, strict=True):
    told = picture["outpace"]
    (folder / f"served-{digit}-{quality}.png").write_bytes(base64.b64decode(picture["b64_json"]))
    print(f"{digit} {quality}: {told['computed']['share']:.0%} of blocks computed, in a batch of {told['batch']}")

server.should_exit = True
thread.join(timeout=10)
maker.close()
