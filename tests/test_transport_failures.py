"""What breaks on the way has its own name: refused, reset, cut, garbled, too slow, too large."""

import asyncio
import gzip
import socket
import traceback
import tracemalloc

import httpx
import pytest
from loopback import CHUNKED, HELLO, SECRET, Loopback, ask, fetch, refusal, reset, sends, stalls

from pipeline.client.httpx_errors import ReplyTooLarge
from pipeline.client.transport import AiohttpTransport


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
