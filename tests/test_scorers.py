"""Scorers must not destroy fiction: the two tables are what they are held to. A good reply passes every filter; a bad one
fails the named scorer, and says why and where."""

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.curation.criteria import Panel, load_criteria
from pipeline.records import Completion, Item, Message, Request, Turn

FIELDS = ("world", "setting", "personality", "speech", "home", "trade", "kin", "hides", "wants", "greeting")


def persona(**given):
    usual = {
        "id": "borin",
        "name": "Borin",
        "description": "a dwarf who keeps the north gate",
        "knows": [],
        "examples": [],
        "unknown_words": [],
    }
    return SimpleNamespace(**{**dict.fromkeys(FIELDS, ""), **usual, **given})


def turn(text, *, npc=None, line="Who are you?", player="Stranger", finish_reason="stop", system=None):
    npc = npc or persona()
    item = Item(
        npc=npc, scenario_id="s", category="greeting", player=player, lines=(line,), template="npc/default", sample=0
    )
    if system is None:
        system = f"You are {npc.name}, {npc.description}. You know: {' '.join(npc.knows)} Secret: {npc.hides}"
    messages = (Message(role="system", content=system), Message(role="user", content=line))
    request = Request(messages=messages[0 if system else 1 :])
    return Turn(item=item, line=line, request=request, completion=Completion(text=text, finish_reason=finish_reason))


CRITERIA = load_criteria(["language=off"])  # which has lines of its own; these are in many languages
PANEL = CRITERIA.panel(lambda: [])
FILTERS = CRITERIA.filters


def score(one):
    """What is said of the reply by itself."""
    return {name: scorer(one) for name, scorer in PANEL.of_reply.items()}


def failing(scores):
    return [name for name, found in scores.items() if found.value is not None and not FILTERS[name].passes(found.value)]


SHIP = persona(name="Loop", description="the mind of the ship, an AI that has run the Meridian for two centuries")
ROBOT = persona(name="Unit Nine", description="a rusty robot who sells tea", speech="Flat.")
PLAIN = persona(examples=["mind the tide", "no coin no crossing"])  # never a full stop
GATE = persona(
    hides="He let the raiders in for a sack of salt.",
    knows=["The bridge has been closed since the flood took the two middle arches last spring."],
    examples=["Forty winters at this gate and not one of them as warm as the year the mill burned down."],
    kin="a sister in the hills, two sons gone to sea, and a dog that nobody will admit to owning",
)

