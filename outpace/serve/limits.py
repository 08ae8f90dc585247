"""What keeps a server standing whoever calls: room for so many pictures, bodies of so many bytes, answers in time."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import contextmanager
from secrets import token_urlsafe
from typing import Any, TypeVar

from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from outpace.serve.asked import Turned

T = TypeVar("T")

BODY_SECONDS = 30.0
"""How long a body may take to arrive."""

DRAINED_BYTES = 256 * 2**20
"""How much of a body that is too long is still taken off the wire, unkept: who is cut off never reads why."""

GONE_SECONDS = 0.25
"""How often it is asked whether a client is still there."""


class Room:
    """Pictures that were accepted and are not answered yet.

    Args:
        places: how many there may be.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self.held = self.callers = 0
        self.seconds = 1.0
        """What an answer took of late."""

    @contextmanager
    def caller(self) -> Iterator[None]:
        """Somebody who has not said yet how much is wanted. Raises: Turned where there are too many of them."""
        if self.callers >= 2 * self.places or self.held >= self.places:
            raise self._full()
        self.callers += 1
        try:
            yield
        finally:
            self.callers -= 1

    @contextmanager
    def take(self, pictures: int) -> Iterator[None]:
        """Places for so many pictures. Raises: Turned where there are not so many."""
        if pictures > self.places:
            raise Turned(f"n: at most {self.places} pictures a request here", param="n")
        if self.held + pictures > self.places:
            raise self._full()
        self.held += pictures
        begin = time.monotonic()
        try:
            yield
        finally:
            self.held -= pictures
            self.seconds += 0.2 * (time.monotonic() - begin - self.seconds)

    def _full(self) -> Turned:
        # What an answer took of late, waiting and all, is about how long the queue ahead takes too.
        after = min(120, max(1, math.ceil(self.seconds)))
        return Turned(
            f"all {self.places} places of the queue are taken; ask again in {after} s",
            status=429,
            code="rate_limit_exceeded",
            after=after,
        )


async def read_body(request: Request, limit: int) -> bytes:
    """The body of a request, never more than `limit` bytes of it in memory. Raises: Turned where it is longer."""
    kept, size = bytearray(), 0

    async def read() -> None:
        nonlocal size
        async for chunk in request.stream():
            size += len(chunk)
            if size <= limit:
                kept.extend(chunk)
            else:
                kept.clear()
            if size > DRAINED_BYTES:
                return

    declared = request.headers.get("content-length", "")
    try:
        if not (declared.isdecimal() and int(declared[:20]) > DRAINED_BYTES):
            await asyncio.wait_for(read(), BODY_SECONDS)
    except asyncio.TimeoutError:
        if size <= limit:  # else it is known already what is wrong with it
            raise Turned("the body took too long to arrive", status=408) from None
    if size > limit or (declared.isdecimal() and int(declared[:20]) > limit):
        raise Turned(f"the body is longer than {limit} bytes", status=413, code="body_too_large")
    return bytes(kept)


async def read_form(request: Request, body: bytes) -> tuple[dict[str, Any], dict[str, list[bytes]]]:
    """Fields and files of a form that was read; files stay in memory. Raises: Turned where it is no form."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body
        yield b""

    parser = MultiPartParser(request.headers, stream(), max_files=4, max_fields=40)
    parser.spool_max_size = len(body) + 1  # nothing is written to a disk
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError, AssertionError):
        raise Turned(
            "the body is no form; send multipart/form-data with image and prompt", code="invalid_form"
        ) from None
    fields: dict[str, Any] = {}
    files: dict[str, list[bytes]] = {}
    for name, value in form.multi_items():
        name = name.removesuffix("[]")
        if isinstance(value, str):
            fields[name] = value
        else:
            files.setdefault(name, []).append(await value.read())
    await form.close()
    return fields, files


async def while_there(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """What `work` comes to, or None where the client left meanwhile; the work then ends."""
    task = asyncio.ensure_future(work)
    try:
        while True:
            await asyncio.wait({task}, timeout=GONE_SECONDS)
            if task.done():
                return task.result()
            if await request.is_disconnected():
                return None
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


class Kept:
    """Pictures that are fetched by an address of their own: in memory, for a while, the oldest first to go.

    Args:
        room: bytes that are kept at most.
        seconds: how long.
    """

    def __init__(self, room: int = 256 * 2**20, seconds: float = 3600.0) -> None:
        self.room, self.seconds = room, seconds
        self.files: OrderedDict[str, tuple[float, bytes, str]] = OrderedDict()
        self.held = 0

    def add(self, file: bytes, format: str) -> str:
        """Keep a file; its name, which nobody can guess."""
        name = f"{token_urlsafe(24)}.{format}"
        now = time.monotonic()
        self.files[name] = (now, file, format)
        self.held += len(file)
        while self.files and (self.held > self.room or now - next(iter(self.files.values()))[0] > self.seconds):
            self.held -= len(self.files.popitem(last=False)[1][1])
        return name

    def find(self, name: str) -> tuple[bytes, str]:
        """A file and its format. Raises: Turned where it is not kept, or no longer."""
        since, file, format = self.files.get(name, (-self.seconds, b"", ""))
        if time.monotonic() - since > self.seconds or not format:
            raise Turned("there is no such picture, or no longer", status=404, code="not_found")
        return file, format
