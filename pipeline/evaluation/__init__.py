"""`pipeline eval`: is a model, a prompt, a setting good at these NPCs, fast, and better than that one?

suite.py      what is asked: personas, scenarios, scorers, gates
evaluate.py   one arm: scores with intervals, latency with its load
arms.py       several arms over the same items, one after another, and how they differ
measures.py   what a gate may ask of an arm
gates.py      what has to hold, decided on the bound of an interval
github.py     the same for the page of a workflow's run
text.py       the summary, in words
"""
