"""Who is there? Which dialect does this address speak, and with which model?

Looking comes before asking: the lists of models first, then whether the paths exist, and only where nothing else tells, a
request for a single token.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from pipeline.config import secrets_in, without
from pipeline.dialects import DIALECTS
from pipeline.dialects.base import error_text
from pipeline.errors import ConfigError
from pipeline.records import GenerateConfig, Message, Request

_SUFFIXES = ("/v1/chat/completions", "/v1/completions", "/v1/models", "/api/v1/generate", "/api/v1/model", "/v1")
_HELLO = Request(messages=(Message(role="user", content="Hello"),), prompt="Hello", config=GenerateConfig(max_tokens=1))


@dataclass(frozen=True, slots=True)
class Server:
    """What was found at `url`, which is the address that the dialects' paths are appended to."""

    url: str = field(repr=False)  # may hold a password
    dialect: str
    models: tuple[str, ...]


def base_url(address: str) -> tuple[str, str | None]:
    """An address as a person may paste it, without the path of an API, and the dialect if that path gives it away."""
    address = address.strip()
    address = address if "://" in address else f"http://{address}"
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL as exc:
        # A password with a slash in it, say: what is shown could be a part of it.
        found = "what was given" if "@" in address else f"{address!r} ({exc})"
        raise ConfigError(f"the server's address looks like http://127.0.0.1:5000; {found} is none.") from None
    if url.scheme not in ("http", "https") or not url.host or (url.port or 0) > 65535:
        raise ConfigError(
            "the server's address looks like http://127.0.0.1:5000. Without one, the embedded model runs."
        )
    bare = str(url.copy_with(query=None, fragment=None)).rstrip("/")
    for suffix in _SUFFIXES:
        if bare.endswith(suffix):
            named = next((name for name, dialect in DIALECTS.items() if dialect.path == suffix), None)
            return bare.removesuffix(suffix), named
    return bare, None


async def probe(
    address: str,
    *,
    dialect: str,
    transport: httpx.AsyncBaseTransport,
    headers: Callable[[str], httpx.Headers],
    patience: float = 10.0,
) -> Server:
    """Raises ConfigError if nobody answers, if a key is missing, or if it is some other service.

    `patience` is in seconds, for one look.
    """
    url, named = base_url(address)
    if dialect == "auto" and named is not None:
        dialect = named
    look = _Look(url, transport, headers(url), patience)
    status, body = await look.get("/v1/models")
    only_posts = status in (405, 501)  # to any GET, it seems: then that says nothing about a path
    if (
        status == 200
        and isinstance(body, dict)
        and isinstance(body.get("data"), list)
        and dialect in ("auto", "openai")
    ):
        models = [m["id"] for m in body["data"] if isinstance(m, dict) and isinstance(m.get("id"), str)]
        return Server(url, "openai", tuple(models))
    if dialect == "openai":
        return Server(url, dialect, ())
    status, body = await look.get("/api/v1/model")
    if status == 200 and isinstance(body, dict) and isinstance(body.get("result"), str):
        return Server(url, "textgen", (body["result"],))
    if dialect == "textgen":
        return Server(url, dialect, ())
    for name, candidate in DIALECTS.items():
        if not only_posts and (await look.get(candidate.path))[0] == 405:  # the path is there, and wants a POST
            return Server(url, name, ())
    refused = None
    for name, candidate in DIALECTS.items():
        status, body = await look.post(candidate.path, candidate.encode(_HELLO, model=None, stream=False))
        if status in (400, 422) and error_text(body) is not None:
            refused = refused or name  # it knows the path, and wants a model's name perhaps
        try:
            if status == 200 and candidate.decode(body) is not None:
                return Server(url, name, ())
        except (ValueError, LookupError, TypeError, AttributeError):
            continue
    if refused is not None:
        return Server(url, refused, ())
    raise ConfigError(look.nobody_known())


class _Look:
    """Asks, and remembers what came in case that none of it is known."""

    def __init__(self, url: str, transport: httpx.AsyncBaseTransport, headers: httpx.Headers, patience: float) -> None:
        self._url, self._transport, self._headers, self._patience = url, transport, headers, patience
        self._seen: set[int] = set()  # statuses, 0 for no HTTP
        self._busy = ""
        self.shown = str(httpx.URL(url).copy_with(userinfo=b""))

    def nobody_known(self) -> str:
        if self._seen == {0}:
            return f"{self.shown}: something is there, but it speaks no HTTP. Is it the right port? Is it https://?"
        if self._busy:
            return f"{self.shown}: the server says: {self._busy}. Is it still loading its model? Try again in a moment."
        moved = any(300 <= status < 400 for status in self._seen)
        return (
            f"{self.shown}: something answers, but neither as an OpenAI-style server (/v1/chat/completions) nor as "
            "text-generation-webui's first API (/api/v1/generate). Is it the right port? text-generation-webui has an "
            "API only when started with --api. If you know better, say it with --dialect openai or --dialect textgen."
            + (" It redirects, which is not followed: give the address it points to." if moved else "")
        )

    async def get(self, path: str) -> tuple[int, Any]:
        return await self._ask("GET", path, None)

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        return await self._ask("POST", path, json.dumps(body).encode())

    async def _ask(self, method: str, path: str, content: bytes | None) -> tuple[int, Any]:
        request = httpx.Request(method, self._url + path, headers=self._headers, content=content)
        try:
            async with asyncio.timeout(self._patience):
                response = await self._transport.handle_async_request(request)
                try:
                    body = b"".join([chunk async for chunk in response.aiter_bytes()])
                finally:
                    await response.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.UnsupportedProtocol) as exc:
            usual = "Is the server running, and is this its port? Without --server, the embedded model runs."
            raise ConfigError(f"{self.shown}: cannot connect ({exc}). {getattr(exc, 'hint', usual)}") from exc
        except TimeoutError as exc:
            raise ConfigError(
                f"{self.shown}: connected, but no answer to {method} {path} within {self._patience:g} s. "
                "Is it still loading its model, or another service's port?"
            ) from exc
        except httpx.HTTPError:
            self._seen.add(0)
            return 0, None  # an answer of a kind: it may still know another path
        status = response.status_code
        self._seen.add(status)
        if status in (401, 403):
            raise ConfigError(f"{self.shown}: the server wants a key ({status}). Set LLM_API_KEY to it.")
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            return status, None
        if status in (429, 503):
            self._busy = without(error_text(answer) or "", secrets_in(self._headers))
        return status, answer
