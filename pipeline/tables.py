"""Parquet, written with pyarrow in bounded batches: aside first, then renamed, so that a file that is there is whole."""

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

_BATCH = 1024


class TableWriter:
    """`with TableWriter(path, schema) as table: table.add(row)`. Without a row there is no file, unless `keep_empty`."""

    def __init__(self, path: Path, schema: pa.Schema, *, keep_empty: bool = False) -> None:
        self.path, self._schema, self._keep_empty = path, schema, keep_empty
        self._aside = path.with_name(f".{path.name}.part")
        self._rows: list[dict[str, Any]] = []
        self._writer: pq.ParquetWriter | None = None
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        self.count += 1
        if len(self._rows) >= _BATCH:
            self._flush()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None and (self._rows or self._keep_empty):
            self._flush()
        if self._writer is not None:
            self._writer.close()
            if kind is None:
                os.replace(self._aside, self.path)
            else:
                self._aside.unlink(missing_ok=True)

    def _flush(self) -> None:
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._aside, self._schema, compression="zstd")
        self._writer.write_batch(pa.RecordBatch.from_pylist(self._rows, schema=self._schema))
        self._rows.clear()
