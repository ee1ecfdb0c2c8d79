"""The way to the server: httpx on the outside, aiohttp inside.

httpx is the interface everywhere else, and any of its transports can stand in for this one. Its own connection
pool stays out of it: for each queued request that pool scans each connection. With 64 requests in flight to a server
that takes 20 ms, it reports a median of 226 ms instead of 22, and latency is among the things we are here to measure.

What a caller can rely on:

* The body comes as it came from the network, read by read, decompressed: stamp the clock at each chunk.
* Nothing queues in here: connections are not limited in number. Only opening one has a time limit of its own; how
  long a reply may take is for the caller to say. httpx's limits for connecting and for each read are kept where a
  request carries them, as those of an `httpx.AsyncClient` do unless it was made with `timeout=None`.
* A cancelled request, or a reply closed before its end, closes the connection, so that the server can stop
  generating. Only a reply read to its end leaves its connection for the next request.
* A failure is one of httpx's transport errors, with a sentence that a person can read and no secret in it.
* Redirects are not followed, cookies not kept, `.netrc` not read: a key goes to the host it was given for.
* Proxies are those of the environment, never for this machine itself.

One transport serves one event loop at a time, any number of them in turn.
"""

import asyncio
import io
import ipaddress
import re
import sys
import time
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextvars import ContextVar
from functools import lru_cache, partial
from typing import Any

import aiohttp
import httpx
import yarl
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError
from aiohttp.streams import EmptyStreamReader

from pipeline.client.httpx_errors import ENGINE_ERRORS, ReplyTooLarge, as_httpx
from pipeline.records import Read

_DECODED_BY_AIOHTTP = ("gzip", "deflate", "br", "zstd")
_CONTENT_HEADERS = (b"content-encoding", b"content-length")
_AFTER_THE_END = 1.0  # seconds
_LONGEST_END = 64  # bytes


class _Enough(Exception):
    pass


class Clock:
    """When a request went out and when the network last brought something for it, by `time.perf_counter`: stamped where the
    bytes pass, before anything is parsed or anybody waits for a turn. `lag` is how long the loop took from there to who waits
    for the head of the reply. A response has it as `extensions["clock"]`, and as `extensions["record"]` a way to read its
    body with a stamp for each read."""

    __slots__ = ("connection_is_new", "lag", "protocol", "sent")

    def __init__(self) -> None:
        self.sent = self.lag = 0.0
        self.connection_is_new = False
        self.protocol: _Protocol | None = None

    @property
    def received(self) -> float:
        return self.protocol.received if self.protocol is not None else time.perf_counter()


