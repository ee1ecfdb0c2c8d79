"""The records of a CSV file, one that is not well formed at the cost of its line.

A quote that is never closed makes one cell of all that follows. So the lines after the first of such a record are read again,
each as what it may be: a row of its own. Not without end, or a file made for it would be read as often as it has lines.
"""

import csv
from collections import deque
from collections.abc import Iterator
from typing import TextIO

_AGAIN = 32 * 2**20  # characters that are read again, in all

_WORDS = {
    "unexpected end of data": "a quote is opened and never closed",
    "expected after": 'a quote inside of a quoted cell, which has to be written twice: ""',
    "field larger than": "a cell without end; is a quote never closed?",
}


class _Lines:
    """The lines of a file, of which those of the latest record can be given back."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._again: deque[str] = deque()
        self._spare = _AGAIN
        self.record: list[str] = []

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._file)
        self.record.append(line)
        return line

    def give_back(self) -> int:
        """All but the first line of the record; returns how many are lost, because too much was read again already."""
        self._spare -= sum(map(len, self.record[1:]))
        if self._spare < 0:
            return len(self.record) - 1
        self._again.extendleft(reversed(self.record[1:]))
        del self.record[1:]
        return 0


def records(file: TextIO, *, delimiter: str) -> Iterator[tuple[int, list[str], str]]:
    """The line that a record begins at, its cells, and why there are none. `file` is open with newline=""."""
    lines = _Lines(file)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    line = 1
    while True:
        cells, problem = None, ""
        try:
            cells = next(reader, None)
        except csv.Error as exc:
            problem = next((words for found, words in _WORDS.items() if found in str(exc)), str(exc))
            if lost := lines.give_back():
                problem += f"; the {lost} lines after it are lost with it"
        if cells is None and not problem:
            return
        yield line, cells or [], problem
        line += len(lines.record)
        lines.record.clear()


def delimiter_of(first: str) -> str:
    """Where the comma is the decimal sign, spreadsheets write semicolons and call it CSV; what is copied out of one has tabs."""
    return next((sign for sign in (",", ";", "\t") if sign in first), ",")
