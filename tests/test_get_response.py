"""`LLMClient()` and `get_response` for a game that ran on Evennia's contrib: the same where the original keeps its promise,
and kept where the original breaks it (it raises on a bad 200, never calls `on_bad_request`, waits for ever).
"""

import asyncio
import json
import logging
import time

import httpx
import pytest
from wire import Wire, reply, sends, stalls, unused_port, with_length

from pipeline.client import LLMClient
from pipeline.errors import ConfigError

MARKER = "sk-marker-0123456789"
WELL_MET = b'{"results": [{"text": " Well met. "}]}'
NAMES = ["HOST", "PATH", "HEADERS", "PROMPT_KEYNAME", "REQUEST_BODY", "API_KEY", "API_TYPE"]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(f"LLM_{name}", raising=False)


class Server:
    """Behind httpx's seam: remembers requests, answers with what it was given."""

    def __init__(self, *answer, **options):
        self.requests = []
        self._answer = (answer or (200,), options or {"content": WELL_MET})
        self.transport = httpx.MockTransport(self._handle)

    def _handle(self, request):
        self.requests.append(request)
        (status, *_), options = self._answer
        return httpx.Response(status, **options)


def ask(server, prompt="Hello", **options):
    return asyncio.run(LLMClient(transport=server.transport, **options).get_response(prompt))


# --- what goes over the wire


def test_without_further_settings_the_request_is_evennias(monkeypatch):
    async def talk():
        async with Wire(sends(reply(WELL_MET))) as server:
            monkeypatch.setenv("LLM_HOST", server.url)
            async with LLMClient() as client:
                return await client.get_response("Where is the ferry?"), server

    text, server = asyncio.run(talk())
    assert text == " Well met. "  # as it came: nothing stripped
    assert server.heads[0][0] == "POST /api/v1/generate HTTP/1.1"
    assert server.heads[0].count("Content-Type: application/json") == 1
    assert server.bodies == [b'{"max_new_tokens": 250, "temperature": 0.7, "prompt": "Where is the ferry?"}']


def test_the_default_address_is_evennias():
    server = Server()
    assert ask(server) == " Well met. "
    assert [(request.method, str(request.url)) for request in server.requests] == [
        ("POST", "http://localhost:5000/api/v1/generate")
    ]


@pytest.mark.parametrize(
    "host, path, url",
    [
        ("http://gpu:7860", None, "http://gpu:7860/api/v1/generate"),
        ("http://gpu:7860/", None, "http://gpu:7860/api/v1/generate"),
        ("https://gpu/llm", "/generate", "https://gpu/llm/generate"),
        ("http://gpu", "generate", "http://gpu/generate"),
        ("http://gpu", "/generate?mode=fast", "http://gpu/generate?mode=fast"),
        (None, "/v1/completions", "http://localhost:5000/v1/completions"),
    ],
)
def test_host_and_path_are_settings(monkeypatch, host, path, url):
    for name, value in (("LLM_HOST", host), ("LLM_PATH", path)):
        if value is not None:
            monkeypatch.setenv(name, value)
    server = Server()
    ask(server)
    assert str(server.requests[0].url) == url


@pytest.mark.parametrize("value", ['"application/json; charset=utf-8"', '["application/json; charset=utf-8"]'])
def test_a_header_value_is_a_string_or_a_list_and_arrives_whole(monkeypatch, value):
    # A string came over the wire as its first letter: `Content-Type: a`.
    monkeypatch.setenv("LLM_HEADERS", f'{{"content-type": {value}, "X-Game": ["Dolorne"]}}')

    async def talk():
        async with Wire(sends(reply(WELL_MET))) as server:
            monkeypatch.setenv("LLM_HOST", server.url)
            async with LLMClient() as client:
                await client.get_response("Hello")
            return server.heads[0]

    head = [line.lower() for line in asyncio.run(talk())]
    assert [line for line in head if line.startswith("content-type")] == [
        "content-type: application/json; charset=utf-8"
    ]
    assert head.count("x-game: dolorne") == 1
    assert len([line for line in head if line.startswith("host:")]) == 1


def test_headers_of_ones_own_do_not_cost_the_content_type(monkeypatch):
    monkeypatch.setenv("LLM_HEADERS", '{"Authorization": "Bearer abcdefgh"}')
    server = Server()
    ask(server)
    assert server.requests[0].headers["content-type"] == "application/json"
    assert server.requests[0].headers.get_list("authorization") == ["Bearer abcdefgh"]


