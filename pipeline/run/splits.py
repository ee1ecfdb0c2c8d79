"""Train and test, by hash, so that no row ever moves when others are added.

The test set answers two questions apart: how does a model do on NPCs it was trained on, in scenarios it was not
(`test_known_npcs`), and on NPCs that it never saw (`test_new_npcs`)? A tenth of the scenarios and a tenth of the personas are
held out for them.
"""

from dataclasses import dataclass
from functools import lru_cache

from pipeline.records import digest

TRAIN, KNOWN, NEW = "train", "test_known_npcs", "test_new_npcs"
SPLITS = (TRAIN, KNOWN, NEW)
HELD_OUT = 0.1
FEWEST_PERSONAS = 20  # below it, holding personas out costs more than it tells


@dataclass(frozen=True, slots=True)
class Splitter:
    """`by` is "persona", "scenario" or "both"."""

    by: str

    def split(self, persona_id: str, scenario_id: str) -> str:
        if self.by != "scenario" and _held_out("persona", persona_id):
            return NEW
        if self.by != "persona" and _held_out("scenario", scenario_id):
            return KNOWN
        return TRAIN


def splitter(by: str, personas: int) -> tuple[Splitter, str]:
    """The splitter for a set of so many personas, and a note if that is not what was asked for."""
    if by != "scenario" and personas < FEWEST_PERSONAS:
        return Splitter("scenario"), f"split by scenario only: {personas} personas are too few to hold some out"
    return Splitter(by), ""


@lru_cache(maxsize=4096)
def _held_out(kind: str, name: str) -> bool:
    return int(digest("split", kind, name)[:8], 16) < HELD_OUT * 2**32
