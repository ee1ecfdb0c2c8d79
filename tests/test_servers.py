"""`--server URL` is all there is to know: servers that behave as Ollama, KoboldCpp, vLLM and text-generation-webui do, on real
sockets, and the three commands against each."""

import asyncio
import json
import threading
from contextlib import contextmanager

import pyarrow.parquet as pq
import pytest
from aiohttp import web
from click.testing import CliRunner
from fakes import reply_to

from pipeline.cli import cli


def says(body):
    async def handler(request):
        return web.json_response(body)

    return handler


class Ollama:
    """Streams NDJSON unless told not to; works on one request at a time; a model has to be named."""

    dialect = "ollama"

    def __init__(self):
        self.asked, self.lock = [], asyncio.Lock()

    def routes(self):
        return [
            web.get("/", says("Ollama is running")),
            web.get("/api/version", says({"version": "0.12.3"})),
            web.get("/api/tags", says({"models": [{"name": "mira:7b"}]})),
            web.get("/api/ps", says({"models": []})),
            web.get("/v1/models", says({"data": [{"id": "mira:7b", "owned_by": "library"}]})),
            web.post("/api/chat", self.chat),
        ]

    async def chat(self, request):
        body = await request.json()
        self.asked.append(body)
        if body.get("model") != "mira:7b":
            return web.json_response({"error": f"model '{body.get('model')}' not found"}, status=404)
        words = reply_to({"messages": body["messages"], "seed": body["options"]["seed"]}).split(" ")
        durations = {
            "total_duration": 9_000_000,
            "load_duration": 1_000,
            "prompt_eval_count": 12,
            "eval_count": len(words),
            "eval_duration": 8_000_000,
        }
        end = {"done": True, "done_reason": "stop", **durations}
        async with self.lock:
            if body.get("stream", True) is False:
                return web.json_response({"message": {"role": "assistant", "content": " ".join(words)}, **end})
            response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
            await response.prepare(request)
            for number, word in enumerate(words):
                content = word if number == 0 else f" {word}"
                line = {"message": {"role": "assistant", "content": content}, "done": False}
                await response.write(json.dumps(line).encode() + b"\n")
            await response.write(json.dumps({"message": {"role": "assistant", "content": ""}, **end}).encode() + b"\n")
            return response


class KoboldCpp:
    """Works on one, queues six, answers the next with 503; its first version's counts are made up."""

    dialect = "openai"

    def __init__(self):
        self.asked, self.lock, self.inside, self.refused = [], asyncio.Lock(), 0, 0

    def routes(self):
        return [
            web.get("/api/v1/model", says({"result": "koboldcpp/mira-7b"})),
            web.get("/api/extra/version", says({"result": "KoboldCpp", "version": "1.76"})),
            web.get("/api/extra/true_max_context_length", says({"value": 4096})),
            web.get("/v1/models", says({"data": [{"id": "koboldcpp/mira-7b", "owned_by": "koboldcpp"}]})),
            web.post("/v1/chat/completions", self.chat),
            web.post("/api/v1/generate", self.generate),
            web.post("/api/extra/generate/stream", self.stream),
            web.post("/api/extra/tokencount", says({"value": 11, "ids": []})),
        ]

    async def turn(self, request, answer):
        body = await request.json()
        self.asked.append(body)
        if self.inside >= 7:
            self.refused += 1
            detail = {"msg": "Server is busy; please try again later.", "type": "service_unavailable"}
            return web.json_response({"detail": detail}, status=503)
        self.inside += 1
        try:
            async with self.lock:
                await asyncio.sleep(0.003)
                return await answer(body)
        finally:
            self.inside -= 1

    async def chat(self, request):
        async def answer(body):
            usage = {"prompt_tokens": 100, "completion_tokens": 100, "total_tokens": 200}
            if not body.get("stream"):
                choice = {"message": {"role": "assistant", "content": reply_to(body)}, "finish_reason": "length"}
                return web.json_response({"model": "koboldcpp/mira-7b", "choices": [choice], "usage": usage})
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            for content, reason in ((reply_to(body), None), ("", "stop")):
                event = {
                    "model": "koboldcpp/mira-7b",
                    "choices": [{"delta": {"content": content}, "finish_reason": reason}],
                }
                await response.write(f"data: {json.dumps(event)}\n\n".encode())
            await response.write(b"data: [DONE]\n\n")
            return response

        return await self.turn(request, answer)

    async def generate(self, request):
        async def answer(body):
            return web.json_response({"results": [{"text": " " + reply_to(body), "finish_reason": "length"}]})

        return await self.turn(request, answer)

    async def stream(self, request):
        async def answer(body):
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Connection": "close"})
            await response.prepare(request)
            for token, reason in ((reply_to(body), "null"), ("", "stop")):
                event = json.dumps({"token": token, "finish_reason": reason})
                await response.write(f"event: message\ndata: {event}\n\n".encode())
            return response

        return await self.turn(request, answer)


