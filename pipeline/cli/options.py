"""The options of the commands, and what a value of each may be."""

import math
from collections.abc import Callable
from typing import Any

import click


class _Whole(click.IntRange):
    name = "whole number"

    def get_metavar(self, *_: Any, **__: Any) -> str:
        return "N"


class _Number(click.FloatRange):
    name = "number"

    def get_metavar(self, *_: Any, **__: Any) -> str:
        return "NUMBER"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no number to go by.", param, ctx)
        return number


class _OrAll(click.ParamType[int | None]):
    name = "N|all"

    def get_metavar(self, *_: Any, **__: Any) -> str:
        return self.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value is None or value == "all":
            return None
        return _Whole(min=1).convert(value, param, ctx)


class _Concurrency(click.ParamType[int | None]):
    def __init__(self, *, auto: bool) -> None:
        self.name = "auto|N" if auto else "N"

    def get_metavar(self, *_: Any, **__: Any) -> str:
        return self.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value != "auto":
            return _Whole(1, 4096).convert(value, param, ctx)
        if self.name == "N":
            self.fail("a latency holds for one concurrency: give a number. Auto is for generate.", param, ctx)
        return None


class _Price(click.ParamType[tuple[float, float]]):
    name = "IN,OUT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        try:
            paid_in, paid_out = (float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not two numbers such as 0.15,0.60", param, ctx)
        if not (0 <= paid_in < 1e9 and 0 <= paid_out < 1e9):
            self.fail(f"{value!r}: a price is neither negative nor endless", param, ctx)
        return paid_in, paid_out


def with_options(*options: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_SERVER_HELP = (
    "'embedded' (the default), the address of a server, or a [targets.NAME] of pipeline.toml. "
    "LLM_HOST stands for it, LLM_API_KEY is its key."
)
_DIALECT_HELP = (
    "auto, openai, completions, textgen, koboldcpp, llamacpp, ollama, ollama-generate, or one you installed."
)
SERVER = click.option("--server", metavar="embedded|URL|NAME", help=_SERVER_HELP)
TO_A_SERVER = (
    SERVER,
    click.option("--dialect", metavar="NAME", default="auto", show_default=True, help=_DIALECT_HELP),
    click.option("--model", metavar="NAME", help="The model's name, where a server has several."),
    click.option("--model-path", metavar="FILE.gguf", help="A model of your own for the embedded server."),
    click.option("--lora", metavar="FILE.gguf", help="A LoRA adapter for the embedded server's model."),
    click.option(
        "--format", metavar="FORMAT", default="transcript", show_default=True,
        help="Messages as one text, for dialects that want text: transcript, chatml, llama3, alpaca, mistral.",
    ),
    click.option(
        "--system", type=click.Choice(["keep", "merge"]), default="keep", show_default=True,
        help="merge: into the player's message, for models without a system role.",
    ),
    click.option(
        "--max-tokens", type=_Whole(min=1), default=80, show_default=True, help="The longest reply, in tokens."
    ),
    click.option(
        "--temperature", type=_Number(min=0), default=0.7, show_default=True, help="0: the likeliest token always."
    ),
    click.option(
        "--timeout", type=_Number(min=0.001), default=120.0, show_default=True,
        help="Seconds for a reply, all attempts together.",
    ),
    click.option("--insecure", is_flag=True, help="Take any TLS certificate, for a server at home."),
)  # fmt: skip


def _scoring(verb: str) -> tuple[Callable[..., Any], ...]:
    return (
        click.option(
            "--set", "settings", multiple=True, metavar="NAME.KEY=VALUE",
            help=f"How replies are {verb}: slop.max=8, slop=off. See data/curation.yaml.",
        ),
        click.option(
            "--scorer", "scorers", multiple=True, metavar="FILE.py:FUNCTION", help="A scorer of your own."
        ),
    )  # fmt: skip


SCORING = _scoring("scored")
TRAINING = (
    *_scoring("scored and kept"),
    click.option("--max-per-prompt", type=_Whole(min=1), help="Keep the best so many replies to a prompt."),
    click.option("--max-per-persona", type=_Whole(min=1), help="Keep the best so many replies of a persona."),
    click.option("--max-per-scenario", type=_Whole(min=1), help="Keep the best so many replies in a scenario."),
    click.option(
        "--train-prompt", metavar="TEMPLATE", help="Train on this prompt, as the game sends it, e.g. npc/short."
    ),
    click.option(
        "--train-format", metavar="FORMAT", help="Train on one text instead of messages: transcript, chatml ..."
    ),
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
QUIET = (
    click.option("--quiet", is_flag=True, help="No progress; what goes wrong is said all the same."),
    AS_JSON,
)


GATING = (
    click.option(
        "--gate", "gates", multiple=True, metavar="'MEASURE >= NUMBER'",
        help="What has to hold, also against an arm: 'in_character >= 0.9', 'e2e_p95 <= 4', 'slop <= base + 0.02'.",
    ),
    click.option(
        "--thinking-timeout", type=_Number(0, min_open=True), default=2.0, show_default=True,
        help="Seconds after which the game shows that the NPC is thinking: later is late.",
    ),
)  # fmt: skip
PERSONAS_HELP = (
    "Character cards (PNG, JSON, CharX), characters of text-generation-webui, NPCs out of Evennia, YAML, JSONL, CSV, "
    "Parquet, a folder of any, or a hub id."
)
MAP = click.option(
    "--map", "columns", multiple=True, metavar="FIELD=COLUMN,...",
    help="Which columns are which fields of a persona: name=title,description=bio.",
)  # fmt: skip

TEMPLATE = click.option(
    "--template", metavar="TEMPLATE", default="npc/default", show_default=True, help="The prompt, e.g. npc/barks."
)
PROMPTS = click.option("--prompts", metavar="DIR", help="A folder of templates that is looked into first.")

IMPORTING = (
    click.option(
        "--from", "source", metavar="DATA",
        help="Conversations that you have: messages, ShareGPT, prompt and completion, memories out of Evennia; JSONL, "
        "Parquet, a hub id ...",
    ),
    click.option("--out", metavar="DIR", help="With --from: the run's folder.  [default: under runs/]"),
    click.option("--personas", metavar="SOURCE", help="With --from: who the NPCs are, found by id or name."),
    MAP,
    click.option(
        "--template", metavar="TEMPLATE", help="With --from: the prompt, where the data has none.  [default: npc/default]"
    ),
    click.option("--strict", is_flag=True, help="With --from: refuse a source with any bad row."),
)  # fmt: skip


def run_options(*, per_persona: int, auto: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """What `generate` and `eval` share."""
    each = [
        click.option("--personas", metavar="SOURCE", help=PERSONAS_HELP),
        MAP,
        click.option("--scenarios", metavar="SOURCE", help="YAML, JSONL, CSV, Parquet, a folder of them, or a hub id."),
        PROMPTS,
        TEMPLATE,
        click.option(
            *(("--samples",) if auto else ("--repeats", "--samples", "samples")),
            type=_Whole(min=1),
            default=1,
            show_default=True,
            help="Replies per line.",
        ),
        click.option(
            "--per-persona", type=_OrAll(), default=str(per_persona), show_default=True, help="Scenarios for each."
        ),
        click.option("--limit", type=_Whole(min=1), help="Ask for the first so many only."),
        click.option(
            "--turns",
            type=_OrAll(),
            default="1" if auto else None,
            help="Replies of a conversation at most; all: one for each line of the scenario.  "
            + ("[default: 1]" if auto else "[default: the suite's]"),
        ),
        click.option(
            "--player",
            metavar="TEMPLATE",
            help="Where a scenario's lines end, a model plays the player on, e.g. by player/default.",
        ),
        click.option("--player-server", metavar="embedded|URL|NAME", help="Who plays the player.  [default: --server]"),
        click.option(
            "--window",
            type=_Whole(1, 1000),
            default=25,
            show_default=True,
            help="Messages of a conversation that are sent, the newest.",
        ),
        click.option(
            "--window-tokens",
            type=_Whole(min=1),
            help="Leave more of them out where a prompt would be longer.  [default: what the context has room for]",
        ),
        click.option("--top-p", type=_Number(0, 1), help="Sample from the likeliest tokens that make up this share."),
        click.option("--top-k", type=_Whole(min=0), help="Sample from so many of the likeliest tokens."),
        click.option(
            "--min-p", type=_Number(0, 1), help="Leave out tokens less likely than this share of the likeliest."
        ),
        click.option("--repeat-penalty", type=_Number(min=0), help="Over 1: against repeating itself."),
        click.option(
            "--seed", metavar="N", type=int, default=0, show_default=True, help="Another seed, other replies."
        ),
        click.option(
            "--concurrency",
            type=_Concurrency(auto=auto),
            help="Requests at a time" + (", or found out.  [default: auto]" if auto else ".  [default: 1]"),
        ),
        click.option("--rpm", "requests_per_minute", type=_Number(0, min_open=True), help="Requests by the minute."),
        click.option("--tpm", "tokens_per_minute", type=_Number(0, min_open=True), help="Tokens by the minute."),
        click.option("--price", type=_Price(), help="Of a million tokens: of the prompts, and of the replies."),
        click.option("--max-cost", type=_Number(0, min_open=True), help="Ask no more when it has cost that much."),
        click.option("--strict", is_flag=True, help="Refuse a source with any bad row."),
        click.option("--out", metavar="DIR", help="The run's folder.  [default: under runs/, named by the options]"),
        click.option(
            "--resume",
            is_flag=False,
            flag_value="",
            metavar="[RUN]",
            help="Go on with a run: the newest unfinished one.",
        ),
        click.option("--dry-run", is_flag=True, help="Count, estimate and show the first prompts. Sends nothing."),
    ]

    return with_options(*TO_A_SERVER, *each, *QUIET)
