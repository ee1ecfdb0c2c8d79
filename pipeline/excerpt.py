"""A few replies as a person reads them: plain text in a terminal, HTML in a notebook.

What personas, players and models say is data: a terminal obeys none of it, a notebook renders none of it, and all of it ends
somewhere.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.curation.criteria import DUPLICATE
from pipeline.dataset.make import one_line
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd
    from markupsafe import Markup

_LONGEST = 600  # characters of a text that are shown
_PASSES, _FAILS = "#0072b2", "#d55e00"  # of Okabe and Ito's palette, which everybody can tell apart


@dataclass(frozen=True, slots=True)
class Shown:
    """One reply; `seconds` is None where nobody looked at a clock. `flaws` say what it fails, why, and by which words."""

    persona: str
    scenario: str
    line: str
    reply: str
    seconds: float | None
    flaws: tuple[str, ...]

    @property
    def head(self) -> str:
        took = "" if self.seconds is None else f", {self.seconds:.2f} s"
        return f"{self.persona} / {self.scenario}{took}{'' if self.flaws else ', passes'}"

    def _text(self) -> str:
        return "\n".join(
            [self.head, f"  player: {self.line}", f"  npc:    {self.reply}", *(f"  {f}" for f in self.flaws)]
        )

    def _html(self) -> "Markup":
        from markupsafe import Markup

        colour = _FAILS if self.flaws else _PASSES
        part = Markup('<div style="{}">{}</div>')
        parts = [
            part.format("opacity:.7", self.head),
            part.format("font-style:italic", self.line),
            part.format("", self.reply),
            *(part.format(f"color:{_FAILS}", flaw) for flaw in self.flaws),
        ]
        look = f"margin:.7em 0;padding-left:.7em;border-left:4px solid {colour};overflow-wrap:anywhere;text-align:left"
        return part.format(look, Markup("").join(parts))


class Excerpt:
    """What `Run.show` returns: print it, or let a notebook show it."""

    def __init__(self, replies: list[Shown]) -> None:
        self.replies = replies

    def __len__(self) -> int:
        return len(self.replies)

    def __repr__(self) -> str:
        return "\n\n".join(shown._text() for shown in self.replies) or "no such replies"

    def _repr_html_(self) -> str:
        from markupsafe import Markup

        return str(Markup("").join(shown._html() for shown in self.replies)) or "no such replies"


def excerpt(
    replies: "pd.DataFrame", flaws: "pd.DataFrame", n: int, *, kept: bool | None, filter: str | None
) -> Excerpt:
    """`n` of the `replies`; see `Run.show`. `flaws` has a row for each thing that is wrong with one. Raises ConfigError for a
    filter that nothing fails."""
    reply = [name for name in ("item_id", "turn") if name in replies]
    failed = flaws if filter is None else flaws[flaws["filter"] == filter]
    if filter is not None and not len(failed):
        known = ", ".join(sorted(set(flaws["filter"]))) or "none"
        raise ConfigError(f"no reply fails {filter!r}. What some fail: {known}.")
    if filter is not None or kept is not None:
        flawed = replies.set_index(reply).index.isin(failed.set_index(reply).index)
        replies = replies[flawed if filter is not None or not kept else ~flawed]
    chosen = replies.sort_values(reply).head(n)  # ids are hashes: in their order, personas and scenarios are mixed
    own = flaws.merge(chosen[reply], on=reply).to_dict("records")
    found = []
    for row in chosen.to_dict("records"):
        mine = tuple(_why(flaw) for flaw in own if all(flaw[name] == row[name] for name in reply))
        seconds = row["e2e"] if row["e2e"] == row["e2e"] else None
        who, where, line, said = (_shown(row[name]) for name in ("persona_id", "scenario_id", "line", "reply"))
        found.append(Shown(who, where, line, said, seconds, mine))
    return Excerpt(found)


def _why(flaw: dict[Any, Any]) -> str:
    name, reason, evidence = (_shown(flaw[key]) for key in ("filter", "reason", "evidence"))
    seen = f" ({evidence})" if evidence and name != DUPLICATE else ""  # of a duplicate, it is the other one's id
    return f"fails {name}: {reason}{seen}"


def _shown(text: str | None) -> str:
    said = one_line(text or "")
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]} ..."
