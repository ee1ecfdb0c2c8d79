"""A server on a loopback socket that sends exactly the bytes a test names, and the transport that asks it."""

import asyncio
import socket
import struct
import traceback

import httpx
import pytest
from wire import Wire

from pipeline.client.transport import AiohttpTransport

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SECRET = "s3cret"  # by this name only, or the lines of source in a traceback would give it away
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


class Loopback(Wire):
    """Its address ends with a slash: the transport is asked for it as it is."""

    async def __aenter__(self):
        await super().__aenter__()
        self.url += "/"
        return self


def sends(*pieces, then=None):
    async def answer(writer):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.002 * (len(pieces) > 1))
        if then == "close":
            writer.close()
        if then == "reset":
            await asyncio.sleep(0.02)  # a reset throws away what the client has not read yet
            reset(writer)

    return answer


def reset(writer):
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def stalls(*pieces):
    return sends(*pieces)


async def fetch(transport, url, **request):
    """Status and body, by the transport alone: no httpx client in between that could mend anything."""
    request = httpx.Request(request.pop("method", "POST"), url, **({"json": {"prompt": "Hail!"}} | request))
    response = await transport.handle_async_request(request)
    return response.status_code, await response.aread()


def ask(answer, *, options=None, tls=None, **request):
    async def main():
        async with (
            asyncio.timeout(10),
            Loopback(answer, tls=tls) as server,
            AiohttpTransport(**options or {}) as transport,
        ):
            return await fetch(transport, server.url, **request)

    return asyncio.run(main())


def refusal(answer, kind, **how):
    with pytest.raises(httpx.TransportError) as caught:
        ask(answer, **how, headers={"Authorization": SECRET})
    assert type(caught.value) is kind, repr(caught.value)
    assert caught.value.request.method == "POST"
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)
