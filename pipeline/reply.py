"""From the bytes of an answer to a Completion: as they arrive from a server, or again from what the journal kept.

Both ways go through the same code, so that a reply reads the same on the day it came and on any later one.
"""

import json
from dataclasses import replace

from pipeline.dialects import Dialect
from pipeline.dialects.base import error_text, well_formed
from pipeline.records import Completion, Usage
from pipeline.sse import Event, EventDecoder


class UnreadableReply(ValueError):
    """Not an answer in this dialect. The message says what is wrong with it."""


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
    try:
        completion = dialect.decode(parsed)
    except (ValueError, LookupError, TypeError, AttributeError) as exc:
        said = error_text(parsed)
        raise UnreadableReply(f"the server says: {said}" if said else f"not {dialect.name}'s format") from exc
    return replace(completion, text=well_formed(completion.text))


class StreamReader:
    """Feeds on network reads; says which of them brought content, so that the clock can be read at the right ones.

    Nothing raises before `close`: a stream is read to its end, and then judged as a whole.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._events = EventDecoder()
        self._parts: list[str] = []
        self._finish: str | None = None
        self._usage = Usage()
        self._ended = False
        self._problem: str | None = None

    def feed(self, data: bytes) -> bool:
        """Whether these bytes completed any content. A role, a ping and an empty string are not content."""
        before = len(self._parts)
        if self._problem is None:
            try:
                self._take(self._events.feed(data))
            except ValueError as exc:
                self._problem = str(exc)
        return len(self._parts) > before

    def close(self) -> Completion:
        try:
            self._take(self._events.close())
        except ValueError as exc:
            self._problem = self._problem or str(exc)
        if self._problem is None and not self._ended:
            self._problem = "the stream ended before the reply did"
        if self._problem is not None:
            raise UnreadableReply(self._problem)
        return Completion(text=well_formed("".join(self._parts)), finish_reason=self._finish, usage=self._usage)

    def _take(self, events: list[Event]) -> None:
        for event in events:
            if self._problem is not None:
                return
            try:
                delta = self._dialect.decode_event(event.data)
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
                self._problem = f"an event that is not {self._dialect.name}'s format"
                return
            if delta.error is not None:
                self._problem = f"the server broke off: {delta.error}"
                return
            if delta.text:
                self._parts.append(delta.text)
            self._finish = delta.finish_reason or self._finish
            self._usage = delta.usage or self._usage
            self._ended = self._ended or delta.done or self._finish is not None
