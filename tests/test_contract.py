"""The real llama.cpp in all three of its dialects: what a dialect promises, a server keeps. Uses the real model."""

import asyncio
import json
import os
from dataclasses import replace

import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.client import LLMClient
from pipeline.errors import TooLong
from pipeline.records import GenerateConfig, Message, Request
from pipeline.server import models
from pipeline.server.embedded import EmbeddedServer

ASKED = Request(
    messages=(Message(role="user", content="Name the colours of the rainbow."),),
    prompt="<|im_start|>user\nName the colours of the rainbow.<|im_end|>\n<|im_start|>assistant\n",
    config=GenerateConfig(max_tokens=16, temperature=0.0, seed=7, top_p=0.9, top_k=40, min_p=0.05, repeat_penalty=1.1),
)
DIALECTS = ("openai", "completions", "llamacpp")


@pytest.fixture(scope="module")
def path():
    return models.demo_model(print).path


def ask(path, *requests, dialect, stream=False):
    """One after another, in a server of its own."""

    async def main():
        async with (
            EmbeddedServer(path, parallel=1) as server,
            LLMClient(server.url, dialect=dialect, api_key=server.api_key, stream=stream) as client,
        ):
            found = []
            for request in requests:
                try:
                    found.append(await client.complete(request))
                except TooLong as exc:
                    found.append(exc)
            return found

    return asyncio.run(main())


def having(**fields):
    return replace(ASKED, config=replace(ASKED.config, **fields))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_dialect_keeps_its_promises(path, dialect, stream):
    endless = replace(ASKED, messages=(Message(role="user", content="rope " * 3000),), prompt="rope " * 3000)
    first, again, stopped, too_long = ask(
        path, ASKED, ASKED, having(stop=("e",), max_tokens=40), endless, dialect=dialect, stream=stream
    )
    assert first.text.strip() and first.text == again.text  # the same seed, one at a time
    assert first.usage.source == "server" and first.usage.completion_tokens == 16 and first.usage.prompt_tokens > 5
    assert first.finish_reason == "length"  # of which it is the right name that reached the server
    assert stopped.finish_reason == "stop" and "e" not in stopped.text
    assert first.server["predicted_n"] == 16
    timing = first.timing
    assert (timing.ttft is not None) == stream and (not stream or 0 < timing.ttft <= timing.last <= timing.e2e)
    assert isinstance(too_long, TooLong) and too_long.over > 500


@pytest.mark.parametrize("dialect", ["openai", "llamacpp"])
def test_a_schema_is_followed(path, dialect):
    mood = {"type": "object", "properties": {"mood": {"enum": ["calm", "angry"]}}, "required": ["mood"]}
    schema = mood | {"additionalProperties": False}
    [reply] = ask(path, having(json_schema=schema, max_tokens=120), dialect=dialect)
    assert json.loads(reply.text)["mood"] in ("calm", "angry")


@pytest.mark.parametrize("dialect", ["auto", "completions", "llamacpp"])
def test_ping_says_who_is_there_and_what_was_sent(path, dialect, monkeypatch):
    async def main():
        async with EmbeddedServer(path, parallel=2) as server:
            monkeypatch.setenv("LLM_API_KEY", server.api_key)
            arguments = ["ping", "--server", server.url + "/v1/", "--dialect", dialect, "--max-tokens", "12"]
            asked = [CliRunner().invoke, cli]
            text = await asyncio.to_thread(*asked, arguments, catch_exceptions=False)
            found = await asyncio.to_thread(*asked, [*arguments, "--json"], catch_exceptions=False)
            return text, found, server.api_key

    text, found, key = asyncio.run(main())
    assert text.exit_code == found.exit_code == 0
    said = json.loads(found.stdout)
    assert said["dialect"] == ("openai" if dialect == "auto" else dialect) and said["product"].startswith("llama.cpp")
    assert said["slots"] == 2 and said["context"] >= 1024 and said["reply"] and said["error"] is None
    assert 0 < said["ttft"] <= said["e2e"] and said["tokens_per_second"] > 0
    limit = "n_predict" if dialect == "llamacpp" else "max_tokens"
    assert said["request"][limit] == 12 and f'"{limit}": 12' in text.stdout
    assert "llama.cpp" in text.stdout and "slots    2" in text.stdout and "first token after" in text.stdout
    assert key not in text.output + found.output and os.environ["LLM_API_KEY"] == key
