"""What a wire format is.

`decode` and `decode_event` raise ValueError, LookupError or TypeError on what is not their format: the client makes a
BadReply of it.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pipeline.records import Completion, Request, Usage


@dataclass(frozen=True, slots=True)
class Delta:
    """What one event of a stream says. `error` is the server's own message in the middle of a 200."""

    text: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    error: str | None = None
    done: bool = False


class Dialect(Protocol):
    name: str
    path: str  # below the server's address
    wants: Literal["messages", "text"]
    streams: bool

    def encode(self, request: Request, *, model: str | None, stream: bool) -> dict[str, Any]: ...

    def decode(self, body: Any) -> Completion: ...

    def decode_event(self, data: str) -> Delta: ...


def error_text(body: Any) -> str | None:
    """The message inside any of the shapes that servers give their errors; None if there is none."""
    if isinstance(body, dict):
        for key in ("error", "detail", "message", "msg"):
            found = body.get(key)
            if isinstance(found, str) and found:
                return found
            if found:
                return error_text(found) or str(found)
    if isinstance(body, list) and body:
        return error_text(body[0])
    return None


def text_of(value: Any) -> str:
    """A reply's text. Null is how some servers say that the model was silent."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"the text is a {type(value).__name__}")
    return value


def count_of(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
