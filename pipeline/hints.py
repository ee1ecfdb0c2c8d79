"""What helps somebody to mend what they wrote: the name that was meant, why a file is no text, what is wrong with a value.

Sentences for ConfigError; nothing here raises it but `read_yaml`.
"""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError

_SAVE = 'Save it as UTF-8 (in Excel: as "CSV UTF-8"; in Notepad: Save as, Encoding).'
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
# What is no text, by its first bytes, and what people take it for.
_OTHER_KINDS = {
    b"PK\x03\x04": "a ZIP archive, as .xlsx and .charx are. Save a spreadsheet as CSV",
    b"\xd0\xcf\x11\xe0": "a document of an older Office. Save a spreadsheet as CSV",
    b"\x89PNG": "a PNG picture. Name it .png",
    b"PAR1": "Parquet. Name it .parquet",
    b"\x1f\x8b": "packed with gzip. Unpack it",
    b"%PDF": "a PDF document",
}


def meant(name: str, known: Iterable[str], quote: str = "") -> str:
    """ " Did you mean NAME?", or nothing where no known name is near."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f" Did you mean {quote}{near[0]}{quote}?" if near else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """What was meant by an unknown name, or all there are: a sentence to end an error with."""
    known = list(known)
    return meant(name, known) or f" There are: {', '.join(known)}."


def not_utf8(path: Path) -> str:
    """Why the text of a file cannot be read, with the line, and what to do."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number == 1 and line.startswith(_UTF16):
                return f"{path}: UTF-16, not UTF-8. {_SAVE}"
            try:
                line.decode()
            except UnicodeDecodeError as exc:
                wrong = line[exc.start : exc.start + 1]
                seen = wrong.decode("cp1252", "replace")
                as_windows = f" (is it {seen!r} in the Windows encoding?)" if seen.isalpha() else ""
                return f"{path}:{number}: not UTF-8: byte {wrong.hex()}{as_windows}. {_SAVE}"
    return f"{path}: not UTF-8. {_SAVE}"


def no_text(path: Path) -> str:
    """Why a file cannot be the text that its name promises; "" if it may well be. Only its beginning is looked at."""
    with path.open("rb") as file:
        start = file.read(4096)
    if not start.strip(b"\xef\xbb\xbf \t\r\n"):
        return f"{path}: nothing in it." if len(start) < 4096 else ""
    for signature, kind in _OTHER_KINDS.items():
        if start.startswith(signature):
            return f"{path}: no text, whatever its name says: {kind}."
    if start.startswith(_UTF16):
        return not_utf8(path)
    if b"\0" in start:
        return f"{path}: no text: there are zero bytes in it. Is it another kind of file, or UTF-16? {_SAVE}"
    return ""


def read_yaml(path: Path) -> tuple[Any, dict[str, int]]:
    """What a small YAML file says, and the lines of its keys at the top. Raises ConfigError, also for a key that stands twice."""
    import yaml

    text = ""
    try:
        text = path.read_text("utf-8-sig")
        node = yaml.compose(text, Loader=yaml.CSafeLoader)
        values = yaml.load(text, Loader=yaml.CSafeLoader)
        double = twice(node)
    except yaml.YAMLError as exc:
        raise ConfigError(no_yaml(path, exc, text)) from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(not_utf8(path)) from exc
    except (OSError, ValueError, RecursionError) as exc:
        raise ConfigError(f"{path}: cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc
    if double:
        raise ConfigError(f"{path}:{double[1]}: {double[0]!r} stands twice. Which one counts?")
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return values, {str(key.value): key.start_mark.line + 1 for key, _ in pairs}


def no_yaml(path: Path, exc: Exception, text: str) -> str:
    """What is wrong with YAML, with its line."""
    problem, mark = getattr(exc, "problem", None), getattr(exc, "problem_mark", None)
    if not problem or mark is None:
        return f"{path}: not YAML: {' '.join(str(exc).split())}"
    hint = ""
    if "\t" in text and ("\\t" in problem or "tab" in problem or "cannot start any token" in problem):
        hint = " YAML is indented with spaces."
    elif "mapping values are not allowed" in problem:
        hint = ' A text with a colon and a space in it stands in quotes: "a: b".'
    elif "another document" in problem:
        hint = " One file is one document: take the line '---' out."
    return f"{path}:{mark.line + 1}: not YAML: {problem}.{hint}"


def twice(node: Any, *, deep: bool = True) -> tuple[str, int] | None:
    """A key that stands twice in one mapping of composed YAML, which would lose the first without a word; and its line."""
    import yaml

    inside = []
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                return str(key.value), key.start_mark.line + 1
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
            inside.append(value)
    elif isinstance(node, yaml.SequenceNode):
        inside = node.value
    return next((found for value in inside if (found := twice(value))), None) if deep else None


_WANTED = {
    "list_type": "a list",
    "tuple_type": "a list",
    "string_type": "a text",
    "dict_type": "a mapping of names to values",
    "model_type": "a mapping of names to values",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a number",
    "greater_than": "over {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "under {lt:g}",
    "less_than_equal": "{le:g} at most",
    "literal_error": "{expected}",
    "too_short": "of {min_length} entry or more",
    "too_long": "of {max_length} entries at most",
    "string_too_short": "more than nothing",
    "string_too_long": "{max_length} characters long at most",
}


def wanted(error: Mapping[str, Any]) -> str:
    """What pydantic wants, in a person's words: "has to be a list"."""
    if error["type"] in _WANTED:
        return f"has to be {_WANTED[error['type']].format(**error.get('ctx', {}))}"
    return str(error["msg"]).removeprefix("Value error, ")
