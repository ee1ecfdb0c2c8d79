"""Personas to files: YAML or JSONL of ours, or version 2 character cards. What is written reads back as the same personas."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import yaml

from pipeline.errors import ConfigError
from pipeline.personas.cards import to_card
from pipeline.personas.load import written_aside
from pipeline.personas.rows import YAML_LIMIT
from pipeline.personas.schema import Persona
from pipeline.records import Row, digest


def write_personas(personas: Iterator[dict[str, Any]], target: Path) -> int:
    """Write all; returns how many. `target` is a YAML or JSONL file, a JSON file for the card of one persona, or a folder for a
    card of each. Raises ConfigError, also for what stands there already."""
    kind = target.suffix.lower()
    if target.exists() and (kind in _WRITERS or not target.is_dir()):
        raise ConfigError(f"{target}: is there already. Take another name, or remove it.")
    if kind and kind not in _WRITERS:
        raise ConfigError(
            f"{target}: cannot tell what to write. It can be *.yaml, *.jsonl, *.json for one card, or a folder of cards."
        )
    if not kind:
        return _cards(personas, target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(target) as file:
        return _WRITERS[kind](personas, file, target)


def _yaml(personas: Iterator[dict[str, Any]], file: TextIO, target: Path) -> int:
    count = size = 0
    file.write("personas:\n")
    for persona in personas:
        text = yaml.dump([_filled(persona)], Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=110)
        count += 1
        size += len(text.encode("utf-8", "replace"))
        file.write(text)
        if size > YAML_LIMIT - 100:
            raise ConfigError(f"{target}: over {YAML_LIMIT // 2**20} MiB, which is too long for YAML. Name it .jsonl.")
    return count


def _jsonl(personas: Iterator[dict[str, Any]], file: TextIO, target: Path) -> int:
    count = 0
    for persona in personas:
        count += 1
        file.write(json.dumps(_filled(persona), separators=(",", ":")) + "\n")
    return count


def _json(personas: Iterator[dict[str, Any]], file: TextIO, target: Path) -> int:
    persona = next(personas)
    if next(personas, None) is not None:
        raise ConfigError(f"{target}: a card holds one persona, and there are more. Name a folder, or a .jsonl file.")
    json.dump(to_card(persona), file, indent=2)
    return 1


def _cards(personas: Iterator[dict[str, Any]], folder: Path) -> int:
    count = 0
    folder.mkdir(parents=True, exist_ok=True)
    for persona in personas:
        count += 1
        target = folder / f"{_file_name(persona)}.json"
        if target.exists():
            raise ConfigError(f"{target}: is there already. Take another folder, or remove it.")
        with written_aside(target) as file:
            json.dump(to_card(persona), file, indent=2)
    return count


_WRITERS = {".yaml": _yaml, ".yml": _yaml, ".jsonl": _jsonl, ".ndjson": _jsonl, ".json": _json}


def _filled(persona: Row) -> dict[str, Any]:
    """Without fields of ours that say nothing: reading it back puts them there again."""
    empty: tuple[Any, ...] = ("", [], 0)
    return {name: value for name, value in persona.items() if name not in Persona.model_fields or value not in empty}


def _file_name(persona: Row) -> str:
    """The id where it can name a file on any system, which no text out of a card may leave; else what is left of it, and a hash."""
    name = str(persona["id"])
    safe = re.sub(r"[^\w.-]+", "-", name).strip("-.")[:80]
    reserved = re.fullmatch(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?", safe)
    return safe if safe == name and not reserved else f"{safe or 'npc'}-{digest(name)[:8]}"
