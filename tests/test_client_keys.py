"""A key reaches its own server and nothing else: no error, no log, no record."""

import asyncio
import json
import logging
import traceback

import httpx
import pytest
from asked import AT_ONCE, MARKER, REQUEST, WELL_MET, Server, chunk, complete, ok, streamed
from wire import Wire, reply, sends

from pipeline.client.client import LLMClient
from pipeline.client.headers import request_headers, secrets_in
from pipeline.errors import ConfigError, Refused, ServerError

pytestmark = pytest.mark.usefixtures("no_waiting_between_attempts")


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
