"""`pipeline eval`: what it says of a model, and that an existing run is scored without asking anybody."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from aiohttp import web
from click.testing import CliRunner
from fakes import FakeServer

from pipeline.cli import cli
from pipeline.curation.criteria import load_criteria
from pipeline.evaluation.evaluate import evaluating
from pipeline.evaluation.text import evaluated
from pipeline.progress import Silent
from pipeline.run.folder import RunFolder
from pipeline.run.journal import Journal
from pipeline.run.produce import exhaust, reopen
from pipeline.stats import clustered_mean


def write_inputs(folder: Path, personas: int, scenarios: int) -> list[str]:
    """The options that name them."""
    people = [{"id": f"npc-{n}", "name": f"Npc {n}", "description": f"the keeper of gate {n}"} for n in range(personas)]
    acts = [{"id": f"s-{n}", "category": f"c{n % 2}", "turns": [f"Line {n}, what say you?"]} for n in range(scenarios)]
    for name, rows in (("personas", people), ("scenarios", acts)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return ["--personas", str(folder / "personas.jsonl"), "--scenarios", str(folder / "scenarios.jsonl")]


def answer(text):
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return web.json_response({"choices": [choice]})


def fault(body):
    """One line is refused, one met with silence, one with a chatbot's phrase."""
    said = body["messages"][-1]["content"]
    if said.startswith("Line 0,"):
        return web.json_response({"error": {"message": "prompt too long"}}, status=400)
    return answer("") if said.startswith("Line 1,") else answer("As an AI, no.") if said.startswith("Line 2,") else None


