"""How fast is the whole command? Prints seconds (of CPU time, too), rows a second, memory, and the ratio to plain httpx.

    python tests/bench/throughput.py            3,000 rows: an instant server, and one of about 300 ms
    python tests/bench/throughput.py memory     100,000 rows: memory after 10,000 and at the end

The server is a process of its own; on Linux the client is pinned to one core and the server to the others.
"""

import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parent.parent
SERVER = """
import asyncio, json, random, sys
words = ("rope tide lamp bell crow salt stone bread ember thorn anchor ledger widow harbour winter gate river copper mule candle "
    "barrel orchard kettle ladder needle saddle window thunder pepper ribbon hammer lantern").split()
def reply():  # not the same to everybody: what a whole run repeats is dropped
    said = " ".join(dice.choice(words) for _ in range(9)).capitalize() + "."
    return json.dumps({"choices": [{"message": {"content": said}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 10}}).encode()
models = b'{"object": "list", "data": [{"id": "bench"}]}'
mean, dice = float(sys.argv[1]), random.Random(1)
def answer(content):
    return b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n%b" % (len(content), content)
async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            length = next((int(l.split(b":")[1]) for l in head.split(b"\\r\\n") if l.lower().startswith(b"content-length")), 0)
            await reader.readexactly(length)
            if length and mean:
                await asyncio.sleep(mean * dice.lognormvariate(0, 0.5))
            writer.write(answer(reply() if length else models))
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    print("http://127.0.0.1:%d" % server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""
PLAIN = """
import asyncio, httpx, json, sys
url, rows, concurrency = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
async def main():
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    async with httpx.AsyncClient(limits=limits, timeout=120) as client:
        todo = iter(range(rows))
        async def work():
            for n in todo:
                (await client.post(url + "/v1/chat/completions", json={"messages": [{"role": "user", "content": str(n)}]})).json()
        await asyncio.gather(*(work() for _ in range(concurrency)))
asyncio.run(main())
"""


def pin(cores: set[int]) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores & os.sched_getaffinity(0) or os.sched_getaffinity(0))


def personas(path: Path, rows: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        for n in range(rows):
            row = {"id": f"p{n}", "name": f"Name {n}", "description": f"smith number {n} " + "of some renown " * 12}
            file.write(json.dumps(row) + "\n")


def timed(command: list[str]) -> tuple[float, float, float]:
    """Seconds on the clock and of CPU time, and peak memory in MB, of a whole process on the first core."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=lambda: pin({0})
    )
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, command
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    memory = sys.argv[1:] == ["memory"]
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for label, mean, concurrency in [("instant", 0.0, 64), ("300 ms, log-normal", 0.3, 256)][: 1 if memory else 2]:
            command = [sys.executable, "-c", SERVER, str(mean)]
            others = set(range(1, os.cpu_count() or 1)) or {0}
            server = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                preexec_fn=lambda cores=others: pin(cores),
            )
            assert server.stdout is not None and server.stdin is not None
            url = server.stdout.readline().strip()

            def generate(rows: int, url: str = url, concurrency: int = concurrency) -> tuple[float, float, float]:
                source = scratch / f"{rows}.jsonl"
                personas(source, rows)
                out = scratch / f"run-{random.random()}"
                command = [sys.executable, "-m", "pipeline", "generate", "--server", url, "--personas", str(source)]
                options = ["--per-persona", "1", "--concurrency", str(concurrency), "--out", str(out), "--quiet"]
                return timed([*command, *options])

            if memory:
                for rows in (10_000, 100_000):
                    seconds, cpu, megabytes = generate(rows)
                    print(
                        f"{rows} rows: {seconds:.1f} s, {cpu:.1f} of CPU, {rows / seconds:.0f} rows/s, peak {megabytes:.0f} MB"
                    )
            else:
                seconds, cpu, megabytes = min(generate(3000) for _ in range(3))
                plain, plain_cpu, _ = timed([sys.executable, "-c", PLAIN, url, "3000", str(concurrency)])
                print(
                    f"{label}, concurrency {concurrency}: 3,000 rows in {seconds:.1f} s "
                    f"({cpu:.1f} of CPU, {3000 / seconds:.0f} rows/s, peak {megabytes:.0f} MB); "
                    f"plain httpx, sending alone: {plain:.1f} s ({plain_cpu:.1f}), ratio {plain / seconds:.1f}"
                )
            server.stdin.close()
            server.wait()
    assert math.isfinite(seconds)


if __name__ == "__main__":
    main()