def test_a_host_header_of_ones_own_replaces_the_usual_one(monkeypatch):
    # text-generation-webui refuses a host name it does not know, as that of a container.
    monkeypatch.setenv("LLM_HEADERS", '{"Host": "localhost"}')
    server = Server()
    ask(server)
    assert server.requests[0].headers.get_list("host") == ["localhost"]


def test_the_prompts_name_and_the_body_are_settings(monkeypatch):
    monkeypatch.setenv("LLM_PROMPT_KEYNAME", "input")
    monkeypatch.setenv("LLM_REQUEST_BODY", '{"input": "overwritten", "max_length": 60, "stop": ["\\n"]}')
    server = Server()
    ask(server)
    assert json.loads(server.requests[0].content) == {"input": "Hello", "max_length": 60, "stop": ["\n"]}


def test_the_settings_body_is_the_same_for_every_prompt(monkeypatch):
    monkeypatch.setenv("LLM_REQUEST_BODY", '{"stop": ["\\n"]}')
    server = Server()
    client = LLMClient(transport=server.transport)
    for prompt in ("one", "two"):
        asyncio.run(client.get_response(prompt))
    assert [json.loads(request.content)["prompt"] for request in server.requests] == ["one", "two"]


@pytest.mark.parametrize(
    "prompt, sent",
    [
        ("Hello", "Hello"),
        ("", ""),
        ([], ""),
        (["Hello"], "Hello"),
        (["You are Mira.", "Anna: Hello"], "You are Mira.\nAnna: Hello"),
        (("one", "", "three"), "one\n\nthree"),
        ("“Añejo” 🜂 {x} %s", "“Añejo” 🜂 {x} %s"),
    ],
)
def test_a_prompt_is_a_string_or_lines_joined_by_line_feeds(prompt, sent):
    server = Server()
    ask(server, prompt)
    request = server.requests[0]
    assert json.loads(request.content)["prompt"] == sent
    assert request.content.isascii()
    assert int(request.headers["content-length"]) == len(request.content)


def test_a_list_of_anything_but_strings_is_the_callers_mistake():
    with pytest.raises(TypeError):
        ask(Server(), [{"role": "user", "content": "Hello"}])


def test_the_api_type_that_evennia_reads_and_never_uses_changes_nothing(monkeypatch):
    monkeypatch.setenv("LLM_API_TYPE", "openai")
    server = Server()
    ask(server)
    assert json.loads(server.requests[0].content) == {"max_new_tokens": 250, "temperature": 0.7, "prompt": "Hello"}


def test_the_key_in_the_environment_is_sent_as_a_bearer_token(monkeypatch):
    monkeypatch.setenv("LLM_API_KEY", MARKER)
    monkeypatch.setenv("LLM_HEADERS", '{"authorization": "Bearer another"}')
    server = Server()
    ask(server)
    assert server.requests[0].headers.get_list("authorization") == [f"Bearer {MARKER}"]


@pytest.mark.parametrize(
    "path, body, text",
    [
        ("/v1/completions", {"choices": [{"text": "Well met."}]}, "Well met."),
        ("/v1/chat/completions", {"choices": [{"message": {"content": "Well met."}}]}, "Well met."),
    ],
)
def test_the_openai_paths_that_evennias_readme_only_hopes_for_work(monkeypatch, path, body, text):
    monkeypatch.setenv("LLM_PATH", path)
    server = Server(200, json=body)
    assert ask(server) == text
    sent = json.loads(server.requests[0].content)
    assert sent.get("prompt", "Hello") == "Hello"
    assert sent.get("messages", [{"role": "user", "content": "Hello"}]) == [{"role": "user", "content": "Hello"}]
    assert ("messages" in sent) != ("prompt" in sent)


@pytest.mark.parametrize("dialect, text", [("openai", "Hm."), ("textgen", " Hm.")])
def test_a_client_for_an_address_speaks_its_dialect(monkeypatch, dialect, text):
    monkeypatch.setenv("LLM_PATH", "/elsewhere")
    body = {"choices": [{"message": {"content": "Hm."}}]} if dialect == "openai" else {"results": [{"text": " Hm."}]}
    server = Server(200, json=body)
    client = LLMClient("http://npc", dialect=dialect, transport=server.transport)
    assert asyncio.run(client.get_response(["Hello", "there"])) == text
    assert server.requests[0].url == f"http://npc{client.dialect.path}"
    assert b"Hello\\nthere" in server.requests[0].content


@pytest.mark.parametrize("host", ["http://gpu:port", "http://mira:MARK/ER@gpu"])
def test_an_address_that_is_none_is_refused_without_showing_it(monkeypatch, host):
    monkeypatch.setenv("LLM_HOST", host)
    with pytest.raises(ConfigError, match="LLM_HOST") as caught:
        LLMClient()
    assert "MARK" not in str(caught.value)


