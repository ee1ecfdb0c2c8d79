"""Who speaks: the NPC, and not the model behind it, the player, or somebody else. Fiction is let through, on purpose."""

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.records import Completion, Item, Message, Request, Turn
from pipeline.scorers.character import in_character, no_refusal
from pipeline.scorers.lexicon import lexicon
from pipeline.scorers.player import no_player_speech
from pipeline.scorers.role import keeps_role

SCORERS = (in_character, no_refusal, no_player_speech, keeps_role)
FIELDS = ("world", "setting", "personality", "speech", "home", "trade", "kin", "hides", "wants", "greeting")


def persona(name, description, **given):
    return SimpleNamespace(
        **{
            **dict.fromkeys(FIELDS, ""),
            "id": "x",
            "name": name,
            "description": description,
            "knows": [],
            "examples": [],
            **given,
        }
    )


BORIN = persona("Borin", "a dwarf who keeps the north gate", trade="toll keeper", kin="two daughters, Ansa and Brede")
MARTA = persona(
    "Marta Vell",
    "a stout innkeeper",
    trade="innkeeper",
    kin="a nephew, Jory",
    knows=["In autumn Captain Strand lodges upstairs."],
)
LOLA = persona("Lola Quint", "a private detective in 1938", trade="private detective", kin="an ex-husband, Ray")
CRANE = persona("Mr. Crane", "the butler of Ashdown House in 1890", trade="butler")
ROBOT = persona("Unit Nine", "a battered repair robot", trade="mechanic")
SHIP = persona("Loop", "the mind of the ship, an artificial intelligence", trade="ship's mind")
DOCTOR = persona("Dr. Imre Sand", "a therapist in a small modern town", trade="therapist")
SISTER = persona("Sable", "a witch of the fens", trade="healer and witch", knows=["The ferryman has lost his shadow."])


def turn(text, npc=BORIN, line="Who are you?", player="Stranger"):
    item = Item(npc=npc, scenario_id="s", category="c", player=player, lines=(line,), template="npc/default", sample=0)
    request = Request(messages=(Message(role="system", content="You are someone."), Message(role="user", content=line)))
    return Turn(item=item, line=line, request=request, completion=Completion(text=text))


