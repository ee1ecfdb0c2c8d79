"""A server that answers at once, or as slowly and wrongly as a test wants, on a real loopback socket.

    with FakeServer() as server: ... server.url, server.requests

It speaks OpenAI's chat API and text-generation-webui's first API. Equal requests get equal answers: the reply is made from
a hash of the prompt and the seed. It runs in a thread with an event loop of its own.
"""

import asyncio
import hashlib
import json
import threading
from collections.abc import Callable
from typing import Any, Self

from aiohttp import web

WORDS = [
    "salt",
    "rope",
    "tide",
    "lamp",
    "crow",
    "bell",
    "stone",
    "bread",
    "ember",
    "thorn",
    "anchor",
    "ledger",
    "widow",
    "harbour",
    "winter",
]

Handler = Callable[[dict[str, Any]], "web.StreamResponse | None"]


def reply_to(body: dict[str, Any]) -> str:
    """A sentence that depends on nothing but what was asked."""
    asked = json.dumps([body.get("messages"), body.get("prompt"), body.get("seed")], sort_keys=True)
    number = int.from_bytes(hashlib.blake2b(asked.encode(), digest_size=8).digest())
    words = [WORDS[(number >> shift) % len(WORDS)] for shift in range(0, 40, 4)]
    return " ".join(words).capitalize() + "."


def calm(*judging: str) -> list[str]:
    """The options that leave out all scorers but these: each has tests of its own, and a run that has none starts twice as fast."""
    from pipeline.curation.criteria import load_criteria

    return [word for name in load_criteria().filters if name not in judging for word in ("--set", f"{name}=off")]


class FakeServer:
    """`delay` in seconds before an answer; `fault` may answer in its place; `dialects` are the APIs it has."""

    def __init__(
        self,
        *,
        delay: float = 0.0,
        fault: Handler | None = None,
        dialects: tuple[str, ...] = ("openai",),
        models: tuple[str, ...] = ("fake-model",),
        port: int = 0,
    ) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.delay, self.fault, self._dialects, self._models, self._port = delay, fault, dialects, models, port
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        app = web.Application(client_max_size=64 * 2**20)
        if "openai" in self._dialects:
            app.router.add_get("/v1/models", self._list_models)
            app.router.add_post("/v1/chat/completions", self._chat)
        if "textgen" in self._dialects:
            app.router.add_get("/api/v1/model", self._model)
            app.router.add_post("/api/v1/generate", self._generate)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self._port)
        await site.start()
        self._port = runner.addresses[0][1]
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
        await self._end.wait()
        await runner.cleanup()

    async def _list_models(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in self._models]})

    async def _model(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"result": self._models[0]})

    async def _asked(self, request: web.Request) -> tuple[dict[str, Any], web.StreamResponse | None]:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        if self.delay:
            await asyncio.sleep(self.delay)
        return body, self.fault(body) if self.fault else None

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body, fault = await self._asked(request)
        if fault is not None:
            return fault
        text = reply_to(body)
        usage = {"prompt_tokens": 10, "completion_tokens": len(text.split())}
        if not body.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            return web.json_response({"choices": [choice], "usage": usage})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for word in text.split(" "):
            delta = {"choices": [{"delta": {"content": word if word[0].isupper() else f" {word}"}}]}
            await response.write(f"data: {json.dumps(delta)}\n\n".encode())
        for last in ({"choices": [{"delta": {}, "finish_reason": "stop"}]}, {"choices": [], "usage": usage}):
            await response.write(f"data: {json.dumps(last)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body, fault = await self._asked(request)
        return fault or web.json_response({"results": [{"text": " " + reply_to(body)}]})


if __name__ == "__main__":  # a server in a process of its own, for benches: prints its address, ends with its stdin
    import sys

    with FakeServer() as fake:
        print(fake.url, flush=True)
        sys.stdin.read()
