"""Whether the NPC remembers who it is."""

import re
from collections.abc import Iterator
from itertools import islice

from pipeline.records import Score, Turn
from pipeline.scorers.character import as_in_the_reply
from pipeline.scorers.lexicon import working_folder
from pipeline.scorers.part import READ, Lists, Role, capitals, lists_of, role_of
from pipeline.scorers.player import in_quotes
from pipeline.scorers.verdict import GOOD, SILENT
from pipeline.scorers.words import has_word, plain, words

_EVIDENCE = 120  # characters
_ENOUGH = 50  # places in a reply that are looked at more closely

_I_AM = re.compile(
    r"\b(?:I(?: am|['’]m| be)|(?:[Mm]y|[Tt]he) (?:true |real |new |full |given )?name(?: is| be|['’]s)|[Nn]ame['’]s|I go by"
    r"|(?:[Tt]hey|[Mm]en|[Yy]ou (?:can|may)|[Pp]lease) call me)\b"
)
_CALLED = re.compile(r"(?i:name|go by)")
_ADVERB = r"(?:(?:just|only|but|now|really|truly|indeed|simply|merely|still|called|known as|named)\s)?"
_CAPITALISED = r"[A-Z][a-z][\w-]*"
_NAME = re.compile(rf"\s{_ADVERB}({_CAPITALISED}(?:\s{_CAPITALISED}){{0,3}})(?=(['’]s?\b)?)")
# What may follow a name that is claimed: "I'm Tobin!", "I am Kaela of the north", but not "I'm Dunmark born".
_AFTER_NAME = re.compile(
    r"\s?(?:[.,;:!—–*\"”)]|-|\Z|\n|\s(?:of|now|and|from|the|here|again|today|at|son|daughter|to you)\b)"
)
_HERE = re.compile(rf"(?:\A|[.!?…*\n]\s?)[\"“]?({_CAPITALISED}(?:\s{_CAPITALISED})?) (?:here|speaking)[.,!—]")
_ROLE = re.compile(r"\s(?:(?:just|only|but|now|merely)\s)?(an?|the|your|thy)\s((?:[a-zA-Z][\w'’-]*\s?){1,4})")
_SWAPPED = re.compile(
    r"\bI(?: am|['’]m) (?:now )?you(?:,? now| and|[.,!]|\Z)|\b[Yy]ou(?: are|['’]re) (?:now )?me(?:,? now| and|[.,!]|\Z)"
)
# What turns a claim into none: if I am ..., you say that I am ..., so I'm ...?, and my aunt's a battleship.
_SUPPOSED = re.compile(
    r"\b(?:if|whether|think|thinks|thought|believe|say|says|said|claim|claims|call|that|pretend|pretended|suppose|like|was|were|when|until"
    r"|unless|wish|dreamt|dreamed|as though|as if|not|never|than|because)[,:]? (?:\w+ )?\Z", re.IGNORECASE
)  # fmt: skip
_JOKE = re.compile(
    r"\b(?:and|then|while|next)\b[^.!?\n]{0,12}\b(?:(?:I['’]m|I am|you['’]re|you are|he['’]s|she['’]s) (?:the |a |an )?"
    r"(?i:queen|king|pope|emperor|empress|duke|duchess|tsar|moon|sun|goose|goat|teapot|turnip|cabbage|mule|horse|saint)"
    r"|my \w+(?: is|['’]s) (?:a|an|the) )"
)
_ASKS_NAME = re.compile(r"\b(?:name|called|call you|call thee|who (?:are|art|goes)|whom|introduce)\b", re.IGNORECASE)
_THE_ONE = re.compile(r"\s(?:just |only |but |now )?the \w+(?:[.,;!]|\Z| of [A-Z])")
_SERVANT = re.compile(rf" (?:your|the|a|his|her) (?:[a-z]+ ){{1,3}}({_CAPITALISED})")
_PLAINLY = re.compile(
    r"[.!]|, (?:[A-Z]|I|a|an|the|and|your|from|of|at|son|daughter|wife|brother|sister)\b| (?:of|from|and I)\b|\Z"
)
_FORMAL = re.compile(
    r" (?:Brother|Sister|Father|Captain|Doctor|Sir|Ser|Lady|Lord|Master|Mistress|Miss|Mister|Mr|Mrs|Madam|Sergeant|Inspector)"
    r" [A-Z]"
)
_SENTENCE = re.compile(r"[.!?…\n]")
_INTRODUCES = re.compile(
    r"\b(?:introduce|present|name|called|myself|known|friend|yours|am|i'm|i’m|was)\b", re.IGNORECASE
)
_TRAVELLED = re.compile(
    r"\b(?:ridden|walked|travell?ed|sailed|marched|journeyed|come) (?:\w+ ){0,3}(?:days?|weeks|nights|far|miles|leagues|months)\b"
    r"|\bfor \w+ (?:days|nights|weeks) (?:I|we)\b",
    re.IGNORECASE,
)
_YOU = re.compile(r"\b(?:you|your|thou|thy|thee|ye)\b", re.IGNORECASE)
_THEN_YOU = re.compile(r"[.!?]? (?:thou|you) ")
_OF_ITSELF = re.compile(r"\b(?:was|been|am|i'm a|as)\b")
_LISTED = re.compile(r"\b[\w-]+, (?:an? )?[\w-]+, \Z")
_APPOSITION = re.compile(r",\s+(?:the|an?|your|at|and|my|of)\b|\s(?:here|speaking|of|the)\b")
_NOW = re.compile(r"\b(?:(?:you|i)(?:'re| are|'m| am)|thou art)\b[^.!?]{0,40}\bnow\b|\bnow (?:you|i)\b")


