"""A simulated player through the commands: on the NPC's server or on another, and what becomes of its conversations."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from aiohttp import web
from click.testing import CliRunner
from fakes import FakeServer
from test_judging import SPLIT, opened, whole

from pipeline import load_run
from pipeline.cli import cli
from pipeline.curation.criteria import load_criteria
from pipeline.dataset.judging import by_children, judged, rows_of
from pipeline.dataset.training import TrainingPrompt
from pipeline.prompts.templates import Templates

OFF = [option for name in ("voice", "overused", "language") for option in ("--set", f"{name}=off")]


def pipeline(*arguments):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture
def inputs(tmp_path):
    people = [{"id": f"p{n}", "name": f"Npc {n}", "description": "a guard"} for n in range(4)]
    acts = [
        {"id": "s0", "category": "c", "turns": ["Line 0, well?"], "goal": "the key of the gate", "temper": "hasty"},
        {"id": "s1", "category": "c", "turns": ["Line 1, well?", "And then?"], "style": "in one word"},
    ]
    for name, rows in (("personas", people), ("scenarios", acts)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    files = ["--personas", tmp_path / "personas.jsonl", "--scenarios", tmp_path / "scenarios.jsonl"]
    return [*files, "--per-persona", "all", *OFF]


def tables(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in sorted((run / "dataset").rglob("*.parquet"))}


def replies(run: Path) -> list[dict]:
    return pq.read_table(run / "replies.parquet").to_pylist()


def test_two_servers_one_failing_now_and_then(inputs, tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_API_KEY", "sk-of-the-npcs-server-alone")
    served = 0

    def fault(body):
        nonlocal served
        served += 1
        return web.Response(status=503, headers={"Retry-After": "0"}) if served % 5 == 0 else None

    def refusing(body):
        return web.Response(status=500) if broken else None

    with FakeServer() as npc, FakeServer() as player, FakeServer(fault=fault) as shaky:
        options = [*inputs, "--server", npc.url, "--turns", 4, "--concurrency", 3]
        assert pipeline("generate", *options, "--player-server", player.url, "--out", tmp_path / "calm").exit_code == 0
        assert len(npc.requests) == 32 and len(player.requests) == 4 * 3 + 4 * 2
        assert {headers.get("Authorization") for headers in player.headers} == {None}
        assert {headers.get("Authorization") for headers in npc.headers} == {"Bearer sk-of-the-npcs-server-alone"}
        assert all("the key of the gate" not in json.dumps(body) for body in npc.requests)
        done = pipeline("generate", *options, "--player-server", shaky.url, "--out", tmp_path / "shaky")
        assert done.exit_code == 0, done.output
        assert served > 20 and len(npc.requests) == 64
    assert tables(tmp_path / "shaky") == tables(tmp_path / "calm")

    broken = True
    with FakeServer() as npc, FakeServer(fault=refusing) as player:
        options = [*inputs, "--turns", 4, "--timeout", 0.2, "--out", tmp_path / "later"]
        done = pipeline("generate", *options, "--server", npc.url, "--player-server", player.url)
        assert done.exit_code == 3 and "the player's line: POST" in done.output
        assert sum(row["outcome"] == "open" for row in replies(tmp_path / "later")) == 8
        broken = False
        done = pipeline("generate", "--resume", tmp_path / "later", "--timeout", 60)
        assert done.exit_code == 0, done.output
        assert len(npc.requests) == 32  # the first turns are not asked for again
    assert tables(tmp_path / "later") == tables(tmp_path / "calm")


def test_a_longer_run_goes_on_from_the_first_turns_of_a_shorter_one(inputs, tmp_path):
    with FakeServer() as server:
        options = ["generate", *inputs, "--server", server.url, "--out", tmp_path / "run"]
        assert pipeline(*options).exit_code == 0
        assert len(server.requests) == 8 and not (tmp_path / "run/dataset/conversations").exists()
        done = pipeline(*options, "--turns", 2)
        assert done.exit_code == 0 and "turns 1 -> 2" in done.output
        assert len(server.requests) == 8 + 4  # only one of the two scenarios has a second line
        assert [row["ended"] for row in replies(tmp_path / "run")[:3]] == ["script", None, "turns"]


def test_a_conversation_counts_up_to_its_first_flaw(inputs, tmp_path):
    def fault(body):
        said = [message["content"] for message in body["messages"] if message["role"] == "assistant"]
        if len(said) == 2 and "Npc 1" in body["messages"][0]["content"]:
            choice = {"index": 0, "message": {"role": "assistant", "content": "As an AI language model, I cannot."}}
            return web.json_response({"choices": [choice]})
        return None

    with FakeServer(fault=fault) as server, FakeServer() as player:
        options = [*inputs, "--server", server.url, "--player-server", player.url, "--turns", 5, "--samples", 2]
        done = pipeline("generate", *options, "--out", tmp_path / "run", "--split-by", "persona", "--json")
        assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["dropped"] == {"in_character": 4, "after_flaw": 8}
    assert summary["ended"] == {"turns": 16}
    rows = [
        row for path in (tmp_path / "run/dataset/conversations").iterdir() for row in pq.read_table(path).to_pylist()
    ]
    assert len(rows) == 16
    assert {row["persona_id"]: row["turns"] for row in rows} == {"p0": 5, "p1": 2, "p2": 5, "p3": 5}
    for row in rows:
        roles = [message["role"] for message in row["messages"]]
        assert roles == ["system", *["user", "assistant"] * row["turns"]]
        said = [one for one in replies(tmp_path / "run") if one["item_id"] == row["item_id"]][: row["turns"]]
        assert [m["content"] for m in row["messages"][1:]] == [t for one in said for t in (one["line"], one["reply"])]
    sft = [row for path in (tmp_path / "run/dataset/sft").iterdir() for row in pq.read_table(path).to_pylist()]
    assert len(sft) == 80 - 12
    assert all(row["prompt"][-1]["role"] == "user" and len(row["prompt"]) == 2 + 2 * row["turn"] for row in sft)
    frame = load_run(tmp_path / "run").frame()
    assert len(frame) == 80 and not frame.duplicated(["item_id", "turn"]).any()
    assert (frame["filter"] == "after_flaw").sum() == 8 and (frame["in_character"] == 0).sum() == 4
    # Only what begins a conversation has siblings: later on, everybody has a history of its own.
    paired = [
        row for path in (tmp_path / "run/dataset").glob("preference/*") for row in pq.read_table(path).to_pylist()
    ]
    assert paired and {len(row["prompt"]) for row in paired} == {2}


def test_other_prompts_to_train_on_have_the_history_too(inputs, tmp_path):
    with FakeServer() as server:
        options = [
            *inputs,
            "--server",
            server.url,
            "--turns",
            3,
            "--player",
            "player/needler",
            "--out",
            tmp_path / "run",
        ]
        assert pipeline("generate", *options).exit_code == 0
    for more, roles in (
        (["--train-prompt", "npc/short"], ["system", "user", "assistant", "user"]),
        (["--system", "drop"], ["user", "assistant", "user"]),
        (["--system", "merge"], ["user", "assistant", "user"]),
    ):
        assert pipeline("curate", tmp_path / "run", *more).exit_code == 0
        row = pq.read_table(tmp_path / "run/dataset/sft/train.parquet").to_pylist()[1]
        assert row["turn"] == 1 and [message["role"] for message in row["prompt"]] == roles
        talk = pq.read_table(tmp_path / "run/dataset/conversations/train.parquet").to_pylist()[0]
        assert talk["messages"][: len(row["prompt"])] == row["prompt"]
    assert pipeline("curate", tmp_path / "run", "--train-format", "transcript").exit_code == 0
    text = pq.read_table(tmp_path / "run/dataset/sft/train.parquet").to_pylist()[1]["prompt"]
    assert text.count("Stranger: ") == 2 and text.endswith("Npc 0:")
    assert not (tmp_path / "run/dataset/conversations").exists()  # a text does not say whose words are whose


def test_several_processes_judge_conversations_as_one_does(inputs, tmp_path):
    with FakeServer() as server:
        options = [*inputs, "--server", server.url, "--turns", 3, "--player", "player/default"]
        assert pipeline("generate", *options, "--out", tmp_path / "run").exit_code == 0
    with opened(tmp_path / "run") as produced:
        training = TrainingPrompt(produced.config, Templates(produced.config.prompts))
        panel = load_criteria(produced.config.settings).panel(list)
        here = whole(judged(produced, panel, rows_of(produced, panel, training), training, SPLIT))
        there = whole(by_children(produced, SPLIT, 2))
    assert [row["turn"] for row in here["replies"]] == [0, 1, 2] * 8 and "said" in here["rows"][0]
    assert there == here


def test_what_the_player_says_is_paid_for_too(inputs, tmp_path):
    with FakeServer() as server:  # 10 tokens of prompt and 10 of reply each
        options = ["--server", server.url, "--turns", 3, "--price", "1000000,1", "--out", tmp_path / "run", "--json"]
        done = pipeline("generate", *inputs, *options, "--player", "player/default")
        tokens = json.loads(done.stdout.splitlines()[-1])["tokens"]
        assert (tokens["prompt"], tokens["player"]["prompt"]) == (8 * 3 * 10, (4 * 2 + 4) * 10)
        assert tokens["cost"] == pytest.approx(len(server.requests) * 10, rel=1e-3)


@pytest.mark.parametrize(
    "options, said",
    [
        (["--player", "player/default"], "--player needs --turns N"),
        (["--player", "player/default", "--turns", "all"], "--player needs --turns N"),
        (["--player", "npc/default", "--turns", "3"], "unknown name 'line'"),
        (["--template", "player/default"], "unknown name 'goal'"),
        (["--player", "player/nobody", "--turns", "3"], "no template 'player/nobody.j2'"),
        (["--player-server", "nowhere", "--turns", "3"], "--player-server nowhere: no address"),
    ],
)
def test_what_is_wrong_with_a_player_is_found_before_anything_is_asked(options, said, inputs, tmp_path, capfd):
    from pipeline.errors import ConfigError

    with FakeServer() as server:
        with pytest.raises(ConfigError, match=said):
            pipeline("generate", *inputs, "--server", server.url, *options, "--out", tmp_path / "run")
        assert not server.requests


def test_a_template_without_the_players_line_has_no_conversations(inputs, tmp_path):
    from pipeline.errors import ConfigError

    (tmp_path / "mine.j2").write_text("{% block system %}You are {{ npc.name }}: {{ line }}{% endblock %}", "utf-8")
    options = ["--prompts", tmp_path, "--template", "mine", "--turns", 2, "--dry-run"]
    with pytest.raises(ConfigError, match="mine has no block 'user'"):
        pipeline("generate", *inputs, *options)
