"""Arms from somebody else's scores.

* a table            JSONL, JSON, CSV, Parquet, a folder of them or a Hugging Face dataset: --item, --cluster and --score name
                     its columns. Rows with the same item are repeats.
* inspect_ai's log   `.eval` (a zip of JSON, deflate or zstd) or `.json`: the sample's id is the item, epochs are repeats; letters
                     are C 1, P 0.5, I 0; a score that is a mapping becomes SCORER.KEY; --cluster names a key of the metadata.
* lm-eval's samples  `samples_*.jsonl` of --log_samples: the doc_id is the item; METRIC,FILTER where there are several filters;
                     --cluster names a field of the document.

An empty cell, a null, a NaN and a "no answer" are no score, and counted. Anything else that is no number is an error.
"""

import json
import math
import struct
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pipeline.comparison.arm import Arm, Columns, Item
from pipeline.errors import ConfigError
from pipeline.personas.rows import read_rows
from pipeline.records import Row
from pipeline.run.folder import RunFolder

_TEXTS = ("reply", "output", "response", "completion", "answer", "text")
_QUESTIONS = ("line", "input", "instruction", "question", "prompt")
_LETTERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": None}
_LESS = frozenset({"ter", "brier_score", "perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "bpb"})
_LM_EVAL_OWN = frozenset({"doc_id", "target"})  # numbers, and no metrics
_ZSTD = 93  # of zip's compression methods; Python reads it from 3.14 on


def read_arm(source: str, columns: Columns) -> Arm:
    """What `source` is, is found out. Raises ConfigError, with file and line, for what cannot be understood."""
    path = Path(source)
    if path.is_dir() and (path / "run.json").exists():
        from pipeline.comparison.runfolders import read_run

        if columns.item or columns.cluster:
            raise ConfigError(f"{source}: a run knows its items and personas: --item and --cluster have no place here.")
        arm = read_run(RunFolder(path))
    elif path.suffix == ".eval":
        arm = _inspect(source, _samples_of_zip(path), columns)
    elif path.suffix == ".json" and (samples := _samples_of_json(path)) is not None:
        arm = _inspect(source, samples, columns)
    elif not path.is_file() and columns.item is None:
        raise ConfigError(
            f"{source}: no run there (no run.json), and no file with scores. Of a folder of tables, or one on the hub, "
            "--item COL and --score COL say what is what."
        )
    else:
        arm = _rows(source, columns)
    if missing := [name for name in columns.scores if name not in arm.scores]:
        there = ", ".join(arm.scores) or "none"
        raise ConfigError(f"{source}: no score {missing[0]!r} in it. There are: {there}.")
    if not arm.scores:
        raise ConfigError(f"{source}: no scores in it.")
    if columns.scores:
        arm.scores = {name: arm.scores[name] for name in dict.fromkeys(columns.scores)}
    return arm


class _Gathered:
    """An arm while its rows come in."""

    def __init__(self, source: str, columns: Columns) -> None:
        self.arm = Arm(source, clusters=f"clusters ({columns.cluster})" if columns.cluster else "")
        self._scores: dict[str, tuple[list[int], list[float]]] = {}

    def reply(
        self, item: Item, asked: str, text: str, scores: Iterable[tuple[str, float | None]], state: str = "no score"
    ) -> None:
        """`state` is what becomes of it without a score."""
        row = self.arm.add(item, asked, text)
        for name, value in scores:
            replies, values = self._scores.setdefault(name, ([], []))
            if value is None:
                self.arm.without[name] += 1
            else:
                replies.append(row)
                values.append(value)
                state = "scored"
        self.arm.states[state] += 1

    def whole(self) -> Arm:
        self.arm.scores = dict(self._scores)
        self.arm.less = _less_of_names(self._scores)
        return self.arm


def _less_of_names(names: Iterable[str]) -> frozenset[str]:
    from pipeline.comparison.runfolders import less_is_better

    ours = less_is_better({})
    return frozenset(name for name in names if name in ours or name.split(",")[0] in _LESS)


def _rows(source: str, columns: Columns) -> Arm:
    required = tuple(name for name in (columns.item, columns.cluster, *columns.scores) if name)
    gathered = _Gathered(source, columns)
    first = True
    samples = False
    filters: set[str] = set()
    for found in read_rows(source, "scores", required):
        if found.row is None:
            raise ConfigError(f"{found.where}: {found.problem}")
        if first:
            samples = (
                columns.item is None and "doc_id" in found.row and bool({"resps", "filtered_resps"} & set(found.row))
            )
            first = False
        if samples:
            filters.add(str(found.row.get("filter", "")))
            _lm_eval(gathered, found.where, found.row, columns)
        else:
            _table_row(gathered, found.where, found.row, columns)
    if first:
        raise ConfigError(f"{source}: nothing in it.")
    arm = gathered.whole()
    return _with_one_filter(arm) if samples and len(filters) == 1 else arm


def _table_row(gathered: _Gathered, where: str, row: Row, columns: Columns) -> None:
    if columns.item is None or not columns.scores:
        there = ", ".join(map(str, list(row)[:20]))
        raise ConfigError(
            f"{where}: which columns? --item COL --score COL, and --cluster COL for the persona. Found: {there}."
        )
    if columns.item not in row:
        raise ConfigError(
            f"{where}: no {columns.item!r}, which --item names. Found: {', '.join(map(str, list(row)[:20]))}."
        )
    item = _written(row[columns.item])
    if columns.cluster is not None and columns.cluster not in row:
        raise ConfigError(f"{where}: no {columns.cluster!r}, which --cluster names.")
    cluster = _written(row[columns.cluster]) if columns.cluster is not None else item
    gathered.reply(
        (cluster, item),
        _first(row, _QUESTIONS),
        _first(row, _TEXTS),
        [(name, _number(row.get(name), f"{where}: {name}")) for name in columns.scores if name in row]
        + [(name, None) for name in columns.scores if name not in row],
    )


def _lm_eval(gathered: _Gathered, where: str, row: Row, columns: Columns) -> None:
    """One line of `samples_TASK_DATE.jsonl`: the values of its metrics stand beside the rest, "metrics" names them."""
    if "doc_id" not in row:
        raise ConfigError(f"{where}: no 'doc_id', as the lines before have.")
    named = row.get("metrics")
    metrics = (
        [str(name) for name in named]
        if isinstance(named, list)
        else [name for name, value in row.items() if isinstance(value, int | float) and name not in _LM_EVAL_OWN]
    )
    document = row.get("doc") if isinstance(row.get("doc"), dict) else {}
    item = _written(row["doc_id"])
    cluster = item
    if columns.cluster is not None:
        cluster = _looked_up(document, columns.cluster, where, "its document")
    name_of = (lambda metric: f"{metric},{row['filter']}") if row.get("filter") else str
    scores = [
        # A metric of the whole corpus, such as a perplexity, keeps its parts here: nothing that an item has.
        (name_of(metric), _number(row.get(metric), f"{where}: {metric}"))
        for metric in metrics
        if not isinstance(row.get(metric), list | dict)
    ]
    asked = _written(row.get("doc_hash") or json.dumps(document, sort_keys=True, default=str))
    gathered.reply((cluster, item), asked, _flat(row.get("filtered_resps", row.get("resps"))), scores)


def _with_one_filter(arm: Arm) -> Arm:
    arm.scores = {name.split(",")[0]: column for name, column in arm.scores.items()}
    return arm


def _inspect(source: str, samples: Iterable[tuple[str, dict[str, Any]]], columns: Columns) -> Arm:
    gathered = _Gathered(source, columns)
    for where, sample in samples:
        item = _written(sample.get("id"))
        cluster = item
        if columns.cluster is not None:
            cluster = _looked_up(sample.get("metadata") or {}, columns.cluster, where, "the sample's metadata")
        output, scores = (value if isinstance(value := sample.get(key), dict) else {} for key in ("output", "scores"))
        gathered.reply(
            (cluster, item),
            _written(sample.get("input")),
            _flat(output.get("completion")),
            _values(scores, where),
            "error" if sample.get("error") else "no score",
        )
    return gathered.whole()


def _values(scores: dict[str, Any], where: str) -> Iterator[tuple[str, float | None]]:
    for name, score in scores.items():
        value = score.get("value") if isinstance(score, dict) else score
        if isinstance(value, dict):
            for key, part in value.items():
                yield f"{name}.{key}", _number(_LETTERS.get(part, part) if isinstance(part, str) else part, where)
        elif not isinstance(value, list):
            yield name, _number(_LETTERS.get(value, value) if isinstance(value, str) else value, f"{where}: {name}")


def _samples_of_json(path: Path) -> Iterator[tuple[str, dict[str, Any]]] | None:
    """The samples of an inspect_ai log; None for other JSON."""
    try:
        log = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None  # the reader of tables says what is wrong with it
    if not isinstance(log, dict) or "eval" not in log:
        return None
    return ((f"{path} sample {n}", sample) for n, sample in enumerate(log.get("samples") or [], 1))


def _samples_of_zip(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.filename.startswith("samples/") and entry.filename.endswith(".json"):
                    sample = json.loads(_unpacked(archive, entry))
                    if not isinstance(sample, dict):
                        raise ValueError(f"{entry.filename} holds no sample")
                    yield f"{path} {entry.filename}", sample
    except FileNotFoundError as exc:
        raise ConfigError(f"{path}: no such file.") from exc
    except (OSError, ValueError, RecursionError, zipfile.BadZipFile, NotImplementedError, struct.error) as exc:
        raise ConfigError(f"{path}: no inspect_ai log that can be read: {' '.join(str(exc).split())[:200]}") from exc


def _unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    if entry.compress_type != _ZSTD:
        return archive.read(entry)
    import pyarrow as pa

    file = archive.fp
    assert file is not None
    file.seek(entry.header_offset)
    name, extra = struct.unpack("<26xHH", file.read(30))
    file.seek(name + extra, 1)
    packed = pa.BufferReader(file.read(entry.compress_size))
    return bytes(pa.CompressedInputStream(packed, "zstd").read(entry.file_size + 1))


def _looked_up(fields: Any, name: str, where: str, what: str) -> str:
    if not isinstance(fields, dict) or fields.get(name) is None:
        there = ", ".join(map(str, list(fields)[:20])) if isinstance(fields, dict) and fields else "nothing"
        raise ConfigError(f"{where}: no {name!r} in {what}, which --cluster names. Found: {there}.")
    return _written(fields[name])


def _number(value: Any, where: str) -> float | None:
    """None for no score. Raises ConfigError for what is neither."""
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.inf
    if math.isinf(number):
        raise ConfigError(f"{where}: {str(value)[:60]!r} is no number.")
    return None if math.isnan(number) else number


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _first(row: Row, names: tuple[str, ...]) -> str:
    return next((value for name in names if isinstance(value := row.get(name), str)), "")


def _flat(value: Any) -> str:
    """What lm-eval keeps in lists of lists."""
    while isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, str) else ""
