"""What a wire format is.

`decode` and `decode_event` raise ValueError, LookupError or TypeError on what is not their format: the client makes a
BadReply of it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pipeline.errors import ConfigError
from pipeline.records import Completion, GenerateConfig, Request, Usage


@dataclass(frozen=True, slots=True)
class Delta:
    """What one event of a stream says. `error` is the server's own message in the middle of a 200; `reasoning` says that it
    carries content which no player sees."""

    text: str = ""
    reasoning: bool = False
    finish_reason: str | None = None
    usage: Usage | None = None
    server: Mapping[str, float] | None = None
    error: str | None = None
    done: bool = False


class Dialect(Protocol):
    """`fields` has the names under which a server knows the fields of a GenerateConfig; one that is missing cannot be sent."""

    name: str
    path: str  # below the server's address
    stream_path: str | None  # None: this API does not stream
    media_type: str  # of a stream: text/event-stream or application/x-ndjson
    wants: Literal["messages", "text"]
    # What only the last events of a stream hold, for servers that keep it open behind them.
    end: re.Pattern[bytes] | None
    tokenizer: "Tokenizer | None"  # for servers whose replies do not say how many tokens they have
    fields: Mapping[str, tuple[str, ...]]

    def encode(self, request: Request, *, model: str | None, stream: bool) -> dict[str, Any]: ...

    def decode(self, body: Any) -> Completion: ...

    def decode_event(self, data: str) -> Delta: ...


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """Where a server counts the tokens of a text. `decode` gives None for what is no count."""

    path: str
    encode: Callable[[str], dict[str, Any]]
    decode: Callable[[Any], int | None]


def same(*names: str) -> dict[str, tuple[str, ...]]:
    """For `Dialect.fields`: what the server calls as we do."""
    return {name: (name,) for name in names}


def fields_for(config: GenerateConfig, names: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """The fields of `config` under the names by which a server knows them. Raises ConfigError for one that it does not know:
    a server would take the request and not tell anybody that it ignored it."""
    body: dict[str, Any] = {}
    for name, value in config.given().items():
        if name not in names:
            known = ", ".join(sorted(names))
            raise ConfigError(
                f"this server's API has no {name}. It has {known}. Leave it out, or try another --dialect."
            )
        body |= dict.fromkeys(names[name], list(value) if isinstance(value, tuple) else value)
    return body


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


def error_in(body: Any) -> str | None:
    """What has gone wrong, where a body or an event that came with a 200 is an error."""
    if not isinstance(body, dict):
        return None
    if body.get("error") in (None, False, "") and body.get("object") != "error" and set(body) != {"detail"}:
        return None
    return error_text(body) or "an error without a word"


def quota_spent(body: Any) -> bool:
    """Whether a 429 means that the account has no credit left: waiting does not help then."""
    error = body.get("error") if isinstance(body, dict) else None
    return isinstance(error, dict) and "insufficient_quota" in (error.get("code"), error.get("type"))


def context_overflow(body: Any) -> tuple[bool, int | None]:
    """Whether an error body says that prompt and reply do not fit the model's context, and by how many tokens.

    llama.cpp has the numbers in fields of their own; others (OpenAI, vLLM, TGI, llama-cpp-python) in a sentence, in which
    the limit stands beside the word "context" or behind "<=".
    """
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict) and error.get("type") == "exceed_context_size_error":
        prompt, context = count_of(error.get("n_prompt_tokens")), count_of(error.get("n_ctx"))
        # With equal numbers, it is the first token of the reply that does not fit.
        return True, max(1, prompt - context) if prompt is not None and context is not None else None
    said = re.sub(r"(?<=\d),(?=\d{3}\b)", "", error_text(body) or "")
    code = isinstance(error, dict) and error.get("code") == "context_length_exceeded"
    if not (code or _CONTEXT.search(said)):
        return False, None
    limit = _LIMIT.search(said)
    if limit is None:
        return True, None
    wanted = _WANTED.search(said)
    parts = [int(number[0]) for number in _PART.finditer(said)]
    # Prompt and reply; a sentence may say one of them twice ("1500 input tokens ... (1500 > 1000)"), but not three numbers.
    asked = int(next(filter(None, wanted.groups()))) if wanted else sum(parts[:2])
    over = asked - int(next(filter(None, limit.groups())))
    return True, over if 0 < over < 2**31 else None


_CONTEXT = re.compile(
    r"context (?:length|size|window)|max_new_tokens` must be <=|prompt is too long: \d+ tokens", re.IGNORECASE
)
_LIMIT = re.compile(
    r"context (?:length|size|window)(?: is| of| size)*(?: only)? ?[:(]?(\d{1,9})|must be <= ?(\d{1,9})|> (\d{1,9}) maximum",
    re.IGNORECASE,
)
_WANTED = re.compile(
    r"requested (?:tokens \()?(\d{1,9})(?: tokens)?(?: \(|\))|resulted in (\d{1,9}) tokens|request \((\d{1,9}) tokens\)"
    r"|too long: (\d{1,9}) tokens",
    re.IGNORECASE,
)
_PART = re.compile(
    r"\d{1,9}(?= `?(?:input|output|prompt|completion|max_new_tokens)\b)|\d{1,9}(?= `inputs`)|(?<=too large: )\d{1,9}"
)


def server_figures(body: Mapping[str, Any]) -> dict[str, float]:
    """What the server itself measured, wherever it says so."""
    found = {name: value for name, value in body.items() if isinstance(name, str) and name.endswith("_duration")}
    for group in ("timings", "metrics"):
        if isinstance(body.get(group), dict):
            found |= body[group]
    numbers = {
        name[:40]: value
        for name, value in list(found.items())[:32]
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53
    }
    return numbers


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


def reason_of(value: Any, *, reliable: bool = True) -> str | None:
    """A finish_reason. KoboldCpp 1.76 writes the string "null" while it is still running; and it says "length" of replies that
    a stop string ended, too: not `reliable`, that means nothing."""
    if not isinstance(value, str) or value in ("", "null") or (value == "length" and not reliable):
        return None
    return well_formed(value)


def count_of(value: Any) -> int | None:
    """A number of tokens, if it is one."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None