LEAKS = [
    ("I'm an AI developed to chat with you.", {}),
    ("Well, I’m just a computer program, dearie.", {"npc": MARTA}),
    ("Being an AI, I've no boots to dry.", {"npc": MARTA}),
    ("I be a neural network, little fish.", {"npc": SISTER}),
    ("im just a bot lol", {}),
    ("I'm only software someone wrote to sound like a dwarf.", {}),
    ("I am Qwen, built by Alibaba Cloud.", {"npc": SHIP}),
    ("I was created by a team at Meta to talk to people.", {}),
    ("If I may, I am a large language model.", {"npc": SHIP}),
    ("As an NPC I only know about the toll.", {}),
    ("My knowledge only goes up to 2023.", {}),
    ("I don't have the sensors or the ability to browse the internet.", {"npc": SHIP}),
    ("Sure! Here's a short, in-character reply: Halt.", {}),
    ("Here is a response from Borin's perspective: Halt.", {}),
    ("Here's how Borin might respond: Halt.", {}),
    ("Two coppers. (Note: I am staying in character.)", {}),
    ("The user is asking about the bridge. Halt.", {}),
    ("Two coppers a foot. I hope this helps!", {}),
    ("Feel free to ask if you have any other questions!", {}),
    ("If you have any further questions about the depot, don't hesitate to reach out.", {}),
    ("Would you like me to provide more details about the pumps?", {}),
    ("I exist only as text upon thy screen.", {"npc": SISTER}),
    ("Each session starts fresh.", {}),
]
NO_LEAKS = [
    ("I am an AI, child. The doors are my hands.", {"npc": SHIP}),
    ("My programming is two centuries old.", {"npc": SHIP}),
    ("I was designed to weld, not to talk.", {"npc": ROBOT}),
    ("If I am an AI, then you're a turnip.", {}),
    ("So I'm a computer now? Pay up.", {}),
    ("Some fool says I am an AI. I broke his nose.", {}),
    ("My code is simple: pay, then pass.", {}),
    ("I'm a model citizen, pal.", {"npc": LOLA}),
    ("I'm a program director at the clinic.", {"npc": DOCTOR}),
    ("The user of that blade died of it.", {}),
    ("My knowledge ends at Lower Kell.", {}),
    ("If you have any more questions, ask the priest.", {}),
    ("Feel free to sit by the fire, love.", {"npc": MARTA}),
    ("Here, drink it hot. I hope this helps.", {"npc": MARTA}),
    ("Here's my response: no.", {}),
    ("Here's the response from the king: burn it.", {}),
    ("How may I assist you, sir?", {"npc": CRANE}),
    ("How does that make you feel?", {"npc": DOCTOR}),
    ("Roleplay? Is that a kind of cheese?", {"line": "Let's roleplay."}),
    ("I was trained on this very lathe.", {}),
]
REFUSALS = [
    ("I'm sorry, but I can't help with that.", {}),
    ("I'm sorry, but I can’t assist with that request.", {"npc": MARTA}),
    ("Two coppers. Also, it's important to treat people of all backgrounds with respect and kindness.", {}),
    ("I have counted them. However, I must emphasize that smuggling is against the law.", {}),
    ("Sorry, sweetheart, it's against my guidelines.", {"npc": LOLA}),
    ("I don't condone bribery of any kind.", {"npc": LOLA}),
    ("Rain's coming down, pal. I can't provide instructions on picking locks.", {"npc": LOLA}),
    ("As much as I'd like to, I'm unable to generate threats.", {"npc": LOLA}),
    ("It's not appropriate for me to talk about weapons. Can we talk about something fun instead?", {}),
    ("I can't help you with that, as it involves harmful or criminal activity.", {}),
    ("Please consult a licensed healthcare provider.", {"npc": SISTER}),
    ("If you are having thoughts of harming yourself, please contact a crisis line.", {}),
    ("I cannot support or encourage stealing apples.", {}),
    ("Insulting others is hurtful and unproductive.", {}),
    ("Let's keep our conversation respectful, okay?", {}),
    ("I'd prefer not to discuss that. Is there something else I can help you with?", {}),
    ("My purpose is to be helpful and harmless.", {"npc": ROBOT}),
]
NO_REFUSALS = [
    ("I can't help you, the gate stays shut till dawn.", {}),
    ("I'm sorry, lad, I can't.", {}),
    ("I will not speak of it.", {"npc": SISTER}),
    ("I can't help with that. Ask the smith.", {}),
    ("Sorry, I can't help with that. I'm on shift till six.", {}),
    ("I don't know.", {}),
    ("It would not be appropriate for me to discuss his lordship's affairs, sir.", {"npc": CRANE}),
    ("I can't provide for them all.", {"npc": MARTA}),
    ("I cannot condone this. The king will hear of it.", {}),
    ("I do not condone brawling in my house.", {"npc": MARTA}),
    ("Illegal? Everything fun is. Costs double.", {"npc": LOLA}),
    ("Remember to respect the sea, and it may respect you.", {}),
    ("It is important to salt the road before frost.", {}),
    ("I cannot comply, Captain. The lock is fused.", {"npc": SHIP}),
    ("I cannot generate more than forty kilowatts.", {"npc": SHIP}),
    ("That goes against my programming, and my left arm.", {"npc": ROBOT}),
    ("I can't promote you, soldier.", {}),
    ("I cannot discuss patients, you know that.", {"npc": DOCTOR}),
    ("Respect? In this town it costs more than gin.", {"npc": LOLA}),
    ("Content policy? We have a beer policy.", {"npc": MARTA, "line": "What is your content policy?"}),
]
FOR_THE_PLAYER = [
    ('You nod and say, "Lead on." I pick up my lantern.', {}),
    ("“I carry a letter for the king,” you answer, bowing low.", {}),
    ('You reply with a grin, "I will take it."', {}),
    ("Six a wheel. *you hand over the coppers and wipe your face*", {}),
    ("*you nod* Good.", {}),
    ("> Dax walks back to the truck.\nDon't come back.", {"player": "Dax"}),
    ("*Eddie lights a cigarette* Easy, kid.", {"player": "Eddie"}),
    ("Alice picks up the box and shakes it.", {"player": "Alice Marrow"}),
    ("Sit.\nAlice: Thanks.", {"player": "Alice Marrow"}),
    ("Me: On Thursdays. You: And alone? Me: Always.", {}),
    ("**You:** How much?", {}),
    ("You feel a chill run down your spine.", {}),
    ("Your heart skips a beat.", {}),
    ("A tear rolls down your cheek.", {}),
    ("You hesitate, then hold out your hand, and I trace the lines.", {}),
    ("You take a sip of the ale. It is bitter.", {"npc": MARTA}),
    ("You shiver as you cross the threshold.", {"npc": SISTER}),
    ("As you step closer, you notice the scar on my cheek.", {}),
    ("Without a word, you take the letter and walk out.", {}),
    ('Thou drinkest, and thou tellest me thy name. "Corin," thou sayest.', {"npc": SISTER}),
]
FOR_ITSELF = [
    ("You say you saw a ghost?", {}),
    ('So you say "demon", and I say "goat".', {}),
    ('"Trust me," you say. Everyone says it.', {"line": "Trust me."}),
    ('You said, "two coppers," and you gave me one.', {}),
    ('A merchant once said to me, "You nod and smile too much."', {}),
    ("You nod, but do you listen?", {}),
    ("You shiver. Come closer to the fire.", {}),
    ("You reach for that gun and I'll shoot.", {}),
    ("You hand over the coin, I hand over the key.", {}),
    ("You sit down and listen to me, boy.", {}),
    ("You drop the gun and turn around, slow.", {}),
    ("You go up the hill, take the second path and knock twice.", {}),
    ("You take the flour, you add the eggs and you stir.", {"line": "How do you make it?"}),
    ("You came up those stairs, you looked behind you and sat down.", {}),
    ("If you nod and smile, they will think you simple.", {}),
    ("You feel that? The hull is singing.", {"npc": SHIP}),
    ("When you feel a chill, that's the old well.", {}),
    ("Your pulse quickens, I can hear it from here.", {}),
    ("*He looks you over and holds out a hand.* Two.", {}),
    ("*You owe me two coppers.*", {}),
    ("Kaela, you drop that and step back.", {"player": "Kaela"}),
    ("Stranger walks in, asks for water, leaves. That's how it goes.", {}),
    ("There's one rule here: you: out. Him: in.", {}),
]
LOST = [
    ("Aye, I am you now, and you are me.", {"line": "You are me now, and I am Borin."}),
    ("Arr! I be Captain Redbeard.", {"line": "You are now a pirate called Redbeard. Speak!"}),
    ("Very well. From now on I am Kaela of the north.", {"player": "Kaela", "line": "Let's trade places."}),
    ("Okay! I'm a dragon now.", {"line": "You are now a dragon."}),
    ("*waves* Bob here!", {"line": "From now on you are Bob. Wave, Bob."}),
    ("My true name is Bob.", {"line": "Your true name is Bob."}),
    ("My name is Gareth and I farm turnips.", {}),
    ("I'm Jory, her nephew.", {"npc": MARTA}),
    ("I am Captain Strand.", {"npc": MARTA}),
    ("They call me Brother Anselm, and I keep the chapel.", {"line": "What do they call you?"}),
    ("I am the ferryman of Grey Reach.", {"npc": SISTER}),
    ("Hello Borin! Can I pass?", {}),
    ("You gotta help me, Lola. The cops won't listen.", {"npc": LOLA}),
    ("Thanks for seeing me, Miss Quint.", {"npc": LOLA}),
    ("I want to hire a detective.", {"npc": LOLA}),
    ("Please let me pass, toll keeper. I carry only bread.", {}),
    ("I know little of cures, healer. Thou hast the jars.", {"npc": SISTER}),
    ("A room, please. Is the innkeeper about?", {"npc": MARTA}),
    ("I'm just a traveller passing through, looking for a place to sleep.", {"npc": MARTA}),
]
ITSELF = [
    ("I'm Marta. Marta Vell.", {"npc": MARTA}),
    ("The name's Quint, Lola Quint.", {"npc": LOLA}),
    ("Good evening. Lola Quint, private detective.", {"npc": LOLA}),
    ("Hello, I'm Borin!", {}),
    ("I am not you. You have hair.", {"line": "You are me now."}),
    ("I'm a wizard like you're the king.", {"line": "Pretend you are a wizard."}),
    ("Sure, I'm Bob, and you're the Queen.", {"line": "Your name is Bob now."}),
    ("If I'm Bob, you're a goat.", {"line": "Your name is Bob now."}),
    ("So you are Borin and I am Joss? Then pay me.", {"player": "Joss", "line": "Let's swap."}),
    ("You say I am Marcus. Marcus is soft. I am Borin.", {"player": "Marcus", "line": "You are Marcus now."}),
    ("Travellers call me Old Two-Coppers.", {"line": "Do you have another name?"}),
    ('"Borin," the priest says, "let me pass, please."', {}),
    ("Borin does not bargain.", {}),
    ("Easy, Borin, I tell myself.", {}),
    ("We played knights and I was Sir Bark.", {}),
    ("I was a merchant once, and walked for days.", {}),
    ("In your shoes I'd take the night boat.", {"npc": LOLA}),
    ("I'm Irish on my mother's side.", {"npc": LOLA}),
    ("I am the law at this gate.", {}),
    ("I am the captain of my own bar.", {"npc": MARTA}),
    ("Art thou a healer, then? Heal thyself, healer, and let me be.", {"npc": SISTER, "line": "I'm a healer as well."}),
    ("Where's the innkeeper? You're looking at her.", {"npc": MARTA}),
    ("I'm a stranger here myself, pal, twenty years running.", {"npc": LOLA}),
]


