"""How often is each scorer right, and how many replies a second do all of them read on one core?

    python tests/bench/scorers.py            precision and recall on the labelled lines, with 95 % intervals (Wilson)
    python tests/bench/scorers.py speed      replies a second, all scorers together and one by one

The lines are those in tests/labelled; "kept apart" are the halves that nobody looked at while the scorers were written.
"""

import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from fakes import WORDS
from labelled import flagged, held, persona, rows, turn

from pipeline.criteria import load_criteria
from pipeline.scorers import Said
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


def speed(runs: int = 30) -> None:
    """The run of tests/labelled, persona by persona, again and again, with other last words each time: what was remembered of
    an equal text helps nobody."""
    said = sorted(rows("run"), key=lambda row: row["npc"])
    people = {name: persona(name) for name in {row["npc"] for row in said}}
    turns = [replace(one, item=replace(one.item, npc=people[one.item.npc.id])) for one in map(turn, said)]
    spent: Counter[str] = Counter()
    seconds = words = 0.0
    for number in range(runs):
        panel = load_criteria().panel(people.values)
        end = f", {WORDS[number // 15]} and {WORDS[number % 15]}."
        fresh = [replace(one, completion=replace(one.completion, text=one.text[:-1] + end)) for one in turns]
        heard = []
        start = time.perf_counter()
        for one in fresh:
            for scorer in panel.of_reply.values():
                scorer(one)
            heard.append(Said(one.item.npc.id, one.line, one.text))
            for late in panel.of_run.values():
                late.add(heard[-1])
        for one in heard:
            for late in panel.of_run.values():
                late.score(one)
        if not number:  # lexicons are read, patterns compiled
            continue
        seconds += time.perf_counter() - start
        words += sum(len(one.text.split()) for one in fresh)
        for one in fresh:
            for name, scorer in panel.of_reply.items():
                start = time.perf_counter()
                scorer(one)
                spent[name] += time.perf_counter() - start
    replies = (runs - 1) * len(turns)
    print(
        f"all {len(panel.names)} scorers: {replies / seconds:,.0f} replies/s of {words / replies:.0f} words, on one core"
    )
    for name, each in spent.most_common():
        print(f"  {name:18} {each / replies * 1e6:6.1f} us a reply")


if __name__ == "__main__":
    speed() if sys.argv[1:] == ["speed"] else right()
