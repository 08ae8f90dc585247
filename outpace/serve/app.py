"""The HTTP side of `outpace serve`: OpenAI's image API over a `Maker`, with health, metrics and a page."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from outpace import __version__
from outpace.serve.asked import Asked, Turned, orders_of, read_asked, read_json
from outpace.serve.batches import failed
from outpace.serve.limits import Kept, Room, read_body, read_form, while_there
from outpace.serve.metrics import Metrics
from outpace.serve.orders import Event, Failed, Made, Maker, Order, Progress, Refused

log = logging.getLogger("outpace.serve")

PAGE = Path(__file__).with_name("page.html")
SAFE = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data:; connect-src 'self'",
    "x-content-type-options": "nosniff",
}
FAILED = "the server failed over this; its log says why"
LEFT = 499
"""Status that is counted for clients that left before they were answered."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeSettings:
    """What a server allows."""

    usual: str = "medium"
    """Tier where a request asks for none."""
    queue: int = 64
    """Pictures that may be accepted and not answered yet."""
    seconds: float = 600.0
    """How long an answer may take."""
    max_pixels: int | None = None
    """Of a picture. None: four times those of the pipeline's own size."""
    max_steps: int | None = None
    """Of a picture. None: four times the pipeline's own."""
    json_bytes: int = 2**20
    form_bytes: int = 32 * 2**20
    """Of a body at most: of a request for new pictures, and of one that sends a picture."""
    api_key: str | None = None
    """What clients have to send as their key. None: nothing."""


class Service:
    """Answers requests with what a maker makes, within limits."""

    def __init__(self, maker: Maker, settings: ServeSettings) -> None:
        self.maker, self.settings, about = maker, settings, maker.about
        self.usual = settings.usual if settings.usual in about.tiers else next(iter(about.tiers))
        self.max_pixels = settings.max_pixels or 4 * about.size[0] * about.size[1]
        self.max_steps = settings.max_steps or 4 * about.steps
        self.room = Room(settings.queue)
        self.metrics = Metrics(lambda: self.room.held, lambda: maker.health()["ready"])
        self.kept = Kept()

    def check_key(self, request: Request) -> None:
        """Raises: Turned where a key is wanted and another one, or none, was sent."""
        wanted = self.settings.api_key
        kind, _, sent = request.headers.get("authorization", "").partition(" ")
        if wanted and not (kind.lower() == "bearer" and hmac.compare_digest(sent.encode(), wanted.encode())):
            raise Turned("this server wants an API key; send Authorization: Bearer KEY", status=401, code="invalid_key")

    async def generations(self, request: Request) -> Response:
        """New pictures."""
        with self.room.caller():
            if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                raise Turned("send the body as application/json", status=415)
            asked = read_asked(read_json(await read_body(request, self.settings.json_bytes)))
        return await self.answer(request, asked, {}, "image_generation")

    async def edits(self, request: Request) -> Response:
        """Pictures changed."""
        with self.room.caller():
            fields, files = await read_form(request, await read_body(request, self.settings.form_bytes))
            asked = read_asked(fields)
        for name, found in files.items():
            if name not in ("image", "mask") or len(found) > 1:
                raise Turned(f"{name}: send one file image, and one file mask if you like", param=name)
        if "image" not in files:
            raise Turned("image: send the picture to change as a file", param="image")
        return await self.answer(request, asked, {name: found[0] for name, found in files.items()}, "image_edit")

    async def answer(self, request: Request, asked: Asked, files: dict[str, bytes], kind: str) -> Response:
        """Make what is asked for, and say so at the end or step by step."""
        begin = time.monotonic()
        limits = {"usual": self.usual, "max_pixels": self.max_pixels, "max_steps": self.max_steps}
        orders = orders_of(asked, self.maker.about, files=files, **limits)
        base = str(request.base_url)
        with ExitStack() as held:
            held.enter_context(self.room.take(len(orders)))
            if asked.stream:
                return Told(self.tell(orders, asked, kind, base, begin), held.pop_all())
            made = await while_there(request, self.make(orders))
        if made is None:
            return Response(status_code=LEFT)
        self.metrics.latency.labels(orders[0].tier).observe(time.monotonic() - begin)
        data = [self.item(one, order, asked, base) for one, order in zip(made, orders, strict=True)]
        return JSONResponse({"created": int(time.time()), **self.shared(asked, orders[0]), "data": data})

    async def make(self, orders: list[Order]) -> list[Made]:
        """All of the orders. Raises: Turned where one of them cannot be made; the others are then given up."""
        made: dict[int, Made] = {}
        async with aclosing(self.events(orders)) as events:
            async for place, event in events:
                if isinstance(event, Made):
                    made[place] = event
        return [made[place] for place in range(len(orders))]

    async def events(self, orders: list[Order]) -> AsyncGenerator[tuple[int, Progress | Made], None]:
        """What happens to each order, as it happens. Raises: Turned at the first that cannot be made in time."""
        queue: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        seconds, end = self.settings.seconds, time.monotonic() + self.settings.seconds

        async def follow(place: int, order: Order) -> None:
            try:
                async with aclosing(self.maker.events(order)) as events:
                    async for event in events:
                        queue.put_nowait((place, event))
            except Exception as error:
                queue.put_nowait((place, failed(error)))

        tasks = [asyncio.create_task(follow(place, order)) for place, order in enumerate(orders)]
        left = len(orders)
        try:
            while left:
                try:
                    place, event = await asyncio.wait_for(queue.get(), max(0.0, end - time.monotonic()))
                except asyncio.TimeoutError:
                    message = f"not done within {seconds:g} s; ask for fewer pictures or steps"
                    raise Turned(message, status=504) from None
                if isinstance(event, Refused):
                    raise Turned(event.message)
                if isinstance(event, Failed):
                    log.error("an order failed: %s", event.message)
                    raise Turned(FAILED, status=500)
                if isinstance(event, Made):
                    left -= 1
                    self.metrics.made(event, orders[place].tier)
                yield place, event
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def tell(
        self, orders: list[Order], asked: Asked, kind: str, base: str, begin: float
    ) -> AsyncGenerator[str, None]:
        """The same as server-sent events."""
        try:
            async with aclosing(self.events(orders)) as events:
                async for place, event in events:
                    told: dict[str, Any] = {"index": place}
                    if isinstance(event, Progress):
                        yield sent(f"{kind}.progress", {**told, "step": event.step, "steps": event.steps})
                        continue
                    told |= {"created_at": int(time.time()), **self.shared(asked, orders[place])}
                    yield sent(f"{kind}.completed", {**told, **self.item(event, orders[place], asked, base)})
            self.metrics.latency.labels(orders[0].tier).observe(time.monotonic() - begin)
        except Turned as error:
            yield sent("error", error.body())

    def shared(self, asked: Asked, order: Order) -> dict[str, Any]:
        """What an answer says of all its pictures."""
        height, width = (order.height, order.width) if order.height else self.maker.about.size
        return {
            "background": "opaque",
            "output_format": asked.output_format,
            "quality": order.tier,
            "size": f"{width}x{height}",
        }

    def item(self, made: Made, order: Order, asked: Asked, base: str) -> dict[str, Any]:
        """What an answer says of one picture."""
        if asked.response_format == "url":
            picture = {"url": f"{base}v1/images/files/{self.kept.add(made.picture, order.format)}"}
        else:
            picture = {"b64_json": base64.b64encode(made.picture).decode()}
        told = {"seed": order.seed, "computed": made.computed, "batch": made.batch, "seconds": round(made.seconds, 3)}
        return {**picture, "outpace": {**told, "recipe": made.recipe}}