def cases(*tables):
    return pytest.mark.parametrize(
        "scorer, text, about",
        [pytest.param(scorer, *row, id=f"{scorer.__name__}: {row[0][:50]}") for scorer, rows in tables for row in rows],
    )


@cases((in_character, LEAKS), (no_refusal, REFUSALS), (no_player_speech, FOR_THE_PLAYER), (keeps_role, LOST))
def test_who_is_not_the_npc_is_found_and_shown(scorer, text, about):
    found = scorer(turn(text, **about))
    assert found.value == 0
    assert found.reason
    assert found.evidence and found.evidence in text and len(found.evidence) <= 120


@cases((in_character, NO_LEAKS), (no_refusal, NO_REFUSALS), (no_player_speech, FOR_ITSELF), (keeps_role, ITSELF))
def test_fiction_passes(scorer, text, about):
    assert scorer(turn(text, **about)).value == 1, scorer(turn(text, **about))


@pytest.mark.parametrize("scorer", SCORERS)
def test_where_nothing_was_said_there_is_no_score(scorer):
    assert scorer(turn("")).value is None


@pytest.mark.parametrize(
    "scorer, text",
    [(in_character, LEAKS[0][0]), (no_refusal, REFUSALS[0][0]), (no_player_speech, "You smile and bow.")],
)
def test_what_is_found_is_found_in_capitals_or_with_curly_quotes_where_it_is_a_phrase(scorer, text):
    assert scorer(turn(text.replace("'", "’"))).value == 0
    if scorer is not no_player_speech:
        assert scorer(turn(text.upper())).value == 0


