"""The client layer alone: how true is its clock, and how fast is it?

    python tests/bench/client.py            both
    python tests/bench/client.py clock      a server that takes 20 ms and then writes a token every 20 ms: what is reported?
    python tests/bench/client.py speed      a server that answers at once: requests a second, and the ratio to plain httpx

The server is a process of its own; on Linux the client is pinned to one core and the server to the others.
"""

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx

from pipeline.client import LLMClient
from pipeline.records import Message, Request
from pipeline.stats.latency import client_bound

DELAY, GAP, TOKENS = 0.020, 0.020, 6
SERVER = """
import asyncio, json, statistics, sys, time
done = []
delay, gap, tokens = float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
whole = json.dumps({"choices": [{"message": {"content": "Rope, tide and lamp."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 5}}).encode()
def answer(content, kind="application/json"):
    return b"HTTP/1.1 200 OK\\r\\nContent-Type: %b\\r\\nContent-Length: %d\\r\\n\\r\\n%b" % (kind.encode(), len(content), content)
def event(text, reason=None):
    data = b"data: " + json.dumps({"choices": [{"delta": {"content": text}, "finish_reason": reason}]}).encode() + b"\\n\\n"
    return b"%x\\r\\n%b\\r\\n" % (len(data), data)
HEAD = b"HTTP/1.1 200 OK\\r\\nContent-Type: text/event-stream\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n"
WORD, LAST = event("word "), event("", "stop") + b"e\\r\\ndata: [DONE]\\n\\n\\r\\n0\\r\\n\\r\\n"
class Answers(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.got = transport, b""
    def data_received(self, data):
        self.got += data
        head, found, rest = self.got.partition(b"\\r\\n\\r\\n")
        if not found:
            return
        length = next((int(l.split(b":")[1]) for l in head.split(b"\\r\\n") if l.lower().startswith(b"content-length")), 0)
        if len(rest) < length:
            return
        self.got = b""
        if head.startswith(b"GET /truth"):
            truth = [statistics.median(one) for one in zip(*done)] if done else []
            done.clear()
            return self.transport.write(answer(json.dumps(truth).encode()))
        if b'"stream": true' not in rest:
            return self.transport.write(answer(whole))
        self.start = time.perf_counter()
        self.transport.write(HEAD)
        self.stamps = []
        asyncio.get_running_loop().call_at(self.start + delay, self.token)
    def token(self):
        last = len(self.stamps) == tokens - 1
        self.stamps.append(time.perf_counter())
        self.transport.write(WORD + LAST if last else WORD)
        if last:
            first, end = self.stamps[0], self.stamps[-1]
            done.append((first - self.start, (end - first) / (tokens - 1), end - self.start))
        else:
            asyncio.get_running_loop().call_at(self.start + delay + len(self.stamps) * gap, self.token)
async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Answers, "127.0.0.1", 0, backlog=1024)
    print("http://127.0.0.1:%d" % server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""
ASKED = Request(messages=(Message(role="user", content="Well met."),))


def pin(cores: set[int]) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores & os.sched_getaffinity(0) or os.sched_getaffinity(0))


@contextlib.contextmanager
def server(*arguments: float) -> Iterator[str]:
    others = set(range(1, os.cpu_count() or 1)) or {0}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, *map(str, arguments)],
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


async def many(count: int, concurrency: int, ask) -> list:
    """`ask()` `count` times, `concurrency` at a time."""
    todo, found = iter(range(count)), []

    async def work() -> None:
        for _ in todo:
            found.append(await ask())

    await asyncio.gather(*(work() for _ in range(concurrency)))
    return found


async def our_clock(url: str, concurrency: int) -> dict[str, float]:
    async with LLMClient(url, stream=True, concurrency=concurrency) as client:
        await many(2 * concurrency, concurrency, lambda: client.complete(ASKED))
        replies = await many(max(300, 4 * concurrency), concurrency, lambda: client.complete(ASKED))
    found = {
        name: statistics.median(getattr(r.timing, name) or 0.0 for r in replies) for name in ("ttft", "gap", "e2e")
    }
    return found | {"bound": client_bound([r.timing.lag for r in replies], [r.timing.ttft for r in replies])}


async def plain_clock(url: str, concurrency: int) -> dict[str, float]:
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    body = {"messages": [{"role": "user", "content": "Well met."}], "stream": True}
    async with httpx.AsyncClient(limits=limits, timeout=120) as client:

        async def ask() -> tuple[float, float, float]:
            start, stamps = time.perf_counter(), []
            async with client.stream(
                "POST", url + "/v1/chat/completions", content=__import__("json").dumps(body)
            ) as reply:
                async for line in reply.aiter_lines():
                    if "word" in line:
                        stamps.append(time.perf_counter())
            gap = (stamps[-1] - stamps[0]) / (len(stamps) - 1)
            return stamps[0] - start, gap, time.perf_counter() - start

        await many(2 * concurrency, concurrency, ask)
        found = await many(max(300, 4 * concurrency), concurrency, ask)
    return dict(zip(("ttft", "gap", "e2e"), map(statistics.median, zip(*found, strict=True)), strict=True))


def clock() -> None:
    """The truth is what the server did, by its own clock: a timer of an event loop is up to a millisecond late."""
    print("p50 in ms            " + "".join(name.rjust(22) for name in ("ttft", "gap", "e2e")))
    with server(DELAY, GAP, TOKENS) as url:
        for concurrency in (1, 16, 64, 256):
            for name, measure in (("ours", our_clock), ("plain httpx", plain_clock)):
                httpx.get(url + "/truth")
                found = asyncio.run(measure(url, concurrency))
                truth = httpx.get(url + "/truth").json()
                cells = [
                    f"{found[k] * 1000:7.2f} of {t * 1000:6.2f} {found[k] / t - 1:+5.0%}".rjust(22)
                    for k, t in zip(("ttft", "gap", "e2e"), truth, strict=True)
                ]
                bound = "  client-bound" if found.get("bound") else ""
                print(f"{concurrency:4d}  {name:13}" + "".join(cells) + bound)


async def our_speed(url: str, concurrency: int, count: int) -> None:
    async with LLMClient(url, concurrency=concurrency) as client:
        await many(count, concurrency, lambda: client.complete(ASKED))


async def plain_speed(url: str, concurrency: int, count: int) -> None:
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    body = {"messages": [{"role": "user", "content": "Well met."}]}
    async with httpx.AsyncClient(limits=limits, timeout=120) as client:

        async def ask() -> str:
            reply = await client.post(url + "/v1/chat/completions", json=body)
            return reply.json()["choices"][0]["message"]["content"]

        await many(count, concurrency, ask)


def speed() -> None:
    with server(0, 0, 0) as url:
        for concurrency, count, plain_count in ((64, 8000, 1500), (512, 8000, 1500)):
            rates = []
            for measure, number in ((our_speed, count), (plain_speed, plain_count)):
                start = time.perf_counter()
                asyncio.run(measure(url, concurrency, number))
                rates.append(number / (time.perf_counter() - start))
            print(
                f"concurrency {concurrency}: {rates[0]:.0f}/s, plain httpx {rates[1]:.0f}/s, ratio {rates[0] / rates[1]:.1f}"
            )


if __name__ == "__main__":
    pin({0})
    wanted = sys.argv[1:] or ["clock", "speed"]
    for name in wanted:
        {"clock": clock, "speed": speed}[name]()
