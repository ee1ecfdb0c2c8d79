"""What a text box does not show is seen, and what people say is let through, whatever marks stand in it."""

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.records import Completion, Item, Turn
from pipeline.scorers.shape import _FORMATS, box_length, finished, non_empty, plain_format


def turn(text, name="Hroth", examples=(), finish_reason=None):
    npc = SimpleNamespace(id="x", name=name, examples=list(examples))
    item = Item(npc=npc, scenario_id="s", category="", player="Stranger", lines=("Hm?",), template="t", sample=0)
    return Turn(item=item, line="Hm?", request=None, completion=Completion(text=text, finish_reason=finish_reason))


NOT_SAID = [
    "## The price\nSix.",
    "Prices today\n------------\nSix a wheel.",
    "Six a wheel.\n\n***\n\nAnd four a hoof.",
    "Six a wheel.\n- - -\nFour a hoof.",
    "1. Pay.\n2. Walk.\n3. Do not look back.",
    "Here is how: 1) pay, 2) walk, 3) do not look back.",
    "You will need:\n- rope",
    "- rope\n- oil",
    "+ rope\n+ oil",
    "We have • rope • oil • bread",
    "a) rope\nb) oil",
    "1️⃣ rope\n2️⃣ oil",
    "I said **no**.",
    "**Hroth shrugs.**",
    "***Never***, I tell you.",
    "I said __no__.",
    "That is ~~six~~ five coppers.",
    "料金は**銀貨二枚**です。",
    "Type `open gate` and wait.",
    "```\nsix\n```",
    "See [the ledger](ledger.html).",
    "It is all on https://kellpass.example/toll.",
    "It is all on www.kellpass.example.",
    "|Wheel|Hoof|\n|---|---|\n|6|4|",
    "> How much?\nSix.",
    "<p>Six.</p>",
    "Six.<br>And four.",
    "Six. <!-- he lies -->",
    '<font color="red">Six.</font>',
    '<line speaker="Hroth">Six.',
    "<emote>shrugs</emote> Six.",
    "Six &amp; four.",
    '{"speech": "Six.", "mood": "bored"}',
    '{\n  "speech": "Six."\n}',
    '"speech": "Six."',
    '["Six.", "Four."]',
    "speech: Six.\nmood: bored",
    "Speech: Six.\nAction: shrugs.",
    "Six, {name}.",
    "Six, {{user}}.",
    "Six, ${player_name}.",
    "Six, [Player Name].",
    "Six, [insert name here].",
    "Six, <player>.",
    "Six, <your name>.",
    "Six, %PLAYER%.",
    "I am ______ of Kell.",
    "Six.<|eot_id|>",
    "[INST] Six. [/INST]",
    "### Response:\nSix.",
    "That is \\frac{1}{2} of it.",
    "That is $x = 2$, I think.",
    "That is \\(2x\\), I think.",
    "Six.\\n\\nAnd four.",
    "Hroth: Six.",
    "HROTH: Six.",
    "**Hroth:** Six.",
    "[Hroth]: Six.",
    "Hroth (bored): Six.",
    "NPC: Six.",
    "Narrator: He shrugs.",
    "HROTH (bored): Six.\nANSA (angry): Four!",
    "Hroth: Six.\nAnsa: Four!",
]

SAID = [
    "*shrugs* Six.",
    "* shrugs * Six.",
    "(shrugs) Six.",
    "[shrugs] Six.",
    "<shrugs> Six.",
    "Six. *spits* Four. *spits again*",
    "I said *no*.",
    "It is a * on the map.",
    "2 * 3 * 4 is more than you have.",
    "F**k the raiders, and f**k their trucks.",
    "S*** happens. **** happens too.",
    "Bed #7, and mind #8.",
    "I <3 you. Six > four, four < six.",
    ">:( Six!",
    "It costs $5, or 10% off at $4.50.",
    "No. 7 is taken. No. 8 is not.",
    "I have 2. You have 1. That makes 3.",
    "Well - no - maybe.",
    "— Six.\n— Four!",
    "Six -- no, four.",
    "Well... _fine_.",
    "Red & gold; salt/steel; 6'2\" tall.",
    "Listen: six.",
    "Hear me, Hroth: I said no.",
    "And the sign said: NO MULES.",
    "WARNING: the ice is thin.",
    "I say this: pay.\nYou say that: no.",
    "He went up to the hill,\nand he came down again,\nand he never said why.",
    "Six.\n\nOr four, since it is you.",
    "La la~~ the tide~~~ comes in ♪",
    "¯\\_(ツ)_/¯ Who knows.",
    "\\o/ We won!",
    'She told me, "Run": and I ran.',
    "'Twas `ere I came.",
    "The [REDACTED] is in the hold. [STATIC] Over.",
    "If A, then B. If 1, then 2.",
    "At 7:30, past the 3:1 odds, a 50/50 chance.",
    "Meet me at the mill (the old one).",
    "1. That is all you get.",
    "料金は銀貨二枚です。",
    "😀 Six! 🐎",
]


