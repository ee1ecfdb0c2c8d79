"""`complete`: an answer or a typed error, by the deadline, every attempt on record, and no key anywhere."""

import asyncio
import json
import logging
import random
import time
import traceback
from email.utils import formatdate

import httpx
import pytest
from fakes import FakeServer
from hypothesis import given, settings
from hypothesis import strategies as st
from wire import Wire, reply, sends, stalls, unused_port, with_length

from pipeline.client import LLMClient
from pipeline.errors import (
    BadReply,
    Busy,
    ConfigError,
    Denied,
    PipelineError,
    Refused,
    ServerError,
    TimedOut,
    TooLong,
    Unreachable,
)
from pipeline.headers import request_headers, secrets_in
from pipeline.records import GenerateConfig, Message, Request, Usage
from pipeline.reply import read_reply, with_prompt_tokens
from pipeline.retry import MAX_ATTEMPTS
from pipeline.transport import AiohttpTransport

MARKER = "sk-marker-0123456789/+=="
REQUEST = Request(messages=(Message(role="user", content="Hello"),), prompt="Anna: Hello\nMira:")
WELL_MET = {"choices": [{"message": {"content": "Well met."}, "finish_reason": "stop"}]}
AT_ONCE = {"retry-after": "0"}


@pytest.fixture(autouse=True)
def no_waiting_between_attempts(monkeypatch):
    monkeypatch.setattr(random, "random", lambda: 0.0)


class Server:
    """Behind httpx's seam: gives each answer once, the last one for ever. An answer is a Response's arguments or an error."""

    def __init__(self, *answers):
        self.requests, self._answers = [], list(answers)
        self.transport = httpx.MockTransport(self._handle)

    def _handle(self, request):
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(**answer)


def ok(body=None, **options):
    return {"status_code": 200, "json": WELL_MET if body is None else body, **options}


def chunk(content=None, finish_reason=None):
    delta = {} if content is None else {"content": content}
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


def sse(*events, done=True):
    data = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    return (data + "data: [DONE]\n\n" * done).encode()


def streamed(*events, done=True):
    return {"status_code": 200, "content": sse(*events, done=done), "headers": {"content-type": "text/event-stream"}}


def complete(transport, *, url="http://npc", request=REQUEST, **options):
    """(completion or error, attempts)"""
    attempts = []

    async def ask():
        async with LLMClient(url, transport=transport, **options) as client:
            return await client.complete(request, attempts.append)

    try:
        return asyncio.run(ask()), attempts
    except ServerError as exc:
        return exc, attempts


def complete_on_the_wire(answer, **options):
    """(completion or error, attempts, requests that arrived), with a real socket."""
    attempts = []

    async def ask():
        async with Wire(answer) as server, LLMClient(server.url, **options) as client:
            try:
                return await client.complete(REQUEST, attempts.append), attempts, server
            except ServerError as exc:
                return exc, attempts, server

    return asyncio.run(ask())


# --- answers


def test_an_answer_has_its_text_its_counts_and_its_time():
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    server = Server(ok({**WELL_MET, "usage": usage}))
    answer, [attempt] = complete(server.transport, model="mira-7b")
    assert (answer.text, answer.finish_reason, answer.attempts) == ("Well met.", "stop", 1)
    assert answer.usage == Usage(prompt_tokens=3, completion_tokens=4)
    assert answer.timing == attempt.timing
    assert answer.timing.ttft is None and answer.timing.last is None  # nothing streamed: nobody knows
    assert abs(answer.timing.sent - time.time()) < 60 and 0 < answer.timing.e2e < 5
    [request] = server.requests
    assert (request.method, str(request.url)) == ("POST", "http://npc/v1/chat/completions")
    assert json.loads(request.content)["model"] == "mira-7b"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", ["openai", "textgen"])
def test_a_server_on_a_real_socket_answers(stream, dialect):
    with FakeServer(dialects=(dialect,)) as server:
        answer, [attempt] = complete(None, url=server.url, dialect=dialect, stream=stream)
    assert answer.text.endswith(".") and attempt.final and attempt.status == 200
    assert attempt.streamed == (stream and dialect == "openai")  # the other one has no streams


@pytest.mark.parametrize(
    "url, asked",
    [
        ("http://npc:5000", "http://npc:5000/v1/chat/completions"),
        ("http://npc:5000/", "http://npc:5000/v1/chat/completions"),
        ("http://npc:5000/v1", "http://npc:5000/v1/chat/completions"),
        ("http://npc:5000/v1/chat/completions", "http://npc:5000/v1/chat/completions"),
        ("npc:5000", "http://npc:5000/v1/chat/completions"),
        ("https://npc/llm/v1/", "https://npc/llm/v1/chat/completions"),
        ("http://[::1]:5000", "http://[::1]:5000/v1/chat/completions"),
    ],
)
def test_an_address_is_taken_as_people_paste_it(url, asked):
    server = Server(ok())
    complete(server.transport, url=url)
    assert str(server.requests[0].url) == asked


