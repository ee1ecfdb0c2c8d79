"""`pipeline curate` and what `generate` makes for it: other criteria and other prompts ask nobody, and nothing is lost."""

import asyncio
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from aiohttp import web
from click.testing import CliRunner, Result
from fakes import FakeServer, calm

from pipeline import ConfigError, load_run
from pipeline.cli import cli, main
from pipeline.curation.criteria import DUPLICATE, KINDS, LIMITS, load_criteria
from pipeline.resources import shipped
from pipeline.run.splits import SPLITS, TRAIN

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


@pytest.fixture
def ends(monkeypatch, capsys):
    """`ends("curate", ...)`: the exit code of the whole command, and what it says on stderr."""
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["pipeline", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, capsys.readouterr().err

    yield run
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run with contrast; its server is gone. Not to be written to."""
    folder = tmp_path_factory.mktemp("finished")
    with Server() as server:
        generate(server, write_inputs(folder), folder / "run", "--contrast")
    return folder / "run"


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


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


# Nobody is asked


def test_other_criteria_ask_nobody_and_show_what_they_change_with_examples(tmp_path):
    with Server() as server:
        generate(server, write_inputs(tmp_path, 4, 3), tmp_path / "run")
        asked = len(server.requests)
        result = pipeline("curate", tmp_path / "run", "--set", "box_length.words=16")
        assert len(server.requests) == asked
    assert result.exit_code == 0
    text = result.stdout
    changed = [row for row in rows(tmp_path / "run", "rejected") if row["filter"] == "box_length"]
    assert changed and "changed  box_length.words 60 -> 16" in text
    assert f"{len(changed):5d}  kept -> dropped by box_length" in text
    assert any(f"{row['persona_id']}: {text_of(row['completion'])[:100]}" in text for row in changed)
    assert changed[0]["reason"] in text


def test_a_training_prompt_asks_nobody_and_is_named(run):
    result = pipeline("curate", run, "--train-prompt", "npc/short")
    assert result.exit_code == 0 and "training_prompt as it was sent -> npc/short" in result.stdout
    assert "No reply changed sides." in result.stdout


def test_curated_without_options_nothing_changes(run):
    before = contents(run / "dataset")
    text = pipeline("curate", run).stdout
    assert contents(run / "dataset") == before
    assert "No reply changed sides." in text and "\nchanged" not in text


STRICTER = ["--set", "box_length.words=16", "--max-per-persona", "4", "--train-prompt", "npc/short"]


def test_curated_twice_alike_the_dataset_has_the_same_bytes(run):
    before = contents(run / "dataset")
    curate(run, *STRICTER)
    once = contents(run / "dataset")
    found = curate(run, *STRICTER)
    assert contents(run / "dataset") == once != before
    assert found["changes"] == {"criteria": [], "replies": [], "added": 0, "gone": 0}
    curate(run)
    assert contents(run / "dataset") == before


def test_curating_touches_nothing_but_what_is_made_from_the_answers(run):
    before = contents(run)
    curate(run, *STRICTER)
    after = contents(run)
    assert after.keys() == before.keys()
    changed = {name.partition("/")[0] for name in before if after[name] != before[name]}
    assert changed <= {"dataset", "replies.parquet", "scores.parquet", "results.json", "report.html"}
    stored = json.loads((run / "results.json").read_text("utf-8"))
    assert {"generate", "curate"} <= stored.keys()


def test_a_run_that_was_curated_goes_on_as_it_was_generated(tmp_path):
    inputs = write_inputs(tmp_path, 4, 3)
    with Server() as server:
        generate(server, inputs, tmp_path / "run")
        before, asked = contents(tmp_path / "run" / "dataset"), len(server.requests)
        curate(tmp_path / "run", *STRICTER)
        generate(server, inputs, tmp_path / "run")
        assert len(server.requests) == asked
    assert contents(tmp_path / "run" / "dataset") == before


def test_replies_of_one_word_have_no_pairs_of_words_to_tell_of(tmp_path):
    talks = [
        {"name": "Mira", "messages": [{"role": "user", "content": line}, {"role": "assistant", "content": reply}]}
        for line, reply in (("Is the ferry late?", "Aye."), ("Will you wait for it?", "No."))
    ]
    (tmp_path / "talks.jsonl").write_text("\n".join(map(json.dumps, talks)), "utf-8")
    result = pipeline("curate", "--from", tmp_path / "talks.jsonl", "--out", tmp_path / "run", *CALM)
    assert result.exit_code == 0, result.output
    assert "2 kept" in result.stdout and "variety" not in result.stdout


def test_of_two_settings_the_later_wins_also_over_the_runs_own(run):
    assert curate(run, "--set", "box_length.words=1", "--set", "box_length.words=60")["changes"]["replies"] == []
    shown = curate(run, "--set", f"{CALM[1].partition('=')[0]}=on")["changes"]["criteria"]
    assert all("not there ->" in line for line in shown) and shown


def test_left_out_is_a_scorer_that_is_not_in_the_tables_either(run):
    curate(run, "--set", "finished=off")
    assert "score_finished" not in rows(run, "sft")[0]
    assert "finished" not in {row["scorer"] for row in pq.read_table(run / "scores.parquet").to_pylist()}
    assert not [row for row in rows(run, "rejected") if row["filter"] == "finished"]


def test_the_authors_own_criteria_and_word_lists_go_before_what_ships(run, tmp_path, monkeypatch):
    mine = tmp_path / "mine"
    (mine / "data" / "lexicons").mkdir(parents=True)
    (mine / "data" / "curation.yaml").write_text("filters: {box_length: {words: 16}}\n", "utf-8")
    words = (shipped("data") / "lexicons" / "assistant_leak.txt").read_text("utf-8")
    assert words.count("\n[phrases]\n") == 1
    words = words.replace("\n[phrases]\n", "\n[phrases]\nhalf a thought\n")
    (mine / "data" / "lexicons" / "assistant_leak.txt").write_text(words, "utf-8")
    monkeypatch.chdir(mine)
    found = curate(run)
    assert found["changes"]["criteria"] == ["box_length.words 60 -> 16"]
    by_filter = {name: [r for r in rows(run, "rejected") if r["filter"] == name] for name in JUDGED}
    assert any(text_of(row["completion"]).startswith("Half a thought") for row in by_filter["in_character"])
    assert any(text_of(row["completion"]).startswith("Long") for row in by_filter["box_length"])


@pytest.mark.parametrize(
    "options, said",
    [
        (["--set", "finnished.min=1"], "there is no 'finnished'. Did you mean finished?"),
        (["--set", "duplicates.persona=0.1"], "duplicates.persona is 0.1: it has to be a number from 0.5 to 1"),
        (["--train-prompt", "npc/shrot"], "There is no template 'npc/shrot.j2'"),
        (["--train-format", "nope"], "There is no template 'formats/nope.j2'"),
        (["--scorer", "nowhere.py:f"], "nowhere.py"),
        (["--max-per-prompt", "0"], "0 is not in the range"),
        (["--system", "melt"], "'melt' is not one of 'keep', 'merge', 'drop'"),
    ],
)
def test_what_is_wrong_ends_with_2_and_a_sentence_and_leaves_all_as_it_was(options, said, run, ends):
    before = contents(run)
    code, text = ends("curate", run, *options)
    assert code == 2 and said in text
    assert contents(run) == before


def test_only_a_generated_run_can_be_curated(tmp_path):
    with Server() as server:
        inputs = write_inputs(tmp_path, 2, 2)
        pipeline("eval", "--server", server.url, *inputs, "--out", tmp_path / "run")
    with pytest.raises(ConfigError, match="a run of pipeline eval"):
        pipeline("curate", tmp_path / "run")
    with pytest.raises(ConfigError, match="no run there"):
        pipeline("curate", tmp_path / "nowhere")


# Every reply has one place


@pytest.mark.parametrize(
    "options",
    [
        [],
        STRICTER,
        ["--max-per-prompt", "1"],
        ["--max-per-scenario", "3", "--set", "finished=off"],
        ["--train-format", "transcript", "--system", "drop"],
        [word for name in JUDGED for word in ("--set", f"{name}=off")],
    ],
)
def test_every_reply_is_in_exactly_one_of_sft_and_rejected_and_the_counts_add_up(options, run):
    found = curate(run, *options)
    answered, kept, dropped = replies(run), rows(run, "sft"), rows(run, "rejected")
    assert sorted(row["item_id"] for row in kept + dropped) == sorted(answered)
    assert (len(kept), Counter(row["filter"] for row in dropped)) == (found["kept"], found["dropped"])
    assert found["answered"] == len(answered) + found["contrast"] == found["asked"]
    assert found["contrast"] == PERSONAS * SCENARIOS and len(answered) == PERSONAS * SCENARIOS * SAMPLES
    for config, splits in found["configs"].items():
        assert splits == {name: len(rows(run, config, name)) for name in SPLITS if rows(run, config, name)}
    assert found["splits"] == found["configs"]["sft"] and sum(found["splits"].values()) == found["kept"]
    assert found["pairs"] == Counter(row["kind"] for row in rows(run, "preference"))
    assert found["row_tokens"]["p50"] <= found["row_tokens"]["p95"] <= found["row_tokens"]["max"]
    assert load_run(run).frame()["filter"].value_counts().to_dict() == {"": found["kept"], **found["dropped"]}


def test_filters_are_counted_in_their_order(run):
    found = curate(run, *STRICTER)
    order = ["train_prompt", *load_criteria().filters, DUPLICATE, *LIMITS]
    assert list(found["dropped"]) == sorted(found["dropped"], key=order.index)
    assert set(found["dropped"]) == {*JUDGED, DUPLICATE, "max_per_persona"}
    assert set(found["examples"]) == set(found["dropped"])


def test_a_score_that_does_not_apply_drops_nothing(run):
    # Nobody can say of a silence whether it is finished or in character.
    curate(run, "--set", "non_empty=off")
    silent = [row for row in rows(run, "sft") if not text_of(row["completion"])]
    assert silent and all(row["score_finished"] is None and row["score_in_character"] is None for row in silent)


def test_a_duplicate_names_the_better_reply_that_stays(run):
    kept = {row["item_id"]: row for row in rows(run, "sft")}
    doubles = [row for row in rows(run, "rejected") if row["filter"] == DUPLICATE]
    assert doubles
    for row in doubles:
        assert text_of(kept[row["evidence"]]["completion"]) == text_of(row["completion"]) == SAME
    assert [text_of(row["completion"]) for row in kept.values()].count(SAME) == 1


@pytest.mark.parametrize(
    "option, by",
    [("prompt", ("persona_id", "scenario_id")), ("persona", ("persona_id",)), ("scenario", ("scenario_id",))],
)
@pytest.mark.parametrize("most", [1, 3])
def test_no_more_are_kept_than_was_said(option, by, most, run):
    before = Counter(tuple(row[key] for key in by) for row in rows(run, "sft"))
    curate(run, f"--max-per-{option}", most)
    after = Counter(tuple(row[key] for key in by) for row in rows(run, "sft"))
    assert after == {group: min(count, most) for group, count in before.items()}


def test_nothing_depends_on_when_the_replies_came(tmp_path):
    inputs = write_inputs(tmp_path, 6, 4)
    datasets = []
    for number, options in enumerate((["--concurrency", 1], ["--concurrency", 16])):
        run = tmp_path / f"run{number}"
        with Uneven(delay=0.02 * number) as server:
            generate(server, inputs, run, *options)
        datasets.append({name: found for name, found in contents(run / "dataset").items() if name != "README.md"})
    assert datasets[0] == datasets[1]


class Uneven(Server):
    """Takes up to `delay` for a reply, by a dice of its own."""

    dice = random.Random(5)

    async def _asked(self, request):
        await asyncio.sleep(self.delay * self.dice.random())
        body = await request.json()
        return body, reply(said_to(body))


def test_nothing_depends_on_the_order_the_personas_come_in(tmp_path):
    inputs = write_inputs(tmp_path, 24, 3)
    made = []
    with Server() as server:
        for number in range(2):
            generate(server, inputs, tmp_path / f"run{number}", "--max-per-scenario", 9)
            run, people = tmp_path / f"run{number}", tmp_path / "personas.jsonl"
            fates = {row["item_id"]: (split, "") for split in SPLITS for row in rows(run, "sft", split)}
            fates |= {row["item_id"]: (row["filter"], row["evidence"]) for row in rows(run, "rejected")}
            pairs = {(row["item_id"], row["kind"], row["rejected_item_id"]) for row in rows(run, "preference")}
            made.append((fates, pairs))
            lines = people.read_text("utf-8").splitlines()
            random.Random(7).shuffle(lines)
            people.write_text("\n".join(lines), "utf-8")
    assert made[0] == made[1]


def test_more_personas_move_no_row_to_another_split(tmp_path):
    split_of: dict[str, str] = {}
    asked = 0
    with Server() as server:
        for personas in (15, 25, 35):
            found = generate(server, write_inputs(tmp_path, personas, 8), tmp_path / "run")
            assert len(server.requests) - asked == (personas - asked // 16) * 16
            asked = len(server.requests)
            now = {row["item_id"]: name for name in SPLITS for row in rows(tmp_path / "run", "kto", name)}
            assert all(now[item_id] == name for item_id, name in split_of.items() if item_id in now)
            assert len(now) > len(split_of)
            split_of = now
            assert found["split_by"] == "scenario"
            before = contents(tmp_path / "run" / "dataset")
            curate(tmp_path / "run")
            assert contents(tmp_path / "run" / "dataset") == before


# Pairs


def test_pairs_of_siblings_differ_by_the_margin_and_the_better_is_kept(run):
    criteria = load_criteria(["preference.margin=0.2"])
    curate(run, "--set", "preference.margin=0.2")
    kept, answered = {row["item_id"] for row in rows(run, "sft")}, replies(run)
    pairs = [row for row in rows(run, "preference") if row["kind"] == "siblings"]
    assert pairs
    quality = defaultdict(lambda: 1.0)
    for row in pq.read_table(run / "scores.parquet").to_pylist():
        if row["value"] is not None:
            quality[row["item_id"]] *= float(criteria.filters[row["scorer"]].goodness(np.array(row["value"])))
    for row in pairs:
        one, other = answered[row["item_id"]], answered[row["rejected_item_id"]]
        assert one["item_id"] in kept
        assert (one["persona_id"], one["scenario_id"]) == (other["persona_id"], other["scenario_id"])
        assert (text_of(row["chosen"]), text_of(row["rejected"])) == (one["reply"], other["reply"])
        assert (
            row["margin"] == pytest.approx(quality[one["item_id"]] - quality[other["item_id"]]) and row["margin"] >= 0.2
        )


def test_with_one_sample_there_are_no_siblings(tmp_path):
    with Server() as server:
        found = generate(server, write_inputs(tmp_path, 6, 3), tmp_path / "run", "--samples", 1)
    assert set(found["pairs"]) == {"other_persona"}


def test_the_other_persona_has_answered_the_same_line_in_the_same_split(run):
    answered = replies(run)
    split_of = {row["item_id"]: name for name in SPLITS for row in rows(run, "sft", name)}
    pairs = [(name, row) for name in SPLITS for row in rows(run, "preference", name) if row["kind"] == "other_persona"]
    assert {name for name, _ in pairs} > {TRAIN}
    for name, row in pairs:
        other = answered[row["rejected_item_id"]]
        assert other["persona_id"] != row["persona_id"] and other["scenario_id"] == row["scenario_id"]
        assert split_of[other["item_id"]] == split_of[row["item_id"]] == name
        assert text_of(row["rejected"]) == other["reply"] and row["margin"] is None


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_pairs_can_be_left_out(kind, run):
    before = rows(run, "preference")
    found = curate(run, "--set", f"preference.{kind}=off")
    assert kind not in found["pairs"]
    assert rows(run, "preference") == [row for row in before if row["kind"] != kind]


def test_kto_has_kept_ones_as_good_and_what_a_scorer_dropped_as_bad(run):
    curate(run, "--max-per-persona", 3)
    label_of = {row["item_id"]: row["label"] for row in rows(run, "kto")}
    assert {item_id for item_id, good in label_of.items() if good} == {row["item_id"] for row in rows(run, "sft")}
    bad = [row for row in rows(run, "rejected") if row["item_id"] in label_of]
    assert {row["filter"] for row in bad} == {"in_character", "finished"}
    assert not any(label_of[row["item_id"]] for row in bad)
    # As good as another, without a place, or nothing at all: neither good nor bad.
    left = {row["filter"] for row in rows(run, "rejected") if row["item_id"] not in label_of}
    assert left == {DUPLICATE, "max_per_persona", "non_empty"}


# Contrast


def test_contrast_is_asked_without_a_system_message_once_a_prompt_and_only_where_it_is_missing(tmp_path):
    inputs, run = write_inputs(tmp_path, 5, 4), tmp_path / "run"
    with Server() as server:
        found = generate(server, inputs, run)
        assert "contrast" not in found["pairs"] and found["contrast"] == 0
        assert not any(map(without_persona, server.requests))
        before = {name: rows(run, name) for name in ("sft", "kto", "rejected")}
        server.requests.clear()
        found = generate(server, inputs, run, "--contrast")
        assert Counter(body["messages"][-1]["content"] for body in server.requests) == {
            f"Line {n}, what say you?": 5 for n in range(4)
        }
        assert [[m["role"] for m in body["messages"]] for body in server.requests] == [["user"]] * 20
        server.requests.clear()
        assert generate(server, inputs, run, "--contrast")["pairs"] == found["pairs"]
        assert generate(server, inputs, run)["contrast"] == 0
        assert server.requests == []
    assert {name: rows(run, name) for name in before} == before
    assert found["contrast"] == 20 and found["pairs"]["contrast"] == len(
        {(row["persona_id"], row["scenario_id"]) for row in before["sft"] if text_of(row["completion"])}
    )


def test_contrast_is_the_worse_side_of_its_kind_and_in_no_other_table(run):
    said = {row["item_id"]: row for row in pq.read_table(run / "replies.parquet").to_pylist() if row["arm"]}
    assert len(said) == PERSONAS * SCENARIOS and {row["arm"] for row in said.values()} == {"contrast"}
    for config in ("sft", "kto", "rejected"):
        assert not said.keys() & {row["item_id"] for row in rows(run, config)}
    assert not said.keys() & {row["item_id"] for row in pq.read_table(run / "scores.parquet").to_pylist()}
    pairs = [row for row in rows(run, "preference") if row["kind"] == "contrast"]
    by_prompt = {(row["persona_id"], row["scenario_id"]): row["reply"] for row in said.values()}
    assert pairs and all(text_of(r["rejected"]) == by_prompt[r["persona_id"], r["scenario_id"]] for r in pairs)
    assert all(row["prompt"][0]["role"] == "system" for row in pairs)  # that of the chosen one
    frame = load_run(run).frame()
    assert frame.loc[frame["arm"] == "contrast", "filter"].isna().all()


def made(run: Path) -> dict[str, bytes]:
    """The dataset without its card, which has latencies."""
    return {name: found for name, found in contents(run / "dataset").items() if name != "README.md"}


def test_a_run_with_contrast_goes_on_where_it_was(tmp_path):
    inputs, run = write_inputs(tmp_path, 5, 4), tmp_path / "run"
    with Server() as server:
        generate(server, inputs, run, "--contrast", "--limit", 13)
        assert Counter(map(without_persona, server.requests)) == {False: 13, True: 6}
        generate(server, inputs, run, "--contrast")
        assert Counter(map(without_persona, server.requests)) == {False: 40, True: 20}
        questions = Counter(json.dumps([body["messages"], body["seed"]]) for body in server.requests)
        assert set(questions.values()) == {1}
        generate(server, inputs, tmp_path / "whole", "--contrast")
    assert made(run) == made(tmp_path / "whole")


def test_a_prompt_without_a_system_message_cannot_be_contrasted(tmp_path):
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "bare.j2").write_text("{% block user %}{{ npc.name }}: {{ line }}{% endblock %}")
    with Server() as server, pytest.raises(ConfigError, match="--contrast leaves the system message out, and bare has"):
        prompt = ["--prompts", tmp_path / "prompts", "--template", "bare"]
        generate(server, write_inputs(tmp_path, 2, 2), tmp_path / "run", "--contrast", *prompt)


# The prompt that trains


def test_a_short_prompt_trains_the_replies_that_a_long_one_brought(run):
    before = {row["item_id"]: row["completion"] for row in rows(run, "sft")}
    found = curate(run, "--train-prompt", "npc/short")
    assert found["training_prompt"] == "npc/short" and found["row_tokens"]["counted_by"] == "estimate"
    assert {row["item_id"]: row["completion"] for row in rows(run, "sft")} == before
    for config in ("sft", "preference", "kto", "rejected"):
        for row in rows(run, config):
            number = row["persona_id"].removeprefix("npc-")
            line = f"Line {row['scenario_id'].removeprefix('s-')}, what say you?"
            assert row["prompt"] == [
                {"role": "system", "content": f"You are Npc {number}, the keeper of gate {number}."},
                {"role": "user", "content": line},
            ]


def test_as_transcript_all_sides_are_strings_that_go_on_behind_the_name(run):
    curate(run, "--train-format", "transcript")
    for config in ("sft", "preference", "kto", "rejected"):
        assert rows(run, config)
        for row in rows(run, config):
            assert row["prompt"].endswith(f"\nNpc {row['persona_id'].removeprefix('npc-')}:")
            for side in ("chosen", "rejected") if config == "preference" else ("completion",):
                assert row[side][0] == " " and row[side][1:] == row[side].strip()


@pytest.mark.parametrize("system, roles", [("keep", ["system", "user"]), ("merge", ["user"]), ("drop", ["user"])])
def test_the_system_message_is_kept_merged_or_dropped(system, roles, run):
    curate(run, "--system", system)
    for row in rows(run, "sft") + rows(run, "preference"):
        assert [message["role"] for message in row["prompt"]] == roles
        text = "\n".join(message["content"] for message in row["prompt"])
        assert ("the keeper of gate" in text) == (system != "drop") and "what say you?" in text


def test_a_row_without_a_training_prompt_is_dropped_with_the_reason(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "trade.j2").write_text(
        "{% block user %}{{ npc.name[9 - npc.trade|length] }}{{ npc.nope }}{% endblock %}"
    )
    found = curate(run, "--prompts", tmp_path / "mine", "--train-prompt", "trade", code=1)
    assert found["dropped"] == {"train_prompt": found["answered"] - found["contrast"]} and found["kept"] == 0
    assert "trade.j2" in rows(run, "rejected")[0]["reason"]
    assert list(found["configs"]) == ["rejected"]  # what has no prompt is no bad example either


def test_a_row_is_dropped_by_its_own_training_prompt_only(run, tmp_path):
    (tmp_path / "mine").mkdir()
    some = "{% block user %}{{ 1 // (npc.trade | length) }} {{ line }}{% endblock %}"
    (tmp_path / "mine" / "trade.j2").write_text(some)
    found = curate(run, "--prompts", tmp_path / "mine", "--train-prompt", "trade")
    failed = {row["item_id"] for row in rows(run, "rejected") if row["filter"] == "train_prompt"}
    assert failed == {id for id, row in replies(run).items() if int(row["persona_id"].removeprefix("npc-")) % 2}
    assert found["dropped"]["train_prompt"] == len(failed) and found["kept"]


def test_generate_trains_on_the_prompt_it_was_told_and_curate_keeps_it(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "terse.j2").write_text("{% block user %}To {{ npc.name }}: {{ line }}{% endblock %}")
    with Server() as server:
        options = ["--prompts", mine, "--train-prompt", "terse"]
        made = generate(server, write_inputs(tmp_path, 3, 3), tmp_path / "run", *options)
        assert server.requests[0]["messages"][0]["role"] == "system"
    assert made["training_prompt"] == "terse"
    before = contents(tmp_path / "run" / "dataset")
    shutil.rmtree(mine)  # a run has its own copies
    curate(tmp_path / "run")
    assert contents(tmp_path / "run" / "dataset") == before
    assert rows(tmp_path / "run", "sft")[0]["prompt"][0]["content"].startswith("To Npc ")


# What a trainer loads


LOADS = """
import json, sys
from datasets import load_dataset
found = {}
for folder, config in json.loads(sys.argv[1]):
    splits = load_dataset(folder, config)
    found[folder + " " + config] = {name: [len(rows), rows[0]] for name, rows in splits.items()}
print(json.dumps(found))
"""


def load(wanted: list[tuple[str, str]], home: Path) -> dict[str, dict]:
    """What `datasets` reads, with no way to the hub; what it has read before is kept under `home`."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(home / "hf")}
    command = [sys.executable, "-c", LOADS, json.dumps(wanted)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_every_config_can_be_loaded_as_messages_and_as_text_and_has_the_sizes_that_were_said(finished, tmp_path):
    sizes, wanted = {}, []
    for name, options in (("messages", []), ("text", ["--train-format", "chatml"])):
        run = Path(shutil.copytree(finished, tmp_path / name))
        for config, splits in curate(run, *options)["configs"].items():
            sizes[f"{run / 'dataset'} {config}"] = splits
            wanted.append((str(run / "dataset"), config))
    assert len(wanted) == 8
    found = load(wanted, tmp_path)
    assert {key: {name: count for name, (count, _) in splits.items()} for key, splits in found.items()} == sizes
    for key, splits in found.items():
        for _, row in splits.values():
            sides = [row[name] for name in ("prompt", "completion", "chosen", "rejected") if name in row]
            assert len(sides) == (3 if key.endswith("preference") else 2)
            assert all(isinstance(side, str if "/text/" in key else list) for side in sides)
    card = (tmp_path / "text" / "dataset" / "README.md").read_text("utf-8")
    named = yaml.safe_load(card.split("---\n")[1])["configs"]
    assert [one["config_name"] for one in named] == ["sft", "preference", "kto", "rejected"]


def test_after_curating_what_is_loaded_is_not_what_was_loaded_before(run, tmp_path):
    # `datasets` knows a local dataset by its folder's name and its card's head, and keeps what it has read.
    wanted = [(str(run / "dataset"), "sft")]
    for options in ([], ["--max-per-persona", "1"]):
        sizes = curate(run, *options)["configs"]["sft"]
        (found,) = load(wanted, tmp_path).values()
        assert {name: count for name, (count, _) in found.items()} == sizes


# A scorer of one's own


MINE = """\
from pipeline.records import Score

def shouts(turn, *, most=0):
    capitals = sum(letter.isupper() for letter in turn.text)
    if not turn.text:
        return None
    return Score(float(capitals <= most), f"{capitals} capitals", turn.text[:20])

def broken(turn):
    return 1 / (len(turn.text) - len(turn.text))
"""


@pytest.fixture
def mine(tmp_path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(MINE, "utf-8")
    return path


def test_a_scorer_of_ones_own_decides_in_curate(run, mine):
    options = ["--scorer", f"{mine}:shouts"]
    found = curate(run, *options, code=1)
    assert found["kept"] == 0 and found["dropped"]["shouts"] > 0  # every reply has a capital
    row = next(row for row in rows(run, "rejected") if row["filter"] == "shouts")
    assert row["score_shouts"] == 0 and row["reason"] == "1 capitals"
    assert "shouts" in {row["scorer"] for row in pq.read_table(run / "scores.parquet").to_pylist()}
    assert "shouts" in load_run(run).frame().columns
    kept = curate(run, *options, "--set", "shouts.most=1")
    assert kept["kept"] > 0 and rows(run, "sft")[0]["score_shouts"] == 1
    assert yaml.safe_load((run / "dataset" / "curation.yaml").read_text("utf-8"))["filters"]["shouts"] == {
        "min": 0.5,
        "most": 1,
    }


def test_a_scorer_of_ones_own_is_part_of_a_generated_run_and_of_its_evaluation(tmp_path, mine):
    inputs, run = write_inputs(tmp_path, 3, 3), tmp_path / "run"
    with Server() as server:
        made = generate(server, inputs, run, "--scorer", f"{mine}:shouts", "--set", "shouts.most=1")
        assert made["kept"] and rows(run, "sft")[0]["score_shouts"] == 1
        again = json.loads(pipeline("eval", run, "--json").stdout)
        assert again["scores"]["shouts"]["value"] > 0.5 and again["bounds"]["shouts"]["least"] == 0.5
        assert again["scores"]["shouts"]["not_applicable"] == sum(not row["reply"] for row in replies(run).values())
        stricter = json.loads(pipeline("eval", run, "--set", "shouts.most=0", "--json").stdout)
        assert stricter["scores"]["shouts"]["value"] == 0
        own = pipeline(
            "eval", "--server", server.url, *inputs, "--out", tmp_path / "eval", "--scorer", f"{mine}:shouts", "--json"
        )
        assert json.loads(own.stdout)["scores"]["shouts"]["value"] == 0
        assert "shouts" in pipeline("eval", run).stdout
    assert curate(run)["changes"]["replies"] == []


def test_a_scorer_that_fails_ends_with_2_its_file_and_line_and_leaves_the_dataset(run, mine, ends):
    before = contents(run)
    code, text = ends("curate", run, "--scorer", f"{mine}:broken")
    assert code == 2 and f"{mine}:10: ZeroDivisionError" in text and "of npc-" in text
    assert contents(run) == before


def test_a_scorer_that_cannot_be_found_ends_generate_before_anything_is_asked(tmp_path, mine, ends):
    with Server() as server:
        inputs = write_inputs(tmp_path, 2, 2)
        command = ["generate", "--server", server.url, *inputs, "--out", tmp_path / "run"]
        code, text = ends(*command, "--scorer", f"{mine}:shuots")
        assert code == 2 and "has no function shuots. It has: broken, shouts." in text
        assert server.requests == [] and not (tmp_path / "run").exists()


def test_a_scorer_that_fails_in_generate_loses_no_answer(tmp_path, mine, ends):
    with Server() as server:
        inputs = write_inputs(tmp_path, 4, 4)
        command = [
            "generate",
            "--server",
            server.url,
            *inputs,
            *CALM,
            "--per-persona",
            "all",
            "--out",
            tmp_path / "run",
        ]
        code, text = ends(*command, "--scorer", f"{mine}:broken")
        assert code == 2 and f"{mine}:10: ZeroDivisionError" in text
        asked = len(server.requests)
        mine.write_text(MINE.replace("1 / (", "1 + ("), "utf-8")
        assert ends(*command, "--scorer", f"{mine}:broken")[0] == 0
        assert asked <= 16 == len(server.requests)  # what was answered is not asked again


# kill -9


KILLED = """
import os, signal, threading
from pathlib import Path

replies = 0

def after_many(turn):
    global replies
    replies += 1
    if replies == 200:
        os.kill(os.getpid(), signal.SIGKILL)
    return 1

def while_written(turn):
    global replies
    replies += 1
    if replies == 1:
        threading.Thread(target=watch, daemon=True).start()
    return 1

def watch():
    while not list(Path({run!r}).glob(".dataset.part/kto/*")):
        pass
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("function", ["after_many", "while_written"])
def test_killed_while_it_curates_the_old_dataset_is_whole(function, run, tmp_path):
    scorer = tmp_path / "killed.py"
    scorer.write_text(KILLED.format(run=str(run)), "utf-8")
    before = contents(run / "dataset")
    done = process("curate", run, "--scorer", f"{scorer}:{function}", "--set", "box_length.words=16")
    assert done.returncode == -9, done.stderr
    assert contents(run / "dataset") == before
    curate(run)
    assert contents(run / "dataset") == before
    assert not list(run.glob(".dataset*"))
