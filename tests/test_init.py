"""`pipeline init`: what it writes works at once and teaches by good example; every command that it says to type works as typed."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from fakes import FakeServer
from test_scorers import CRITERIA, failing, score, turn

from pipeline.cli import cli
from pipeline.cli.starter import make_starter, starter_files
from pipeline.curation.criteria import load_criteria
from pipeline.errors import ConfigError
from pipeline.evaluation.suite import read_suite
from pipeline.personas.load import load_personas, load_scenarios, read_personas
from pipeline.personas.schema import Persona, Scenario
from pipeline.prompts.templates import Templates
from pipeline.server.project import FILE, read_project

KEPT_ANYHOW = ("--set", "voice=off", "--set", "overused=off")  # a fake server has nobody's voice


def pipeline(*words: object) -> str:
    done = CliRunner().invoke(cli, list(map(str, words)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def served_by(server: FakeServer) -> None:
    file = Path("pipeline.toml")
    file.write_text(file.read_text("utf-8").replace('http://127.0.0.1:5000"\n', f'{server.url}"\n'), "utf-8")


def npcs(folder: Path, scratch: Path) -> list:
    checked = load_personas(str(folder / "personas"), scratch, strict=True)
    assert not checked.notes
    return list(read_personas(scratch))


def scenarios(folder: Path) -> list[Scenario]:
    found, checked = load_scenarios(str(folder / "scenarios"), strict=True)
    assert not checked.notes
    return found


# --- what is in it


def test_every_row_is_good_and_the_suite_shares_nothing_with_what_is_trained_on(own, tmp_path):
    found = []
    for folder in (own, own / "suite"):
        people, plays = npcs(folder, tmp_path / "p.jsonl"), scenarios(folder)
        assert len(people) >= 2 and len(plays) >= 4
        assert all(any(play.fits(npc) for npc in people) for play in plays)
        lines = {line for play in plays for line in play.turns} | {line for npc in people for line in npc.examples}
        found.append({*lines, *(npc.id for npc in people), *(npc.name for npc in people), *(play.id for play in plays)})
    assert not found[0] & found[1]


def test_it_shows_every_field_there_is(own, tmp_path):
    people, plays = npcs(own, tmp_path / "p.jsonl"), scenarios(own)
    for model, rows in ((Persona, people), (Scenario, plays)):
        shown = {name for row in rows for name in model.model_fields if getattr(row, name)}
        assert model.model_fields.keys() - shown <= {"lore_budget"}
    assert any(len(play.turns) > 1 for play in plays) and any("{{ npc.trade }}" in play.turns[0] for play in plays)


def test_the_example_lines_would_all_be_kept(own, tmp_path):
    for folder in (own, own / "suite"):
        for npc in npcs(folder, tmp_path / "p.jsonl"):
            for line in filter(None, (*npc.examples, npc.greeting)):
                assert failing(score(turn(line, npc=npc))) == [], (npc.id, line)


def test_the_speakers_are_told_apart_by_ear(own, tmp_path):
    """The filter `voice` keeps each line with its own speaker, and drops most of those that another one says."""
    people = npcs(own, tmp_path / "p.jsonl")
    voice = CRITERIA.panel(lambda: people).of_reply["voice"]
    for npc in people:
        for other in people:
            found = voice(turn("\n".join(other.examples), npc=npc)).value
            assert CRITERIA.filters["voice"].passes(found) == (npc is other), (npc.id, other.id, found)


def test_a_tenth_of_the_scenarios_is_held_out_as_its_comment_says(own):
    from pipeline.run.splits import TRAIN, Splitter

    held_out = [play.id for play in scenarios(own) if Splitter("scenario").split("tagg", play.id) != TRAIN]
    assert held_out == ["red-door"]
    assert "of these it is red-door" in (own / "scenarios" / "ninelocks.yaml").read_text("utf-8")


def test_the_files_are_the_same_on_every_system(own):
    assert {path.relative_to(own) for path in own.rglob("*") if path.is_file()} == set(starter_files())
    for file in starter_files():
        text = (own / file).read_bytes().decode("utf-8")
        assert "\r" not in text and "\t" not in text and text.endswith("\n")
        assert max(map(len, text.splitlines())) <= 200


def uncommented(file: Path, which: str) -> None:
    """With the hashes taken away from the lines that the pattern finds."""
    text = file.read_text("utf-8")
    changed = re.sub(rf"^( *)# ?({which})", r"\1\2", text, flags=re.MULTILINE)
    assert changed != text
    file.write_text(changed, "utf-8")


def test_what_is_commented_out_is_right_too(own, tmp_path):
    from pipeline.evaluation.gates import parse_gate

    uncommented(own / "personas" / "ninelocks.yaml", '(?:- id: somebody|  [a-z]+:|    - "\\.)')
    assert [npc.id for npc in npcs(own, tmp_path / "p.jsonl")] == ["tagg", "dulcie", "somebody"]
    uncommented(own / "pipeline.toml", "(?:[a-z]+ = |\\[|url)")
    project = read_project()
    assert set(project.targets) == {"mine", "other"} and project.defaults.server == "mine"
    assert project.targets["mine"].model_dump(exclude_none=True).keys() >= {
        "url",
        "model",
        "key",
        "timeout",
        "concurrency",
    }
    uncommented(own / "suite" / "suite.yaml", '(?:scorers: |- "[a-z])')
    suite = read_suite("suite")
    assert len(suite.gates) == 4 and all(parse_gate(gate, load_criteria().filters) for gate in suite.gates)
    assert suite.settings


# --- what to type next


def test_every_command_in_its_comments_works_as_written(own):
    texts = [(own / file).read_text("utf-8") for file in starter_files()]
    commands = {
        line for text in texts for line in re.findall(r"^(?:#| ) {3,}(pipeline .*?)(?:  .*)?$", text, re.MULTILINE)
    }
    assert len(commands) >= 6
    for command in commands:
        words = shlex.split(command)[1:]
        if words[0] in ("generate", "eval") and "--dry-run" not in words:
            words.append("--dry-run")
        done = CliRunner().invoke(cli, words)
        assert done.exit_code == 0, (command, done.output)


def test_every_command_that_it_prints_works_as_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = pipeline("init", "my")
    commands = [shlex.split(line, comments=True) for line in said.splitlines() if line.startswith("    ")]
    assert commands[0] == ["cd", "my"] and len(commands) + 1 <= 10  # and init itself
    assert [words[1] for words in commands[1:]] == ["doctor", "generate", "generate", "ping", "generate", "eval"]
    monkeypatch.chdir(commands[0][1])
    with FakeServer() as server, FakeServer(models=("small",)) as inside:
        served_by(server)
        monkeypatch.setenv("LLM_HOST", inside.url)  # instead of the embedded model, for the one that names no server
        for program, *words in commands[1:]:
            assert program == "pipeline"
            done = CliRunner().invoke(cli, [*words, *(KEPT_ANYHOW if words[0] == "generate" else ())])
            assert done.exit_code == 0, (words, done.output, done.exception)
        asked = {message["content"] for body in server.requests for message in body["messages"]}
    assert any("Ephraim Tagg: Third in line." in text for text in asked)
    datasets = list(Path("runs").glob("generate-*/dataset/sft/train.parquet"))
    assert len(datasets) == 2 and len(inside.requests) == 14


def test_a_third_persona_makes_a_dataset_of_three(own):
    with (own / "personas" / "mira.yaml").open("w", encoding="utf-8") as file:
        file.write("id: mira\nname: Mira\ndescription: a ferrywoman\nexamples: [Mind the plank.]\n")
    with FakeServer() as server:
        served_by(server)
        made = json.loads(pipeline("generate", "--server", "mine", *KEPT_ANYHOW, "--quiet", "--json"))
    assert made["asked"] == 2 * 7 + 5  # she has neither a trade nor a secret
    assert made["kept"]


def test_eval_never_asks_those_who_train(own):
    counted = json.loads(pipeline("eval", "--dry-run", "--json"))
    assert (counted["personas"], counted["scenarios"]) == (6, 4)
    assert "Applegarth" not in json.dumps(counted["first_requests"])


# --- defaults


def test_what_stands_in_the_file_is_the_same_run_as_what_is_typed(own):
    typed = ("--personas", "personas", "--scenarios", "scenarios", "--per-persona", "all", "--template", "npc/mine")
    with FakeServer() as server:
        served_by(server)
        first = json.loads(pipeline("generate", "--server", "mine", *KEPT_ANYHOW, "--json", "--quiet"))
        asked = len(server.requests)
        (own / "pipeline.toml").write_text("# nothing\n", "utf-8")
        again = json.loads(pipeline("generate", "--server", server.url, *typed, *KEPT_ANYHOW, "--json", "--quiet"))
    assert again["run"] == first["run"] and len(server.requests) == asked == 14


def test_the_command_line_goes_before_the_file_and_the_file_before_the_environment(own, monkeypatch):
    monkeypatch.setenv("LLM_HOST", "http://127.0.0.1:9")
    FILE.write_text(FILE.read_text("utf-8").replace('# server = "mine"', 'server = "mine"'), "utf-8")
    assert "14 requests to http://127.0.0.1:5000" in pipeline("generate", "--dry-run")
    assert "4 requests to http://other:1" in pipeline(
        "generate", "--per-persona", 2, "--server", "http://other:1", "--dry-run"
    )
    assert "to embedded" in pipeline("generate", "--server", "embedded", "--dry-run")
    assert "24 personas" in pipeline("eval", "--suite", "npc", "--dry-run")
    assert "You remember" not in pipeline("generate", "--template", "npc/default", "--dry-run")
    both = pipeline("eval", "--dry-run", "--arm", "own:", "--arm", "usual:template=npc/default,server=http://other:1")
    assert "requests to http://127.0.0.1:5000" in both and "requests to http://other:1" in both


def test_a_model_of_ones_own_is_run_inside_though_the_file_names_a_server(own):
    FILE.write_text(FILE.read_text("utf-8").replace('# server = "mine"', 'server = "mine"'), "utf-8")
    assert "to embedded" in pipeline("generate", "--model-path", "mine.gguf", "--dry-run")


# --- where it cannot be


def refused(folder: Path | str) -> str:
    with pytest.raises(ConfigError) as caught:
        make_starter(Path(folder))
    return str(caught.value)


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert "notes.txt: is in the way" in refused(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    make_starter(tmp_path / "new")
    assert "is in the way" in refused(tmp_path / "new")


def test_a_folder_that_is_empty_but_for_what_is_hidden_will_do(tmp_path):
    (tmp_path / ".git").mkdir()
    assert make_starter(tmp_path)
    assert (tmp_path / "suite" / "suite.yaml").is_file() and (tmp_path / ".git").is_dir()
    assert not list(tmp_path.glob(".starter-*"))


def test_the_folder_around_it_may_be_new_too_and_it_may_be_this_one(tmp_path, monkeypatch):
    make_starter(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b" / "pipeline.toml").is_file()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert "cd " not in pipeline("init", ".")
    assert (tmp_path / "here" / "pipeline.toml").is_file()


def test_a_file_a_link_to_nowhere_and_a_place_that_cannot_be_written_are_told_apart(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert "a file, and no folder" in refused(tmp_path / "file")
    assert "a link to" in refused(tmp_path / "gone") and not (tmp_path / "nowhere").exists()
    assert "Not a directory" in refused(tmp_path / "file" / "my")
    assert "cannot be written" in refused(tmp_path / ("x" * 300))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a place where not even root may write, on Linux")
def test_a_read_only_place_is_refused():
    assert "cannot be written" in refused("/proc/my") and not Path("/proc/my").exists()


def test_a_link_to_an_empty_folder_is_that_folder(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    make_starter(tmp_path / "link")
    assert (tmp_path / "real" / "pipeline.toml").is_file() and (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("name", ["my npcs", "it's", "-rf", "ü 桜", "$HOME;ls", "a'b\"c"])
@pytest.mark.skipif(os.name == "nt", reason="a shell of POSIX")
def test_the_way_into_a_folder_of_any_name_can_be_typed(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [enter] = [line for line in pipeline("init", "--", name).splitlines() if line.startswith("    cd ")]
    done = subprocess.run(["sh", "-c", f"{enter} && ls"], capture_output=True, text=True)
    assert "pipeline.toml" in done.stdout, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31mred", "a\x00b"])
def test_a_name_that_a_terminal_would_obey_is_refused(name, tmp_path):
    assert "no name for a folder" in refused(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="ulimit")
def test_a_disk_that_is_full_half_way_leaves_nothing_behind(tmp_path):
    program = f"ulimit -f 4; {shlex.quote(sys.executable)} -m pipeline init my"  # no file of over 2 KB
    done = subprocess.run(["sh", "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and "my: cannot be written: File too large" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_prompt_is_one_of_ones_own_and_whole(own):
    prompt = Templates().prompt("npc/mine")
    assert prompt.roles == ["system", "user"]
