"""Parquet, written with pyarrow in bounded batches: aside first, then renamed, so that a file that is there is whole."""

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_BATCH = 1024


class TableWriter:
    """`with TableWriter(path, schema) as table: table.add(row)`. Without a row there is no file, unless `keep_empty`."""

    def __init__(self, path: Path, schema: pa.Schema, *, keep_empty: bool = False) -> None:
        self.path, self._schema, self._keep_empty = path, schema, keep_empty
        self._aside = path.with_name(f".{path.name}.part")
        self._columns: dict[str, list[Any]] = {name: [] for name in schema.names}
        self._writer: pq.ParquetWriter | None = None
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def add(self, row: dict[str, Any]) -> None:
        for name, column in self._columns.items():
            column.append(row[name])
        self.count += 1
        if self.count % _BATCH == 0:
            self._flush()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None and (self.count % _BATCH or (self._keep_empty and not self.count)):
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
        arrays = [
            _array(column, field.type) for column, field in zip(self._columns.values(), self._schema, strict=True)
        ]
        self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        for column in self._columns.values():
            column.clear()


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """`pa.array(values, kind)` for the kinds we have: texts, numbers, lists of texts' structs.

    pyarrow's own imports pandas at the first call, to know its objects when it sees them: a third of a second, in a command
    that may take three.
    """
    if pa.types.is_string(kind):
        return _texts(values)
    if pa.types.is_list(kind):
        inside = [entry for value in values for entry in value]
        parts = [_array([entry[field.name] for entry in inside], field.type) for field in kind.value_type]
        ends = np.cumsum([0, *map(len, values)], dtype=np.int32)
        offsets = pa.Array.from_buffers(pa.int32(), len(ends), [None, pa.py_buffer(ends)])
        return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(parts, fields=list(kind.value_type)))
    known = np.array([value is not None for value in values], dtype=bool)
    numbers = np.array([0 if value is None else value for value in values], dtype=kind.to_pandas_dtype())
    bits = pa.py_buffer(np.packbits(known, bitorder="little"))
    return pa.Array.from_buffers(kind, len(values), [bits, pa.py_buffer(numbers)])


def _texts(values: list[str | None]) -> pa.Array:
    builder = pa.lib.StringBuilder()
    try:
        builder.append_values(values)
    except UnicodeEncodeError:  # a lone surrogate, which JSON can hold and UTF-8 cannot
        builder = pa.lib.StringBuilder()
        builder.append_values([value and value.encode("utf-8", "replace").decode() for value in values])
    return builder.finish()
