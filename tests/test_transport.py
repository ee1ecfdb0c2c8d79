"""Real sockets on loopback, and servers that send exactly the bytes a test names: the wire is what is tested here."""

import asyncio
import gc
import gzip
import re
import zlib

import httpx
import pytest
from loopback import CHUNKED, HELLO, Loopback, ask, fetch, sends, stalls

from pipeline.client.transport import AiohttpTransport


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
