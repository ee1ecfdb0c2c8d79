"""How long does `pipeline curate` take, and how much memory? Makes a run folder without a server, and curates it twice.

    python tests/bench/curate.py [REPLIES ...]     10,000 and 100,000 replies

The replies are drawn from the words of the NPCs that ship, as often as those use them; one in 16 has a flaw. Seconds are those on
the clock and of all processes' CPUs together; memory is the sum of the most that any process took, of which there are as many
as cores beside the first. The second time, what has changed since the first is found out, too.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from dedup import Dice
from throughput import personas

from pipeline.config import RunConfig
from pipeline.dialects import dialect_named
from pipeline.records import Attempt, Timing
from pipeline.resources import shipped
from pipeline.run.folder import RunFolder
from pipeline.run.journal import Journal
from pipeline.run.produce import make_script, manifest, prepare
from pipeline.server.target import Target

FLAWS = ["As an AI language model, I cannot say.", "", "The road is", "Stranger: I will pay.\nVery well then."]
SAMPLES, PER_PERSONA = 4, 9


class Silent:
    def say(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...


def make_run(folder: Path, replies: int) -> RunFolder:
    dice = Dice()
    personas(folder / "personas.jsonl", -(-replies // (SAMPLES * PER_PERSONA)))
    config = RunConfig(
        command="generate",
        personas=str(folder / "personas.jsonl"),
        scenarios=str(shipped("data") / "scenarios"),
        per_persona=PER_PERSONA,
        samples=SAMPLES,
        limit=replies,
    )
    run = RunFolder(folder / "run")
    prepared = prepare(config, run.inputs, Silent())
    target = Target(
        shown="bench", url="", dialect=dialect_named("openai"), model="bench", identity="bench", concurrency=8
    )
    run.write_manifest(manifest(prepared, target))
    plan = replace(prepared.plan, personas=run.inputs.personas)
    journal = Journal(run.journal)
    script = make_script(config, target, prepared.templates)
    for ask in (script.ask(item, place) for place, item in enumerate(plan)):
        text = dice.choice(FLAWS) if dice.random() < 1 / 16 else dice.line().capitalize() + "."
        body = {
            "choices": [{"message": {"content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 90, "completion_tokens": len(text) // 4},
        }
        timing = Timing(sent=1.8e9 + ask.place / 100, e2e=dice.lognormvariate(0, 0.3), lag=0.0001)
        attempt = Attempt(number=1, timing=timing, status=200, body=json.dumps(body), dialect="openai", final=True)
        journal.append(ask.key, ask.about, attempt)
    journal.close()
    return run


def peak(pid: int) -> float:
    """MB that a process took at most, so far."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0.0)


def children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def curate(run: RunFolder) -> str:
    began, before = time.perf_counter(), os.times()
    command = [sys.executable, "-m", "pipeline", "curate", str(run.path), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    most: dict[int, float] = {}
    while process.poll() is None:
        most |= {pid: max(most.get(pid, 0), peak(pid)) for pid in (process.pid, *children(process.pid))}
        time.sleep(0.05)
    assert process.returncode == 0 and process.stdout is not None
    kept = json.load(process.stdout)["kept"]
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    own = most.pop(process.pid)
    return (
        f"{time.perf_counter() - began:.1f} s, {cpu:.1f} s of CPU, peak {own + sum(most.values()):.0f} MB"
        f" ({own:.0f} in the first of {1 + len(most)} processes), {kept:,} kept"
    )


def main() -> None:
    for replies in [int(number) for number in sys.argv[1:]] or [10_000, 100_000]:
        with tempfile.TemporaryDirectory() as folder:
            run = make_run(Path(folder), replies)
            for which in ("first", "again"):
                print(f"{replies:,} replies, {which}: {curate(run)}", flush=True)


if __name__ == "__main__":
    main()
