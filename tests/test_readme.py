"""Every fenced block of the README is run: commands to their end against a loopback server, code as it stands, files as files."""

import json
import os
import re
import shlex
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from fakes import FakeServer
from test_compare import eval_log, inspect_samples, judged, lm_eval_rows, write
from test_hub import REPO, FakeHub, push_environment, serving

from pipeline.cli import cli

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
FENCED = [(kind, text) for kind, text in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)]


def blocks(kind: str) -> list[str]:
    return [text for found, text in FENCED if found == kind]


def block(kind: str, has: str) -> str:
    (found,) = (text for text in blocks(kind) if has in text)
    return found


COMMANDS = [
    command
    for text in blocks("sh")
    for line in text.splitlines()
    for part in line.split("&&")
    if (command := shlex.split(part, comments=True))
]
OURS = [command for command in COMMANDS if command[0] == "pipeline"]
MIRA = {"name": "Mira", "description": "a ferrywoman", "first_mes": "Mind the plank."}
GRUM = {
    "id": "Grum-7",
    "key": "Grum",
    "desc": "a |rgrumpy|n dwarf",
    "location": "The Cellar",
    "prompt_prefix": "You are {name}, {desc}, in {location}.",
    "chat_memory": {"Ann": ["Ann: Ale?", "Grum: Not before noon."]},
}


@pytest.fixture
def at_home(tmp_path, monkeypatch):
    """A folder with the files that the README shows or speaks of."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("LLM_", "HF_")):
            monkeypatch.delenv(name)
    named = {text.splitlines()[0].strip("{# }"): text for kind in ("yaml", "jinja") for text in blocks(kind)}
    files = {
        **named,
        "scorers.py": block("python", "def no_shouting"),
        "my/cards/mira.json": json.dumps(MIRA),
        "my/npcs.csv": "who,what\nMira,a ferrywoman\n",
        "talks.jsonl": json.dumps(
            {"prompt": "Is the ferry going?", "response": "When the fog says so.", "npc": "Mira"}
        ),
        "npcs.json": json.dumps([GRUM]),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    return tmp_path


def done(*command, code=(0,)):
    found = CliRunner().invoke(cli, [str(word) for word in command], catch_exceptions=False)
    assert found.exit_code in code, found.output
    return found.output


def runs_in(command):
    return [word for part in command for word in re.findall(r"runs/\w+", part)]


def test_every_block_is_run_by_a_test():
    assert {kind for kind, _ in FENCED} == {"sh", "yaml", "jinja", "toml", "python", ""}
    assert len(blocks("python")) == 6 and len(blocks("toml")) == 1
    assert {text.splitlines()[0] for text in blocks("yaml")} == {
        "# my/personas.yaml",
        "# my/scenarios.yaml",
        "# village/suite.yaml",
    }
    assert [command[0] for command in COMMANDS if command[0] != "pipeline"] == ["pip", "pip", "pytest"]
    assert len(blocks("")) == 3  # what a run leaves, how data flows, the tree of files


@pytest.mark.parametrize("command", OURS, ids=" ".join)
def test_every_command_is_run(command, at_home, monkeypatch):
    with FakeServer() as server:
        monkeypatch.setenv("LLM_HOST", server.url)
        command = [re.sub(r"http://127\.0\.0\.1:\d+", server.url, word) for word in command[1:]]
        for run in runs_in(command):
            if "--out" not in command:
                done("generate", "--out", run, "--samples", 2, "--limit", 24, "--set", "overused=off", "--quiet")
        if command[0] == "compare" and not runs_in(command):
            with_files_to_compare(at_home)
        if "--push-to-hub" in command:
            return pushed(command, at_home)
        if any("FILE.gguf" in word for word in command):  # a model of the reader's own
            return found_in(done(*command, "--dry-run"))
        gated = (0, 1, 3) if "--gate" in command or command[0] == "compare" else (0,)
        said = done(*command, *(["--set", "voice=off"] if command[0] in ("generate", "curate") else []), code=gated)
        if "--dry-run" in command:
            found_in(said)
        elif command[0] in ("generate", "eval"):
            assert server.requests and "report" in said


def found_in(said):
    assert "POST /v1/chat/completions" in said


def with_files_to_compare(folder):
    (folder / "logs").mkdir()
    for seed, name in enumerate("ab"):
        write(folder / f"{name}.jsonl", judged(0.3 * seed))
        eval_log(folder / "logs" / f"{name}.eval", inspect_samples(seed), zipfile.ZIP_DEFLATED)
        write(folder / f"samples_task_{name}.jsonl", lm_eval_rows(seed))


def pushed(command, folder):
    """In a process of its own: the hub's library reads its environment once."""
    with FakeHub() as hub, serving(hub):
        command = [REPO if word == "you/npcs" else word for word in command]
        process = [sys.executable, "-m", "pipeline", *command, "--without-rejected"]
        found = subprocess.run(process, env=push_environment(hub, folder), capture_output=True, text=True)
        assert found.returncode == 0, found.stderr
        (repo,) = hub.repos.values()
        assert repo["private"] and any(path.startswith("sft/") for path in repo["files"])


