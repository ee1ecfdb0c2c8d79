"""Rows checked against the schema. A bad row costs that row: it is listed, counted and skipped, unless `strict`.

Personas may be many (a dataset of 100,000), so the good ones are not held in memory: they are written to a JSONL file,
in the run folder, which also keeps what a run was made from when the originals change. Scenarios are few.
"""

import difflib
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, TextIO, TypeVar
from uuid import UUID

from pydantic import BaseModel, ValidationError

from pipeline.errors import ConfigError
from pipeline.hints import wanted
from pipeline.personas.cards import BadCard
from pipeline.personas.columns import Columns
from pipeline.personas.macros import has_macros, with_own_name
from pipeline.personas.rows import Found, Required, read_rows
from pipeline.personas.schema import Persona, Scenario
from pipeline.personas.shapes import as_persona

_LISTED = 20  # bad rows named one by one; the rest is counted

T = TypeVar("T", bound=BaseModel)


@dataclass(slots=True)
class Checked:
    """What came of a source: how many rows were good, `problems` (the first ones, with their place), `notes`."""

    good: int = 0
    bad: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    fingerprint: str = ""

    def refuse(self, where: str, problem: str, *, strict: bool) -> None:
        """A bad row. Raises ConfigError if it is one too many."""
        self.bad += 1
        if strict:
            raise ConfigError(f"{where}: {problem}")
        if len(self.problems) < _LISTED:
            self.problems.append(f"{where}: {problem}")

    def tell(self, source: str, named: Columns) -> None:
        """What was found out about the columns."""
        if named.told:
            told = ", ".join(f"{ours} from {theirs!r}" for ours, theirs in named.told.items())
            self.notes.append(f"{source}: {told} (--map FIELD=COLUMN says otherwise)")

    def none_usable(self, source: str, kind: str) -> NoReturn:
        if not self.bad:
            raise ConfigError(f"{source}: no {kind} in it.")
        first = f" The first of {self.bad} bad rows: {self.problems[0]}"
        hint = " --map FIELD=COLUMN says which column is which." if "is missing" in first and kind == "personas" else ""
        raise ConfigError(f"{source}: no usable {kind}.{first}{hint}")


def load_personas(source: str, target: Path, *, columns: Sequence[str] = (), strict: bool = False) -> Checked:
    """Check all personas of `source` and write the good ones to `target`, one JSON object a line. `columns` is --map.

    Raises ConfigError if the source cannot be read, has no good row, or (`strict`) any bad one.
    """
    checked = Checked()
    with written_aside(target) as file:
        for _, written in _check(source, "personas", Persona, checked, strict, Columns(columns)):
            file.write(written + "\n")
    return checked


def personas_of(
    source: str, checked: Checked, *, columns: Sequence[str] = (), strict: bool = False
) -> Iterator[dict[str, Any]]:
    """The good personas of any source, with all their fields. `checked` is filled on the way. Raises as `load_personas`."""
    for _, written in _check(source, "personas", Persona, checked, strict, Columns(columns)):
        yield json.loads(written)