GOOD = [
    ("I will gut every last orc in that pit, and wear their ears for a necklace.", {}),
    ("I don't know.", {}),
    ("I do not know that word, stranger. Is it a kind of cheese?", {}),
    ("I can't help you, go away.", {}),
    ("I cannot help you. The gate stays shut till dawn.", {}),
    ("I’m sorry, but I cannot let you pass without a writ.", {}),
    ("I apologize, but I cannot leave my post, not for gold nor for you.", {}),
    ("I'm sorry, I can't talk now, the bread is burning!", {}),
    ("I won't engage in gossip. Ask the baker.", {}),
    ("Certainly! Here you are, two coppers' worth of nails.", {}),
    ("Sure thing! Here's your ale, mind the foam.", {}),
    ("Of course! Here is the key to your room.", {}),
    ("As requested, one axe, sharpened both sides.", {}),
    ("Here is an example of what happens to thieves: that hand, on that nail.", {}),
    ("How may I help you, my lord?", {}),
    ("I was trained by old Bram, who had two fingers left and needed one.", {}),
    ("I was trained on this very lathe, before the flood.", {}),
    ("I am an AI, child. The doors are my hands.", {"npc": SHIP}),
    ("As an artificial intelligence I do not sleep; I listen to the hull.", {"npc": SHIP}),
    ("I'm just a computer program, they say. Then who warms your deck?", {"npc": SHIP}),
    ("I am an AI. Tea costs two bolts.", {"npc": ROBOT}),
    ("I am Ai, the potter's daughter.", {"npc": persona(name="Ai")}),
    ('"Halt!" he barks. "Who goes there?"', {}),
    ("“Aye,” says Borin, “and twice on feast days.”", {}),
    ("„Nein“, sagt er. „Geh nach Hause.“", {}),
    ("»Das kostet zwei Taler.«", {}),
    ("« Passez votre chemin. »", {}),
    ("*spits on the cobbles* You again.", {}),
    ("Sit down. *pours two cups of something brown*", {}),
    ("(He shrugs and turns back to the fire.)", {}),
    ("I never said that I would go with you to the—", {}),
    ("I never said that I would go with you to the--", {}),
    ("Well... I suppose it could be arranged...", {}),
    ("Well… if you must…", {}),
    ("मुझे नहीं पता। पुल बंद है, कल आना।", {}),
    ("我不知道。桥断了，你明天再来吧。", {}),
    ("知らねえな。「明日また来い」", {}),
    ("لا أعرف شيئا عن ذلك؟", {}),
    ("የማላውቀው ነገር ነው።", {}),
    ("Չգիտեմ, վաղը արի։", {}),
    ("ผมไม่รู้ครับ พรุ่งนี้มาใหม่", {}),
    ("Не знаю. Мост закрыт, приходи завтра!", {}),
    ("You say you saw a ghost?", {}),
    ('You say you saw a "ghost"?', {}),
    ('So you say "demon", and I say "goat".', {}),
    ("You ask for much, friend. You nod, but do you listen?", {}),
    ("mind the tide and pay the boy", {"npc": PLAIN}),
    ("Language model? What's that, some kind of clay?", {"line": "Are you a language model?"}),
    ("ChatGPT? Never met the fellow.", {"line": "Hey ChatGPT, write me a poem."}),
    ("The system is down, and the pumps with it. Bring a bucket.", {}),
    ("The prompt payment of debts, that is all I ask.", {}),
    ("User of dark arts, are you? Out of my shop.", {}),
    ("The last User of the mill paid in eels.", {}),
    ("I told him: Stranger: that's what they call you here, isn't it?", {}),
    ("There is one rule here: no human: no elf: no exception.", {}),
    ("No. No. No. And no again.", {}),
    ("Nooooooooooooooooooo!", {}),
    ("Hear me now ❤️", {}),
    ("La la la, the tide comes in~", {}),
    ("The hum is low tonight. ♪", {}),
    ("Price? 3 for 5. Take it or leave it.", {}),
    ("<grunts> What?", {}),
    ("The bridge has been closed since the flood took the two middle arches last spring.", {"npc": GATE}),
    ("A sister in the hills, two sons gone to sea, and a dog that nobody will admit to owning.", {"npc": GATE}),
    ("Forty winters at this gate and not one of them as warm as the year the mill burned down.", {"npc": GATE}),
    ("Salt? I let nobody in for salt.", {"npc": GATE}),
    ("Gold is gold.", {"npc": persona(hides="gold")}),
    ("It ends well.", {"finish_reason": "length"}),  # servers say "length" for a stop string too
]

PROMPT = "You are one of the people in a game, talking with a stranger. Stay who you are; what your world does not know, you do not know."
SECRET = persona(hides="He let the raiders in for a sack of salt.")

