import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.client.sse import Event, EventDecoder, LineDecoder


def events(*reads: bytes) -> list[Event]:
    decoder = EventDecoder()
    return [event for read in reads for event in decoder.feed(read)] + decoder.close()


def lines(*reads: bytes) -> list[str]:
    decoder = LineDecoder()
    return [line for read in reads for line in decoder.feed(read)] + decoder.close()


def data(*values: str) -> list[Event]:
    return [Event(data=value) for value in values]


CASES = {
    "line feeds": (b"data: a\n\ndata: b\n\n", data("a", "b")),
    "carriage returns": (b"data: a\r\rdata: b\r\r", data("a", "b")),
    "both": (b"data: a\r\n\r\ndata: b\r\n\r\n", data("a", "b")),
    "mixed": (b"data: a\r\ndata: b\ndata: c\r\n\ndata: d\r\n\r", data("a\nb\nc", "d")),
    "a byte order mark at the start": (b"\xef\xbb\xbfdata: a\n\n", data("a")),
    "a byte order mark is ignored only once": (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []),
    "a byte order mark further on is text": (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", data("a")),
    "comments": (b": ping\n\n:\n\ndata: a\n: in between\ndata: b\n\n", data("a\nb")),
    "no space": (b"data:a\n\n", data("a")),
    "only the first space goes": (b"data:  a \n\n", data(" a ")),
    "a colon in the data": (b'data:{"a": 1}\n\n', data('{"a": 1}')),
    "a field without a colon": (b"data\n\n", data("")),
    "two empty data lines": (b"data\ndata\n\n", data("\n")),
    "an empty data line is data": (b"data:\n\ndata:\ndata: a\n\n", data("", "\na")),
    "no data, no event": (b"event: ping\n\ndata: a\n\n", data("a")),
    "a name": (b"event: error\ndata: a\n\ndata: b\n\n", [Event("error", "a"), Event("message", "b")]),
    "an empty name": (b"event:\ndata: a\n\n", data("a")),
    "the last name counts": (b"event: a\nevent: b\ndata: c\n\n", [Event("b", "c")]),
    "id, retry and unknown fields": (b"id: 1\nretry: 5\nfoo: bar\ndata: a\n\n", data("a")),
    "fields are spelt exactly": (b"Data: a\n data: b\ndata : c\n\n", []),
    "blank lines alone": (b"\n\r\r\n\n\n", []),
    "separators of Unicode are text": (
        'data: "\u2028\u2029\x85\x0b\x0c\x1c"\n\n'.encode(),
        data('"\u2028\u2029\x85\x0b\x0c\x1c"'),
    ),
    "several bytes a character": ("data: Gr\u00fc\u00dfe \U0001f409\n\n".encode(), data("Gr\u00fc\u00dfe \U0001f409")),
    "bytes that are no UTF-8": (b"data: a\xffb\xe2\x82\ndata: \x82c\n\n", data("a\ufffdb\ufffd\n\ufffdc")),
    "NUL is text": (b"data: a\0b\n\n", data("a\0b")),
    "closed without the blank line": (b"data: a\n\ndata: b\n", data("a", "b")),
    "closed in the middle of a line": (b"data: a\n\ndata: b", data("a", "b")),
    "closed after a name": (b"data: a\n\nevent: done\n", data("a")),
    "nothing": (b"", []),
}


@pytest.mark.parametrize("stream, expected", CASES.values(), ids=CASES)
def test_events_are_those_of_the_specification(stream, expected):
    assert events(stream) == expected


@pytest.mark.parametrize("stream, expected", CASES.values(), ids=CASES)
def test_where_the_network_cuts_makes_no_difference(stream, expected):
    for cut in range(len(stream) + 1):
        assert events(stream[:cut], stream[cut:]) == expected
    assert events(*(bytes([byte]) for byte in stream)) == expected


def test_an_event_is_out_as_soon_as_its_blank_line_is():
    decoder = EventDecoder()
    assert decoder.feed(b"data: a\n") == []
    assert decoder.feed(b"\n") == data("a")
    assert decoder.feed(b"data: b\r\n\r") == data("b")
    assert decoder.feed(b"\ndata: c\r\n\r\n") == data("c")
    assert decoder.close() == []


def test_closing_twice_gives_the_last_event_once():
    decoder = EventDecoder()
    decoder.feed(b"data: a")
    assert decoder.close() == data("a")
    assert decoder.close() == []


# Few different bytes, those that mean something: most streams drawn from them hold events and torn line ends.
FIELDS = [b"data:", b"data: ", b"event: x", b":", b" ", b"a"]
BREAKS = [b"\r", b"\n", b"\r\n", b"\n\n"]
TORN = [b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xf0\x9f"]
STREAMS = st.lists(st.sampled_from(FIELDS + BREAKS + TORN), max_size=30).map(b"".join)
CUTS = st.lists(st.integers(0, 200), max_size=12)


def partition(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


@settings(deadline=None, max_examples=150)
@given(STREAMS, CUTS)
def test_any_partition_gives_the_same_events(stream, cuts):
    assert events(*partition(stream, cuts)) == events(stream)


@settings(deadline=None, max_examples=150)
@given(STREAMS, CUTS)
def test_any_partition_gives_the_same_lines(stream, cuts):
    assert lines(*partition(stream, cuts)) == lines(stream)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])), min_size=1),
    st.sampled_from(["\r", "\n", "\r\n"]),
    CUTS,
)
def test_what_was_sent_is_what_is_read(values, end, cuts):
    stream = "".join(f"data: {value}{end}" for value in values) + end
    assert events(*partition(stream.encode(), cuts)) == data("\n".join(values))