@pytest.mark.parametrize("stream", [False, True])
def test_an_empty_completion_is_an_answer(stream):
    answers = streamed(chunk("", "stop")) if stream else ok({"choices": [{"message": {"content": ""}}]})
    answer, [attempt] = complete(Server(answers).transport, stream=stream)
    assert answer.text == "" and answer.timing.ttft is None
    assert attempt.final and attempt.error is None


def test_reasoning_without_content_is_an_empty_completion():
    body = {"choices": [{"message": {"content": None, "reasoning": "The player"}, "finish_reason": "length"}]}
    answer, _ = complete(Server(ok(body)).transport)
    assert (answer.text, answer.finish_reason) == ("", "length")


@pytest.mark.parametrize("kind", ["text/plain", "", "application/json"])
def test_a_stream_is_known_by_its_looks_where_its_type_is_wrong(kind):
    answers = {**streamed(chunk("Well "), chunk("met.", "stop")), "headers": {"content-type": kind}}
    answer, [attempt] = complete(Server(answers).transport, stream=True)
    assert answer.text == "Well met." and attempt.streamed


def test_json_that_calls_itself_a_stream_is_read_as_json():
    answer, [attempt] = complete(Server(ok(headers={"content-type": "text/event-stream"})).transport, stream=True)
    assert answer.text == "Well met." and not attempt.streamed


def test_a_server_that_ignores_stream_is_read_as_it_answers():
    answer, [attempt] = complete(Server(ok()).transport, stream=True)
    assert answer.text == "Well met." and answer.timing.ttft is None
    assert not attempt.streamed


@pytest.mark.parametrize("status", [201, 202])
def test_any_success_is_a_success(status):
    answer, [attempt] = complete(Server(ok(status_code=status)).transport)
    assert answer.text == "Well met." and attempt.final


@pytest.mark.parametrize("kind", ["text/event-stream", "text/event-stream; charset=utf-8", "Text/Event-Stream"])
def test_a_stream_is_known_by_its_content_type(kind):
    answers = {**streamed(chunk("Well "), chunk("met.", "stop")), "headers": {"content-type": kind}}
    answer, [attempt] = complete(Server(answers).transport, stream=True)
    assert answer.text == "Well met." and attempt.streamed


@pytest.mark.parametrize(
    "events, done",
    [
        ([chunk("Well "), chunk("met.", "stop")], False),  # [DONE] is missing, the reason is there
        ([chunk("Well "), chunk("met.")], True),
        ([{"choices": [{"delta": {"content": None}}]}, chunk("Well met.", "stop")], True),
        ([chunk("Well met.", "stop"), {"choices": [], "usage": {"completion_tokens": 4}}], True),
    ],
)
def test_a_whole_stream_is_an_answer(events, done):
    answer, _ = complete(Server(streamed(*events, done=done)).transport, stream=True)
    assert answer.text == "Well met."


class Counting:
    """text-generation-webui's first API, whose replies do not say how many tokens they have; its tokenizer does."""

    def __init__(self, count=None, status=200):
        self.counted, self.transport = [], httpx.MockTransport(self._handle)
        self._count, self._status = count, status

    def _handle(self, request):
        if request.url.path != "/api/v1/token-count":
            return httpx.Response(200, json={"results": [{"text": "Well met."}]})
        self.counted.append(json.loads(request.content))
        if isinstance(self._count, Exception):
            raise self._count
        return httpx.Response(self._status, json=self._count)


def test_a_server_that_does_not_say_how_many_tokens_is_asked_to_count_them():
    server = Counting({"results": [{"tokens": 3}]})
    answer, [body, count] = complete(server.transport, dialect="textgen")
    assert answer.usage == Usage(prompt_tokens=4, completion_tokens=3, source="tokenizer")
    assert server.counted == [{"prompt": "Well met."}]
    assert (body.number, body.tokens, count.number, count.tokens, count.final) == (1, None, 0, 3, True)
    assert count.body == body.body and answer.timing == body.timing  # counting is no part of the reply's time


@pytest.mark.parametrize(
    "count", [None, {}, {"results": []}, {"results": [{"tokens": "3"}]}, {"results": 7}, httpx.ReadError("reset")]
)
@pytest.mark.parametrize("status", [200, 404])
def test_a_server_that_cannot_count_is_asked_once_and_its_tokens_are_estimated(count, status):
    server, answers = Counting(count, status), []

    async def ask():
        async with LLMClient("http://npc", dialect="textgen", transport=server.transport) as client:
            for _ in range(3):
                answers.append(await client.complete(REQUEST))

    asyncio.run(ask())
    assert len(server.counted) == 1
    assert {answer.usage for answer in answers} == {Usage(prompt_tokens=4, completion_tokens=3, source="estimate")}


