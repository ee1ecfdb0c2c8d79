"""What goes where: progress to stderr, the result to stdout, and nothing that a terminal would obey to either."""

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr

import pytest
from aiohttp import web
from click.testing import CliRunner
from fakes import FakeServer
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cli import cli
from pipeline.progress import Meter, Plain, Silent, duration, printable, watcher
from pipeline.records import Completion, Timing, Usage
from pipeline.run.prepare import Seen

EVIL = "As an AI \x1b[31mred\x1b]0;title\x07 \x9b2J \u202eback \x08\x7f\r done."


@pytest.fixture
def inputs(tmp_path):
    people = [{"id": f"npc-{n}", "name": f"Npc\x1b[5m {n}", "description": "a guard"} for n in range(4)]
    acts = [{"id": f"s-{n}", "category": "greeting", "turns": [f"Line {n}, well?"]} for n in range(2)]
    for name, rows in (("personas", people), ("scenarios", acts)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return ["--personas", str(tmp_path / "personas.jsonl"), "--scenarios", str(tmp_path / "scenarios.jsonl")]


def evil(body):
    """A chatbot's phrase and an error message, both full of what terminals obey."""
    if body["messages"][-1]["content"].startswith("Line 0,"):
        return web.json_response({"error": {"message": EVIL}}, status=400)
    choice = {"index": 0, "message": {"role": "assistant", "content": EVIL}, "finish_reason": "stop"}
    return web.json_response({"choices": [choice]})


def run(inputs, tmp_path, *options, command="generate", fault=None):
    with FakeServer(fault=fault, models=("a\x1b[31mmodel",)) as server:
        arguments = [command, "--server", server.url, *inputs, "--out", str(tmp_path / "run"), *options]
        return CliRunner().invoke(cli, arguments, catch_exceptions=False)


def obeyed(text):
    return [c for c in text if not c.isprintable() and c != "\n"]


def test_progress_goes_to_stderr_and_stdout_has_nothing_but_the_result(inputs, tmp_path):
    result = run(inputs, tmp_path)
    assert "8 replies to ask for" in result.stderr and "model" in result.stderr
    assert result.stdout.startswith("8 replies asked for, 8 answered, 8 kept\n")
    assert "to ask for" not in result.stdout


@pytest.mark.parametrize("command", ["generate", "eval"])
def test_quiet_is_silent(command, inputs, tmp_path):
    result = run(inputs, tmp_path, "--quiet", command=command)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "8" in result.stdout.splitlines()[0]


@pytest.mark.parametrize("command", ["generate", "eval"])
def test_json_is_one_object_that_equals_what_is_stored(command, inputs, tmp_path):
    result = run(inputs, tmp_path, "--json", command=command)
    assert result.stdout.count("\n") == 1
    printed = json.loads(result.stdout)
    assert printed.pop("run") == str(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "results.json").read_text("utf-8")) == {command: printed}


@pytest.mark.parametrize("options", [[], ["--json"], ["--quiet"]])
def test_what_servers_and_personas_say_never_reaches_the_terminal_raw(options, inputs, tmp_path):
    result = run(inputs, tmp_path, *options, fault=evil)
    assert result.exit_code == 1
    assert "As an AI" in result.stdout  # an example of what was dropped
    assert obeyed(result.stdout) == [] and obeyed(result.stderr) == []


def test_a_run_that_is_complete_already_says_nothing_of_progress(inputs, tmp_path):
    with FakeServer() as server:
        command = ["generate", "--server", server.url, *inputs, "--out", str(tmp_path / "run")]
        first = CliRunner().invoke(cli, command)
        again = CliRunner().invoke(cli, command)
        assert len(server.requests) == 8
    assert "to ask for" not in again.stderr
    assert again.stdout == first.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_in_a_terminal_there_is_a_bar_and_still_nothing_obeyed(inputs, tmp_path):
    from terminal import in_a_terminal

    with FakeServer(fault=evil, models=("a\x1b]0;title\x07model",)) as server:
        command = [
            sys.executable,
            "-m",
            "pipeline",
            "generate",
            "--server",
            server.url,
            *inputs,
            "--out",
            tmp_path / "r",
        ]
        code, shown, stdout = in_a_terminal(command, stdout=subprocess.PIPE, env={**os.environ, "TERM": "xterm"})
    assert code == 1
    assert "━".encode() in shown and b"8/8" in shown
    assert b"\x1b]0;" not in shown and b"\x07" not in shown
    assert obeyed(stdout.decode()) == []


@settings(deadline=None)
@given(st.text())
def test_printable_text_is_printable_and_keeps_its_lines(text):
    shown = printable(text)
    assert obeyed(shown) == []
    assert len(shown) == len(text) and shown.count("\n") == text.count("\n")


@pytest.mark.parametrize(
    "text", ["Aye, well met!", "Прощай.", "我不知道。", "“Nein”, sagt er…", "🥖 e\u0301", "two\nlines"]
)
def test_printable_leaves_ordinary_text_alone(text):
    assert printable(text) == text


def completion(seconds, tokens=None):
    timing, usage = Timing(sent=0, e2e=seconds), Usage(completion_tokens=tokens)
    return Completion(text="Aye.", timing=timing, usage=usage)


def test_rates_count_what_this_run_did_and_not_what_it_found_done():
    with redirect_stderr(io.StringIO()) as said:
        watch = Plain()
        watch.begin(100, 60)
        for _ in range(20):
            watch.reply(completion(0.25, tokens=7), 4)
        watch.reply(None, 3)
        watch.judged(Seen(read=79, kept=50, dropped=29))
        watch.show(watch.meter.begun + 10)
    assert said.getvalue().splitlines() == [
        "100 replies to ask for, 60 of them answered already",
        "81/100 replies, 50 kept, 29 dropped, 1 failed, 2.1/s, 14 tokens/s, p50 0.25 s, p95 0.25 s, 3 at a time, 9 s left",
    ]


def test_what_is_there_already_is_judged_with_a_rate_of_its_own():
    with redirect_stderr(io.StringIO()) as said:
        watch = Plain()
        watch.begin(100, 0)
        watch.reply(completion(0.25), 1)
        watch.end()
        watch.reading(100)
        watch.judged(Seen(read=50, kept=20, dropped=28))
        watch.show(watch.meter.begun + 10)
        watch.end()
    assert said.getvalue().splitlines()[-1] == "50/100 judged, 20 kept, 28 dropped, 5.0/s, 10 s left"


def test_quantiles_are_of_the_latest_thousand():
    watch = Plain()
    watch._begin(Meter("replies", 5000))
    for n in range(3000):
        watch.meter.reply(completion(float(n)), 1)
    assert "p50 2499.00 s, p95 2949.00 s" in watch.meter.rates(watch.meter.begun + 1)


def test_silent_tells_trouble_once_requests_are_under_way():
    with redirect_stderr(io.StringIO()) as said:
        watch = watcher(quiet=True)
        assert type(watch) is Silent
        watch.say("http://localhost: openai, model smol")
        watch.begin(5, 0)
        watch.reply(None, 1)
        watch.say("Stopping;\x1b[31m waiting")
        watch.end()
    assert said.getvalue() == "Stopping; [31m waiting\n"


@pytest.mark.parametrize(
    "seconds, shown",
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (61, "1 min 01 s"),
        (3599.6, "1 h 00 min"),
        (86399, "23 h 59 min"),
    ],
)
def test_durations_read_well(seconds, shown):
    assert duration(seconds) == shown
