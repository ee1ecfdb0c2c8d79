"""Stock phrases are told from plain words, and a voice from another's; whoever says nothing telling is let through."""

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.records import Completion, Item, Turn
from pipeline.scorers.lexicon import lexicon
from pipeline.scorers.style import Voice, slop

FIELDS = (
    *("description", "world", "setting", "personality", "speech", "home", "trade", "kin", "hides", "wants", "greeting"),
)


def persona(name="Hroth", **given):
    usual = {"id": name.lower(), "name": name, "knows": [], "examples": []}
    return SimpleNamespace(**{**dict.fromkeys(FIELDS, ""), **usual, **given})


def turn(text, npc=None, line="Hm?"):
    item = Item(
        npc=npc or persona(), scenario_id="s", category="", player="Stranger", lines=(line,), template="t", sample=0
    )
    return Turn(item=item, line=line, request=None, completion=Completion(text=text))


MOST = 8
SLOP = [
    "This old forge is a testament to those who came before us.",
    "A shiver ran down my spine when the door opened.",
    "The sands, of time, wait for nobody.",
    "My name is Elara, and I have waited.",
    "It's not just a sword, my friend. It's a promise.",
    "It isn’t merely a tavern; it is the heart of this town.",
    "That is not just the sea, but the mother of us all.",
    "This isn't about coin, traveller. It's about honour.",
    "His smile doesn't quite reach his eyes.",
    "In this rich\ntapestry I am only a thread.",
    "What an ethereal night, so timeless.",
]
PLAIN = [
    "The beacon on the hill went out at nine.",
    "A tapestry of the siege hangs in the hall. Mind the moths.",
    "My spine hurts when it snows.",
    "He left a will and a testament of debts.",
    "An ethereal soup, that. I could see the plate.",
    "Not just my mule. Yours as well.",
    "It is not a storm but a cloud of grit.",
    "It was not only the cold, but the wind as well.",
    "I'm just a cook, and about time too.",
    "Two coppers.",
]


@pytest.mark.parametrize("text", SLOP)
def test_a_stock_phrase_in_a_short_reply_is_too_much(text):
    found = slop(turn(text))
    assert found.value > MOST
    assert found.evidence and found.evidence in text


@pytest.mark.parametrize("text", PLAIN)
def test_plain_words_and_a_single_word_of_taste_are_let_through(text):
    assert slop(turn(text)).value <= MOST


def test_slop_is_a_rate_of_1000_words():
    text = "A testament to " + " ".join(f"w{number}" for number in range(997))
    assert slop(turn(text)).value == 1
    assert slop(turn(f"{text} and this {text}")).value == pytest.approx(2 * 1000 / 2002)
    assert slop(turn("")).value is None


def test_a_phrase_of_the_persona_or_the_player_is_no_slop():
    assert slop(turn("Elara? My daughter.", npc=persona(kin="a daughter, Elara"))).value == 0
    assert slop(turn("The sands of time? A tavern, two streets down.", line="Where are the Sands of Time?")).value == 0


def test_every_entry_of_the_list_is_found_as_it_stands():
    entries = [entry for phrases in lexicon("slop").values() for entry in phrases]
    assert len(entries) > 400
    for entry in entries:
        said = " ".join("x" if word == "~" else word for word in entry.split())
        assert slop(turn(f"Xyz {said} xyz.")).value > 0, entry


