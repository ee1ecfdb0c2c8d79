"""Texts by the hundred thousand that wait for the end of a run: in a file, with a few bytes of memory for each."""

import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

_BLOCK = 1 << 16  # bytes that are written at once
_PAGE = 1 << 12  # bytes that are read at once: who asks for a text mostly asks for its neighbours


class Texts(Sequence[str]):
    """Short texts one after another, in a file without a name in `folder`: it is gone when nobody holds it any more, however
    that comes about. Each takes 8 bytes of memory. To read one takes a microsecond if it stands near the one before, else some."""

    def __init__(self, folder: Path | None = None) -> None:
        self._file = TemporaryFile(buffering=0, dir=folder)  # noqa: SIM115 -- closed in __del__
        self._ends, self._unwritten = array("q", [0]), bytearray()
        self._page, self._read = 0, b""  # where what was read last stands, and what it is

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    def append(self, text: str) -> None:
        self._unwritten += (written := text.encode("utf-8", "surrogatepass"))
        self._ends.append(self._ends[-1] + len(written))
        if len(self._unwritten) >= _BLOCK:
            self._write()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, place: Any) -> Any:
        start, end = self._ends[place], self._ends[place + 1]
        if start < self._page or end > self._page + len(self._read):
            self._write()
            self._page = start - start % _PAGE
            self._read = self._bytes(self._page, max(end - self._page, _PAGE))
        return self._read[start - self._page : end - self._page].decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        """Faster than one by one: hundreds are read at once."""
        self._write()
        first, ends = 0, self._ends
        while first < len(self):
            last = min(first + 512, len(self))
            block = self._bytes(ends[first], ends[last] - ends[first])
            for place in range(first, last):
                yield block[ends[place] - ends[first] : ends[place + 1] - ends[first]].decode("utf-8", "surrogatepass")
            first = last

    def _bytes(self, start: int, size: int) -> bytes:
        self._file.seek(start)
        return self._file.read(size)

    def _write(self) -> None:
        if self._unwritten:
            self._file.seek(0, os.SEEK_END)
            while self._unwritten:
                del self._unwritten[: self._file.write(self._unwritten)]


class Scattered(Mapping[int, str]):
    """Texts that some numbers from 0 on have. 4 bytes of memory for every number, and 8 for each text."""

    def __init__(self, folder: Path | None = None) -> None:
        self._texts, self._where = Texts(folder), array("i")
        self._count = 0

    def __setitem__(self, number: int, text: str) -> None:
        if number >= len(self._where):
            self._where.extend(array("i", [-1]) * (number + 1 - len(self._where)))
        self._count += self._where[number] < 0
        self._where[number] = len(self._texts)
        self._texts.append(text)

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and 0 <= number < len(self._where) and self._where[number] >= 0

    def __getitem__(self, number: int) -> str:
        if number not in self:
            raise KeyError(number)
        text: str = self._texts[self._where[number]]
        return text

    def __iter__(self) -> Iterator[int]:
        return (number for number, where in enumerate(self._where) if where >= 0)

    def __len__(self) -> int:
        return self._count


class Repeated(Sequence[str]):
    """Texts of which neighbours are mostly the same, in a file: 4 bytes of memory for each, and 8 for each that is not the same."""

    def __init__(self, folder: Path | None = None) -> None:
        self._texts, self._where = Texts(folder), array("i")
        self._last: str | None = None

    def append(self, text: str) -> None:
        if text != self._last:
            self._texts.append(text)
            self._last = text
        self._where.append(len(self._texts) - 1)

    def __len__(self) -> int:
        return len(self._where)

    def __getitem__(self, place: Any) -> Any:
        return self._texts[self._where[place]]


class Few(Sequence[str]):
    """Texts of which few are different, a byte for each."""

    def __init__(self) -> None:
        self._codes, self._texts = bytearray(), list[str]()

    def extend(self, texts: Sequence[str]) -> None:
        for text in set(texts).difference(self._texts):
            self._texts.append(text)
        self._codes.extend(map(self._texts.index, texts))

    def __len__(self) -> int:
        return len(self._codes)

    def __getitem__(self, place: Any) -> Any:
        return self._texts[self._codes[place]]
