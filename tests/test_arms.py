"""`pipeline eval --arm`: the same items and seeds for all, one after another; compared, gated, resumed, scored again."""

import json
import subprocess
import sys

import pytest
from aiohttp import web
from click.testing import CliRunner
from fakes import FakeServer, reply_to

from pipeline.cli import cli
from pipeline.errors import ConfigError


def pipeline(*arguments, environment=None):
    return CliRunner().invoke(cli, list(map(str, arguments)), catch_exceptions=False, env=environment)


def answer(text, status=200):
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return web.json_response({"choices": [choice]}, status=status)


def leaky(body):
    """What is asked at temperature 1.5 is answered by a chatbot."""
    return answer("As an AI language model, I cannot say.") if body.get("temperature") == 1.5 else None


def inputs(folder, personas=12, scenarios=3):
    people = [{"id": f"n{n}", "name": f"Npc {n}", "description": "a ferryman"} for n in range(personas)]
    acts = [{"id": f"s{n}", "category": "greeting", "turns": [f"Line {n}?"]} for n in range(scenarios)]
    for name, rows in (("personas", people), ("scenarios", acts)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return ["--personas", folder / "personas.jsonl", "--scenarios", folder / "scenarios.jsonl", "--per-persona", "all"]


COOL, HOT = ("--arm", "cool:temperature=0.2"), ("--arm", "hot:temperature=1.5,max-tokens=40")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Two arms, of which the second leaks; the folder, what came of it, and the requests."""
    folder = tmp_path_factory.mktemp("arms")
    with FakeServer(fault=leaky) as server:
        command = ["eval", *inputs(folder), "--server", server.url, *COOL, *HOT, "--out", folder / "run"]
        gates = ["--gate", "in_character >= cool - 0.05", "--gate", "finished >= 0.5"]
        result = pipeline(*command, *gates, "--json")
        requests = list(server.requests)
        again = pipeline(*command, *gates)
        assert len(server.requests) == len(requests), "asked again"
    return folder / "run", result, requests, again


def test_all_arms_are_asked_the_same_with_the_same_seeds_and_their_own_sampling(done):
    _, _, requests, _ = done
    cool = [(r["messages"], r["seed"]) for r in requests if r["temperature"] == 0.2]
    hot = [(r["messages"], r["seed"]) for r in requests if r["temperature"] == 1.5]
    assert cool == hot and len(cool) == 36
    assert {r["max_tokens"] for r in requests if r["temperature"] == 1.5} == {40}


def test_the_others_are_compared_with_the_first(done):
    summary = json.loads(done[1].stdout)
    (comparison,) = summary["comparisons"]
    assert (comparison["a"], comparison["b"], comparison["verdict"]) == ("cool", "hot", "worse")
    assert comparison["scores"]["in_character"]["difference"]["difference"] == -1
    assert set(summary["arms"]) == {"cool", "hot"}


def test_a_gate_that_fails_is_exit_code_1_and_says_for_which_arm(done):
    _, result, _, _ = done
    assert result.exit_code == 1
    found = {gate["gate"]: gate for gate in json.loads(result.stdout)["gates"]}
    assert found["in_character >= cool - 0.05"]["verdict"] == "failed"
    assert found["finished >= 0.5"] | {"low": 0, "high": 0, "value": 0} == {
        **{"gate": "finished >= 0.5", "arm": "hot", "verdict": "passed", "why": ""},
        **{"low": 0, "high": 0, "value": 0},
    }


def test_the_text_says_the_verdict_the_gates_and_where_each_arm_is(done):
    folder, _, _, again = done
    assert "B is worse in character" in again.stdout
    assert "failed        hot: in_character >= cool - 0.05" in again.stdout
    assert str(folder / "arms" / "hot") in again.stdout


def test_an_arm_is_a_run_that_compare_reads(done):
    folder = done[0]
    found = pipeline("compare", folder / "arms" / "cool", folder / "arms" / "hot")
    assert found.stdout.startswith("B is worse in character")
    with pytest.raises(ConfigError, match="several arms"):
        pipeline("compare", folder, folder)


def test_it_is_scored_again_with_other_gates_without_a_server(done):
    folder = done[0]
    found = pipeline("eval", folder, "--gate", "box_length >= 0.2", "--set", "slop=off", "--json")
    summary = json.loads(found.stdout)
    assert [gate["gate"] for gate in summary["gates"]][-1] == "box_length >= 0.2"
    assert all("slop" not in arm["scores"] for arm in summary["arms"].values())


def test_errors_on_a_third_of_the_items_leave_the_means_and_make_the_gate_inconclusive(tmp_path):
    def fault(body):
        number = int.from_bytes(reply_to({"messages": body["messages"]}).encode()[:4])
        return web.json_response({"error": "no"}, status=400) if number % 10 < 3 else None

    with FakeServer(fault=fault) as server:
        options = [*inputs(tmp_path), "--server", server.url, "--gate", "box_length >= 0.1", "--json"]
        found = pipeline("eval", *options, "--out", tmp_path / "run")
    summary = json.loads(found.stdout)
    assert found.exit_code == 3 and summary["failed"] == summary["states"]["error"] > 3
    assert summary["gates"][0]["verdict"] == "inconclusive" and "has a reply" in summary["gates"][0]["why"]
    assert summary["scores"]["box_length"]["value"] == 1


def test_what_is_wrong_with_the_second_arm_is_found_before_the_first_is_asked(tmp_path):
    with FakeServer() as server:
        for wrong in ("b:template=npc/gone", "b:model-path=/nowhere.gguf,server=embedded", "b:lora=x.gguf"):
            options = [*inputs(tmp_path), "--server", server.url, "--arm", "a:", "--arm", wrong]
            with pytest.raises(ConfigError):
                pipeline("eval", *options, "--out", tmp_path / "run")
        assert not server.requests
    assert not (tmp_path / "run" / "arms").exists()


@pytest.mark.parametrize(
    "arm, said",
    [
        ("a:temperature=hot", "temperature: 'hot' is not a valid number"),
        ("a:temprature=1", "KEY can be: server"),
        ("a:out=/tmp", "KEY can be: server"),
        ("../a:temperature=1", "NAME:KEY=VALUE"),
        (":temperature=1", "NAME:KEY=VALUE"),
        ("a:temperature", "KEY=VALUE"),
    ],
)
def test_an_arm_that_cannot_be_understood_is_wrong_usage(arm, said):
    found = CliRunner().invoke(cli, ["eval", "--arm", arm])
    assert found.exit_code == 2 and said in " ".join(found.output.split())


def test_a_killed_evaluation_goes_on_where_it_was(tmp_path):
    with FakeServer(delay=0.02) as server:
        command = [*inputs(tmp_path), "--server", server.url, *COOL, *HOT, "--out", tmp_path / "run", "--quiet"]
        process = subprocess.Popen([sys.executable, "-m", "pipeline", "eval", *map(str, command)])
        while len(server.requests) < 50:  # in the middle of the second arm
            assert process.poll() is None
        process.kill()
        process.wait()
        before = len(server.requests)
        found = pipeline("eval", "--resume", tmp_path / "run", "--json")
        asked = len(server.requests) - before
    summary = json.loads(found.stdout)
    assert [arm["answered"] for arm in summary["arms"].values()] == [36, 36]
    assert asked <= 72 - before + 1  # at one at a time, one was in flight


def test_a_workflow_gets_the_verdict_as_markdown(tmp_path):
    target = tmp_path / "summary.md"
    target.write_text("before\n", "utf-8")
    with FakeServer(fault=leaky) as server:
        options = [*inputs(tmp_path), "--server", server.url, *COOL, *HOT, "--gate", "finished >= 0.1"]
        pipeline("eval", *options, "--out", tmp_path / "run", environment={"GITHUB_STEP_SUMMARY": str(target)})
    text = target.read_text("utf-8")
    assert text.startswith("before\n")
    assert "B is worse in character" in text and "✅ passed" in text
    table = [line for line in text.splitlines() if line.startswith("| in")]
    assert len({line.count("|") for line in table}) == 1


def test_a_dry_run_shows_every_arm_and_sends_nothing(tmp_path):
    with FakeServer() as server:
        found = pipeline("eval", *inputs(tmp_path), "--server", server.url, *COOL, *HOT, "--dry-run")
        assert not server.requests
    assert "arm cool" in found.stdout and "arm hot" in found.stdout


def test_scores_that_chose_the_training_data_are_marked_and_no_ground_for_the_verdict(tmp_path):
    with FakeServer(fault=leaky) as server:
        common = [*inputs(tmp_path), "--server", server.url]
        made = ["--set", "finished=off", "--set", "voice=off", "--split-by", "scenario"]
        pipeline("generate", *common, *made, "--out", tmp_path / "data")
        arms = ["--arm", "base:temperature=0.2", "--arm", f"tuned:temperature=1.5,trained-on={tmp_path / 'data'}"]
        found = pipeline("eval", *common, *arms, "--out", tmp_path / "run", "--json")
    (comparison,) = json.loads(found.stdout)["comparisons"]
    assert comparison["scores"]["in_character"]["selected_on"] and not comparison["scores"]["finished"]["selected_on"]
    assert comparison["scores"]["in_character"]["verdict"] == "worse" and comparison["verdict"] == "none"
