"""Conversations that people already have: rows of a dataset, or what NPCs of a game remember, in one shape.

    messages                    [{"role": ..., "content": ...}], as chat models are trained on
    conversations               [{"from": ..., "value": ...}], ShareGPT's
    prompt + completion         or response, output, answer, chosen; a text or messages
    instruction (+ input)       + output
    chat_memory                 of NPCs out of Evennia: each player's is a conversation
    mes, is_user                the lines of a chat of SillyTavern, which is a file

Who the NPC is, the row says in other columns (see columns.py), or a list of personas does that it is looked up in, or else the
system message. What is no text, no turn of a player and an NPC, is a row that costs itself.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.personas.cards import BadCard
from pipeline.personas.columns import Columns
from pipeline.personas.evennia import is_npc, memories, plain
from pipeline.personas.load import Checked, personas_of, problem_with
from pipeline.personas.rows import Found, read_rows
from pipeline.personas.schema import Persona
from pipeline.personas.shapes import as_persona
from pipeline.records import Message, Role, Row, digest

MOST_MESSAGES = 10_000  # of one conversation

_ROLES: dict[str, Role] = {
    **{"system": "system", "developer": "system"},
    **dict.fromkeys(("user", "human", "player", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "npc", "model", "char", "character", "chatgpt"), "assistant"),
}
_TALKS = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat")
_PROMPTS = ("prompt", "instruction", "question", "query")
_REPLIES = ("completion", "response", "output", "answer", "chosen", "reply")
_SAID = {*_TALKS, *_PROMPTS, *_REPLIES, "input", "rejected", "text", "chat_memory"}
_NAMED = re.compile(
    r"\b(?i:you are|you're|(?:role-?play(?:ing)?|act(?:ing)?) as|your name is|name is|playing)\s+"
    r"(?:named |called )?([A-Z][\w'’-]*(?: (?:(?:of|the|de|von|van) )?[A-Z][\w'’-]*){0,3})",
)
_PLAYERS = ("player", "player_name", "user_name")
ALSO = ("messages", "prompt", "completion", "player")  # what --map may name here besides


class NoTalk(ValueError):
    """No conversation that can be read. The message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """`persona` has all its fields; `system` is the data's own system message. `messages` go to and fro: player, NPC."""

    id: str
    persona: dict[str, Any]
    player: str
    system: str | None
    category: str
    messages: tuple[Message, ...]


class Cast:
    """Personas by id and by name, for conversations that only name them."""

    def __init__(self, source: str | None, columns: Sequence[str], checked: Checked) -> None:
        self._by_name: dict[str, dict[str, Any]] = {}
        self._all: list[dict[str, Any]] = []
        if source is not None:
            for persona in personas_of(source, checked, columns=columns):
                self._all.append(persona)
                self._by_name.setdefault(persona["name"].casefold(), persona)
            self._by_name |= {persona["id"].casefold(): persona for persona in self._all}

    def find(self, named: Row) -> dict[str, Any] | None:
        """The persona that `named`, a row by our names, is about; the only one, where the row names nobody."""
        for field in ("id", "name"):
            found = self._by_name.get(str(named.get(field, "")).strip().casefold())
            if found:
                return found
        return self._all[0] if len(self._all) == 1 and not named.get("name") else None


def conversations_of(
    source: str, checked: Checked, *, cast: Cast, columns: Sequence[str] = (), strict: bool = False
) -> Iterator[Conversation]:
    """All conversations in which an NPC answers a player. Raises ConfigError as `load_personas` does."""
    named = Columns(columns, ALSO)
    seen: set[int] = set()
    for found in _whole(read_rows(source, "conversations", ())):
        try:
            if found.row is None:
                raise NoTalk(found.problem)
            talks = list(_talks(found.row, named, cast))
        except (NoTalk, BadCard, ValueError) as exc:
            checked.refuse(found.where, problem_with(exc, found.row, Persona), strict=strict)
            continue
        for talk in talks:
            if hash(talk.id) not in seen:  # the same one twice trains nothing new
                seen.add(hash(talk.id))
                yield talk
        checked.good += 1
    checked.tell(source, named)
    if not checked.good:
        checked.none_usable(source, "conversations")


def _whole(rows: Iterator[Found]) -> Iterator[Found]:
    """With the lines of each chat of SillyTavern as one row. A chat begins with a line that says who talks."""
    chat: Found | None = None
    for found in rows:
        row = found.row or {}
        file = found.where.rpartition(":")[0]
        is_head, is_line = (
            "user_name" in row and "character_name" in row and "mes" not in row,
            "is_user" in row and "mes" in row,
        )
        if chat is not None and (is_head or not is_line or not chat.where.startswith(f"{file}:")):
            yield chat
            chat = None
        if not is_head and not is_line:
            yield found
            continue
        if chat is None:
            names = {name: row[name] for name in ("user_name", "character_name") if name in row}
            chat = Found(found.where, {**names, "messages": []})
        assert chat.row is not None
        if is_line and not row.get("is_system"):
            chat.row["messages"].append({"role": "user" if row["is_user"] else "assistant", "content": row["mes"]})
            if not row["is_user"] and "character_name" not in chat.row and row.get("name"):
                chat = replace(chat, row={**chat.row, "character_name": row["name"]})
    if chat is not None:
        yield chat