# --- failures


FAILURES = [
    ("created", 201, {"content": WELL_MET}),
    ("no content", 204, {}),
    ("redirect", 302, {"headers": {"location": "http://elsewhere/"}}),
    ("bad request", 400, {"json": {"error": {"message": "no prompt"}}}),
    ("unauthorised", 401, {"json": {"detail": "Unauthorized"}}),
    ("not found", 404, {"html": "<h1>404</h1>"}),
    ("server error", 500, {"text": "Internal Server Error"}),
    ("busy", 503, {"json": {"detail": {"msg": "Server is busy"}}}),
    ("html", 200, {"html": "<html>It works!</html>"}),
    ("empty body", 200, {"content": b""}),
    ("null", 200, {"content": b"null"}),
    ("a number", 200, {"content": b"7"}),
    ("a list", 200, {"content": b"[]"}),
    ("a string", 200, {"content": b'"results"'}),
    ("broken json", 200, {"content": b'{"results": [{"text": "Well m'}),
    ("deep json", 200, {"content": b"[" * 100_000}),
    ("a huge number", 200, {"content": b"9" * 5000}),
    ("not utf-8", 200, {"content": b"\xff\xfe\x00"}),
    ("missing keys", 200, {"json": {}}),
    ("results null", 200, {"json": {"results": None}}),
    ("results empty", 200, {"json": {"results": []}}),
    ("results a string", 200, {"json": {"results": "success"}}),
    ("no text", 200, {"json": {"results": [{}]}}),
    ("text null", 200, {"json": {"results": [{"text": None}]}}),
    ("text a number", 200, {"json": {"results": [{"text": 5}]}}),
    ("choices empty", 200, {"json": {"choices": []}}),
    ("choice null", 200, {"json": {"choices": [None]}}),
    ("choice a string", 200, {"json": {"choices": ["message"]}}),
    ("message null", 200, {"json": {"choices": [{"message": None}]}}),
    ("content null", 200, {"json": {"choices": [{"message": {"content": None}}]}}),
    ("an error", 200, {"json": {"error": {"message": "no model loaded"}}}),
    ("bad gzip", 200, {"stream": httpx.ByteStream(b"no gzip"), "headers": {"content-encoding": "gzip"}}),
]


@pytest.mark.parametrize("status, options", [failure[1:] for failure in FAILURES], ids=[f[0] for f in FAILURES])
@pytest.mark.parametrize("kind", ["function", "coroutine"])
def test_any_failure_is_an_empty_text_and_one_call_of_on_bad_request(kind, status, options):
    called = []

    async def later(status, body):
        await asyncio.sleep(0)
        called.append((status, body))

    on_bad_request = later if kind == "coroutine" else lambda status, body: called.append((status, body))
    server = Server(status, **options)
    assert ask(server, on_bad_request=on_bad_request) == ""
    [(told, body)] = called
    assert told == (500 if "content-encoding" in options.get("headers", {}) else status)
    assert isinstance(body, str)
    assert len(server.requests) == 1  # a game's player waits: nothing is asked twice
    assert ask(server) == ""  # and without anybody to tell


def test_on_bad_request_gets_what_the_server_said():
    called = []
    ask(Server(400, text="no prompt"), on_bad_request=lambda *said: called.append(said))
    assert called == [(400, "no prompt")]


@pytest.mark.parametrize("text", ["Well met.", "", " \n"])
def test_an_answer_even_an_empty_one_calls_nobody(text):
    def never(status, body):
        raise AssertionError

    assert ask(Server(200, json={"results": [{"text": text}]}), on_bad_request=never) == text


def test_half_a_character_does_not_reach_the_game():
    assert ask(Server(200, content=rb'{"results": [{"text": "so \ud83d"}]}')) == "so \ufffd"


def on_the_wire(answer, **options):
    """(text, calls of on_bad_request, seconds) with a real socket."""
    called = []

    async def talk():
        async with Wire(answer) as server:
            client = LLMClient(
                server.url, dialect="textgen", on_bad_request=lambda *said: called.append(said), **options
            )
            async with client:
                start = time.perf_counter()
                text = await client.get_response("Hello")
                return text, time.perf_counter() - start

    text, seconds = asyncio.run(talk())
    return text, called, seconds


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize("frame", [reply, with_length], ids=["to the end", "with a length"])
def test_a_body_in_pieces_is_whole(size, frame):
    body = json.dumps({"results": [{"text": "“Añejo” 🜂"}]}, ensure_ascii=False).encode()
    wire = frame(body)
    text, called, _ = on_the_wire(sends(*[wire[at : at + size] for at in range(0, len(wire), size)]))
    assert (text, called) == ("“Añejo” 🜂", [])


