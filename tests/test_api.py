"""`pipeline.generate`, `evaluate`, `curate` and `compare`: the commands from Python, also where an event loop is running."""

import asyncio
import json
import signal
import subprocess
import sys
import textwrap

import pytest
from aiohttp import web
from fakes import FakeServer

import pipeline
from pipeline.api import _arguments
from pipeline.cli import cli


def inputs(folder, personas=8, scenarios=3):
    people = [{"id": f"n{n}", "name": f"Npc {n}", "description": "a ferryman"} for n in range(personas)]
    acts = [{"id": f"s{n}", "category": "greeting", "turns": [f"Line {n}?"]} for n in range(scenarios)]
    for name, rows in (("personas", people), ("scenarios", acts)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return {
        "personas": folder / "personas.jsonl",
        "scenarios": str(folder / "scenarios.jsonl"),
        "per_persona": "all",
        "out": folder / "run",
    }


def leaky(body):
    if body.get("temperature") != 1.5:
        return None
    choice = {"index": 0, "message": {"role": "assistant", "content": "As an AI model, no."}, "finish_reason": "stop"}
    return web.json_response({"choices": [choice]})


def test_generate_gives_the_run_and_prints_what_the_command_prints(tmp_path, capsys):
    with FakeServer() as server:
        run = pipeline.generate(**inputs(tmp_path), server=server.url, set={"voice": False, "slop.max": 50})
    assert isinstance(run, pipeline.Run) and run.path == tmp_path / "run"
    assert len(run.frame()) == 24
    assert run.manifest["asked"]["settings"] == ["voice=off", "slop.max=50"]
    said = capsys.readouterr()
    assert said.out == "" and "24 replies asked for, 24 answered" in said.err
    with FakeServer() as server:
        pipeline.generate(**inputs(tmp_path), server=server.url, quiet=True, set=["voice=off", "slop.max=50"])
        assert capsys.readouterr() == ("", "")


def test_a_running_loop_is_no_obstacle_with_and_without_await(tmp_path):
    async def cell():
        with FakeServer() as server:
            plain = pipeline.generate(**inputs(tmp_path), server=server.url, quiet=True)
            awaited = await pipeline.curate(plain, set={"box_length.words": 3}, quiet=True)
        return plain, awaited

    plain, awaited = asyncio.run(cell())
    assert plain.path == awaited.path
    assert awaited.results()["curate"]["dropped"]["box_length"] > 0


def test_arms_are_dictionaries_and_a_comparison_is_a_frame(tmp_path):
    with FakeServer(fault=leaky) as server:
        run = pipeline.evaluate(
            **inputs(tmp_path), server=server.url, quiet=True, arm={"cool": {}, "hot": {"temperature": 1.5}}
        )
    assert list(run.results()["eval"]["arms"]) == ["cool", "hot"]
    found = pipeline.compare(run.path / "arms" / "cool", run.path / "arms" / "hot")
    frame = found.frame()
    assert found.verdict == "worse" and frame.loc["in_character", "verdict"] == "worse"
    assert frame.loc["in_character", "difference"] == -1
    flips = found.flips()
    assert set(flips["b_text"]) == {"As an AI model, no."} and flips["asked"].str.startswith("Line").all()
    assert repr(found).startswith("B is worse")


def test_a_run_is_scored_again(tmp_path):
    with FakeServer() as server:
        run = pipeline.evaluate(**inputs(tmp_path), server=server.url, quiet=True)
    again = pipeline.evaluate(run, set="voice=off", gate=["finished >= 0.5"], quiet=True)
    assert "voice" not in again.results()["eval"]["scores"]
    assert [gate["verdict"] for gate in again.results()["eval"]["gates"]] == ["passed"]


@pytest.mark.parametrize(
    "options, said",
    [
        ({"persona": "x"}, "persona: no option of pipeline generate. Did you mean personas?"),
        ({"json": True}, "json: no option"),
        ({"dry_run": True}, "dry_run: no option"),
        ({"limit": 0}, "limit"),
        ({"temperature": "hot"}, "temperature"),
        ({"server": "nowhere"}, "no address"),
        ({"personas": "no/such/file.yaml"}, "no/such/file.yaml"),
    ],
)
def test_a_mistake_is_a_config_error(options, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pipeline.ConfigError, match=said):
        pipeline.generate(**options, quiet=True)


def test_options_stand_as_on_the_command_line():
    def spelled(name, **options):
        return _arguments(cli.commands[name], options)

    assert spelled("generate", per_persona="all", contrast=True, strict=False, limit=None) == [
        "--per-persona=all",
        "--contrast",
    ]
    assert spelled("generate", map={"name": "who"}, price=(0.15, 0.6)) == ["--map=name=who", "--price=0.15,0.6"]
    assert spelled("curate", from_="talks.jsonl", set={"voice.min": None}) == [
        "--from=talks.jsonl",
        "--set=voice.min=none",
    ]
    assert spelled("eval", arm={"a": {}, "b": {"temperature": 1, "top_k": 5}}) == [
        "--arm=a:",
        "--arm=b:temperature=1,top_k=5",
    ]
    assert spelled("eval", resume="") == ["--resume="]


def test_told_to_stop_it_raises_and_the_same_call_goes_on(tmp_path):
    """In a process of its own, with a loop running as in a notebook."""
    code = """
        import asyncio, sys, pipeline
        async def cell(options):
            try:
                pipeline.generate(**options)
            except KeyboardInterrupt:
                print("stopped")
                return
            print("went on")
        asyncio.run(cell(eval(sys.argv[1])))
    """
    options = {name: str(value) for name, value in inputs(tmp_path).items()}

    def call(server, **more):
        command = [sys.executable, "-c", textwrap.dedent(code), repr(options | {"server": server.url, **more})]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    with FakeServer(delay=0.3) as server:
        process = call(server, concurrency=2)
        for line in process.stderr:
            if "replies to ask for" in line:
                break
        while len(server.requests) < 4:
            pass
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (out, process.returncode) == ("stopped\n", 0), err
        assert "The same command goes on" in err and "Traceback" not in err
        asked = len(server.requests)
        assert asked < 24
        out, err = call(server, concurrency=24).communicate(timeout=60)
        assert out == "went on\n" and "24 answered" in err
        assert len(server.requests) == 24
