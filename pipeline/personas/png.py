"""The texts in a PNG file: `tEXt`, `zTXt` and `iTXt` chunks, by keyword (PNG specification, 3rd edition, 11.3.3).

A picture may come from anywhere. What is not text is passed over without being read, texts are bounded before and after
they are decompressed, and what is cut off or damaged is refused.
"""

import struct
import zlib
from collections.abc import Container
from typing import BinaryIO

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 200_000  # a picture of 1 GiB has about so many
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")


class BadPicture(ValueError):
    """Not a PNG file, or not a whole one."""


def texts(file: BinaryIO, keywords: Container[str], limit: int) -> dict[str, bytes]:
    """The last text under each of `keywords`, which are in lower case. Raises BadPicture, also for a text of over `limit` bytes."""
    if file.read(len(SIGNATURE)) != SIGNATURE:
        raise BadPicture("not a PNG file, whatever its name says")
    found: dict[str, bytes] = {}
    size = file.seek(0, 2)
    position = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if position == size:  # without an IEND: sloppy, but nothing is missing
            return found
        file.seek(position)
        head = file.read(8)
        length, kind = struct.unpack(">I4s", head) if len(head) == 8 else (0, b"")
        position += 12 + length
        if position > size:
            raise BadPicture(f"the file is cut off: it ends inside of a chunk, {position - size} bytes early")
        if kind == b"IEND":
            return found
        if kind not in _TEXTS:
            continue
        keyword = file.read(min(length, 80)).partition(b"\0")[0].decode("latin-1").lower()
        if keyword not in keywords:
            continue
        if length > limit + 1024:
            raise BadPicture(f"its text {keyword!r} has over {limit // 2**20} MiB")
        file.seek(-min(length, 80), 1)
        data, crc = file.read(length), file.read(4)
        if zlib.crc32(kind + data) != int.from_bytes(crc, "big"):
            raise BadPicture(f"its text {keyword!r} is damaged: the checksum is wrong")
        found[keyword] = _text(kind, data, keyword, limit)
    raise BadPicture(f"over {MAX_CHUNKS} chunks")


def _text(kind: bytes, data: bytes, keyword: str, limit: int) -> bytes:
    _, _, rest = data.partition(b"\0")
    packed = kind == b"zTXt"
    if packed:
        rest = rest[1:]  # the method, which is always zlib
    elif kind == b"iTXt":
        packed = rest[:1] == b"\1"
        rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]  # the language, the keyword translated
    if packed:
        unpack = zlib.decompressobj()
        try:
            rest = unpack.decompress(rest, limit + 1)
        except zlib.error as exc:
            raise BadPicture(f"its text {keyword!r} cannot be decompressed") from exc
        if len(rest) <= limit and not unpack.eof:
            raise BadPicture(f"its text {keyword!r} cannot be decompressed: it is cut off")
    if len(rest) > limit:
        raise BadPicture(f"its text {keyword!r} has over {limit // 2**20} MiB")
    return rest
