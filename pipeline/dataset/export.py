"""The dataset as files that a trainer reads, with the trainer's own configuration beside them.

    RUN/export/<format>/<config>.<split>.jsonl      sft, conversations, preference, kto; the splits that the dataset has
    RUN/export/<format>/README.md                   how to train on them; for LLaMA-Factory also dataset_info.json
    RUN/export/<format>/export.json                 what was written, and what was left out: the mark of an export

What the formats are, as the trainers' own documents and sources have it:

* trl            huggingface.co/docs/trl/dataset_formats (1.16): prompt-completion, language modeling, preference with an explicit prompt and
                 unpaired preference, each conversational (lists of {role, content}) or standard (strings)
* axolotl        docs.axolotl.ai, dataset-formats/conversation (`chat_template`, `message_field_training`), dataset-formats
                 (custom instruct), rlhf (`chat_template.default`, `user_defined`; KTO `chatml.argilla_chat`); source of 0.19
* llamafactory   data/README.md of LLaMA-Factory ("OpenAI format", preference, KTO, alpaca); source of 0.9.5
* sharegpt       the same document's sharegpt format: conversations of {from: system|human|gpt, value}

Rows that a format cannot hold, or that its trainer would read as something else, are left out and counted with the reason.
Only prompts, replies and labels are written: where a row comes from stays in the Parquet files.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.dataset.trainers import guide
from pipeline.errors import ConfigError
from pipeline.run.folder import replace_folder
from pipeline.run.splits import SPLITS

FORMATS = ("trl", "axolotl", "llamafactory", "sharegpt")
COLUMNS = {
    "sft": ("prompt", "completion"),
    "conversations": ("messages",),
    "preference": ("prompt", "chosen", "rejected"),
    "kto": ("prompt", "completion", "label"),
}
MARK = "export.json"
_MADE_BY = "pipeline export"
_BATCH = 1024
_LINE_ENDS = re.compile("[\x85\u2028\u2029]")  # legal in JSON, but line ends to str.splitlines() and JavaScript
_encode = json.JSONEncoder(ensure_ascii=False).encode

Row = dict[str, Any]
Message = dict[str, str]


class Unfit(Exception):
    """The format cannot hold this row; the message says why, without a word of the row."""


@dataclass(slots=True)
class ExportResult:
    """`rows` has a count for each file; `skipped`, where rows were left out, one for each reason."""

    folder: Path
    format: str
    rows: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, dict[str, int]] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        return asdict(self) | {"folder": str(self.folder)}


def export(run_folder: Path, format: str, out: Path | None = None) -> ExportResult:
    """Write the dataset of a run for a trainer, into `out` or RUN/export/<format>.

    Equal datasets give equal bytes. An older export is replaced when the new one is whole; any other folder is left alone
    and refused.
    """
    if format not in FORMATS:
        raise ConfigError(f"{format}: no such format. There are: {', '.join(FORMATS)}.")
    dataset = run_folder / "dataset"
    if not dataset.is_dir():
        raise ConfigError(f"{run_folder}: no dataset there. pipeline generate makes one.")
    out = out or run_folder / "export" / format
    final = out.resolve()  # a name is needed, also for `.`
    _check_ours(final, out)
    paths = {config: [dataset / config / f"{split}.parquet" for split in SPLITS] for config in COLUMNS}
    there = {config: found for config, files in paths.items() if (found := [path for path in files if path.is_file()])}
    if not there:
        raise ConfigError(f"{dataset}: no sft, preference or kto there to export.")
    result = ExportResult(out, format)
    aside = final.with_name(f".{final.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        kinds = {config: _write(aside, config, files, result) for config, files in there.items()}
        if not result.rows:
            why = {reason for reasons in result.skipped.values() for reason in reasons} or {"the tables are empty"}
            raise ConfigError(f"{dataset}: no row that {format} can hold ({'; '.join(sorted(why))}).")
        _write_settings(aside, kinds, result)
        replace_folder(final, aside)
    except OSError as exc:
        raise ConfigError(f"{out}: cannot be written: {exc.strerror or exc}. Take another folder with --out.") from exc
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return result


def _write(folder: Path, config: str, paths: list[Path], result: ExportResult) -> str:
    """Writes the splits of a config; says whether its texts are "chat" (lists of messages) or "text" (strings)."""
    kinds = {_kind(path, config) for path in paths}
    if len(kinds) > 1:
        raise ConfigError(
            f"{paths[0].parent}: lists in one split and strings in another. pipeline generate makes it anew."
        )
    (kind,) = kinds
    if kind == "text" and result.format == "sharegpt":
        raise ConfigError(
            f"{config}: its prompts are single strings, and ShareGPT has only conversations. Take --format trl, axolotl or "
            "llamafactory, or generate with messages instead of a text."
        )
    for path in paths:
        _write_file(folder / f"{config}.{path.stem}.jsonl", path, config, kind, result)
    return kind


def _write_file(path: Path, source: Path, config: str, kind: str, result: ExportResult) -> None:
    shape = _SHAPES[result.format]
    count, skipped = 0, dict[str, int]()
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in _rows(source, COLUMNS[config]):
            try:
                line = _encode(shape(config, kind, _checked(row, kind)))
            except Unfit as exc:
                skipped[str(exc)] = skipped.get(str(exc), 0) + 1
                continue
            file.write(_LINE_ENDS.sub(lambda found: f"\\u{ord(found[0]):04x}", line) + "\n")
            count += 1
    if skipped:
        result.skipped[path.name] = dict(sorted(skipped.items()))
    if count:
        result.rows[path.name] = count
    else:
        path.unlink()  # trainers fail on a file without rows


def _kind(path: Path, config: str) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        types = {field.name: field.type for field in pq.read_schema(path)}
    except (OSError, pa.ArrowException) as exc:
        raise ConfigError(f"{path}: cannot be read as Parquet. pipeline generate writes it anew.") from exc
    kinds = set()
    for name in COLUMNS[config]:
        kind = types.get(name, pa.null())
        if name == "label" and pa.types.is_boolean(kind):
            continue
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            kinds.add("text")
        elif "struct<" in str(kind) and {"role", "content"} <= {f.name for f in getattr(kind, "value_type", ())}:
            kinds.add("chat")
        else:
            kinds.add(f"{name} is {'not there' if name not in types else kind}")
    if kinds not in ({"chat"}, {"text"}):
        raise ConfigError(f"{path}: not a table of {config} ({', '.join(sorted(kinds))}). pipeline generate makes one.")
    return str(kinds.pop())


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH, columns=list(columns)):
                yield from batch.to_pylist()
    except (OSError, pa.ArrowException, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: damaged. pipeline generate writes it anew.") from exc


def _checked(row: Row, kind: str) -> Row:
    """The row with its messages reduced to role and content, and nothing missing."""
    if any(value is None for value in row.values()):
        raise Unfit("without a prompt, a reply or a label")
    if kind == "text":
        return row
    return {name: _messages(value) if isinstance(value, list) else value for name, value in row.items()}


def _messages(value: list[Any]) -> list[Message]:
    if any(m is None or m["role"] is None or m["content"] is None for m in value):
        raise Unfit("with a message that has no text")
    return [{"role": m["role"], "content": m["content"]} for m in value]


def _trl(config: str, kind: str, row: Row) -> Row:
    """Conversational or standard: what stands in the dataset is TRL's format already."""
    return row


