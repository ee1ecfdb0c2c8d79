"""Circles are told from figures of speech, a catchword from a copy, and a run's stock phrases from everyday English."""

import random
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.records import Completion, Item, Message, Request, Turn
from pipeline.scorers import Said
from pipeline.scorers.overused import Overused
from pipeline.scorers.own_words import OwnWords
from pipeline.scorers.repetition import no_repeated_turn, no_repetition


def turn(text, before=(), examples=(), greeting=""):
    npc = SimpleNamespace(id="x", name="Hroth", greeting=greeting, examples=list(examples))
    item = Item(npc=npc, scenario_id="s", category="", player="Stranger", lines=("Hm?",), template="t", sample=0)
    messages = [Message(role="system", content="You are Hroth.")]
    for said in before:
        messages += [Message(role="user", content="Hm?"), Message(role="assistant", content=said)]
    request = Request(messages=(*messages, Message(role="user", content="Hm?")))
    return Turn(item=item, line="Hm?", request=request, completion=Completion(text=text))


CIRCLES = [
    "The well is dry. The well is dry. The well is dry. The well is dry.",
    "I guard the door, and the door that I guard is the door, and that door I guard, the door.",
    "Salt and rope and salt and rope and salt and rope and salt and rope.",
    "The mayor left at dawn. At dawn the mayor left. He left at dawn, the mayor did, at dawn.",
    "The ferry leaves at noon from the pier.\nThe ferry leaves at noon from the pier.\nThe ferry leaves at noon from the pier.",
    "I keep the lamp above the old north door. I keep the lamp above the old north door.",
    "*sips her tea* And you are? *sips her tea* I asked who you are. *sips her tea* And you are?",
    "fish " * 40,
    "雨が降っている。雨が降っている。雨が降っている。雨が降っている。",
    "ฉันไม่รู้อะไรเลย " * 6,
    "桥断了，明天再来。" * 4,
]
FIGURES = [
    "No, no, no, no. Not that door, the other door!",
    "Ha ha ha ha ha ha ha! You thought that I would pay for that hat?",
    "A lock listens. A lock waits. A lock never sleeps, and neither do I.",
    "Burn the barn! Burn the barn! Burn the barn!",
    "Two coppers is the toll. You may weep. Two coppers is the toll.",
    "No coin, no crossing. No crossing, no ferry. No ferry, no far shore. No far shore, no grave.",
    "Gold for the king, gold for the priest, and not one coin for the man who digs it.",
    "Row, brothers, row,\nthe tide is low,\nrow, brothers, row,\nand home we go.",
    "Over the hill, over the hill, and under the hill again, that is how you find the fair.",
    "I waited for snow, I waited for spring, I waited for a letter, and then I stopped.",
    "雪の夜は狐が来ます。朝になれば帰ります。",
]


@pytest.mark.parametrize("text", CIRCLES, ids=[text[:30] for text in CIRCLES])
def test_a_reply_that_goes_in_circles_is_seen_and_shown(text):
    found = no_repetition(turn(text))
    assert found.value < 0.75
    assert found.evidence and found.evidence in text


@pytest.mark.parametrize("text", FIGURES, ids=[text[:30] for text in FIGURES])
def test_a_figure_of_speech_is_no_circle(text):
    assert no_repetition(turn(text)).value >= 0.75


def test_more_variety_can_be_asked_for():
    text = "The salt is dear and the rope is dear and the oil is dear, and bread is dear too."
    assert no_repetition(turn(text)).value > no_repetition(turn(text), variety=0.8).value


BEFORE = "The bridge fell in the spring flood. Go round by the quarry, and mind the dogs."
SAID_BEFORE = [
    BEFORE,
    BEFORE.upper(),
    "The bridge fell in the spring flood. Go round by the quarry and mind the goats.",
    "Oh? The bridge fell in the spring flood. Go round by the quarry, and mind the dogs. Farewell.",
    "Go round by the quarry, and mind the dogs.",
]
NEW = [
    "Aye.",
    "The bridge? Gone, since spring.",
    "I told you: the bridge fell in the spring flood.",
    "Mind the dogs, I said, and you did not.",
    "Quarry, left, left, bridge that was, left. You cannot miss it.",
]


@pytest.mark.parametrize("text", SAID_BEFORE)
def test_an_answer_that_was_given_before_is_seen(text):
    found = no_repeated_turn(turn(text, before=["Six coppers.", BEFORE, "Good day."]))
    assert found.value < 0.5
    assert found.evidence and found.evidence in text


@pytest.mark.parametrize("text", NEW)
def test_a_short_answer_and_an_npc_that_insists_are_let_through(text):
    assert no_repeated_turn(turn(text, before=["Aye.", BEFORE])).value >= 0.5