def pipeline(*arguments):
    return CliRunner().invoke(cli, list(map(str, arguments)), catch_exceptions=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """8 personas in 6 scenarios, two samples each, streamed one at a time: the folder, and the summary."""
    folder = tmp_path_factory.mktemp("eval")
    inputs = write_inputs(folder, 8, 6)
    with FakeServer(fault=fault) as server:
        command = ["eval", "--server", server.url, *inputs, "--per-persona", "all", "--samples", 2, "--json"]
        result = pipeline(*command, "--out", folder / "run")
    assert result.exit_code == 0, result.stderr
    return folder / "run", json.loads(result.stdout)


def test_every_scorer_has_a_mean_with_an_interval(run):
    _, summary = run
    assert set(summary["scores"]) == set(load_criteria().filters)
    for mean in summary["scores"].values():
        if mean["value"] is not None:
            assert 0 <= mean["low"] <= mean["value"] <= mean["high"]
            assert mean["clusters"] == 8
    assert summary["scores"]["non_empty"]["value"] == pytest.approx(4 / 5)  # silence, out of five lines answered
    assert summary["scores"]["in_character"]["value"] == pytest.approx(3 / 4)  # of four lines with words in them


def test_states_are_counted_and_no_score(run):
    _, summary = run
    assert (summary["asked"], summary["answered"], summary["failed"], summary["missing"]) == (96, 80, 16, 0)
    assert summary["open"] == 0  # refused for good
    assert (summary["personas"], summary["items"]) == (8, 40)


def test_what_is_not_applicable_is_counted_and_never_a_pass(run):
    _, summary = run
    for name, mean in summary["scores"].items():
        # Nobody can say of a silence whether it was in character.
        assert mean["not_applicable"] >= (0 if name == "non_empty" else 16), name
        assert mean["n"] <= (40 if name == "non_empty" else 32), name
    assert summary["scores"]["non_empty"]["not_applicable"] == 0 and summary["scores"]["finished"]["n"] == 32


def test_means_are_of_items_and_not_of_samples(run):
    folder, summary = run
    found = [r for r in pq.read_table(folder / "scores.parquet").to_pylist() if r["scorer"] == "in_character"]
    items = {}
    for row in found:
        if row["value"] is not None:
            items.setdefault((row["persona_id"], row["scenario_id"]), []).append(row["value"])
    values = {item: sum(v) / len(v) for item, v in items.items()}
    direct = clustered_mean(values, {item: item[0] for item in values})
    stored = summary["scores"]["in_character"]
    assert (stored["value"], stored["low"], stored["high"]) == (direct.value, direct.low, direct.high)


def test_categories_have_means_of_their_own(run):
    _, summary = run
    assert set(summary["by_category"]) == {"c0", "c1"}
    assert summary["by_category"]["c0"]["in_character"] == pytest.approx(1 / 2)  # lines 2 and 4; 0 was refused
    assert summary["by_category"]["c1"]["in_character"] == 1


def test_latency_states_its_load_and_the_first_token_comes_before_the_last(run):
    folder, summary = run
    assert summary["load"] | {"client_bound": None} == {"concurrency": 1, "streaming": True, "client_bound": None}
    assert summary["latency"]["e2e"]["n"] == 80
    streamed = [row for row in pq.read_table(folder / "replies.parquet").to_pylist() if row["ttft"] is not None]
    assert len(streamed) == summary["latency"]["ttft"]["n"] == 48
    assert all(0 < row["ttft"] <= row["e2e"] for row in streamed)
    assert all(row["tpot"] is None or row["tpot"] > 0 for row in streamed)
    for found in summary["latency"].values():
        assert found["p50"]["value"] <= found["p95"]["value"]
        if found["n"] >= 20:  # of replies that came in one read there are no gaps
            assert found["p50"]["low"] <= found["p50"]["value"] <= found["p50"]["high"]


def test_latency_is_told_by_category_and_for_the_slowest_personas(run):
    _, summary = run
    by_category = summary["latency_by_category"]
    assert set(by_category) == {"c0", "c1"} and sum(found["n"] for found in by_category.values()) == 80
    assert len(summary["slowest"]) == 8
    medians = [one["p50"] for one in summary["slowest"]]
    assert medians == sorted(medians, reverse=True) and all(one["p50"] <= one["p99"] for one in summary["slowest"])


def test_tokens_are_those_that_the_server_counted_else_an_estimate_that_says_so(run):
    _, summary = run
    assert summary["tokens"]["counted_by"] == {"server": 48, "estimate": 32}
    assert summary["tokens"]["completion"] == 480 + 32 * 2 and summary["tokens"]["prompt"] > 480
    assert summary["tokens"]["completion_per_second"] > 0


def test_the_text_names_scores_intervals_load_and_folder(run):
    folder, summary = run
    text = evaluated(summary, folder, demo=False)
    for words in ("80 of 96 replies, 8 personas, 40 items, 16 failed", "clustered by persona"):
        assert words in text
    assert re.search(r"^in_character +0\.750 ", text, re.MULTILINE)
    assert "latency at concurrency 1, streaming" in text and str(folder) in text
    assert "not worth training on" not in text
    assert "not worth training on" in evaluated(summary, folder, demo=True)


def test_nothing_answered_yet_is_missing_and_has_no_means(run, tmp_path):
    produced = reopen(RunFolder(run[0]))
    produced.journal.close()
    empty = Journal(tmp_path / "npc.jsonl")
    empty.freeze()
    folder = RunFolder(tmp_path)
    folder.write_manifest(RunFolder(run[0]).manifest())
    summary = exhaust(replace(produced, journal=empty, folder=folder), evaluating, Silent())
    empty.close()
    assert (summary["answered"], summary["failed"], summary["missing"], summary["open"]) == (0, 0, 96, 96)
    assert summary["scores"] == {} and summary["latency"] == {} and summary["tokens"]["completion_per_second"] is None
    assert "96 not asked yet" in evaluated(summary, tmp_path, demo=False)


def test_a_scorer_that_never_applies_has_a_count_and_no_mean(tmp_path):
    (tmp_path / "prompts" / "npc").mkdir(parents=True)
    (tmp_path / "prompts" / "npc" / "bare.j2").write_text("{% block user %}{{ npc.name }}! {{ line }}{% endblock %}")
    inputs = write_inputs(tmp_path, 2, 2)
    with FakeServer() as server:
        prompt = ["--prompts", tmp_path / "prompts", "--template", "npc/bare"]
        result = pipeline("eval", "--server", server.url, *inputs, *prompt, "--out", tmp_path / "run", "--json")
        again = pipeline("eval", tmp_path / "run")
    mean = json.loads(result.stdout)["scores"]["no_prompt_leak"]
    assert (mean["value"], mean["low"], mean["n"], mean["not_applicable"]) == (None, None, 0, 4)
    line = next(line for line in again.stdout.splitlines() if line.startswith("no_prompt_leak"))
    assert line.split() == ["no_prompt_leak", "-", "-", "4"]


def test_a_generated_run_is_scored_without_asking_anybody(tmp_path):
    inputs = write_inputs(tmp_path, 4, 3)
    out = tmp_path / "run"
    with FakeServer() as server:
        made = pipeline("generate", "--server", server.url, *inputs, "--out", out, "--json")
        asked = len(server.requests)
        journal = (out / "journal" / "npc.jsonl").read_bytes()
        dataset = {p: p.read_bytes() for p in (out / "dataset").rglob("*.parquet")}
        pipeline("eval", out)
        assert len(server.requests) == asked
    scored = pipeline("eval", out, "--json")  # and now there is nobody to ask
    assert (made.exit_code, scored.exit_code) == (0, 0)
    printed = {name: json.loads(result.stdout) for name, result in (("generate", made), ("eval", scored))}
    assert printed["eval"]["answered"] == printed["generate"]["answered"] == asked == 8
    assert json.loads((out / "results.json").read_text("utf-8")) == {
        name: {key: value for key, value in summary.items() if key != "run"} for name, summary in printed.items()
    }
    assert (out / "journal" / "npc.jsonl").read_bytes() == journal
    assert {p: p.read_bytes() for p in dataset} == dataset
    assert json.loads((out / "run.json").read_text("utf-8"))["finished"]
