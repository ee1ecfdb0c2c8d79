"""A folder of one's own to begin with: `data/starter/`, copied.

Its files teach: they are written to be edited, and work before they are. The folder is filled at one go or not at all: the
copy is made in a hidden folder inside of it, whose contents are then moved to their places.
"""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.resources import shipped


def starter_files() -> list[Path]:
    """What a new folder holds, as paths inside of it."""
    source = shipped("data") / "starter"
    files = (path.relative_to(source) for path in source.rglob("*") if path.is_file())
    return sorted(path for path in files if not path.name.startswith("."))


def make_starter(folder: Path) -> list[Path]:
    """Write the starter files to `folder`, which is made if it is not there; says which. Raises ConfigError for a folder that
    holds anything but hidden files (`.git`), and for one that cannot be written; nothing is written then."""
    if not str(folder).isprintable():
        raise ConfigError(f"{str(folder)!r}: no name for a folder that a command could be typed with.")
    try:
        if folder.is_symlink() and not folder.exists():
            raise ConfigError(f"{folder}: a link to {os.readlink(folder)}, which is not there. Choose another folder.")
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder}: a file, and no folder. Choose another name.")
        made = not folder.exists()
        if not made and (in_the_way := sorted(p for p in folder.iterdir() if not p.name.startswith("."))):
            raise ConfigError(f"{in_the_way[0]}: is in the way: {folder} has to be empty, or new.")
        folder.mkdir(parents=True, exist_ok=True)
        return _filled(folder, made=made)
    except OSError as exc:
        raise ConfigError(f"{folder}: cannot be written: {exc.strerror or exc}. Choose another folder.") from exc


def _filled(folder: Path, *, made: bool) -> list[Path]:
    source, files, whole = shipped("data") / "starter", starter_files(), False
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".starter-") as scratch:
            for file in files:
                target = Path(scratch) / file
                target.parent.mkdir(parents=True, exist_ok=True)
                # As text, and not as bytes: a checkout on Windows may have other line ends.
                target.write_text((source / file).read_text("utf-8"), "utf-8", newline="\n")
            for one in sorted(Path(scratch).iterdir()):
                one.replace(folder / one.name)
        whole = True
    finally:
        if made and not whole:
            with contextlib.suppress(OSError):
                shutil.rmtree(folder)
    return files
