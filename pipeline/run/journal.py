"""The append-only log of a run: every attempt, as it happened. With it a run loses nothing, whenever it dies.

    {"journal":"npc-pipeline","version":2}
    {"seq":0,"key":"<32 hex>","attempt":1,"final":true,"crc":123,"payload":{...}}

One record a line, written whole with one call to an append-only file: after `append` a killed process has lost nothing.
`sync` is against loss of power; it is for somebody to call now and then. A line feed is the commit mark: on opening, a
line without one is cut off. Each record carries a checksum; one that does not fit is passed over and counted.

The last record of a key holds. `final` means that it need not be asked again. A server's body is recorded before anything
reads it; what is found out later (it is no reply; its tokenizer counts so many tokens) is a second record, of attempt 0.

What is held in memory is 17 bytes a record, and 12 of those that were there at the last `freeze`.
"""

import contextlib
import json
import os
import re
import zlib
from array import array
from bisect import bisect_left
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.errors import ConfigError, RunStopped
from pipeline.records import Attempt, Timing

VERSION = 2
_READS = (1, 2)
_FINAL, _ADDED = 1, 2  # what is remembered of a record beside its key and place
_HEADER = b'{"journal":"npc-pipeline","version":%d}\n'
_RECORD = re.compile(
    rb'\{"seq":\d+,("key":"([0-9a-f]{32})","attempt":(\d+),"final":(true|false)),"crc":(\d+),"payload":'
)
_TIMES = tuple((one.name, one.default) for one in fields(Timing))
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Recorded:
    """The last attempt of a key that left a body or an error, and how many attempts there were."""

    attempt: Attempt
    attempts: int


