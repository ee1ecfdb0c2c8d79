"""Lines with labels, written before the scorers that they judge: NAME.jsonl for the scorer NAME.

    {"text": ..., "flaw": true, "note": why, or what it only looks like, "npc": id or fields, "line": ..., "player": ...,
     "before": what it said earlier, "remembers": words that a scenario wants in the reply}

Half of them, drawn by a hash of the text, were kept apart while the scorers were written: `held(row)`. Those of `checks_claims`
had to be looked at after all (its precision on them was .83); what was written for it anew, and kept apart, says so. The people are in
personas.yaml, and run.jsonl is the run that `overused` and `own_words` are about. To see how a scorer does, and where it
fails, on the half that may be looked at:

    python -m labelled NAME          (in tests/)
"""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from pipeline.curation.criteria import load_criteria
from pipeline.personas.schema import Persona
from pipeline.prompts.templates import Templates
from pipeline.records import Completion, Item, Message, Request, Score, Turn
from pipeline.scorers import OF_PERSONAS, OF_RUN, Said

HERE = Path(__file__).parent


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (HERE / f"{name}.jsonl").read_text("utf-8").split("\n") if line]


def held(row: dict[str, Any]) -> bool:
    """Whether a line was kept apart while its scorer was written."""
    if "apart" in row:
        return bool(row["apart"])
    return bool(hashlib.blake2b(row["text"].encode("utf-8", "surrogatepass")).digest()[0] & 1)


@lru_cache(maxsize=1)
def people() -> dict[str, dict[str, Any]]:
    listed = yaml.safe_load((HERE / "personas.yaml").read_text("utf-8"))["personas"]
    return {persona["id"]: persona for persona in listed}


def persona(given: str | dict[str, Any]) -> SimpleNamespace:
    fields = people()[given] if isinstance(given, str) else {**people().get(given["id"], {}), **given}
    fields = {"name": fields["id"].capitalize(), "description": "someone", **fields}
    return SimpleNamespace(**Persona(**fields).model_dump())


@lru_cache(maxsize=1)
def _template():
    return Templates().prompt("npc/default")


def turn(row: dict[str, Any]) -> Turn:
    npc, line = persona(row.get("npc", "hroth")), row.get("line", "Who are you?")
    item = Item(
        npc=npc, scenario_id="labelled", category="", player=row.get("player", "Stranger"), lines=(line,),
        template="npc/default", sample=0, remembers={1: row.get("remembers", [])},
    )  # fmt: skip
    system, *rest = _template().render(item, line)
    if "system" in row:
        system = Message(role="system", content=row["system"])
    before = []
    for number, said in enumerate(row.get("before", [])):
        before += [
            Message(role="user", content=f"And {number + 1}?"),
            Message(role="assistant", content=said),
        ]
    request = Request(messages=(system, *before, *rest))
    # What shows that a reply was cut off is its text: many servers say "length" for a stop string, or nothing at all.
    return Turn(item=item, line=line, request=request, completion=Completion(text=row["text"].strip()))


@lru_cache(maxsize=1)
def _criteria():
    return load_criteria()


def score(name: str, row: dict[str, Any]) -> Score:
    """What the scorer says of a labelled line, with the settings that ship."""
    one = turn(row)
    if name in OF_RUN:
        scorer = _panel(one.item.npc.id).of_run[name]
        for said in rows("run"):
            scorer.add(Said(said["npc"], said["line"], said["text"]))
        mine = Said(one.item.npc.id, one.line, one.text)
        scorer.add(mine)
        return scorer.score(mine)
    if name in OF_PERSONAS:
        return _panel(one.item.npc).of_reply[name](one)
    return _panel(None).of_reply[name](one)


def _panel(of: Any):
    mine = [of] if isinstance(of, SimpleNamespace) else []
    return _criteria().panel(lambda: [*(persona(i) for i in people() if not mine or i != of.id), *mine])


def flagged(name: str, row: dict[str, Any]) -> bool:
    """Whether the filter of that name drops it."""
    value = score(name, row).value
    return value is not None and not _criteria().filters[name].passes(value)
