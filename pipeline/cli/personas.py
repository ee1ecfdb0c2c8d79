"""`pipeline personas`: what personas a source has, whether they are good, how a prompt sees one, and the same in another format."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import AS_JSON, MAP, PERSONAS_HELP, PROMPTS, TEMPLATE

if TYPE_CHECKING:
    from pipeline.personas.load import Checked

SOURCE = click.argument("source", metavar="SOURCE")


@click.group(help=f"Look at personas, and convert them.\n\nSOURCE: {PERSONAS_HELP}")
def personas() -> None: ...


@personas.command(name="list")
@SOURCE
@MAP
@AS_JSON
def list_(source: str, columns: tuple[str, ...], *, as_json: bool) -> None:
    """One line for each persona of SOURCE."""
    from pipeline.personas.load import Checked, personas_of
    from pipeline.progress import printable

    checked = Checked()
    for persona in personas_of(source, checked, columns=columns):
        if as_json:
            click.echo(json.dumps(persona))
            continue
        own_id, name, said = (" ".join(persona[field].split()) for field in ("id", "name", "description"))
        lore = f"  ({len(persona['lorebook'])} of lore)" if persona["lorebook"] else ""
        click.echo(printable(f"{own_id[:40]:24}  {name[:30]:20}  {_short(said, 70)}{lore}"))
    _tell(source, checked)


@personas.command()
@SOURCE
@MAP
@AS_JSON
def check(source: str, columns: tuple[str, ...], *, as_json: bool) -> None:
    """Read all of SOURCE and say what is wrong. The exit code is 1 if anything is."""
    from collections import Counter

    from pipeline.personas.load import Checked, personas_of
    from pipeline.progress import printable

    checked, filled = Checked(), Counter[str]()
    for persona in personas_of(source, checked, columns=columns):
        filled.update(name for name, value in persona.items() if value)
    if as_json:
        found = {"good": checked.good, "bad": checked.bad, "problems": checked.problems, "notes": checked.notes}
        click.echo(json.dumps(found | {"fields": filled}))
    else:
        _tell(source, checked)
        click.echo(f"{checked.good} good, {checked.bad} bad")
        click.echo(printable("filled  " + ", ".join(f"{name} {count}" for name, count in filled.most_common(40))))
    sys.exit(1 if checked.bad else 0)


@personas.command()
@SOURCE
@click.argument("persona", required=False, metavar="[ID]")
@MAP
@TEMPLATE
@PROMPTS
@click.option(
    "--player-name", "player", metavar="NAME", default="Stranger", show_default=True, help="Who talks with it."
)
@click.option("--line", metavar="TEXT", default="Hello.", show_default=True, help="What the player says.")
@AS_JSON
def show(source: str, persona: str | None, *, as_json: bool, **options: Any) -> None:
    """A persona of SOURCE as the prompt sees it: the one with this ID or name, or the first."""
    from pipeline.progress import printable
    from pipeline.prompts.show import show as prompt_of

    found = prompt_of(source, persona, **options)
    if as_json:
        click.echo(json.dumps(found))
        return
    for message in found:
        click.echo(printable(f"[{message['role']}]\n{message['content']}"))


@personas.command()
@SOURCE
@click.argument("out", metavar="OUT")
@MAP
@AS_JSON
def convert(source: str, out: str, columns: tuple[str, ...], *, as_json: bool) -> None:
    """Write the personas of SOURCE to OUT: *.yaml or *.jsonl as we write them, *.json for the character card (version 2) of
    one, or a folder for a card of each."""
    from pipeline.personas.load import Checked, personas_of
    from pipeline.personas.write import write_personas

    checked = Checked()
    count = write_personas(personas_of(source, checked, columns=columns), Path(out))
    _tell(source, checked)
    found = {"personas": count, "file": out, "bad": checked.bad, "problems": checked.problems}
    click.echo(json.dumps(found) if as_json else f"{count} personas in {out}")


def _tell(source: str, checked: "Checked") -> None:
    from pipeline.progress import printable

    for note in checked.notes:
        click.echo(printable(note), err=True)
    for problem in checked.problems:
        click.echo(printable(f"skipped: {problem}"), err=True)
    if checked.bad > len(checked.problems):
        click.echo(f"{source}: {checked.bad} bad rows in all", err=True)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
