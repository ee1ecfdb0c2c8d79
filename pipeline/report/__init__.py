"""`report.html`: what a run came to, as one page that needs no network.

sift.py          what is wrong with each reply, and which replies the page shows
transcripts.py   those, as JSON for the page's script
figures.py       intervals, curves and bars as SVG
story.py         what the page says, from the summaries
page.py          all of it put together and written
page.html        its structure (Jinja, autoescaped); page.css how it looks; page.js search, filters, transcripts
"""

from pipeline.report.page import write_report

__all__ = ["write_report"]
