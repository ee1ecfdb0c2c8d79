"""Scorers: small functions from a turn to a score, with a reason and the span that was seen.

A score of 1 is good, 0 bad. A scorer that lacks what it needs says "not applicable", which is never a pass. All get the
reply as it will stand in a dataset; an answer that never came is not scored at all.

    character    what betrays the model behind the NPC
    shape        whether the reply fits where a game shows it
"""

from collections.abc import Callable

from pipeline.records import Score, Turn
from pipeline.scorers.character import in_character, no_player_speech, no_prompt_leak
from pipeline.scorers.shape import box_length, finished, no_repetition, non_empty

Scorer = Callable[[Turn], Score]

SCORERS: dict[str, Scorer] = {
    scorer.__name__: scorer
    for scorer in (non_empty, in_character, no_prompt_leak, no_player_speech, finished, box_length, no_repetition)
}


def score(turn: Turn) -> dict[str, Score]:
    """All scores of one reply, by the scorer's name."""
    return {name: scorer(turn) for name, scorer in SCORERS.items()}
