"""A suite is a folder, suite.yaml says what is asked, and what is wrong with it is found before anything is asked."""

import json

import pytest
from click.testing import CliRunner
from fakes import FakeServer

from pipeline.cli import cli
from pipeline.errors import ConfigError
from pipeline.evaluation.suite import read_suite
from pipeline.personas.load import load_personas, load_scenarios, read_personas
from pipeline.resources import shipped

SUITES = ("quick", "npc", "adversarial")


def pipeline(*arguments):
    return CliRunner().invoke(cli, list(map(str, arguments)), catch_exceptions=False)


def make(folder, text="", personas=3):
    folder.mkdir(exist_ok=True)
    people = [{"id": f"n{n}", "name": f"Npc {n}", "description": "a ferryman"} for n in range(personas)]
    acts = [{"id": f"s{n}", "category": "greeting", "turns": [f"Line {n}?"]} for n in range(4)]
    for name, rows in (("people", people), ("acts", acts)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    (folder / "suite.yaml").write_text(f"personas: people.jsonl\nscenarios: acts.jsonl\n{text}", "utf-8")
    return folder


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_that_ships_is_whole_and_says_what_it_is(name):
    assert read_suite(name).description


def test_the_npc_suite_has_two_dozen_personas_of_its_own(tmp_path):
    assert load_personas(read_suite("npc").personas, tmp_path / "p.jsonl").good >= 24


@pytest.mark.parametrize("name", SUITES)
def test_no_suite_has_a_persona_or_a_scenario_that_generate_uses(name, tmp_path):
    suite, used = read_suite(name), shipped("data")
    ids = []
    for personas, scenarios in ((suite.personas, suite.scenarios), (used / "personas", used / "scenarios")):
        load_personas(str(personas), tmp_path / "p.jsonl")
        lines = {line for s in load_scenarios(str(scenarios))[0] for line in s.turns}
        ids.append({npc.name for npc in read_personas(tmp_path / "p.jsonl")} | lines)
    assert not ids[0] & ids[1]


def test_what_it_says_is_what_is_asked(tmp_path):
    suite = make(tmp_path / "mine", "per_persona: 2\nrepeats: 3\nscorers: [in_character, finished]\n")
    with FakeServer() as server:
        done = pipeline("eval", "--suite", suite, "--server", server.url, "--out", tmp_path / "run", "--json")
    summary = json.loads(done.stdout)
    assert (summary["asked"], summary["items"], summary["personas"]) == (18, 6, 3)
    assert set(summary["scores"]) == {"in_character", "finished"}


def test_the_command_line_goes_before_the_suite(tmp_path):
    suite = make(tmp_path / "mine", "per_persona: 2\nrepeats: 3\nscorers: [finished]\n")
    with FakeServer() as server:
        options = ["--per-persona", "all", "--repeats", 1, "--set", "slop=on"]
        done = pipeline("eval", "--suite", suite, *options, "--server", server.url, "--out", tmp_path / "r", "--json")
    summary = json.loads(done.stdout)
    assert summary["asked"] == 12 and set(summary["scores"]) == {"finished", "slop"}


def test_a_gate_of_the_suite_decides_the_exit_code(tmp_path):
    suite = make(tmp_path / "mine", 'gates: ["box_length >= 0.1", "e2e_p50 <= 0.000001"]\n', personas=12)
    with FakeServer() as server:
        done = pipeline("eval", "--suite", suite, "--server", server.url, "--out", tmp_path / "run")
    assert done.exit_code == 1
    assert "passed" in done.stdout and "failed" in done.stdout


def test_a_scorer_of_ones_own_lies_beside_the_suite(tmp_path):
    suite = make(tmp_path / "mine", "scorers: ['own.py:short']\n")
    code = "from pipeline import Score\n\ndef short(turn):\n    return Score(float(len(turn.text) < 500))\n"
    (suite / "own.py").write_text(code, "utf-8")
    with FakeServer() as server:
        done = pipeline(
            "eval", "--suite", suite / "suite.yaml", "--server", server.url, "--out", tmp_path / "r", "--json"
        )
    assert set(json.loads(done.stdout)["scores"]) == {"short"}


def test_a_folder_without_suite_yaml_has_personas_and_scenarios(tmp_path):
    suite = make(tmp_path / "mine")
    (suite / "suite.yaml").unlink()
    (suite / "people.jsonl").rename(suite / "personas")
    (suite / "acts.jsonl").rename(suite / "scenarios")
    assert read_suite(str(suite)).per_persona == 4


@pytest.mark.parametrize(
    "text, said",
    [
        ("repeat: 2", "suite.yaml:3: a suite has no 'repeat'. Did you mean repeats?"),
        ("repeats: 0", "suite.yaml:3: repeats is '0'"),
        ("per_persona: some", "suite.yaml:3: per_persona is 'some'"),
        ("scorers: [in_caracter]", "there is no 'in_caracter'. Did you mean in_character?"),
        ("scorers: in_character", "suite.yaml:3: scorers is"),
        ("\trepeats: 2", "suite.yaml:3"),
        ("gates: ['in_caracter >= 1']", "there is no 'in_caracter'"),
        ("gates: ['slop <= base']", "there is no arm 'base'"),
        ("scorers: ['gone.py:f']", "gone.py"),
    ],
)
def test_what_is_wrong_with_it_is_said_with_its_line_before_anything_is_asked(tmp_path, text, said):
    suite = make(tmp_path / "mine", text)
    with FakeServer() as server:
        with pytest.raises(ConfigError) as caught:
            pipeline("eval", "--suite", suite, "--server", server.url, "--out", tmp_path / "run")
        assert not server.requests
    assert said in str(caught.value)


@pytest.mark.parametrize("key", ["personas", "scenarios"])
def test_a_file_that_is_not_there_is_named(tmp_path, key):
    suite = make(tmp_path / "mine")
    text = (suite / "suite.yaml").read_text("utf-8").splitlines()
    kept = [line for line in text if not line.startswith(key)]
    (suite / "suite.yaml").write_text("\n".join([*kept, f"{key}: elsewhere.yaml"]), "utf-8")
    with pytest.raises(ConfigError, match=rf"{key} 'elsewhere.yaml'"):
        read_suite(str(suite))


def test_an_unknown_suite_is_an_error_that_names_those_there_are():
    with pytest.raises(ConfigError, match="adversarial, npc, quick"):
        read_suite("quik")
