"""Real sockets on loopback, and servers that send exactly the bytes a test names: the wire is what is tested here."""

import asyncio
import contextlib
import gc
import gzip
import json
import re
import socket
import ssl
import struct
import traceback
import tracemalloc
import zlib

import httpx
import pytest

from pipeline.httpx_errors import NotTrusted, ReplyTooLarge
from pipeline.transport import AiohttpTransport

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SECRET = "s3cret"  # by this name only, or the lines of source in a traceback would give it away
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


class Loopback:
    """A server that reads whole requests and lets `answer(writer)` write what it likes.

    An answer that writes nothing is a server that stalls: it goes on reading, and so notices when the client leaves.
    """

    def __init__(self, answer, tls=None):
        self.answer, self.tls = answer, tls
        self.connections, self.requests, self.client_left = 0, [], asyncio.Event()
        self._tasks = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self.tls, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/"
        return self

    async def __aexit__(self, *exc_info):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader, writer):
        self.connections += 1
        self._tasks.add(asyncio.current_task())
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:-2])
                self.requests.append(head + await reader.readexactly(int(fields.get(b"content-length", 0))))
                await self.answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.client_left.set()
        except asyncio.CancelledError:  # the test is over; a handler that dies of it would be logged as an error
            pass
        finally:
            writer.close()


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
        async with asyncio.timeout(10), Loopback(answer, tls) as server, AiohttpTransport(**options or {}) as transport:
            return await fetch(transport, server.url, **request)

    return asyncio.run(main())


def test_a_reply_without_any_body_is_whole():
    for status in (204, 304):
        assert ask(sends(b"HTTP/1.1 %d Nothing\r\n\r\n" % status)) == (status, b"")

        async def recorded(status=status):
            reads = []
            answer = sends(b"HTTP/1.1 %d Nothing\r\n\r\n" % status)
            async with asyncio.timeout(10), Loopback(answer) as server, AiohttpTransport() as transport:
                response = await transport.handle_async_request(httpx.Request("POST", server.url))
                await response.extensions["record"](reads, end=None)
            return reads

        assert asyncio.run(recorded()) == []


def test_a_reply_that_nobody_asked_for_is_not_taken_for_the_next_one():
    async def main():
        count = 0

        async def twice(writer):
            nonlocal count
            count += 1
            body = b"answer %d" % count
            whole = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            writer.write(whole)
            await asyncio.sleep(0.02)
            writer.write(whole)

        async with asyncio.timeout(20), Loopback(twice) as server, AiohttpTransport() as transport:
            found = []
            for _ in range(4):
                found.append((await fetch(transport, server.url))[1])
                await asyncio.sleep(0.05)
            return found

    assert asyncio.run(main()) == [b"answer %d" % n for n in range(1, 5)]


END = re.compile(rb"(?:^|[\r\n])data: ?\[DONE\]")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"


def framed(*chunks):
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)


@pytest.mark.parametrize(
    "chunks",
    [
        [b"data: 1\n\ndata: [DONE]\n\n"],
        [b"data: 1\n\n", b"data: [DO", b"NE]\n\n"],
        [b"data: 1\r\rdata:[DONE]\r\r"],
    ],
)
@pytest.mark.parametrize("then", [None, "close", "reset"])
@pytest.mark.parametrize("packed", [False, True])
def test_behind_its_last_event_a_stream_needs_no_end(chunks, then, packed):
    async def main():
        body, head = b"".join(chunks), HEAD
        if packed:
            pieces, head = [framed(gzip.compress(body))], HEAD + b"Content-Encoding: gzip\r\n"
        else:
            pieces = [framed(chunk) for chunk in chunks]
        reads = []
        answer = sends(head + b"\r\n", *pieces, then=then)
        async with asyncio.timeout(10), Loopback(answer) as server, AiohttpTransport() as transport:
            response = await transport.handle_async_request(httpx.Request("POST", server.url))
            await response.extensions["record"](reads, end=END)
        return b"".join(data for _, data in reads), body

    found, body = asyncio.run(main())
    assert found == body


