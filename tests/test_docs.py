"""The README keeps its word: its commands and code run, its lists are complete."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from fakes import FakeServer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for kind, text in found if kind == language]


COMMANDS = [
    shlex.split(command, comments=True)
    for block in blocks("sh")
    for line in block.splitlines()
    for command in line.split("&&")
    if command.strip().startswith("pipeline ")
]


@pytest.fixture
def at_home(tmp_path, monkeypatch):
    """A folder with the files that the README shows."""
    monkeypatch.chdir(tmp_path)
    for name in list(__import__("os").environ):
        if name.startswith("LLM_"):
            monkeypatch.delenv(name)
    for block in blocks("yaml"):
        path = Path(block.splitlines()[0].removeprefix("# "))
        path.parent.mkdir(exist_ok=True)
        path.write_text(block, "utf-8")
    (tmp_path / "my" / "cards").mkdir()
    (tmp_path / "my" / "cards" / "mira.json").write_text(json.dumps(MIRA), "utf-8")
    (tmp_path / "my" / "npcs.csv").write_text("who,what\nMira,a ferrywoman\n", "utf-8")
    talk = {"prompt": "Is the ferry going?", "response": "When the fog says so.", "npc": "Mira"}
    (tmp_path / "talks.jsonl").write_text(json.dumps(talk), "utf-8")
    (tmp_path / "npcs.json").write_text(json.dumps([GRUM]), "utf-8")
    return tmp_path


MIRA = {"name": "Mira", "description": "a ferrywoman", "first_mes": "Mind the plank."}
GRUM = {
    "id": "Grum-7",
    "key": "Grum",
    "desc": "a |rgrumpy|n dwarf",
    "location": "The Cellar",
    "prompt_prefix": "You are {name}, {desc}, in {location}.",
    "chat_memory": {"Ann": ["Ann: Ale?", "Grum: Not before noon."]},
}


def with_a_run(home, command):
    """The run that a command is about, the user's own scorer, and no hub."""
    from pipeline.cli import cli

    (home / "scorers.py").write_text(next(block for block in blocks("python") if "no_shouting" in block), "utf-8")
    with FakeServer() as server:
        for run in (word for word in command if word.startswith("runs/")):
            options = ["--server", server.url, "--out", run, "--limit", "12", "--samples", "2", "--set", "overused=off"]
            done = CliRunner().invoke(
                cli, ["generate", *options, "--set", "language=off", "--set", "voice=off", "--quiet"]
            )
            assert done.exit_code == 0, done.output
    if "--push-to-hub" in command:
        pytest.skip("there is no hub here; tests/test_hub.py has one")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_is_understood(command, at_home):
    from pipeline.cli import cli

    if command[1] in ("ping", "compare"):  # they have nothing but a server, or other people's files, to ask
        assert CliRunner().invoke(cli, [*command[1:], "--help"]).exit_code == 0
        return
    if command[1] in ("init", "doctor"):
        done = CliRunner().invoke(cli, command[1:])
        assert done.exit_code == 0, done.output
        return
    if command[1] in ("curate", "export", "personas"):
        with_a_run(at_home, command)
        done = CliRunner().invoke(cli, command[1:])
        assert done.exit_code == 0, done.output
        return
    if "--from" in command:
        with_a_run(at_home, command)
    arguments = command[1:] if "--dry-run" in command else [*command[1:], "--dry-run"]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    assert "POST /v1/chat/completions" in done.output


def test_the_code_for_notebooks_runs(at_home):
    from pipeline.cli import cli

    code = next(block for block in blocks("python") if "load_run" in block)
    with FakeServer() as server:
        CliRunner().invoke(cli, ["generate", "--server", server.url, "--out", "runs/mine", "--limit", "8", "--quiet"])
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_exported_from_evennia_is_read(at_home, monkeypatch):
    class LLMNPC(SimpleNamespace):
        """With what the snippet asks for; tests have no game."""

    class Player(str):
        key = "Ann"

    npc = LLMNPC(key="Grum", id=7, llm_prompt_prefix=GRUM["prompt_prefix"], location=SimpleNamespace(key="The Cellar"))
    npc.db = SimpleNamespace(desc=GRUM["desc"])
    npc.chat_memory = {Player("Ann(#3)"): GRUM["chat_memory"]["Ann"]}
    objects = SimpleNamespace(all=lambda: [SimpleNamespace(key="a chair"), npc])
    monkeypatch.setitem(sys.modules, "evennia", SimpleNamespace(ObjectDB=SimpleNamespace(objects=objects)))
    monkeypatch.setitem(sys.modules, "evennia.contrib.rpg.llm", SimpleNamespace(LLMNPC=LLMNPC))
    exec(next(block for block in blocks("python") if "export_npcs" in block), {})
    assert json.loads((at_home / "npcs.json").read_text("utf-8")) == [GRUM]


def test_the_code_for_games_runs(at_home, monkeypatch):
    code = next(block for block in blocks("python") if "LLMClient" in block)
    with FakeServer(dialects=("textgen",)) as server:
        monkeypatch.setenv("LLM_HOST", server.url)
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        assert server.requests == [
            {"max_new_tokens": 250, "temperature": 0.7, "prompt": "Mira: Well met.\nBorin:"},
        ]
    assert done.stdout.strip()


@pytest.mark.parametrize("command", ["generate", "eval", "curate", "export", "compare", "personas"])
def test_every_option_is_in_the_readme(command):
    from pipeline.cli import cli

    found = cli.commands[command]
    every = [found, *getattr(found, "commands", {}).values()]
    options = {name for one in every for p in one.params for name in p.opts if name.startswith("--")}
    assert not options - set(re.findall(r"--[a-z-]+", README))


def test_the_file_tree_has_every_module():
    tree = next(block for block in blocks("") if "__init__.py" in block)
    modules = {p.relative_to(ROOT / "pipeline").as_posix() for p in (ROOT / "pipeline").rglob("*.py")}
    missing = {m for m in modules if Path(m).name not in tree} - {"dialects/__init__.py"}
    assert not missing
    mentioned = set(re.findall(r"([\w/]+\.py)\b", tree))
    assert not {name for name in mentioned if not list(ROOT.glob(f"*/**/{name}"))}


def test_every_filter_is_explained():
    from pipeline.criteria import DUPLICATE, LIMITS, load_criteria

    assert all(f"`{name}`" in README for name in (*load_criteria().filters, DUPLICATE, *LIMITS))


def test_ci_runs_the_line_that_the_readme_gives():
    line = 'pip install -e ".[test]" && pytest'
    assert line in README and line in (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
