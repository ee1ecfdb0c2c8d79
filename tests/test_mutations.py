"""Ten thousand answers that went wrong on the way: each is a completion or a typed error, live and from the record."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.client.reply import StreamReader, UnreadableReply, read_reply
from pipeline.dialects import DIALECTS
from pipeline.records import Completion

USAGE = {"prompt_tokens": 31, "completion_tokens": 8}
CHUNKS = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {"reasoning_content": "Hm."}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {"content": "Wéll "}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {"content": "met \U0001f702"}, "finish_reason": "stop"}]},
    {"choices": [], "usage": USAGE, "timings": {"predicted_ms": 80.5}},
]
STREAM = "".join(f"data: {json.dumps(one, ensure_ascii=False)}\r\n\r\n" for one in CHUNKS) + "data: [DONE]\n\n"
BODIES = [
    ("openai", json.dumps({"choices": [{"message": {"content": "Well met."}, "finish_reason": "stop"}], "usage": USAGE})),
    ("textgen", json.dumps({"results": [{"text": " Well met.", "finish_reason": "stop", "completion_tokens": 3}]})),
    ("openai", json.dumps({"error": {"message": "no model", "code": 500, "param": None}})),
]  # fmt: skip
VALUES = [
    *("null", "true", "-1", "1e999", "NaN", "9" * 400, '""', '"x"', '"\\ud83d"', "[]", "{}", "[[]]", '{"a":{}}'),
    *("[" * 2000, '{"a":' * 2000, '"' + "x" * 5000 + '"', "\u2028", "\x00", "\ufeff"),
]
PIECES = [
    *VALUES,
    "\n",
    "\n\n",
    "\r",
    "data: ",
    "data: [DONE]\n\n",
    "event: error\n",
    ":",
    "id: 1\n",
    "<html>",
    "}",
    "]",
    ",",
]


def mutated(text: str, dice: random.Random) -> bytes:
    """One to four things go wrong: a value becomes another, a piece is lost, doubled, moved or put in, a byte flips."""
    data = text.encode()
    for _ in range(dice.randint(1, 4)):
        start = dice.randrange(len(data) + 1)
        end = min(len(data), start + dice.choice((0, 1, 3, 20, 200)))
        match dice.randrange(6):
            case 0:  # one JSON value for another
                ends = [at for at, byte in enumerate(data) if byte in b":,[" and at + 1 < len(data)] or [0]
                start = dice.choice(ends) + 1
                stop = min(
                    (at for at in (data.find(b",", start), data.find(b"}", start)) if at >= 0), default=len(data)
                )
                data = data[:start] + dice.choice(VALUES).encode() + data[stop:]
            case 1:
                data = data[:start] + data[end:]
            case 2:
                data = data[:end] + data[start:end] * dice.choice((1, 1, 1, 50)) + data[end:]
            case 3:
                data = data[:start] + dice.choice(PIECES).encode() + data[end:]
            case 4:
                data = data[:start]
            case 5 if start < len(data):
                data = data[:start] + bytes([data[start] ^ (1 << dice.randrange(8))]) + data[start + 1 :]
    return data


def read(dialect, data: bytes, streamed: bool, dice: random.Random) -> Completion | str:
    if not streamed:
        return outcome(lambda: read_reply(dialect, data.decode("utf-8", "replace"), streamed=False))
    reader, at = StreamReader(dialect), 0
    while at < len(data):
        size = dice.choice((1, 2, 7, 100, 10_000))
        reader.feed(data[at : at + size])
        at += size
    return outcome(reader.close)


def outcome(close) -> Completion | str:
    try:
        return close()
    except UnreadableReply as exc:
        return str(exc)


@pytest.fixture(scope="module")
def counts():
    found = {"answers": 0, "errors": 0}
    yield found
    assert found["answers"] > 500 and found["errors"] > 2000  # the mutations are of both kinds


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**64))
def test_ten_thousand_mutated_bodies_and_streams_are_answers_or_typed_errors(counts, seed):
    dice = random.Random(seed)
    for _ in range(100):
        streamed = dice.random() < 0.5
        name, text = ("openai", STREAM) if streamed else dice.choice(BODIES)
        data = mutated(text, dice)
        found = read(DIALECTS[name], data, streamed, dice)
        again = outcome(lambda: read_reply(DIALECTS[name], data.decode("utf-8", "replace"), streamed=streamed))  # noqa: B023
        assert again == found  # a later day reads the record as the day itself read the network
        if isinstance(found, str):
            counts["errors"] += 1
            found.encode()
            assert len(found) < 1000
            continue
        counts["answers"] += 1
        found.text.encode()
        assert found.finish_reason is None or found.finish_reason.encode()
        for tokens in (found.usage.prompt_tokens, found.usage.completion_tokens):
            assert tokens is None or 0 <= tokens < 2**31
        assert json.loads(json.dumps(dict(found.server), allow_nan=False)) == found.server