def _axolotl(config: str, kind: str, row: Row) -> Row:
    """SFT says of each message whether to train on it: only the last, as an NPC's earlier lines stand in rows of their own; of
    a conversation, all that the NPC says.

    Pairs: axolotl looks for the reply's text in the rendered template and cuts there. White space around it, which many
    templates take away, and an empty reply would make it cut somewhere else.
    """
    if kind == "text":
        if not row["prompt"]:
            raise Unfit("with an empty prompt")  # axolotl ends the whole training
        return {name: _not_empty(value) if name in _REPLIES else value for name, value in row.items()}
    prompt = row["messages"] if config == "conversations" else row["prompt"]
    if not prompt or any(m["role"] not in _SHAREGPT for m in prompt):
        raise Unfit("with a role other than system, user and assistant")
    if config == "conversations":
        return {"messages": [{**m, "train": m["role"] == "assistant"} for m in prompt]}
    if config == "preference":
        sides = {name: _reply(row[name]) for name in ("chosen", "rejected")}
        return {"messages": prompt, **{n: m | {"content": m["content"].strip()} for n, m in sides.items()}}
    messages = [*prompt, _reply(row["completion"])]
    if config == "kto":
        return {"completion": messages, "label": row["label"]}
    last = len(messages) - 1
    return {"messages": [{**m, "train": n == last} for n, m in enumerate(messages)]}


