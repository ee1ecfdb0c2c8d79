"""How a scorer does on the half of its labelled lines that may be looked at, and where it fails."""

import sys

from labelled import flagged, held, rows, score

for name in sys.argv[1:]:
    seen = [row for row in rows(name) if not held(row)]
    found = [(row, flagged(name, row)) for row in seen]
    hits = sum(row["flaw"] and flag for row, flag in found)
    alarms = sum(not row["flaw"] and flag for row, flag in found)
    flaws = sum(row["flaw"] for row in seen)
    print(f"{name}: {len(seen)} lines, precision {hits}/{hits + alarms}, recall {hits}/{flaws}")
    for row, flag in found:
        if flag != row["flaw"]:
            kind = "missed     " if row["flaw"] else "false alarm"
            print(f"  {kind} {row['text']!r} ({row.get('note', '')}) {score(name, row)}")