def test_the_servers_own_figures_are_kept():
    timings = {"prompt_ms": 12.5, "predicted_per_second": 40, "note": "fast", "cached": True}
    for answers in (
        ok({**WELL_MET, "timings": timings}),
        streamed(chunk("Well met.", "stop"), {"choices": [], "timings": timings}),
    ):
        answer, _ = complete(Server(answers).transport, stream=True)
        assert answer.server == {"prompt_ms": 12.5, "predicted_per_second": 40}


def test_the_record_of_an_answer_reads_like_the_answer():
    for answers in (ok(), streamed(chunk("“Well "), chunk("met”\u2028.", "stop"))):
        answer, [attempt] = complete(Server(answers).transport, stream=True)
        again = read_reply(LLMClient("http://npc").dialect, attempt.body, streamed=attempt.streamed)
        again = with_prompt_tokens(again, REQUEST)
        assert (again.text, again.finish_reason, again.usage) == (answer.text, answer.finish_reason, answer.usage)


def test_an_attempt_is_on_record_before_it_is_read():
    def crash(attempt):
        seen.append(attempt)
        raise KeyboardInterrupt

    for answers in (ok(), ok({}), {"status_code": 500}, httpx.ReadError("reset")):
        seen = []
        client = LLMClient("http://npc", transport=Server(answers).transport)
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(client.complete(REQUEST, crash))
        assert len(seen) == 1


# --- the clock


def test_only_content_starts_and_stops_the_clock():
    pieces = [
        sse({"choices": [{"delta": {"role": "assistant", "content": ""}}]}, done=False),
        b": ping\n\n",
        sse(chunk("Well "), done=False),
        sse(chunk("met."), done=False),
        sse(chunk("", "stop"), done=False),
        sse({"choices": [], "usage": {"completion_tokens": 4}}),
    ]
    head = reply(b"", kind="text/event-stream")
    answer, [attempt], _ = complete_on_the_wire(sends(head, *pieces, pause=0.05), stream=True)
    timing = answer.timing
    assert answer.text == "Well met." and timing == attempt.timing
    assert 0.14 < timing.ttft < timing.last < timing.e2e
    assert timing.last - timing.ttft == pytest.approx(0.05, abs=0.03)
    assert timing.e2e - timing.last > 0.1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["", "a", None, "ping"]), max_size=8), st.integers(1, 60))
def test_first_content_is_never_after_the_last_nor_that_after_the_end(contents, size):
    data = b"".join(b": ping\n\n" if c == "ping" else sse(chunk(c), done=False) for c in contents) + sse()

    async def pieces():
        for at in range(0, len(data), size):
            yield data[at : at + size]

    answers = {"status_code": 200, "content": pieces(), "headers": {"content-type": "text/event-stream"}}
    answer, _ = complete(Server(answers).transport, stream=True)
    if "a" not in contents:
        assert isinstance(answer, BadReply)  # an end, without a reason and with nothing before it
        return
    timing = answer.timing
    assert answer.text == "a" * contents.count("a")
    assert 0 <= timing.ttft <= timing.last <= timing.e2e


# --- errors


BAD_REPLIES = [
    ("empty body", {"content": b""}),
    ("null", {"content": b"null"}),
    ("html", {"html": "<html>It works!</html>"}),
    ("broken json", {"content": b'{"choices": [{"message"'}),
    ("missing path", {"json": {"choices": [{"message": {}}]}}),
    ("no choices", {"json": {"choices": []}}),
    ("another dialect", {"json": {"results": [{"text": "Well met."}]}}),
    ("an error", {"json": {"error": {"message": "no model loaded"}}}),
    ("no text", {"json": {"choices": [{"message": {"content": {"a": 1}}}]}}),
    ("deep", {"content": b"[" * 100_000}),
]
BAD_STREAMS = [
    ("an error in the middle", [chunk("Well "), {"error": {"message": "CUDA out of memory"}}], True),
    ("no end", [chunk("Well ")], False),
    ("nothing at all", [], False),
    ("not json", [chunk("Well "), "<html>"], True),
    ("not the format", [{"choices": [{"delta": {"content": 5}}]}], True),
]