class TextGenerationWebui:
    """Comments between its events, usage only when asked for, reasons as OpenAI's."""

    dialect = "openai"

    def __init__(self):
        self.asked = []

    def routes(self):
        return [
            web.get("/v1/models", says({"data": [{"id": "mira-7b", "owned_by": "user"}]})),
            web.get("/v1/internal/health", says({"status": "ok"})),
            web.post("/v1/chat/completions", self.chat),
        ]

    async def chat(self, request):
        body = await request.json()
        self.asked.append(body)
        text, usage = reply_to(body), {"prompt_tokens": 12, "completion_tokens": 10, "total_tokens": 22}
        if not body.get("stream"):
            choice = {"message": {"role": "assistant", "content": text, "refusal": None}, "finish_reason": "stop"}
            return web.json_response({"choices": [choice], "usage": usage})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b": ping - 2026-11-21 12:00:00+00:00\r\n\r\n")
        for delta, reason in (({"role": "assistant", "content": ""}, None), ({"content": text}, None), ({}, "stop")):
            event = {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}], "usage": None}
            await response.write(f"data: {json.dumps(event)}\r\n\r\n".encode())
        await response.write(
            f"data: {json.dumps({'choices': [], 'usage': usage})}\r\n\r\ndata: [DONE]\r\n\r\n".encode()
        )
        return response


@contextmanager
def running(kind):
    """The server and its address, in a thread with a loop of its own."""
    ready, found = threading.Event(), {}

    async def serve():
        found["server"] = server = kind()
        app = web.Application()
        app.add_routes(server.routes())
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        found["url"] = f"http://127.0.0.1:{runner.addresses[0][1]}"
        found["loop"], found["end"] = asyncio.get_running_loop(), asyncio.Event()
        ready.set()
        await found["end"].wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield found["server"], found["url"]
    finally:
        found["loop"].call_soon_threadsafe(found["end"].set)
        thread.join(10)


def pipeline(*arguments):
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.parametrize("kind", [Ollama, KoboldCpp, TextGenerationWebui])
def test_ping_generate_and_eval_need_nothing_but_the_address(kind, tmp_path):
    with running(kind) as (server, url):
        said = json.loads(pipeline("ping", "--server", url, "--json").stdout)
        assert said["dialect"] == kind.dialect and said["reply"] and said["product"] and said["ttft"] is not None
        made = json.loads(pipeline("generate", "--server", url, "--out", tmp_path / "g", "--json", "--quiet").stdout)
        assert (made["asked"], made["answered"], made["failed"]) == (72, 72, 0) and made["kept"] > 20, made["dropped"]
        found = json.loads(
            pipeline("eval", "--server", url, "--limit", 12, "--out", tmp_path / "e", "--json", "--quiet").stdout
        )
        assert found["answered"] == 12 and found["load"]["streaming"] and found["latency"]["ttft"]["n"] == 12
    for run in ("g", "e"):
        for row in pq.read_table(tmp_path / run / "replies.parquet").to_pylist():
            assert row["outcome"] == "reply" and row["completion_tokens"] > 0
            assert row["tokens_by"] == ("estimate" if kind is KoboldCpp else "server")  # a count of 100 is made up
            assert row["finish_reason"] == ("stop" if run == "e" or kind is not KoboldCpp else None)
    if kind is Ollama:
        assert json.loads(row["server"])["load_duration"] == 1000
        assert all(body["options"]["num_predict"] == 80 for body in server.asked)
    if kind is KoboldCpp:
        assert server.refused == 0  # its queue is known


@pytest.mark.parametrize("dialect, limit", [("koboldcpp", "max_length"), ("textgen", "max_length")])
def test_koboldcpps_own_api_is_spoken_when_it_is_named(dialect, limit, tmp_path):
    with running(KoboldCpp) as (server, url):
        pipeline("generate", "--server", url, "--dialect", dialect, "--limit", 10, "--out", tmp_path / "g", "--quiet")
        pipeline("eval", "--server", url, "--dialect", dialect, "--limit", 6, "--out", tmp_path / "e", "--quiet")
    assert all(body[limit] == 80 for body in server.asked)
    rows = pq.read_table(tmp_path / "e" / "replies.parquet").to_pylist()
    assert {row["ttft"] is not None for row in rows} == {dialect == "koboldcpp"}  # the other one has no streams
    if dialect == "koboldcpp":
        assert {(row["tokens_by"], row["completion_tokens"]) for row in rows} == {("tokenizer", 11)}
