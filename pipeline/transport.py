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
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator
from contextvars import ContextVar
from functools import lru_cache, partial
from typing import Any

import aiohttp
import httpx
import yarl
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError

_ENGINE_ERRORS = (aiohttp.ClientError, HttpProcessingError, OSError, ValueError)
_DECODED_BY_AIOHTTP = ("gzip", "deflate", "br", "zstd")
_CONTENT_HEADERS = (b"content-encoding", b"content-length")


class ReplyTooLarge(httpx.ReadError):
    """Asking again would bring the same: not worth a retry, unlike other read errors."""


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
        _connection_is_new.set(False)
        try:
            url = _address(str(request.url))
            reply = await (await self._open()).request(
                request.method,
                url,
                headers=_request_headers(request),
                # aiohttp warns of more than 1 MiB of bytes at once, and takes a file in slices.
                data=(content if len(content) <= 2**20 else io.BytesIO(content)) or None,
                proxy=self._proxy(url, request),
                timeout=_timeouts(connect, read),
                allow_redirects=False,
            )
        except _ENGINE_ERRORS as exc:
            raise _as_httpx(exc, request, reused=not _connection_is_new.get()) from None
        body = _Body(request, reply, self._max_body)
        headers: Any = reply.raw_headers
        if coding := reply.headers.get("Content-Encoding", "").strip().lower():
            if coding not in (*_DECODED_BY_AIOHTTP, "identity"):
                # httpx would undo some of these itself, where nothing bounds what comes out.
                reply.close()
                raise httpx.RemoteProtocolError("the reply is encoded in a way nobody asked for", request=request)
            headers = [(name, value) for name, value in headers if name.lower() not in _CONTENT_HEADERS]
        return httpx.Response(reply.status, headers=headers, stream=body, request=request)

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


class _Body(httpx.AsyncByteStream):
    def __init__(self, request: httpx.Request, reply: aiohttp.ClientResponse, limit: int) -> None:
        self._request, self._reply, self._limit = request, reply, limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._limit
        try:
            async for chunk in self._reply.content.iter_any():
                left -= len(chunk)
                if left < 0:
                    raise ReplyTooLarge(f"reply larger than {self._limit / 2**20:g} MiB", request=self._request)
                yield chunk
        except _ENGINE_ERRORS as exc:
            raise _as_httpx(self._cause(exc), self._request) from None
        finally:
            self._reply.close()

    async def aclose(self) -> None:
        self._reply.close()  # after the end of the body the connection is no longer the reply's, and stays open

    def _cause(self, exc: BaseException) -> BaseException:
        # To aiohttp every body that ends too early is a bad payload; whether it was a reset, the connection knows.
        if isinstance(exc, aiohttp.ClientPayloadError) and (connection := self._reply.connection):
            lost = connection.protocol.exception() if connection.protocol is not None else None
            return lost if isinstance(lost, OSError) else exc
        return exc


class _Protocol(ResponseHandler):
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

    async def _create_connection(self, *args: Any, **kwargs: Any) -> Any:
        _connection_is_new.set(True)
        return await super()._create_connection(*args, **kwargs)


_connection_is_new = ContextVar("_connection_is_new", default=False)


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


def _as_httpx(exc: BaseException, request: httpx.Request, *, reused: bool = False) -> httpx.TransportError:
    kind, message = _named(exc)
    if reused and isinstance(exc, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError):
        message += " (sent on an idle connection, which the server may just have given up)"
    return kind(message, request=request)


def _named(exc: BaseException) -> tuple[type[httpx.TransportError], str]:
    """From the special to the general. aiohttp's own errors are neither quoted nor chained: they hold the request's
    headers, the proxy's password and pieces of the reply."""
    match exc:
        case aiohttp.ConnectionTimeoutError():
            return httpx.ConnectTimeout, "no connection within the time allowed for it"
        case aiohttp.ServerTimeoutError():
            return httpx.ReadTimeout, "nothing came within the time allowed for a read"
        case aiohttp.ClientProxyConnectionError():
            return httpx.ProxyError, f"cannot reach the proxy: {_reason(exc.os_error)}"
        case aiohttp.ClientHttpProxyError():
            return httpx.ProxyError, f"the proxy answered {exc.status}"
        case aiohttp.ClientConnectorCertificateError():
            detail = getattr(exc.certificate_error, "verify_message", "")
            return httpx.ConnectError, f"TLS certificate not trusted: {detail or 'it does not fit'}"
        case aiohttp.ClientConnectorSSLError():
            return httpx.ConnectError, f"TLS handshake failed: {getattr(exc.os_error, 'reason', 'no reason given')}"
        case aiohttp.ClientConnectorDNSError():
            return httpx.ConnectError, f"host name not found: {exc.os_error.strerror}"
        case aiohttp.ClientConnectorError():
            return httpx.ConnectError, _reason(exc.os_error)
        case aiohttp.ServerDisconnectedError():
            return httpx.RemoteProtocolError, "the server closed the connection without a whole reply"
        case aiohttp.ClientPayloadError():
            return httpx.RemoteProtocolError, "the reply is cut off"
        case aiohttp.ClientResponseError() | HttpProcessingError():
            return httpx.RemoteProtocolError, "the reply is not proper HTTP (or the address should be https://)"
        case aiohttp.NonHttpUrlClientError():
            return httpx.UnsupportedProtocol, "the address begins with neither http:// nor https://"
        case aiohttp.ClientConnectionResetError():
            return httpx.WriteError, "the connection was lost before the request was sent"
        case aiohttp.ClientOSError() if "write" in (exc.strerror or ""):
            return httpx.WriteError, "the connection was lost while the request was being sent"
        case OSError():
            return httpx.ReadError, _reason(exc)
        case ValueError():
            return httpx.LocalProtocolError, "cannot be sent: HTTP does not allow this address, method or header"
    return httpx.NetworkError, f"the connection failed ({type(exc).__name__})"


def _reason(exc: OSError) -> str:
    match exc:
        case ConnectionRefusedError():  # asyncio words this one with the numeric address alone
            return "connection refused"
        case ConnectionResetError():
            return "connection reset"
    return exc.strerror or str(exc) or type(exc).__name__