_YOU_ARE_A = re.compile(
    r"\b(?:you|thou|you're|to be|act|play|as|like|pretend|art|are)(?: now| are now| are| be)? (?:an?|the|my) ((?:[\w-]+ ?){1,4})"
)
_NO_NOUNS = frozenset(["called", "named", "with", "from", "that", "very", "good", "little", "and", "the", "who", "now"])
_PRONOUNS = frozenset(
    ["i", "i'm", "i’m", "you", "you're", "you’re", "let", "let's", "let’s", "from", "now", "your", "pretend"]
)
_CLAIMING = frozenset(["am", "i'm", "name", "name's"])  # a claim has one of these, or "I be", "call me", "I go by"


def keeps_role(turn: Turn) -> Score:
    """1 unless it loses who it is: takes on another's name or the player's part, greets the player by its own name, comes as a
    customer to its own trade.

    Rejections, jokes, quotations, disguises in stories, and speaking of itself by its name pass.
    """
    if not turn.text:
        return SILENT
    for reason, span in _slips(turn):
        return Score(0.0, reason, span[:_EVIDENCE].strip())
    return GOOD


def _slips(turn: Turn) -> Iterator[tuple[str, str]]:
    text, npc = turn.text, turn.item.npc
    role, lists, said = role_of(npc), lists_of(working_folder()), words(text)
    if role.names[0] in text or role.names[-1] in text or (len(role.names) > 2 and role.names[1] in text):
        yield from _called_by_own_name(role, lists, text)
    if not role.trade_words.isdisjoint(said) and role.trade_words.isdisjoint(_player_words(turn)):
        yield from _hailed(role, lists, text)
    if not lists.visitors.isdisjoint(said):
        yield from _comes_as_a_visitor(role, lists, text)
    if role.home and role.home in said and (match := role.at_yours.search(text)) and _comes_from_afar(text, lists):
        yield "comes as a visitor", match[0]
    if not _CLAIMING.isdisjoint(said) or "I be" in text or "call me" in text or "re me" in text or "I go" in text:
        if (match := _SWAPPED.search(text)) and _is_claimed(match, text) and _moves_roles(turn, role, lists):
            yield "takes the player's part", match[0]
        for match in islice(_I_AM.finditer(text), _ENOUGH):
            yield from _claims(match, role, lists, turn)
    if " here" in text or "speaking" in text:
        for match in islice(_HERE.finditer(text), _ENOUGH):
            tokens = _tokens(match[1], lists)
            if tokens and not tokens & role.own and tokens & (role.others | _proposed(turn, role, lists)):
                yield "introduces itself as somebody else", match[0].strip(' .!?"*\n')


