"""Killed in mid-conversation, again and again: is anything asked twice, and is the dataset the same?

python tests/bench/conversations.py              200 conversations of 6 turns, a simulated player, 20 times kill -9
python tests/bench/conversations.py embedded     12 conversations of 4 turns on the embedded model, killed twice
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from fakes import FakeServer
from test_resume import dataset_bytes, now_and_then

CONCURRENCY = 8
KILLS = 20


def pipeline(options: list[str], run: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "pipeline", "generate", "--out", str(run), "--quiet", *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def killed(options: list[str], run: Path, after: float) -> bool:
    """Whether it was at work."""
    process = pipeline(options, run)
    try:
        process.wait(after)
        return False
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True


def sources(folder: Path, personas: int, scenarios: int) -> list[str]:
    people = [{"id": f"p{n}", "name": f"Name {n}", "description": f"smith number {n}"} for n in range(personas)]
    acts = [
        {"id": f"s{n}", "category": "c", "turns": [f"Line {n}: well?", "And then?"][: 1 + n % 2], "goal": "the key"}
        for n in range(scenarios)
    ]
    for name, rows in (("personas", people), ("scenarios", acts)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    files = ["--personas", str(folder / "personas.jsonl"), "--scenarios", str(folder / "scenarios.jsonl")]
    return [*files, "--per-persona", "all"]


def on_loopback(scratch: Path) -> None:
    dice = random.Random(7)
    with FakeServer(delay=0.01, fault=now_and_then) as server:
        options = ["--server", server.url, "--concurrency", str(CONCURRENCY), "--turns", "6"]
        options += ["--player", "player/default", "--set", "non_empty=off", *sources(scratch, 20, 10)]
        began = time.perf_counter()
        assert pipeline(options, scratch / "undisturbed").wait() == 0
        seconds, asked = time.perf_counter() - began, len(server.requests)
        server.requests.clear()
        run = scratch / "killed"
        at_work = sum(killed(options, run, dice.uniform(2, 0.5 * seconds)) for _ in range(KILLS))
        assert pipeline(options, run).wait() == 0
        sent = Counter(json.dumps(body, sort_keys=True) for body in server.requests)
        twice = sum(sent.values()) - asked
        same = dataset_bytes(run) == dataset_bytes(scratch / "undisturbed")
        print(
            f"200 conversations, {asked} requests, {seconds:.1f} s undisturbed; killed at work {at_work} of {KILLS} times"
        )
        print(f"asked twice: {twice} (in flight at a kill: at most {at_work * CONCURRENCY}); dataset the same: {same}")
        assert len(sent) == asked and twice <= at_work * CONCURRENCY and same


def embedded(scratch: Path) -> None:
    options = ["--turns", "4", "--player", "player/default", "--limit", "12", "--max-tokens", "40"]
    run = scratch / "run"

    def journalled() -> dict[str, str]:
        lines = (run / "journal" / "npc.jsonl").read_text("utf-8").split("\n")[1:-1]
        return {row["key"]: row["payload"]["body"] for row in map(json.loads, lines) if row["final"]}

    before: dict[str, str] = {}
    for after in (25, 25, None):
        process = pipeline(options, run)
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        now = journalled()
        kept = sum(now.get(key) == body for key, body in before.items())
        print(f"{len(now)} answers journalled; of {len(before)} from before, {kept} are unchanged")
        assert kept == len(before)
        before = now
    assert process.returncode in (0, 1)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        (embedded if sys.argv[1:] == ["embedded"] else on_loopback)(Path(folder))
