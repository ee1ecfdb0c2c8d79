"""What every request carries, and which of it must never be shown."""

import base64
import contextlib
import json
import re
from collections.abc import Mapping
from urllib.parse import quote, unquote_to_bytes

import httpx

from pipeline.errors import ConfigError


def request_headers(url: str, api_key: str | None, headers: Mapping[str, str] | None = None) -> httpx.Headers:
    """What every request to `url` carries. Raises ConfigError without showing a value: it may be a key."""
    wanted = list((headers or {}).items())
    if userinfo := httpx.URL(url).userinfo:
        wanted.append(("Authorization", f"Basic {base64.b64encode(unquote_to_bytes(userinfo)).decode()}"))
    if api_key:
        if not api_key.isascii() or not api_key.isprintable() or api_key.strip("'\" ") != api_key:
            raise ConfigError(
                "the server's key has characters that no key has: a line feed, a blank or quotes around it? "
                "Set LLM_API_KEY (or what `key` of its target names) to the key alone."
            )
        wanted.append(("Authorization", f"Bearer {api_key}"))
    given = httpx.Headers({"Content-Type": "application/json", "Accept": "*/*"})
    for name, value in wanted:
        if not re.fullmatch(r"[!#$%&'*+.^_`|~\w-]+", name, re.ASCII):
            raise ConfigError("the name of a header has characters that HTTP does not allow (a colon? a space?).")
        if not value.isascii() or not value.isprintable():
            raise ConfigError(f"the value of the header {name} has characters that HTTP does not allow (a line feed?).")
        given[name] = value
    return given


def secrets_in(headers: Mapping[str, str]) -> tuple[str, ...]:
    """The values that must never be shown, in each form in which a server may echo them in its errors."""
    harmless = {"content-type", "accept", "accept-encoding", "connection", "host", "user-agent"}
    found: set[str] = set()
    for name, value in headers.items():
        scheme, _, rest = value.partition(" ")
        if name.lower() not in harmless:
            found |= {value, rest}
        if scheme.lower() == "basic":
            with contextlib.suppress(ValueError):
                userinfo = base64.b64decode(rest).decode("utf-8", "replace")
                found |= {userinfo, *userinfo.split(":", 1)}
    found |= {quote(value, safe="") for value in found}
    for _ in range(2):  # JSON inside JSON
        found |= {json.dumps(value)[1:-1] for value in found}
    found |= {value.replace("/", "\\/") for value in found}
    found |= {value.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e") for value in found}  # Go's
    return tuple(sorted((value for value in found if len(value) >= 4), key=len, reverse=True))


def without(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        text = text.replace(secret, "[key]")
    return text