def test_the_formulas_of_a_persona_are_no_repeated_turn():
    lines = [
        "Let it be read, child of dust, that I smell goat; and so it is shelved.",
        "Let it be read, child of dust, that the cook wept; and so it is shelved.",
    ]
    text = "Let it be read, child of dust, that a guest came thirsty; and so it is shelved."
    assert no_repeated_turn(turn(text, before=lines[:1])).value < 0.5
    assert no_repeated_turn(turn(text, before=lines[:1], examples=lines)).value >= 0.5
    assert no_repeated_turn(turn(lines[0], before=lines[:1], examples=lines)).value == 0


def test_a_repeated_answer_is_seen_in_a_script_without_blanks():
    assert no_repeated_turn(turn("橋は春の洪水で流されました。", before=["橋は春の洪水で流されました。"])).value == 0
    assert (
        no_repeated_turn(turn("いらっしゃいませ。今夜は鍋です。", before=["いらっしゃいませ。二階です。"])).value >= 0.5
    )


def test_the_first_answer_repeats_nothing():
    assert no_repeated_turn(turn("Good day.")).value is None


MATE = "Nobody crosses before the tar is dry, and nobody sings before breakfast."


def heard(scorer, *said):
    """What the scorer says of the last one."""
    for one in said:
        scorer.add(Said(*one))
    return scorer.score(Said(*said[-1]))


@pytest.mark.parametrize(
    "text",
    [
        MATE,
        "Nobody crosses before the tar is dry, and nobody whistles before breakfast.",
        "Welcome! Nobody crosses before the tar is dry, so sit here and hold my parrot for a while.",
        "NOBODY CROSSES BEFORE THE TAR IS DRY...",
    ],
)
def test_what_another_persona_says_is_seen(text):
    found = heard(OwnWords(), ("mate", "Hello.", MATE), ("cook", "Hello.", text))
    assert found.value == 0
    assert "mate" in found.reason
    assert found.evidence and found.evidence in text


@pytest.mark.parametrize(
    "theirs, mine",
    [
        (MATE, "Breakfast is tar, more or less, and nobody sings."),
        ("I do not know what you mean by that, stranger.", "I do not know what you mean by that."),
        ("That is what I want to know from you.", "That is what I want to know from him."),
        ("Good day to you.", "Good day to you."),
    ],
)
def test_everyday_english_and_a_shared_topic_are_own_words(theirs, mine):
    assert heard(OwnWords(), ("mate", "Hello.", theirs), ("cook", "Hello.", mine)).value == 1


def test_one_may_say_ones_own_words_again():
    assert heard(OwnWords(), ("mate", "", MATE), ("cook", "", "Eat."), ("mate", "", MATE)).value == 1


def test_a_catchword_stays_with_the_one_that_says_it_most():
    said = [("cook", "", MATE), ("mate", "", MATE), ("mate", "", MATE + " Aye."), ("mate", "", "Oi! " + MATE)]
    scorer = OwnWords()
    assert heard(scorer, *said).value == 1
    assert scorer.score(Said(*said[0])).value == 0


def test_what_both_say_after_the_player_is_the_players():
    line = "Is it true that nobody crosses before the tar is dry?"
    mate = ("mate", line, "True that nobody crosses before the tar is dry, yes.")
    assert heard(OwnWords(), mate, ("cook", line, "Nobody crosses before the tar is dry? Ask the mate.")).value == 1


def test_what_everybody_says_is_left_to_overused():
    stock = "Every single choice carries a heavy price."
    said = [
        (f"p{n}", "", f"{stock} {end}") for n, end in enumerate(("So pay.", "Ask Ray.", "Fool.", "Sit.", "Go home."))
    ]
    assert heard(OwnWords(), *said[:2]).value == 0
    assert heard(OwnWords(), *said).value == 1


def test_a_run_of_one_persona_has_nobody_to_take_words_from():
    assert heard(OwnWords(), ("mate", "", MATE), ("mate", "", MATE)).value is None


def test_a_copy_is_found_across_batches_and_after_more_was_added():
    scorer, dice = OwnWords(), random.Random(1)
    scorer.add(Said("mate", "", MATE))
    for number in range(6000):
        scorer.add(Said(f"p{number % 50}", "", " ".join(f"w{dice.randrange(10**6)}" for _ in range(20))))
    assert heard(scorer, ("cook", "", MATE)).value == 0
    assert heard(scorer, ("cook", "", "The soup is a soup of onions and of patience.")).value == 1
    assert heard(scorer, ("smith", "", "The soup is a soup of onions and of patience.")).value == 0


STOCK = "be careful what the lantern shows"


def run(*, stock=STOCK, of=6, every=5, replies=120):
    """A run in which every fifth reply has a phrase, of some of the ten personas."""
    dice = random.Random(2)
    for number in range(replies):
        words = ["the", "a", "of", *(f"w{dice.randrange(10**6)}" for _ in range(6))]
        dice.shuffle(words)
        with_it = number % every == 0
        who = number // every % of if with_it else number % 10
        yield Said(f"p{who}", "Hello.", f"{' '.join(words)}. {stock if with_it else ''}")


