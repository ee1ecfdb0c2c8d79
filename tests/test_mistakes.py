"""What people get wrong, and what they are told: where it stands, what was found, what was expected or what to try.

Each is the real command, with real files and, where somebody has to answer, a real server on a loopback socket.
"""

import json
import os
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from fakes import FakeServer

from pipeline.cli import main
from pipeline.run.folder import RunFolder

KEY = "KEY-9f3c-of-the-server"
PERSONAS = "- {id: mira, name: Mira, description: a ferrywoman}\n- {id: bor, name: Bor, description: a smith}\n"
SCENARIOS = "- {id: hi, category: greeting, turns: [Hello.]}\n"
CSV = "id,name,description\nmira,Mira,a ferrywoman\nbor,Bör,a smith\n"
TARGET = '[targets.gpu]\nurl = "http://127.0.0.1:9"\n'
TABLE = "item,score\n1,2\n"
PIXEL = b"\x89PNG\r\n\x1a\n" + b"".join(
    struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    for kind, data in (
        (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0\0")),
        (b"IEND", b""),
    )
)
ASK = "generate --server {fine} --scenarios s.yaml --limit 2"
ASKED = f"{ASK} --personas p.yaml"


@dataclass
class Mistake:
    """`said` has to be in stderr, or where `code` is not 2 in what was printed at all."""

    command: str
    said: tuple[str, ...]
    files: dict[str, str | bytes] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    code: int = 2


def personas(content, *said, name="p.yaml", code=2, options=""):
    options = options or "--dry-run"  # asking takes a while, and tells no more
    return Mistake(f"{ASK} --personas {name} {options}", said, {name: content}, code=code)


def scenarios(content, *said, name="s.yaml"):
    return Mistake(ASKED.replace("s.yaml", name), said, {name: content})


def template(content, *said, code=2):
    return Mistake(f"{ASKED} --template npc/mine --dry-run", said, {"prompts/npc/mine.j2": content}, code=code)


def suite(content, *said):
    inside = {"st/personas/p.yaml": PERSONAS, "st/scenarios/s.yaml": SCENARIOS}
    return Mistake("eval --server {fine} --suite st", said, inside | {"st/suite.yaml": content})


def toml(content, *said):
    return Mistake("ping --server gpu", said, {"pipeline.toml": content})


def option(options, *said, command=ASKED):
    return Mistake(f"{command} {options}", said)


def tables(options, *said, a=TABLE):
    return Mistake(f"compare a.csv b.csv {options}", said, {"a.csv": a, "b.csv": TABLE})


def server(name, *said, options=""):
    return Mistake(f"ping --timeout 2 --server {name} {options}", said, environment={"LLM_API_KEY": KEY})


def fails(name, *said, code=3):
    """What is found out only when it is asked for a reply."""
    return Mistake(f"{ASKED} --timeout 20".replace("{fine}", name), said, environment={"LLM_API_KEY": KEY}, code=code)


MISTAKES = {
    # --- what people write: personas
    "a persona's field misspelt": personas(
        "- id: mira\n  name: Mira\n  descripton: a ferrywoman\n",
        "p.yaml:1: field 'description' is missing (is 'descripton' meant?)",
    ),
    "an optional field misspelt": personas(
        "- {id: m, name: Mira, description: she, persnality: shy}\n",
        "p.yaml:1: unknown field 'persnality'; did you mean 'personality'?",
        code=0,
    ),
    "a persona without a name": personas("- {id: m, description: she}\n", "p.yaml:1: field 'name' is missing"),
    "two personas with one id": personas(
        "- {id: m, name: M, description: d}\n- {id: m, name: N, description: d}\n",
        "skipped: p.yaml:2: the id 'm' stands already at p.yaml:1",
        "1 good rows, 1 skipped",
        code=0,
    ),
    "bad rows are told of also to the quiet": personas(
        PERSONAS + "- {id: x}\n", "skipped: p.yaml:3: field 'name' is missing", code=0, options="--quiet"
    ),
    "bad rows with --strict": personas(PERSONAS + "- {id: x}\n", "p.yaml:3: field 'name'", options="--strict"),
    "an empty file": personas("", "p.yaml: nothing in it"),
    "a file with only comments": personas("# to do\n", "p.yaml: no list of personas. It begins with 'personas:'"),
    "a tab in YAML": personas("- id: m\n\tname: M\n", "p.yaml:2: not YAML", "indented with spaces"),
    "a colon in YAML": personas("- id: m\n  name: a: b\n", "p.yaml:2: not YAML", "stands in quotes"),
    "a key that stands twice in YAML": personas(
        "- id: m\n  name: M\n  name: N\n  description: d\n", "p.yaml:1: 'name' stands in it twice, again in line 3"
    ),
    "a list that stands twice in YAML": personas(
        f"personas:\n{PERSONAS}personas:\n{PERSONAS}", "p.yaml:4: 'personas' stands twice"
    ),
    "a list under a wrong name": personas(f"npcs:\n{PERSONAS}", "p.yaml:1: unknown key 'npcs'", "personas, defaults"),
    "an object in place of a list": personas('{"a": 1}', "p.json: no list of personas", name="p.json"),
    "an empty list": personas("[]", "p.json: no personas in it", name="p.json"),
    "a comma too many in JSON": personas('[{"id": "a"},]', "p.json:1: not JSON", "column", name="p.json"),
    "JSONL that is named .json": personas('{"id": 1}\n{"id": 2}\n', "p.json:2", "name it .jsonl", name="p.json"),
    "JSON that is named .jsonl": personas('[{"id": 1},\n{"id": 2}]', "p.jsonl:1", "name it .json", name="p.jsonl"),
    "a broken line in JSONL": personas(
        '{"id": "a", "name": "A", "description": "d"}\n{"id": \n{"id": "b", "name": "B", "description": "d"}\n',
        "skipped: p.jsonl:2: not JSON: Expecting value at character 7",
        "2 good rows, 1 skipped",
        name="p.jsonl",
        code=0,
    ),
    "a CSV in UTF-16": personas(CSV.encode("utf-16"), "p.csv: UTF-16, not UTF-8", "CSV UTF-8", name="p.csv"),
    "a CSV in the Windows encoding": personas(
        CSV.encode("cp1252"), "p.csv:3: not UTF-8: byte f6 (is it 'ö' in the Windows", "CSV UTF-8", name="p.csv"
    ),
    "a CSV with a BOM": personas(CSV.encode("utf-8-sig"), "2 personas, 1 scenarios: 2 requests", name="p.csv", code=0),
    "a CSV with semicolons": personas(CSV.replace(",", ";"), "2 personas, 1 scenarios: 2 requests", name="p.csv", code=0),
    "a CSV with tabs": personas(CSV.replace(",", "\t"), "2 personas, 1 scenarios: 2 requests", name="p.csv", code=0),
    "a CSV without a header": personas("m,Mira,she\n", "p.csv:1: no column for 'name'", "--map", name="p.csv"),
    "a CSV with a header only": personas("id,name,description\n", "p.csv: no personas in it", name="p.csv"),
    "a quote inside of a quoted cell": personas(
        CSV + 'x,X,"a "quoted" one"\nz,Zed,fine\n',
        "skipped: p.csv:4: not CSV: a quote inside of a quoted cell, which has to be written twice",
        "3 good rows, 1 skipped",
        name="p.csv",
        code=0,
    ),
    "a quote that is never closed": personas(
        CSV + 'x,X,"a story\nz,Zed,fine\n',
        "skipped: p.csv:4: not CSV: a quote is opened and never closed",
        "3 good rows, 1 skipped",
        name="p.csv",
        code=0,
    ),
    "a cell too many": personas(
        CSV + "x,X,a,b\n", "skipped: p.csv:4: 4 cells where the header has 3", name="p.csv", code=0
    ),
    "a spreadsheet that is named .csv": personas(b"PK\x03\x04\x14\0", "p.csv: no text", "as CSV", name="p.csv"),
    "a spreadsheet": personas(b"PK\x03\x04", "p.xlsx: cannot tell what '.xlsx' is. It can be", name="p.xlsx"),
    "another kind of file that is named .yaml": personas(bytes(range(256)), "p.yaml: no text: there are zero bytes"),
    "another kind of file that is named .jsonl": personas(b"\x89PNG\r\n", "it .png", name="p.jsonl"),
    "another kind of file that is named .parquet": personas(b"no", "not a whole Parquet file", name="p.parquet"),
    "a picture without a card": personas(PIXEL, "p.png: a picture without a character card", name="p.png"),
    "a text that is named .png": personas("hello", "p.png: not a PNG file, whatever its name says", name="p.png"),
    "a photograph": personas(b"\xff\xd8", "p.jpg: cannot tell what '.jpg' is", "*.png", name="p.jpg"),
    "no such personas": Mistake("generate --personas nowhere.yaml", ("nowhere.yaml: no such file or folder. It can be",)),
    "a file in a folder that is not there": Mistake(
        "generate --personas nowhere/npcs.yaml", ("nowhere/npcs.yaml: no such file or folder",)
    ),
    "an empty folder": Mistake(f"{ASK} --personas empty", ("empty: an empty folder. There can be *.yaml",), {"empty/.keep": ""}),
    "scenarios for personas": Mistake(f"{ASK} --personas s.yaml", ("s.yaml:1: field 'name' is missing",)),
    "a persona that is not there": Mistake("personas show p.yaml Miro", ("no persona 'Miro'. There are: mira, bor",)),
    "what no persona is written as": Mistake("personas convert p.yaml out.csv", ("out.csv: cannot tell what to write",)),
    "personas that are not whole": Mistake(
        "personas check p.yaml", ("p.yaml:3: field 'name' is missing", "2 good, 1 bad"), {"p.yaml": PERSONAS + "- {id: x}\n"}, code=1
    ),
    # --- what people write: scenarios
    "a scenario's field misspelt": scenarios(
        "- {id: hi, categry: a, turns: [Hi]}\n", "s.yaml:1: field 'category' is missing (is 'categry' meant?)"
    ),
    "a scenario without turns": scenarios("- {id: hi, category: a}\n", "s.yaml:1: field 'turns' is missing"),
    "a scenario with no turn": scenarios(
        "- {id: hi, category: a, turns: []}\n", "s.yaml:1: field 'turns' (the player's lines): has to be of 1 entry"
    ),
    "turns that are no list": scenarios("- {id: hi, category: a, turns: 5}\n", "'turns'", "has to be a list. Found: 5"),
    "a field that nobody has is required": scenarios(
        "- {id: hi, category: a, turns: [Hi], requires: [hides]}\n", "nothing to ask", "p.yaml", "s.yaml", "'hides'"
    ),
    "a required field misspelt": scenarios(
        "- {id: hi, category: a, turns: [Hi], requires: [hide]}\n", "'hide' (Did you mean hides?)"
    ),
    "a line with a field that there is not": scenarios(
        "- {id: hi, category: a, turns: ['Hi {{ npc.nmae }}']}\n", "s.yaml:1", "npc.nmae", "it can be one of: id, name"
    ),
    "one scenario alone": scenarios('{"id": "a"}', "s.json: no list of scenarios. It is a list, or", name="s.json"),
    "no such scenarios": Mistake("generate --scenarios nowhere.yaml", ("nowhere.yaml: no such file or folder",)),
    "personas for scenarios": Mistake("generate --scenarios p.yaml", ("p.yaml:1: field 'category' is missing",)),
    # --- what people write: templates
    "a field misspelt in a template": template(
        "{% block user %}\n{{ npc.nmae }} {{ line }}{% endblock %}",
        "prompts/npc/mine.j2:2: npc has no 'nmae'. Did you mean name?",
        "persona 'mira'",
    ),
    "a name misspelt in a template": template(
        "{% block user %}\n{{ ncp.name }}{% endblock %}", "mine.j2:2: unknown name 'ncp'. Did you mean npc?"
    ),
    "a brace too few": template("{% block user %}\n{{ npc.name }\n{% endblock %}", "mine.j2:2: unexpected '}'"),
    "an if without an end": template("{% block user %}{% if 1 %}\n{% endblock %}", "mine.j2:2", "endif"),
    "a filter that there is not": template("{% block user %}{{ line|uper }}{% endblock %}", "mine.j2:1: No filter"),
    "a template without blocks": template("You are {{ npc.name }}.", "mine.j2:1: outside of any block", "system, user"),
    "an empty template": template("", "mine.j2: no message in it. Write {% block system %}"),
    "a block that is no role": template("{% block sytem %}a{% endblock %}", "mine.j2:1: block 'sytem' is no role"),
    "a template in the Windows encoding": template("{% block user %}ü".encode("cp1252"), "mine.j2:1: not UTF-8", "'ü'"),
    "a template that leaves the player out": template(
        "{% block system %}You are {{ npc.name }}.{% endblock %}", "npc/mine: {{ line }} is nowhere in it", code=0
    ),
    "no such template": option("--template npc/defalt", "no template 'npc/defalt.j2'", "mean npc/default?", "npc/barks"),
    "a template by its path": option("--template prompts/npc/default.j2", "Did you mean npc/default?"),
    "no such folder of prompts": option("--prompts nowhere", "nowhere: no such folder: --prompts names a folder with"),
    "a file for a folder of prompts": option("--prompts p.yaml", "p.yaml: a file, where --prompts names a folder"),
    "no such text format": option("--format chatlm", "'formats/chatlm.j2'", "Did you mean formats/chatml?"),
    # --- what people write: suite.yaml, curation, scorers, pipeline.toml
    "a suite's key misspelt": suite("repeats: 1\nscenarois: x\n", "st/suite.yaml:2: a suite has no 'scenarois'. Did you"),
    "a suite's value": suite("repeats: many\n", "st/suite.yaml:1: repeats is 'many': it has to be a whole number"),
    "a suite's key that stands twice": suite("repeats: 1\nrepeats: 2\n", "st/suite.yaml:2: 'repeats' stands twice"),
    "a tab in a suite": suite("scorers:\n\t- slop\n", "st/suite.yaml:2: not YAML", "indented with spaces"),
    "a suite's scorer": suite("scorers: [slopp]\n", "suite.yaml: scorers: there is no 'slopp'. Did you mean slop?"),
    "a suite's gate": suite("gates: ['slopp >= 1']\n", "st/suite.yaml: gates: 'slopp >= 1'", "Did you mean slop?"),
    "a suite without its personas": suite("personas: npcs\n", "st/suite.yaml: personas 'npcs': there is no st/npcs"),
    "no such suite": Mistake("eval --suite quik", ("--suite quik: no such suite. There are: adversarial, npc, quick",)),
    "a criterion misspelt": option("--set slopp.max=3", "--set slopp.max=3: there is no 'slopp'. Did you mean slop?"),
    "a criterion's key misspelt": option("--set slop.maxx=3", "slop has no 'maxx'", "Did you mean max?"),
    "a criterion's value": option("--set slop.max=many", "slop.max is 'many': it has to be a number"),
    "a criterion of no form": option("--set slop", "--set slop: it has to read NAME.KEY=VALUE, as slop.max=8"),
    "a criterion in the file misspelt": Mistake(
        ASKED, ("data/curation.yaml: there is no 'slopp'. Did you mean slop?",), {"data/curation.yaml": "filters: {slopp: off}"}
    ),
    "no such scorer": option("--scorer nowhere.py:f", "there is no file", "nowhere.py"),
    "a scorer without its function": option("--scorer s.yaml", "--scorer s.yaml: it has to read file.py:function"),
    "a scorer's function misspelt": Mistake(
        f"{ASKED} --scorer my.py:rymes", ("has no function rymes. It has: rhymes",), {"my.py": "def rhymes(turn): ..."}
    ),
    "a scorer with a syntax error": Mistake(
        f"{ASKED} --scorer my.py:f", ("my.py:2: SyntaxError",), {"my.py": "\ndef f(turn) return 1"}
    ),
    "a target's key misspelt": toml(TARGET + 'modle = "x"\n', "pipeline.toml:3: targets.gpu has no 'modle'", "mean model?"),
    "a section misspelt": toml(TARGET.replace("targets", "target"), "pipeline.toml:1: unknown section 'target'", "targets"),
    "a text without quotes": toml(TARGET + "model = x\n", "pipeline.toml:3: not TOML", "stands in quotes"),
    "backslashes in TOML": toml(TARGET + r'model = "C:\models\x"', "pipeline.toml:3: not TOML", "single quotes"),
    "a target without an address": toml('[targets.gpu]\nmodel = "x"\n', "pipeline.toml:1: targets.gpu: it has no url"),
    "a key where its variable belongs": toml(
        f'{TARGET}key = "{KEY}"\n', "pipeline.toml:3: targets.gpu.key: it is the name of the environment variable"
    ),
    "a target's value": toml(TARGET + 'concurrency = "many"\n', "pipeline.toml:3: targets.gpu.concurrency has to be a whole"),
    "a target's dialect": toml(TARGET + 'dialect = "opnai"\n', "pipeline.toml:3", "'opnai'. Did you mean openai?"),
    "a target misspelt": Mistake("ping --server gpv", ("no [targets.gpv]", "Did you mean gpu?"), {"pipeline.toml": TARGET}),
    # --- options
    "no tokens": option("--max-tokens 0", "'--max-tokens': 0 is not in the range x>=1"),
    "a temperature in words": option("--temperature hot", "'--temperature': 'hot' is not a valid number"),
    "fewer than none": option("--per-persona -1", "'--per-persona': -1 is not in the range"),
    "a limit of none": option("--limit 0", "'--limit': 0 is not in the range x>=1"),
    "a number in words": option("--limit few", "'--limit': 'few' is not a valid whole number"),
    "a price in words": option("--price cheap", "'--price': 'cheap' is not two numbers such as 0.15,0.60"),
    "an option misspelt": option("--concurency 4", "No such option '--concurency'", "--concurrency"),
    "a command misspelt": Mistake("generat", ("No such command 'generat'. Did you mean 'generate'?",)),
    "a subcommand misspelt": Mistake("personas lst p.yaml", ("No such command 'lst'. Did you mean 'list'?",)),
    "a choice misspelt": option("--system merged", "'--system': 'merged' is not one of 'keep', 'merge'"),
    "a dialect misspelt": option("--dialect opnai", "unknown dialect 'opnai'. Did you mean openai?"),
    "a mapping misspelt": option("--map nmae=title", "--map nmae=title: has to be FIELD=COLUMN", "id, name"),
    "a mapping to no column": Mistake(
        f"{ASK} --personas p.csv --map name=titel", ("p.csv:1: no column for 'titel'. Found: title, bio",), {"p.csv": "title,bio\na,b\n"}
    ),
    "an option for a server, and none named": Mistake("generate --dialect openai", ("--dialect is for a server of your own",)),
    "a model's name for the embedded server": Mistake("ping --model mira", ("--model is for a server", "--model-path")),
    "a model's file for a server": option("--model-path x.gguf", "--model-path is for the embedded server"),
    "no such model": Mistake("generate --model-path nowhere.gguf", ("--model-path nowhere.gguf: No such file",)),
    "a model that is none": Mistake("generate --model-path p.yaml", ("p.yaml: not a GGUF file",)),
    "a player without turns": option("--player player/default", "--player needs --turns N"),
    "a limit of cost without a price": option("--max-cost 1", "--max-cost needs a --price"),
    "a gate's measure misspelt": option("--gate 'in_charcter >= 0.9'", "Did you mean in_character?", command="eval"),
    "a gate of no form": option("--gate 'in_character > 0.9'", "it has to read 'MEASURE >= NUMBER'", command="eval"),
    "a gate on an arm misspelt": option(
        "--gate 'slop <= bsae' --arm base: --arm hot:temperature=1", "no arm 'bsae'. There are: base, hot", command="eval"
    ),
    "an arm's key misspelt": option("--arm a: --arm b:temprature=1", "'temprature=1'", "Did you mean temperature?", command="eval"),
    "an arm's value": option("--arm a: --arm b:temperature=hot", "'hot' is not a valid number", command="eval"),
    "an arm without a name": option("--arm temperature=1", "it has to read NAME:KEY=VALUE", command="eval"),
    "two arms of one name": option("--arm a: --arm a:seed=1", "there is an arm a already", command="eval"),
    # --- runs
    "nothing to resume": Mistake("generate --resume", ("no unfinished pipeline generate under runs/",)),
    "no such run": Mistake("curate runs/mina", ("no run there (no run.json)", "Did you mean runs/mine?")),
    "a run that is a file": Mistake("curate p.yaml", ("p.yaml: a file. A run is a folder",)),
    "a part of a run": Mistake("export runs/mine/dataset --format trl", ("its folder: runs/mine",)),
    "a run of another command": Mistake("eval --resume runs/mine", ("a run of pipeline generate, not of pipeline eval",)),
    "an evaluation is nothing to train on": Mistake("curate runs/tested", ("a run of pipeline eval", "nothing to train on")),
    "an evaluation has no dataset": Mistake("export runs/tested --format trl", ("no dataset there",)),
    "a scored run with a server": Mistake("eval runs/mine --server {fine}", ("--server has no place here",)),
    "no run at all": Mistake("curate", ("say which RUN; or --from DATA",)),
    "--out beside a run": Mistake("curate runs/mine --out x", ("--out has no place here",)),
    "a folder of other things": option("--out .", ".: holds other things and no run.json", "empty folder"),
    "a folder under a file": option("--out p.yaml/x", "p.yaml/x: cannot be written", "--out"),
    "an export for nobody": Mistake("export runs/mine", ("say what for: --format trl, or --push-to-hub",)),
    "an export over other things": Mistake("export runs/mine --format trl --out prompts", ("holds other things",), {"prompts/a": ""}),
    "the hub without a token": Mistake("export runs/mine --push-to-hub me/npcs", ("no token", "HF_TOKEN")),
    "conversations that are none": Mistake("curate --from p.yaml", ("p.yaml:1: no conversation in it",)),
    "a folder that is no run is compared": Mistake("compare runs runs", ("runs: no run there",)),
    "nothing is compared": Mistake("compare nowhere nobody", ("nowhere: no run there", "no file with scores")),
    "a score that a run has not": Mistake("compare runs/mine runs/mine --score wit", ("no score 'wit' in it. There are",)),
    "tables without a word on their columns": tables("", "a.csv:2: which columns? --item COL --score COL"),
    "a table's column misspelt": tables("--item itme --score score", "a.csv:1: no column 'itme'. Found: item, score"),
    "a score in words": tables("--item item --score score", "a.csv:2: score: 'good' is no number", a="item,score\n1,good\n"),
    # --- servers
    "nobody is there": server("{down}", "cannot connect (connection refused)", "Is the server running"),
    "no such host": server("http://nohost.invalid:5000", "cannot connect (host name not found"),
    "a web page": server("{page}", "a page called 'My Router'", "Is it the right port?", "--dialect"),
    "a port that says nothing": server("{silent}", "looking who is there", "no answer to GET /v1/models within 2 s"),
    "a port that hangs up": server("{closing}", "something is there, but it speaks no HTTP"),
    "a port of another protocol": server("{ssh}", "it speaks no HTTP. Is it the right port?"),
    "a redirect": server("{moved}", "It redirects, which is not followed"),
    "https on a port of http": server("https://{fine_host}", "TLS handshake failed", "http://, and not https://?"),
    "http on a port of https": server("{secure}", "wants to be asked by https://"),
    "a server that loads": server("{loading}", "Is it still loading its model?"),
    "a key that is missing": Mistake("ping --server {locked}", ("wants a key (401)", "LLM_API_KEY")),
    "a key that is wrong": server("{locked}", "wants another key than it was sent (401)", "LLM_API_KEY"),
    "a variable that is not set": Mistake(
        "ping --server gpu", ("GPU_KEY, which is not set", "(401)"), {"pipeline.toml": TARGET + 'key = "GPU_KEY"\n'}
    ),
    "one of several models": server("{two}", "has 2 models. Choose one with --model: a, b"),
    "a model's name misspelt": Mistake(
        "ping --server {two} --model aa", ("there is no 'aa' in its list", "Did you mean a?"), code=0
    ),
    "a scheme misspelt": server("htp://localhost:5000", "looks like http://127.0.0.1:5000; 'htp://localhost:5000' is none"),
    "a slash too few": server("http:/localhost:5000", "'http:/localhost:5000' is none"),
    "a blank in an address": server("'http://localhost :5000'", "'http://localhost :5000' is none"),
    "a port that is none": server("localhost:port", "'localhost:port' is none (Invalid port"),
    "a word for an address": server("embeded", "Did you mean embedded?", "http://127.0.0.1:5000"),
    "an address without a scheme": Mistake("ping --server {fine_host}", ("dialect  openai: POST http://",), code=0),
    "an address with its path": Mistake("ping --server {fine}/v1/chat/completions", ("dialect  openai",), code=0),
    "a line feed in a key": Mistake("ping --server {fine}", ("the server's key", "a line feed"), environment={"LLM_API_KEY": KEY + "\n"}),
    "quotes around a key": Mistake("ping --server {fine}", ("the server's key", "quotes"), environment={"LLM_API_KEY": f'"{KEY}"'}),
    "LLM_HOST without a scheme": Mistake("ping", ("POST http://",), environment={"LLM_HOST": "{fine_host}"}, code=0),
    "LLM_HOST that is no address": Mistake("ping", ("'htp://x' is none", "LLM_HOST"), environment={"LLM_HOST": "htp://x"}),
    "LLM_HEADERS that are no JSON": Mistake(
        "ping", ("LLM_HEADERS in the environment is not JSON",), environment={"LLM_HOST": "{fine}", "LLM_HEADERS": f"X: {KEY}"}
    ),
    "LLM_HEADERS that are a list": Mistake(
        "ping", ("has to be a JSON object",), environment={"LLM_HOST": "{fine}", "LLM_HEADERS": "[1]"}
    ),
    # --- found out when a reply is asked for
    "a key that is wrong for replies": fails("{denies}", "401", "Set LLM_API_KEY", "the same command asks for the rest"),
    "a key that may not": fails("{forbids}", "403", "LLM_API_KEY"),
    "a path that is not there": fails("{gone}", "404", "--dialect"),
    "a model that is not loaded": fails("{unloaded}", "400", "no model loaded", code=1),
    "a context too small": fails("{small}", "too long by 388 tokens", "shorten it", code=1),
    "a server that is always busy": fails("{busy}", "429", "slow down", "asks to wait for 3600 s"),
    "a quota that is spent": fails("{spent}", "quota is spent: waiting does not help"),
    "nothing but empty replies": fails("{mute}", "non_empty", "Nothing was kept", code=1),
    "a dialect that it does not speak": Mistake("ping --server {fine} --dialect textgen", ("404", "--dialect")),
}  # fmt: skip


def answers(status, body):
    return {"fault": lambda _: web.json_response(body, status=status)}


TOO_LONG = {"message": "exceeds the available context size", "type": "exceed_context_size_error", "code": 400}
FAKES = {
    "fine": {},
    "two": {"models": ("a", "b")},
    "denies": answers(401, {"error": {"message": f"bad key {KEY}"}}),
    "forbids": answers(403, {"error": "no"}),
    "gone": answers(404, {"error": "not found"}),
    "unloaded": answers(400, {"error": {"message": "no model loaded"}}),
    "small": answers(400, {"error": TOO_LONG | {"n_prompt_tokens": 900, "n_ctx": 512}}),
    "busy": {"fault": lambda _: web.json_response({"error": "slow down"}, status=429, headers={"Retry-After": "3600"})},
    "spent": answers(429, {"error": {"message": "no credit", "code": "insufficient_quota"}}),
    "mute": answers(200, {"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]}),
}


def says(status, body, *headers):
    lines = [f"HTTP/1.1 {status}", "Connection: close", f"Content-Length: {len(body)}", *headers, "", body]
    return "\r\n".join(lines).encode()


RAW = {
    "page": says("200 OK", "<html><title>My Router</title></html>", "Content-Type: text/html"),
    "moved": says("301 Moved", "", "Location: http://127.0.0.1:9/"),
    "secure": says("400 Bad Request", "<html>The plain HTTP request was sent to HTTPS port</html>"),
    "locked": says("401 Unauthorized", '{"error": "key?"}'),
    "loading": says("503 Busy", '{"error": {"message": "Loading model"}}'),
    "ssh": b"SSH-2.0-OpenSSH_9.9\r\n",
    "closing": b"",
    "silent": None,
}


class RawServer:
    """Writes the same bytes to whoever comes, or None: nothing ever."""

    def __init__(self, answer):
        self._answer = answer
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._open = []
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            if self._answer is None:
                self._open.append(connection)
                continue
            with connection:
                if self._answer:
                    connection.recv(65536)
                    connection.sendall(self._answer)

    def close(self):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)
        for connection in self._open:
            connection.close()


@pytest.fixture(scope="module")
def servers():
    found = {}
    with ExitStack() as stack:
        for name, how in FAKES.items():
            found[name] = stack.enter_context(FakeServer(**how)).url
        for name, answer in RAW.items():
            raw = RawServer(answer)
            stack.callback(raw.close)
            found[name] = raw.url
        with socket.create_server(("127.0.0.1", 0)) as listener:
            found["down"] = f"http://127.0.0.1:{listener.getsockname()[1]}"
        yield found | {f"{name}_host": url.removeprefix("http://") for name, url in found.items()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, servers):
    """A run of `generate` and one of `eval`."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "p.yaml").write_text(PERSONAS, "utf-8")
    (folder / "s.yaml").write_text(SCENARIOS, "utf-8")
    inputs = ["--personas", folder / "p.yaml", "--scenarios", folder / "s.yaml", "--server", servers["fine"]]
    for command, name in (("generate", "mine"), ("eval", "tested")):
        code, _, err = run(command, *inputs, "--out", folder / "runs" / name, "--set", "voice=off", "--quiet")
        assert code == 0, err
    return folder / "runs"


def run(*arguments):
    """The command in this process: its exit code, and what it printed."""
    import contextlib
    import io

    before, out, err = sys.argv, io.StringIO(), io.StringIO()
    handler = signal.getsignal(signal.SIGTERM)
    sys.argv = ["pipeline", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main()
    finally:
        sys.argv = before
        signal.signal(signal.SIGTERM, handler)
    return ended.value.code, out.getvalue(), err.getvalue()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of somebody's own, with an environment that says nothing."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("LLM_") or name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
    (tmp_path / "p.yaml").write_text(PERSONAS, "utf-8")
    (tmp_path / "s.yaml").write_text(SCENARIOS, "utf-8")
    return tmp_path


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_with_its_place_and_what_to_do(mistake, here, servers, runs, monkeypatch):
    if "runs" in mistake.command:
        shutil.copytree(runs, here / "runs")
    for name, content in mistake.files.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        content = content.replace("http://127.0.0.1:9", servers["locked"]) if isinstance(content, str) else content
        (here / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    for name, value in mistake.environment.items():
        monkeypatch.setenv(name, value.format(**servers))
    code, out, err = run(*shlex.split(mistake.command.format(**servers)))
    assert code == mistake.code, err + out
    printed = err if code == 2 and not out else err + out
    assert not [words for words in mistake.said if words not in printed], printed
    assert "Traceback" not in err and len(err) < 3000
    if code == 2 and not mistake.command.startswith("ping"):  # which says what it would have sent
        assert not out
        assert not (here / "runs").exists() or "runs" in mistake.command  # no trace of it
    assert KEY not in out + err
    written = [path for path in here.rglob("*") if path.is_file() and path.name not in mistake.files]
    assert not [path for path in written if KEY.encode() in path.read_bytes()]


MANIFESTS = {
    "no JSON": ("{", "run.json: damaged"),
    "no object": ("[]", "run.json: of format None"),
    "older": ('{"format": 0}', "of format 0, and this version reads 1. Make the run anew"),
    "newer": ('{"format": 99}', "of format 99, and this version reads 1. Upgrade"),
    "not whole": ('{"format": 1, "command": "generate"}', "run.json: not a whole manifest"),
}


@pytest.mark.parametrize("text, said", MANIFESTS.values(), ids=MANIFESTS)
def test_a_run_that_cannot_be_read_is_refused_with_what_to_do(text, said, here, runs):
    shutil.copytree(runs / "mine", here / "mine")
    (here / "mine" / "run.json").write_text(text, "utf-8")
    code, out, err = run("curate", "mine")
    assert (code, out) == (2, "") and said in err


def test_a_run_without_its_answers_keeps_its_dataset(here, runs):
    shutil.copytree(runs / "mine", here / "mine")
    (here / "mine" / "journal" / "npc.jsonl").unlink()
    code, _, err = run("curate", "mine")
    assert code == 2 and "journal" in err and "--resume mine" in err
    assert list((here / "mine" / "dataset" / "sft").iterdir())


def test_a_run_with_nothing_kept_has_nothing_to_export(here, servers):
    run(*shlex.split(f"{ASKED} --out r --quiet".format(fine=servers["mute"])))
    code, _, err = run("export", "r", "--format", "trl")
    assert code == 2 and "r/dataset: no sft, preference or kto there" in err


def test_two_do_not_write_one_run(here, runs):
    shutil.copytree(runs / "mine", here / "mine")
    with RunFolder(here / "mine").locked():
        code, _, err = run("curate", "mine")
    assert code == 2 and "is writing this run" in err


def process(*arguments, cwd, **more):
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        **more,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_a_full_disk_leaves_the_dataset_as_it_was(here, runs):
    import resource

    shutil.copytree(runs / "mine", here / "mine")
    before = {p: p.read_bytes() for p in (here / "mine" / "dataset").rglob("*") if p.is_file()}
    done = process(
        "curate", "mine", cwd=here, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    )
    assert done.returncode == 3 and "Traceback" not in done.stderr and "Error: " in done.stderr, done.stderr
    assert {p: p.read_bytes() for p in (here / "mine" / "dataset").rglob("*") if p.is_file()} == before


@pytest.mark.skipif(sys.platform == "win32", reason="folders have no such permissions")
def test_a_folder_that_may_not_be_written_is_named(here, runs):
    """Root may write anywhere, but for /proc, where nobody can make a folder."""
    code, _, err = run("generate", "--personas", "p.yaml", "--out", "/proc/npcs")
    assert code == 2 and "/proc/npcs: cannot be written" in err and "--out" in err


def test_a_mistake_costs_no_time_on_the_network(here):
    """What can be seen in the options is said before anybody is asked."""
    began = time.process_time()
    code, _, err = run("generate", "--server", "http://nohost.invalid:5000", "--dialect", "opnai")
    assert code == 2 and "opnai" in err and "nohost" not in err
    assert time.process_time() - began < 30


def test_what_is_printed_is_json_or_nothing(here, servers):
    """A program that reads --json never meets half a sentence."""
    code, out, err = run("ping", "--server", servers["denies"], "--json", "--quiet")
    assert code == 2 and json.loads(out)["error"] and not err
    code, out, err = run("ping", "--server", servers["down"], "--json", "--quiet")
    assert code == 2 and not out and err.startswith("Error: ")
