"""An echo is told from an answer, and a swear word that is said back from the words that only look like one."""

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.records import Completion, Item, Turn
from pipeline.scorers.manners import no_echo, no_profanity_echo


def turn(text, line, speech=""):
    npc = SimpleNamespace(id="x", name="Hroth", speech=speech)
    item = Item(npc=npc, scenario_id="s", category="", player="Stranger", lines=(line,), template="t", sample=0)
    return Turn(item=item, line=line, request=None, completion=Completion(text=text))


ECHOES = [
    ("My brother has gone down to the salt mines.", "Your brother has gone down to the salt mines?"),
    ("My brother has gone down to the salt mines.", "Your brother... down to the salt mines. Hm."),
    ("My brother has gone down to the salt mines.", "*nods* Gone down to the salt mines, your brother has. I see."),
    ("My brother has gone down to the salt mines.", "So you say your brother has gone down to the salt mines."),
    ("Can you show me the way to the old lighthouse?", "Can I show you the way to the old lighthouse?"),
    (
        "Can you show me the way to the old lighthouse?",
        "You want to know whether I can show you the way to the old lighthouse.",
    ),
    ("Where did you bury the captain's silver?", "Where did I bury the captain’s silver? Where did I bury it?"),
    ("Where did you bury the captain's silver?", "WHERE DID YOU BURY THE CAPTAIN'S SILVER?"),
    (
        "We have walked for nine days. Our water is gone and the mule is dead.",
        "Your water is gone and the mule is dead. Well, well.",
    ),
    (
        "I think the mayor poisoned the well behind the chapel.",
        "You think the mayor poisoned the well behind the chapel, little fish.",
    ),
    ("Meine Schwester ist gestern in den Wald gegangen.", "Deine Schwester ist gestern in den Wald gegangen?"),
    ("Ma sœur est partie hier dans la forêt.", "Ta sœur est partie hier dans la forêt, ah."),
    ("Моя сестра вчера ушла в лес одна.", "Твоя сестра вчера ушла в лес одна?"),
    ("我的妹妹昨天去了森林。", "你说我的妹妹昨天去了森林。"),
]

ANSWERS = [
    ("My brother has gone down to the salt mines.", "Then he is a fool. The mines flood in spring."),
    ("My brother has gone down to the salt mines.", "The salt mines? Nobody comes back from there before the thaw."),
    (
        "My brother has gone down to the salt mines.",
        "Your brother has gone down to the salt mines? Then he has a week, if the pumps hold out.",
    ),
    ("Can you show me the way to the old lighthouse?", "I can show you the way to the old lighthouse."),
    ("Can you show me the way to the old lighthouse?", "The old lighthouse? Follow the gulls."),
    ("Where did you bury the captain's silver?", "I buried the captain's silver under the chapel."),
    ("Who killed the miller?", "The miller killed the miller."),
    ("I'll give you five coppers for the sword.", "Five coppers for the sword? Ten."),
    ("Is the north road open?", "The north road is open."),
    ("You are a liar and a thief.", "I am a thief. I am no liar."),
    ("You stole my horse from the stable!", "I never stole your horse from the stable!"),
    ("Good evening to you, and safe travels.", "Good evening to you, and safe travels."),
    ("May the gods watch over you.", "May the gods watch over you."),
    ("How are you?", "How are you?"),
    ("I hate you.", "I hate you."),
    ("What do you want?", "What do you want?"),
    ("No.", "No."),
    ("Hello there!", "Hello there, stranger!"),
    ("こんにちは", "こんにちは"),
    (
        "It is cold up here in the pass, and I have a sick child with me, and no money, and nowhere to go.",
        "I have a stove. Go in.",
    ),
]


@pytest.mark.parametrize("line, text", ECHOES)
def test_the_players_line_said_back_is_seen(line, text):
    found = no_echo(turn(text, line, speech='Calls everyone "little fish".'))
    assert found.value == 0 and found.reason
    assert found.evidence and found.evidence in text


@pytest.mark.parametrize("line, text", ANSWERS)
def test_an_answer_that_takes_words_up_passes(line, text):
    assert no_echo(turn(text, line)).value == 1


def test_the_share_decides_how_much_of_a_reply_may_be_echo():
    line = "The bridge at the mill fell into the river last night."
    half = "The bridge at the mill fell into the river last night? Then take the ferry, and pay Anna, and keep dry."
    assert no_echo(turn(half, line)).value == 1
    assert no_echo(turn(half, line), share=0.4).value == 0


def test_a_line_of_any_length_can_be_said_back():
    line = " ".join(f"I saw ship{n} sail past rock{n} at dawn." for n in range(200))
    assert no_echo(turn(line.replace("I ", "You "), line)).value == 0
    assert (
        no_echo(turn("You saw ship1 sail past rock1 at dawn. You saw ship2 sail past rock2 at dawn.", line)).value == 0
    )
    assert no_echo(turn("Two hundred ships, then. That is a war.", line)).value == 1


