"""A server that writes exactly the bytes a test names, on a real loopback socket, in the test's own loop.

async with Wire(sends(reply(b"{}"))) as server: ... server.url, server.requests
"""

import asyncio


class Wire:
    """Reads whole requests and lets `answer(writer)` write what it likes.

    One that writes nothing is a server that stalls: it goes on reading, and so notices when the client leaves.
    """

    def __init__(self, answer, host="127.0.0.1", port=0, tls=None):
        self.answer, self.host, self.port, self.tls = answer, host, port, tls
        self.connections, self.requests, self.client_left = 0, [], asyncio.Event()
        self._tasks = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._connected, self.host, self.port, ssl=self.tls, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]
        host = f"[{self.host}]" if ":" in self.host else self.host
        self.url = f"{'https' if self.tls else 'http'}://{host}:{self.port}"
        return self

    async def __aexit__(self, *exc_info):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def heads(self):
        return [request.partition(b"\r\n\r\n")[0].decode().split("\r\n") for request in self.requests]

    @property
    def bodies(self):
        return [request.partition(b"\r\n\r\n")[2] for request in self.requests]

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


def reply(body, status="200 OK", kind="application/json", headers=()):
    """A whole HTTP answer. Its body ends with the connection, as that of text-generation-webui's first API did."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def with_length(body, length=None):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(body) if length is None else length) + body


def sends(*pieces, pause=0.0, close=True):
    async def answer(writer):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
        if close:
            writer.close()

    return answer


async def stalls(writer):
    """Reads on and never answers."""


def unused_port():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