def test_without_its_last_event_a_stream_that_breaks_off_is_cut():
    async def main():
        async with (
            asyncio.timeout(10),
            Loopback(sends(HEAD + b"\r\n" + framed(b"data: 1\n\n"), then="close")) as server,
            AiohttpTransport() as transport,
        ):
            response = await transport.handle_async_request(httpx.Request("POST", server.url))
            with pytest.raises(httpx.RemoteProtocolError, match="cut off"):
                await response.extensions["record"]([], end=END)

    asyncio.run(main())


# What a reply looks like


@pytest.mark.parametrize(
    "pieces",
    [
        [HELLO],
        [CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"],
        [HELLO[i : i + 1] for i in range(len(HELLO))],
        [b"HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n" + HELLO],
    ],
    ids=["whole", "chunked", "one byte at a time", "after early hints"],
)
def test_a_reply_arrives_whole_however_it_is_sent(pieces):
    assert ask(sends(*pieces)) == (200, b"hello")


def test_a_reply_without_a_length_ends_when_the_server_closes():
    assert ask(sends(b"HTTP/1.0 200 OK\r\n\r\nhello", then="close")) == (200, b"hello")


def test_each_read_is_handed_on_before_the_next_one_is_sent():
    async def main():
        first_was_read = asyncio.Event()

        async def answer(writer):
            writer.write(CHUNKED + b"5\r\nfirst\r\n")
            await first_was_read.wait()
            writer.write(b"6\r\nsecond\r\n0\r\n\r\n")

        async with Loopback(answer) as server, AiohttpTransport() as transport:
            response = await transport.handle_async_request(httpx.Request("GET", server.url))
            chunks = []
            async for chunk in response.stream:
                chunks.append(chunk)
                first_was_read.set()
            assert chunks == [b"first", b"second"]

    asyncio.run(main())


@pytest.mark.parametrize("status", [b"302 Found", b"307 Temporary Redirect"])
def test_a_redirect_is_a_reply_like_any_other(status):
    async def main():
        answer = sends(b"HTTP/1.1 " + status + b"\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")
        async with Loopback(answer) as server, AiohttpTransport() as transport:
            response = await transport.handle_async_request(httpx.Request("POST", server.url))
            await response.aclose()
            assert (response.status_code, response.headers["Location"]) == (int(status[:3]), "/elsewhere")
            assert len(server.requests) == 1

    asyncio.run(main())


@pytest.mark.parametrize(
    "coding, encode",
    [(b"gzip", gzip.compress), (b"deflate", zlib.compress), (b"identity", bytes), (b"GZIP", gzip.compress)],
)
def test_a_compressed_reply_is_undone_once(coding, encode):
    async def main():
        body = encode(b"hello " * 100)
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (coding, len(body))
        async with Loopback(sends(head + body)) as server, httpx.AsyncClient(transport=AiohttpTransport()) as client:
            response = await client.get(server.url)
            assert response.content == b"hello " * 100
            assert "Content-Encoding" not in response.headers

    asyncio.run(main())


# What a request looks like


def test_a_request_goes_out_as_httpx_made_it():
    async def main():
        async with Loopback(sends(HELLO)) as server, httpx.AsyncClient(transport=AiohttpTransport()) as client:
            headers = {"Host": "tavern.example", "X-Name": "Grüße", "User-Agent": "npc/1", "Content-Type": "text/x-npc"}
            path = "/a%20b/%C3%BC?q=1%2C2&r"
            await client.post(
                server.url + path[1:], content=b"Hail!", headers=[(k, v.encode()) for k, v in headers.items()]
            )
            head, _, body = server.requests[0].partition(b"\r\n\r\n")
            first, *lines = head.split(b"\r\n")
            assert first == f"POST {path} HTTP/1.1".encode()
            assert body == b"Hail!"
            sent = [tuple(line.split(b": ", 1)) for line in lines]
            assert sorted(sent) == [
                (b"Accept", b"*/*"),
                (b"Accept-Encoding", b"gzip, deflate"),
                (b"Connection", b"keep-alive"),
                (b"Content-Length", b"5"),
                *((k.encode(), v.encode()) for k, v in sorted(headers.items())),
            ]

    asyncio.run(main())


def test_nothing_is_added_to_a_bare_request():
    async def main():
        async with Loopback(sends(HELLO)) as server, AiohttpTransport() as transport:
            await fetch(transport, server.url, method="GET", json=None)
            assert server.requests == [f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode()]

    asyncio.run(main())


def test_only_compression_that_can_be_undone_is_asked_for():
    async def main():
        async with Loopback(sends(HELLO)) as server, AiohttpTransport() as transport:
            for offered in ("gzip, deflate, br, zstd", "identity"):
                await fetch(transport, server.url, headers={"Accept-Encoding": offered})
            assert b"Accept-Encoding: gzip, deflate\r\n" in server.requests[0]
            assert b"Accept-Encoding: identity\r\n" in server.requests[1]

    asyncio.run(main())


def test_a_user_and_password_in_the_address_become_a_header():
    async def main():
        async with Loopback(sends(HELLO)) as server, httpx.AsyncClient(transport=AiohttpTransport()) as client:
            await client.get(server.url.replace("//", "//mira:pw@"))
            assert server.requests[0].count(b"Authorization: Basic bWlyYTpwdw==") == 1

    asyncio.run(main())


def test_content_of_any_size_or_kind_is_sent_with_its_length():
    async def pieces():
        yield b"Hail, "
        yield b"Mira!"

    async def main():
        async with Loopback(sends(HELLO)) as server, AiohttpTransport() as transport:
            for content in (b"", bytes(3 * 2**20), pieces()):
                await fetch(transport, server.url, json=None, content=content)
            bodies = [request.partition(b"\r\n\r\n")[2] for request in server.requests]
            assert bodies == [b"", bytes(3 * 2**20), b"Hail, Mira!"]
            assert b"chunked" not in server.requests[2]

    asyncio.run(main())


def test_cookies_are_not_kept():
    async def main():
        answer = sends(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")
        async with Loopback(answer) as server, AiohttpTransport() as transport:
            await fetch(transport, server.url)
            await fetch(transport, server.url)
            assert b"cookie" not in server.requests[1].lower()

    asyncio.run(main())


# Connections


def test_a_connection_is_used_again_after_a_reply_read_to_its_end():
    async def main():
        async with Loopback(sends(HELLO)) as server, AiohttpTransport() as transport:
            for _ in range(5):
                await fetch(transport, server.url)
            assert (server.connections, len(server.requests)) == (1, 5)

    asyncio.run(main())


def test_as_many_requests_are_in_flight_as_the_caller_starts():
    async def main():
        count, arrived = 150, asyncio.Event()

        async def answer(writer):
            if len(server.requests) == count:
                arrived.set()
            await arrived.wait()
            writer.write(HELLO)

        async with Loopback(answer) as server, AiohttpTransport() as transport, asyncio.timeout(5):
            await asyncio.gather(*(fetch(transport, server.url) for _ in range(count)))

    asyncio.run(main())


@pytest.mark.parametrize("pieces", [[], [HELLO[:-2]]], ids=["waiting for the head", "in the body"])
def test_a_cancelled_request_closes_its_connection(pieces):
    async def main():
        async with Loopback(stalls(*pieces)) as server, AiohttpTransport() as transport:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await fetch(transport, server.url)
            async with asyncio.timeout(2):
                await server.client_left.wait()

    asyncio.run(main())


def test_a_reply_closed_before_its_end_closes_its_connection():
    async def main():
        async with Loopback(stalls(CHUNKED + b"5\r\nhello\r\n")) as server, AiohttpTransport() as transport:
            response = await transport.handle_async_request(httpx.Request("POST", server.url))
            stream = aiter(response.stream)
            assert await anext(stream) == b"hello"
            await response.aclose()
            async with asyncio.timeout(2):
                await server.client_left.wait()
            with pytest.raises(httpx.TransportError):
                await anext(stream)

    asyncio.run(main())


def test_one_transport_serves_several_loops_in_turn():
    transport = AiohttpTransport()

    async def main():
        async with Loopback(sends(HELLO)) as server:
            return await fetch(transport, server.url)

    for _ in range(3):
        assert asyncio.run(main()) == (200, b"hello")
    gc.collect()  # whatever was left open says so now, and a warning is an error


def test_closing_twice_or_unused_does_no_harm():
    async def main():
        transport = AiohttpTransport()
        await transport.aclose()
        async with Loopback(sends(HELLO)) as server:
            await fetch(transport, server.url)
            await transport.aclose()
            await transport.aclose()
            async with asyncio.timeout(2):
                await server.client_left.wait()

    asyncio.run(main())


# Failures


def refusal(answer, kind, **how):
    with pytest.raises(httpx.TransportError) as caught:
        ask(answer, **how, headers={"Authorization": SECRET})
    assert type(caught.value) is kind, repr(caught.value)
    assert caught.value.request.method == "POST"
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


@pytest.mark.parametrize(
    "answer, kind, message",
    [
        (sends(then="close"), httpx.RemoteProtocolError, "closed the connection without"),
        (sends(b"HTTP/1.1 200 OK\r\nConte", then="close"), httpx.RemoteProtocolError, "closed the connection without"),
        (sends(HELLO[:-2], then="close"), httpx.RemoteProtocolError, "cut off"),
        (sends(CHUNKED + b"5\r\nhello\r\n", then="close"), httpx.RemoteProtocolError, "cut off"),
        (sends(CHUNKED + b"5\r\nhel", then="close"), httpx.RemoteProtocolError, "cut off"),
        (sends(b"SSH-2.0-OpenSSH_9.6\r\n"), httpx.RemoteProtocolError, "not proper HTTP"),
        (sends(b"\x15\x03\x01\x00\x02\x02\x46", then="close"), httpx.RemoteProtocolError, "https://"),
        (sends(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"), httpx.RemoteProtocolError, "not proper HTTP"),
        (sends(HELLO.replace(b"5", b"five")), httpx.RemoteProtocolError, "not proper HTTP"),
        (sends(CHUNKED + b"5\r\nhello\r\n", b"zzz\r\n"), httpx.RemoteProtocolError, ""),
        (
            sends(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello"),
            httpx.RemoteProtocolError,
            "",
        ),
        (sends(HELLO.replace(b"OK", b"OK\r\nContent-Encoding: gzip, gzip")), httpx.RemoteProtocolError, "encoded"),
        (sends(then="reset"), httpx.ReadError, "reset"),
        (sends(HELLO[:-2], then="reset"), httpx.ReadError, "reset"),
        (sends(CHUNKED + b"5\r\nhello\r\n", then="reset"), httpx.ReadError, "reset"),
    ],
    ids=[
        "no reply",
        "cut in the head",
        "cut body",
        "cut between chunks",
        "cut in a chunk",
        "not HTTP",
        "TLS",
        "endless header",
        "bad length",
        "bad chunk",
        "bad gzip",
        "twice compressed",
        "reset at once",
        "reset in the body",
        "reset between chunks",
    ],
)
def test_a_broken_reply_has_its_own_name(answer, kind, message):
    assert message in refusal(answer, kind)


def test_a_port_where_nobody_listens_refuses():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(httpx.ConnectError, match="refused"):
            asyncio.run(fetch(AiohttpTransport(), f"http://127.0.0.1:{unused.getsockname()[1]}/"))


def test_a_host_without_an_address_is_named_as_such():
    class Nameless(asyncio.SelectorEventLoop):
        async def getaddrinfo(self, *args, **kwargs):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with (
        asyncio.Runner(loop_factory=Nameless) as runner,
        pytest.raises(httpx.ConnectError, match="host name not found"),
    ):
        runner.run(fetch(AiohttpTransport(), "http://tavern.example/"))


def test_a_connection_that_takes_too_long_times_out():
    async def main():  # the server waits for a request, the client for TLS
        async with Loopback(stalls()) as server, AiohttpTransport(connect_timeout=0.05) as transport:
            with pytest.raises(httpx.ConnectTimeout):
                await fetch(transport, server.url.replace("http", "https"))

    asyncio.run(main())


@pytest.mark.parametrize("pieces", [[], [HELLO[:-2]]], ids=["waiting for the head", "in the body"])
def test_a_time_limit_for_reads_is_kept_if_the_request_has_one(pieces):
    refusal(stalls(*pieces), httpx.ReadTimeout, extensions={"timeout": {"read": 0.05}})


def test_a_reset_while_sending_is_a_network_error():
    async def main():
        async def on_connection(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            reset(writer)

        async with await asyncio.start_server(on_connection, "127.0.0.1", 0) as server, AiohttpTransport() as transport:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises((httpx.ReadError, httpx.WriteError)):
                await fetch(transport, f"http://127.0.0.1:{port}/", json=None, content=bytes(32 * 2**20))

    asyncio.run(main())


@pytest.mark.parametrize("then, kind", [("close", httpx.RemoteProtocolError), ("reset", httpx.ReadError)])
def test_a_connection_given_up_while_idle_is_told_from_a_server_that_does_not_answer(then, kind):
    async def main():
        async def answer(writer):
            await sends(HELLO if len(server.requests) == 1 else b"", then=None if len(server.requests) == 1 else then)(
                writer
            )

        async with Loopback(answer) as server, AiohttpTransport() as transport:
            await fetch(transport, server.url)
            with pytest.raises(kind, match="idle connection"):
                await fetch(transport, server.url)
            with pytest.raises(kind) as caught:
                await fetch(transport, server.url)
            assert "idle" not in str(caught.value)
            assert server.connections == 2

    asyncio.run(main())


@pytest.mark.parametrize(
    "url, kind",
    [
        ("ftp://tavern.example/", httpx.UnsupportedProtocol),
        ("/relative", httpx.LocalProtocolError),
        ("http:///path", httpx.LocalProtocolError),
        ("http://" + "a" * 70 + ".example/", httpx.LocalProtocolError),
    ],
)
def test_an_address_that_cannot_be_asked_is_refused(url, kind):
    with pytest.raises(httpx.TransportError) as caught:
        asyncio.run(fetch(AiohttpTransport(), url))
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    "wrong",
    [
        {"headers": {"X-Key": SECRET + "\r\nX: y"}},
        {"headers": {"X-Key": SECRET.encode() + b"\xff"}},
        {"method": "PO ST"},
    ],
    ids=["line end in a value", "neither ASCII nor UTF-8", "no method"],
)
def test_what_http_does_not_allow_is_not_sent(wrong):
    with pytest.raises(httpx.LocalProtocolError, match="HTTP does not allow") as caught:
        ask(sends(HELLO), **wrong)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_reply_may_be_as_large_as_its_bound_and_no_larger():
    def of(size):
        return sends(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size, bytes(size))

    assert ask(of(2**20), options={"max_body": 2**20}) == (200, bytes(2**20))
    with pytest.raises(ReplyTooLarge, match="reply larger than 1 MiB"):
        ask(of(2**20 + 1), options={"max_body": 2**20})


def test_a_small_reply_that_unpacks_to_a_huge_one_is_not_held_in_memory():
    bomb = gzip.compress(bytes(64 * 2**20))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    tracemalloc.start()
    try:
        with pytest.raises(ReplyTooLarge, match="reply larger than 1 MiB"):
            ask(sends(head + bomb), options={"max_body": 2**20})
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


# Proxies


@pytest.fixture
def environment(monkeypatch):
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_no_proxy_comes_between_us_and_this_machine(environment, host):
    environment.setenv("HTTP_PROXY", "http://127.0.0.1:1")

    async def main():
        async with Loopback(sends(HELLO)) as server, AiohttpTransport() as transport:
            assert await fetch(transport, server.url.replace("127.0.0.1", host)) == (200, b"hello")

    asyncio.run(main())


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
def test_a_proxy_from_the_environment_is_asked_for_other_hosts(environment, variable):
    async def main():
        async with Loopback(sends(HELLO)) as proxy, AiohttpTransport() as transport:
            environment.setenv(variable, proxy.url.replace("//", "//mira:pw@"))
            assert await fetch(transport, "http://tavern.example/talk") == (200, b"hello")
            assert proxy.requests[0].startswith(b"POST http://tavern.example/talk HTTP/1.1\r\nHost: tavern.example\r\n")
            assert b"Proxy-Authorization: Basic bWlyYTpwdw==" in proxy.requests[0]

    asyncio.run(main())


def test_a_proxy_that_fails_is_named_as_such(environment):
    async def main():
        async with Loopback(sends(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")) as proxy:
            environment.setenv("HTTPS_PROXY", proxy.url.replace("//", f"//mira:{SECRET}@"))
            environment.setenv("HTTP_PROXY", f"http://mira:{SECRET}@127.0.0.1:1")
            environment.setenv("NO_PROXY", "inn.example")
            for url, message in (("https://tavern.example/", "403"), ("http://tavern.example/", "refused")):
                async with AiohttpTransport() as transport:
                    with pytest.raises(httpx.ProxyError, match=message) as caught:
                        await fetch(transport, url)
                assert SECRET not in "".join(traceback.format_exception(caught.value))
            assert [request.split(b"\r\n")[0] for request in proxy.requests] == [b"CONNECT tavern.example:443 HTTP/1.1"]

    asyncio.run(main())


def test_a_proxy_of_another_kind_is_refused(environment):
    environment.setenv("ALL_PROXY", f"socks5://mira:{SECRET}@127.0.0.1:1")
    with pytest.raises(httpx.ProxyError, match="not an http:// one") as caught:
        asyncio.run(fetch(AiohttpTransport(), "http://tavern.example/"))
    assert SECRET not in str(caught.value)


# TLS. The key guards nothing: it is for these tests alone, and good until 2126.

CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgkNqfb3QwFiVZvch2
Z33xY0MtuFLLZVuVtPd4Z73nMCihRANCAASB0Mm5VCP2EFumaGM4DU/k7izLnGBA
GYcD3DM3L6edLiCMrKBDxXTVe45pz+ytVZepIuMJjK9ePEg8oPcouqKi
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBmzCCAUGgAwIBAgIUZGb8V0PkS/nEMKeoSbQ/jYoJmwAwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMTEwNDE1OFoYDzIxMjYxMTIy
MTA0MTU4WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAASB0Mm5VCP2EFumaGM4DU/k7izLnGBAGYcD3DM3L6edLiCMrKBDxXTV
e45pz+ytVZepIuMJjK9ePEg8oPcouqKio28wbTAdBgNVHQ4EFgQUJbbpHziRjrUM
m/+s0r59DHMnuSUwHwYDVR0jBBgwFoAUJbbpHziRjrUMm/+s0r59DHMnuSUwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSAAwRQIhAP1UN1med3IW5w6N2tgQwo6Gk/E9hkhD53l2ys6+k6vrAiBL
mfLE3phZr3LUI8TIfeox8lWulS2pPwccdpiuDWxb/g==
-----END CERTIFICATE-----
"""


@pytest.fixture
def self_signed(tmp_path):
    file = tmp_path / "home.pem"
    file.write_text(CERTIFICATE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def test_a_self_signed_certificate_is_refused_unless_the_caller_says_otherwise(self_signed):
    assert "certificate not trusted: self" in refusal(sends(HELLO), NotTrusted, tls=self_signed)
    assert ask(sends(HELLO), tls=self_signed, options={"verify": False}) == (200, b"hello")


def test_tls_with_a_server_that_speaks_plain_http_is_a_failed_connection():
    async def main():
        async def speaks_first(reader, writer):
            writer.write(HELLO)
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()

        async with await asyncio.start_server(speaks_first, "127.0.0.1", 0) as server, AiohttpTransport() as transport:
            with pytest.raises(httpx.ConnectError, match="TLS handshake failed"):
                await fetch(transport, f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")

    asyncio.run(main())


def test_an_httpx_client_works_on_top():
    async def main():
        body = json.dumps({"text": "Well met."}).encode()
        answer = sends(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        async with (
            Loopback(answer) as server,
            httpx.AsyncClient(transport=AiohttpTransport(), base_url=server.url) as client,
        ):
            assert (await client.post("/x", json={"prompt": "Hail!"})).json() == {"text": "Well met."}

    asyncio.run(main())
