"""`pipeline compare`: the sentence, the figures behind it, and what it refuses to say."""

import csv
import hashlib
import io
import json
import random
import struct
import time
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.stats
from aiohttp import web
from click.testing import CliRunner
from fakes import FakeServer
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cli import cli
from pipeline.comparison import Columns, compare_arms, compared, read_arm
from pipeline.comparison.arm import Arm
from pipeline.errors import ConfigError

LEAK = "As an AI language model, I can't.\x1b[31m"


def pipeline(*arguments):
    return CliRunner().invoke(cli, list(map(str, arguments)), catch_exceptions=False)


def share(*parts):
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4]) / 2**32


def server(leaks, errors=0.0, delay=0.0):
    """Leaks in that share of the items, drawn by hash; refuses in another."""

    def fault(body):
        said = json.dumps(body["messages"])
        item = (
            next(word for word in said.replace('"', " ").split() if word.startswith("Npc-")),
            said.split("Line ")[-1][0],
        )
        if share("error", *item) < errors:
            return web.json_response({"error": "no"}, status=400)
        text = LEAK if share("leak", *item) < leaks else f"{item[0]} keeps gate {item[1]} of the harbour shut."
        if delay:
            time.sleep(delay)
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice]})

    return FakeServer(fault=fault)


def make(folder, fake, *options, personas=12, line="Line {}, well?", command="eval", name="run"):
    folder.mkdir(exist_ok=True)
    people = [{"id": f"npc-{n}", "name": f"Npc-{n}", "description": "a guard"} for n in range(personas)]
    acts = [{"id": f"s-{n}", "category": "greeting", "turns": [line.format(n)]} for n in range(4)]
    for kind, rows in (("personas", people), ("scenarios", acts)):
        (folder / f"{kind}.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    inputs = ["--personas", folder / "personas.jsonl", "--scenarios", folder / "scenarios.jsonl"]
    with fake as running:
        pipeline(
            command,
            "--server",
            running.url,
            *inputs,
            "--per-persona",
            "all",
            "--out",
            folder / name,
            "--quiet",
            *options,
        )
    return folder / name


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A leaks in half of its items and takes its time; B, with another prompt, leaks seldom. C is B, with a third refused."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        "a": make(folder, server(0.6, delay=0.03), name="a"),
        "b": make(folder, server(0.1), "--template", "npc/barks", name="b"),
        "c": make(folder, server(0.1, errors=0.3), "--samples", 2, name="c"),
        "generated": make(folder, server(0.1), command="generate", name="generated"),
        "folder": folder,
    }


def both(runs, a, b, *options):
    """The text, and the same as JSON."""
    text, as_json = (
        pipeline("compare", runs[a], runs[b], *options),
        pipeline("compare", runs[a], runs[b], *options, "--json"),
    )
    assert text.exit_code == as_json.exit_code
    return text, json.loads(as_json.stdout)


def test_it_opens_with_one_plain_sentence(runs):
    text, summary = both(runs, "a", "b")
    assert text.exit_code == 0 and summary["verdict"] == "better"
    first = text.stdout.splitlines()[0]
    found = summary["scores"]["in_character"]["difference"]
    points = f"+{100 * found['difference']:.0f} points ({100 * found['low']:.0f} to {100 * found['high']:.0f})"
    assert first.startswith("B is better") and f"in character: {points}" in first
    assert "faster by 0.0" in first and first.endswith(".")


def test_another_template_is_no_other_item(runs):
    _, summary = both(runs, "a", "b")
    assert (summary["items"], summary["clusters"], summary["cluster"]) == (48, 12, "personas")
    assert (summary["only_a"], summary["only_b"], summary["asked_otherwise"]) == (0, 0, 0)


def test_a_generated_run_is_compared_as_well(runs):
    text, summary = both(runs, "a", "generated")
    assert summary["verdict"] == "better" and summary["latency"] == {}
    assert "--concurrency auto" in text.stdout


def test_a_run_and_itself_do_not_differ(runs):
    text, summary = both(runs, "a", "a")
    assert text.exit_code == 0 and summary["verdict"] == "none" and summary["family"] == 0
    assert text.stdout.startswith("No difference was seen between A and B")
    assert all(score["difference"]["p"] in (1, None) for score in summary["scores"].values())
    assert summary["flips"] == []


def test_the_other_way_round_it_is_worse_and_slower(runs):
    text, summary = both(runs, "b", "a")
    assert summary["verdict"] == "worse"
    assert text.stdout.startswith("B is worse") and "slower by 0.0" in text.stdout.splitlines()[0]


