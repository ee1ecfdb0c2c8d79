"""kill -9 at random points, the same command again: nothing is lost, nothing asked twice, and the bytes are the same."""

import json
import multiprocessing
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from fakes import FakeServer

CONCURRENCY = 4
KILLS = 3
ROUNDS = 34  # of KILLS random points each: over a hundred


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
    context.set_forkserver_preload(["pipeline.produce", "pipeline.dataset", "pipeline.summary", "pipeline.transport"])
    return context


@pytest.fixture(scope="module")
def personas(tmp_path_factory):
    path = tmp_path_factory.mktemp("personas") / "personas.jsonl"
    rows = [{"id": f"p{n}", "name": f"Nö {n}", "description": f'a "{{{{ {n} }}}}" 100 % smith'} for n in range(24)]
    path.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    return path


def dataset_bytes(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in sorted((run / "dataset").rglob("*.parquet"))}


def test_killed_at_random_points_it_ends_with_the_same_bytes(processes, personas, tmp_path):
    dice = random.Random(20261121)
    with FakeServer(delay=0.004) as server:
        command = ["generate", "--server", server.url, "--personas", str(personas), "--per-persona", "3"]
        command += ["--concurrency", str(CONCURRENCY), "--quiet"]

        def start(run: Path):
            process = processes.Process(target=pipeline, args=([*command, "--out", str(run)], str(tmp_path / "log")))
            process.start()
            return process

        def whole(run: Path) -> float:
            began = time.monotonic()
            process = start(run)
            process.join(60)
            assert process.exitcode == 0, (tmp_path / "log").read_text()
            return time.monotonic() - began

        undisturbed = tmp_path / "undisturbed"
        duration = whole(undisturbed)
        wanted = dataset_bytes(undisturbed)
        assert len(server.requests) == 72 and wanted
        hit = 0
        for number in range(ROUNDS):
            run = tmp_path / f"run{number}"
            server.requests.clear()
            for _ in range(KILLS):
                process = start(run)
                process.join(dice.uniform(0.05, 0.6) * duration)
                hit += process.exitcode is None
                process.kill()
                process.join()
            whole(run)
            sent = Counter(json.dumps(body, sort_keys=True) for body in server.requests)
            assert len(sent) == 72
            assert sum(sent.values()) <= 72 + KILLS * CONCURRENCY
            assert dataset_bytes(run) == wanted
            asked = len(server.requests)
            whole(run)
            assert len(server.requests) == asked  # finished: nothing is asked again
    assert hit >= ROUNDS // 2  # enough of the kills did hit a process at work


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
