"""Pushing to the hub, against a small one on a loopback socket: what is sent, what is not, and what is said when it fails.

A push that asks it is a process of its own: the library reads its environment once, and all that it prints has to be seen.
"""

import base64
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.dataset.hub import push_to_hub
from pipeline.errors import ConfigError

TOKEN = "hf_" + "AbCdEfGhIjKl" * 3
REPO = "mira/ferry-npcs"
TABLES = ["sft/train.parquet", "sft/test_new_npcs.parquet", "preference/train.parquet"]
REJECTED = "rejected/train.parquet"


class FakeHub(ThreadingHTTPServer):
    """Repositories as {id: {"private": bool, "files": {path: bytes}}}; `faults` as {start of a path: (status, body)}."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repos, self.lfs, self.commits, self.asked, self.faults = {}, {}, [], [], {}

    def files(self, repo=REPO):
        return self.repos[repo]["files"]


class Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def _answer(self, status, body, content_type="application/json"):
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _handle(self):
        hub, path, body = self.server, self.path.partition("?")[0], self._body()
        hub.asked.append((self.command, self.path, dict(self.headers), body))
        for start, (status, said) in hub.faults.items():
            if path.startswith(start):
                return self._answer(status, said, "text/html" if isinstance(said, str) else "application/json")
        if path.startswith("/lfs/"):
            hub.lfs[path.removeprefix("/lfs/")] = body
            return self._answer(200, {})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer(401, {"error": "Invalid username or password."})
        if path == "/api/validate-yaml":
            return self._answer(200, {"errors": [], "warnings": [{"message": "empty or missing yaml metadata"}]})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == f"/datasets/{REPO}.git/info/lfs/objects/batch":
            objects = [
                {**wanted, "actions": {"upload": {"href": f"{hub.url}/lfs/{wanted['oid']}"}}}
                for wanted in json.loads(body)["objects"]
            ]
            return self._answer(200, {"transfer": "basic", "objects": objects})
        if path.startswith(f"/api/datasets/{REPO}") and REPO in hub.repos:
            return self._repo(path.removeprefix(f"/api/datasets/{REPO}"), body)
        return self._answer(404, {"error": "Repository not found"})

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _handle

    def _create(self, asked):
        assert asked["type"] == "dataset"
        name = f"{asked['organization'] or 'mira'}/{asked['name']}"
        private = asked.get("visibility") == "private" or asked.get("private") is True
        status = 409 if name in self.server.repos else 200
        self.server.repos.setdefault(name, {"private": private, "files": {".gitattributes": b""}})
        self._answer(status, {"url": f"{self.server.url}/datasets/{name}"})

    def _repo(self, rest, body):
        hub, repo = self.server, self.server.repos[REPO]
        if rest in ("", "/revision/main"):
            siblings = [{"rfilename": name} for name in repo["files"]]
            found = {"id": REPO, "sha": "0" * 40, "private": repo["private"], "siblings": siblings}
            return self._answer(200, found | {"tags": [], "downloads": 0, "likes": 0})
        if rest == "/preupload/main":
            files = [
                {"path": f["path"], "shouldIgnore": False, "uploadMode": "lfs" if f["path"].endswith(".parquet") else "regular"}
                for f in json.loads(body)["files"]
            ]  # fmt: skip
            return self._answer(200, {"files": files})
        if rest == "/commit/main":
            lines = [json.loads(line) for line in body.splitlines()]
            hub.commits.append([(line["key"], line["value"].get("path")) for line in lines])
            for line in lines:
                value = line["value"]
                if line["key"] == "file":
                    repo["files"][value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    repo["files"][value["path"]] = hub.lfs[value["oid"]]
                elif line["key"] == "deletedFile":
                    del repo["files"][value["path"]]
            return self._answer(
                200, {"commitUrl": f"{hub.url}/datasets/{REPO}/commit/{'1' * 40}", "commitOid": "1" * 40}
            )
        return self._answer(404, {"error": "no such endpoint"})


@contextmanager
def serving(hub: FakeHub) -> Iterator[None]:
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        hub.shutdown()
        thread.join()


def push_environment(hub: FakeHub, home: Path, token: str = TOKEN) -> dict[str, str]:
    """Nothing of the user's own, and the hub that is asked."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    kept |= {"HF_HOME": str(home / "hf"), "HF_HUB_DISABLE_XET": "1", "HF_ENDPOINT": hub.url}
    return kept | ({"HF_TOKEN": token} if token else {})


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub, serving(hub):
        yield hub


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "dataset"
    for n, name in enumerate([*TABLES, REJECTED]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"prompt": ["Hello."] * (n + 1)}), folder / name)
    configs = [
        {"config_name": "sft", "default": True, "data_files": [{"split": "train", "path": TABLES[0]}, {"split": "test_new_npcs", "path": TABLES[1]}]},
        {"config_name": "preference", "data_files": [{"split": "train", "path": TABLES[2]}]},
        {"config_name": "rejected", "data_files": [{"split": "train", "path": REJECTED}]},
    ]  # fmt: skip
    head = {"pretty_name": "NPC replies", "tags": ["npc"], "configs": configs}
    text = (
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n# NPC replies\n\nBefore.\n\n"
        "Dropped rows are in the config `rejected`, each with its filter, reason and evidence.\n\nAfter: é 漢.\n"
    )
    (folder / "README.md").write_text(text, "utf-8")
    (folder / "notes.txt").write_text("not ours to send")
    (folder / "sft" / ".train.parquet.part").write_text("half")
    return folder


