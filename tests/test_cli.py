"""The two commands as a user meets them: what they print, where, and how they end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from aiohttp import web
from fakes import FakeServer, reply_to

from pipeline import load_run

# The fake server says a few words in nobody's voice: with so few replies, perhaps none would be kept.
WORDS_ONLY = ("--set", "voice=off")


def pipeline(
    *arguments: object, cwd: Path, timeout: float = 120, **environment: str
) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("LLM_")}
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *map(str, arguments)],
        cwd=cwd,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    """1,755 personas with everything that templates, shells, formats and terminals could trip over."""
    texts = [
        "a \"quoted\" 'smith' with 100 % of {braces} and {{ npc.name }} {% raw %} {# #}",
        "ein Bäcker, 面包师, пекарь, خباز, 🥖 with e\u0301 and \u202eright-to-left\u202c",
        "a\\backslash $HOME `rm -rf` <script>alert(1)</script> </s> <|im_end|> [INST]",
        "one line\nanother line\n\n# heading\n\tTab and \x07 bell \x1b[31mred",
        "a very long story " + "word " * 1500,
    ]
    path = tmp_path_factory.mktemp("hostile") / "personas.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for n in range(1755):
            row = {"id": f"p/{n}'\"{{}}%s", "name": f"Nïx {n} {{}}", "description": f"{texts[n % 5]} №{n}", "items": n}
            file.write(json.dumps(row, ensure_ascii=n % 2 == 0) + "\n")
    return path


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("scenarios") / "scenarios.jsonl"
    path.write_text(
        '{"id": "s1", "category": "greeting", "turns": ["Well met, {{ npc.name }}! {{ 7 * 7 }} {% x %}"]}\n'
    )
    return path


@pytest.mark.parametrize("dialect", ["openai", "textgen"])
def test_every_row_of_a_strangers_dataset_arrives_as_it_is(dialect, hostile, scenarios, tmp_path):
    with FakeServer(dialects=(dialect,)) as server:
        done = pipeline(
            "generate", "--server", server.url, "--personas", hostile, "--scenarios", scenarios,
            "--out", "runs/x", "--json", "--concurrency", 32, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        summary = json.loads(done.stdout)
        assert (summary["asked"], summary["answered"], summary["failed"]) == (1755, 1755, 0)
        assert len(server.requests) == 1755
        sent = [json.dumps(body, ensure_ascii=False) for body in server.requests]
    for n, row in enumerate(map(json.loads, hostile.read_text("utf-8").splitlines())):
        if n % 97 == 0:  # a few, since each search goes through all
            assert any(json.dumps(row["description"], ensure_ascii=False)[1:-1] in body for body in sent), row["id"]
    assert all("{{ 7 * 7 }} {% x %}" in body for body in sent)
    frame = load_run(tmp_path / "runs" / "x").frame()
    assert len(frame) == 1755 and frame["reply"].notna().all()
    assert summary["kept"] + sum(summary["dropped"].values()) == 1755


def test_generate_says_what_became_of_the_replies_and_where_they_are(tmp_path):
    with FakeServer() as server:
        done = pipeline("generate", "--server", server.url, "--out", "runs/x", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "72 replies asked for, 72 answered" in done.stdout
    assert 'load_dataset("runs/x/dataset", "sft")' in done.stdout
    assert "latency" in done.stdout and "tokens/s" in done.stdout
    assert "openai, model fake-model" in done.stderr and "replies to ask for" in done.stderr
    assert "small embedded model" not in done.stdout


def test_generate_finds_its_concurrency_out_and_says_so_unless_it_is_given(tmp_path):
    with FakeServer() as server:
        auto = pipeline("generate", "--server", server.url, "--out", "a", "--samples", 3, cwd=tmp_path)
        given = pipeline("generate", "--server", server.url, "--out", "g", "--concurrency", 5, cwd=tmp_path)
    assert (auto.returncode, given.returncode) == (0, 0), auto.stderr + given.stderr
    assert "concurrency auto: " in auto.stdout and "concurrency auto" not in given.stdout
    found = json.loads((tmp_path / "a" / "results.json").read_text())["generate"]["concurrency"]
    assert found["asked"] == "auto" and found["history"][0] == {"seconds": 0.0, "limit": 4, "why": "start"}
    found = json.loads((tmp_path / "g" / "results.json").read_text())["generate"]["concurrency"]
    assert found == {"asked": 5, "history": []}


def test_eval_has_one_concurrency(tmp_path):
    done = pipeline("eval", "--server", "http://127.0.0.1:9", "--concurrency", "auto", cwd=tmp_path)
    assert done.returncode == 2 and "a latency holds for one concurrency" in done.stderr


def test_rows_are_prompt_and_completion_with_where_they_come_from(tmp_path):
    with FakeServer() as server:
        done = pipeline("generate", "--server", server.url, "--out", "x", "--seed", 5, cwd=tmp_path)
        by_messages = {json.dumps(body["messages"]): body for body in server.requests}
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(tmp_path / "x" / "dataset" / "sft" / "train.parquet").to_pylist()
    for row in rows:
        body = by_messages[json.dumps(row["prompt"])]
        assert row["completion"] == [{"role": "assistant", "content": reply_to(body)}]
        assert row["seed"] == body["seed"] and row["model"] == "fake-model"
        assert row["persona_id"] and row["scenario_id"] and row["template"] == "npc/default"
        assert row["score_finished"] == 1.0


def test_the_same_command_again_asks_for_nothing_and_another_one_has_a_folder_of_its_own(tmp_path):
    with FakeServer() as server:
        first = pipeline("generate", "--server", server.url, "--limit", 4, *WORDS_ONLY, cwd=tmp_path)
        again = pipeline("generate", "--server", server.url, "--limit", 4, *WORDS_ONLY, cwd=tmp_path)
        assert len(server.requests) == 4
        more = pipeline("generate", "--server", server.url, "--limit", 6, *WORDS_ONLY, cwd=tmp_path)
        assert len(server.requests) == 6
        other = pipeline(
            "generate", "--server", server.url, "--limit", 4, "--template", "npc/barks", *WORDS_ONLY, cwd=tmp_path
        )
        assert len(server.requests) == 10
    assert [done.returncode for done in (first, again, more, other)] == [0, 0, 0, 0]
    assert first.stdout.splitlines()[-2:] == again.stdout.splitlines()[-2:]
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_a_run_that_lost_its_server_is_incomplete_and_resumes(tmp_path):
    from aiohttp import web

    broken = True

    def fault(body):
        return web.Response(status=500) if broken and "Zsofia" in json.dumps(body) else None

    with FakeServer(fault=fault) as server:
        done = pipeline("generate", "--server", server.url, "--timeout", 3, cwd=tmp_path)
        assert done.returncode == 3, done.stderr
        assert "2 failed" in done.stdout and "the same command asks for the rest" in done.stderr
        broken = False
        done = pipeline("generate", "--resume", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["answered"] == 72
    assert pipeline("generate", "--resume", cwd=tmp_path).returncode == 2


def test_nothing_kept_is_a_failure_of_its_own(tmp_path):
    from aiohttp import web

    empty = {"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]}
    with FakeServer(fault=lambda body: web.json_response(empty)) as server:
        done = pipeline("generate", "--server", server.url, "--out", "x", cwd=tmp_path)
    assert done.returncode == 1
    assert "Nothing was kept" in done.stdout and "non_empty" in done.stdout
    assert pq.read_table(tmp_path / "x" / "dataset" / "rejected" / "train.parquet").num_rows == 72


def test_eval_prints_intervals_and_latency_at_its_load(tmp_path):
    with FakeServer() as server:
        done = pipeline("eval", "--server", server.url, "--out", "e", cwd=tmp_path)
        assert all(body["stream"] for body in server.requests)
    assert done.returncode == 0, done.stderr
    assert "latency at concurrency 1, streaming" in done.stdout
    assert "ttft" in done.stdout and "95 % interval" in done.stdout
    results = json.loads((tmp_path / "e" / "results.json").read_text())["eval"]
    assert results["scores"]["finished"]["clusters"] == results["personas"] >= 16


def test_an_existing_run_is_scored_without_any_server(tmp_path):
    with FakeServer() as server:
        pipeline("generate", "--server", server.url, "--out", "x", cwd=tmp_path)
    done = pipeline("eval", "x", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["answered"] == 72
    assert set(json.loads((tmp_path / "x" / "results.json").read_text())) == {"generate", "eval"}


def test_a_dry_run_sends_nothing_and_shows_what_would_be_sent(tmp_path):
    with FakeServer() as server:
        done = pipeline("generate", "--server", server.url, "--dry-run", "--dialect", "textgen", cwd=tmp_path)
        assert not server.requests
    assert done.returncode == 0, done.stderr
    assert "72 requests" in done.stdout and "POST /api/v1/generate" in done.stdout and "max_new_tokens" in done.stdout
    assert not (tmp_path / "runs").exists()


def test_settings_of_evennia_stand_for_the_server(tmp_path):
    with FakeServer(dialects=("textgen",)) as server:
        done = pipeline(
            "generate", "--limit", 2, cwd=tmp_path, LLM_HOST=server.url, LLM_HEADERS='{"X-Game": ["mud-key"]}'
        )
        assert done.returncode == 0, done.stderr
        assert len(server.requests) == 2
        assert all(headers["X-Game"] == "mud-key" for headers in server.headers)
    run = next((tmp_path / "runs").iterdir())
    assert not [p for p in run.rglob("*") if p.is_file() and b"mud-key" in p.read_bytes()]


def test_a_key_is_nowhere_but_in_its_header(tmp_path):
    from aiohttp import web

    def echo(body):
        return web.json_response({"error": "bad key MARKER-9f3c"}, status=401)

    with FakeServer(fault=echo) as server:
        done = pipeline("generate", "--server", server.url, "--out", "x", cwd=tmp_path, LLM_API_KEY="MARKER-9f3c")
        assert server.headers[0]["Authorization"] == "Bearer MARKER-9f3c"
    assert done.returncode == 3
    assert "LLM_API_KEY" in done.stderr and "MARKER" not in done.stdout + done.stderr
    assert not [p for p in (tmp_path / "x").rglob("*") if p.is_file() and b"MARKER" in p.read_bytes()]


MISTAKES = [
    (["generate", "--server", "http://127.0.0.1:9"], "cannot connect"),
    (["generate", "--server", "gopher://x"], "looks like http://"),
    (["generate", "--personas", "nowhere.yaml"], r"no such file"),
    (["generate", "--template", "npc/defualt"], "npc/default"),
    (["generate", "--prompts", "nowhere"], "no such folder: --prompts"),
    (["generate", "--model-path", "nowhere.gguf"], "--model-path"),
    (["generate", "--samples", "0"], "--samples"),
    (["generate", "--per-persona", "some"], "--per-persona"),
    (["generate", "--colour"], "--colour"),
    (["generate", "--resume"], "no unfinished"),
    (["eval", "nowhere"], "no run there"),
    (["eval", "--suite", "nowhere"], "There are: adversarial, npc, quick"),
    (["eval", "--resume", "nowhere"], "no run there"),
]


@pytest.mark.parametrize("arguments, said", MISTAKES)
def test_a_mistake_ends_in_a_sentence_and_with_2(arguments, said, tmp_path):
    done = pipeline(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr
    assert not done.stdout


def test_a_folder_with_other_things_in_it_is_not_taken_for_a_run(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    done = pipeline("generate", "--out", ".", cwd=tmp_path)
    assert done.returncode == 2 and "no run.json" in done.stderr


def test_a_failed_start_leaves_a_finished_run_as_it_was(tmp_path):
    with FakeServer() as server:
        pipeline("generate", "--server", server.url, "--out", "x", "--limit", 4, cwd=tmp_path)
    before = {p: p.read_bytes() for p in (tmp_path / "x").rglob("*") if p.is_file()}
    (tmp_path / "other.jsonl").write_text('{"id": "a", "name": "A", "description": "a b"}\n')
    failed = pipeline("generate", "--server", server.url, "--personas", "other.jsonl", "--out", "x", cwd=tmp_path)
    assert failed.returncode == 2
    assert {p: p.read_bytes() for p in (tmp_path / "x").rglob("*") if p.is_file()} == before
    pipeline("generate", "--personas", "nowhere.yaml", "--out", "y", cwd=tmp_path)
    assert not (tmp_path / "y").exists()


def test_a_folder_is_one_commands_and_a_change_is_said(tmp_path):
    with FakeServer() as server:
        pipeline("generate", "--server", server.url, "--out", "x", "--limit", 4, cwd=tmp_path)
        other = pipeline("eval", "--server", server.url, "--out", "x", cwd=tmp_path)
        again = pipeline("generate", "--server", server.url, "--out", "x", "--limit", 4, cwd=tmp_path)
        warmer = pipeline(
            "generate", "--server", server.url, "--out", "x", "--temperature", 1, "--limit", 4, cwd=tmp_path
        )
    assert other.returncode == 2 and "a run of pipeline generate" in other.stderr
    assert "nothing is asked" in again.stderr
    assert "temperature 0.7 -> 1.0" in warmer.stderr


def test_latency_is_never_reported_at_a_load_that_was_not_measured(tmp_path):
    with FakeServer() as server:
        for concurrency in (1, 4):
            done = pipeline("eval", "--server", server.url, "--limit", 8, "--concurrency", concurrency, cwd=tmp_path)
            assert f"latency at concurrency {concurrency}" in done.stdout
        assert len(server.requests) == 16


def test_a_run_asks_no_more_when_it_has_cost_enough_and_goes_on_when_more_is_granted(tmp_path):
    with FakeServer() as server:
        # 10 tokens of prompt and 10 of reply: 30 of each million's price, 0.03 a reply
        command = [
            "generate",
            "--server",
            server.url,
            "--price",
            "1000,2000",
            "--concurrency",
            2,
            "--out",
            tmp_path / "run",
        ]
        first = pipeline(*command, "--max-cost", 0.3, cwd=tmp_path)
        asked = len(server.requests)
        assert first.returncode == 3 and "--max-cost 0.3 is reached" in first.stderr and 10 <= asked <= 14
        assert "cost 0.3" in first.stdout
        second = pipeline(*command, "--json", cwd=tmp_path)
        assert second.returncode == 0 and len(server.requests) == 72
        assert json.loads(second.stdout)["tokens"]["cost"] == pytest.approx(72 * 0.03)
        nothing_to_go_by = pipeline("generate", "--server", server.url, "--max-cost", 1, cwd=tmp_path)
    assert nothing_to_go_by.returncode == 2 and "--max-cost needs a --price" in nothing_to_go_by.stderr


def test_a_reply_stays_in_the_dialect_it_came_in_when_the_run_goes_on_in_another(tmp_path):
    with FakeServer(dialects=("openai",)) as server:
        out = ["--out", tmp_path / "run", "--limit", 6]
        assert pipeline("generate", "--server", server.url, *out, cwd=tmp_path).returncode == 0
        before = (tmp_path / "run" / "dataset" / "sft" / "train.parquet").read_bytes()
        asked = len(server.requests)
        again = pipeline("generate", "--server", server.url, "--dialect", "ollama", *out, "--json", cwd=tmp_path)
    assert again.returncode == 0 and len(server.requests) == asked
    assert json.loads(again.stdout)["answered"] == 6
    assert (tmp_path / "run" / "dataset" / "sft" / "train.parquet").read_bytes() == before


def test_prompts_cost_something_also_where_the_server_does_not_count_them(tmp_path):
    uncounted = {"choices": [{"index": 0, "message": {"content": "Aye, so it is."}, "finish_reason": "stop"}]}
    with FakeServer(fault=lambda body: web.json_response(uncounted)) as server:
        command = ["generate", "--server", server.url, "--price", "1000,0", "--max-cost", 0.5, "--concurrency", 1]
        result = pipeline(*command, "--json", cwd=tmp_path)
    assert result.returncode == 3 and len(server.requests) < 20
    assert json.loads(result.stdout)["tokens"]["cost"] >= 0.5


@pytest.mark.parametrize("option", ["--timeout", "--temperature", "--max-cost", "--rpm"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_number_has_to_be_one(option, value, tmp_path):
    result = pipeline("generate", option, value, "--price", "1,1", "--dry-run", cwd=tmp_path)
    assert result.returncode == 2 and "Traceback" not in result.stderr


def test_a_dry_run_says_what_it_would_cost(tmp_path):
    result = pipeline("generate", "--dry-run", "--price", "0.15,0.60", "--json", cwd=tmp_path)
    summary = json.loads(result.stdout)
    wanted = (summary["prompt_tokens_about"] * 0.15 + summary["completion_tokens_at_most"] * 0.6) / 1e6
    assert summary["cost_at_most_about"] == pytest.approx(wanted) and wanted > 0


@pytest.mark.parametrize("price", ["cheap", "1", "1,2,3", "-1,2", "nan,1", "1,inf"])
def test_a_price_is_two_numbers(price, tmp_path):
    result = pipeline("generate", "--price", price, cwd=tmp_path)
    assert result.returncode == 2 and "--price" in result.stderr


def test_sampling_options_reach_the_server(tmp_path):
    with FakeServer(dialects=("textgen",)) as server:
        fine = pipeline("generate", "--server", server.url, "--limit", 2, "--top-k", 5, "--min-p", 0.1, cwd=tmp_path)
        assert fine.returncode == 0 and all(body["top_k"] == 5 and body["min_p"] == 0.1 for body in server.requests)


def test_messages_become_the_text_of_the_chosen_format(tmp_path):
    with FakeServer(dialects=("textgen",)) as server:
        result = pipeline(
            "generate", "--server", server.url, "--limit", 2, "--format", "chatml", *WORDS_ONLY, cwd=tmp_path
        )
        unknown = pipeline("generate", "--server", server.url, "--limit", 2, "--format", "morse", cwd=tmp_path)
    assert result.returncode == 0
    assert all(body["prompt"].startswith("<|im_start|>system\n") for body in server.requests)
    assert all(body["stopping_strings"] == ["<|im_end|>"] for body in server.requests)
    assert unknown.returncode == 2 and "formats/morse" in unknown.stderr


def test_a_system_message_is_merged_where_a_model_has_no_place_for_it(tmp_path):
    with FakeServer() as server:
        result = pipeline(
            "generate", "--server", server.url, "--limit", 2, "--system", "merge", *WORDS_ONLY, cwd=tmp_path
        )
    assert result.returncode == 0
    assert all([m["role"] for m in body["messages"]] == ["user"] for body in server.requests)


def test_what_resuming_cannot_take_is_refused(tmp_path):
    with FakeServer() as server:
        pipeline("generate", "--server", server.url, "--out", "x", "--limit", 4, cwd=tmp_path)
        more = pipeline("generate", "--resume", "x", "--limit", 6, cwd=tmp_path)
        assert more.returncode == 0 and len(server.requests) == 6
    refused = pipeline("generate", "--resume", "x", "--seed", 3, cwd=tmp_path)
    assert refused.returncode == 2 and "--seed has no place here" in refused.stderr
    (tmp_path / "x" / "run.json").write_text('{"format": 1, "command": "generate", "asked": {"x": 1}}')
    broken = pipeline("generate", "--resume", "x", cwd=tmp_path)
    assert broken.returncode == 2 and "not a whole manifest" in broken.stderr


def test_a_file_in_the_working_directory_is_never_run(tmp_path):
    for name in ("pipeline", "xllamacpp", "pip"):
        (tmp_path / f"{name}.py").write_text("open('executed', 'w'); raise SystemExit(1)")
    command = Path(sys.executable).with_name("pipeline")
    done = subprocess.run([command, "generate", "--limit", "1"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr  # one reply may be dropped
    assert not (tmp_path / "executed").exists()


def test_a_full_disk_ends_in_a_sentence(tmp_path):
    import resource

    with FakeServer() as server:
        command = [sys.executable, "-m", "pipeline", "generate", "--server", server.url, "--out", "x", "--quiet"]
        full = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)),
        )  # fmt: skip
        assert full.returncode == 3 and "Traceback" not in full.stderr, full.stderr
        room = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert room.returncode == 0, room.stderr
        assert len(server.requests) <= 72 + 6


def test_a_key_in_the_addresss_query_is_not_written(tmp_path):
    with FakeServer() as server:
        done = pipeline(
            "generate", "--server", f"{server.url}/v1?key=MARKER", "--limit", 2, "--out", "x", *WORDS_ONLY, cwd=tmp_path
        )
    assert done.returncode == 0, done.stderr
    assert not [p for p in (tmp_path / "x").rglob("*") if p.is_file() and b"MARKER" in p.read_bytes()]