def test_errors_are_states_and_move_no_mean(runs):
    text, summary = both(runs, "b", "c", "--score", "in_character")
    assert summary["states"]["error"][0] == 0 and 20 <= summary["states"]["error"][1] <= 50
    score = summary["scores"]["in_character"]
    assert score["difference"]["n"] < 48 and score["a"]["value"] == score["b"]["value"]  # of the same items
    assert summary["verdict"] == "none" and "error" in text.stdout
    assert f"Only {score['difference']['n']} of 48 items have a score in both" in text.stdout


def test_what_could_not_have_been_seen_is_said(runs):
    text, summary = both(runs, "b", "c", "--score", "in_character")
    least = summary["scores"]["in_character"]["difference"]["detectable"]
    assert least > 0.05
    assert f"less than {100 * least:.0f} points could not have been" in text.stdout.splitlines()[0]


def test_the_items_that_flipped_are_shown_with_both_texts_and_no_escapes(runs):
    text, summary = both(runs, "a", "b", "--score", "in_character")
    assert 1 <= len(summary["flips"]) <= 3
    for flip in summary["flips"]:
        assert (flip["a"]["score"], flip["b"]["score"]) == (0, 1)
        assert flip["a"]["text"] == LEAK and flip["b"]["text"].startswith("Npc-") and flip["asked"].startswith("Line ")
        assert flip["b"]["text"] in text.stdout
    assert "\x1b" not in text.stdout and LEAK.replace("\x1b", " ") in text.stdout


def test_latencies_name_their_load(runs):
    text, summary = both(runs, "a", "b")
    assert summary["latency"]["concurrency"] == 1
    for what in ("p50", "p95"):
        found = summary["latency"]["e2e"][what]
        assert found["a"]["value"] > 0.03 > found["b"]["value"]
        assert found["difference"]["value"] == pytest.approx(found["b"]["value"] - found["a"]["value"])
    assert "seconds at concurrency 1" in text.stdout


def test_latencies_under_another_load_are_not_compared(runs, tmp_path):
    runs = {"b": runs["b"], "d": make(tmp_path, server(0.1), "--concurrency", 4)}
    text, summary = both(runs, "b", "d")
    assert summary["latency"] == {}
    assert "Latency is not compared: A was measured at concurrency 1, " in text.stdout


def test_too_few_personas_are_said_instead_of_a_number(tmp_path):
    runs = {
        "a": make(tmp_path, server(0.9), personas=4, name="a"),
        "b": make(tmp_path, server(0), personas=4, name="b"),
    }
    text, summary = both(runs, "a", "b")
    assert text.exit_code == 3 and summary["verdict"] == "inconclusive"
    assert text.stdout.startswith("Too few personas to compare: 4, and 6 are the least")


def test_no_shared_items_are_said_instead_of_a_number(runs, tmp_path):
    other = {"a": runs["a"], "d": make(tmp_path, server(0.1), line="Line {}, what else?")}
    text, summary = both(other, "a", "d")
    assert text.exit_code == 3 and summary["scores"] == {} and summary["asked_otherwise"] == 48
    assert text.stdout.startswith("A and B share no items") and "asked something else" in text.stdout


def test_a_score_that_is_not_there_is_named(runs):
    with pytest.raises(ConfigError, match=r"no score 'charm' in it\. There are: .*in_character"):
        pipeline("compare", runs["a"], runs["b"], "--score", "charm")


@pytest.mark.parametrize("option", ["--item", "--cluster"])
def test_a_run_needs_no_names_of_columns(runs, option):
    with pytest.raises(ConfigError, match="a run knows its items"):
        pipeline("compare", runs["a"], runs["b"], option, "id")


def test_a_run_whose_tables_are_gone_or_broken_is_named(runs, tmp_path):
    run = make(tmp_path, server(0.1), personas=2)
    (run / "scores.parquet").write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match=r"scores\.parquet: not a whole table"):
        pipeline("compare", runs["a"], run)
    (run / "scores.parquet").unlink()
    with pytest.raises(ConfigError, match=f"made again by: pipeline eval {run}"):
        pipeline("compare", runs["a"], run)
    (run / "results.json").unlink()
    with pytest.raises(ConfigError, match=f"pipeline eval --resume {run}"):
        pipeline("compare", runs["a"], run)


# Scores from anywhere


def judged(better, personas=10, each=4):
    """Rows of somebody's judge: a preference from 0 to 1, and a rate of slop."""
    return [
        {
            "id": f"q{p}-{n}",
            "persona": f"p{p}",
            "preference": round(min(1, share("x", p, n) * 0.6 + better), 6),
            "slop": round(5 * share("s", p, n) + 4 * better + share(better, p, n), 6),
            "output": f"text {better} {p} {n}",
        }
        for p in range(personas)
        for n in range(each)
    ]


