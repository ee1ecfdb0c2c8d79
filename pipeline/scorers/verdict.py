"""What most replies get: one object for all of them."""

from functools import lru_cache

from pipeline.records import Score

GOOD = Score(1.0)


@lru_cache(maxsize=64)
def not_applicable(reason: str) -> Score:
    return Score(None, reason)


SILENT = not_applicable("nothing was said")
