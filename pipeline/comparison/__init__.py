"""`pipeline compare A B`: is B different from A, in what, by how much, and what could not have been seen?

arm.py          one side: who was asked what, what came, and its scores
runfolders.py   ... from a run folder
files.py        ... from somebody else's scores: tables, inspect_ai's logs, lm-eval's samples
differences.py  both sides, item by item
explore.py      each score in each category: where to look
text.py         the same in words
frames.py       ... and as tables of pandas
"""

from pipeline.comparison.arm import Arm, Columns
from pipeline.comparison.differences import compare_arms
from pipeline.comparison.files import read_arm
from pipeline.comparison.runfolders import read_run
from pipeline.comparison.text import compared

__all__ = ["Arm", "Columns", "compare_arms", "compared", "read_arm", "read_run"]
