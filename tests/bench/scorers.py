"""How often is each scorer right, and how many replies a second do all of them read on one core?

    python tests/bench/scorers.py            precision and recall on the labelled lines, with 95 % intervals (Wilson)
    python tests/bench/scorers.py speed      replies a second, all scorers together and one by one

The lines are those in tests/labelled; "kept apart" are the halves that nobody looked at while the scorers were written.
"""

import gc
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from labelled import flagged, held, rows

from pipeline.curation.criteria import load_criteria
from pipeline.personas.load import load_personas, load_scenarios, read_personas
from pipeline.prompts.templates import Templates
from pipeline.records import Completion, Request, Turn
from pipeline.resources import shipped
from pipeline.scorers import Said
from pipeline.scorers.meaning import stems
from pipeline.scorers.words import words
from pipeline.stats import wilson


def right() -> None:
    print(
        "| scorer | lines kept apart | precision | recall | precision, seen | recall, seen |\n|---|---|---|---|---|---|"
    )
    for name in load_criteria().filters:
        cells = []
        lines = rows(name)
        for apart in (True, False):
            found = [(row["flaw"], flagged(name, row)) for row in lines if held(row) is apart]
            hits = sum(flaw and flag for flaw, flag in found)
            for whole in (sum(flag for _, flag in found), sum(flaw for flaw, _ in found)):
                low, high = wilson(hits / whole, whole) if whole else (0.0, 1.0)
                cells.append(f"{hits / whole:.2f} ({low:.2f} to {high:.2f})" if whole else "-")
        print(f"| `{name}` | {sum(map(held, lines))} | " + " | ".join(cells) + " |")


def speed() -> None:
    """As in a run of the shipped personas and scenarios, with good lines for replies; CPU seconds of one core.

    Every persona has fields of its own and every reply other words, so that nothing remembered of an equal text helps.
    """
    for replies, groups in ((9, 16), (60, 2)):
        first = _turns(4, 1, "dawn")
        start = time.process_time()
        _heard(first)  # lexicons are read, patterns compiled
        once = time.process_time() - start
        for end, at_once in (("noon", 1), ("morning", _AT_ONCE)):
            turns = _turns(replies, groups, end)
            gc.freeze()  # a run's replies pass by: they are not all there to be looked through
            start = time.process_time()
            _heard(turns, at_once)
            seconds = time.process_time() - start
            words = sum(len(one.text.split()) for one in turns) / len(turns)
            print(
                f"{len(turns):,} replies of {words:.0f} words, {replies} of each persona, read {at_once} at once: "
                f"{len(turns) / seconds:,.0f} replies/s, {seconds / len(turns) * 1e6:.0f} us each "
                f"(all {len(load_criteria().filters)} scorers; {once:.1f} s for the first {len(first)})"
            )
        for name, each in _one_by_one(_turns(replies, groups, "evening")).most_common():
            print(f"  {name:18} {each / len(turns) * 1e6:6.1f} us a reply")


def _heard(turns: list[Turn], at_once: int = 1) -> None:
    people = {id(one.item.npc): one.item.npc for one in turns}
    panel = load_criteria().panel(people.values)
    heard = []
    for at in range(0, len(turns), at_once):
        panel.read(turns[at : at + at_once])
        for one in turns[at : at + at_once]:
            heard.append(Said(one.item.npc.id, one.line, one.text))
            for late in panel.of_run.values():
                late.add(heard[-1])
    for said in heard:
        for late in panel.of_run.values():
            late.score(said)


def _turns(replies: int, groups: int, end: str = "morning") -> list[Turn]:
    """So many replies of each persona, in `groups` groups of all that ship: persona by persona, as in a run."""
    texts = [row["text"] for name in load_criteria().filters for row in rows(name) if not row["flaw"]]
    texts = [text for text in texts if len(text.split()) >= _LEAST]
    scenarios = load_scenarios(str(shipped("data") / "scenarios"))[0]
    template = Templates().prompt("npc/default")
    with tempfile.TemporaryDirectory() as folder:
        load_personas(str(shipped("data") / "personas"), Path(folder) / "personas.jsonl")
        people = list(read_personas(Path(folder) / "personas.jsonl"))
    turns = []
    for number, persona in enumerate(people * groups):
        fields = {
            name: [f"{line} {number}" for line in value] if isinstance(value, list) else f"{value} {number} {end}"
            for name, value in vars(persona).items()
            if value and name in _TOLD
        }
        npc = SimpleNamespace(**{**vars(persona), **fields})
        fitting = [scenario for scenario in scenarios if scenario.fits(persona)]
        for sample in range(replies):
            item = fitting[sample % len(fitting)].item(npc, template="npc/default", sample=sample)
            text = _mixed(texts[len(turns) % len(texts)], persona.examples, number * replies + sample)
            request = Request(messages=template.render(item, item.lines[0]))
            turns.append(Turn(item=item, line=item.lines[0], request=request, completion=Completion(text=text)))
    return turns


def _mixed(line: str, own: Sequence[str], number: int) -> str:
    """A line of its own for each number: every third word is out of the persona's own lines."""
    theirs = " ".join(own).split()
    said = line.split()
    return " ".join(theirs[(at + number * 7) % len(theirs)] if at % 3 == 2 else word for at, word in enumerate(said))


_LEAST = 10  # words
_TOLD = ("id", "description", "personality", "speech", "home", "wants", "hides", "greeting", "knows", "examples")


def _one_by_one(turns: list[Turn]) -> Counter[str]:
    """CPU seconds of each scorer. They share what is made of a reply: it is there before, and told apart."""
    spent: Counter[str] = Counter()
    people = {id(one.item.npc): one.item.npc for one in turns}
    panel = load_criteria().panel(people.values)
    heard = [Said(one.item.npc.id, one.line, one.text) for one in turns]

    def clock(name: str, ask: Callable[[Any], object], those: Sequence[object]) -> None:
        start = time.process_time()
        for one in those:
            ask(one)
        spent[name] += time.process_time() - start

    for at in range(0, len(turns), _AT_ONCE):
        part = slice(at, at + _AT_ONCE)
        clock("(what they share)", lambda one: (words(one.text), stems(one.text)), turns[part])
        for name, scorer in panel.of_reply.items():
            clock(name, scorer, turns[part])
        for name, late in panel.of_run.items():
            clock(f"{name}, add", late.add, heard[part])
    for name, late in panel.of_run.items():
        clock(f"{name}, score", late.score, heard)
    return spent


_AT_ONCE = 32  # replies whose words are remembered


if __name__ == "__main__":
    speed() if sys.argv[1:] == ["speed"] else right()