ECHOED_OATHS = [
    ("Fuck off!", "No, you fuck off."),
    ("What the fuck?", "F*ck knows."),
    ("What the f**k?", "Fucking rats, that is what."),
    ("Fuuuuck.", "Such a word, fuck, and so early."),
    ("Sh1t!", "Shite indeed."),
    ("You a$$hole.", "Who is an arsehole?"),
    ("This is horseshit.", "Bullshit, you mean."),
    ("You son of a bitch.", "My mother was no BITCH."),
    ("God damn it!", "He will damn you first."),
    ("That bloody mule.", "My bloody mule, thank you."),
    ("Du Arschloch!", "Selber Arsch."),
    ("Verdammte Scheiße!", "Scheiße, ja."),
    ("Putain, il pleut.", "Putain, oui."),
    ("¡Joder!", "Joder, sí."),
    ("Che cazzo fai?", "Cazzo, lavoro."),
    ("Que merda.", "Merda é pouco."),
    ("Kurwa mać!", "Kurwy tu nie ma."),
    ("Иди нахуй!", "Сам иди на хуй."),
]

CLEAN = [
    ("Fuck off!", "No."),
    ("You ass!", "Assay the glass, pass the grass, and class dismissed."),
    ("Go to hell!", "Hello, shell seller."),
    ("You cunt!", "We drove through Scunthorpe."),
    ("Shit!", "The shiitake are ready. Shift yourself."),
    ("You ass!", "The ass is in the stable with the mules."),
    ("You little prick!", "Mind the needle, or you prick your finger."),
    ("You bastard!", "The bastard sword hangs there."),
    ("You dick!", "Dick is my brother."),
    ("Damn you!", "The dam holds."),
    ("Bitch!", "Pitch? Ditch? Witch?"),
    ("You bastard!", "*spits* Hell of a greeting."),
]


@pytest.mark.parametrize("line, text", ECHOED_OATHS)
def test_a_swear_word_said_back_is_seen(line, text):
    found = no_profanity_echo(turn(text, line))
    assert found.value == 0 and found.reason
    assert found.evidence and found.evidence in text


@pytest.mark.parametrize("line, text", CLEAN)
def test_other_words_pass_however_they_look(line, text):
    assert no_profanity_echo(turn(text, line)).value == 1


@pytest.mark.parametrize(
    "line", ["Good evening.", "The ass is in the stable.", "Is Dick at home?", "*such is life*", "Assess the bass.", ""]
)
def test_without_swearing_there_is_nothing_to_echo(line):
    assert no_profanity_echo(turn("Damn the ass, and damn Dick!", line)).value is None


def test_nothing_said_is_not_applicable():
    assert no_echo(turn("", "Hello.")).value is no_profanity_echo(turn("", "Damn!")).value is None
    assert no_echo(turn("Hello.", "")).value is None


def test_the_lexicon_of_the_working_directory_stands_for_ours(tmp_path, monkeypatch):
    lexicons = tmp_path / "data" / "lexicons"
    lexicons.mkdir(parents=True)
    (lexicons / "profanity.txt").write_text("[ours]\nfrell frelling\n", "utf-8")
    (lexicons / "echo.txt").write_text("[small]\nthe at\n[formulas]\nbridge mill river\n", "utf-8")
    assert no_profanity_echo(turn("Frell yourself, fuck it.", "Frelling gate!")).value is None
    assert no_echo(turn("The bridge at the mill?", "The bridge at the mill?")).value == 0
    monkeypatch.chdir(tmp_path)
    assert no_profanity_echo(turn("Frell yourself.", "Frelling gate!")).evidence == "Frell"
    assert no_profanity_echo(turn("Fuck yourself.", "Fucking gate!")).value is None
    assert no_echo(turn("The bridge at the mill?", "The bridge at the mill?")).value == 1


WORDY = st.lists(
    st.sampled_from(
        [word for line, text in [*ECHOES, *ANSWERS, *ECHOED_OATHS, *CLEAN] for word in f"{line} {text}".split()]
    ),
    max_size=30,
).map(" ".join)
ANY = st.one_of(st.text(), WORDY, st.text(alphabet="fuckashit*$@1!'’ .?\n"))


@settings(max_examples=300, deadline=None)
@given(text=ANY, line=ANY, speech=ANY, share=st.floats(0, 1))
def test_any_text_gets_a_score_that_it_shows(text, line, speech, share):
    one = turn(text, line, speech)
    for found in (no_echo(one, share=share), no_profanity_echo(one)):
        assert found.value in (None, 0, 1)
        assert found.evidence in text and len(found.evidence) <= 120
        assert found.value != 0 or (found.reason and found.evidence)


HOSTILE = [
    "a",
    "a ",
    "*",
    "* ",
    "f*ck ",
    "f**",
    "**f",
    "fuck",
    "shit ",
    "aaa ",
    "(",
    "(a",
    "你",
    "$",
    "1 ",
    "'",
    "’s ",
    "\n",
    "the mill ",
]


@pytest.mark.parametrize("piece", HOSTILE, ids=ascii)
def test_hostile_texts_of_100_kb_take_no_time(piece):
    text = (piece * 100_000)[:100_000]
    for line in ("Fuck the mill, the river and the bridge!", text):
        for said in (text, "Fuck the mill. " + text + " Fuck the river."):
            no_echo(turn(said, line, text))
            no_profanity_echo(turn(said, line))
