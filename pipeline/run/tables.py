"""Parquet, written with pyarrow in bounded batches: aside first, then renamed, so that a file that is there is whole.

Until a file is closed, pyarrow holds a kilobyte for each column of each row group, and for each of these it begins a compressor.
So a group is not so many rows, of which a score's are small and a prompt's are large, but so many bytes.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

_GROUP = 2 << 20  # bytes of columns in memory that make a row group

Values = Sequence[Any] | npt.NDArray[Any]  # of a column


class TableWriter:
    """`with TableWriter(path, schema) as table: table.write(batch)`. Without a row there is no file, unless `keep_empty`."""

    def __init__(self, path: Path, schema: pa.Schema, *, keep_empty: bool = False) -> None:
        self.path, self._schema, self._keep_empty = path, schema, keep_empty
        self._aside = path.with_name(f".{path.name}.part")
        self._batches: list[pa.RecordBatch] = []
        self._bytes = 0  # of these
        self._writer: pq.ParquetWriter | None = None
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def write(self, batch: pa.RecordBatch) -> None:
        if not batch.num_rows:
            return
        self._batches.append(batch)
        self._bytes += batch.nbytes
        if self._bytes >= _GROUP:
            self._write_group()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(whole=kind is None)

    def close(self, *, whole: bool) -> None:
        """Put the table in its place if it is `whole`; else leave no trace of it. Once it is closed, nothing more happens."""
        if self._closed:
            return
        self._closed = True
        if whole and (self._batches or (self._keep_empty and self._writer is None)):
            self._write_group()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            pa.default_memory_pool().release_unused()  # what the columns were encoded in
            if whole:
                os.replace(self._aside, self.path)
            else:
                self._aside.unlink(missing_ok=True)

    def _write_group(self) -> None:
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Nobody asks a table of replies for a range of values: no statistics of it.
            self._writer = pq.ParquetWriter(self._aside, self._schema, compression="zstd", write_statistics=False)
        self._writer.write_table(pa.Table.from_batches(self._batches, self._schema).combine_chunks())
        self._batches, self._bytes = [], 0


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
