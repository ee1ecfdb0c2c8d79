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


def error_text(body: Any, depth: int = 4) -> str | None:
    """The message inside any of the shapes that servers give their errors; None if there is none."""
    if isinstance(body, dict):
        for key in ("message", "msg", "error", "detail"):
            found = body.get(key)
            if isinstance(found, str) and found:
                return well_formed(found[:500])
            if found and depth:
                return error_text(found, depth - 1) or (str(found)[:500] if _is_shallow(found) else None)
    if isinstance(body, list) and body and depth:
        first = body[0]
        return well_formed(first[:500]) if isinstance(first, str) else error_text(first, depth - 1)
    return None


def _is_shallow(value: Any) -> bool:
    """Whether it can be shown: `str` of a thousand nested lists ends in a RecursionError."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return not any(isinstance(one, dict | list) for one in inside)


def text_of(value: Any) -> str:
    """A reply's text. Null is how some servers say that the model was silent."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"the text is a {type(value).__name__}")
    return value


def well_formed(text: str) -> str:
    r"""The text without half characters, which JSON can write (`\ud83d`) and no file can hold; two halves become one."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def reason_of(value: Any) -> str | None:
    """A finish_reason. KoboldCpp 1.76 writes the string "null" while it is still running."""
    return well_formed(value) if isinstance(value, str) and value not in ("", "null") else None


def count_of(value: Any) -> int | None:
    """A number of tokens, if it is one."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None
