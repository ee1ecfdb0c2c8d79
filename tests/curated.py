"""A run whose replies are good, or bad in every way that is known beforehand; and the commands over it."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
from aiohttp import web
from click.testing import CliRunner, Result
from fakes import FakeServer, calm

from pipeline.cli import cli

PERSONAS, SCENARIOS, SAMPLES = 25, 5, 2
# Replies are made for these. Each scorer that ships has tests of its own.
JUDGED = ("non_empty", "in_character", "finished", "box_length")
CALM = calm(*JUDGED)
LEAK, SAME = "As an AI language model, I keep no gate.", "The same long thing is said to everybody who comes here."


def write_inputs(folder: Path, personas: int = PERSONAS, scenarios: int = SCENARIOS) -> list[str]:
    """The options that name them."""
    people = [{"id": f"npc-{n}", "name": f"Npc {n}", "description": f"the keeper of gate {n}"} for n in range(personas)]
    for n in range(0, personas, 2):
        people[n]["trade"] = "smith"
    acts = [{"id": f"s-{n}", "category": "greeting", "turns": [f"Line {n}, what say you?"]} for n in range(scenarios)]
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("personas", people), ("scenarios", acts)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return ["--personas", str(folder / "personas.jsonl"), "--scenarios", str(folder / "scenarios.jsonl")]


def said_to(body: dict) -> str:
    """Good ones, and bad ones of each kind: by a hash of the question."""
    asked = json.dumps([body.get("messages"), body.get("seed")])
    mark = hashlib.blake2b(asked.encode(), digest_size=32).hexdigest()
    words = " ".join(mark[n : n + 4] for n in range(0, 40, 4))
    if without_persona(body):
        return f"How may I help you with {words}?"
    kinds = (LEAK, f"Half a thought of {words} and", SAME, "", f"Go. Go {words} now.", f"Long {words} {words[::-1]}.")
    kind = int(mark[:4], 16) % 12
    return kinds[kind] if kind < len(kinds) else f"Aye, {words}."


def without_persona(body: dict) -> bool:
    return body["messages"][0]["role"] != "system"


def reply(text: str) -> web.Response:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 5}})


class Server(FakeServer):
    def __init__(self, **options) -> None:
        super().__init__(**{"fault": lambda body: reply(said_to(body))} | options)


def pipeline(*arguments: object) -> Result:
    return CliRunner().invoke(cli, list(map(str, arguments)), catch_exceptions=False)


def generate(server: FakeServer, inputs: list[str], out: Path, *options: object) -> dict:
    every = ["--per-persona", "all", "--samples", SAMPLES, *CALM, "--json"]
    result = pipeline("generate", "--server", server.url, *inputs, "--out", out, *every, *options)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def curate(run: Path, *options: object, code: int = 0) -> dict:
    result = pipeline("curate", run, "--json", *options)
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def process(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)


def rows(run: Path, config: str, split: str = "*") -> list[dict]:
    found = sorted((run / "dataset" / config).glob(f"{split}.parquet"))
    return [row for path in found for row in pq.read_table(path).to_pylist()]


def replies(run: Path) -> dict[str, dict]:
    """What was answered by a persona, by item."""
    table = pq.read_table(run / "replies.parquet").to_pylist()
    return {row["item_id"]: row for row in table if row["reply"] is not None and not row["arm"]}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def text_of(side) -> str:
    return side.strip() if isinstance(side, str) else side[0]["content"]
