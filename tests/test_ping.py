"""`pipeline ping`: the first thing to run when something does not work, so it says what does not."""

import json

import pytest
from aiohttp import web
from click.testing import CliRunner
from fakes import FakeServer
from wire import unused_port

from pipeline.cli import cli
from pipeline.dialects import DIALECTS


def ping(*arguments):
    return CliRunner().invoke(cli, ["ping", *arguments], catch_exceptions=True)


def test_a_server_that_answers_is_described():
    with FakeServer(models=("mira-7b",)) as server:
        result = ping("--server", server.url)
    assert result.exit_code == 0
    for words in (
        "model    mira-7b",
        "dialect  openai: POST",
        "/v1/chat/completions",
        "reply    ",
        "first token after",
    ):
        assert words in result.stdout
    [sent] = server.requests
    assert json.dumps(sent, ensure_ascii=False) in result.stdout  # as it was sent


def test_a_failure_is_said_beside_what_was_sent_and_ends_with_2():
    def broken(body):
        return web.json_response({"error": "no model loaded"}, status=400)

    with FakeServer(fault=broken) as server:
        result, as_json = ping("--server", server.url), ping("--server", server.url, "--json")
    assert result.exit_code == as_json.exit_code == 2
    assert "failed   POST" in result.stdout and "no model loaded" in result.stdout and "sent     {" in result.stdout
    assert "no model loaded" in json.loads(as_json.stdout)["error"]


def test_an_empty_reply_asks_why():
    def empty(body):
        choice = {"message": {"content": "<think>Hm"}, "finish_reason": "length"}
        return web.json_response({"choices": [choice]})

    with FakeServer(fault=empty) as server:
        result = ping("--server", server.url)
    assert "(nothing)" in result.stdout and "Does it think" in result.stdout


def test_nobody_there_ends_in_a_sentence():
    result = ping("--server", f"http://127.0.0.1:{unused_port()}")
    assert "Is the server running" in str(result.exception)


@pytest.mark.parametrize("option", ["--personas", "--out", "--samples"])
def test_what_belongs_to_a_run_has_no_place_here(option):
    assert ping(option, "x").exit_code == 2


def test_a_target_of_pipeline_toml_is_asked_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPU_KEY", "sk-marker-0123456789")
    monkeypatch.setenv("LLM_API_KEY", "sk-another-0123456789")
    with FakeServer(models=("a", "b")) as server:
        (tmp_path / "pipeline.toml").write_text(
            f'[targets.gpu]\nurl = "{server.url}"\nmodel = "b"\nkey = "GPU_KEY"\nsystem = "merge"\n'
        )
        result = ping("--server", "gpu")
        again = ping("--server", "gpu", "--model", "a")
    assert result.exit_code == again.exit_code == 0
    assert [sent["model"] for sent in server.requests] == ["b", "a"]  # what is typed is more than what is written
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer sk-marker-0123456789"}
    assert "sk-" not in result.output


def test_what_is_no_number_is_no_timeout():
    result = ping("--timeout", "nan")
    assert result.exit_code == 2 and "no number to go by" in result.output


def test_the_help_names_every_dialect():
    result = ping("--help")
    words = result.output.replace(",", " ").split()
    assert not set(DIALECTS) - set(words)