def test_the_suite_of_ones_own_is_asked(at_home, monkeypatch):
    for name in ("personas", "scenarios"):
        (at_home / "village" / name).mkdir()
        (at_home / "my" / f"{name}.yaml").rename(at_home / "village" / name / "mine.yaml")
    with FakeServer() as server:
        monkeypatch.setenv("LLM_HOST", server.url)
        done("eval", "--suite", "village", "--out", "runs/village", code=(0, 1, 3))
    asked = json.loads((at_home / "runs" / "village" / "run.json").read_text("utf-8"))["asked"]
    assert (asked["turns"], asked["samples"], asked["gates"]) == (2, 2, ["in_character >= 0.9"])


def test_the_server_in_pipeline_toml_is_asked_with_its_key(at_home, monkeypatch):
    monkeypatch.setenv("GPU_KEY", "sk-readme-0123456789")
    with FakeServer() as server:
        text = block("toml", "[targets.gpu]").replace("https://gpu.example:8000", server.url)
        (at_home / "pipeline.toml").write_text(text.replace("mira-7b", "fake-model"), "utf-8")
        done("generate", "--server", "gpu", "--limit", 4, "--max-cost", 5, code=(0, 1))
        assert {headers["Authorization"] for headers in server.headers if "Authorization" in headers} == {
            "Bearer sk-readme-0123456789"
        }
        assert {request["model"] for request in server.requests} == {"fake-model"}


def test_what_a_run_leaves_is_all_there(at_home):
    with FakeServer() as server:
        done("generate", "--server", server.url, "--out", "runs/mine", "--limit", 8, "--set", "voice=off")
    shown = re.findall(r"^  ([\w./]+)  ", block("", "journal/npc.jsonl"), re.MULTILINE)
    left = {p.relative_to("runs/mine").as_posix() for p in Path("runs/mine").rglob("*")}
    assert len(shown) == 8 and {name.rstrip("/") for name in shown} <= left
    assert not {name.partition("/")[0] for name in left} - {name.partition("/")[0] for name in shown} - {".lock"}


def test_the_code_for_notebooks_runs(at_home, monkeypatch):
    with FakeServer() as server:
        monkeypatch.setenv("LLM_HOST", server.url)
        code = "import matplotlib\nmatplotlib.use('agg')\n" + block("python", "load_run")
        found = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
        assert found.returncode == 0, found.stderr
    assert (at_home / "latency.png").read_bytes().startswith(b"\x89PNG")


def test_the_code_for_games_runs(at_home, monkeypatch):
    with FakeServer(dialects=("textgen",)) as server:
        monkeypatch.setenv("LLM_HOST", server.url)
        code = [sys.executable, "-c", block("python", "LLMClient")]
        found = subprocess.run(code, check=True, capture_output=True, text=True)
        assert server.requests == [
            {"max_new_tokens": 250, "temperature": 0.7, "prompt": "Mira: Well met.\nBorin:"},
        ]
    assert found.stdout.strip()


class LLMNPC(SimpleNamespace):
    """With what the README's code asks of Evennia's; tests have no game."""

    def get_display_name(self, looker):
        return self.key

    def build_prompt(self, character, speech):
        return f"{character.key}: {speech}"


@pytest.fixture
def evennia(monkeypatch):
    class Player(str):
        key = "Ann"

    npc = LLMNPC(key="Grum", id=7, llm_prompt_prefix=GRUM["prompt_prefix"], location=SimpleNamespace(key="The Cellar"))
    npc.db = SimpleNamespace(desc=GRUM["desc"])
    npc.chat_memory = {Player("Ann(#3)"): GRUM["chat_memory"]["Ann"]}
    objects = SimpleNamespace(all=lambda: [SimpleNamespace(key="a chair"), npc])
    monkeypatch.setitem(sys.modules, "evennia", SimpleNamespace(ObjectDB=SimpleNamespace(objects=objects)))
    monkeypatch.setitem(sys.modules, "evennia.contrib.rpg.llm", SimpleNamespace(LLMNPC=LLMNPC))


def test_what_is_exported_from_evennia_is_read(at_home, evennia):
    (at_home / "npcs.json").unlink()
    exec(block("python", "export_npcs"), {})
    assert json.loads((at_home / "npcs.json").read_text("utf-8")) == [GRUM]


def test_an_evennia_npc_asks_as_the_model_was_trained(at_home, evennia):
    settings, typeclass = {}, {}
    exec(block("python", "LLM_HOST ="), settings)
    exec(block("python", "class NPC(LLMNPC)"), typeclass)
    prompt = typeclass["NPC"](key="Grum").build_prompt(SimpleNamespace(key="Ann"), "Ale?")
    assert prompt == "Ann: Ale?\nGrum:"
    with FakeServer(dialects=("textgen",)) as server:
        body = json.dumps({**settings["LLM_REQUEST_BODY"], "prompt": prompt}).encode()
        request = urllib.request.Request(server.url + settings["LLM_PATH"], body, {"Content-Type": "application/json"})
        assert json.load(urllib.request.urlopen(request))["results"][0]["text"]