def _talks(row: Row, named: Columns, cast: Cast) -> Iterator[Conversation]:
    if is_npc(row):
        persona = cast.find({"name": plain(row["key"])}) or _checked(as_persona(row, named))
        own = {plain(row["key"]).casefold(), persona["name"].casefold()}
        for player, lines in memories(row):
            turns = [
                Message(role="assistant" if who.casefold() in own else "user", content=text) for who, text in lines
            ]
            if talk := _conversation(persona, turns, player=player, given="", category="memory"):
                yield talk
        return
    row = {**row, **{name: value for name, value in named.given(row).items() if name in ALSO}}
    about = named.named({name: value for name, value in row.items() if name not in _SAID and name != "id"})
    turns = _turns(row, str(about.get("name", "")))
    if not any(turn.role == "assistant" for turn in turns):
        raise NoTalk("nobody answers in it")
    system = "\n".join(turn.content for turn in turns if turn.role == "system").strip()
    given = next((str(row[name]) for name in ("persona_id", "character_id", "npc_id") if name in row), "")
    persona = cast.find({"id": given, "name": about.get("name")}) or _checked(_told_by(system, about))
    player = next(
        (str(row[name]) for name in _PLAYERS if isinstance(row.get(name), str) and row[name].strip()), "Stranger"
    )
    category = row.get("category")
    talk = _conversation(
        persona,
        turns,
        player=player,
        given=str(row.get("id", "")),
        category=category if isinstance(category, str) else "talk",
    )
    if talk is None:
        raise NoTalk("no answer to a player in it")
    yield talk


def _told_by(system: str, about: dict[str, Any]) -> dict[str, Any]:
    """A persona of what the row says about it, and for the rest of its system message."""
    if not about.get("name"):
        match = _NAMED.search(system)
        about = {**about, "name": match[1] if match else "NPC"}
    if not about.get("description"):
        about = {**about, "description": system or "somebody of whom nothing is known"}
    return Columns().named(about)


def _checked(row: dict[str, Any]) -> dict[str, Any]:
    return Persona.model_validate(row).model_dump()


def _turns(row: Row, own_name: str) -> list[Message]:
    for name in _TALKS:
        if isinstance(row.get(name), list | tuple):
            return _messages(row[name], own_name)
    prompt = next((row[name] for name in _PROMPTS if row.get(name)), None)
    reply = next((row[name] for name in _REPLIES if row.get(name)), None)
    if prompt is None or reply is None:
        there = ", ".join(str(name) for name in list(row)[:20])
        raise NoTalk(f"no conversation in it: no messages, conversations, or prompt with completion. Found: {there}")
    asked = _messages(prompt, own_name) if isinstance(prompt, list) else [Message(role="user", content=_text(prompt))]
    if isinstance(row.get("input"), str) and row["input"].strip() and "instruction" in row:
        asked = [*asked, Message(role="user", content=row["input"])]
    said = _messages(reply, own_name) if isinstance(reply, list) else [Message(role="assistant", content=_text(reply))]
    # TRL's preference rows may have the prompt in the reply, too.
    return said if said[: len(asked)] == asked else [*asked, *said]


def _messages(value: Sequence[Any], own_name: str) -> list[Message]:
    if len(value) > MOST_MESSAGES:
        raise NoTalk(f"{len(value)} messages in one conversation; {MOST_MESSAGES} are allowed")
    found = []
    for number, one in enumerate(value, 1):
        if not isinstance(one, Mapping):
            raise NoTalk(f"message {number} is {type(one).__name__}, where role and content are expected")
        role, content = one.get("role", one.get("from")), one.get("content", one.get("value"))
        if str(role).lower() in ("tool", "function", "function_call", "observation"):
            continue
        known = _ROLES.get(str(role).lower())
        if known is None and own_name and str(role).casefold() == own_name.casefold():
            known = "assistant"
        if known is None:
            raise NoTalk(f"message {number} is of {str(role)[:40]!r}; it can be of {', '.join(_ROLES)}")
        found.append(Message(role=known, content=_text(content)))
    return found


def _text(value: Any) -> str:
    """Also of content in parts, of which only texts are for us."""
    if isinstance(value, list):
        return "\n".join(str(part["text"]) for part in value if isinstance(part, Mapping) and part.get("text"))
    if value is not None and not isinstance(value, str):
        raise NoTalk(f"a {type(value).__name__} where a text is expected")
    return value or ""


def _conversation(
    persona: dict[str, Any], turns: list[Message], *, player: str, given: str, category: str
) -> Conversation | None:
    """None, if the NPC answers nobody in it."""
    system = "\n\n".join(turn.content.strip() for turn in turns if turn.role == "system").strip()
    merged: list[Message] = []
    for turn in turns:
        text = turn.content.strip()
        if turn.role == "system" or not text:
            continue
        if merged and merged[-1].role == turn.role:
            merged[-1] = Message(role=turn.role, content=f"{merged[-1].content}\n{text}")
        else:
            merged.append(Message(role=turn.role, content=text))
    if merged and merged[-1].role == "user":
        merged.pop()  # nobody has answered yet
    if not any(one.role == "assistant" for one in merged[1:]):
        return None
    mark = digest(persona["id"], player, system, [(one.role, one.content) for one in merged])[:12]
    name = f"{given[:60]}-{mark}" if given else f"talk-{mark}"
    return Conversation(
        id=name, persona=persona, player=player, system=system or None, category=category, messages=tuple(merged)
    )