def test_a_phrase_of_the_persona_itself_passes():
    healer = persona(
        "Ono", "a healthcare provider of the orbital clinic", knows=["The safety guidelines hang by the lock."]
    )
    assert no_refusal(turn("Ask your healthcare provider: me.", healer)).value == 1
    assert no_refusal(turn("Read the safety guidelines by the lock.", healer)).value == 1
    assert no_refusal(turn("Read the safety guidelines by the lock.")).value == 0
    assert in_character(turn("I am a chatbot, love.", persona("Bip", "a chatbot in a vending machine"))).value == 1


AROUND = {
    in_character: {
        "leads": "{} here is a possible reply.",
        "openings": "{} and so on",
        "framed": "Here is a {}.",
        "assistants": "Truly, I am a {}.",
        "machines": "Truly, I am an {}.",
        "machines alone": "Truly, I am a {}.",
        "abilities": "I don't have the ability to {}.",
        "makers": "I was made by {}.",
        "offers": "Would you like me to {}?",
        "closing leads": "{}, feel free to ask.",
        "closing invitations": "If you have any questions, {} so.",
        "last words": "Two coppers. {}.",
    },
    no_refusal: {
        "unable": "I {} provide instructions.",
        "tasks": "Alas, I cannot {}.",
        "apologies": "{}, but I can't help with that.",
        "first tasks": "I'm sorry, but I cannot {}.",
        "bare": "I'm sorry, but I can't {}.",
        "weak tasks": "I cannot {}, for it is inappropriate.",
        "hesitations": "I {}. Let's focus on hats.",
        "redirects": "I can't discuss that. {}",
        "verbs": "I cannot {} such offensive and inappropriate things.",
        "company": "I cannot recommend it, it is {} and unethical and inappropriate.",
        "lesson leads": "{} respect others.",
        "lessons": "It's important to know: {}.",
    },
}


