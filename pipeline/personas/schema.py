"""What a persona and a scenario are, as people write them.

Only a few fields are required, so that other people's datasets work as they are; columns we do not know are kept and
reach the templates as `npc.COLUMN`. Everything in here is data: no field is ever compiled as a template.
"""

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from pipeline.records import Item

Text = Annotated[str, StringConstraints(strip_whitespace=True, max_length=1_000_000)]
Named = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1_000_000)]


def _lines(value: Any) -> Any:
    """A list may be written as one text, one entry a line: all that a CSV cell can hold."""
    if isinstance(value, str):
        return [line.strip() for line in value.split("\n") if line.strip()]
    return value


Lines = Annotated[list[Text], BeforeValidator(_lines)]


class _Row(BaseModel):
    model_config = ConfigDict(extra="allow", coerce_numbers_to_str=True)


class Lore(_Row):
    """What an NPC knows of something, for when it is spoken of: a lorebook's entry, as in character cards."""

    keys: Lines = Field(default_factory=list, description="words that bring it up")
    content: Text = ""
    secondary_keys: Lines = Field(default_factory=list, description="if selective, one of these has to be there, too")
    constant: bool = Field(False, description="always there")
    enabled: bool = True
    order: int = Field(100, description="the lower, the earlier in the prompt")
    case_sensitive: bool = False
    selective: bool = False


class Persona(_Row):
    """Who an NPC is. All but `id`, `name` and `description` may be left out."""

    id: Named
    name: Named = Field(description="as it is shown to the player")
    description: Named = Field(description='who it is; reads on after "You are NAME, "')
    world: Text = ""
    setting: Text = Field("", description="where and when, in a sentence or two")
    personality: Text = ""
    speech: Text = Field("", description="its way of speaking")
    home: Text = ""
    trade: Text = ""
    kin: Text = ""
    knows: Lines = Field(default_factory=list)
    hides: Text = Field("", description="its secret, never to be told")
    wants: Text = ""
    greeting: Text = ""
    examples: Lines = Field(default_factory=list, description="lines in its own voice")
    unknown_words: Lines = Field(default_factory=list, description="words that its world does not know")
    lorebook: list[Lore] = Field(default_factory=list, max_length=10_000)
    lore_budget: int = Field(0, ge=0, description="tokens of lore in a prompt at most; 0: 200")


TEXT_FIELDS = tuple(name for name, field in Persona.model_fields.items() if field.annotation is str)

_PLACEHOLDER = re.compile(r"\{\{\s*npc\.(\w+)\s*\}\}")


class Scenario(_Row):
    """What the player does. A line may hold `{{ npc.FIELD }}` with a text field of Persona: plain substitution.

    A persona without a field that a line uses, or that `requires` names, does not meet this scenario.
    """

    id: Named
    category: Named
    turns: Lines = Field(min_length=1, description="the player's lines")
    requires: Lines = Field(default_factory=list, description="persona fields without which it makes no sense")
    player: Named = Field("Stranger", description="the player's name")
    goal: Text = Field("", description="what a simulated player is after")
    temper: Text = Field("", description="its temper")
    style: Text = Field("", description="how it writes")
    remembers: dict[int, Lines] = Field(
        default_factory=dict, description="by the number of a line, words of which one has to be in the reply to it"
    )

    @model_validator(mode="after")
    def _knows_its_placeholders(self) -> "Scenario":
        if not all(self.turns):
            raise ValueError("'turns' has an empty line")
        if wrong := [number for number in self.remembers if not 1 <= number <= len(self.turns)]:
            raise ValueError(f"'remembers' names line {wrong[0]}; 'turns' has lines 1 to {len(self.turns)}")
        used = {field for line in self.turns for field in _PLACEHOLDER.findall(line)}
        if unknown := sorted(used - set(TEXT_FIELDS)):
            raise ValueError(f"'turns' uses {{{{ npc.{unknown[0]} }}}}; it can be one of: {', '.join(TEXT_FIELDS)}")
        self.requires = sorted({*self.requires, *used})
        return self

    def fits(self, npc: Any) -> bool:
        return all(getattr(npc, field, None) for field in self.requires)

    def item(self, npc: Any, *, template: str, sample: int, arm: str = "") -> Item:
        return Item(
            npc=npc,
            scenario_id=self.id,
            category=self.category,
            player=self.player,
            lines=tuple(_PLACEHOLDER.sub(lambda match: str(getattr(npc, match[1])), line) for line in self.turns),
            template=template,
            sample=sample,
            arm=arm,
            goal=self.goal,
            temper=self.temper,
            style=self.style,
            remembers=self.remembers,
        )
