"""Where the prompts and data that ship with the project are: inside the installed wheel, or beside it in a checkout."""

from pathlib import Path

_PACKAGE = Path(__file__).parent


def shipped(name: str) -> Path:
    """The folder `prompts` or `data`. Only a wheel has the copy inside; an editable install does not."""
    inside = _PACKAGE / f"_{name}"
    return inside if inside.is_dir() else _PACKAGE.parent / name


def data_file(name: str) -> Path:
    """A file of `data/`, such as "lexicons/slop.txt": the author's own in the working directory, or else what ships."""
    own = Path("data") / name
    return own.absolute() if own.is_file() else shipped("data") / name