class AiohttpTransport(httpx.AsyncBaseTransport):
    def __init__(self, *, verify: bool = True, connect_timeout: float = 10.0, max_body: int = 16 * 2**20) -> None:
        self._verify, self._connect_timeout, self._max_body = verify, connect_timeout, max_body
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: aiohttp.ClientSession | None = None
        self._lifetime: AsyncGenerator[aiohttp.ClientSession, None] | None = None
        self._proxies: dict[tuple[str, str | None], yarl.URL | None] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        limits = request.extensions.get("timeout") or {}
        connect, read = limits.get("connect") or self._connect_timeout, limits.get("read")
        content = await request.aread()
        clock = Clock()
        _clock.set(clock)
        try:
            url = _address(str(request.url))
            reply = await (await self._open()).request(
                request.method,
                url,
                headers=_request_headers(request),
                # aiohttp warns of more than 1 MiB of bytes at once, and takes a file in slices.
                data=(_Content(content, clock) if len(content) <= 2**20 else io.BytesIO(content)) if content else None,
                proxy=self._proxy(url, request),
                timeout=_timeouts(connect, read),
                allow_redirects=False,
            )
        except ENGINE_ERRORS as exc:
            raise as_httpx(exc, request, reused=not clock.connection_is_new) from None
        clock.lag = time.perf_counter() - clock.received
        body = _Body(request, reply, clock, self._max_body)
        headers: Any = reply.raw_headers
        if coding := reply.headers.get("Content-Encoding", "").strip().lower():
            if coding not in (*_DECODED_BY_AIOHTTP, "identity"):
                # httpx would undo some of these itself, where nothing bounds what comes out.
                reply.close()
                raise httpx.RemoteProtocolError("the reply is encoded in a way nobody asked for", request=request)
            headers = [(name, value) for name, value in headers if name.lower() not in _CONTENT_HEADERS]
        extensions = {"clock": clock, "record": body.record}
        return httpx.Response(reply.status, headers=headers, stream=body, request=request, extensions=extensions)

    async def aclose(self) -> None:
        lifetime, self._loop, self._session, self._lifetime = self._lifetime, None, None, None
        if lifetime is not None:
            await lifetime.aclose()

    async def _open(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            # Held by a generator because a loop closes its asynchronous generators before it ends: connections that
            # nobody closed are closed in the loop they belong to, and the next loop starts afresh.
            self._lifetime = _lifetime(self._verify)
            self._session, self._loop = await anext(self._lifetime), loop
        return self._session

    def _proxy(self, url: yarl.URL, request: httpx.Request) -> yarl.URL | None:
        # Looked up once a host: aiohttp's own way (`trust_env`) starts a thread for each request.
        key = url.scheme, url.host
        if key not in self._proxies:
            self._proxies[key] = _proxy_from_environment(url)
        proxy = self._proxies[key]
        if proxy is not None and proxy.scheme not in ("http", "https"):
            raise httpx.ProxyError("the proxy set in the environment is not an http:// one", request=request)
        return proxy


class _Content(aiohttp.BytesPayload):
    """Stamps the clock when it is written, which is later than when the connection was there if the loop has much to do."""

    def __init__(self, content: bytes, clock: Clock) -> None:
        super().__init__(content)
        self._clock = clock

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        self._clock.sent = time.perf_counter()
        await super().write_with_length(writer, content_length)


class _Body(httpx.AsyncByteStream):
    def __init__(self, request: httpx.Request, reply: aiohttp.ClientResponse, clock: Clock, limit: int) -> None:
        self._request, self._reply, self._clock, self._limit = request, reply, clock, limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._limit
        try:
            async for chunk in self._reply.content.iter_any():
                left -= len(chunk)
                if left < 0:
                    raise self._too_large()
                yield chunk
        except ENGINE_ERRORS as exc:
            raise as_httpx(self._cause(exc), self._request) from None
        finally:
            self._reply.close()

    async def record(self, reads: list[Read], *, end: re.Pattern[bytes] | None) -> None:
        """Read to the end, into `reads`, which have what came before a failure too.

        Between the first and the last read nobody is woken: with many streams at once that would make the moments late. Some
        servers keep a stream open behind its last event, and some break it off there: once `end` is found, the rest is waited
        for while it comes, a second at most for each read, and needs no end of its own.
        """
        protocol, content = self._clock.protocol, self._reply.content
        if protocol is None or isinstance(content, EmptyStreamReader):  # a 204, a 304
            return
        marks: list[tuple[float, int]] = []
        held: list[bytes] = []
        taken, enough = 0, None
        tail = b"\n"  # of what has come, for an end that comes in pieces

        def take() -> None:
            nonlocal taken
            while content.exception() is None and (data := content.read_nowait()):
                held.append(data)
                taken += len(data)
                if taken > self._limit:
                    content.set_exception(self._too_large())
                if end is not None:
                    look_for(end, data)

        def note() -> None:
            take()
            marks.append((protocol.received, taken))

        def look_for(end: re.Pattern[bytes], data: bytes) -> None:
            nonlocal enough, tail
            seen = tail + data
            tail = seen[-_LONGEST_END:]
            if enough is not None:
                enough.cancel()
            elif end.search(seen) is None:
                return
            enough = asyncio.get_running_loop().call_later(_AFTER_THE_END, content.set_exception, _Enough())

        protocol.on_read = note
        note()  # what came with the head
        try:
            if (problem := content.exception()) is not None:
                raise problem
            await content.wait_eof()
            take()
            if (problem := content.exception()) is not None:
                raise problem
        except _Enough:
            pass
        except ENGINE_ERRORS as exc:
            if enough is None:
                raise as_httpx(self._cause(exc), self._request) from None
        finally:
            if enough is not None:
                enough.cancel()
            if protocol.on_read is note:  # else it is another request's by now
                protocol.on_read = None
            self._reply.close()
            held.append(content._read_nowait(-1))  # what `read_nowait` keeps back once there was a failure
            _cut(b"".join(held), [*marks, (protocol.received, sys.maxsize)], reads)

    async def aclose(self) -> None:
        self._reply.close()  # after the end of the body the connection is no longer the reply's, and stays open

    def _too_large(self) -> ReplyTooLarge:
        return ReplyTooLarge(f"reply larger than {self._limit / 2**20:g} MiB", request=self._request)

    def _cause(self, exc: BaseException) -> BaseException:
        # To aiohttp every body that ends too early is a bad payload; whether it was a reset, the connection knows.
        if isinstance(exc, aiohttp.ClientPayloadError) and (connection := self._reply.connection):
            lost = connection.protocol.exception() if connection.protocol is not None else None
            return lost if isinstance(lost, OSError) else exc
        return exc


def _cut(body: bytes, marks: list[tuple[float, int]], reads: list[Read]) -> None:
    """The body in pieces, each with the moment by which so many bytes of it were there."""
    start = 0
    for moment, total in marks:
        if piece := body[start:total]:
            reads.append((moment, piece))
            start = total


class _Protocol(ResponseHandler):
    received = 0.0
    on_read: Callable[[], None] | None = None

    def data_received(self, data: bytes) -> None:
        if data:
            self.received = time.perf_counter()
        super().data_received(data)
        if data and self.on_read is not None:  # without data, it is aiohttp going on with what it has already
            self.on_read()

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        # A server that goes on with something else in the middle of a chunked body (a proxy's error page, say) breaks
        # aiohttp's parser without a word to the body, which would then be waited for until the deadline.
        super().set_exception(exc, *cause)
        if isinstance(exc, HttpProcessingError) and self._payload is not None and not self._payload.is_eof():
            self._payload.set_exception(exc, *cause)


class _Connector(aiohttp.TCPConnector):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        factory: Any = partial(_Protocol, loop=asyncio.get_running_loop())
        self._factory = factory

    async def connect(self, *args: Any, **kwargs: Any) -> Any:
        clock = _clock.get()
        connection = await super().connect(*args, **kwargs)
        # The pool hands out a connection on which a reply has come that nobody had asked for: it would be taken for ours.
        while connection.protocol is None or connection.protocol.should_close:
            connection.close()
            connection = await super().connect(*args, **kwargs)
        protocol: Any = connection.protocol
        clock.protocol = protocol
        clock.sent = time.perf_counter()
        return connection

    async def _create_connection(self, *args: Any, **kwargs: Any) -> Any:
        _clock.get().connection_is_new = True
        return await super()._create_connection(*args, **kwargs)


_clock: ContextVar[Clock] = ContextVar("_clock")


async def _lifetime(verify: bool) -> AsyncGenerator[aiohttp.ClientSession, None]:
    # Many servers close a connection after 5 idle seconds. Letting go first spares the race in which a request is
    # sent on a connection that is just being closed.
    connector = _Connector(limit=0, ssl=verify, keepalive_timeout=4)
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
    ) as session:
        yield session


