"""Where in a template a mistake stands, and what was meant."""

import re
import traceback
from collections.abc import Iterable
from pathlib import Path

import jinja2

from pipeline.hints import meant, not_utf8
from pipeline.personas.schema import Persona


def place(template: jinja2.Template, exc: BaseException) -> str:
    """FILE:LINE of what was being rendered, which may be in a template that this one extends or includes."""
    for frame, line in reversed(list(traceback.walk_tb(exc.__traceback__))):
        if (rendered := frame.f_globals.get("__jinja_template__")) is not None:
            return f"{rendered.filename}:{rendered.get_corresponding_lineno(line)}"
    return str(template.filename)


def undefined(said: str) -> str:
    """Jinja's sentence about what is not there, in ours where it is a persona's field."""
    found = re.search(r"SimpleNamespace object' has no attribute '(\w+)'", said)
    if found is None:
        return said
    fields = Persona.model_fields
    return (
        f"npc has no {found[1]!r}.{meant(found[1], fields)} It has {', '.join(fields)}, and what its file has besides."
    )


def first_not_utf8(folders: Iterable[Path]) -> str:
    """Which template cannot be read, and where: the compiler names none."""
    for folder in folders:
        for path in sorted(folder.rglob("*.j2")):
            try:
                path.read_text("utf-8")
            except UnicodeDecodeError:
                return not_utf8(path)
    return "a template is not UTF-8"