def of_run(said, **settings):
    scorer = Overused(**settings)
    for one in said:
        scorer.add(one)
    return scorer


def test_a_phrase_that_many_personas_say_is_seen_with_its_numbers():
    found = of_run(run()).score(Said("p1", "Hello.", "Aye. Be careful, what the lantern shows is old."))
    assert found.value >= 1
    assert found.reason == "in 24 replies of 6 personas"
    assert found.evidence == "Be careful, what the lantern shows"


def test_two_phrases_count_twice():
    scorer = of_run([*run(), *run(stock="mark the crooked weathercock")])
    assert (
        scorer.score(Said("p1", "", "Be careful what the lantern shows, and mark the crooked weathercock.")).value == 2
    )


@pytest.mark.parametrize(
    "stock",
    ["i do not know what you", "at the end of the day", "do you want to know", "there is no", "and if you want to"],
)
def test_ordinary_english_is_never_overused(stock):
    assert of_run(run(stock=stock)).score(Said("p1", "", f"Well, {stock} ship.")).value == 0


def test_a_catchword_of_one_persona_is_not_overused():
    assert of_run(run(of=1)).score(Said("p0", "", STOCK)).value == 0
    caught = [*run(of=1), Said("p1", "", STOCK), Said("p2", "", STOCK)]
    assert of_run(caught).score(Said("p0", "", STOCK)).value == 0


def test_half_a_phrase_is_not_the_phrase():
    assert of_run(run()).score(Said("p1", "", "Be careful what the goat eats.")).value == 0


def test_what_the_player_said_may_be_said_back():
    line = "Should I be careful what the lantern shows?"
    assert of_run(run()).score(Said("p1", line, "Be careful what the lantern shows? Why?")).value == 0
    asked = [said._replace(line=line) for said in run()]
    assert of_run(asked).score(Said("p1", "Hello.", STOCK)).value == 0


def test_a_name_is_not_a_phrase():
    scorer = of_run(run(stock="the Marchpane Flotilla of Hoch Varra"))
    assert scorer.score(Said("p1", "", "Welcome to the Marchpane Flotilla of Hoch Varra.")).value == 0


def test_a_small_run_has_no_overused_phrases():
    assert of_run(run(replies=40)).score(Said("p1", "", STOCK)).value is None
    assert of_run(run(replies=40), replies=20).score(Said("p1", "", STOCK)).value >= 1
    assert of_run(said._replace(persona_id="p1") for said in run()).score(Said("p1", "", STOCK)).value is None


def test_a_language_whose_everyday_phrases_nobody_listed_is_not_judged():
    german = [said._replace(text="Ich weiß doch auch nicht, wohin der Weg führt.") for said in run()]
    assert of_run(german).score(german[0]).value is None


def test_overused_phrases_are_found_across_batches():
    scorer = of_run(run(replies=9000))
    assert scorer.score(Said("p1", "", STOCK)).reason == "in 1800 replies of 6 personas"


ANY_TEXT = st.one_of(
    st.text(),
    st.text(alphabet="ab .!\n雪がの’'ß"),
    st.lists(
        st.sampled_from(["the", "gate", "is", "shut", ".", "\n", "no", "雪が降る", "ฉันไม่รู้", "İ", "ﬁ"]), max_size=60
    ).map(" ".join),
)


@settings(max_examples=200, deadline=None)
@given(text=ANY_TEXT, before=st.lists(ANY_TEXT, max_size=3))
def test_repetition_scorers_never_raise(text, before):
    for found in (no_repetition(turn(text)), no_repeated_turn(turn(text, before=[*before, text], examples=before))):
        assert found.value is None or 0 <= found.value <= 1
        assert found.evidence in text


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(ANY_TEXT, min_size=1, max_size=8))
def test_scorers_of_a_run_never_raise(texts):
    for scorer in (OwnWords(words=2), Overused(replies=1, personas=1, share=0)):
        said = [Said(f"p{number % 3}", texts[0], text) for number, text in enumerate(texts)]
        for one in said:
            scorer.add(one)
        for one in said:
            found = scorer.score(one)
            assert found.value is None or found.value >= 0
            assert found.evidence in one.text


HOSTILE = ["a", " ", "\n", "a b ", "no ", "the gate is shut. ", "I told you ", "!", "雪", "ฉัน", "a,\n", "A? ", "’", "é"]


@pytest.mark.parametrize("piece", HOSTILE, ids=[ascii(piece) for piece in HOSTILE])
def test_a_hostile_reply_of_100_kb_takes_no_time(piece):
    # What goes wrong takes hours on one of these, not seconds.
    text = (piece * 100_000)[:100_000]
    no_repetition(turn(text))
    no_repeated_turn(turn(text, before=[text, "Halt " + text], examples=[text]))
    for scorer in (OwnWords(), Overused(replies=1, personas=2)):
        for one in (said := [Said(f"p{number}", text, text) for number in range(4)]):
            scorer.add(one)
        for one in said:
            scorer.score(one)
