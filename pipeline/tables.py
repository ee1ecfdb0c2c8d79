"""Parquet, written with pyarrow in bounded batches: aside first, then renamed, so that a file that is there is whole."""

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

_BATCH = 1024

Values = Sequence[Any] | npt.NDArray[Any]  # of a column


class TableWriter:
    """`with TableWriter(path, schema) as table: table.add(row)`. Without a row there is no file, unless `keep_empty`."""

    def __init__(self, path: Path, schema: pa.Schema, *, keep_empty: bool = False) -> None:
        self.path, self._schema, self._keep_empty = path, schema, keep_empty
        self._aside = path.with_name(f".{path.name}.part")
        self._columns: dict[str, list[Any]] = {name: [] for name in schema.names}
        self._batches: list[pa.RecordBatch] = []
        self._writer: pq.ParquetWriter | None = None
        self._closed = False
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def add(self, row: dict[str, Any]) -> None:
        for name, values in self._columns.items():
            values.append(row[name])
        self.count += 1
        if self.count % _BATCH == 0:
            self._flush()

    def write(self, batch: pa.RecordBatch) -> None:
        """Rows that are columns already."""
        self._batches.append(batch)
        self.count += batch.num_rows
        if sum(waiting.num_rows for waiting in self._batches) >= _BATCH:
            self._flush_batches()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(whole=kind is None)

    def close(self, *, whole: bool) -> None:
        """Put the table in its place if it is `whole`; else leave no trace of it. Once it is closed, nothing more happens."""
        if self._closed:
            return
        self._closed = True
        if whole and self._batches:
            self._flush_batches()
        if whole and (any(self._columns.values()) or (self._keep_empty and not self.count)):
            self._flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            pa.default_memory_pool().release_unused()  # what the columns were encoded in
            if whole:
                os.replace(self._aside, self.path)
            else:
                self._aside.unlink(missing_ok=True)

    def _flush(self) -> None:
        arrays = [
            column(values, field.type) for values, field in zip(self._columns.values(), self._schema, strict=True)
        ]
        self._opened().write_batch(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        for values in self._columns.values():
            values.clear()

    def _flush_batches(self) -> None:
        self._opened().write_table(pa.Table.from_batches(self._batches, self._schema).combine_chunks())
        self._batches.clear()

    def _opened(self) -> pq.ParquetWriter:
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._aside, self._schema, compression="zstd")
        return self._writer


def column(values: Values, kind: pa.DataType) -> pa.Array:
    """`pa.array(values, kind)` for the kinds we have: texts, numbers (None or NaN: null), truth values, lists of texts' structs.

    pyarrow's own imports pandas at the first call, to know its objects when it sees them: a third of a second, in a command
    that may take three.
    """
    if pa.types.is_string(kind):
        return _texts(values)
    if pa.types.is_list(kind):
        inside = [entry for value in values for entry in value]
        parts = [column([entry[field.name] for entry in inside], field.type) for field in kind.value_type]
        ends = np.cumsum([0, *map(len, values)], dtype=np.int32)
        offsets = pa.Array.from_buffers(pa.int32(), len(ends), [None, pa.py_buffer(ends)])
        return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(parts, fields=list(kind.value_type)))
    if pa.types.is_floating(kind):
        numbers = np.array(values, dtype=kind.to_pandas_dtype())  # None becomes NaN
        bits = pa.py_buffer(np.packbits(numbers == numbers, bitorder="little"))
        return pa.Array.from_buffers(kind, len(numbers), [bits, pa.py_buffer(numbers)])
    if isinstance(values, np.ndarray) and pa.types.is_integer(kind):
        return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values.astype(kind.to_pandas_dtype()))])
    known = np.array([value is not None and value == value for value in values], dtype=bool)
    numbers = np.array(
        [value if there else 0 for value, there in zip(values, known, strict=True)], dtype=kind.to_pandas_dtype()
    )
    if pa.types.is_boolean(kind):
        numbers = np.packbits(numbers.astype(bool), bitorder="little")
    bits = pa.py_buffer(np.packbits(known, bitorder="little"))
    return pa.Array.from_buffers(kind, len(values), [bits, pa.py_buffer(np.ascontiguousarray(numbers))])


def taken(texts: Sequence[str], places: npt.NDArray[np.int32]) -> pa.Array:
    """`texts[place]` for each place, without making a Python string of any."""
    numbers = pa.Array.from_buffers(pa.int32(), len(places), [None, pa.py_buffer(places)])
    return pa.DictionaryArray.from_arrays(numbers, _texts(texts)).dictionary_decode()


def _texts(values: Values) -> pa.Array:
    builder = pa.lib.StringBuilder()
    try:
        builder.append_values(values)
    except UnicodeEncodeError:  # a lone surrogate, which JSON can hold and UTF-8 cannot
        builder = pa.lib.StringBuilder()
        builder.append_values([value and value.encode("utf-8", "replace").decode() for value in values])
    return builder.finish()
