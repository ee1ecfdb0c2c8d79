"""LLMClient: one request in, one answer or one typed error out, by the deadline.

The clock and the deadline are ours: httpx applies `timeout=` to none but its own transport, and `response.elapsed` can be
missing there. The transport is called directly, without `httpx.AsyncClient` in between, which costs more than all the rest.

`complete` is for work: retries within the deadline, each attempt handed to `on_attempt` before anything is read into it.
`get_response` is for games, and keeps the promises of Evennia's contrib `rpg/llm`: a prompt in, a text out, "" when
anything fails, `on_bad_request(status, body)` called. Unlike the original it ends by a time limit, and a 200 with a body
that nobody can read is a failure like any other.
"""

import asyncio
import inspect
import json
import logging
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import httpx

from pipeline.client.autolimit import AutoLimit, Change
from pipeline.client.evennia import seed_body, text_in
from pipeline.client.headers import request_headers, secrets_in, without
from pipeline.client.limits import Limiter, Slot, Turns
from pipeline.client.probe import base_url
from pipeline.client.rate import RateLimit
from pipeline.client.receive import body_of, is_stream, receive
from pipeline.client.refusal import overflow_in, refused_by
from pipeline.client.reply import StreamReader, UnreadableReply, read_reply, with_prompt_tokens
from pipeline.client.retry import RetryBudget, final_status, retry_delay
from pipeline.client.stopwatch import Stopwatch, Waits
from pipeline.client.thinking import without_thinking
from pipeline.config import DEFAULT_PATH, LLMSettings
from pipeline.dialects import Dialect, dialect_named
from pipeline.dialects.base import well_formed
from pipeline.errors import BadReply, Busy, ConfigError, Refused, ServerError, TimedOut, Unreachable
from pipeline.records import Attempt, Completion, Message, Read, Request

OnAttempt = Callable[[Attempt], None]

_COUNT_PATIENCE = 5.0  # seconds for a server's tokenizer

_log = logging.getLogger(__name__)