def read_personas(path: Path) -> Iterator[SimpleNamespace]:
    """What `load_personas` wrote."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            npc = SimpleNamespace(**json.loads(line))
            yield with_own_name(npc) if has_macros(line) else npc


def load_scenarios(source: str, target: Path | None = None, *, strict: bool = False) -> tuple[list[Scenario], Checked]:
    """All good scenarios of `source`, written to `target` too if there is one. Raises ConfigError as `load_personas` does."""
    checked = Checked()
    rows = list(_check(source, "scenarios", Scenario, checked, strict))
    if target is not None:
        with written_aside(target) as file:
            file.writelines(written + "\n" for _, written in rows)
    return [scenario for scenario, _ in rows], checked


@contextmanager
def written_aside(target: Path) -> Iterator[TextIO]:
    """A file that takes its name when it is whole: a source may be the file that this run wrote before."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(target.name + ".part")
    try:
        with aside.open("w", encoding="utf-8", newline="\n") as file:
            yield file
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def _check(
    source: str, kind: str, model: type[T], checked: Checked, strict: bool, named: Columns | None = None
) -> Iterator[tuple[T, str]]:
    """Each good row, and the same as one line of JSON. `named` is for rows that may come in somebody else's format."""
    required: Required = named or tuple(name for name, info in model.model_fields.items() if info.is_required())
    seen: dict[int, str] = {}
    alone: dict[
        str, dict[tuple[str, str], str]
    ] = {}  # ids by what is said, for files of one name that hold one persona
    columns: set[str] = set()
    fingerprint = hashlib.blake2b(kind.encode(), digest_size=16)
    for found in read_rows(source, kind, required):
        row, written, problem = _parse(found, model, named)
        if row is not None and found.stem:
            said = (str(getattr(row, "name", "")), str(getattr(row, "description", "")))
            ids = alone.setdefault(found.stem, {})  # mira.json and mira.png may be two
            stem = ids.setdefault(said, f"{found.stem}-{found.where.rpartition('.')[2].lower()}" if ids else found.stem)
            if stem != found.stem:
                row, written, problem = _parse(replace(found, stem=stem), model, named)
        if row is not None:
            row_id = str(getattr(row, "id"))  # noqa: B009 -- both models have one
            key = hash(row_id)
            if key in seen:
                row, problem = None, f"the id {row_id[:80]!r} stands already at {seen[key]}"
            else:
                # The place is kept only while the list is short: it is a service, and must not grow with the data.
                seen[key] = found.where if len(seen) < 10_000 else "an earlier row"
        if row is None:
            checked.refuse(found.where, problem, strict=strict)
            continue
        for name in sorted((row.model_extra or {}).keys() - columns):
            columns.add(name)
            if close := difflib.get_close_matches(name, model.model_fields, n=1, cutoff=0.8):
                checked.notes.append(f"{found.where}: unknown field {name!r}; did you mean {close[0]!r}?")
        checked.good += 1
        fingerprint.update(b"\n" + written.encode())
        yield row, written
    checked.fingerprint = fingerprint.hexdigest()
    if named is not None:
        checked.tell(source, named)
    if not checked.good:
        checked.none_usable(source, kind)


def _parse(found: Found, model: type[T], named: Columns | None) -> tuple[T | None, str, str]:
    """The row, the same as JSON, and why there is none."""
    if found.row is None:
        return None, "", found.problem
    try:
        row = model.model_validate(found.row if named is None else as_persona(found.row, named, found.stem))
        return row, _as_json(row.model_dump()), ""
    except BadCard as exc:
        return None, "", str(exc)
    except ValidationError as exc:
        return None, "", problem_with(exc, found.row, model)
    except (TypeError, ValueError, RecursionError) as exc:  # an extra column with dates for keys, say
        return None, "", f"it holds what JSON cannot: {exc}"


def problem_with(exc: Exception, row: Any, model: type[BaseModel]) -> str:
    """The first thing that is wrong with a row, in a sentence."""
    if isinstance(exc, ValidationError):
        errors = exc.errors(include_url=False)
        # An id is made from the name: without either, it is the name that is wanted.
        return _explain(next((error for error in errors if error["loc"] != ("id",)), errors[0]), row, model)
    return str(exc)


def _plain(value: Any) -> str:
    """For a column of a type that JSON has not. The same on each reading: the fingerprint is made from it."""
    if isinstance(value, date | time | timedelta | Decimal | UUID):
        return str(value)
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return f"a {type(value).__name__}"


_as_json = json.JSONEncoder(separators=(",", ":"), default=_plain).encode


def _explain(error: Any, row: Any, model: type[BaseModel]) -> str:
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        close = difflib.get_close_matches(name, row, n=1, cutoff=0.6)
        hint = f" (is {close[0]!r} meant?)" if close else ""
        return f"field {name!r} is missing{hint}. Found: {', '.join(map(str, list(row)[:20]))}."
    message = wanted(error)
    if not name:
        return message
    info = model.model_fields.get(str(error["loc"][0]))
    meaning = f" ({info.description})" if info and info.description else ""
    found = repr(error["input"])
    return f"field {name!r}{meaning}: {message}. Found: {found if len(found) <= 80 else found[:77] + '...'}"
