"""It works the same elsewhere: on Windows, in an old code page, on a terminal without colours, below a folder with any name.

What only such a system could show is kept by rules that the code has to obey, read off its syntax.
"""

import ast
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes import FakeServer

PACKAGE = Path(__file__).parent.parent / "pipeline"
TREES = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}
NAME = "灯台守のミラ"


def calls(tree):
    """Each call in a module, the name of what is called, and its arguments."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            yield node, name, {keyword.arg for keyword in node.keywords}


def modes(node):
    """The mode of an open, "r" where none is given."""
    texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    return next((text for text in texts if re.fullmatch(r"[rwaxbt+]{1,3}", text)), "r")


@pytest.mark.parametrize("module", TREES)
def test_a_text_is_utf_8_and_its_lines_end_alike(module):
    for node, name, keywords in calls(TREES[module]):
        where = f"{module}:{node.lineno}"
        if name in ("read_text", "write_text"):
            assert "encoding" in keywords or any(
                getattr(a, "value", "") in ("utf-8", "utf-8-sig") for a in node.args
            ), where
            assert name == "read_text" or "newline" in keywords, where
        owner = getattr(getattr(node.func, "value", None), "id", "")
        of_a_file = name == "NamedTemporaryFile" or (
            name == "open" and owner not in ("os", "archive", "wheel", "webbrowser")
        )
        if of_a_file and (node.args or node.keywords or owner == "") and "b" not in (mode := modes(node)):
            assert "encoding" in keywords, where
            assert mode == "r" or "newline" in keywords, where


@pytest.mark.parametrize("module", TREES)
def test_nothing_is_used_that_windows_has_not(module):
    elsewhere = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty"}
    names = {
        "SIGKILL",
        "SIGHUP",
        "SIGUSR1",
        "SIGUSR2",
        "SIGALRM",
        "fork",
        "geteuid",
        "getuid",
        "pread",
        "fdatasync",
        "mkfifo",
    }
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import | ast.ImportFrom):
            imported = {alias.name.partition(".")[0] for alias in node.names}
            imported |= {(getattr(node, "module", None) or "").partition(".")[0]}
            assert not imported & elsewhere, f"{module}:{node.lineno}"
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") in ("os", "signal"):
            # A rename over a file that is there fails on Windows; os.replace does not.
            assert node.attr not in names | {"rename", "renames"}, f"{module}:{node.lineno}"
    # (pandas renames columns.)
    renames = [
        node.lineno for node, name, keywords in calls(TREES[module]) if name == "rename" and "columns" not in keywords
    ]
    assert not renames


def command(*arguments, cwd, **environment):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("LLM_")}
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *map(str, arguments)],
        cwd=cwd, env=clean | environment, capture_output=True, stdin=subprocess.DEVNULL, timeout=120,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of a persona with a name that few code pages have, in a folder like a user's, made with an old code page."""
    folder = tmp_path_factory.mktemp("Eigene Dateien für Björn's 灯台 100 %")
    folder.joinpath("my npcs.yaml").write_text(f"- {{id: '{NAME}', name: {NAME}, description: a keeper}}\n", "utf-8")
    folder.joinpath("s.yaml").write_text("- {id: hi, category: greeting, turns: [Hello.]}\n", "utf-8")
    with FakeServer() as server:
        options = ["--personas", "my npcs.yaml", "--scenarios", "s.yaml", "--server", server.url, "--set", "voice=off"]
        done = command(
            "generate", *options, "--out", "runs/ミラ 1", cwd=folder, PYTHONIOENCODING="cp1252", PYTHONUTF8="0"
        )
    return folder, done


def test_a_name_that_the_code_page_has_not_costs_its_letters_and_no_more(made):
    folder, done = made
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr and b"??" in done.stdout
    shown = command("personas", "list", "my npcs.yaml", cwd=folder, PYTHONIOENCODING="cp1252")
    assert shown.returncode == 0 and b"a keeper" in shown.stdout and b"??" in shown.stdout
    whole = command("personas", "list", "my npcs.yaml", cwd=folder, PYTHONIOENCODING="utf-8")
    assert NAME in whole.stdout.decode("utf-8")


def test_an_error_about_such_a_name_is_still_a_sentence(made):
    folder, _ = made
    done = command("personas", "show", "my npcs.yaml", "ミ", cwd=folder, PYTHONIOENCODING="cp1252")
    assert done.returncode == 2 and b"no persona '?'" in done.stderr and b"Traceback" not in done.stderr