class LLMClient:
    """Talks to one server. `LLMClient()` takes everything from `LLM_*` in the environment, with Evennia's defaults.

    `url` is the server's address, with or without the dialect's path; `timeout` is in seconds, for one reply with all
    its attempts; `api_key` is sent as a bearer token and appears nowhere else; `concurrency` is how many requests of
    `complete` may be in flight, an AutoLimit for as many as turn out to be best; `insecure` takes any TLS certificate, for a
    server at home with one of its own making; `rate` has limits by the minute; `transport` is any of httpx's, for tests say.
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
        concurrency: int | AutoLimit = 64,
        insecure: bool = False,
        rate: RateLimit | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        on_bad_request: Callable[[int, str], Any] | None = None,
    ) -> None:
        self.dialect: Dialect = dialect_named(dialect)
        self._stream = stream and self.dialect.stream_path is not None
        path = (self.dialect.stream_path if self._stream else None) or self.dialect.path
        self._settings: LLMSettings | None = None
        if url is None:
            self._settings = settings = LLMSettings.from_environment()
            url, api_key = settings.host.rstrip("/"), api_key or settings.api_key
            headers = {**settings.headers, **(headers or {})}
            self._base = url
            self._endpoint = _setting_as_url(url + path)
            self._seed_url = _setting_as_url(url + "/" + (settings.path or DEFAULT_PATH).lstrip("/"))
        else:
            url, _ = base_url(url)
            self._base = url
            self._endpoint, self._seed_url = httpx.URL(url + path), httpx.URL(url + self.dialect.path)
        self._model, self._timeout, self._on_bad_request = model, timeout, on_bad_request
        self._headers = request_headers(url, api_key, headers)
        self._secrets = secrets_in(self._headers)
        # In a reply only what cannot be a word: a key like "test" must not change what an NPC says.
        self._keys = tuple(secret for secret in self._secrets if len(secret) >= 8 and not re.search(r"\s", secret))
        if isinstance(concurrency, int) and concurrency < 1:
            raise ConfigError(f"concurrency has to be 1 or more, not {concurrency}.")
        self._owned = transport is None
        self._transport = transport if transport is not None else default_transport(insecure=insecure)
        self.concurrency = concurrency.most if isinstance(concurrency, AutoLimit) else concurrency  # at the most
        self._limiter, self._turns, self._budget = Limiter(concurrency), Turns(), RetryBudget()
        self._rate = rate or RateLimit()
        self._counts = True  # whether the server's tokenizer answers, as far as is known
        self.address = str(self._endpoint.copy_with(userinfo=b""))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        if self._owned:
            await self._transport.aclose()

    @property
    def in_flight(self) -> int:
        """Requests, at this moment."""
        return self._limiter.held

    @property
    def limits(self) -> list[Change]:
        """How the number of requests in flight was found out; empty where it was given."""
        return self._limiter.history

    def slot(self) -> Slot:
        """A place among the `concurrency` requests in flight, for who wants to decide what to ask only when it can be sent."""
        return Slot(self._limiter)

    async def complete(
        self,
        request: Request,
        on_attempt: OnAttempt | None = None,
        *,
        slot: Slot | None = None,
        intended: float | None = None,
        stop: asyncio.Event | None = None,
    ) -> Completion:
        """The answer to `request`, with its timing; an empty text is an answer. Raises a ServerError. Once `stop` is set, what
        fails is not tried again.

        `intended` is when it should have been asked, by `time.perf_counter`, for who follows a schedule. The time limit counts
        from having a slot; while a retry is waited for, the slot is somebody else's.
        """
        queue = 0.0 if intended is None else max(0.0, time.perf_counter() - intended)
        if slot is not None:
            return await self._complete(request, on_attempt, slot, Waits(queue=queue, before=slot.waited), stop)
        async with self.slot() as slot:
            return await self._complete(request, on_attempt, slot, Waits(queue=queue), stop)

    async def _complete(
        self, request: Request, on_attempt: OnAttempt | None, slot: Slot, waits: Waits, stop: asyncio.Event | None
    ) -> Completion:
        body = self.dialect.encode(request, model=self._model, stream=self._stream)
        content = json.dumps(body).encode()
        tokens = len(content) // 4 + (request.config.max_tokens or 0)  # about, of prompt and reply
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        number = 0
        last: ServerError | None = None
        self._budget.first_attempt()
        try:
            async with asyncio.timeout_at(deadline) as limit:
                while True:
                    number += 1
                    if wait := self._rate.take(loop.time(), tokens):
                        deadline += wait  # which is nobody's slowness
                        limit.reschedule(deadline)
                        if await _is_set_within(wait, stop):
                            raise Unreachable(f"POST {self.address}: not sent: told to stop", url=self.address)
                        slot.waited += wait
                    taken = time.perf_counter()
                    waits.limiter = slot.waited - waits.before
                    try:
                        reply, attempt = await self._attempt(content, number, on_attempt, waits, taken)
                        slot.replied(tokens=reply.usage.completion_tokens, ttft=attempt.timing.ttft)
                        break
                    except ServerError as exc:
                        asked = exc.retry_after if isinstance(exc, Refused) else None
                        left = max(0.0, deadline - loop.time())
                        last, delay = exc, None
                        if exc.retryable and not (stop is not None and stop.is_set()):
                            delay = retry_delay(number, retry_after=asked, left=left, dice=random.random())
                            if isinstance(exc, Busy):
                                slot.pushed_back(wait=asked if delay is not None else None)
                        covered = self._budget.take(loop.time(), left=left) if delay is not None else None
                        if delay is None or covered is None:
                            raise
                        delay = max(delay, covered)
                    waits.earlier += (failed := time.perf_counter()) - taken
                    slot.give_back()
                    if await _is_set_within(delay, stop):
                        raise last
                    waits.backoff += time.perf_counter() - failed
                    await slot.take()
        except TimeoutError as exc:
            slot.pushed_back()
            why = f"Attempt {number - 1} ended so: {last}" if last else "Is the server busy? Try --timeout."
            raise TimedOut(
                f"POST {self.address}: no whole reply within {self._timeout:g} s. {why}", url=self.address
            ) from exc
        counted = await self._count(reply, attempt, on_attempt, deadline - loop.time())
        return with_prompt_tokens(counted, request)

    async def _count(
        self, reply: Completion, attempt: Attempt, on_attempt: OnAttempt | None, left: float
    ) -> Completion:
        """Asks the server's tokenizer, where it has one and the reply does not say how many tokens it has. `left` is in
        seconds."""
        tokenizer = self.dialect.tokenizer
        if tokenizer is None or reply.usage.source == "server" or not reply.text or not self._counts:
            return reply
        try:
            async with asyncio.timeout(min(_COUNT_PATIENCE, left)):
                status, body = await self._exchange(
                    httpx.URL(self._base + tokenizer.path), json.dumps(tokenizer.encode(reply.text))
                )
            tokens = tokenizer.decode(json.loads(body)) if status == 200 else None
        except (TimeoutError, httpx.HTTPError, ValueError, LookupError, TypeError, RecursionError):
            tokens = None
        if tokens is None:
            self._counts = False  # not this server: it is not asked again, and the estimate stands
            return reply
        if on_attempt is not None:
            on_attempt(replace(attempt, number=0, tokens=tokens))
        return replace(reply, usage=replace(reply.usage, completion_tokens=tokens, source="tokenizer"))

    async def get_response(self, prompt: str | Sequence[str]) -> str:
        """The reply to `prompt` (a list is joined by line feeds), or "" if there is none for whatever reason."""
        text = prompt if isinstance(prompt, str) else "\n".join(prompt)
        if self._settings is not None:
            body = seed_body(self._settings, text)
        else:
            asked = Request(messages=(Message(role="user", content=text),), prompt=text)
            body = self.dialect.encode(asked, model=self._model, stream=False)
        status, answer = 500, ""
        try:
            async with asyncio.timeout(self._timeout):
                status, answer = await self._exchange(self._seed_url, json.dumps(body))
            if status == 200:
                parsed = json.loads(answer)
                said = text_in(parsed) if self._settings is not None else self.dialect.decode(parsed).text
                return without_thinking(well_formed(said))
        except TimeoutError:
            answer = f"no whole reply within {self._timeout:g} s"
        except httpx.HTTPError as exc:
            answer = f"{type(exc).__name__}: {exc}"
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            pass  # a 200 that is no reply: reported below like every other failure
        answer = without(answer, self._secrets)
        url = self._seed_url.copy_with(userinfo=b"")
        _log.error("LLM API error (status %s) from %s: %s", status, url, answer[:200])
        if self._on_bad_request is not None:
            result = self._on_bad_request(status, answer)
            if inspect.isawaitable(result):
                await result
        return ""

    async def _exchange(self, url: httpx.URL, content: str) -> tuple[int, str]:
        response = await self._transport.handle_async_request(self._request(url, content.encode()))
        try:
            body = b"".join([chunk async for chunk in body_of(response)])
        finally:
            await response.aclose()
        return response.status_code, without(body.decode("utf-8", "replace"), self._keys)

    async def _attempt(
        self, content: bytes, number: int, on_attempt: OnAttempt | None, waits: Waits, taken: float
    ) -> tuple[Completion, Attempt]:
        """One request on the wire. Whatever becomes of it is recorded, also when the deadline cuts it off."""
        reads: list[Read] = []
        reader: StreamReader | None = None
        status: int | None = None
        watch = Stopwatch(taken)

        def whole() -> str:
            return b"".join([data for _, data in reads]).decode("utf-8", "replace")

        def record(
            *, error: str | None = None, final: bool = False, body: str | None = None, added: bool = False
        ) -> Attempt:
            attempt = Attempt(
                number=0 if added else number,
                timing=watch.timing(waits),
                status=status,
                streamed=reader is not None,
                body=without(whole(), self._secrets) if body is None and reads else body,
                error=error,
                dialect=self.dialect.name,
                final=final,
            )
            if on_attempt is not None:
                on_attempt(attempt)
            return attempt

        try:
            if self._stream:
                await self._turns.turn()
            response = await self._transport.handle_async_request(self._request(self._endpoint, content))
            watch.clock = response.extensions.get("clock")
            self._rate.told(response.headers, now=asyncio.get_running_loop().time(), wall=time.time())
            status = response.status_code
            kind = response.headers.get("content-type", "").lower()
            streams = self._stream and response.is_success
            try:
                await receive(response, reads, end=self.dialect.end if streams else None)
                watch.ended()
                if streams:
                    await self._turns.turn()
            finally:
                await response.aclose()
                if streams and is_stream(kind, reads, self.dialect.media_type):
                    reader = StreamReader(self.dialect)
                    await watch.follow(reads, reader)
        except httpx.HTTPError as exc:
            problem = without(f"POST {self.address}: {type(exc).__name__}: {exc}", self._secrets)
            record(error=problem)
            raise Unreachable(problem + _hint(exc), url=self.address, retryable=_may_pass(exc)) from exc
        except asyncio.CancelledError:
            record(error="cut off before the reply was whole")
            raise

        if not response.is_success:
            text = without(whole(), self._secrets)
            refused = refused_by(self.address, status, text, response.headers)
            record(error=str(refused), final=final_status(status), body=text)
            raise refused
        text = without(came := whole(), self._keys)
        attempt = record(final=True, body=text)
        try:
            if reader is not None and text == came:
                reply = reader.close()
            else:
                reply = read_reply(self.dialect, text, streamed=reader is not None)
        except UnreadableReply as exc:
            problem = f"POST {self.address}: {exc}: {text[:200]!r}. Is it really {self.dialect.name}? See --dialect."
            problem = without(problem, self._secrets)
            too_long = overflow_in(self.address, status, exc.said) if exc.said is not None else None
            # The record of the body stands; this one says that it is no answer. A prompt that is too long stays so.
            record(error=problem, body="", added=True, final=too_long is not None)
            raise too_long or BadReply(problem, url=self.address) from exc
        return replace(reply, timing=attempt.timing, attempts=number), attempt

    def _request(self, url: httpx.URL, content: bytes) -> httpx.Request:
        # Given a stream, httpx does not look for what it should add to the headers: that takes longer than all else here.
        headers = [*self._headers.raw, (b"Content-Length", b"%d" % len(content))]
        if "host" not in self._headers:
            headers.insert(0, (b"Host", url.netloc))
        return httpx.Request("POST", url, headers=headers, stream=httpx.ByteStream(content))


def default_transport(*, insecure: bool = False) -> httpx.AsyncBaseTransport:
    from pipeline.client.transport import AiohttpTransport

    return AiohttpTransport(verify=not insecure)


def _may_pass(exc: httpx.HTTPError) -> bool:
    """Whether asking again may end otherwise."""
    from pipeline.client.httpx_errors import NotTrusted, ReplyTooLarge

    return not isinstance(exc, NotTrusted | ReplyTooLarge | httpx.LocalProtocolError | httpx.UnsupportedProtocol)


def _hint(exc: httpx.HTTPError) -> str:
    usual = "Is it running?" if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout) else ""
    hint: str = getattr(exc, "hint", usual)
    return hint and f". {hint}"


async def _is_set_within(seconds: float, stop: asyncio.Event | None) -> bool:
    if stop is None:
        await asyncio.sleep(seconds)
        return False
    try:
        async with asyncio.timeout(seconds):
            return await stop.wait()
    except TimeoutError:
        return False


def _setting_as_url(text: str) -> httpx.URL:
    try:
        return httpx.URL(text)
    except httpx.InvalidURL:  # whose message may quote a password
        raise ConfigError("LLM_HOST with LLM_PATH is no address. It looks like http://127.0.0.1:5000.") from None