@lru_cache
def _timeouts(connect: float, read: float | None) -> aiohttp.ClientTimeout:
    # `connect` covers the name lookup, all addresses and TLS together; `sock_connect` would be one address at a time.
    return aiohttp.ClientTimeout(total=None, connect=connect, sock_read=read)


@lru_cache
def _address(url: str) -> yarl.URL:
    # httpx has made an Authorization header of the user part, and aiohttp refuses to have both.
    return yarl.URL(url, encoded=True).with_user(None) if "@" in url else yarl.URL(url, encoded=True)


def _request_headers(request: httpx.Request) -> list[tuple[str, str]]:
    headers = []
    for name, value in request.headers.raw:
        match name.lower():
            case b"transfer-encoding":  # the content is read by now, and has a length
                continue
            case b"accept-encoding" if b"br" in value or b"zstd" in value:
                # httpx offers what httpx can undo; it is aiohttp that will have to.
                value = b"gzip, deflate"
        headers.append((name.decode(), value.decode()))
    return headers


def _proxy_from_environment(url: yarl.URL) -> yarl.URL | None:
    if not url.host or _is_this_machine(url.host) or urllib.request.proxy_bypass(url.host):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    return yarl.URL(proxy if "://" in proxy else f"http://{proxy}") if proxy else None


def _is_this_machine(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified
