"""LLMClient: one request in, one answer or one typed error out, by the deadline.

The clock and the deadline are ours: httpx applies `timeout=` to none but its own transport, and `response.elapsed` can be
missing there. The transport is called directly, without `httpx.AsyncClient` in between, which costs more than all the rest.

`complete` is for work: retries within the deadline, each attempt handed to `on_attempt` before anything is read into it.
`get_response` is for games, and keeps the promises of Evennia's contrib `rpg/llm`: a prompt in, a text out, "" when
anything fails, `on_bad_request(status, body)` called. Unlike the original it ends by a time limit, and a 200 with a body
that nobody can read is a failure like any other.
"""

import asyncio
import base64
import inspect
import json
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self
from urllib.parse import unquote_to_bytes

import httpx

from pipeline.config import DEFAULT_PATH, LLMSettings
from pipeline.dialects import DIALECTS, Dialect
from pipeline.errors import BadReply, ConfigError, Refused, ServerError, Unreachable
from pipeline.records import Attempt, Completion, Message, Request, Timing
from pipeline.reply import StreamReader, UnreadableReply, read_reply
from pipeline.retry import final_status, retry_after, retry_delay, retryable_status

OnAttempt = Callable[[Attempt], None]

_log = logging.getLogger(__name__)


class LLMClient:
    """Talks to one server. `LLMClient()` takes everything from `LLM_*` in the environment, with Evennia's defaults.

    `url` is the server's address without the dialect's path; `timeout` is in seconds, for one reply with all its attempts;
    `api_key` is sent as a bearer token and appears nowhere else; `transport` is any of httpx's, for tests say.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        dialect: str = "openai",
        model: str | None = None,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
        stream: bool = False,
        transport: httpx.AsyncBaseTransport | None = None,
        on_bad_request: Callable[[int, str], Any] | None = None,
    ) -> None:
        self._settings = LLMSettings.from_environment() if url is None else None
        if self._settings is not None:
            url, headers = self._settings.host, {**self._settings.headers, **(headers or {})}
        assert url is not None
        if dialect not in DIALECTS:
            raise ConfigError(f"unknown dialect {dialect!r}. It can be {', '.join(DIALECTS)}.")
        self.dialect: Dialect = DIALECTS[dialect]
        self._url = url.rstrip("/")
        self._model, self._timeout, self._on_bad_request = model, timeout, on_bad_request
        self._stream = stream and self.dialect.streams
        self._headers = request_headers(url, api_key, headers)
        self._secrets = secrets_in(self._headers)
        self._owned = transport is None
        self._transport = transport if transport is not None else default_transport()
        self._endpoint = httpx.URL(self._url + self.dialect.path)
        self.address = str(self._endpoint.copy_with(userinfo=b""))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        if self._owned:
            await self._transport.aclose()

    async def complete(self, request: Request, on_attempt: OnAttempt | None = None) -> Completion:
        """The answer to `request`, with its timing; an empty text is an answer. Raises a ServerError."""
        body = self.dialect.encode(request, model=self._model, stream=self._stream)
        content = json.dumps(body).encode()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        number = 0
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    number += 1
                    try:
                        return await self._attempt(content, number, on_attempt)
                    except ServerError as exc:
                        asked = exc.retry_after if isinstance(exc, Refused) else None
                        delay = retry_delay(number, retry_after=asked, dice=random.random()) if exc.retryable else None
                        if delay is None or loop.time() + delay >= deadline:
                            raise
                    await asyncio.sleep(delay)
        except TimeoutError as exc:
            raise Unreachable(
                f"POST {self.address}: no whole reply within {self._timeout:g} s. Is the server busy? Try --timeout.",
                url=self.address,
            ) from exc

    async def get_response(self, prompt: str | Sequence[str]) -> str:
        """The reply to `prompt` (a list is joined by line feeds), or "" if there is none for whatever reason."""
        text = prompt if isinstance(prompt, str) else "\n".join(prompt)
        url, body = (
            self._endpoint,
            self.dialect.encode(
                Request(messages=(Message(role="user", content=text),), prompt=text), model=self._model, stream=False
            ),
        )
        if self._settings is not None:
            url, body = _seed_request(self._settings, text)
        status, answer = 500, ""
        try:
            async with asyncio.timeout(self._timeout):
                status, answer = await self._exchange(url, json.dumps(body).encode())
            if status == 200:
                return _text_in(json.loads(answer))
        except TimeoutError:
            answer = f"no whole reply within {self._timeout:g} s"
        except httpx.HTTPError as exc:
            answer = f"{type(exc).__name__}: {exc}"
        except (ValueError, LookupError, TypeError, RecursionError):
            pass  # a 200 that is no reply: reported below like every other failure
        _log.error("LLM API error (status %s) from %s: %s", status, url.copy_with(userinfo=b""), answer[:200])
        if self._on_bad_request is not None:
            result = self._on_bad_request(status, answer)
            if inspect.isawaitable(result):
                await result
        return ""

    async def _exchange(self, url: httpx.URL, content: bytes) -> tuple[int, str]:
        response = await self._transport.handle_async_request(
            httpx.Request("POST", url, headers=self._headers, content=content)
        )
        try:
            body = b"".join([chunk async for chunk in response.aiter_bytes()])
        finally:
            await response.aclose()
        return response.status_code, self._redacted(body)

    async def _attempt(self, content: bytes, number: int, on_attempt: OnAttempt | None) -> Completion:
        """One request on the wire. Whatever becomes of it is recorded, also when the deadline cuts it off."""
        chunks: list[bytes] = []
        reader: StreamReader | None = None
        status: int | None = None
        ttft = last = None
        wall, start = time.time(), time.perf_counter()

        def record(*, error: str | None = None, final: bool = False, body: str | None = None) -> Timing:
            timing = Timing(sent=wall, e2e=time.perf_counter() - start, ttft=ttft, last=last)
            if on_attempt is not None:
                on_attempt(
                    Attempt(
                        number=number,
                        timing=timing,
                        status=status,
                        streamed=reader is not None,
                        body=self._redacted(b"".join(chunks)) if body is None and chunks else body,
                        error=error,
                        final=final,
                    )
                )
            return timing

        try:
            response = await self._transport.handle_async_request(
                httpx.Request("POST", self._endpoint, headers=self._headers, content=content)
            )
            status = response.status_code
            if status == 200 and "text/event-stream" in response.headers.get("content-type", ""):
                reader = StreamReader(self.dialect)
            try:
                async for chunk in response.aiter_bytes():
                    chunks.append(chunk)
                    if reader is not None:
                        now = time.perf_counter() - start
                        if reader.feed(chunk):
                            last = now
                            ttft = now if ttft is None else ttft
            finally:
                await response.aclose()
        except httpx.HTTPError as exc:
            problem = f"POST {self.address}: {type(exc).__name__}: {exc}"
            record(error=problem)
            raise Unreachable(f"{problem}. Is it running?", url=self.address) from exc
        except asyncio.CancelledError:
            record(error="cut off before the reply was whole")
            raise

        text = self._redacted(b"".join(chunks))
        if status != 200:
            refused = _refused(self.address, status, text, response.headers)
            record(error=str(refused), final=final_status(response.status_code), body=text)
            raise refused
        timing = record(final=True, body=text)
        try:
            reply = reader.close() if reader is not None else read_reply(self.dialect, text, streamed=False)
        except UnreadableReply as exc:
            problem = f"POST {self.address}: {exc}: {text[:200]!r}. Is it really {self.dialect.name}? See --dialect."
            record(error=problem, body="")  # the record of the body stands; this one says that it is no answer
            raise BadReply(problem, url=self.address) from exc
        return replace(reply, timing=timing, attempts=number)

    def _redacted(self, body: bytes) -> str:
        text = body.decode("utf-8", "replace")
        for secret in self._secrets:
            text = text.replace(secret, "[key]")
        return text


def default_transport() -> httpx.AsyncBaseTransport:
    from pipeline.transport import AiohttpTransport

    return AiohttpTransport()


def request_headers(url: str, api_key: str | None, headers: Mapping[str, str] | None = None) -> httpx.Headers:
    """What every request to `url` carries. Raises ConfigError without showing a value: it may be a key."""
    given = {"Content-Type": "application/json", "Accept": "*/*", **(headers or {})}
    if userinfo := httpx.URL(url).userinfo:
        given["Authorization"] = f"Basic {base64.b64encode(unquote_to_bytes(userinfo)).decode()}"
    if api_key:
        given["Authorization"] = f"Bearer {api_key}"
    for name, value in given.items():
        if not value.isascii() or any(ord(c) < 32 for c in value):
            raise ConfigError(f"the value of the header {name} has characters that HTTP does not allow (a line feed?).")
    return httpx.Headers(given)


def secrets_in(headers: httpx.Headers) -> tuple[str, ...]:
    """The values that must never be shown: servers echo them in their errors."""
    harmless = {"content-type", "accept"}
    values = [value for name, value in headers.items() if name.lower() not in harmless]
    values += [value.split(" ", 1)[-1] for value in values]
    return tuple(sorted({value for value in values if len(value) >= 4}, key=len, reverse=True))


def _refused(address: str, status: int, body: str, headers: httpx.Headers) -> Refused:
    hints = {
        401: " Set LLM_API_KEY to the server's key.",
        403: " Is the key in LLM_API_KEY the right one?",
        404: " Is the address right? Does the server's API go by another --dialect?",
    }
    hint = (
        " Redirects are not followed: give the address it points to." if 300 <= status < 400 else hints.get(status, "")
    )
    return Refused(
        f"POST {address}: {status} {body[:200]!r}.{hint}",
        url=address,
        status=status,
        body=body,
        retryable=retryable_status(status),
        retry_after=retry_after(headers.get("retry-after"), now=time.time()),
    )


def _seed_request(settings: LLMSettings, text: str) -> tuple[httpx.URL, dict[str, Any]]:
    path = settings.path or DEFAULT_PATH
    body = dict(settings.request_body)
    if path.endswith("/chat/completions"):
        body["messages"] = [{"role": "user", "content": text}]
    else:
        body[settings.prompt_keyname] = text
    return httpx.URL(settings.host.rstrip("/") + "/" + path.lstrip("/")), body


def _text_in(body: Any) -> str:
    """The reply in any of the shapes that the paths of `get_response` answer with."""
    if "results" in body:
        text = body["results"][0]["text"]
    else:
        choice = body["choices"][0]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
    if not isinstance(text, str):
        raise TypeError("no text")
    return text