@pytest.mark.parametrize(
    "answer",
    [
        sends(),  # closed without a word, as the first API does on invalid JSON
        sends(b"SSH-2.0-OpenSSH_9.6\r\n"),
        sends(b"HTTP/1.1 200 OK\r\nContent-Le"),
        sends(with_length(WELL_MET, length=900)),
        sends(reply(WELL_MET[:-9])),
        sends(reply(b"")),
        sends(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"res\r\nzz\r\n'),
    ],
)
def test_a_cut_or_garbled_answer_is_a_failure(answer):
    text, called, seconds = on_the_wire(answer)
    assert text == "" and len(called) == 1 and seconds < 5


@pytest.mark.parametrize(
    "answer",
    [
        stalls,
        sends(reply(WELL_MET[:5]), close=False),
        sends(*[bytes([byte]) for byte in reply(WELL_MET)] * 9, pause=0.05),  # each read in time, the whole never
    ],
    ids=["no answer", "half an answer", "a trickle"],
)
def test_it_ends_by_its_time_limit(answer):
    text, called, seconds = on_the_wire(answer, timeout=0.3)
    assert text == "" and called == [(500, "no whole reply within 0.3 s")]
    assert 0.25 < seconds < 1.5


def test_nobody_there_is_a_failure(monkeypatch):
    called = []
    monkeypatch.setenv("LLM_HOST", f"http://127.0.0.1:{unused_port()}")

    async def talk():
        async with LLMClient(on_bad_request=lambda *said: called.append(said)) as client:
            return await client.get_response("Hello")

    assert asyncio.run(talk()) == ""
    assert called == [(500, "ConnectError: connection refused")]


@pytest.mark.parametrize("host", ["ftp://gpu", "gpu:5000", "http://", "http://gpu:99999", "http://gpu name", "/"])
def test_an_address_nobody_can_be_at_is_a_failure(monkeypatch, host):
    called = []
    monkeypatch.setenv("LLM_HOST", host)

    async def talk():
        async with LLMClient(on_bad_request=lambda *said: called.append(said), timeout=5) as client:
            return await client.get_response("Hello")

    assert asyncio.run(talk()) == ""
    assert len(called) == 1


def test_cancelling_is_no_failure_of_the_server():
    called = []

    async def talk():
        async with Wire(stalls) as server, LLMClient(server.url, on_bad_request=lambda *s: called.append(s)) as client:
            task = asyncio.create_task(client.get_response("Hello"))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(talk())
    assert called == []


def test_many_players_are_answered_at_the_same_time():
    async def talk():
        async with (
            Wire(sends(b"", reply(WELL_MET), pause=0.1)) as server,
            LLMClient(server.url, dialect="textgen") as client,
        ):
            start = time.perf_counter()
            texts = await asyncio.gather(*[client.get_response("Hello") for _ in range(20)])
            return texts, time.perf_counter() - start

    texts, seconds = asyncio.run(talk())
    assert texts == [" Well met. "] * 20
    assert seconds < 1.5  # one after another it would be 2 s at least


# --- logs


def test_a_failure_is_logged_as_an_error_in_evennias_words(caplog):
    ask(Server(503, text="overloaded"))
    [record] = [record for record in caplog.records if record.name.startswith("pipeline")]
    assert record.levelno == logging.ERROR
    assert record.getMessage().startswith("LLM API error (status 503)")
    assert "overloaded" in record.getMessage()


def test_what_players_say_is_in_no_log(caplog):
    caplog.set_level(logging.DEBUG)
    text, _, _ = on_the_wire(sends(reply(b'{"results": [{"text": "a private answer"}]}')))
    assert text == "a private answer"
    assert "Hello" not in caplog.text and "private" not in caplog.text


def test_the_key_is_nowhere_but_in_its_header(monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("LLM_API_KEY", MARKER)
    for status in (200, 401):
        told = []
        body = {"detail": f"no such key: {MARKER}", "headers": f"Bearer {MARKER}"}
        client = LLMClient(
            transport=Server(status, json=body).transport, on_bad_request=lambda *said, told=told: told.append(said)
        )
        assert asyncio.run(client.get_response("Hello")) == ""
        assert MARKER not in repr(told) + repr(client) + caplog.text
        assert "[key]" in repr(told)