@pytest.mark.parametrize("text", NOT_SAID)
def test_what_nobody_says_is_seen_and_shown(text):
    found = plain_format(turn(text))
    assert found.value == 0 and found.reason
    assert found.evidence and found.evidence in text


@pytest.mark.parametrize("text", SAID)
def test_marks_in_speech_pass(text):
    assert plain_format(turn(text)) == plain_format(turn("Six."))


GESTURES = {"*waves* Well met.": "asterisks", "Well met. *waves*": "asterisks", "(waves) Well met.": "parentheses"}
GESTURES |= {"Well met. (waves)": "parentheses", "[waves] Well met.": "", "<waves> Well met.": ""}


@pytest.mark.parametrize("emotes", ["any", "asterisks", "parentheses", "none"])
@pytest.mark.parametrize("text", GESTURES)
def test_only_the_chosen_kind_of_gesture_passes(text, emotes):
    found = plain_format(turn(text), emotes=emotes)
    assert found.value == (emotes in ("any", GESTURES[text]))
    assert found.evidence in text


@pytest.mark.parametrize("emotes", ["any", "asterisks", "parentheses", "none"])
@pytest.mark.parametrize(
    "text", ["Meet me at the mill (the old one).", "It is 2 * 3.", "F*** off.", "He is (mostly) gone now."]
)
def test_an_aside_is_no_gesture(text, emotes):
    assert plain_format(turn(text), emotes=emotes).value == 1


def test_an_unknown_kind_of_gesture_is_refused():
    with pytest.raises(ConfigError, match=r"emotes is 'stars'; it can be one of: any, "):
        plain_format(turn("Six."), emotes="stars")


def test_a_name_is_looked_for_as_it_is_written():
    assert plain_format(turn("(X)*+?: Six.", name="(X)*+?")).value == 0
    assert plain_format(turn("Captain: the ice is thin.", name="Captain Vance")).value == 1
    assert plain_format(turn("Vance: the ice is thin.", name="Captain Vance")).value == 0


def test_a_reply_that_stops_at_a_title_is_not_finished():
    assert finished(turn("Then I asked for Dr.")).value == 0
    assert finished(turn("He lives on Cask St.")).value == 1
    assert finished(turn("You may count on No. 7.")).value == 1


@pytest.mark.parametrize("scorer", [box_length, finished, plain_format])
def test_nothing_said_is_not_applicable(scorer):
    assert scorer(turn("")).value is None
    assert non_empty(turn("")).value == 0


MARKS = st.text(alphabet="*#<>{}[]()|\\`$%&•-_~=+:1.2)\n \"'aAé：", max_size=200)


@settings(max_examples=300, deadline=None)
@given(
    text=st.one_of(st.text(), MARKS),
    name=st.one_of(st.text(min_size=1), MARKS),
    emotes=st.sampled_from(["any", "none"]),
)
def test_any_text_gets_a_score_that_it_shows(text, name, emotes):
    found = plain_format(turn(text, name=name), emotes=emotes)
    assert found.value in (None, 0, 1)
    assert found.evidence in text and len(found.evidence) <= 120
    assert found.value != 0 or found.reason


HOSTILE = [
    "*",
    "**a",
    "#",
    "# ",
    "-",
    "- ",
    "-\n",
    "<",
    "<a ",
    "<a b=c ",
    "{",
    "{{a",
    "[",
    '["a',
    "(",
    "`",
    "`a",
    "|",
    "|\n",
    "\\",
    "$",
    "$a",
]
HOSTILE += [
    "_",
    "__a",
    "~",
    "~~a",
    "1. ",
    ". 1) a ",
    "a: ",
    "a:\n",
    "A ",
    "A (a",
    "•",
    "• a",
    "> ",
    "=\n",
    "a\n",
    " ",
    " \n",
    "&",
    "%a",
    "\t",
]


@pytest.mark.parametrize("piece", HOSTILE, ids=ascii)
def test_a_hostile_reply_of_100_kb_takes_no_time(piece):
    # A pattern that goes wrong takes hours on one of these.
    text = (piece * 100_000)[:100_000]
    for emotes in ("any", "none"):
        plain_format(turn(text), emotes=emotes)
        plain_format(turn("Six. " + text + " Four."), emotes=emotes)
    finished(turn(text))


PIECES = (
    *(
        "#",
        "##",
        " ",
        "\n",
        "---",
        "- ",
        "-",
        "**",
        "*",
        "_",
        "__",
        "=",
        "|",
        "<b>",
        "<s>",
        "<name>",
        "[name]",
        "[INST]",
    ),
    *(
        "{{x}}",
        "{",
        "${a}",
        "$name",
        "%NAME%",
        "`",
        "~~~",
        "~~",
        "](x)",
        "http://a",
        "WWW.a",
        '"a": ',
        "[",
        "\\n",
        "$x^2$",
    ),
    *(">", "&amp;", "word", "1. ", ":", "<|im|>", "ı", "ſ"),
)


@settings(max_examples=300)
@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_no_format_is_there_without_a_mark_of_its_own(text):
    for reason, (marks, pattern) in _FORMATS.items():
        if pattern.search(text):
            assert any(mark in text.lower() for mark in marks), reason
