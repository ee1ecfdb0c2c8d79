"""From the bytes of an answer to a Completion: as they arrive from a server, or again from what the journal kept.

Both ways go through the same code, so that a reply reads the same on the day it came and on any later one.
"""

import json
import math
from dataclasses import replace
from enum import IntEnum

from pipeline.client.sse import Event, EventDecoder, LineDecoder
from pipeline.client.thinking import Thinking
from pipeline.dialects import Dialect
from pipeline.dialects.base import error_in, error_text, well_formed
from pipeline.records import Completion, Request, Usage


class UnreadableReply(ValueError):
    """Not an answer in this dialect. The message says what is wrong with it; `said` is the server's own error, if it is one."""

    def __init__(self, message: str, said: str | None = None) -> None:
        super().__init__(message)
        self.said = said


def read_reply(dialect: Dialect, body: str, *, streamed: bool) -> Completion:
    """The completion in a whole body. Raises UnreadableReply."""
    if streamed:
        reader = StreamReader(dialect)
        reader.feed(body.encode("utf-8", "replace"))
        return reader.close()
    if not body.strip():
        raise UnreadableReply("an empty body")
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise UnreadableReply("not JSON") from exc
    if said := error_in(parsed):
        raise UnreadableReply(f"the server says: {said}", json.dumps(parsed))
    try:
        completion = dialect.decode(parsed)
    except (ValueError, LookupError, TypeError, AttributeError) as exc:
        said = error_text(parsed)
        raise UnreadableReply(f"the server says: {said}" if said else f"not {dialect.name}'s format") from exc
    text = well_formed(completion.text)
    return _counted(completion if text == completion.text else replace(completion, text=text))


def _counted(completion: Completion) -> Completion:
    """With a number of tokens: where the server gives none, four bytes of text are taken for one, which is right within a
    quarter for English and the usual vocabularies."""
    if completion.usage.completion_tokens is not None:
        return completion
    tokens = math.ceil(len(completion.text.encode()) / 4)
    return replace(completion, usage=replace(completion.usage, completion_tokens=tokens, source="estimate"))


def with_prompt_tokens(completion: Completion, request: Request) -> Completion:
    """With an estimate of the prompt's tokens where the server does not count them: a price is paid for them all the same."""
    if completion.usage.prompt_tokens is not None:
        return completion
    return replace(completion, usage=replace(completion.usage, prompt_tokens=request.about_tokens))


class Brought(IntEnum):
    """The most that one network read of a stream brought."""

    NOTHING = 0
    EVENT = 1  # of any kind: a role, a ping with data, an empty string
    CONTENT = 2  # reasoning
    VISIBLE = 3  # what a player may see


class StreamReader:
    """Feeds on network reads; says what each of them brought, so that the clock can be read at the right ones.

    Nothing raises before `close`: a stream is read to its end, and then judged as a whole.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._lines = LineDecoder() if dialect.media_type == "application/x-ndjson" else None
        self._events = EventDecoder()
        self._thinking = Thinking()
        self._parts: list[str] = []
        self._finish: str | None = None
        self._usage = Usage()
        self._server: dict[str, float] = {}
        self._ended = self._done = False
        self._said: str | None = None  # an error in the server's own words
        self._problem: str | None = None

    def feed(self, data: bytes) -> Brought:
        if self._problem is not None:
            return Brought.NOTHING
        try:
            return self._take(self._events_in(data))
        except ValueError as exc:
            self._problem = str(exc)
            return Brought.NOTHING

    def close(self) -> Completion:
        try:
            self._take(self._events_in(None))
        except ValueError as exc:
            self._problem = self._problem or str(exc)
        if self._problem is None and not self._ended:
            self._problem = "the stream ended before the reply did"
        if self._problem is not None:
            raise UnreadableReply(self._problem, self._said)
        return _counted(
            Completion(
                text=well_formed("".join(self._parts)),
                finish_reason=self._finish,
                usage=self._usage,
                server=self._server,
            )
        )

    def _events_in(self, data: bytes | None) -> list[Event]:
        if self._lines is not None:
            lines = self._lines.feed(data) if data is not None else self._lines.close()
            return [Event(data=line) for line in lines]
        return self._events.feed(data) if data is not None else self._events.close()

    def _take(self, events: list[Event]) -> Brought:
        brought = Brought.EVENT if events else Brought.NOTHING
        for event in events:
            if self._problem is not None or self._done:
                break
            if event.event == "ping" or event.data.strip() in _PINGS:
                continue
            if event.event == "error":
                self._fail(_message_in(event.data), event.data)
                break
            try:
                delta = self._dialect.decode_event(event.data)
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
                self._problem = f"an event that is not {self._dialect.name}'s format"
                break
            if delta.error is not None:
                self._fail(delta.error, event.data)
                break
            if delta.text:
                self._parts.append(delta.text)
                brought = max(brought, Brought.CONTENT if self._thinking.feed(delta.text) else Brought.VISIBLE)
            elif delta.reasoning:
                brought = max(brought, Brought.CONTENT)
            self._server |= delta.server or {}
            self._finish = delta.finish_reason or self._finish
            self._usage = delta.usage or self._usage
            self._done = delta.done
            # A mark of the end with no reason for it and no text before it is no reply, not even an empty one: llama-cpp-python
            # ends a stream so when another request comes in.
            whole = self._finish is not None or (delta.done and (bool(self._parts) or delta.usage is not None))
            self._ended = self._ended or whole
        return brought

    def _fail(self, message: str, said: str) -> None:
        self._problem, self._said = f"the server broke off: {message}", said


_PINGS = ("", "null", "ping")


def _message_in(data: str) -> str:
    try:
        return error_text(json.loads(data)) or data[:500]
    except (ValueError, RecursionError):
        return data[:500] or "an error without a word"