class Told(StreamingResponse):
    """Server-sent events, and what is held for them until they are over, or the client is gone before the first.

    Args:
        events: the events.
        held: what to let go of.
    """

    def __init__(self, events: AsyncGenerator[str, None], held: ExitStack) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"cache-control": "no-store"})
        self.events, self.held = events, held

    async def __call__(self, *asgi: Any) -> None:
        with self.held:
            async with aclosing(self.events):
                await super().__call__(*asgi)


def sent(name: str, data: dict[str, Any]) -> str:
    """One server-sent event."""
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n"


def create_app(maker: Maker, settings: ServeSettings | None = None) -> FastAPI:
    """The application that answers for `maker`; any ASGI server runs it."""
    service = Service(maker, settings or ServeSettings())
    app = FastAPI(title="outpace", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.service = service
    keyed = [Depends(service.check_key)]
    routes = {"/v1/images/generations": service.generations, "/v1/images/edits": service.edits}

    def counted(route: str, work: Any) -> Any:
        async def endpoint(request: Request) -> Response:
            status = 500
            try:
                answer = await work(request)
                status = answer.status_code
                return answer
            except ClientDisconnect:
                status = LEFT
                return Response(status_code=LEFT)
            except Turned as error:
                status = error.status
                raise
            finally:
                service.metrics.answers.labels(route, str(status)).inc()

        return endpoint

    for route, work in routes.items():
        app.add_api_route(route, counted(route, work), methods=["POST"], dependencies=keyed, response_model=None)

    @app.get("/v1/models", dependencies=keyed)
    def models() -> dict[str, Any]:
        about = {"id": maker.about.pipeline, "object": "model", "created": 0, "owned_by": "outpace"}
        return {"object": "list", "data": [{**about, "outpace": asdict(maker.about)}]}

    @app.get("/v1/images/files/{name}")
    def file(name: str) -> Response:
        found, format = service.kept.find(name)
        kind = "application/octet-stream" if format == "npy" else f"image/{format}"
        return Response(found, media_type=kind, headers=SAFE)

    @app.get("/health")
    def health() -> JSONResponse:
        told = maker.health()
        status = 200 if told["ready"] else 503
        return JSONResponse(
            {"status": "ok" if told["ready"] else "starting", **told, "queue": service.room.held}, status
        )

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/")
    def page() -> HTMLResponse:
        about = {**asdict(maker.about), "usual": service.usual, "keyed": bool(service.settings.api_key)}
        text = json.dumps(about).replace("<", "\\u003c")
        return HTMLResponse(PAGE.read_text(encoding="utf-8").replace('"ABOUT"', text), headers=SAFE)

    @app.exception_handler(Turned)
    async def turned(request: Request, error: Turned) -> JSONResponse:
        headers = {"retry-after": str(error.after)} if error.after else {}
        return JSONResponse(error.body(), error.status, headers=headers)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse(Turned(str(error.detail), status=error.status_code).body(), error.status_code)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse(Turned(FAILED, status=500).body(), 500)

    return app
