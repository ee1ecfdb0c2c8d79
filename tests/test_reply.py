"""From bytes to an answer, or to one kind of error: nothing that a server writes may surprise what comes after."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.client.reply import StreamReader, UnreadableReply, read_reply
from pipeline.client.sse import EventDecoder
from pipeline.dialects import DIALECTS
from pipeline.records import Completion

OPENAI, TEXTGEN = DIALECTS["openai"], DIALECTS["textgen"]


def chunk(content=None, finish_reason=None, **delta):
    if content is not None:
        delta["content"] = content
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


def sse(*events, end="data: [DONE]\n\n"):
    return ("".join(f"data: {e if isinstance(e, str) else json.dumps(e)}\n\n" for e in events) + end).encode()


def read_stream(data):
    return read_reply(OPENAI, data.decode("utf-8", "replace"), streamed=True)


HELLO = sse(chunk("", role="assistant"), chunk("Well "), chunk("met."), chunk(finish_reason="stop"))


@pytest.mark.parametrize(
    "body, problem",
    [
        ("", "an empty body"),
        (" \r\n", "an empty body"),
        ("<html><body>It works!</body></html>", "not JSON"),
        ('{"choices": [{"message": {"content": "Well m', "not JSON"),
        ("[" * 100_000, "not JSON"),
        (f'{{"choices": {"9" * 5000}}}', "not JSON"),
        ("null", "not openai's format"),
        ("7", "not openai's format"),
        ('"choices"', "not openai's format"),
        ("[]", "not openai's format"),
        ("{}", "not openai's format"),
        ('{"choices": []}', "not openai's format"),
        ('{"choices": {}}', "not openai's format"),
        ('{"choices": "abc"}', "not openai's format"),
        ('{"choices": [null]}', "not openai's format"),
        ('{"choices": [{}]}', "not openai's format"),
        ('{"choices": [{"text": "Well met."}]}', "not openai's format"),
        ('{"choices": [{"message": {}}]}', "not openai's format"),
        ('{"choices": [{"message": "Well met."}]}', "not openai's format"),
        ('{"choices": [{"message": {"content": 7}}]}', "not openai's format"),
        ('{"choices": [{"message": {"content": [{"text": "Well met."}]}}]}', "not openai's format"),
        ('{"results": [{"text": "Well met."}]}', "not openai's format"),
        ('{"error": {"message": "CUDA out of memory"}}', "the server says: CUDA out of memory"),
        ('{"detail": [{"msg": "Field required"}]}', "the server says: Field required"),
        ('{"choices": [], "error": "no model loaded"}', "the server says: no model loaded"),
    ],
)
def test_what_is_no_chat_completion_is_unreadable_and_says_why(body, problem):
    with pytest.raises(UnreadableReply, match=problem):
        read_reply(OPENAI, body, streamed=False)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"results": []}',
        '{"results": null}',
        '{"results": "success"}',
        '{"results": [{"tokens": 3}]}',
        '{"results": [{"text": 5}]}',
        '{"results": ["text"]}',
        '{"results": [["text"]]}',
        '{"choices": [{"message": {"content": "Well met."}}]}',
        '{"error": {"message": "repr"}}',
    ],
)
def test_what_is_no_text_completion_is_unreadable(body):
    with pytest.raises(UnreadableReply):
        read_reply(TEXTGEN, body, streamed=False)


@pytest.mark.parametrize(
    "said", [{"error": {"message": "boom"}}, {"error": "boom"}, {"object": "error", "message": "boom"}]
)
def test_an_error_beside_an_empty_reply_is_an_error(said):
    body = {**said, "choices": [{"message": {"content": ""}}]}
    with pytest.raises(UnreadableReply, match="the server says: boom"):
        read_reply(OPENAI, json.dumps(body), streamed=False)


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("content", ["", None])
def test_silence_is_an_answer(dialect, content):
    said = {"text": content, "message": {"content": content}}
    body = {"choices": [said], "results": [said], **said, "content": content, "response": content}
    assert read_reply(dialect, json.dumps(body), streamed=False).text == ""


def test_no_text_has_half_characters_which_no_file_can_hold():
    body = r'{"results": [{"text": "so \ud83d and \ud83d\ude00"}]}'
    assert read_reply(TEXTGEN, body, streamed=False).text == "so \ufffd and 😀"


def test_a_character_that_two_events_share_is_whole_again():
    halves = sse(r'{"choices": [{"delta": {"content": "\ud83d"}}]}', r'{"choices": [{"delta": {"content": "\ude00"}}]}')
    assert read_stream(halves).text == "😀"


def test_a_dialect_that_does_not_stream_reads_no_stream():
    with pytest.raises(UnreadableReply):
        read_reply(TEXTGEN, HELLO.decode(), streamed=True)


@pytest.mark.parametrize(
    "data, text, finish_reason",
    [
        (HELLO, "Well met.", "stop"),
        (sse(chunk("Well met.", "stop"), end=""), "Well met.", "stop"),  # no [DONE]
        (sse(chunk("Well met."), chunk(finish_reason="length"), end="data: [DONE]"), "Well met.", "length"),
        (sse(chunk("Well met.")), "Well met.", None),  # no finish_reason
        (sse(chunk(finish_reason="stop")), "", "stop"),
        (sse({"choices": [{"delta": {"role": "assistant", "content": None}}]}, chunk("Hm.", "stop")), "Hm.", "stop"),
        (sse({"choices": [{"delta": None, "finish_reason": None}]}, chunk("Hm.", "stop")), "Hm.", "stop"),
        (sse({"choices": [{"finish_reason": "stop"}]}), "", "stop"),
        (sse(chunk(reasoning_content="The player", finish_reason="stop")), "", "stop"),
        (sse(chunk("Hm.", "stop"), {"choices": [], "usage": {"completion_tokens": 2}}), "Hm.", "stop"),
        (sse(chunk("Hm.", "stop"), {"choices": None}), "Hm.", "stop"),
        (b": ping\r\n\r\n" + HELLO.replace(b"\n", b"\r\n"), "Well met.", "stop"),
        (HELLO.replace(b"data: ", b"data:"), "Well met.", "stop"),
        (b"\xef\xbb\xbf" + HELLO, "Well met.", "stop"),
        (sse(chunk("one\u2028line", "stop")), "one\u2028line", "stop"),
        (b"event: ping\ndata:\n\nevent: ping\ndata: {}\n\ndata: ping\n\ndata: null\n\n" + HELLO, "Well met.", "stop"),
        (HELLO + b'data: bye\n\ndata: {"x": 1}\n\n', "Well met.", "stop"),  # after its end
    ],
)
def test_a_stream_that_ends_properly_is_an_answer(data, text, finish_reason):
    reply = read_stream(data)
    assert (reply.text, reply.finish_reason) == (text, finish_reason)


@pytest.mark.parametrize(
    "data, problem",
    [
        (b"", "ended before"),
        (b": ping\n\n", "ended before"),
        (sse(chunk("Well ", "null"), chunk("met.", ""), end=""), "ended before"),
        (sse({"choices": [], "usage": {}}, end=""), "ended before"),
        (b"data: [DONE]\n\n", "ended before"),  # with nothing before it
        (b'error: {"error": {"message": "slot lost"}}\n\n', "broke off: slot lost"),  # llama.cpp, early 2025
        (sse(chunk("Hel"), end="") + b'event: error\ndata: {"message": "boom"}\n\ndata: [DONE]\n\n', "broke off: boom"),
        (sse(chunk("Hel"), end="") + b"event: error\ndata: boom\n\ndata: [DONE]\n\n", "broke off: boom"),
        (sse(chunk("Hel"), {"object": "error", "message": "boom", "code": 500}), "broke off: boom"),
        (sse(chunk("Hel"), {"detail": "boom"}), "broke off: boom"),
        (sse(chunk("Hel"), {"error": {}}), "broke off: an error"),
        (sse(chunk("Hel", "error")), "broke off: finish_reason error"),
        (sse(chunk("Well "), {"error": {"message": "CUDA out of memory"}}), "broke off: CUDA out of memory"),
        (sse(chunk("Well met.", "stop"), {"error": "overloaded"}), "broke off: overloaded"),
        (sse({"error": {}, "choices": []}, {"error": [[[[[[7]]]]]]}), "broke off: an error"),
        (sse(chunk("Well "), "<html>502</html>"), "not openai's format"),
        (sse("null"), "ended before"),  # a ping
        (sse("[]"), "not openai's format"),
        (sse('{"choices": 7}'), "not openai's format"),
        (sse('{"choices": {"a": 1}}'), "not openai's format"),
        (sse('{"choices": [7]}'), "not openai's format"),
        (sse('{"choices": [{"delta": 7}]}'), "not openai's format"),
        (sse('{"choices": [{"delta": {"content": 7}}]}'), "not openai's format"),
        (sse("[" * 50_000), "not openai's format"),
        (sse("9" * 5000), "not openai's format"),
        (HELLO[: HELLO.index(b"met")], "not openai's format"),  # cut in the middle of an event
    ],
)
def test_a_stream_that_goes_wrong_is_unreadable_and_says_why(data, problem):
    with pytest.raises(UnreadableReply, match=problem):
        read_stream(data)


def test_only_reads_that_complete_content_count_as_content():
    reader = StreamReader(OPENAI)
    role, ping, empty = sse(chunk(role="assistant"), end=""), b": ping\n\n", sse(chunk(""), end="")
    content = sse(chunk("Hm."), end="")
    usage = sse({"choices": [], "usage": {"completion_tokens": 1}})
    pieces = [role, ping, empty, content[:20], content[20:], content + content, sse(chunk("", "stop"), end=""), usage]
    assert [reader.feed(piece) for piece in pieces] == [1, 0, 1, 0, 3, 3, 1, 1]
    assert reader.close().text == "Hm.Hm.Hm."


def test_after_a_problem_nothing_more_is_read_or_held():
    reader = StreamReader(OPENAI)
    reader.feed(sse({"error": "overloaded"}, end=""))
    assert not any(reader.feed(sse(chunk("late"))) for _ in range(100))
    with pytest.raises(UnreadableReply, match="overloaded"):
        reader.close()


@pytest.mark.parametrize("cut", [b"", b"\n"])
def test_an_event_beyond_the_limit_is_unreadable_also_at_the_very_end(cut):
    reader = StreamReader(OPENAI)
    reader._events = EventDecoder(limit=64)
    reader.feed(b"data: " + b"x" * 40 + b"\n")
    reader.feed(b"data: " + b"x" * 40 + cut)
    with pytest.raises(UnreadableReply, match="more than 64 bytes"):
        reader.close()


WHOLE = {
    OPENAI: json.dumps(
        {
            "id": "x",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "Well “met”."}, "finish_reason": "stop"}
            ],
            "usage": {"prompt_tokens": 3, "completion_tokens": 4},
        }
    ),
    TEXTGEN: json.dumps({"results": [{"text": "Well met.", "finish_reason": "stop", "prompt_tokens": 3}]}),
}
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8)
KEYS = st.sampled_from(
    [
        "choices",
        "message",
        "content",
        "text",
        "delta",
        "results",
        "finish_reason",
        "usage",
        "error",
        "detail",
        "msg",
        "model",
    ]
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)


@st.composite
def mutated(draw, data):
    """`data` with a few bytes cut out, put in or changed."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 12)))
        middle = draw(
            st.binary(max_size=6) | st.sampled_from([b"{}", b"null", b"[]", b'"', b"\n\n", b"data: ", b"\\ud83d"])
        )
        data = data[:start] + middle + data[end:]
    return data


