"""The embedded model: what the order of the plan saves it, and what we cost it.

python tests/bench/embedded.py          both
python tests/bench/embedded.py cache    the share of prompt tokens that llama.cpp had in its cache already: in the order of the
                                        plan (a persona's scenarios are neighbours), and shuffled
python tests/bench/embedded.py speed    tokens a second through `pipeline generate`, against llama.cpp driven directly
"""

import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp

from pipeline.config import RunConfig
from pipeline.progress import watcher
from pipeline.resources import shipped
from pipeline.run.folder import Inputs
from pipeline.run.prepare import make_script, prepare
from pipeline.server import models
from pipeline.server.embedded import EmbeddedServer, slots
from pipeline.server.target import find_target

REQUESTS, PER_PERSONA = 28, 4


async def bodies(max_tokens: int) -> list[dict]:
    """The requests of a run as they would be sent, in the order of its plan."""
    data = shipped("data")
    config = RunConfig(
        command="generate",
        personas=str(data / "personas"),
        scenarios=str(data / "scenarios"),
        per_persona=PER_PERSONA,
        limit=REQUESTS,
        max_tokens=max_tokens,
    )
    watch = watcher(quiet=True)
    target = await find_target(config, watch.say)
    with tempfile.TemporaryDirectory() as scratch:
        prepared = prepare(config, Inputs(Path(scratch)), watch)
        script = make_script(config, target, prepared.templates)
        asks = [script.ask(item, place) for place, item in enumerate(prepared.plan)]
    return [target.dialect.encode(ask.request, model=target.model, stream=False) for ask in asks]


async def drive(asked: list[dict]) -> tuple[float, float, float]:
    """(share of prompt tokens from the cache, completion tokens a second, seconds), as many at a time as there are slots."""
    found, waiting = [], iter(asked)
    async with (
        EmbeddedServer(models.demo_model(print).path, parallel=slots()) as server,
        aiohttp.ClientSession() as session,
    ):
        headers = {"Authorization": f"Bearer {server.api_key}"}

        async def work() -> None:
            for body in waiting:
                async with session.post(f"{server.url}/v1/chat/completions", json=body, headers=headers) as reply:
                    found.append(await reply.json())

        start = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(slots())))
        seconds = time.perf_counter() - start
    cached = sum(reply["timings"].get("cache_n", 0) for reply in found)
    read = sum(reply["timings"]["prompt_n"] for reply in found)
    written = sum(reply["usage"]["completion_tokens"] for reply in found)
    return cached / (cached + read), written / seconds, seconds


def cache() -> None:
    asked = asyncio.run(bodies(max_tokens=4))
    for name in ("in the order of the plan", "shuffled"):
        share, _, seconds = asyncio.run(drive(asked))
        print(f"{name:25} {share:4.0%} of the prompt tokens from the cache, {seconds:.1f} s for {len(asked)} requests")
        random.Random(7).shuffle(asked)


def speed() -> None:
    asked = asyncio.run(bodies(max_tokens=80))
    ratios = []
    for _ in range(3):
        _, direct, _ = asyncio.run(drive(asked))
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable,
                "-m",
                "pipeline",
                "generate",
                "--per-persona",
                str(PER_PERSONA),
                "--limit",
                str(REQUESTS),
            ]
            done = subprocess.run(
                [*command, "--out", folder + "/run", "--json", "--quiet"], capture_output=True, text=True
            )
        ours = json.loads(done.stdout)["tokens"]["completion_per_second"]
        ratios.append(ours / direct)
        print(f"pipeline generate {ours:.1f} tokens/s, llama.cpp directly {direct:.1f}, ratio {ratios[-1]:.2f}")
    print(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    for name in sys.argv[1:] or ["cache", "speed"]:
        {"cache": cache, "speed": speed}[name]()
