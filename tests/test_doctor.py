"""`pipeline doctor` finds what is wrong before a run does, says what to try, and shows no key to anybody."""

import asyncio
import http.server
import json
import re
import socket
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from fakes import FakeServer
from wire import unused_port

from pipeline.cli import cli
from pipeline.cli.doctor import PORTS, Finding, examine
from pipeline.server import models

KEYS = (
    "sk-marker-api-0123456789",
    "sk-marker-header-0123456789",
    "sk-marker-password-0123456789",
    "sk-marker-own-0123456789",
)


@pytest.fixture(autouse=True)
def here(own) -> Path:
    return own


def looked(server: str | None = None, ports: tuple[int, ...] = ()) -> list[Finding]:
    return asyncio.run(examine(server, dict.fromkeys(ports, "somebody")))


def found(findings: list[Finding], what: str) -> list[Finding]:
    return [one for one in findings if one.what == what]


def said(findings: list[Finding], state: str) -> str:
    return "\n".join(f"{one.found} {one.advice}" for one in findings if one.state == state)


def doctor(*words: str):
    return CliRunner().invoke(cli, ["doctor", *words], catch_exceptions=False)


def written(old: str, new: str) -> None:
    file = Path("pipeline.toml")
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new), "utf-8")


class Recorder(http.server.BaseHTTPRequestHandler):
    """Answers as told, and remembers what it was sent."""

    def do_GET(self) -> None:
        self.server.seen.append((self.command, self.path, str(self.headers)))
        status, body = self.server.routes.get(self.path, (404, {"detail": "Not Found"}))
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_GET

    def log_message(self, *_: object) -> None: ...


@contextmanager
def recorder(routes):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as server:
        server.seen, server.routes = [], routes
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


MODELS = {"/v1/models": (200, {"object": "list", "data": [{"id": "mira-7b"}]})}


def test_where_all_is_well_it_says_so_and_ends_with_0():
    with FakeServer() as server:
        written("http://127.0.0.1:5000", server.url)
        done = doctor()
        as_json = doctor("--json")
    assert done.exit_code == as_json.exit_code == 0, done.output
    assert f"mine: {server.url}: openai, model fake-model" in done.stdout and "0 wrong" in done.stdout
    for word in (
        "python",
        "npc-pipeline 0",
        "aiohttp 3",
        "xllamacpp 20",
        "runs: can be written",
        "[targets.mine]",
        "no LLM_* set",
    ):
        assert word in done.stdout, word
    told = json.loads(as_json.stdout)
    assert told["ok"] and {one["state"] for one in told["findings"]} <= {"ok", "warning"}
    assert not Path("runs").exists()  # it only looked


def test_nobody_at_the_server_of_a_run_is_wrong_and_of_another_a_warning():
    nobody = f"http://127.0.0.1:{unused_port()}"
    done = doctor("--server", nobody)
    assert done.exit_code == 2 and f"wrong    server       {nobody}: cannot connect" in done.stdout
    written("http://127.0.0.1:5000", nobody)
    [mine] = [one for one in found(looked(), "server") if "mine" in one.found]
    assert mine.state == "warning"
    written('# server = "mine"', 'server = "mine"')
    assert doctor("--json", "--server", "mine").exit_code == 2
    [mine] = [one for one in found(looked(), "server") if "mine" in one.found]
    assert mine.state == "wrong"


def test_a_name_that_is_no_target_is_wrong():
    assert "no [targets.gpu]" in said(looked("gpu"), "wrong")


def test_who_listens_where_servers_usually_do_is_found_and_sent_neither_a_key_nor_a_question(monkeypatch):
    monkeypatch.setenv("LLM_API_KEY", KEYS[0])
    written("http://127.0.0.1:5000", f"http://127.0.0.1:{unused_port()}")
    with recorder(MODELS) as server, recorder({}) as stranger:
        ports = (server.server_port, stranger.server_port, unused_port())
        text = said(found(looked(ports=ports), "server"), "ok")
    assert f"http://127.0.0.1:{ports[0]}: openai, model mira-7b" in text
    assert f"http://127.0.0.1:{ports[1]}: somebody whom we do not know" in text and str(ports[2]) not in text
    assert "the embedded model is asked" in text
    for one in (server, stranger):
        assert one.seen and {method for method, _, _ in one.seen} == {"GET"}
        assert KEYS[0] not in json.dumps(one.seen)


def test_nobody_anywhere_is_no_mistake_while_the_embedded_model_runs():
    written("http://127.0.0.1:5000", f"http://127.0.0.1:{unused_port()}")
    findings = looked(ports=(unused_port(),))
    assert (
        "nothing on 127.0.0.1 at" in said(findings, "ok")
        and "(somebody)" in said(findings, "ok")
        and not said(findings, "wrong")
    )
    assert set(PORTS) == {5000, 5001, 8080, 8000, 11434, 1234}


