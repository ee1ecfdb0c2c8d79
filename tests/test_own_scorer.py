"""`--scorer file.py:function`: what a user's own scorer may return, what it decides in a run, and what is said when it is wrong."""

import json
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import yaml
from curated import CALM, Server, contents, curate, generate, pipeline, replies, rows, write_inputs
from hypothesis import given
from hypothesis import strategies as st

from pipeline import ConfigError, load_run
from pipeline.curation.criteria import Bounds, load_criteria
from pipeline.records import Completion, Item, Score, Turn
from pipeline.scorers.own import own_scorer


def turn(text: str = "Aye.") -> Turn:
    about = {"category": "c", "player": "P", "lines": ("Hi",), "template": "t", "sample": 0}
    item = Item(npc=SimpleNamespace(id="borin"), scenario_id="s", **about)
    return Turn(item=item, line="Hi", request=None, completion=Completion(text=text))


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes mine.py into the working directory; returns the spec of its function `mine`."""
    monkeypatch.chdir(tmp_path)
    number = 0

    def written(code: str, name: str = "mine") -> str:
        nonlocal number
        number += 1  # a file of its own: two of the same moment could not be told apart
        Path(f"mine{number}.py").write_text(code, "utf-8")
        return f"mine{number}.py:{name}"

    return written


def refused(spec: str) -> str:
    with pytest.raises(ConfigError) as caught:
        own_scorer(spec)
    return str(caught.value)


def failed(spec: str, **settings) -> str:
    scorer = own_scorer(spec)
    with pytest.raises(ConfigError) as caught:
        scorer(turn(), **settings)
    return str(caught.value)


# What it may return


@pytest.mark.parametrize(
    "value, score",
    [
        ("True", 1.0),
        ("False", 0.0),
        ("None", None),
        ("0.25", 0.25),
        ("3", 3.0),
        ("-2", -2.0),
        ("np.float32(0.5)", 0.5),
        ("np.int64(7)", 7.0),
        ("np.bool_(True)", 1.0),
        ("np.array(0.5)", 0.5),
    ],
)
def test_a_number_or_a_truth_value_is_a_score(value, score, write):
    found = own_scorer(write(f"import numpy as np\ndef mine(turn): return {value}"))(turn())
    assert found == Score(score) and type(found.value) in (float, type(None))


@pytest.mark.parametrize("value, score", [("1", 1.0), ("True", 1.0), ("None", None)])
def test_a_score_keeps_its_reason_and_evidence(value, score, write):
    spec = write(f"from pipeline.records import Score\ndef mine(turn): return Score({value}, 'why', turn.text)")
    assert own_scorer(spec)(turn()) == Score(score, "why", "Aye.")


def test_a_reason_that_is_no_text_is_spelled(write):
    spec = write("from pipeline.records import Score\ndef mine(turn): return Score(0, 3, ['a'])")
    assert own_scorer(spec)(turn()) == Score(0.0, "3", "['a']")


@pytest.mark.parametrize(
    "value, said",
    [
        ("'good'", "returned a str"),
        ("[1]", "returned a list"),
        ("float('nan')", "returned nan"),
        ("float('inf')", "returned inf"),
        ("Score('good')", "returned a str"),
        ("Score(float('nan'))", "returned nan"),
    ],
)
def test_anything_else_is_refused_with_the_reply_it_was_for(value, said, write):
    message = failed(write(f"from pipeline.records import Score\ndef mine(turn): return {value}"))
    assert said in message and turn().item.item_id in message and "None where it does not apply" in message


# What it may be


def test_settings_are_its_keyword_parameters(write):
    spec = write("def mine(turn, *, limit=3): return len(turn.text) <= limit")
    assert own_scorer(spec)(turn()) == Score(0.0)
    assert own_scorer(spec)(turn(), limit=4) == Score(1.0)


@pytest.mark.parametrize("parameters", ["turn, *, limit=3", "turn, limit=3", "turn, *, limit"])
def test_settings_come_by_set_and_what_is_no_setting_is_named(parameters, write):
    spec = write(f"def mine({parameters}): return limit / 10")
    panel = load_criteria(["mine.limit=7"], [spec]).panel(lambda: [])
    assert panel.of_reply["mine"](turn()) == Score(0.7)
    with pytest.raises(ConfigError, match=r"mine has no 'limt'. It has: limit, max, min"):
        load_criteria(["mine.limt=7"], [spec])


def test_a_setting_is_of_the_kind_of_its_default(write):
    spec = write("def mine(turn, *, limit=3, strict=False, word='aye'): return 1")
    load_criteria(["mine.limit=2.5", "mine.strict=on", "mine.word=nay"], [spec])
    for setting in ("mine.limit=few", "mine.strict=2"):
        with pytest.raises(ConfigError, match=setting.partition("=")[0]):
            load_criteria([setting], [spec])


def test_without_bounds_of_its_own_half_is_enough_to_pass(write):
    spec = write("def mine(turn): return 1")
    assert load_criteria((), [spec]).filters["mine"] == Bounds(least=0.5)
    assert load_criteria(["mine.min=none", "mine.max=8"], [spec]).filters["mine"] == Bounds(most=8)


def test_it_comes_after_all_that_ship_and_can_be_left_out(write):
    spec = write("def mine(turn): return 1")
    assert list(load_criteria((), [spec]).filters)[-1] == "mine"
    assert "mine" not in load_criteria(["mine=off"], [spec]).filters


@pytest.mark.parametrize(
    "code",
    [
        "mine = lambda turn: True",
        "from functools import partial\ndef base(turn, x): return x\nmine = partial(base, x=True)",
        "class Mine:\n    def __call__(self, turn): return True\nmine = Mine()",
        "def deco(f):\n    def wrapper(turn): return f(turn)\n    return wrapper\n@deco\ndef mine(turn): return True",
    ],
)
def test_whatever_can_be_called_goes_by_the_name_it_was_given(code, write):
    panel = load_criteria((), [write(code)]).panel(lambda: [])
    assert panel.of_reply["mine"](turn()) == Score(1.0)


def test_a_dataclass_in_its_file_works(write):
    spec = write(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Limits:\n    most: int = 3\n"
        "def mine(turn): return Limits().most"
    )
    assert own_scorer(spec)(turn()) == Score(3.0)


def test_a_file_is_run_once_however_many_functions_are_taken_from_it(write):
    Path("ran").write_text("")
    spec = write("with open('ran', 'a') as file: file.write('x')\ndef mine(turn): return 1\ndef other(turn): return 0")
    for _ in range(2):
        load_criteria((), [spec, spec.replace(":mine", ":other")])
    assert Path("ran").read_text() == "x"


# What can be wrong


@pytest.mark.parametrize("spec", ["mine.py", "mine.py:", ":", "", "mine.py:a-b", "mine.py:a.b"])
def test_a_spec_that_cannot_be_read_is_told_how_to_be(spec):
    assert refused(spec) == f"--scorer {spec}: it has to read file.py:function."


def test_a_file_that_is_not_there_is_named(tmp_path):
    assert "there is no file nowhere.py" in refused("nowhere.py:f")
    assert f"there is no file {tmp_path}" in refused(f"{tmp_path}:f")


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "scorer.txt").write_text("def f(turn): return 1")
    assert "has to end in .py" in refused(f"{tmp_path / 'scorer.txt'}:f")


def test_a_function_that_is_not_there_is_named_with_those_that_are(write):
    spec = write("from json import dumps\nhelper = 3\ndef other(turn): return 1\ndef another(turn): return 1")
    assert "has no function mine. It has: another, other." in refused(spec)
    assert "It has: none." in refused(write("x = 1"))
    assert "has no function helper" in refused(spec.replace(":mine", ":helper"))


@pytest.mark.parametrize(
    "code, line, said",
    [
        ("x = 1\ndef mine(turn) return 1", 2, "SyntaxError"),
        ("\n\nimport no_such_module_of_ours", 3, "ModuleNotFoundError: No module named 'no_such_module_of_ours'"),
        ("x = 1\n1 / 0", 2, "ZeroDivisionError"),
        ("def deep(): return {}['x']\n\ny = deep()", 1, "KeyError"),
        ("import sys\nsys.exit()", 2, "SystemExit"),
    ],
)
def test_a_file_that_cannot_be_run_is_named_with_its_line(code, line, said, write):
    spec = write(code)
    message = refused(spec)
    assert f"{spec.partition(':')[0]}:{line}: {said}" in message


def test_an_exception_inside_names_line_reply_and_persona(write):
    spec = write("def mine(turn):\n    words = turn.text.split()\n    return 1 / (len(words) - 1)\n")
    message = failed(spec)
    assert f"failed on the reply {turn().item.item_id} of borin" in message
    assert f"{spec.partition(':')[0]}:3: ZeroDivisionError" in message


def test_an_exception_in_what_it_calls_names_the_line_of_the_users_own_file(write):
    assert ".py:3: JSONDecodeError" in failed(write("import json\ndef mine(turn):\n    return json.loads(turn.text)\n"))


@pytest.mark.parametrize("name", ["finished", "duplicates", "selection", "duplicate", "train_prompt", "max_per_prompt"])
def test_a_name_that_is_taken_is_refused(name, write):
    with pytest.raises(ConfigError, match=f"there is a {name} already. Give the function another name"):
        load_criteria((), [write(f"def {name}(turn): return 1", name)])


def test_of_two_scorers_of_one_name_the_second_is_refused(write):
    specs = [write("def mine(turn): return 1"), write("def mine(turn): return 0")]
    with pytest.raises(ConfigError, match="there is a mine already"):
        load_criteria((), specs)


@given(st.text(max_size=20))
def test_no_spec_leads_anywhere_but_to_a_sentence(spec):
    assert refused(spec).startswith("--scorer ")


# In a run


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