class Journal:
    """One writer at a time (the run folder has the lock). Raises RunStopped when it cannot be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found_damaged = 0  # records that did not fit their checksum
        self.found_torn = 0  # bytes of a last line that was never finished
        self._keys, self._offsets, self._flags = array("Q"), array("q"), bytearray()
        self._index: _Index | None = None
        self._recent: dict[int, tuple[int, int]] = {}  # offset and number of records made since the last `freeze`
        self._unsynced = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
            self._size = self._scan() if path.exists() else 0
            self._descriptor = os.open(path, flags, 0o644)
            self._reader: BinaryIO = path.open("rb")
            if self._size == 0:
                self._write(_HEADER % VERSION)
        except OSError as exc:
            raise RunStopped(f"{path}: cannot be opened: {exc.strerror}.") from exc

    def __len__(self) -> int:
        return len(self._keys)

    def append(self, key: str, about: str, attempt: Attempt) -> None:
        """Record an attempt. `about` is for people who grep: persona, scenario, sample."""
        timing = attempt.timing
        payload: dict[str, Any] = {"about": about, "status": attempt.status}
        if attempt.streamed:
            payload["streamed"] = True
        if attempt.error is not None:
            payload["error"] = attempt.error
        payload["timing"] = {name: value for name, usual in _TIMES if (value := getattr(timing, name)) != usual}
        if attempt.dialect is not None:
            payload["dialect"] = attempt.dialect
        if attempt.tokens is not None:
            payload["tokens"] = attempt.tokens
        payload["body"] = attempt.body
        content = _encode(payload).encode("utf-8", "replace")
        head = f'"key":"{key}","attempt":{attempt.number},"final":{"true" if attempt.final else "false"}'.encode()
        crc = zlib.crc32(content, zlib.crc32(head))
        short = _short(key)
        offset = self._size
        self._write(b'{"seq":%d,%b,"crc":%d,"payload":%b}\n' % (len(self._keys), head, crc, content))
        self._recent[short] = (offset, self._recent.get(short, (0, 0))[1] + (attempt.number > 0))
        self._keys.append(short)
        self._offsets.append(offset)
        self._flags.append(attempt.final * _FINAL | (attempt.number == 0) * _ADDED)
        self._unsynced += 1

    def sync(self) -> None:
        """Force what was appended to the disk; costs milliseconds, so call it from a thread, every now and then."""
        if self._unsynced:
            self._unsynced = 0
            try:
                getattr(os, "fdatasync", os.fsync)(self._descriptor)
            except OSError as exc:
                raise RunStopped(f"{self.path}: cannot be written to the disk: {exc.strerror}.") from exc

    def close(self) -> None:
        self._reader.close()
        os.close(self._descriptor)

    def freeze(self) -> None:
        """Index all that is recorded by now."""
        self._recent.clear()
        self._index = _Index(self._keys, self._offsets, self._flags)

    def answered(self, key: str) -> bool:
        """Whether `key` need not be asked again, going by what was there at the last `freeze`."""
        assert self._index is not None
        return self._index.find(_short(key))[2]

    def find(self, key: str) -> Recorded | None:
        """What is known about `key`. What was recorded since the last `freeze` is found once, and then forgotten until the
        next: whoever follows a run needs each reply once, and memory stays flat."""
        assert self._index is not None
        offset, attempts, _ = self._index.find(_short(key))
        if recent := self._recent.pop(_short(key), None):
            offset, attempts = recent[0], attempts + recent[1]
        if offset < 0:
            return None
        self._reader.seek(offset)
        line = self._reader.readline()
        match = _RECORD.match(line)
        if match is None:
            raise RunStopped(f"{self.path}: changed while it was being read.")
        payload = json.loads(line[match.end() : -2].decode())
        timing = payload["timing"]
        if isinstance(timing, list):  # version 1
            timing = dict(zip(("sent", "e2e", "ttft", "last"), timing, strict=True))
        attempt = Attempt(
            number=attempts,
            timing=Timing(**timing),
            status=payload["status"],
            streamed=payload.get("streamed", False),
            body=payload["body"],
            error=payload.get("error"),
            tokens=payload.get("tokens"),
            dialect=payload.get("dialect"),
            final=match[4] == b"true",
        )
        return Recorded(attempt, attempts)

    def attempts(self, key: str) -> int:
        """How often `key` was tried, for who has the reply already; forgets it as `find` does."""
        assert self._index is not None
        return self._recent.pop(_short(key), (0, 0))[1] + self._index.find(_short(key))[1]

    def _write(self, line: bytes) -> None:
        done = 0
        try:
            while done < len(line):
                done += os.write(self._descriptor, line[done:])
        except OSError as exc:
            # Half a line would swallow the next one. What was acknowledged before stays.
            with contextlib.suppress(OSError):
                os.truncate(self.path, self._size)
            raise RunStopped(
                f"{self.path}: cannot be written: {exc.strerror}. All answers up to here are safe; "
                "make room, and the same command goes on."
            ) from exc
        self._size += len(line)

    def _scan(self) -> int:
        """Read all records' places; returns the size of what is whole, to which the file is cut."""
        position = 0
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    self.found_torn = len(line)
                    os.truncate(self.path, position)
                    break
                if position == 0:
                    self._check_header(line)
                    if line != _HEADER % VERSION and len(line) == len(_HEADER % VERSION):
                        with self.path.open("r+b") as head:  # what is added will be of this version
                            head.write(_HEADER % VERSION)
                elif (
                    (match := _RECORD.match(line)) is None
                    or line[-2:] != b"}\n"
                    or zlib.crc32(line[match.end() : -2], zlib.crc32(match[1])) != int(match[5])
                ):
                    self.found_damaged += 1
                else:
                    self._keys.append(_short(match[2].decode()))
                    self._offsets.append(position)
                    self._flags.append((match[4] == b"true") * _FINAL | (match[3] == b"0") * _ADDED)
                position += len(line)
        return position

    def _check_header(self, line: bytes) -> None:
        try:
            version = json.loads(line)["version"]
        except (ValueError, LookupError, TypeError):
            version = None
        if version not in _READS:
            raise ConfigError(
                f"{self.path}:1: a journal of version {version!r}, where {_READS[0]} to {VERSION} is expected. It may be of a "
                "newer pipeline: upgrade, or use another --out."
            )


class _Index:
    """Sorted 64-bit prefixes of the keys: two of a million being the same has a chance of one in 40 million."""

    def __init__(self, keys: "array[int]", offsets: "array[int]", flags: bytearray) -> None:
        """What is added to these later is not in the index."""
        import numpy as np

        numbers = np.frombuffer(keys, dtype=np.uint64) if keys else np.empty(0, np.uint64)
        order = np.argsort(numbers, kind="stable")
        self._keys, self._order = array("Q", numbers[order].tobytes()), array("I", order.astype(np.uint32).tobytes())
        self._offsets, self._flags = offsets, flags

    def find(self, key: int) -> tuple[int, int, bool]:
        """(offset or -1, number of records, whether the last one is final)"""
        at, tries, last = bisect_left(self._keys, key), 0, -1
        while at < len(self._keys) and self._keys[at] == key:  # from the first to the last
            last = self._order[at]
            tries += not self._flags[last] & _ADDED
            at += 1
        return (-1, 0, False) if last < 0 else (self._offsets[last], tries, bool(self._flags[last] & _FINAL))


def _short(key: str) -> int:
    return int(key[:16], 16)
