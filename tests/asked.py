"""What `LLMClient.complete` makes of an answer, behind the transport or on a real socket."""

import asyncio
import json

import httpx
from wire import Wire

from pipeline.client.client import LLMClient
from pipeline.errors import ServerError
from pipeline.records import Message, Request

MARKER = "sk-marker-0123456789/+=="
REQUEST = Request(messages=(Message(role="user", content="Hello"),), prompt="Anna: Hello\nMira:")
WELL_MET = {"choices": [{"message": {"content": "Well met."}, "finish_reason": "stop"}]}
AT_ONCE = {"retry-after": "0"}


class Server:
    """Behind httpx's seam: gives each answer once, the last one for ever. An answer is a Response's arguments or an error."""

    def __init__(self, *answers):
        self.requests, self._answers = [], list(answers)
        self.transport = httpx.MockTransport(self._handle)

    def _handle(self, request):
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(**answer)


def ok(body=None, **options):
    return {"status_code": 200, "json": WELL_MET if body is None else body, **options}


def chunk(content=None, finish_reason=None):
    delta = {} if content is None else {"content": content}
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


def sse(*events, done=True):
    data = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    return (data + "data: [DONE]\n\n" * done).encode()


def streamed(*events, done=True):
    return {"status_code": 200, "content": sse(*events, done=done), "headers": {"content-type": "text/event-stream"}}


def complete(transport, *, url="http://npc", request=REQUEST, **options):
    """(completion or error, attempts)"""
    attempts = []

    async def ask():
        async with LLMClient(url, transport=transport, **options) as client:
            return await client.complete(request, attempts.append)

    try:
        return asyncio.run(ask()), attempts
    except ServerError as exc:
        return exc, attempts


def complete_on_the_wire(answer, **options):
    """(completion or error, attempts, requests that arrived), with a real socket."""
    attempts = []

    async def ask():
        async with Wire(answer) as server, LLMClient(server.url, **options) as client:
            try:
                return await client.complete(REQUEST, attempts.append), attempts, server
            except ServerError as exc:
                return exc, attempts, server

    return asyncio.run(ask())