def _llamafactory(config: str, kind: str, row: Row) -> Row:
    """Strings are alpaca's columns, lists OpenAI's messages. An empty reply would turn KTO's label round: it is told by
    which of the two replies is empty."""
    if kind == "text":
        names = {"prompt": "instruction", "completion": "output"}
        return {names.get(n, n): _not_empty(value) if n in _REPLIES else value for n, value in row.items()}
    if config == "conversations":
        *prompt, last = row["messages"] or [{"role": ""}]
        return {"messages": [*_alternating(prompt), _reply([last])]}
    prompt = _alternating(row["prompt"])
    if config == "preference":
        return {"messages": prompt, "chosen": _reply(row["chosen"]), "rejected": _reply(row["rejected"])}
    messages = {"messages": [*prompt, _reply(row["completion"])]}
    return messages | {"label": row["label"]} if config == "kto" else messages


def _sharegpt(config: str, kind: str, row: Row) -> Row:
    shaped = _llamafactory(config, kind, row)
    conversation = {"conversations": [_said(m) for m in shaped.pop("messages")]}
    return conversation | {name: _said(value) if isinstance(value, dict) else value for name, value in shaped.items()}


_SHAPES: dict[str, Callable[[str, str, Row], Row]] = {
    "trl": _trl,
    "axolotl": _axolotl,
    "llamafactory": _llamafactory,
    "sharegpt": _sharegpt,
}
_REPLIES = ("completion", "chosen", "rejected")
_SHAREGPT = {"system": "system", "user": "human", "assistant": "gpt"}


def _said(message: Message) -> Message:
    return {"from": _SHAREGPT[message["role"]], "value": message["content"]}


def _reply(messages: list[Message]) -> Message:
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        raise Unfit("whose reply is not one message of the assistant")
    _not_empty(messages[0]["content"])
    return messages[0]


def _not_empty(text: str) -> str:
    if not text.strip():
        raise Unfit("with an empty reply")
    return text


def _alternating(prompt: list[Message]) -> list[Message]:
    """A system message or none, then user and assistant in turn, the user first and last."""
    turns = prompt[1:] if prompt and prompt[0]["role"] == "system" else prompt
    if len(turns) % 2 == 0 or any(m["role"] != ("user", "assistant")[n % 2] for n, m in enumerate(turns)):
        raise Unfit("whose prompt does not go from user to assistant and back, beginning and ending with the user")
    return prompt


def _write_settings(folder: Path, kinds: dict[str, str], result: ExportResult) -> None:
    texts = guide(result.format, kinds, result.rows, result.skipped)
    mark = {"made_by": _MADE_BY, "format": result.format, "files": sorted([*texts, *result.rows, MARK])}
    texts[MARK] = json.dumps(mark | {"rows": result.rows, "skipped": result.skipped}, indent=2) + "\n"
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8", newline="\n")


def _check_ours(folder: Path, shown: Path) -> None:
    """Replacing deletes: only what an export wrote, so that nobody loses a model that was trained into its folder."""
    if not folder.exists():
        return
    there = set(os.listdir(folder)) if folder.is_dir() else {folder.name}
    if not there and folder.is_dir():
        return
    try:
        mark = json.loads((folder / MARK).read_text("utf-8"))
        ours = set(mark["files"]) if mark["made_by"] == _MADE_BY else None
    except (OSError, ValueError, LookupError, TypeError):
        ours = None
    if ours is None:
        raise ConfigError(f"{shown}: holds other things than an export. Take a new or an empty folder for --out.")
    if strange := sorted(name for name in there - ours if not name.startswith(".")):
        raise ConfigError(
            f"{shown}: also holds {strange[0]!r}, which the export did not write and would delete. Move it, or take "
            "another --out."
        )