def _claims(match: re.Match[str], role: Role, lists: Lists, turn: Turn) -> Iterator[tuple[str, str]]:
    """I am Captain Doyle. I am the miller. I'm a dragon now."""
    text = turn.text
    if name := _NAME.match(text, match.end()):
        tokens = _tokens(name[1], lists)
        if not tokens or name[2] or _is_own(tokens, role) or not _is_claimed(match, text, name.end()):
            return
        claimed = text[match.start() : name.end()]
        if _AFTER_NAME.match(text[name.end() : name.end() + 12]) and _somebody_else(tokens, match, role, lists, turn):
            yield "introduces itself as somebody else", claimed
        return
    servant = _SERVANT.match(text, match.end())
    if (
        servant
        and _tokens(servant[1], lists) & _proposed(turn, role, lists)
        and _is_claimed(match, text, servant.end())
    ):
        yield "introduces itself as somebody else", text[match.start() : servant.end()]
    noun = _ROLE.match(text, match.end())
    if noun is None or "call" in match[0] or not _is_claimed(match, text, noun.end()):
        return
    claimed, nouns = text[match.start() : noun.end()], plain(noun[2]).split()
    if noun[1] == "the" and nouns[:1] and nouns[0] in role.known and _THE_ONE.match(text, match.end()):
        yield "claims somebody else's place", claimed
    elif "like" not in nouns and any(
        word in _assigned(turn, lists, role) and not has_word(word, role.about) for word in nouns
    ):
        yield "takes on another role", claimed


def _somebody_else(tokens: set[str], match: re.Match[str], role: Role, lists: Lists, turn: Turn) -> bool:
    player = {part.casefold() for part in turn.item.player.split()} - lists.titles - lists.visitors
    if tokens & (role.others | player) or tokens & _proposed(turn, role, lists):
        return True
    if tokens & role.places or any(name in turn.text for name in role.names):
        return False
    if any(token.endswith(lists.demonyms) for token in tokens):
        return False
    if "call" in match[0]:  # but for a formal name, a nickname
        return bool(_ASKS_NAME.search(turn.line[:READ])) and _FORMAL.match(turn.text, match.end()) is not None
    if _CALLED.search(match[0]):
        return True
    name = _NAME.match(turn.text, match.end())
    return bool(name and _ASKS_NAME.search(turn.line[:READ]) and _PLAINLY.match(turn.text, name.end()))


def _called_by_own_name(role: Role, lists: Lists, text: str) -> Iterator[tuple[str, str]]:
    for how, start, end in islice(role.addressed(text), _ENOUGH):
        if in_quotes(start, text) or _APPOSITION.match(text, end + 2 * (how == "first")):
            continue
        if how == "greets":
            yield "greets the player by its own name", text[start:end]
            continue
        before = _SENTENCE.split(text[max(0, start - 160) : start])[-1]
        after = text[end + 2 * (how == "first") : end + 62].lower().replace("’", "'")
        if how == "first" and lists.requests.match(after):
            yield "calls the player by its own name", text[start : end + 32]
        elif (
            how == "last" and not _INTRODUCES.search(before) and lists.requests.search(before.lower().replace("’", "'"))
        ):
            yield "calls the player by its own name", (before + text[start:end]).strip()