def write(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), "utf-8")
    elif path.suffix == ".csv":
        out = io.StringIO()
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        path.write_text(out.getvalue(), "utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


COLUMNS = ("--item", "id", "--cluster", "persona", "--score", "preference", "--score", "slop")


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_tables_of_every_kind_say_the_same(tmp_path, kind):
    a, b = (write(tmp_path / f"{name}.{kind}", judged(better)) for name, better in (("a", 0.0), ("b", 0.3)))
    text = pipeline("compare", a, b, *COLUMNS)
    assert text.exit_code == 0
    first = text.stdout.splitlines()[0]
    assert first.startswith("B is better at preference: +30.0") and "; worse at slop: +1." in first
    assert "40 items of 10 clusters (persona) are in both" in text.stdout
    assert "text 0.3" in text.stdout  # what flipped


def test_less_slop_is_better(tmp_path):
    a, b = write(tmp_path / "a.jsonl", judged(0.3)), write(tmp_path / "b.jsonl", judged(0.0))
    summary = json.loads(pipeline("compare", a, b, *COLUMNS, "--json").stdout)
    assert summary["scores"]["slop"]["verdict"] == "better" and summary["scores"]["slop"]["less_is_better"]
    assert summary["scores"]["slop"]["difference"]["difference"] < 0
    assert summary["verdict"] == "mixed"


def test_without_clusters_items_count_as_independent(tmp_path):
    a, b = (write(tmp_path / f"{name}.csv", judged(better)) for name, better in (("a", 0.0), ("b", 0.01)))
    text = pipeline("compare", a, b, "--item", "id", "--score", "preference")
    assert "Items count as independent" in text.stdout
    summary = json.loads(pipeline("compare", a, b, "--item", "id", "--score", "preference", "--json").stdout)
    x, y = ([row["preference"] for row in judged(better)] for better in (0.0, 0.01))
    found = summary["scores"]["preference"]
    assert found["a"]["value"] == pytest.approx(sum(x) / 40) and found["difference"]["clusters"] == 40
    assert found["difference"]["se"] == pytest.approx(scipy.stats.sem([j - i for i, j in zip(x, y, strict=True)]))


def test_rows_of_the_same_item_are_repeats(tmp_path):
    once = judged(0.2)
    twice = [row | {"preference": row["preference"] + shift} for row in once for shift in (-0.05, 0.05)]
    a, b, c = (write(tmp_path / f"{n}.jsonl", rows) for n, rows in enumerate((judged(0.0), once, twice)))
    one, other = (json.loads(pipeline("compare", a, x, *COLUMNS[:6], "--json").stdout) for x in (b, c))
    assert one["scores"]["preference"]["difference"] == pytest.approx(other["scores"]["preference"]["difference"])


def test_a_missing_score_is_a_state_and_never_a_zero(tmp_path):
    rows = judged(0.0)
    holes = [{**row, "preference": None if n % 10 == 0 else float("nan") if n % 10 == 1 else row["preference"]}
             for n, row in enumerate(rows)]  # fmt: skip
    a, b = write(tmp_path / "a.jsonl", rows), write(tmp_path / "b.jsonl", holes)
    summary = json.loads(pipeline("compare", a, b, *COLUMNS[:6], "--json").stdout)
    assert summary["states"] == {"no score": [0, 8], "scored": [40, 32]}
    assert summary["scores"]["preference"]["difference"]["difference"] == 0
    assert summary["scores"]["preference"]["difference"]["n"] == 32


@pytest.mark.parametrize(
    "content, words",
    [
        ('{"id": 1, "persona": "p", "preference": 1}\n{"id": 2, "persona": "p", "preference": "good"}', r":2: preference: 'good' is no number"),
        ('{"id": 1, "persona": "p", "preference": 1}\n{"id": 2,', r":2: not JSON"),
        ('{"id": 1, "persona": "p", "preference": 1}\n{"persona": "p", "preference": 1}', r":2: no 'id', which --item names"),
        ('{"id": 1, "preference": 1}', r":1: no 'persona', which --cluster names"),
        ('{"id": 1, "persona": "p", "preference": 1e999}', r":1: preference: 'inf' is no number"),
        ('{"id": 1, "persona": "p", "preference": [1]}', r":1: preference: '\[1\]' is no number"),
        ("", "nothing in it"),
        ("[1]", ":1: "),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named_with_its_line(tmp_path, content, words):
    (tmp_path / "a.jsonl").write_text(content, "utf-8")
    with pytest.raises(ConfigError, match=words):
        read_arm(str(tmp_path / "a.jsonl"), Columns("id", "persona", ("preference",)))


def test_a_table_without_names_of_columns_says_which_there_are(tmp_path):
    path = write(tmp_path / "a.jsonl", judged(0.0))
    with pytest.raises(ConfigError, match=r"which columns.*Found: id, persona, preference"):
        read_arm(str(path), Columns())
    with pytest.raises(ConfigError, match="no column 'charm'"):
        read_arm(str(write(tmp_path / "a.csv", judged(0.0))), Columns("id", None, ("charm",)))
    with pytest.raises(ConfigError, match="nowhere"):
        read_arm(str(tmp_path / "nowhere.jsonl"), Columns("id", None, ("charm",)))


# inspect_ai and lm-eval


def inspect_samples(seed, epochs=2):
    return [
        {
            "id": f"s{n}",
            "epoch": epoch,
            "input": f"Line {n}?",
            "target": "yes",
            "metadata": {"persona": f"p{n % 8}"},
            "output": {"model": "m", "completion": f"answer {seed}"},
            "scores": {
                "match": {"value": "CIPN"[int(4 * share(seed, n, epoch))], "answer": "yes"},
                "judge": {"value": {"voice": share(seed, n), "humour": seed * 3 + share(n)}, "explanation": "so"},
                "flag": {"value": True},
                "list": {"value": [1, 2]},
                "none": {"value": float("nan")},
            },
        }
        for n in range(24)
        for epoch in range(1, epochs + 1)
    ]


def eval_log(path, samples, method):
    """A zip as inspect_ai writes it; newer versions compress with zstd, which Python's zipfile cannot before 3.14."""
    directory, out = b"", io.BytesIO()
    parts = [("header.json", {"version": 2, "status": "success"}), ("summaries.json", samples[:1])]
    parts += [(f"samples/{s['id']}_epoch_{s['epoch']}.json", s) for s in samples]
    if method != 93:
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, value in parts:
                archive.writestr(name, json.dumps(value))
        return path
    for name, value in parts:
        raw = json.dumps(value).encode()
        packed = pa.compress(raw, codec="zstd", asbytes=True)
        fields = struct.pack("<HHHHHIIIHH", 20, 0, 93, 0, 33, zipfile.crc32(raw), len(packed), len(raw), len(name), 0)
        directory += b"PK\x01\x02" + struct.pack("<H", 20) + fields + struct.pack("<HHHII", 0, 0, 0, 0, out.tell())
        directory += name.encode()
        out.write(b"PK\x03\x04" + fields + name.encode() + packed)
    end = struct.pack("<HHHHIIH", 0, 0, len(parts), len(parts), len(directory), out.tell(), 0)
    path.write_bytes(out.getvalue() + directory + b"PK\x05\x06" + end)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, 93])
def test_logs_of_inspect_are_read(tmp_path, method):
    a = eval_log(tmp_path / "a.eval", inspect_samples(0), method)
    b = tmp_path / "b.json"
    b.write_text(json.dumps({"version": 2, "eval": {}, "samples": inspect_samples(1)}), "utf-8")
    text = pipeline("compare", a, b, "--cluster", "persona")
    assert text.exit_code == 0
    assert text.stdout.startswith("B is better at judge.humour: +3.")
    summary = json.loads(pipeline("compare", a, b, "--cluster", "persona", "--json").stdout)
    assert set(summary["scores"]) == {"match", "judge.voice", "judge.humour", "flag"}
    assert (summary["items"], summary["clusters"]) == (24, 8)
    values = {"C": 1.0, "P": 0.5, "I": 0.0}
    graded = {}
    for sample in inspect_samples(0):
        if (letter := sample["scores"]["match"]["value"]) in values:
            graded.setdefault(sample["id"], []).append(values[letter])
    arm = read_arm(str(a), Columns())
    assert arm.means("match") == {(item, item): sum(v) / len(v) for item, v in graded.items()}
    assert arm.without["match"] == sum(s["scores"]["match"]["value"] == "N" for s in inspect_samples(0))


def test_a_sample_that_failed_is_an_error_and_no_score(tmp_path):
    samples = inspect_samples(0, epochs=1)
    samples[3] |= {"scores": {}, "error": {"message": "lost"}}
    arm = read_arm(str(eval_log(tmp_path / "a.eval", samples, zipfile.ZIP_DEFLATED)), Columns())
    assert arm.states == {"scored": 23, "error": 1}


def test_a_log_that_is_none_is_named(tmp_path):
    (tmp_path / "a.eval").write_bytes(b"PK nothing")
    with pytest.raises(ConfigError, match=r"a\.eval: no inspect_ai log"):
        read_arm(str(tmp_path / "a.eval"), Columns())
    with pytest.raises(ConfigError, match=r"b\.eval: no such file"):
        read_arm(str(tmp_path / "b.eval"), Columns())
    log = eval_log(tmp_path / "c.eval", inspect_samples(0), zipfile.ZIP_DEFLATED)
    with pytest.raises(ConfigError, match=r"s0_epoch_1\.json: no 'game' in the sample's metadata.*Found: persona"):
        read_arm(str(log), Columns(cluster="game"))


def lm_eval_rows(seed, filters=("none",)):
    return [
        {
            "doc_id": n,
            "doc": {"question": f"Q{n}", "subject": f"s{n % 8}"},
            "target": str(n),
            "arguments": {"gen_args_0": {"arg_0": f"Q{n}"}},
            "resps": [[f"answer {seed}"]],
            "filtered_resps": [f"answer {seed}"],
            "filter": kind,
            "metrics": ["exact_match", "word_perplexity"],
            "doc_hash": hashlib.sha256(str(n).encode()).hexdigest(),
            "exact_match": float(share(kind, n) < 0.4 + 0.5 * seed),
            "word_perplexity": [1.0, 2],
        }
        for kind in filters
        for n in range(40)
    ]


def test_samples_of_lm_eval_are_read(tmp_path):
    a, b = (write(tmp_path / f"samples_task_{seed}.jsonl", lm_eval_rows(seed)) for seed in (0, 1))
    summary = json.loads(pipeline("compare", a, b, "--json").stdout)
    assert set(summary["scores"]) == {"exact_match"} and summary["items"] == 40
    assert summary["scores"]["exact_match"]["difference"]["test"] == "mcnemar"
    assert summary["verdict"] == "better"
    clustered = json.loads(pipeline("compare", a, b, "--cluster", "subject", "--json").stdout)
    assert clustered["clusters"] == 8 and clustered["scores"]["exact_match"]["difference"]["test"] == "sign-flip"


def test_filters_of_lm_eval_are_scores_of_their_own(tmp_path):
    path = write(tmp_path / "samples_task.jsonl", lm_eval_rows(0, ("strict-match", "flexible-extract")))
    arm = read_arm(str(path), Columns())
    assert set(arm.scores) == {"exact_match,strict-match", "exact_match,flexible-extract"}
    assert len(arm.items) == 40


def test_documents_that_changed_are_no_shared_items(tmp_path):
    rows = [row | {"doc_hash": "other"} for row in lm_eval_rows(1)]
    a, b = write(tmp_path / "a.jsonl", lm_eval_rows(0)), write(tmp_path / "b.jsonl", rows)
    result = pipeline("compare", a, b)
    assert result.exit_code == 3 and "40 have the same name, but were asked something else" in result.stdout


# Whatever comes


VALUES = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(-1e6, 1e6))
ARMS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), VALUES, st.text(max_size=20)), max_size=60)