def test_keys_reach_their_server_and_nothing_that_is_printed(monkeypatch):
    api, header, password, own = KEYS
    monkeypatch.setenv("LLM_API_KEY", api)
    monkeypatch.setenv("LLM_HEADERS", json.dumps({"X-Key": header}))
    monkeypatch.setenv("OWN_KEY", own)
    denied = {"/v1/models": (401, {"error": f"wrong key {api} {header} {own}"})}
    for routes in (MODELS, denied):
        with recorder(routes) as server:
            host = f"127.0.0.1:{server.server_port}"
            written('url = "http://127.0.0.1:5000"', f'url = "http://{host}"\nkey = "OWN_KEY"')
            monkeypatch.setenv("LLM_HOST", f"http://me:{password}@{host}")
            typed = ("--server", f"http://me:{password}@{host}")
            printed = "".join(doctor(*words).stdout for words in ((), ("--json",), typed))
            written(f'url = "http://{host}"\nkey = "OWN_KEY"', 'url = "http://127.0.0.1:5000"')
        sent = json.dumps(server.seen)
        assert api in sent and header in sent and own in sent
        assert not [key for key in (*KEYS, "sk-marker") if key in printed]
        assert f"LLM_HOST http://{host}, LLM_HEADERS set, LLM_API_KEY set" in printed


def test_a_key_that_is_not_set_and_one_that_is_wanted_are_told():
    with recorder({"/v1/models": (401, {})}) as server:
        written('"http://127.0.0.1:5000"', f'"http://127.0.0.1:{server.server_port}"\nkey = "GPU_KEY"')
        told = said(looked(), "warning")
    assert "targets.mine: its key is to be in GPU_KEY, which is not set" in told and "wants a key (401)" in told


def test_several_models_have_to_be_chosen_from():
    with FakeServer(models=("a", "b")) as server:
        assert "say which of its models with --model" in said(looked(server.url), "wrong")
        written('"http://127.0.0.1:5000"', f'"{server.url}"\nmodel = "b"')
        assert f"{server.url}: openai, model b" in said(looked(), "ok")
        written('model = "b"', 'model = "c"')
        assert "does not list 'c'" in said(looked(), "warning")


def test_a_server_that_keeps_us_waiting_is_left_after_two_seconds():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        told = said(looked(f"http://127.0.0.1:{silent.getsockname()[1]}"), "wrong")
    assert "no answer to GET /v1/models within 2 s" in told


@pytest.mark.parametrize(
    "headers, told", [("{not json", "LLM_HEADERS in the environment is not JSON"), ("[1]", "has to be a JSON object")]
)
def test_settings_of_the_environment_that_cannot_be_read_are_wrong(headers, told, monkeypatch):
    monkeypatch.setenv("LLM_HEADERS", headers)
    assert told in said(found(looked(), "environment"), "warning")  # nobody reads it
    monkeypatch.setenv("LLM_HOST", f"http://127.0.0.1:{unused_port()}")
    assert told in said(found(looked(), "environment"), "wrong")


@pytest.mark.parametrize(
    "old, new, told",
    [
        ("[defaults]", "[defaults", "pipeline.toml:8: not TOML"),
        ('"scenarios" ', '"plays"', "defaults.scenarios: there is no 'plays'"),
        ('"suite" ', '"suit"', "--suite suit: no such suite"),
        ('"npc/mine"', '"npc/mien"', "no template 'npc/mien.j2'"),
    ],
)
def test_what_is_wrong_in_the_folder_is_named_with_its_place(old, new, told):
    written(old, new)
    assert re.search(told, said(found(looked(), "project"), "wrong"))
    assert doctor("--server", "embedded").exit_code == 2


def test_a_folder_without_pipeline_toml_is_fine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [project] = found(looked(), "project")
    assert project.state == "ok" and "pipeline init" in project.advice


def test_a_file_where_runs_belong_is_wrong():
    Path("runs").write_text("")
    assert "runs: cannot be written: Not a directory" in said(looked(), "wrong")


def test_a_damaged_model_is_wrong_where_it_would_be_asked_and_a_warning_where_not(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if models.cache().parts[: len(tmp_path.parts)] != tmp_path.parts:
        pytest.skip("the cache of this system is somewhere else")
    assert "the first run fetches its model, 98 MB" in said(looked(), "ok")
    assert not (tmp_path / "cache").exists()
    models.demo_path().parent.mkdir(parents=True)
    with models.demo_path().open("wb") as file:
        file.truncate(models.SIZE)  # as long as the real one
    assert "its model is damaged" in said(looked(), "wrong") and "delete that file" in said(looked(), "wrong")
    with FakeServer() as server:
        assert "its model is damaged" in said(looked(server.url), "warning")


def test_a_library_that_is_missing_or_too_old_is_wrong_and_an_extra_only_told(tmp_path, monkeypatch):
    about = tmp_path / "site" / "npc_pipeline-9.dist-info"
    about.mkdir(parents=True)
    wants = ["click>=8.1", "httpx>=99.5", "no-such-thing>=1.0", 'elsewhere>=1; platform_system == "Nowhere"']
    wants += ['absent>=1; extra == "notebooks"', 'absent>=1; extra == "test"']
    head = ["Metadata-Version: 2.4", "Name: npc-pipeline", "Version: 9", *(f"Requires-Dist: {one}" for one in wants)]
    (about / "METADATA").write_text("\n".join(head) + "\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    findings = looked()
    [libraries] = found(findings, "libraries")
    assert libraries.state == "wrong"
    assert "httpx 0.28.1 (wants 99.5 or newer), no-such-thing is missing (wants 1.0 or newer)" in libraries.found
    assert "click" not in libraries.found and "elsewhere" not in libraries.found
    [optional] = found(findings, "optional")
    assert optional.state == "ok" and optional.found == "[notebooks] lacks absent"
