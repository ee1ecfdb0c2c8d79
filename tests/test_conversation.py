"""What becomes of a reply before anybody sees it, and of a system message where a model has no place for one."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.client.thinking import Thinking, without_thinking
from pipeline.dialects import DIALECTS
from pipeline.prompts.templates import TemplateFailed, Templates
from pipeline.records import Completion, Exchange, GenerateConfig, Item, Message, digest
from pipeline.run.conversation import Script, Talk, clean, merged
from pipeline.run.ending import ending, says_farewell
from pipeline.run.journal import Journal


def system(text):
    return Message(role="system", content=text)


def user(text):
    return Message(role="user", content=text)


@pytest.mark.parametrize(
    "text, said",
    [
        ("  Safe as ever. \n", "Safe as ever."),
        ("Mira: Safe as ever.", "Safe as ever."),
        ("Mira : Safe as ever.", "Safe as ever."),
        ("**Mira:** Safe as ever.", "Safe as ever."),
        ("**Mira**: Safe as ever.", "Safe as ever."),
        ("[Mira]: Safe as ever.", "Safe as ever."),
        ("[Mira: Safe as ever.]", "[Mira: Safe as ever.]"),
        ("Mira, the ferry is late.", "Mira, the ferry is late."),
        ("Miranda: hello", "Miranda: hello"),
        ("<think>Hm. Mira would</think>\n\nMira: Safe.", "Safe."),
        ("<think>a thought that never ends", ""),
        ("The player asks.\n</think>\nSafe.", "Safe."),  # the prompt had opened it
        ("I say <think>aloud</think>.", "I say <think>aloud</think>."),
        ("<THINK>no tag", "<THINK>no tag"),
        ("", ""),
        ("Mira:", ""),
    ],
)
def test_a_reply_is_what_the_npc_says(text, said):
    assert clean(text, "Mira") == said


def test_what_a_server_did_not_stop_at_is_cut_off():
    stop = ("\nAnna:", "\nMira:")
    assert clean(" Safe as ever.\nAnna: And tomorrow?\nMira: Ask tomorrow.", "Mira", stop) == "Safe as ever."
    assert clean("\nMira: Safe as ever.\nAnna:", "Mira", stop) == "Safe as ever."
    assert clean("\nAnna: And tomorrow?", "Mira", stop) == ""  # nothing was said before it


@given(st.text(max_size=60), st.text(min_size=1, max_size=10))
def test_cleaning_never_fails_and_only_takes_away(text, name):
    assert clean(text, name) in text


@pytest.mark.parametrize(
    "text, hidden",
    [
        ("Safe as ever.", ""),
        ("<think>Hm.</think>Safe.", "<think>Hm.</think>"),
        (" \n<think>Hm.</think>\n\nSafe.", " \n<think>Hm.</think>\n\n"),
        ("<thin air>", ""),
        ("<think>never ends", "<think>never ends"),
        ("<thinking>a <think>b</think></thinking>c", "<thinking>a <think>b</think></thinking>"),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 100])
def test_what_is_thought_is_hidden_and_the_first_word_said_is_not(text, hidden, size):
    thinking = Thinking()
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    seen = [piece for piece in pieces if not thinking.feed(piece)]
    shown = "".join(seen)
    assert text.removeprefix(hidden).strip().endswith(shown.strip()) or shown.endswith(text.removeprefix(hidden))
    assert bool(shown.strip()) == bool(without_thinking(text).strip())


@pytest.mark.parametrize(
    "messages, wanted",
    [
        ((system("A"), user("b")), (user("A\n\nb"),)),
        ((system("A"), system("B"), user("c")), (user("A\n\nB\n\nc"),)),
        ((user("b"),), (user("b"),)),
        ((system("A"),), (user("A"),)),
        (
            (system("A"), Message(role="assistant", content="Aye."), user("b")),
            (user("A"), Message(role="assistant", content="Aye."), user("b")),
        ),
    ],
)
def test_a_system_message_goes_to_the_head_of_the_players_first(messages, wanted):
    assert merged(messages) == wanted


def script(template: str, folder, **options) -> Script:
    (folder / "mine.j2").write_text(template, "utf-8")
    prompt = Templates(str(folder)).prompt("mine")
    return Script(prompt=prompt, text_format=None, config=GenerateConfig(), run_seed=0, identity="m", **options)


def question(arm: str = "") -> Item:
    npc = SimpleNamespace(id="mira", name="Mira")
    return Item(npc=npc, scenario_id="s", category="c", player="P", lines=("Who?",), template="mine", sample=0, arm=arm)


WHOLE = "{% block system %}You are {{ npc.name }}.{% endblock %}{% block user %}{{ line }}{% endblock %}"


@pytest.mark.parametrize("merge", [False, True])
def test_for_contrast_nothing_is_asked_but_the_line(merge, tmp_path):
    found = script(WHOLE, tmp_path, merge_system=merge)
    assert found.request(question("contrast")).messages == (user("Who?"),)
    assert "You are Mira." in found.request(question()).text


def test_with_and_without_the_persona_are_two_questions(tmp_path):
    found = script(WHOLE, tmp_path)
    assert found.ask(question(), 0).key != found.ask(question("contrast"), 1).key


def test_a_prompt_that_is_all_persona_cannot_be_asked_without(tmp_path):
    found = script("{% block system %}You are {{ npc.name }}, asked: {{ line }}{% endblock %}", tmp_path)
    with pytest.raises(TemplateFailed, match="without its system message nothing is left"):
        found.request(question("contrast"))


# Several turns


def scene(*lines: str, **fields) -> Item:
    npc = SimpleNamespace(id="mira", name="Mira")
    about = {"scenario_id": "s", "category": "c", "player": "Anna", "template": "mine", "sample": 0} | fields
    return Item(npc=npc, lines=lines or ("Who?",), **about)


def npc(text):
    return Message(role="assistant", content=text)


PLAYER = "{% block system %}Get {{ goal }} out of {{ npc.name }}.{% endblock %}{% block user %}*looks up*{% endblock %}"


def play(script, item, journal, say=lambda ask, number: f"{ask.speaker} {number}.", most=99):
    """A conversation with whoever says `say(ask, number)`: what was asked, and the turns."""
    journal.freeze()
    talk = Talk(script, item, 0, journal, DIALECTS["openai"])
    asked = []
    while len(asked) < most and (ask := talk.open()):
        asked.append(ask)
        talk.heard(Completion(text=say(ask, len(asked) - 1)))
    return asked, talk.turns()


def with_player(folder, **options) -> Script:
    found = script(WHOLE, folder, **options)
    (folder / "player.j2").write_text(PLAYER, "utf-8")
    prompt = Templates(str(folder)).prompt("player", "player")
    return replace(found, player=replace(found, prompt=prompt, identity="p", player=None))


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "npc.jsonl")
    yield journal
    journal.close()


def test_the_lines_of_a_scenario_are_said_one_after_the_other(tmp_path, journal):
    asked, turns = play(script(WHOLE, tmp_path, turns=3), scene("One?", "Two?", "Three?"), journal)
    assert asked[2].request.messages == (
        *(system("You are Mira."), user("One?"), npc("npc 0.")),
        *(user("Two?"), npc("npc 1."), user("Three?")),
    )
    assert [(turn.number, turn.line, turn.text, turn.ended) for turn in turns] == [
        (0, "One?", "npc 0.", ""),
        (1, "Two?", "npc 1.", ""),
        (2, "Three?", "npc 2.", "turns"),
    ]
    assert turns[2].history == (Exchange("One?", "npc 0."), Exchange("Two?", "npc 1."))


@pytest.mark.parametrize("turns, said, why", [(1, 1, "turns"), (2, 2, "turns"), (9, 3, "script"), (None, 3, "script")])
def test_without_a_simulated_player_it_ends_with_the_lines_or_with_the_turns(turns, said, why, tmp_path, journal):
    _, found = play(script(WHOLE, tmp_path, turns=turns), scene("One?", "Two?", "Three?"), journal)
    assert len(found) == said and found[-1].ended == why


def test_a_conversation_begins_as_one_of_a_single_turn_does(tmp_path):
    """The same request, the same key: a run of one turn is where a longer one goes on from."""
    one, more = script(WHOLE, tmp_path), with_player(tmp_path, turns=6)
    item = scene("One?", "Two?")
    assert one.ask(item, 0).key == more.ask(item, 0).key
    assert one.ask(item, 0).request == more.ask(item, 0).request
    # As it was before there were conversations.
    assert one.ask(item, 0).key == digest(f"{item.item_id}/0/npc", one.request(item).key("m"))
    assert item.item_id == digest("mira", "s", "mine", "", 0)


def test_who_plays_the_player_sees_it_from_the_other_side(tmp_path, journal):
    asked, turns = play(with_player(tmp_path, turns=3), scene("One?", goal="the key"), journal)
    assert [ask.speaker for ask in asked] == ["npc", "player", "npc", "player", "npc"]
    assert asked[3].request.messages == (
        *(system("Get the key out of Mira."), user("*looks up*")),
        *(npc("One?"), user("npc 0."), npc("player 1."), user("npc 2.")),
    )
    assert [turn.line for turn in turns] == ["One?", "player 1.", "player 3."]
    assert "the key" not in "".join(ask.request.text for ask in asked if ask.speaker == "npc")
    assert len({ask.key for ask in asked}) == len({ask.request.config.seed for ask in asked}) == 5


def test_as_text_each_speaks_under_its_own_name(tmp_path, journal):
    (tmp_path / "formats").mkdir()
    text = "{% for m in messages %}{{ player if m.role == 'user' else npc.name }}: {{ m.content }}\n{% endfor %}{{ npc.name }}:"
    (tmp_path / "formats" / "plain.j2").write_text(text, "utf-8")
    form = Templates(str(tmp_path)).text_format("plain")
    found = with_player(tmp_path, turns=2)
    found = replace(found, text_format=form, player=replace(found.player, text_format=form))
    asked, turns = play(
        found, scene("One?"), journal, lambda ask, n: f"{n}.\n{ {'npc': 'Anna', 'player': 'Mira'}[ask.speaker] }: no"
    )
    assert asked[1].request.prompt.endswith("Anna: One?\nMira: 0.\nAnna: no\nAnna:")
    assert turns[1].line == "1."  # the player says nothing for Mira


@pytest.mark.parametrize(
    "window, sent",
    [(25, ["One?", "npc 0.", "Two?", "npc 1.", "Three?"]), (4, ["Two?", "npc 1.", "Three?"]), (1, ["Three?"])],
)
def test_of_a_long_conversation_the_oldest_goes_first_and_the_system_message_never(window, sent, tmp_path, journal):
    found = script(WHOLE, tmp_path, turns=3, window=window)
    asked, turns = play(found, scene("One?", "Two?", "Three?"), journal)
    assert [message.content for message in asked[2].request.messages] == ["You are Mira.", *sent]
    assert len(turns[2].history) == len(sent) // 2


def test_what_the_context_has_no_room_for_is_left_out(tmp_path, journal):
    item = scene(*(f"{n} " + "word " * 60 for n in range(6)))
    asked, _ = play(script(WHOLE, tmp_path, turns=6, room=400), item, journal, lambda ask, n: "aye " * 60)
    sizes = [len(ask.request.text.encode()) / 3 for ask in asked]
    assert max(sizes) <= 400 and len(asked[-1].history) == 1
    tight, _ = play(script(WHOLE, tmp_path, turns=6, room=1), item, journal)
    assert all(len(ask.request.messages) == 2 for ask in tight)  # the line itself always


@pytest.mark.parametrize(
    "says, why, said",
    [
        ({2: "Safe travels, stranger."}, "farewell", 2),
        ({1: "Goodbye!"}, "farewell", 2),  # the NPC may answer it
        ({0: "No.", 1: "Tell me.", 2: "No.", 3: "Tell me.", 4: "no"}, "repetition", 3),
        ({1: "A.", 2: "No.", 3: "B.", 4: "No."}, "turns", 5),  # only one of them does
        ({1: "Tell  me.\nMira: I will."}, "turns", 5),
        ({1: " "}, "silence", 1),
        ({2: ""}, "silence", 2),
    ],
)
def test_what_a_simulated_player_goes_on_with_has_its_own_ends(says, why, said, tmp_path, journal):
    say = lambda ask, number: says.get(number, f"{ask.speaker} {number}.")  # noqa: E731
    _, turns = play(with_player(tmp_path, turns=5), scene("Hm?"), journal, say)
    assert (turns[-1].ended, len(turns)) == (why, said)
    assert not any(turn.ended for turn in turns[:-1])


def test_what_the_author_wrote_is_said_to_its_end(tmp_path, journal):
    lines = ("Goodbye.", "Goodbye.", "Goodbye.")
    _, turns = play(with_player(tmp_path, turns=9), scene(*lines), journal, lambda ask, number: "Farewell.")
    assert [turn.line for turn in turns] == [*lines] and turns[-1].ended == "farewell"


def test_what_nobody_has_answered_yet_is_one_open_turn(tmp_path, journal):
    found = with_player(tmp_path, turns=4)
    for asked, line in ((0, "One?"), (1, ""), (2, "player 1.")):
        _, turns = play(found, scene("One?"), journal, most=asked)
        assert (len(turns), turns[-1].line) == ((asked + 1) // 2 + 1 if asked else 1, line)
        assert turns[-1].open and turns[-1].error is None and not turns[-1].ended


def test_for_contrast_there_is_one_turn(tmp_path, journal):
    _, turns = play(with_player(tmp_path, turns=4), scene("One?", arm="contrast"), journal)
    assert len(turns) == 1 and turns[0].ended


@pytest.mark.parametrize(
    "text, is_one",
    [
        ("Farewell, traveller!", True),
        ("Aye. Safe travels to you.", True),
        ("The mule is yours. So long!", True),
        ("Well, goodbye then", True),
        ("Ich muss los. Auf Wiedersehen!", True),
        ("So long as you pay.", False),
        ("Goodbye?", False),
        ("I never say goodbye to customers.", False),
        ("Safe travels. That will be five coins first.", False),
        ("Until then the gate stays shut.", False),
        ("Good evening.", False),
        ("...", False),
        ("", False),
    ],
)
def test_a_farewell_is_what_ends_a_text(text, is_one):
    assert says_farewell(text) == is_one


@given(st.lists(st.tuples(st.text(max_size=40), st.text(max_size=40)), min_size=1, max_size=5))
def test_an_ending_is_found_in_any_text(said):
    assert ending([Exchange(*one) for one in said]) in ("", "farewell", "repetition")