def push(hub, folder, repo=REPO, *, token=TOKEN, public=False, with_rejected=False, **environment):
    """(exit code, lines); the token and anything on the second stream fail the test."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom pipeline.errors import PipelineError\nfrom pipeline.dataset.hub import push_to_hub\n"
        "try:\n"
        f"    print(push_to_hub(Path(sys.argv[1]), sys.argv[2], public={public}, with_rejected={with_rejected}, say=print))\n"
        "except PipelineError as exc:\n"
        "    print(f'{type(exc).__name__}: {exc}')\n"
        "    sys.exit(2)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), repo],
        env=push_environment(hub, folder.parent, token) | environment, capture_output=True, text=True, encoding="utf-8", cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert TOKEN not in done.stdout + done.stderr
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def card(data):
    _, head, body = data.decode("utf-8").split("---\n", 2)
    return yaml.safe_load(head), body


def test_a_new_dataset_is_private_and_has_what_the_card_names(hub, folder):
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    code, said = push(hub, folder)
    assert code == 0
    assert said[0].startswith("Sending 4 files, 0.0 MB, to the private dataset mira/ferry-npcs.")
    assert said[1:] == [f"{hub.url}/datasets/{REPO}"]
    [create] = [json.loads(body) for _, path, _, body in hub.asked if path == "/api/repos/create"]
    assert create["visibility"] == "private" if "visibility" in create else create["private"] is True
    assert hub.repos[REPO]["private"]
    assert set(hub.files()) == {".gitattributes", "README.md", *TABLES}
    assert all(hub.files()[name] == (folder / name).read_bytes() for name in TABLES)
    assert len(hub.commits) == 1
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_the_card_that_is_sent_does_not_speak_of_rows_that_are_not(hub, folder):
    push(hub, folder)
    head, body = card(hub.files()["README.md"])
    ours, _ = card((folder / "README.md").read_bytes())
    assert head == ours | {"configs": ours["configs"][:2]}
    assert body == "\n# NPC replies\n\nBefore.\n\nThe dropped rows were not uploaded.\n\nAfter: é 漢.\n"
    assert "rejected" not in hub.files()["README.md"].decode()


def test_rejected_rows_are_sent_when_asked_for_and_deleted_when_no_more(hub, folder):
    push(hub, folder, with_rejected=True)
    assert hub.files()["README.md"] == (folder / "README.md").read_bytes()
    assert hub.files()[REJECTED] == (folder / REJECTED).read_bytes()
    hub.files()["sft/test_known_npcs.parquet"] = b"of an earlier push"
    hub.files()["images/mira.png"] = b"somebody's own"
    code, said = push(hub, folder)
    assert code == 0
    gone = f"{REJECTED}, sft/test_known_npcs.parquet"
    assert said[1] == f"Deleted there: {gone}. The history of the repository still has them."
    assert set(hub.files()) == {".gitattributes", "README.md", "images/mira.png", *TABLES}
    assert len(hub.commits) == 2


def test_the_token_goes_into_one_header_and_only_to_the_hub(hub, folder):
    push(hub, folder)
    for _, path, headers, body in hub.asked:
        bearers = [name.lower() for name, value in headers.items() if TOKEN in value]
        assert bearers == (
            ["authorization"] if path.startswith(("/api/repos", "/api/datasets", "/datasets")) else bearers
        )
        assert set(bearers) <= {"authorization"} and not (bearers and path.startswith("/lfs/"))
        assert TOKEN not in path and TOKEN.encode() not in body


def test_a_token_that_was_stored_by_a_login_does_too(hub, folder):
    (folder.parent / "hf").mkdir()
    (folder.parent / "hf" / "token").write_text(TOKEN)
    assert push(hub, folder, token=None)[0] == 0


def test_public_only_when_asked_for(hub, folder):
    code, said = push(hub, folder, public=True)
    assert code == 0 and "to the public dataset" in said[0]
    assert not hub.repos[REPO]["private"]


def test_nothing_goes_to_a_public_repository_by_oversight(hub, folder):
    hub.repos[REPO] = {"private": False, "files": {}}
    assert push(hub, folder) == (
        2,
        [f"ConfigError: {REPO} is there already, and public. Say --public, or take another name."],
    )
    assert not hub.commits and not hub.lfs
    assert push(hub, folder, public=True)[0] == 0


def test_a_private_repository_stays_private(hub, folder):
    push(hub, folder)
    code, said = push(hub, folder, public=True)
    assert code == 0 and "It was there already, and private: it stays so." in said
    assert hub.repos[REPO]["private"]


def test_a_name_without_owner_is_the_user_s_own(hub, folder):
    assert push(hub, folder, "ferry-npcs")[1][-1] == f"{hub.url}/datasets/{REPO}"


FAULTS = {
    "unknown token": ("/api/repos/create", 401, {"error": "Invalid username or password."}, "Denied: mira/ferry-npcs: 401, the hub does not know the token. Set HF_TOKEN"),
    "no right to create": ("/api/", 403, {"error": f"No rights, {TOKEN}\nat all"}, "Denied: mira/ferry-npcs: 403, the token may not write there."),
    "no right to commit": (f"/api/datasets/{REPO}/commit", 403, {"error": "read only"}, "Denied: mira/ferry-npcs: 403, the token may not write there."),
    "hub down": ("/api/repos/create", 500, "<html>oops</html>", "Refused: mira/ferry-npcs: 500, the hub failed. Try again later."),
    "commit fails": (f"/api/datasets/{REPO}/commit", 500, {"error": "oops"}, "Refused: mira/ferry-npcs: 500, the hub failed. Try again later."),
    "storage refuses": ("/lfs/", 403, "<Error>expired</Error>", "Denied: mira/ferry-npcs: 403"),
    "some other page": ("/api/repos/create", 200, "<html>Please log in to the Wi-Fi</html>", "does not answer as the Hugging Face hub does."),
    "some other JSON": ("/api/repos/create", 200, {}, "does not answer as the Hugging Face hub does."),
    "bad card": ("/api/validate-yaml", 400, {"errors": [{"message": "configs"}]}, "ConfigError: the hub does not take the head of the card"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_the_hub_refuses_is_one_sentence_of_ours(hub, folder, fault):
    start, status, body, sentence = FAULTS[fault]
    hub.faults[start] = (status, body)
    code, said = push(hub, folder)
    assert code == 2 and sentence in said[-1]
    assert not hub.commits


def test_without_a_token_nothing_is_asked(hub, folder):
    code, said = push(hub, folder, token=None)
    assert (code, said) == (
        2,
        ["ConfigError: no token for the Hugging Face hub: set HF_TOKEN, or log in once with `hf auth login`."],
    )
    assert not hub.asked


def test_offline_nothing_is_asked(hub, folder):
    code, [said] = push(hub, folder, HF_HUB_OFFLINE="1")
    assert code == 2 and said.startswith("ConfigError: HF_HUB_OFFLINE is set")
    assert not hub.asked


def test_no_way_to_the_hub(hub, folder):
    hub.server_close()
    code, [said] = push(hub, folder, HF_ENDPOINT="http://user:secret@127.0.0.1:9")
    assert code == 2 and said.startswith("Unreachable: http://127.0.0.1:9 cannot be reached, or broke off (Connect")


def refused(folder, repo=REPO):
    with pytest.raises(ConfigError) as caught:
        push_to_hub(folder, repo, public=False, with_rejected=False, say=pytest.fail)
    return str(caught.value)


@pytest.mark.parametrize("name", ["a/b/c", "mira/ferry npcs", "../etc", "mira/é", "mira/x--y", "mira/x.git", ""])
def test_a_name_that_no_dataset_can_have(folder, name, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert refused(folder, name).startswith(f"{name}: not a name for a dataset. OWNER/NAME")


def test_a_token_that_cannot_be_one(folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_é")
    assert "characters that no token has" in refused(folder)


def spoil(folder, what):
    readme = folder / "README.md"
    text = readme.read_text("utf-8")
    match what:
        case "no folder":
            shutil.rmtree(folder)
        case "no card":
            readme.unlink()
        case "no head":
            readme.write_text("# NPC replies\n")
        case "no YAML":
            readme.write_text("---\n: [\n---\n")
        case "no configs":
            readme.write_text("---\ntags: []\n---\n")
        case "a way out":
            (folder.parent / "secret.parquet").write_bytes(b"x")
            readme.write_text(text.replace(TABLES[0], "sft/../../secret.parquet"), "utf-8")
        case "from the root":
            readme.write_text(text.replace(TABLES[0], "/etc/hosts"), "utf-8")
        case "a table less":
            (folder / TABLES[1]).unlink()
        case "only rejected":
            head = {"configs": [{"config_name": "rejected", "data_files": [{"split": "train", "path": REJECTED}]}]}
            readme.write_text(f"---\n{yaml.safe_dump(head)}---\n")


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("no folder", "no dataset there"),
        ("no card", "no dataset there"),
        ("no head", "not a card of ours"),
        ("no YAML", "not a card of ours"),
        ("no configs", "not a card of ours"),
        ("a way out", "sft/../../secret.parquet is not there"),
        ("from the root", "/etc/hosts is not there"),
        ("a table less", f"{TABLES[1]} is not there, and the card names it"),
        ("only rejected", "no rows to send"),
    ],
)
def test_a_folder_that_is_not_whole_is_not_sent(folder, what, why):
    spoil(folder, what)
    assert why in refused(folder)
