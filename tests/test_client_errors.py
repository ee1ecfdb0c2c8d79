"""What goes wrong is a typed error by the deadline, asked again where that may help, with every attempt on record."""

import asyncio
import json
import random
import time
from email.utils import formatdate

import httpx
import pytest
from asked import AT_ONCE, REQUEST, WELL_MET, Server, chunk, complete, complete_on_the_wire, ok, sse, streamed
from wire import Wire, reply, sends, stalls, unused_port, with_length

from pipeline.client.client import LLMClient
from pipeline.client.retry import MAX_ATTEMPTS
from pipeline.client.transport import AiohttpTransport
from pipeline.errors import BadReply, Busy, ConfigError, Denied, Refused, TimedOut, TooLong, Unreachable

pytestmark = pytest.mark.usefixtures("no_waiting_between_attempts")


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