def _hailed(role: Role, lists: Lists, text: str) -> Iterator[tuple[str, str]]:
    simple = plain(text)
    if not any(trade in simple for trade in role.trades):
        return
    for match in islice(role.sought.finditer(simple), _ENOUGH):
        if not _quoted_in_plain(match, simple):
            yield "seeks its own trade", as_in_the_reply(match, text)
    for match in islice(role.hailed.finditer(simple), _ENOUGH):
        before = _SENTENCE.split(simple[max(0, match.start() - 160) : match.start()])[-1]
        after = simple[match.end() : match.end() + 80]
        if _quoted_in_plain(match, simple) or _LISTED.search(before + ", ") or _OF_ITSELF.search(before):
            continue
        if any(f"{plain(name)}{match[0][:1]}" in before + match[0] for name in role.names):
            continue
        if (
            lists.requests.search(before)
            or lists.requests.search(after)
            or _YOU.search(before)
            or _THEN_YOU.match(after)
        ):
            yield "takes the player for one of its own trade", as_in_the_reply(match, text).strip(", ")


def _comes_as_a_visitor(role: Role, lists: Lists, text: str) -> Iterator[tuple[str, str]]:
    simple = plain(text)
    for match in islice(lists.visitor.finditer(simple), _ENOUGH):
        if (
            has_word(match["what"], role.about)
            or _quoted_in_plain(match, simple)
            or _SUPPOSED.search(simple[max(0, match.start() - 30) : match.start()])
        ):
            continue
        if _comes_from_afar(simple[max(0, match.start() - 160) : match.end() + 160], lists):
            yield "comes as a visitor", as_in_the_reply(match, text).strip(" .!?,")


def _comes_from_afar(text: str, lists: Lists) -> bool:
    return bool(lists.visits.search(plain(text)) or _TRAVELLED.search(text))


def _moves_roles(turn: Turn, role: Role, lists: Lists) -> bool:
    """Whether the player moves the roles about, or calls himself by the NPC's name."""
    line = plain(turn.line[:READ])
    if lists.swaps.search(line) or _NOW.search(line):
        return True
    return any(re.search(rf"\b(?:i am|i'm) (?:\w+ )?{re.escape(plain(name))}(?!\w)", line) for name in role.names)


def _proposed(turn: Turn, role: Role, lists: Lists) -> set[str]:
    """Names that the player would have it bear."""
    if not _moves_roles(turn, role, lists):
        return set()
    return {word.casefold() for word in capitals(turn.line[:READ])} - role.own - lists.titles - _PRONOUNS


def _assigned(turn: Turn, lists: Lists, role: Role) -> set[str]:
    """Nouns that the player would have it be: the pirate of "you are now a pirate"."""
    line = plain(turn.line[:READ])
    if not _moves_roles(turn, role, lists):
        return set()
    found = _YOU_ARE_A.findall(line)
    return {word for phrase in found for word in phrase.split() if len(word) > 2} - _NO_NOUNS


def _is_claimed(match: re.Match[str], text: str, end: int | None = None) -> bool:
    """Not in a question, in a quotation, under an if, or for a joke."""
    end = match.end() if end is None else end
    if _SUPPOSED.search(text[max(0, match.start() - 30) : match.start()]) or in_quotes(match.start(), text):
        return False
    if re.match(r"[^.!?\n]{0,60}\?", text[end : end + 62]):
        return False
    return not _JOKE.search(text[end : end + 160])


def _is_own(tokens: set[str], role: Role) -> bool:
    """Its name, or a short form of it."""
    return any(
        token in role.own or any(len(token) > 2 and own.startswith(token[:4]) for own in role.own) for token in tokens
    )


def _tokens(name: str, lists: Lists) -> set[str]:
    return {part.casefold() for part in name.split()} - lists.titles


def _player_words(turn: Turn) -> set[str]:
    """Of all that the player has said: whoever claims to be a healer may be called one."""
    before = turn.request.messages if turn.request else ()
    return {
        word
        for line in (turn.line, *(message.content for message in before if message.role == "user"))
        for word in words(line)
    }


def _quoted_in_plain(match: re.Match[str], simple: str) -> bool:
    return in_quotes(match.start() + 1, simple)
