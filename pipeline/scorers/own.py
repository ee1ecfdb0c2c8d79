"""A user's own scorer: `--scorer file.py:function`. The one place where code from outside is run, because its owner says so."""

import importlib.util
import inspect
import math
import sys
import traceback
from collections.abc import Callable
from functools import lru_cache, wraps
from pathlib import Path
from types import ModuleType
from typing import Any, SupportsFloat

from pipeline.errors import ConfigError
from pipeline.records import Score, Turn


def own_scorer(spec: str) -> Callable[..., Score]:
    """The function of `spec` ("file.py:function"). It takes a Turn, and settings by keyword; it returns a Score, or just its
    value: a number, True, False or None. Raises ConfigError if there is no such function, and when it fails on a reply."""
    file, colon, name = spec.rpartition(":")
    path = Path(file)
    if not colon or not name.isidentifier():
        raise ConfigError(f"--scorer {spec}: it has to read file.py:function.")
    if not path.is_file():
        raise ConfigError(f"--scorer {spec}: there is no file {file}.")
    if path.suffix != ".py":
        raise ConfigError(f"--scorer {spec}: {file} is no Python file (its name has to end in .py).")
    try:
        module = _module(path.absolute(), path.stat().st_mtime_ns)
    except (Exception, SystemExit) as exc:
        raise ConfigError(f"--scorer {spec}: {_where(exc, path)}") from exc
    function = getattr(module, name, None)
    if not callable(function):
        known = sorted(n for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module.__name__)
        raise ConfigError(f"--scorer {spec}: {file} has no function {name}. It has: {', '.join(known) or 'none'}.")

    @wraps(function)
    def score(turn: Turn, **settings: Any) -> Score:
        try:
            found = function(turn, **settings)
        except Exception as exc:
            raise ConfigError(
                f"--scorer {spec} failed on the reply {turn.item.item_id} of {turn.item.npc.id}: {_where(exc, path)}"
            ) from exc
        said = found if isinstance(found, Score) else Score(found)
        if said.value is None:
            return Score(None, str(said.reason), str(said.evidence))
        if isinstance(said.value, SupportsFloat) and math.isfinite(value := float(said.value)):
            return Score(value, str(said.reason), str(said.evidence))
        what = said.value if isinstance(said.value, float) else f"a {type(said.value).__name__}"
        raise ConfigError(
            f"--scorer {spec} returned {what} for the reply {turn.item.item_id} of {turn.item.npc.id}. It has to be a number, "
            "True, False, None where it does not apply, or a Score with one of these."
        )

    score.__name__ = name
    return score


@lru_cache(maxsize=64)
def _module(path: Path, changed: int) -> ModuleType:
    """Run once for a command, however many functions are taken from it."""
    loaded = importlib.util.spec_from_file_location(f"own_scorers_{path.stem}", path)
    assert loaded is not None and loaded.loader is not None
    module = importlib.util.module_from_spec(loaded)
    sys.modules[loaded.name] = module  # dataclasses look themselves up there
    loaded.loader.exec_module(module)
    return module


def _where(exc: BaseException, path: Path) -> str:
    frames = traceback.extract_tb(exc.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename) == path.absolute()]
    line = exc.lineno if isinstance(exc, SyntaxError) else lines[-1] if lines else None
    return f"{path}{f':{line}' if line else ''}: {type(exc).__name__}: {exc}"