def check(reply):
    """What the tables after us rely on."""
    assert isinstance(reply, Completion)
    reply.text.encode()
    assert reply.finish_reason is None or reply.finish_reason.encode()
    for count in (reply.usage.prompt_tokens, reply.usage.completion_tokens):
        assert count is None or 0 <= count < 2**63


def read_or_refuse(dialect, body, *, streamed):
    try:
        check(read_reply(dialect, body, streamed=streamed))
    except UnreadableReply as exc:
        assert len(str(exc)) < 1000
        str(exc).encode()


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from([OPENAI, TEXTGEN]))
def test_a_mutated_body_is_a_reply_or_unreadable(data, dialect):
    body = data.draw(mutated(WHOLE[dialect].encode())).decode("utf-8", "replace")
    read_or_refuse(dialect, body, streamed=False)


@settings(max_examples=300, deadline=None)
@given(VALUES, st.sampled_from([OPENAI, TEXTGEN]))
def test_any_json_at_all_is_a_reply_or_unreadable(value, dialect):
    read_or_refuse(dialect, json.dumps(value), streamed=False)
    read_or_refuse(dialect, json.dumps({"choices": [value], "results": [value]}), streamed=False)
    read_or_refuse(dialect, json.dumps({"choices": [{"message": {"content": value}}]}), streamed=False)