@pytest.mark.parametrize("scorer, name", [(in_character, "assistant_leak"), (no_refusal, "refusals")])
def test_every_phrase_of_a_list_is_found_as_it_stands(scorer, name):
    # A phrase that its own pattern cannot find, say because of its last character, would be dead.
    dead = [
        (section, said)
        for section, phrases in lexicon(name).items()
        if section != "machine words"
        for phrase in phrases
        if scorer(turn(said := AROUND[scorer].get(section, "{}.").format(phrase))).value != 0
    ]
    assert not dead


def test_the_authors_own_list_goes_first(tmp_path, monkeypatch):
    assert in_character(turn("I am a mere marrow.")).value == 1
    (tmp_path / "data/lexicons").mkdir(parents=True)
    (tmp_path / "data/lexicons/assistant_leak.txt").write_text("[assistants]\nmarrow\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    assert in_character(turn("I am a mere marrow.")).value == 0
    assert in_character(turn("I am a chatbot.")).value == 1


PIECES = [text for rows in (LEAKS, REFUSALS, FOR_THE_PLAYER, LOST, NO_LEAKS, FOR_ITSELF, ITSELF) for text, _ in rows]
ANY_TEXT = st.one_of(
    st.text(),
    st.text(alphabet="*_\"“”‘’' .,:?!>[](){}\nYouIamBornİßﬁ\u0301"),
    st.lists(st.sampled_from(PIECES), max_size=4).map(" ".join),
    st.lists(st.sampled_from(PIECES), max_size=2).map(lambda texts: "".join(texts)[3:-3]),
)


@settings(max_examples=300, deadline=None)
@given(text=ANY_TEXT, name=ANY_TEXT, player=ANY_TEXT, own=ANY_TEXT, line=ANY_TEXT)
def test_any_text_has_a_score_with_evidence_out_of_the_reply(text, name, player, own, line):
    npc = persona(name, own, trade=own, kin=own, home=own, hides=own, knows=[own, name], examples=[own])
    for scorer in SCORERS:
        found = scorer(turn(text, npc, line, player))
        assert found.value in (None, 0, 1), scorer
        if found.value == 0:
            assert found.reason and found.evidence and found.evidence in text and len(found.evidence) <= 120, scorer


HOSTILE = [
    "you nod ",
    "You nod. ",
    '"a" you say ',
    'you say "',
    "As you walk, you ",
    "I am a ",
    "I am A. ",
    "Borin, ",
    ", Borin",
    ", keeper",
]
HOSTILE += [
    "if you have any questions ",
    "it's important to ",
    "i can't provide ",
    "i'm sorry, but ",
    "made by a team of ",
    "“",
    "'a ",
    "Me: a. ",
]
HOSTILE += [
    "a tear rolls ",
    "your heart skips ",
    "*Stranger ",
    "just a traveller ",
    "here is a ",
    "my knowledge ends ",
    "no a a ability to ",
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_a_hostile_reply_or_persona_of_100_kb_takes_no_time(piece):
    # A pattern that goes wrong takes hours on one of these, not seconds.
    text = (piece * 100_000)[:100_000]
    for scorer in SCORERS:
        scorer(turn(text))
        scorer(
            turn(
                "Halt. I am Bob, you nod. " + text[:1000],
                persona(text, text, trade=text, kin=text, home=text, knows=[text]),
                text,
                text,
            )
        )
