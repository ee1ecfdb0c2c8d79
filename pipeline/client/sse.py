"""Streams taken apart: bytes as they came from the network in, events or lines out.

* EventDecoder   server-sent events, by the WHATWG specification; what nearly every server streams
* LineDecoder    NDJSON, one JSON value a line; what Ollama's own API streams

Neither opens, waits for or parses anything. Lines are cut while they are still bytes: a character that two
reads share is then never torn, and U+2028 inside JSON is a character like any other, where `str.splitlines`
would see the end of a line. What a server may make us hold in memory is bounded, and the work grows with the
number of bytes, however small the reads.

An event's `id` and `retry` are for reconnecting, which means nothing for a reply: they are skipped.
"""

from dataclasses import dataclass

LIMIT = 16 * 2**20
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Event:
    event: str = "message"
    data: str = ""


class EventDecoder:
    """`feed` returns the events that its bytes complete, `close` what is left when the stream has ended."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._rest = bytearray()  # the line that has not ended yet
        self._after_cr = False
        self._at_start = True
        self._name = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, data: bytes) -> list[Event]:
        # A line ends with its CR, without waiting for the LF that may follow: waiting would hold back an event until
        # the next one comes. If the LF does come, it is dropped here.
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
            self._after_cr = False
        if not data:
            return []
        self._after_cr = data.endswith(b"\r")
        pieces = data.splitlines()  # of bytes, so at CR, LF and CRLF only
        if data.endswith((b"\r", b"\n")):
            pieces.append(b"")
        events = []
        for line in _whole_lines(pieces, self._rest, self._limit):
            event = self._take(line)
            if event is not None:
                events.append(event)
        return events

    def close(self) -> list[Event]:
        """The last event, if it has data but not its blank line.

        The specification discards such an event. Servers that close straight after their last line are too common
        to lose the end of every reply for it; and one cut in the middle of its JSON will not parse, so that nobody
        takes it for a whole one.
        """
        if self._rest:
            line = bytes(self._rest)
            self._rest.clear()
            self._take(line)
        event = self._take(b"")
        return [] if event is None else [event]

    def _take(self, line: bytes) -> Event | None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")  # a comment is a line whose field has no name
        value = value.removeprefix(b" ")
        if field == b"data":
            self._size += len(value) + 1
            if self._size > self._limit + 1:
                raise ValueError(_too_long("event", self._limit))
            self._data.append(value.decode("utf-8", "replace"))
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        elif field == b"error":  # no field of the specification's; llama.cpp wrote its errors so for a while
            self._name, self._data = "error", [value.decode("utf-8", "replace")]
        return None

    def _dispatch(self) -> Event | None:
        # An empty data line is data, so that `data:` alone gives an event and `event: ping` alone gives none.
        event = Event(self._name or "message", "\n".join(self._data)) if self._data else None
        self._name, self._data, self._size = "", [], 0
        return event


class LineDecoder:
    """`feed` returns the lines that its bytes complete, `close` a last one without its line feed. None is blank."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[str]:
        whole = _whole_lines(data.split(b"\n"), self._rest, self._limit)
        return [line.decode("utf-8", "replace").removesuffix("\r") for line in whole if line.strip()]

    def close(self) -> list[str]:
        return self.feed(b"\n")


def _whole_lines(pieces: list[bytes], rest: bytearray, limit: int) -> list[bytes]:
    """The first piece ends the line begun in `rest`, the last piece begins the next one."""
    *whole, begun = pieces
    if whole and rest:
        whole[0] = bytes(rest) + whole[0]
        rest.clear()
    rest += begun
    if len(rest) > limit or any(len(line) > limit for line in whole):
        raise ValueError(_too_long("line", limit))
    return whole


def _too_long(what: str, limit: int) -> str:
    return f"the stream holds a single {what} of more than {limit} bytes"
