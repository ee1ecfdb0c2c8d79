"""Does `--concurrency auto` find what is best? Simulated servers, each a process of its own, behind real sockets.

    python tests/bench/concurrency.py

For each server the fixed limits that matter, then `auto` from nothing: throughput in tokens a second over the whole run, its
search with it, and the median time to first token by the server's own clock, as a multiple of what it is with one in flight.
Where replies stream, the best fixed limit is the fastest that keeps this within twice; where they do not, no client can know.
"""

import asyncio
import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from pipeline.client.autolimit import AutoLimit
from pipeline.client.client import LLMClient
from pipeline.records import Message, Request

sys.path.insert(0, str(Path(__file__).parent.parent))
from simulated import Simulated, reply_length

ASKED = Request(messages=(Message(role="user", content="Well met."),))
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True)
class Row:
    name: str
    server: dict[str, Any]
    streams: bool
    fixed: tuple[int, ...]
    replies: int  # of the run with `auto`


def servers(streams: bool) -> list[Row]:
    how = "streaming" if streams else "whole"
    gpu = {"slots": 512, "token": 0.003, "batching": 0.003 / 64, "prompt": 12}
    return [
        Row(f"1 slot, {how}", {"slots": 1, "token": 0.0015}, streams, (1, 2), 1000),
        Row(f"4 slots, {how}", {"slots": 4, "token": 0.003}, streams, (3, 4, 5), 2000),
        Row(f"64 slots, {how}", {"slots": 64, "token": 0.005}, streams, (64, 80), 3000),
        Row(f"a GPU, {how}", gpu, streams, (64, 256), 3000),
        Row(f"1 slot and 6 places, {how}", {"slots": 1, "token": 0.0015, "places": 7}, streams, (1, 6), 1000),
    ]


class Machine:
    """The simulation in real time: who is told what when."""

    def __init__(self, simulated: Simulated) -> None:
        self._simulated, self._dice = simulated, random.Random(1)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: dict[int, tuple[Answers, float, int]] = {}
        self.ttft: list[float] = []
        self.refused = 0

    def ask(self, answers: "Answers") -> bool:
        self._go_on()
        now, tokens = self._loop.time(), reply_length(self._dice)
        name = id(answers)
        if not self._simulated.arrive(now, name, tokens):
            self.refused += 1
            return False
        self._waiting[name] = (answers, now, tokens)
        self._go_on()
        return True

    def _go_on(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for what, name in self._simulated.happened(self._loop.time()):
            answers, came, tokens = self._waiting[name]
            if what == "first":
                self.ttft.append(self._loop.time() - came)
                answers.first()
            else:
                del self._waiting[name]
                answers.whole(tokens)
        due = self._simulated.next()
        self._timer = self._loop.call_at(due, self._go_on) if due < math.inf else None


class Answers(asyncio.Protocol):
    def __init__(self, machine: Machine) -> None:
        self._machine, self._got = machine, b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, found, rest = self._got.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
        if not found or len(rest) < int(fields.get(b"content-length", 0)):
            return
        self._got = b""
        if head.startswith(b"GET"):
            machine = self._machine
            truth = {"ttft": median(machine.ttft), "refused": machine.refused}
            machine.ttft, machine.refused = [], 0
            return self._answer(200, truth)
        self._streams = bool(json.loads(rest).get("stream"))
        if not self._machine.ask(self):
            self._answer(503, {"error": {"message": "busy"}})

    def first(self) -> None:
        if self._streams:
            self._transport.write(HEAD + chunk({"choices": [{"delta": {"content": "Aye"}}]}))

    def whole(self, tokens: int) -> None:
        usage = {"prompt_tokens": 9, "completion_tokens": tokens}
        if self._streams:
            end = chunk({"choices": [{"delta": {"content": "."}, "finish_reason": "stop"}], "usage": usage})
            self._transport.write(end + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        else:
            message = {"content": "Aye."}
            self._answer(200, {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})

    def _answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        head = f"HTTP/1.1 {status} Well\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        self._transport.write(head.encode() + content)


def chunk(event: object) -> bytes:
    data = b"data: " + json.dumps(event).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


async def serve(settings: dict[str, Any]) -> None:
    machine = Machine(Simulated(**settings))
    server = await asyncio.get_running_loop().create_server(lambda: Answers(machine), "127.0.0.1", 0, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.to_thread(sys.stdin.read)


def pin(cores: set[int]) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores & os.sched_getaffinity(0) or os.sched_getaffinity(0))


@asynccontextmanager
async def running(settings: dict[str, Any]) -> AsyncIterator[str]:
    others = set(range(1, os.cpu_count() or 1)) or {0}
    process = subprocess.Popen(  # noqa: ASYNC220 -- it starts before anything is timed
        [sys.executable, __file__, "serve", json.dumps(settings)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: pin(others),
    )
    assert process.stdout is not None and process.stdin is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait()


@dataclass
class Found:
    rate: float  # tokens a second
    ttft: float
    refused: int
    settled: int


async def ask(url: str, limit: int | AutoLimit, replies: int, *, streams: bool) -> Found:
    todo, tokens = iter(range(replies)), 0
    async with LLMClient(url, stream=streams, concurrency=limit) as client:

        async def work() -> None:
            nonlocal tokens
            for _ in todo:
                reply = await client.complete(ASKED)
                tokens += reply.usage.completion_tokens or 0

        start = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(min(client.concurrency + 64, replies))))
        seconds = time.perf_counter() - start
    truth = await asyncio.to_thread(lambda: httpx.get(url + "/truth").json())
    held = [change.limit for change in client.limits if change.why != "looked up"]
    return Found(tokens / seconds, truth["ttft"], truth["refused"], held[-1] if held else client.concurrency)


async def measured(row: Row) -> str:
    async with running(row.server) as url:
        unloaded = (await ask(url, 1, 30, streams=row.streams)).ttft
        fixed = [
            await ask(url, limit, min(row.replies, max(200, 48 * limit)), streams=row.streams) for limit in row.fixed
        ]
        auto = await ask(url, AutoLimit(), row.replies, streams=row.streams)
    soon = [found for found in fixed if found.ttft <= 2 * unloaded or not row.streams]
    best = max(soon, key=lambda found: found.rate)
    return (
        f"{row.name:30} {best.settled:5d} {best.rate:9,.0f} {best.ttft / unloaded:7.2f}"
        f" {auto.settled:9d} {auto.rate:9,.0f} {auto.rate / best.rate:7.0%} {auto.ttft / unloaded:7.2f} {auto.refused:5d}"
    )


async def main() -> None:
    print(f"{'':30} {'best fixed':>23} {'auto':>39}")
    print(
        f"{'server':30} {'limit':>5} {'tokens/s':>9} {'TTFT x':>7} {'settled':>9} {'tokens/s':>9} {'share':>7} "
        f"{'TTFT x':>7} {'503s':>5}"
    )
    rows = [row for streams in (True, False) for row in servers(streams)]
    slow = [row for row in rows if row.server["slots"] < 64]  # one core has time for all of them at once
    for line in await asyncio.gather(*map(measured, slow)):
        print(line, flush=True)
    for row in rows:
        if row not in slow:
            print(await measured(row), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(json.loads(sys.argv[2])))
    else:
        pin({0})
        asyncio.run(main())
