"""What most replies get: one object for all of them."""

from pipeline.records import Score

GOOD = Score(1.0)
SILENT = Score(None, "nothing was said")