def fails_for_good(answers, **options):
    server = Server({**answers, "headers": {**answers.get("headers", {}), **AT_ONCE}})
    error, attempts = complete(server.transport, **options)
    assert isinstance(error, BadReply) and error.url == "http://npc/v1/chat/completions"
    assert len(server.requests) == MAX_ATTEMPTS
    assert [attempt.number for attempt in attempts] == [n for n in range(1, MAX_ATTEMPTS + 1) for n in (n, 0)]
    for body, verdict in zip(attempts[::2], attempts[1::2], strict=True):
        assert body.final and body.error is None and body.status == 200
        assert not verdict.final and verdict.error == str(error)  # so that a resumed run asks again
    return error, attempts


@pytest.mark.parametrize("answers", [options for _, options in BAD_REPLIES], ids=[name for name, _ in BAD_REPLIES])
@pytest.mark.parametrize("stream", [False, True])
def test_a_success_that_is_no_reply_is_a_bad_reply(answers, stream):
    error, _ = fails_for_good({"status_code": 200, **answers}, stream=stream)
    assert "See --dialect" in str(error) and len(str(error)) < 1500


@pytest.mark.parametrize("events, done", [bad[1:] for bad in BAD_STREAMS], ids=[bad[0] for bad in BAD_STREAMS])
def test_a_stream_that_goes_wrong_is_a_bad_reply(events, done):
    _, attempts = fails_for_good(streamed(*events, done=done), stream=True)
    assert attempts[0].streamed and attempts[0].body == sse(*events, done=done).decode()


def test_what_the_server_says_is_in_the_message():
    error, _ = fails_for_good(streamed(chunk("Well "), {"error": {"message": "CUDA out of memory"}}), stream=True)
    assert "CUDA out of memory" in str(error)


