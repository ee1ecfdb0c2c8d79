"""`pipeline init` and `pipeline doctor`: a folder of one's own to begin with, and whether all that it takes is there."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.options import AS_JSON, SERVER

if TYPE_CHECKING:
    from pipeline.cli.doctor import Finding

# From a new folder to a dataset of one's own: what to type, and why.
_FIRST = (
    ("pipeline doctor", "is all there that it takes?"),
    ("pipeline generate --dry-run", "the first requests, as they would be sent"),
    ("pipeline generate", "a dataset, by the small model that runs inside"),
)
_THEN = (
    ("pipeline ping --server mine", "who is there, and one timed reply"),
    ("pipeline generate --server mine", "the dataset"),
    ("pipeline eval --server mine", "how good and how fast it is, on suite/"),
)


@click.command()
@click.argument("folder", metavar="DIR")
@AS_JSON
def init(folder: str, *, as_json: bool) -> None:
    """Write a folder to begin with: personas, scenarios, a prompt, a suite for eval, and pipeline.toml, which names them.

    It works as it is, and its comments say how to make it yours. DIR has to be new, or empty.
    """
    from pipeline.cli.starter import make_starter
    from pipeline.progress import printable

    path = Path(folder)
    files = make_starter(path)
    if as_json:
        click.echo(json.dumps({"folder": folder, "files": [str(file) for file in files]}))
        return
    lines = [
        *(str(path / file) for file in files),
        "",
        "It works as it is:",
        *_entering(path),
        *_commands(_FIRST),
        "",
        "Write over personas/, scenarios/ and prompts/, and put the address of your server into pipeline.toml. Then:",
        *_commands(_THEN),
    ]
    click.echo(printable("\n".join(lines)))


def _commands(commands: tuple[tuple[str, str], ...]) -> list[str]:
    return [f"    {command:34}# {why}" for command, why in commands]


def _entering(path: Path) -> list[str]:
    """How to get there, as the shell of this system wants it."""
    if path.resolve() == Path.cwd():
        return []
    name = f"./{path}" if str(path).startswith("-") else str(path)
    return [f"    cd {subprocess.list2cmdline([name]) if os.name == 'nt' else shlex.quote(name)}"]


@click.command()
@SERVER
@AS_JSON
def doctor(server: str | None, *, as_json: bool) -> None:
    """Say whether all that it takes is there: versions, the embedded model, folders, pipeline.toml, LLM_*, and who answers.

    Without --server, it looks at every server of pipeline.toml. Exits with 2 if a run in this folder would fail.
    """
    import asyncio
    from dataclasses import asdict

    from pipeline.cli.doctor import examine

    findings = asyncio.run(examine(server))
    wrong = any(one.state == "wrong" for one in findings)
    if as_json:
        click.echo(json.dumps({"ok": not wrong, "findings": [asdict(one) for one in findings]}))
    else:
        click.echo(_told(findings))
    sys.exit(2 if wrong else 0)


def _told(findings: "list[Finding]") -> str:
    from pipeline.progress import printable

    lines = []
    for one in findings:
        lines.append(f"{one.state:8} {one.what:12} {one.found}")
        if one.advice:
            lines.append(f"{'':21} Try: {one.advice}")
    counts = {state: sum(one.state == state for one in findings) for state in ("wrong", "warning")}
    many = "s" if counts["warning"] != 1 else ""
    lines += ["", f"{counts['wrong']} wrong, {counts['warning']} warning{many}."]
    return printable("\n".join(lines))
