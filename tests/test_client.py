"""`complete`: an answer with its text, its counts and its time, or a typed error, whatever a server says."""

import asyncio
import json
import time

import httpx
import pytest
from asked import REQUEST, WELL_MET, Server, chunk, complete, complete_on_the_wire, ok, sse, streamed
from fakes import FakeServer
from hypothesis import given, settings
from hypothesis import strategies as st
from wire import reply, sends

from pipeline.client import LLMClient
from pipeline.client.reply import read_reply, with_prompt_tokens
from pipeline.errors import BadReply, ConfigError, PipelineError
from pipeline.records import GenerateConfig, Request, Usage

pytestmark = pytest.mark.usefixtures("no_waiting_between_attempts")


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