@pytest.mark.parametrize(
    "status, final, tries, hint",
    [
        (302, False, 1, "Redirects are not followed"),
        (400, True, 1, "no prompt"),
        (401, False, 1, "Set LLM_API_KEY"),
        (403, False, 1, "LLM_API_KEY"),
        (404, False, 1, "--dialect"),
        (405, False, 1, "no prompt"),
        (408, False, MAX_ATTEMPTS, "no prompt"),
        (413, True, 1, "no prompt"),
        (422, True, 1, "no prompt"),
        (429, False, MAX_ATTEMPTS, "no prompt"),
        (500, False, MAX_ATTEMPTS, "no prompt"),
        (503, False, MAX_ATTEMPTS, "asks to wait for 0 s"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_says_what_came_and_what_to_try(status, final, tries, hint, stream):
    server = Server({"status_code": status, "json": {"error": "no prompt"}, "headers": AT_ONCE})
    error, attempts = complete(server.transport, stream=stream)
    assert isinstance(error, Refused) and (error.status, error.retry_after) == (status, 0.0)
    assert str(status) in str(error) and hint in str(error) and "no prompt" in error.body
    assert error.retryable == (tries > 1)
    assert len(server.requests) == len(attempts) == tries
    assert [attempt.number for attempt in attempts] == list(range(1, tries + 1))
    assert all(attempt.final == final and attempt.status == status for attempt in attempts)
    assert all(attempt.error and "no prompt" in attempt.body for attempt in attempts)


@pytest.mark.parametrize(
    "status, body, kind, tries",
    [
        (401, {"error": "no prompt"}, Denied, 1),
        (403, {"error": "no prompt"}, Denied, 1),
        (429, {"error": "slow down"}, Busy, MAX_ATTEMPTS),
        (429, {"error": {"message": "pay first", "code": "insufficient_quota"}}, Busy, 1),
        (503, {"error": "loading"}, Busy, MAX_ATTEMPTS),
        (529, {"error": "overloaded"}, Busy, MAX_ATTEMPTS),
        (400, {"error": {"type": "exceed_context_size_error", "n_prompt_tokens": 5000, "n_ctx": 4096}}, TooLong, 1),
        (500, {"error": {"message": "the request exceeds the available context size"}}, TooLong, 1),
        (400, {"error": "no prompt"}, Refused, 1),
        (500, {"error": "oh"}, Refused, MAX_ATTEMPTS),
    ],
)
def test_the_type_of_a_refusal_says_what_can_be_done(status, body, kind, tries):
    server = Server({"status_code": status, "json": body, "headers": AT_ONCE})
    error, attempts = complete(server.transport)
    assert type(error) is kind and isinstance(error, Refused) and len(attempts) == tries
    if kind is TooLong:
        assert "too long" in str(error) and ((error.over == 904 and "by 904 tokens" in str(error)) or status == 500)
    assert ("quota" in str(error)) == ("pay" in str(body))


def test_a_failure_that_passes_costs_an_attempt_and_is_on_record():
    busy = {"status_code": 503, "json": {"detail": {"msg": "Server is busy"}}}
    answer, attempts = complete(Server(httpx.ConnectError("refused"), busy, ok({}), ok()).transport)
    assert (answer.text, answer.attempts) == ("Well met.", 4)
    assert [(a.number, a.status, a.final) for a in attempts] == [
        (1, None, False),
        (2, 503, False),
        (3, 200, True),
        (0, 200, False),  # about attempt 3: its body is no reply
        (4, 200, True),
    ]
    assert answer.timing == attempts[-1].timing


@pytest.mark.parametrize(
    "error, tries",
    [
        (httpx.ConnectError("connection refused"), MAX_ATTEMPTS),
        (httpx.ReadError("connection reset"), MAX_ATTEMPTS),
        (httpx.ReadTimeout("nothing came"), MAX_ATTEMPTS),
        (httpx.RemoteProtocolError("not HTTP"), MAX_ATTEMPTS),
        (httpx.LocalProtocolError("cannot be sent"), 1),
        (httpx.UnsupportedProtocol("ftp"), 1),
    ],
)
def test_no_answer_is_unreachable_and_only_asked_again_where_that_may_help(error, tries):
    raised, attempts = complete(Server(error).transport)
    assert type(raised) is Unreachable and raised.retryable == (tries > 1)
    assert type(error).__name__ in str(raised) and str(error) in str(raised)
    assert len(attempts) == tries
    assert all(a.error and a.status is None and a.body is None and not a.final for a in attempts)


def test_nobody_there_is_unreachable_and_asks_whether_it_runs():
    error, attempts = complete(None, url=f"http://127.0.0.1:{unused_port()}")
    assert isinstance(error, Unreachable) and str(error).endswith("connection refused. Is it running?")
    assert len(attempts) == MAX_ATTEMPTS


def test_a_reply_too_large_is_not_fetched_again():
    transport = AiohttpTransport(max_body=1000)
    server = sends(reply(b'{"choices": [{"message": {"content": "' + b"x" * 5000))
    error, attempts, arrived = complete_on_the_wire(server, transport=transport)
    assert isinstance(error, Unreachable) and not error.retryable and "larger than" in str(error)
    assert len(attempts) == len(arrived.requests) == 1


@pytest.mark.parametrize("body", [WELL_MET, None], ids=["with a length", "in a stream"])
def test_a_reply_that_is_cut_off_is_on_record_as_far_as_it_came(body):
    whole = json.dumps(body).encode() if body else sse(chunk("Well "), chunk("met."))
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n" % (b"application/json" if body else b"text/event-stream")
    cut = head + b"Content-Length: %d\r\n\r\n" % len(whole) + whole[:-20]
    error, attempts, _ = complete_on_the_wire(sends(cut), stream=True)
    assert type(error) is Unreachable and "cut off" in str(error)
    assert {attempt.body for attempt in attempts} == {whole[:-20].decode()}
    assert not any(attempt.final for attempt in attempts)
    assert (attempts[0].timing.ttft is None) == bool(body)


@pytest.mark.parametrize("piece", [b"SSH-2.0-OpenSSH_9.6\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-L"])
def test_what_is_no_http_is_unreachable(piece):
    error, _, _ = complete_on_the_wire(sends(piece))
    assert type(error) is Unreachable


@pytest.mark.parametrize(
    "answer, body",
    [(stalls, None), (sends(with_length(b'{"choices": ', length=99), close=False), '{"choices": ')],
)
def test_the_deadline_ends_an_attempt_and_it_is_on_record(answer, body):
    start = time.perf_counter()
    error, [attempt], _ = complete_on_the_wire(answer, timeout=0.3)
    assert 0.25 < time.perf_counter() - start < 1.5
    assert type(error) is TimedOut and "within 0.3 s" in str(error) and "--timeout" in str(error)
    assert "cut off" in attempt.error and attempt.body == body and not attempt.final
    assert 0 < attempt.timing.e2e < 0.45  # a busy machine may have taken its time to connect


def test_a_context_overflow_inside_a_200_is_no_reply_and_is_not_asked_again():
    said = {
        "error": {
            "code": 400,
            "message": "too long",
            "type": "exceed_context_size_error",
            "n_prompt_tokens": 300,
            "n_ctx": 256,
        }
    }
    for answers in (ok(said), streamed(said)):
        error, attempts = complete(Server(answers).transport, stream=True)
        assert type(error) is TooLong and error.over == 44 and "by 44 tokens" in str(error)
        assert [(attempt.number, attempt.final) for attempt in attempts] == [(1, True), (0, True)]


def test_what_went_wrong_before_is_in_the_message_of_the_deadline():
    asked = 0

    async def html_then_nothing(writer):
        nonlocal asked
        asked += 1
        if asked == 1:
            await sends(reply(b"<html>Gateway</html>"))(writer)

    error, _, _ = complete_on_the_wire(html_then_nothing, timeout=0.5)
    assert type(error) is TimedOut and "Gateway" in str(error)


def test_once_told_to_stop_what_fails_is_not_tried_again():
    async def ask(told_after, answer):
        stop, attempts = asyncio.Event(), []
        async with LLMClient("http://npc", transport=Server(answer).transport, timeout=30) as client:
            asyncio.get_running_loop().call_later(told_after, stop.set)
            start = time.perf_counter()
            with pytest.raises(Refused):
                await client.complete(REQUEST, attempts.append, stop=stop)
            return time.perf_counter() - start, len(attempts)

    busy = {"status_code": 503, "headers": {"retry-after": "20"}}
    took, attempts = asyncio.run(ask(0.2, busy))
    assert attempts == 1 and took < 5  # a long wait ends at once


def test_counting_tokens_keeps_to_the_deadline():
    async def silent_tokenizer(writer):
        if len(seen := servers[0].requests) == 1:
            await sends(with_length(b'{"results": [{"text": "Well met."}]}'), close=False)(writer)
        assert seen

    servers = []

    async def ask():
        async with Wire(silent_tokenizer) as server, LLMClient(server.url, dialect="textgen", timeout=0.4) as client:
            servers.append(server)
            start = time.perf_counter()
            answer = await client.complete(REQUEST)
            return answer, time.perf_counter() - start

    answer, took = asyncio.run(ask())
    assert answer.usage.source == "estimate" and took < 2


@pytest.mark.parametrize("concurrency", [0, -1])
def test_a_concurrency_of_none_is_refused(concurrency):
    with pytest.raises(ConfigError, match="1 or more"):
        LLMClient("http://npc", concurrency=concurrency)


def test_the_deadline_covers_all_attempts_together():
    async def slow(writer):
        await asyncio.sleep(0.2)
        await sends(reply(b"{}", status="500 Oh"))(writer)

    start = time.perf_counter()
    error, attempts, arrived = complete_on_the_wire(slow, timeout=0.5)
    assert 0.4 < time.perf_counter() - start < 1.5
    assert type(error) is TimedOut and len(attempts) == len(arrived.requests) == 3
    assert [attempt.status for attempt in attempts] == [500, 500, None]


def test_cancelling_closes_the_connection_and_leaves_a_record():
    attempts = []

    async def talk():
        async with Wire(stalls) as server, LLMClient(server.url) as client:
            task = asyncio.create_task(client.complete(REQUEST, attempts.append))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            _, pending = await asyncio.wait(server._tasks, timeout=2)
            return pending

    assert not asyncio.run(talk())
    assert len(attempts) == 1 and not attempts[0].final


# --- waiting


def test_a_server_that_names_a_delay_is_obeyed():
    busy = {"status_code": 429, "headers": {"retry-after": "0.3"}}
    start = time.perf_counter()
    answer, _ = complete(Server(busy, ok()).transport)
    assert answer.text == "Well met." and 0.25 < time.perf_counter() - start < 1.5


def test_a_delay_may_be_given_as_a_date():
    busy = {"status_code": 503, "headers": {"retry-after": formatdate(time.time() + 2, usegmt=True)}}
    start = time.perf_counter()
    answer, _ = complete(Server(busy, ok()).transport)
    assert answer.text == "Well met." and 0.5 < time.perf_counter() - start < 2.5


@pytest.mark.parametrize(
    "asked, said",
    [
        ("3600", "wait for 3600 s"),  # more than we are ready to wait
        ("30", "wait for 30 s"),  # beyond the deadline
        (formatdate(time.time() + 86400, usegmt=True), "asks to wait for"),
    ],
)
def test_a_delay_too_long_fails_at_once_with_the_number(asked, said):
    start = time.perf_counter()
    server = Server({"status_code": 429, "headers": {"retry-after": asked}})
    error, attempts = complete(server.transport, timeout=5)
    assert time.perf_counter() - start < 1
    assert isinstance(error, Refused) and said in str(error) and len(attempts) == 1


def test_without_a_delay_named_the_dice_decide(monkeypatch):
    monkeypatch.setattr(random, "random", lambda: 0.5)
    start = time.perf_counter()
    answer, _ = complete(Server({"status_code": 500}, httpx.ReadError("reset"), ok()).transport)
    assert answer.attempts == 3 and 0.7 < time.perf_counter() - start < 1.5  # half of 0.5 s and half of 1 s


# --- keys


def everything_said(error):
    """All that a traceback, a log or a curious caller would print."""
    shown = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
    while error is not None:
        shown += str(error) + repr(error.args)
        error = error.__cause__ or error.__context__
    return shown


ECHOES = {
    "a 401": {"status_code": 401, "json": {"detail": f"no such key: Bearer {MARKER}"}},
    "a 401 in html": {"status_code": 401, "html": f"<h1>{MARKER}</h1>"},
    "escaped slashes": {"status_code": 401, "content": json.dumps(MARKER).replace("/", "\\/").encode()},
    "a 500": {"status_code": 500, "content": MARKER.encode() * 50, "headers": AT_ONCE},
    "a redirect": {"status_code": 307, "headers": {"location": f"http://elsewhere/?key={MARKER}"}},
    "an error in a 200": {"status_code": 200, "json": {"error": f"bad key {MARKER}"}, "headers": AT_ONCE},
    "html in a 200": {"status_code": 200, "html": f"<h1>{MARKER}</h1>", "headers": AT_ONCE},
    "an error in a stream": streamed(chunk("Well "), {"error": {"message": f"bad key {MARKER}"}}),
    "an error in the way": httpx.ReadError(f"while sending Bearer {MARKER}"),
    "a reply": ok({"choices": [{"message": {"content": f"My key is {MARKER}."}}]}),
    "a stream": streamed(chunk("My key is "), chunk(f"{MARKER}.", "stop")),
}


@pytest.mark.parametrize("answers", ECHOES.values(), ids=ECHOES)
@pytest.mark.parametrize("how", ["key", "header"])
def test_the_key_is_nowhere_but_in_its_header_whoever_echoes_it(answers, how, caplog):
    caplog.set_level(logging.DEBUG)
    server = Server(answers)
    given = {"api_key": MARKER} if how == "key" else {"headers": {"X-Api-Key": MARKER}}
    outcome, attempts = complete(server.transport, stream=True, **given)
    name, value = ("authorization", f"Bearer {MARKER}") if how == "key" else ("x-api-key", MARKER)
    for request in server.requests:
        assert request.headers[name] == value
        assert MARKER not in str(request.url) and MARKER.encode() not in request.content
    shown = str(outcome) + repr(outcome)
    if isinstance(outcome, ServerError) and not isinstance(answers, Exception):
        shown += everything_said(outcome)  # an error of a stranger's transport is the stranger's
    client = LLMClient("http://npc", transport=server.transport, **given)
    assert MARKER not in shown + repr(attempts) + caplog.text + repr(client)
    assert json.dumps(MARKER).replace("/", "\\/")[1:-1] not in shown + repr(attempts)


def test_the_key_in_an_answer_is_struck_out_and_the_record_says_the_same():
    for answers in (ECHOES["a reply"], ECHOES["a stream"]):
        answer, [attempt] = complete(Server(answers).transport, stream=True, api_key=MARKER)
        assert answer.text == "My key is [key]."
        assert "[key]" in attempt.body


@pytest.mark.parametrize("key", ["test", "none", "EMPTY", "ollama", "met."])
def test_a_key_that_is_a_mere_word_changes_no_reply_but_no_error_shows_it(key):
    body = {"choices": [{"message": {"content": f"Well met. {key}"}}], "test": "none"}
    answer, [attempt] = complete(Server(ok(body)).transport, api_key=key)
    assert answer.text == f"Well met. {key}" and json.loads(attempt.body) == body
    error, [attempt] = complete(Server({"status_code": 401, "text": f"no key {key!r}"}).transport, api_key=key)
    assert f"no key {key!r}" not in str(error) + attempt.body + attempt.error


def test_headers_that_are_no_secret_change_no_reply():
    headers = {"User-Agent": "content", "X-Title": "Well met.", "Connection": "close", "X-Stream": "choices"}
    answer, _ = complete(Server(ok()).transport, headers=headers)
    assert answer.text == "Well met."


def test_the_user_part_of_an_address_is_sent_as_basic_and_never_shown(caplog):
    caplog.set_level(logging.DEBUG)
    server = Server({"status_code": 401, "text": "mira:pass word is wrong, bWlyYTpwYXNzIHdvcmQ= too"})
    error, attempts = complete(server.transport, url="http://mira:pass%20word@npc:5000/v1")
    assert server.requests[0].headers["authorization"] == "Basic bWlyYTpwYXNzIHdvcmQ="
    assert error.url == "http://npc:5000/v1/chat/completions"
    shown = everything_said(error) + repr(attempts) + caplog.text
    assert not [secret for secret in ("mira:", "pass%20", "pass word", "bWlyYTp") if secret in shown]


def test_the_user_part_does_not_reach_the_wire_in_any_other_way():
    async def talk():
        async with Wire(sends(reply(b"{}", status="400 No"))) as server:
            url = server.url.replace("http://", "http://mira:password@")
            async with LLMClient(url) as client:
                with pytest.raises(Refused):
                    await client.complete(REQUEST)
            return server.requests[0]

    assert b"mira" not in asyncio.run(talk())


def test_the_key_does_not_follow_a_redirect(caplog):
    caplog.set_level(logging.DEBUG)

    async def talk():
        async with Wire(sends(reply(json.dumps(WELL_MET).encode()))) as elsewhere:
            to = [f"Location: {elsewhere.url}/v1/chat/completions?{MARKER}"]
            async with Wire(sends(reply(b"", status="307 Moved", headers=to))) as server:
                async with LLMClient(server.url, api_key=MARKER) as client:
                    with pytest.raises(Refused) as caught:
                        await client.complete(REQUEST)
                    assert await client.get_response("Hello") == ""
                return caught.value, server.requests, elsewhere.requests

    error, asked, followed = asyncio.run(talk())
    assert not followed and len(asked) == 2
    assert all(f"authorization: bearer {MARKER}".encode().lower() in request.lower() for request in asked)
    assert MARKER not in everything_said(error) + caplog.text


@pytest.mark.parametrize(
    "value", [f"{MARKER}\n", f"{MARKER}\r\nX-More: 1", f"{MARKER}\0", f"{MARKER}\x7f", f"{MARKER}é"]
)
def test_a_header_that_http_does_not_allow_is_refused_without_being_shown(value):
    for options in ({"api_key": value}, {"headers": {"X-Api-Key": value}}, {"headers": {value: "x"}}):
        with pytest.raises(ConfigError, match="characters") as caught:
            LLMClient("http://npc", transport=Server(ok()).transport, **options)
        assert MARKER not in everything_said(caught.value)


def test_of_two_spellings_of_a_header_one_is_sent():
    headers = request_headers("http://npc", "key-of-the-client", {"authorization": "Bearer old", "content-type": "a/b"})
    assert headers.get_list("authorization") == ["Bearer key-of-the-client"]
    assert headers.get_list("content-type") == ["a/b"]


def test_secrets_are_all_values_that_are_not_plainly_harmless():
    headers = request_headers("http://mira:password@npc", None, {"X-Api-Key": "abcdefgh", "User-Agent": "evennia"})
    found = secrets_in(headers)
    assert {"abcdefgh", "password", "mira:password"} <= set(found)
    assert "evennia" not in found and "application/json" not in found
    assert secrets_in(httpx.Headers({"Authorization": "Basic not-base64!"}))


# --- options


def test_an_unknown_dialect_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match="openai, completions, textgen"):
        LLMClient("http://npc", dialect="telepathy")


@pytest.mark.parametrize("url", ["", "ftp://npc", "http://", "http://npc:port", "http://npc:99999", "http://[::1"])
def test_an_address_that_is_none_is_refused_at_once(url):
    with pytest.raises(ConfigError, match=r"http://127\.0\.0\.1:5000"):
        LLMClient(url)


def test_a_transport_of_ones_own_stays_open():
    class Transport(httpx.MockTransport):
        closed = False

        async def aclose(self):
            self.closed = True

    transport = Transport(lambda request: httpx.Response(200, json=WELL_MET))
    complete(transport)
    assert not transport.closed


def test_sampling_goes_over_the_wire():
    server = Server(ok())
    config = GenerateConfig(max_tokens=9, temperature=0.1, stop=("\n",), seed=4)
    complete(server.transport, request=Request(messages=REQUEST.messages, config=config))
    sent = json.loads(server.requests[0].content)
    assert (sent["max_tokens"], sent["temperature"], sent["stop"], sent["seed"]) == (9, 0.1, ["\n"], 4)


# --- whatever comes


BODY = json.dumps(WELL_MET).encode()
STREAM = sse(chunk("Well "), chunk("met.", "stop"), {"choices": [], "usage": {"completion_tokens": 4}})


@settings(max_examples=250, deadline=None)
@given(
    st.data(),
    st.sampled_from([BODY, STREAM]),
    st.sampled_from([200, 200, 200, 201, 204, 302, 400, 401, 418, 422]),
    st.sampled_from(["application/json", "text/event-stream", "text/html", ""]),
    st.sampled_from(["openai", "textgen"]),
)
def test_whatever_a_server_answers_is_a_completion_or_a_typed_error(data, body, status, kind, dialect):
    start = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(start, min(len(body), start + 20)))
    body = body[:start] + data.draw(st.binary(max_size=8) | st.just(b"\\ud83d")) + body[end:]
    answers = {"status_code": status, "content": body, "headers": {"content-type": kind, "retry-after": "999"}}
    # A 200 that nobody can read is worth asking again: one more will do here.
    outcome, attempts = complete(Server(answers, {"status_code": 400}).transport, stream=True, dialect=dialect)
    if isinstance(outcome, PipelineError):
        str(outcome).encode()
    else:
        outcome.text.encode()
    assert attempts and [n for a in attempts if (n := a.number)] == sorted(n for a in attempts if (n := a.number))
