"""Rows from wherever people keep them: YAML, JSON, JSONL, CSV, Parquet, a Hugging Face dataset; and character cards.

Each row comes with the place it stands at (`file:line` where there are lines), for the error message. Files that can
be long are read row by row, so that memory stays flat. What is in a file is data and may be hostile: YAML is loaded
safely, without aliases (which can blow up) and only to a size; datasets are loaded without running their code.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.hints import no_text, no_yaml, not_utf8, twice
from pipeline.personas.cardfile import ENDINGS, NoCard, card_in
from pipeline.personas.cards import BadCard
from pipeline.personas.columns import Columns
from pipeline.personas.csvfile import delimiter_of, records
from pipeline.personas.shapes import is_known
from pipeline.records import Row

YAML_LIMIT = 8 * 2**20
JSON_LIMIT = 256 * 2**20
LINE_LIMIT = 16 * 2**20
DEPTH_LIMIT = 100  # the YAML library takes time that grows with the square of it
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_KINDS = "*.yaml, *.yml, *.json, *.jsonl, *.csv, *.tsv, *.parquet"
_CARDS = ", *.png, *.charx"

Required = tuple[str, ...] | Columns  # names without which a table is refused as a whole, or who knows them


@dataclass(frozen=True, slots=True)
class Found:
    """A row, or `problem`: why there is none at this place. `stem`: the name of the file, where the row is all of it."""

    where: str
    row: Row | None = None
    problem: str = ""
    stem: str = ""


def read_rows(source: str, kind: str, required: Required) -> Iterator[Found]:
    """All rows of a file, of a folder's files in the order of their names, or of a Hugging Face dataset.

    `kind` ("personas") is what a YAML or JSON file may call its list; a persona may also have a file of its own. `required`
    are the columns without which a table is refused as a whole. Raises ConfigError for what cannot be read; a card that
    cannot is one row with a problem.
    """
    path = Path(source).expanduser()
    if path.is_file():
        yield from _file(path, kind, required)
    elif path.is_dir():
        endings = {*_READERS, *(ENDINGS if kind == "personas" else ())}
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in endings and p.is_file() and _meant(p))
        saved_by_datasets = (path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists()
        if files and not saved_by_datasets:
            stems = Counter(file.stem for file in files)
            for file in files:
                try:
                    for found in _file(file, kind, required):
                        # A character's picture beside its file is no card that went wrong.
                        if found.problem != str(NoCard()) or stems[file.stem] == 1:
                            yield found
                except ConfigError as exc:
                    if len(files) == 1 or kind != "personas" or not _meant_as_one(file):
                        raise
                    yield Found(str(file), problem=str(exc).removeprefix(str(file)).lstrip(": "))
        elif not any(_meant(inside) and inside.is_file() for inside in path.rglob("*")):
            raise ConfigError(f"{source}: an empty folder. There can be {_kinds(kind)} in it.")
        else:
            yield from _dataset(str(path.resolve()), source, required)
    elif _HUB_ID.fullmatch(source) and not path.parent.exists() and path.suffix.lower() not in (*_READERS, *ENDINGS):
        try:
            yield from _dataset(source, source, required)
        except ConfigError as exc:
            said = str(exc).removeprefix(f"{source}: ")
            raise ConfigError(f"{source}: no such file or folder here; taken for a dataset on the hub: {said}") from exc
    else:
        raise ConfigError(
            f"{source}: no such file or folder. It can be {_kinds(kind)}, a folder of them, or a hub id OWNER/NAME."
        )


def _file(path: Path, kind: str, required: Required) -> Iterator[Found]:
    reader = _READERS.get(path.suffix.lower())
    if kind == "personas" and path.suffix.lower() in ENDINGS:
        reader = _card
    if reader is None:
        raise ConfigError(
            f"{path}: cannot tell what {path.suffix or 'a file without an ending'!r} is. It can be {_kinds(kind)}."
        )
    try:
        if reader not in (_card, _parquet) and (problem := no_text(path)):
            raise ConfigError(problem)
        yield from reader(path, kind, required)
    except UnicodeDecodeError as exc:
        raise ConfigError(not_utf8(path)) from exc
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read: {exc.strerror or exc}") from exc


def _kinds(kind: str) -> str:
    return _KINDS + (_CARDS if kind == "personas" else "")


def _meant(path: Path) -> bool:
    """False for what only lies beside the data: hidden files (`._a.csv` of macOS), the index of older datasets."""
    return not path.name.startswith(".") and path.name != "dataset_infos.json"


def _card(path: Path, kind: str, required: Required) -> Iterator[Found]:
    try:
        yield _alone(path, card_in(path))
    except BadCard as exc:
        yield Found(str(path), problem=str(exc))


def _alone(path: Path, row: Any) -> Found:
    """The persona that has a file of its own."""
    return replace(_mapping(str(path), row, {}), stem=path.stem)


def _meant_as_one(path: Path) -> bool:
    """Whether a file that cannot be read would have been a single character: then the others of its folder go on."""
    with path.open("rb") as file:
        text = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    if path.suffix.lower() == ".json":
        return text.startswith(b"{") and b'"personas"' not in text
    return path.suffix.lower() in (".yaml", ".yml") and not re.search(rb"^(?:personas:|defaults:|- |\[)", text, re.M)


def _is_one(kind: str, row: Any) -> bool:
    """Whether a mapping at the top of a file is a persona, and no list of them."""
    if kind != "personas" or not isinstance(row, dict) or kind in row:
        return False
    return is_known(row) or "name" in row


def _yaml(path: Path, kind: str, required: Required) -> Iterator[Found]:
    import yaml

    if path.stat().st_size > YAML_LIMIT:
        raise ConfigError(
            f"{path}: over {YAML_LIMIT // 2**20} MiB of YAML. Long lists belong in JSONL, CSV or Parquet."
        )
    text = path.read_text("utf-8-sig")
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEPTH_LIMIT:
                raise ConfigError(
                    f"{path}:{_line(event.start_mark)}: nested over {DEPTH_LIMIT} levels deep. A list of {kind} is flat."
                )
            if isinstance(event, yaml.AliasEvent):
                raise ConfigError(f"{path}:{_line(event.start_mark)}: an alias (*name). Write the value out.")
        loader = yaml.CSafeLoader(text)
        node = loader.get_single_node()
        if isinstance(node, yaml.MappingNode):
            parts = {key.value: value for key, value in node.value if isinstance(key, yaml.ScalarNode)}
            if kind == "personas" and kind not in parts:
                row = loader.construct_object(node, deep=True)
                if _is_one(kind, row):
                    if double := twice(node):
                        raise ConfigError(f"{path}:{double[1]}: {double[0]!r} stands twice. Which one counts?")
                    yield _alone(path, row)
                    return
            if unknown := [key for key, _ in node.value if key.value not in ("defaults", kind)]:
                raise ConfigError(
                    f"{path}:{_line(unknown[0].start_mark)}: unknown key {unknown[0].value!r}. "
                    f"At the top there can be: {kind}, defaults."
                )
            if double := twice(node, deep=False) or twice(parts.get("defaults")):
                raise ConfigError(f"{path}:{double[1]}: {double[0]!r} stands twice. Which one counts?")
            node = parts.get(kind)
            defaults = loader.construct_object(parts["defaults"], deep=True) if "defaults" in parts else {}
            if not isinstance(defaults, dict):
                raise ConfigError(f"{path}: 'defaults' has to be a mapping of fields to values.")
        else:
            defaults = {}
        if not isinstance(node, yaml.SequenceNode):
            raise ConfigError(f"{path}: no list of {kind}. It begins with '{kind}:' or is a list itself.")
        for entry in node.value:
            where = f"{path}:{_line(entry.start_mark)}"
            if double := twice(entry):
                yield Found(where, problem=f"{double[0]!r} stands in it twice, again in line {double[1]}")
                continue
            row = loader.construct_object(entry, deep=True)
            yield _mapping(where, row, defaults)
    except (yaml.YAMLError, ValueError) as exc:
        raise ConfigError(no_yaml(path, exc, text)) from exc


def _line(mark: Any) -> int:
    return int(mark.line) + 1


def _json(path: Path, kind: str, required: Required) -> Iterator[Found]:
    if path.stat().st_size > JSON_LIMIT:
        raise ConfigError(f"{path}: over {JSON_LIMIT // 2**20} MiB of JSON. Long lists belong in JSONL.")
    try:
        data = json.loads(path.read_text("utf-8-sig"))
    except json.JSONDecodeError as exc:
        hint = " One object a line is JSONL: name it .jsonl." if exc.msg == "Extra data" else ""
        raise ConfigError(f"{path}:{exc.lineno}: not JSON: {exc.msg} at column {exc.colno}.{hint}") from exc
    except UnicodeDecodeError:
        raise
    except ValueError as exc:  # a number of thousands of digits
        raise ConfigError(f"{path}: not JSON: {exc}") from exc
    except RecursionError as exc:
        raise ConfigError(f"{path}: nested too deeply to be a list of {kind}.") from exc
    if _is_one(kind, data):
        yield _alone(path, data)
        return
    defaults = data.get("defaults", {}) if isinstance(data, dict) else {}
    rows = data.get(kind) if isinstance(data, dict) else data
    if rows is None and kind == "personas":
        rows = _only_list(data)
    if not isinstance(rows, list) or not isinstance(defaults, dict):
        raise ConfigError(f"{path}: no list of {kind}. It is a list, or an object with '{kind}' (and 'defaults').")
    for number, row in enumerate(rows, 1):
        yield _mapping(f"{path} entry {number}", row, defaults)


def _only_list(data: dict[str, Any]) -> list[Any] | None:
    """The rows of an object that has one list of them under any name, or has them by their ids."""
    lists = [value for value in data.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
    if len(lists) == 1:
        return list(lists[0])
    if data and all(isinstance(value, dict) for value in data.values()):
        return [{"id": name, **row} for name, row in data.items() if name != "defaults"]
    return None


def _jsonl(path: Path, kind: str, required: Required) -> Iterator[Found]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LINE_LIMIT + 1):
            number += 1
            where = f"{path}:{number}"
            if len(line) > LINE_LIMIT:
                raise ConfigError(f"{where}: a line of over {LINE_LIMIT // 2**20} MiB. JSONL is one object a line.")
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            line = line.strip()
            if not line:
                continue
            if number == 1 and line.startswith(b"["):
                raise ConfigError(
                    f"{where}: a list. JSONL is one object a line; a list of them is JSON: name it .json."
                )
            try:
                yield _mapping(where, json.loads(line), {})
            except UnicodeDecodeError:
                yield Found(where, problem="not UTF-8")
            except json.JSONDecodeError as exc:
                yield Found(where, problem=f"not JSON: {exc.msg} at character {exc.pos + 1}")
            except (ValueError, RecursionError) as exc:
                yield Found(where, problem=f"not JSON: {exc}")


def _csv(path: Path, kind: str, required: Required) -> Iterator[Found]:
    csv.field_size_limit(LINE_LIMIT)
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline(LINE_LIMIT)
        file.seek(0)
        table = records(file, delimiter="\t" if path.suffix.lower() == ".tsv" else delimiter_of(first))
        _, names, problem = next(table, (1, [], ""))
        if problem:
            raise ConfigError(f"{path}:1: not CSV: {problem}. The first line names the columns.")
        header = [name.strip() for name in names]
        _columns(f"{path}:1", header, required)
        if double := sorted({name for name in header if name and header.count(name) > 1}):
            raise ConfigError(f"{path}:1: two columns are named {double[0]!r}. Which one counts?")
        for line, cells, problem in table:
            where = f"{path}:{line}"
            if problem:
                yield Found(where, problem=f"not CSV: {problem}")
            elif any(cells[len(header) :]):
                yield Found(where, problem=f"{len(cells)} cells where the header has {len(header)} columns")
            elif cells:
                row = dict(zip(header, cells, strict=False))
                yield _mapping(where, {name: cell for name, cell in row.items() if name and cell}, {})


def _parquet(path: Path, kind: str, required: Required) -> Iterator[Found]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            _columns(str(path), file.schema_arrow.names, required)
            number = 0
            for batch in file.iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    number += 1
                    yield _mapping(f"{path} row {number}", row, {})
    except pa.ArrowException as exc:
        raise ConfigError(f"{path}: not a whole Parquet file: {' '.join(str(exc).split())[:200]}") from exc


def _dataset(address: str, source: str, required: Required) -> Iterator[Found]:
    import datasets

    datasets.disable_progress_bars()
    folder = Path(address)
    try:
        if (folder / "dataset_info.json").exists() or (folder / "dataset_dict.json").exists():
            loaded: Any = datasets.load_from_disk(address)
        else:
            loaded = datasets.load_dataset(address, streaming=True)
    except Exception as exc:  # the library raises whatever its parts raise
        raise ConfigError(f"{source}: cannot be loaded as a dataset: {_reason(exc)}. It can be {_KINDS}.") from exc
    splits = dict(loaded) if isinstance(loaded, dict) else {str(loaded.split or "rows"): loaded}
    for name, split in splits.items():
        if split.column_names is not None:
            _columns(f"{source} ({name})", split.column_names, required)
        number = 0
        try:
            for number, row in enumerate(split, 1):
                yield _mapping(f"{source} ({name}) row {number}", row, {})
        except Exception as exc:  # a file of it that cannot be read is found out only here
            raise ConfigError(f"{source} ({name}): cannot be read after row {number}: {_reason(exc)}.") from exc


def _reason(exc: Exception) -> str:
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0][:300]


def _columns(where: str, found: Any, required: Required) -> None:
    have = ", ".join(str(name) for name in list(found)[:20]) or "no columns"
    if isinstance(required, Columns):
        if (lost := required.missing(found)) and not is_known(dict.fromkeys(found)):
            raise ConfigError(
                f"{where}: no column for {lost[0]!r}. Found: {have}. Say which: --map name=COLUMN,description=COLUMN."
            )
    elif missing := [name for name in required if name not in found]:
        raise ConfigError(f"{where}: no column {missing[0]!r}. Found: {have}. Needed: {', '.join(required)}.")


def _mapping(where: str, row: Any, defaults: dict[str, Any]) -> Found:
    if not isinstance(row, dict):
        return Found(where, problem=f"{_short(row)} where a mapping of fields to values is expected")
    # An empty cell, a null and a NaN (what pandas makes of an empty cell) all say that there is nothing.
    return Found(where, {**defaults, **{str(k): v for k, v in row.items() if v is not None and v == v}})


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


_READERS = {
    ".yaml": _yaml,
    ".yml": _yaml,
    ".json": _json,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}
