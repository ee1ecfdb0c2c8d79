"""How often is each scorer right, and how many replies a second do all of them read on one core?

    python tests/bench/scorers.py            precision and recall on the labelled lines, with 95 % intervals (Wilson)
    python tests/bench/scorers.py speed      replies a second, all scorers together and one by one

The lines are those in tests/labelled; "kept apart" are the halves that nobody looked at while the scorers were written.
"""

import sys
import time
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


def speed(variants: int = 60) -> None:
    """The run of tests/labelled, persona by persona as in any run, each reply with another last word again and again: what was
    remembered of an equal text helps nobody."""
    said = sorted(rows("run"), key=lambda row: row["npc"])
    people = {name: persona(name) for name in {row["npc"] for row in said}}
    turns = []
    for row in said:
        one = turn(row)
        item = replace(one.item, npc=people[row["npc"]])
        for variant in range(variants):
            completion = replace(one.completion, text=f"{one.text[:-1]}, {WORDS[variant % len(WORDS)]} {variant}.")
            turns.append(replace(one, item=item, completion=completion))
    panel = load_criteria().panel(people.values)
    for scorer in panel.of_reply.values():  # lexicons are read, patterns compiled
        for one in turns[::variants]:
            scorer(one)
    seconds = {name: 0.0 for name in panel.names}
    start = time.perf_counter()
    for one in turns:
        for scorer in panel.of_reply.values():
            scorer(one)
    heard = [Said(one.item.npc.id, one.line, one.text) for one in turns]
    for late in panel.of_run.values():
        for one in heard:
            late.add(one)
    for one in heard:
        for late in panel.of_run.values():
            late.score(one)
    all_of_them = time.perf_counter() - start
    words = sum(len(one.text.split()) for one in turns) / len(turns)
    print(
        f"all {len(panel.names)} scorers: {len(turns) / all_of_them:,.0f} replies/s of {words:.0f} words, on one core"
    )
    for one in turns:
        for name, scorer in panel.of_reply.items():
            start = time.perf_counter()
            scorer(one)
            seconds[name] += time.perf_counter() - start
    for name in panel.of_reply:
        print(f"  {name:18} {seconds[name] / len(turns) * 1e6:6.1f} us a reply")


if __name__ == "__main__":
    speed() if sys.argv[1:] == ["speed"] else right()
