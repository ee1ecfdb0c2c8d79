"""Ctrl-C, SIGTERM, and a second one: the process ends as people expect, and the journal is whole either way."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from fakes import FakeServer, calm

from pipeline.run.journal import Journal

CONCURRENCY = 4


def start(url, folder, *options):
    command = [sys.executable, "-m", "pipeline", "generate", "--server", url, "--per-persona", "4", *calm()]
    command += ["--concurrency", str(CONCURRENCY), "--out", str(folder), *options]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONSAFEPATH": "1"}
    )


def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def whole(folder):
    """Every line of the journal is whole; the keys that are answered."""
    journal = Journal(folder / "journal" / "npc.jsonl")
    journal.close()
    assert journal.found_damaged == journal.found_torn == 0
    lines = (folder / "journal" / "npc.jsonl").read_text("utf-8").splitlines()[1:]
    return [record["key"] for record in map(json.loads, lines) if record["final"]]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_once_waits_for_what_is_in_flight_and_the_same_command_asks_for_the_rest(number, tmp_path):
    folder = tmp_path / "run"
    with FakeServer(delay=0.15) as server:
        process = start(server.url, folder)
        until(lambda: len(server.requests) > 10)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "waiting a moment" in err and err.endswith("Interrupted. The same command goes on.\n")
        asked = len(server.requests)
        assert len(whole(folder)) == asked < 100  # nothing that was sent is lost
        assert (
            f"{asked} answered" in out and (folder / "results.json").exists()
        )  # the summary is there, as far as it goes
        process = start(server.url, folder)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        keys = whole(folder)
        assert len(keys) == len(set(keys)) == len(server.requests)


def test_the_second_leaves_at_once_and_the_journal_is_whole(tmp_path):
    folder = tmp_path / "run"
    with FakeServer(delay=0.05) as server:
        process = start(server.url, folder)
        until(lambda: len(server.requests) > 20)
        server.delay = 20.0
        asked = len(server.requests)
        until(lambda: len(server.requests) >= asked + CONCURRENCY)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert time.monotonic() - began < 2
        process.communicate()
        assert len(whole(folder)) >= asked - CONCURRENCY
        server.delay = 0.0
        process = start(server.url, folder, "--quiet")
        assert process.wait(60) == 0
        process.communicate()
        keys = whole(folder)
        assert len(keys) == len(set(keys))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_before_anything_was_asked_it_is_the_same_word_and_code(number, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        process = start(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path / "run")
        connection, _ = silent.accept()  # it asks who is there, and waits for an answer
        with connection:
            process.send_signal(number)
            _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and err.endswith("Interrupted. The same command goes on.\n")
    assert "Traceback" not in err
