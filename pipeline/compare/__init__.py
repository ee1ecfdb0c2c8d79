"""`pipeline compare A B`: is B different from A, in what, by how much, and what could not have been seen?

arm.py          one side: who was asked what, what came, and its scores
runfolders.py   ... from a run folder
files.py        ... from somebody else's scores: tables, inspect_ai's logs, lm-eval's samples
comparison.py   both sides, item by item
explore.py      each score in each category: where to look
text.py         the same in words
"""

from pipeline.compare.arm import Arm, Columns
from pipeline.compare.comparison import compare_arms
from pipeline.compare.files import read_arm
from pipeline.compare.runfolders import read_run
from pipeline.compare.text import compared

__all__ = ["Arm", "Columns", "compare_arms", "compared", "read_arm", "read_run"]
