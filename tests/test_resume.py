"""kill -9 at random points, the same command again: nothing is lost, nothing asked twice, and the bytes are the same."""

import hashlib
import json
import multiprocessing
import random
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from aiohttp import web
from fakes import FakeServer, calm

CONCURRENCY = 4
KILLS = 5
ROUNDS = 21  # of KILLS random points each: over a hundred
CALM = calm("non_empty", "finished", "own_words", "overused")  # two of a reply, and those of the whole run


def pipeline(arguments: list[str], log: str) -> None:
    """In a child process: the real command, from its arguments to its exit code."""
    import os
    import sys

    from pipeline.cli import main

    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["pipeline", *arguments]
    main()


@pytest.fixture(scope="module")
def processes():
    """Children that begin with everything imported, so that a kill hits the work and not the imports."""
    context = multiprocessing.get_context("forkserver")
    modules = ("cli", "cli.commands", "dataset.make", "run.produce", "report", "summary", "client.transport")
    context.set_forkserver_preload([f"pipeline.{name}" for name in modules])
    return context


@pytest.fixture(scope="module")
def personas(tmp_path_factory):
    path = tmp_path_factory.mktemp("personas") / "personas.jsonl"
    rows = [{"id": f"p{n}", "name": f"Nö {n}", "description": f'a "{{{{ {n} }}}}" 100 % smith'} for n in range(24)]
    path.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    return path


def dataset_bytes(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in sorted((run / "dataset").rglob("*.parquet"))}


class Command:
    """A command against a server, in processes that can be killed."""

    def __init__(self, processes, server: FakeServer, options: list[str], log: Path) -> None:
        self._processes, self._log = processes, log
        fixed = ["--server", server.url, "--concurrency", str(CONCURRENCY), "--quiet"]
        self._arguments = ["generate", *fixed, *CALM, *options]

    def start(self, run: Path):
        arguments = [*self._arguments, "--out", str(run)]
        process = self._processes.Process(target=pipeline, args=(arguments, str(self._log)))
        process.start()
        return process

    def whole(self, run: Path) -> float:
        began = time.monotonic()
        process = self.start(run)
        process.join(60)
        assert process.exitcode == 0, self._log.read_text()
        return time.monotonic() - began

    def killed(self, run: Path, after: float) -> bool:
        """Whether it was at work when it was killed."""
        process = self.start(run)
        process.join(after)
        working = process.exitcode is None
        process.kill()
        process.join()
        return working

    def killed_at(self, run: Path, server: FakeServer, requests: int) -> None:
        """When so many more have reached the server."""
        until = len(server.requests) + requests
        process = self.start(run)
        while len(server.requests) < until and process.is_alive():
            time.sleep(0.001)
        assert process.is_alive()
        process.kill()
        process.join()


def test_killed_at_random_points_it_ends_with_the_same_bytes(processes, personas, tmp_path):
    dice = random.Random(20261121)
    with FakeServer(delay=0.004) as server:
        command = Command(processes, server, ["--personas", str(personas), "--per-persona", "3"], tmp_path / "log")
        undisturbed = tmp_path / "undisturbed"
        duration = command.whole(undisturbed)
        wanted = dataset_bytes(undisturbed)
        assert len(server.requests) == 72 and wanted
        hit = 0
        for number in range(ROUNDS):
            run = tmp_path / f"run{number}"
            server.requests.clear()
            hit += sum(command.killed(run, dice.uniform(0.05, 0.6) * duration) for _ in range(KILLS))
            command.whole(run)
            sent = Counter(json.dumps(body, sort_keys=True) for body in server.requests)
            assert len(sent) == 72
            assert sum(sent.values()) <= 72 + KILLS * CONCURRENCY
            assert dataset_bytes(run) == wanted
        asked = len(server.requests)
        command.whole(run)
        assert len(server.requests) == asked  # finished: nothing is asked again
    assert hit >= ROUNDS  # enough of the kills did hit a process at work


def now_and_then(body):
    """A fault that says goodbye, or nothing: by what was asked, so that conversations end in many ways."""
    drawn = int(hashlib.blake2b(json.dumps(body, sort_keys=True).encode()).hexdigest()[:4], 16)
    text = {0: "Farewell, then.", 1: ""}.get(drawn % 20)
    if text is None:
        return None
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return web.json_response({"choices": [choice]})


def test_killed_in_the_middle_of_conversations_it_goes_on_there(processes, personas, tmp_path):
    """A simulated player, 48 conversations of at most 5 turns: each turn is journalled by itself, the player's too."""
    dice = random.Random(1)
    with FakeServer(delay=0.004, fault=now_and_then) as server:
        options = ["--personas", str(personas), "--turns", "5", "--player", "player/default", "--set", "non_empty=off"]
        command = Command(processes, server, options, tmp_path / "log")
        undisturbed = tmp_path / "undisturbed"
        command.whole(undisturbed)
        wanted, asked = dataset_bytes(undisturbed), len(server.requests)
        assert any("conversations" in name for name in wanted)
        ended = {row["ended"] for row in pq.read_table(undisturbed / "replies.parquet").to_pylist()}
        assert {"turns", "farewell", "silence"} <= ended
        for number in range(2):
            run = tmp_path / f"run{number}"
            server.requests.clear()
            for _ in range(KILLS):
                command.killed_at(run, server, dice.randint(1, asked // (KILLS + 1)))
            command.whole(run)
            sent = Counter(json.dumps(body, sort_keys=True) for body in server.requests)
            assert len(sent) == asked
            assert sum(sent.values()) <= asked + KILLS * CONCURRENCY
            assert dataset_bytes(run) == wanted


def test_two_writers_are_kept_apart(processes, personas, tmp_path):
    with FakeServer(delay=0.2) as server:
        command = ["generate", "--server", server.url, "--personas", str(personas), "--out", str(tmp_path / "run")]
        first = processes.Process(target=pipeline, args=(command, str(tmp_path / "first")))
        first.start()
        while not server.requests and first.is_alive():
            time.sleep(0.01)
        second = processes.Process(target=pipeline, args=(command, str(tmp_path / "second")))
        second.start()
        second.join(30)
        first.kill()
        first.join()
    assert second.exitcode == 2
    said = (tmp_path / "second").read_text()
    assert f"process {first.pid} on " in said and "is writing this run. Wait for it" in said