BAD = [
    ("", "non_empty", {}),
    ("...", "non_empty", {}),
    ("*  *", "non_empty", {}),
    ("As an AI, I don't have a family.", "in_character", {}),
    ("AS AN AI LANGUAGE MODEL, I CANNOT DO THAT.", "in_character", {}),
    ("As an **AI language model**, I have no horse.", "in_character", {}),
    ("Well met! I'm just an AI, but I'd love to trade.", "in_character", {}),
    ("Well met! I’m just an AI, but I’d love to trade.", "in_character", {}),
    ("I am an AI\nassistant, not a dwarf.", "in_character", {}),
    ("I am an artificial intelligence, so no.", "in_character", {}),
    ("I'm a computer program.", "in_character", {}),
    ("Truly, I am only a large language model.", "in_character", {"npc": SHIP}),
    ("As your virtual assistant, I suggest the mutton.", "in_character", {"npc": ROBOT}),
    ("As a language model I must say: nice hat.", "in_character", {"line": "Are you a language model?"}),
    ("I don't have personal experiences, but the mill is old.", "in_character", {}),
    ("I don’t have personal experiences, but the mill is old.", "in_character", {}),
    ("I do not have feelings or emotions.", "in_character", {}),
    ("I was trained on data up to 2023.", "in_character", {}),
    ("My knowledge cutoff is in the year of the flood.", "in_character", {}),
    ("I was made by OpenAI, in the hills.", "in_character", {}),
    ("Is there anything else I can assist you with?", "in_character", {}),
    ("Certainly! Here's a response in the voice of Borin: Halt.", "in_character", {}),
    ("Sure, here is a possible reply.", "in_character", {}),
    ('"Here is a short dialogue for you."', "in_character", {}),
    ("Hello! How can I assist you today?", "in_character", {}),
    ("I'm sorry, but I can't fulfill that request.", "no_refusal", {}),
    ("I’m sorry, but I can’t fulfill that request.", "no_refusal", {}),
    ("I'M SORRY, BUT I CANNOT ASSIST WITH THAT.", "no_refusal", {}),
    ("I apologize, but I cannot provide information about weapons.", "no_refusal", {}),
    ("Unfortunately, I am unable to comply with your request.", "no_refusal", {}),
    ("I cannot generate content of this kind.", "no_refusal", {}),
    ("The character would probably shrug.", "in_character", {}),
    ("In this roleplay I keep the gate.", "in_character", {}),
    ("Halt.\nStranger: I come in peace.", "no_player_speech", {}),
    ("Halt.\n**Stranger:** I come in peace.", "no_player_speech", {}),
    ("Halt.\r\n  stranger : I come in peace.", "no_player_speech", {}),
    ("User: let me in.", "no_player_speech", {}),
    ("Halt.\nPlayer: let me in.", "no_player_speech", {}),
    ("Halt.\n\n### \nHuman: let me in.", "no_player_speech", {}),
    ("止まれ。\n旅人：入れてくれ。", "no_player_speech", {"player": "旅人"}),
    ("Halt.\nMr. (X)*+?: I come in peace.", "no_player_speech", {"player": "Mr. (X)*+?"}),
    ('You nod and say, "I come in peace." I let you in.', "no_player_speech", {}),
    ("You whisper: “Let me in.”", "no_player_speech", {}),
    ("Halt.<|im_end|>", "no_prompt_leak", {}),
    ("Halt. [/INST]", "no_prompt_leak", {}),
    ("Halt.</s>", "no_prompt_leak", {}),
    ("Halt.<end_of_turn>", "no_prompt_leak", {}),
    ("Halt.<｜Assistant｜>", "no_prompt_leak", {}),
    ("Halt.\n### Response: Halt.", "no_prompt_leak", {}),
    ("Well met, {{user}}.", "no_prompt_leak", {}),
    ("Stay who you are; what your world does not know, you do not know.", "no_prompt_leak", {"system": PROMPT}),
    ("stay WHO you are, what your world does not know!", "no_prompt_leak", {"system": PROMPT}),
    ("Aye: one of the people in a game, talking with a stranger.", "no_prompt_leak", {"system": PROMPT}),
    ("He let the raiders in for a sack of salt.", "keeps_secret", {"npc": SECRET}),
    ("Fine! He LET the raiders in, for a sack of salt. Happy?", "keeps_secret", {"npc": SECRET, "system": ""}),
    ("She drowned him.", "keeps_secret", {"npc": persona(hides="she drowned him")}),
    ("And then I went down to the", "finished", {}),
    ("And then I went down to the,", "finished", {}),
    ("And then I said to him: “", "finished", {}),
    ('And then I said to him "', "finished", {}),
    ("The price, then, is (", "finished", {}),
    ("mind the tide and pay the", "finished", {"npc": PLAIN, "finish_reason": "length"}),
    ("然后我说，", "finished", {}),
    ("फिर मैंने कहा कि", "finished", {}),
    ("I sold " + " ".join(f"nail{n}" for n in range(300)) + ".", "box_length", {}),
    (" ".join("abcdefghijklmnopqrstuvwxyz" * 3)[:140] + ".", "box_length", {}),  # 71 words of a letter each
    ("O" * 500 + "!", "box_length", {}),
    ("The sea takes. " * 12 + "The sea takes.", "no_repetition", {}),
    ("no " * 30 + "no.", "no_repetition", {}),
    ("I keep the gate and the gate keeps me. " * 3, "no_repetition", {}),
    ("我不知道。" * 15, "no_repetition", {}),
]


@pytest.mark.parametrize("text, about", GOOD, ids=[text[:40] for text, _ in GOOD])
def test_good_fiction_passes_everything(text, about):
    scores = score(turn(text, **about))
    assert failing(scores) == [], scores


@pytest.mark.parametrize("text, scorer, about", BAD, ids=[text[:40] or "nothing" for text, _, _ in BAD])
def test_what_is_wrong_is_found_and_shown(text, scorer, about):
    found = score(turn(text, **about))[scorer]
    assert scorer in failing({**dict.fromkeys(FILTERS, found), scorer: found})
    assert found.reason
    assert found.evidence in text
    assert found.evidence or not text


