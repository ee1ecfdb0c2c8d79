"""The body of a reply, read by read, each with the moment at which it came."""

import re
import time
from collections.abc import AsyncIterable

import httpx

from pipeline.records import Read


async def receive(response: httpx.Response, reads: list[Read], *, end: re.Pattern[bytes] | None) -> None:
    """The body, with a stamp for each read: the transport's own where it has them."""
    if record := response.extensions.get("record"):
        await record(reads, end=end)
    else:
        async for chunk in body_of(response):
            reads.append((time.perf_counter(), chunk))


def body_of(response: httpx.Response) -> AsyncIterable[bytes]:
    """The reads as they come. httpx's own iterator costs more than the network; it is needed only to decompress."""
    if isinstance(response.stream, httpx.AsyncByteStream) and "content-encoding" not in response.headers:
        return response.stream
    return response.aiter_bytes()


def is_stream(kind: str, reads: list[Read], media_type: str) -> bool:
    """Whether what came is a stream: by its Content-Type, and where that cannot be by what it looks like."""
    first = b"".join(data for _, data in reads[:8]).lstrip(b"\xef\xbb\xbf \t\r\n")[:20]
    if media_type == "text/event-stream" and first:
        return re.match(rb"(?:data|event|id|retry|error)?:", first) is not None
    return media_type in kind