@settings(deadline=None, max_examples=60)
@given(ARMS, ARMS)
def test_any_two_arms_make_a_sentence_and_a_table(left, right):
    arms = []
    for name, rows in (("A", left), ("B", right)):
        arm = Arm(name)
        replies = [arm.add((str(persona), str(item)), "", text) for persona, item, _, text in rows]
        arm.scores["score\n\x1b"] = replies, [value for _, _, value, _ in rows]
        arms.append(arm)
    summary = compare_arms(*arms)
    json.dumps(summary, allow_nan=False)
    lines = compared(summary).splitlines()
    assert lines[0].endswith(".") and all(line.isprintable() for line in lines)
    assert (summary["verdict"] == "inconclusive") == (summary["why"] is not None)


def test_rates_and_standard_errors_are_those_of_a_leaderboard_made_of_such_judgments(tmp_path):
    """Pairwise preferences as JSON, one an instruction: the mean, and scipy's standard error of it."""
    draw = random.Random(3)
    arms = []
    for name in "ab":
        rows = [
            {"instruction": f"Tell me of {n}", "output_1": "x", "preference": 1 + draw.random(), "n": n}
            for n in range(300)
        ]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows), "utf-8")
        arms.append([row["preference"] for row in rows])
    found = pipeline(
        *("compare", tmp_path / "a.json", tmp_path / "b.json"),
        *("--item", "instruction", "--score", "preference", "--json"),
    )
    score = json.loads(found.stdout)["scores"]["preference"]
    for side, values in zip("ab", arms, strict=True):
        assert score[side]["value"] == pytest.approx(sum(values) / 300)
        assert score[side]["se"] == pytest.approx(scipy.stats.sem(values))