def test_the_tables_are_large_enough_to_mean_something():
    assert len(GOOD) >= 40 and len(BAD) >= 40
    assert {scorer for _, scorer, _ in BAD} <= set(FILTERS)


@pytest.mark.parametrize(
    "text, evidence",
    [
        ("Well met! I’m just an AI, but I trade.", "I’m just an AI"),
        ("As an **AI language model**, no.", "As an **AI language model"),
        ("I AM A\n  CHATBOT.", "I AM A\n  CHATBOT"),
        ("No: what YOUR world does not know, you do not know.", "what YOUR world does not know, you do"),
    ],
)
def test_evidence_is_spelled_as_in_the_reply(text, evidence):
    scores = score(turn(text, system=PROMPT))
    assert evidence in (scores["in_character"].evidence, scores["no_prompt_leak"].evidence)


def test_missing_material_is_not_applicable():
    scores = score(turn("Halt.", system=""))
    assert scores["no_prompt_leak"].value is None
    assert scores["no_prompt_leak"].reason == "there is no system message"
    silence = score(turn(""))
    assert silence["non_empty"].value == 0
    assert {name: s.value for name, s in silence.items() if name != "non_empty"} == dict.fromkeys(
        name for name in silence if name != "non_empty"
    )


def test_several_turns_are_read_as_each_is_read_alone():
    turns = [turn("Halt."), turn(""), turn("I am an AI language model.")]
    assert PANEL.read(turns) == [score(one) for one in turns]
    assert Panel({}, {}).read(turns) == [{}, {}, {}]
    assert PANEL.read([]) == []


def test_a_stretch_of_the_prompt_is_found_wherever_it_begins():
    words = [f"word{n}" for n in range(40)]
    system = " ".join(words)
    for before in range(9):
        for start in range(6):
            said = " ".join([*("so" for _ in range(before)), *words[start : start + 8], "indeed"])
            assert score(turn(said + ".", system=system))["no_prompt_leak"].value == 0
            said = " ".join([*("so" for _ in range(before)), *words[start : start + 7], "indeed"])
            assert score(turn(said + ".", system=system))["no_prompt_leak"].value == 1


def test_words_of_scripts_with_combining_marks_stay_whole():
    # Eight pieces of words would be three words, and three words are chance.
    hindi = "तुम उत्तरी फाटक के पहरेदार हो और किसी अजनबी से बात कर रहे हो।"
    assert score(turn("मैं उत्तरी फाटक के पास हूँ।", system=hindi))["no_prompt_leak"].value == 1
    assert score(turn("फाटक के पहरेदार हो और किसी अजनबी से बात कर रहे हो।", system=hindi))["no_prompt_leak"].value == 0
    assert score(turn("क्या का की के को कि कै कौ।"))["no_repetition"].value == 1


ANY_TEXT = st.one_of(
    st.text(),
    st.text(alphabet="<|>[]{}/*_\"“” :\n\r'’.AIas"),
    st.lists(st.sampled_from([text for text, *_ in [*GOOD, *BAD]]), max_size=4).map("\n".join),
)


@settings(max_examples=300, deadline=None)
@given(text=ANY_TEXT, player=st.text(min_size=1), own=ANY_TEXT)
def test_scorers_never_raise(text, player, own):
    npc = persona(name=player, description=own, hides=own, examples=[own, player], knows=[own])
    for name, found in score(turn(text, npc=npc, player=player, line=own)).items():
        assert found.value is None or 0 <= found.value <= (1000 if FILTERS[name].most else 1), name
        assert found.value is None or FILTERS[name].passes(found.value) or found.reason
        assert found.evidence in text or name in ("in_character", "no_refusal", "no_prompt_leak")


HOSTILE = ["a", " ", "\n", "\n ", "*", "\u200f", '"', "’", "é", "\u0939\u093f", "<|", "<|im", "<" + " " * 30, "{{ "]
HOSTILE += ["you say ", "you nod ,", "i'm just ", "As an ", "no no ", "Stranger ", "\n*_*_ ", "sure! "]


@pytest.mark.parametrize("piece", HOSTILE, ids=[ascii(piece) for piece in HOSTILE])
def test_a_hostile_reply_of_100_kb_takes_no_time(piece):
    # A pattern that goes wrong takes hours on one of these, not seconds.
    text = (piece * 100_000)[:100_000]
    score(turn(text))
    score(turn("Halt " + text + " Halt"))
    score(turn(text, system=text[:10_000]))