@settings(max_examples=300, deadline=None)
@given(mutated(HELLO), st.lists(st.integers(0, 400)))
def test_a_mutated_stream_reads_the_same_however_it_is_cut(data, cuts):
    def outcome(pieces):
        reader = StreamReader(OPENAI)
        for piece in pieces:
            reader.feed(piece)
        try:
            reply = reader.close()
        except UnreadableReply as exc:
            return str(exc)
        check(reply)
        return reply

    places = [0, *sorted(cuts), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(places)]
    assert outcome(pieces) == outcome([data])


@settings(max_examples=300, deadline=None)
@given(st.lists(VALUES, max_size=4))
def test_any_events_at_all_are_a_reply_or_unreadable(values):
    read_or_refuse(OPENAI, sse(*[json.dumps(value) for value in values]).decode(), streamed=True)
    deltas = [json.dumps({"choices": [{"delta": {"content": value}}]}) for value in values]
    read_or_refuse(OPENAI, sse(*deltas).decode(), streamed=True)


@settings(max_examples=200, deadline=None)
@given(mutated(HELLO))
def test_the_journals_copy_reads_like_the_stream_itself(data):
    reader = StreamReader(OPENAI)
    reader.feed(data)
    try:
        live = reader.close()
    except UnreadableReply as exc:
        with pytest.raises(UnreadableReply) as again:
            read_stream(data)
        assert str(again.value) == str(exc)
    else:
        assert read_stream(data) == live
