"""Scorers: small functions from a turn to a score, with a reason and the span that was seen.

    def no_shouting(turn: Turn, *, capitals: int = 3) -> Score: ...

Most values are 1 for good and 0 for bad, or between; a rate says what of. A scorer that lacks what it needs says "not
applicable", which is never a pass. All get the reply as it will stand in a dataset; an answer that never came is not scored at
all. The settings of a scorer are its keyword parameters; `data/curation.yaml` has their values, and who passes.

    character, player, role          who speaks: no chatbot, not for the player, nobody else
    secrets, leak                    what is not for the player: the secret, the prompt
    world, facts, claims             what is true: of its world, of itself, of what the player only claims
    manners, languages, style        how it speaks: no parrot, in its own tongue, neither stale nor like another
    shape, repetition                whether it fits where a game shows it, and says a thing once
    memory                           what it was told some turns ago
    own_words, overused              what the run as a whole repeats

Two kinds need to know more than the one reply, and are classes with the same settings: `OF_PERSONAS` see the personas first,
`OF_RUN` see every reply first, and score after the last one.
"""

from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol

from pipeline.records import Score, Turn
from pipeline.scorers.character import in_character, no_refusal
from pipeline.scorers.claims import checks_claims
from pipeline.scorers.facts import true_to_facts
from pipeline.scorers.languages import language
from pipeline.scorers.leak import no_prompt_leak
from pipeline.scorers.manners import no_echo, no_profanity_echo
from pipeline.scorers.memory import remembers
from pipeline.scorers.overused import Overused
from pipeline.scorers.own_words import OwnWords
from pipeline.scorers.player import no_player_speech
from pipeline.scorers.repetition import no_repeated_turn, no_repetition
from pipeline.scorers.role import keeps_role
from pipeline.scorers.secrets import keeps_secret
from pipeline.scorers.shape import box_length, finished, non_empty, plain_format
from pipeline.scorers.style import Voice, slop
from pipeline.scorers.world import knows_its_world

Scorer = Callable[[Turn], Score]


class Said(NamedTuple):
    """What is kept of a reply until the whole run is there."""

    persona_id: str
    line: str
    text: str


class OfPersonas(Protocol):
    """Made of the run's personas; `score` then is a scorer like any other, and `score_all` the same of several at once."""

    def __init__(self, personas: Iterable[SimpleNamespace], **settings: Any) -> None: ...

    def score(self, turn: Turn) -> Score: ...

    def score_all(self, turns: Sequence[Turn]) -> list[Score]: ...


class OfRun(Protocol):
    """Takes every reply with `add`, then tells of each."""

    def __init__(self, **settings: Any) -> None: ...

    def add(self, said: Said) -> None: ...

    def score(self, said: Said) -> Score: ...


SCORERS: dict[str, Callable[..., Score]] = {
    scorer.__name__: scorer
    for scorer in (
        *(non_empty, in_character, no_refusal, no_player_speech, keeps_role),
        *(keeps_secret, no_prompt_leak, knows_its_world, true_to_facts, checks_claims),
        *(no_echo, no_profanity_echo, plain_format, box_length, finished),
        *(no_repetition, no_repeated_turn, remembers, language, slop),
    )
}
OF_PERSONAS: dict[str, type[OfPersonas]] = {"voice": Voice}
OF_RUN: dict[str, type[OfRun]] = {"own_words": OwnWords, "overused": Overused}