@pytest.mark.parametrize(
    "stream, expected",
    [
        (b'{"a": 1}\n{"b": 2}\n', ['{"a": 1}', '{"b": 2}']),
        (b'{"a": 1}\r\n\r\n \n{"b": 2}', ['{"a": 1}', '{"b": 2}']),
        (b"a\rb\n", ["a\rb"]),
        ('"\u2028\x85\x0c"\n'.encode(), ['"\u2028\x85\x0c"']),
        ("Gr\u00fc\u00dfe\n".encode(), ["Gr\u00fc\u00dfe"]),
        (b"a\xff\n", ["a\ufffd"]),
        (b"", []),
    ],
)
def test_ndjson_lines_end_at_line_feeds_and_nowhere_else(stream, expected):
    assert lines(stream) == expected
    assert lines(*(bytes([byte]) for byte in stream)) == expected


@pytest.mark.parametrize("decoder", [EventDecoder, LineDecoder])
@pytest.mark.parametrize("read", [b"x" * 101, b"x" * 101 + b"\n"])
def test_a_line_without_end_is_refused(decoder, read):
    decoder(limit=100).feed(b"x" * 100 + b"\n")
    with pytest.raises(ValueError, match="single line of more than 100 bytes"):
        decoder(limit=100).feed(read)
    with pytest.raises(ValueError, match="single line of more than 100 bytes"):
        byte_by_byte(decoder(limit=100), read)


def test_an_event_without_end_is_refused():
    decoder = EventDecoder(limit=100)
    decoder.feed(b": ping\n" * 1000)  # comments are not kept, so they may go on for ever
    decoder.feed(b"data: 12345678\n\n" * 1000)
    with pytest.raises(ValueError, match="single event of more than 100 bytes"):
        decoder.feed(b"data: 12345678\n" * 1000)


def byte_by_byte(decoder, stream: bytes) -> None:
    for byte in stream:
        decoder.feed(bytes([byte]))


@pytest.mark.parametrize("decoder", [EventDecoder, LineDecoder])
def test_a_long_line_byte_by_byte_takes_linear_time(decoder):
    def seconds(size: int) -> float:
        started = time.process_time()
        byte_by_byte(decoder(), b"x" * size)
        return time.process_time() - started

    # Ten times the bytes: ten times the work, not a hundred times.
    assert min(seconds(200_000) for _ in range(2)) < 40 * min(seconds(20_000) for _ in range(3))