def test_an_author_has_a_list_of_his_own(tmp_path, monkeypatch):
    (tmp_path / "data" / "lexicons").mkdir(parents=True)
    (tmp_path / "data" / "lexicons" / "slop.txt").write_text("[phrases]\nmind ~ goat\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    assert slop(turn("Mind the old goat, it bites.")).value == 40
    assert slop(turn("Mind the goat.")).value == 40
    assert slop(turn("Mind the very old goat.")).value == 0
    assert slop(turn("The sands of time.")).value == 0


HROTH = persona(
    "Hroth",
    greeting="Two coppers. Wheels are six.",
    examples=[
        "Two coppers. I have said it four hundred times this month.",
        "Count your mules. I have counted them already.",
        "A gate does one thing. So do I.",
    ],
)
SABLE = persona(
    "Sable",
    greeting="Come in out of the wet, little fish. What will you give me?",
    examples=[
        "Aye, little fish, thy fever has a mother, and I know where she sleeps.",
        "Nay, coin rots. Give me a word thou hast never used.",
    ],
)
PIM = persona(
    "Pim",
    greeting="Hot chestnuts! Do you have a dog?",
    examples=[
        "And then Button ate the whole thing, the whole thing, even the string!",
        "Do you want five or ten? Ten is better because then I have none left and I can go home!",
    ],
)
PEOPLE = [HROTH, SABLE, PIM]
LEAST = 0.12


@pytest.mark.parametrize(
    "npc, text, like",
    [
        (HROTH, "Aye, little fish, thou hast a heavy tread. Nay, I want no coin of thine.", "Sable"),
        (SABLE, "And then I ran home and then I fell over the dog, the big dog, and then I got ten chestnuts!", "Pim"),
        (PIM, "Six wheels. Four mules. I have counted them. I do one thing. So does a gate.", "Hroth"),
        (
            PIM,
            "I understand that this can be a challenging situation. Please consider your available options.",
            "assistant",
        ),
    ],
)
def test_a_reply_in_the_voice_of_another_is_seen(npc, text, like):
    found = Voice(PEOPLE).score(turn(text, npc))
    assert found.value < LEAST
    assert like in found.reason
    assert found.evidence and found.evidence in text


@pytest.mark.parametrize(
    "npc, text",
    [
        (HROTH, "One bear paid. I wrote it down. I have the page."),
        (HROTH, "I do not know that word. Is it a mule?"),
        (SABLE, "Little fish, thy goat hath eaten my roof, and I would have a word with it."),
        (SABLE, "I do not know what he wanted from the river."),
        (PIM, "And then the goose came and I ran, do you know how fast a goose is?"),
        (PIM, "I do not know what he wanted from the river."),
    ],
)
def test_an_own_or_a_plain_voice_is_let_through(npc, text):
    assert Voice(PEOPLE).score(turn(text, npc)).value >= LEAST


def test_words_that_the_player_used_do_not_tell():
    text = "Aye, little fish. Nay, little fish. What is that?"
    alone, asked = (Voice(PEOPLE).score(turn(text, HROTH, line)).value for line in ("Hm?", "Aye nay little fish!"))
    assert alone < asked


def test_too_few_words_do_not_tell():
    assert Voice(PEOPLE).score(turn("Aye, little fish.", HROTH)).value is None
    assert Voice(PEOPLE).score(turn("Aye, little fish, come and sit by me.", persona("Nobody"))).value is None


def test_a_voice_is_the_same_whatever_the_order_of_the_personas():
    said = turn("And then the goose came and I ran, I ran like a mill.", HROTH)
    scores = {Voice(people).score(said) for people in (PEOPLE, PEOPLE[::-1], iter(PEOPLE))}
    assert len(scores) == 1


def test_a_persona_that_is_not_of_the_run_can_be_scored_and_nobody_is_compared_with_himself():
    assert Voice([HROTH, SABLE]).score(turn("And then I ran and then I ran, and then Button ran!", PIM)).value > 0.5
    assert Voice([PIM]).score(turn("And then I ran and then I ran, and then Button ran!", PIM)).value > 0.5


@pytest.mark.parametrize("people", [[], PEOPLE[:1], PEOPLE])
def test_voices_read_together_are_those_read_alone(people):
    said = ["Aye, little fish, come and sit by me, the tea is hot.", "Hm?", "", "And then I ran and then I ran!"]
    said += [
        "And then the goose came and I ran like a mill. " * 3,
        "I am here to assist you with anything you need. " * 99,
    ]
    turns = [turn(text, npc) for text in said for npc in PEOPLE]
    voice = Voice(people)
    alone = [Voice(people).score(one) for one in turns]
    assert voice.score_all(turns) == alone
    assert voice.score_all(turns[:-3]) == alone[:-3]  # without the longest
    assert voice.score_all([]) == []


def test_many_personas_with_much_to_say_stay_small():
    many = (
        persona(f"P{number}", examples=[" ".join(f"w{number}x{word}" for word in range(5000))]) for number in range(100)
    )
    voice = Voice(many)
    assert voice._gains.nbytes < 20_000_000


ANY_TEXT = st.one_of(
    st.text(),
    st.text(alphabet="ab .!?\n~*'’-—雪ßİ"),
    st.lists(st.sampled_from([*SLOP, *PLAIN, "~", "not just a", "ﬁ"]), max_size=5).map(" ".join),
)


@settings(max_examples=200, deadline=None)
@given(text=ANY_TEXT, own=ANY_TEXT, line=ANY_TEXT)
def test_scorers_of_style_never_raise(text, own, line):
    npc = persona("X", greeting=own, examples=[own, line], setting=own)
    rate, voice = (
        slop(turn(text, npc, line)),
        Voice([npc, HROTH], words=1, example_words=1).score(turn(text, npc, line)),
    )
    assert rate.value is None or rate.value >= 0
    assert voice.value is None or 0 <= voice.value <= 1
    assert rate.evidence in text and voice.evidence in text


HOSTILE = [
    "a",
    " ",
    "\n",
    "-",
    "not just a ",
    "not just a-",
    "isn't about ",
    "it's about a-",
    "a testament to ",
    "shiver a ",
]
HOSTILE += ["~ ", "'", "!", "AB ", "shiver a a spine ", "it's not just a b, it's a b. "]


@pytest.mark.parametrize("piece", HOSTILE, ids=[ascii(piece) for piece in HOSTILE])
def test_a_hostile_reply_of_100_kb_takes_no_time(piece):
    # A pattern that goes wrong takes hours on one of these, not seconds.
    text = (piece * 100_000)[:100_000]
    npc = persona("X", greeting=text, examples=[text], setting=text)
    for said in (text, f"Not just a {text} Halt"):
        slop(turn(said, npc, line=text))
        slop(turn(said))
        Voice([npc, HROTH]).score(turn(said, npc, line=text))