def test_a_folder_with_any_name_holds_a_run_that_is_read_again(made):
    folder, _ = made
    for again in (("curate", "runs/ミラ 1"), ("export", "runs/ミラ 1", "--format", "trl")):
        done = command(*again, "--json", cwd=folder)
        assert done.returncode == 0, done.stderr


def test_what_is_written_has_names_that_windows_allows(made):
    folder, _ = made
    command("personas", "convert", "my npcs.yaml", "cards", cwd=folder)
    reserved = re.compile(r'[<>:"|?*\\\x00-\x1f]|[ .]$|^(?i:con|prn|aux|nul|com\d|lpt\d)(\.|$)')
    found = [path for path in folder.rglob("*")]
    assert len(found) > 15
    assert not [path.name for path in found if reserved.search(path.name)]


def test_a_run_is_named_by_what_windows_allows(tmp_path):
    done = command("generate", "--dry-run", "--json", cwd=tmp_path)
    assert done.returncode == 0
    from pipeline.cli.configure_arms import _ARM_NAME

    assert not _ARM_NAME.fullmatch("a:b") and not _ARM_NAME.fullmatch("a/b") and not _ARM_NAME.fullmatch("a\\b")


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize(
    "words", [(), ("generate",), ("eval",), ("curate",), ("export",), ("compare",), ("ping",), ("personas", "show")]
)
def test_help_fits_the_terminal(words, width):
    from click.testing import CliRunner

    from pipeline.cli import cli

    shown = CliRunner().invoke(cli, [*words, "-h"], terminal_width=width, max_content_width=width)
    assert shown.exit_code == 0 and "\x1b" not in shown.output
    assert max(map(len, shown.output.splitlines())) <= width


def every_command(group, words=()):
    for name, one in group.commands.items():
        yield (*words, name), one
        if hasattr(one, "commands"):
            yield from every_command(one, (*words, name))


def test_an_option_is_the_same_in_each_command():
    """One name, one kind of value; and every value is named for what it is."""
    from pipeline.cli import cli

    may_differ = {"--format", "--system", "--from", "--out", "--per-persona", "--turns", "--concurrency", "--template"}
    seen: dict[str, tuple[object, ...]] = {}
    for words, one in every_command(cli):
        for param in one.params:
            name = param.opts[-1]
            if not name.startswith("--") or name in may_differ:
                continue
            what = (type(param.type), param.metavar, param.default, getattr(param, "is_flag", False), param.multiple)
            assert seen.setdefault(name, what) == what, (words, name)
            assert getattr(param, "help", None), (words, name)


def test_every_command_that_tells_tells_it_as_json_too():
    from pipeline.cli import cli

    for words, one in every_command(cli):
        if not hasattr(one, "commands"):
            assert any("--json" in param.opts for param in one.params), words


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such terminal")
@pytest.mark.parametrize("environment, obeys", [({}, True), ({"NO_COLOR": "1"}, True), ({"TERM": "dumb"}, False)])
def test_a_terminal_gets_what_it_can_show(environment, obeys, made):
    """A bar that moves needs a terminal that obeys; NO_COLOR takes its colours, TERM=dumb all of it."""
    from terminal import in_a_terminal

    folder, _ = made
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith("LLM_") and k not in ("NO_COLOR", "FORCE_COLOR", "CI")
    }
    with FakeServer(delay=0.3) as server:
        options = ["--personas", "my npcs.yaml", "--scenarios", "s.yaml", "--server", server.url, "--set", "voice=off"]
        code, seen, out = in_a_terminal(
            [sys.executable, "-m", "pipeline", "generate", *options, "--out", f"t{time.monotonic_ns()}"],
            cwd=folder, env=clean | {"TERM": "xterm-256color"} | environment,
            stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    assert code == 0, seen
    assert b"\x1b" not in out  # a pipe is no terminal
    colours = re.findall(rb"\x1b\[[\d;]*m", seen)
    assert bool(re.search(rb"\x1b\[", seen)) == obeys
    if environment:
        assert not [c for c in colours if re.search(rb"(?:^|;|\[)(?:3[0-7]|38|4[0-7]|9[0-7])", c)], colours
    else:
        assert colours
