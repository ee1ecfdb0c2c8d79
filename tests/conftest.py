"""What one test has settled must not hold for the next."""

import os
import random
import shutil
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from pipeline.scorers.lexicon import settle_folder

settings.register_profile("busy", deadline=None)  # a machine that does other things as well is no failure
settings.load_profile("busy")


@pytest.fixture(autouse=True, scope="session")
def a_terminal_of_one_width():
    os.environ["COLUMNS"] = "160"  # else what is printed depends on where the tests run


@pytest.fixture(autouse=True)
def no_folder_is_settled():
    yield
    settle_folder(settled=False)


@pytest.fixture
def no_waiting_between_attempts(monkeypatch):
    monkeypatch.setattr(random, "random", lambda: 0.0)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """What `pipeline init` writes, and we are in it; no server is named in the environment."""
    from pipeline.cli.starter import make_starter

    for name in [name for name in os.environ if name.startswith("LLM_")]:
        monkeypatch.delenv(name)
    make_starter(tmp_path / "my")
    monkeypatch.chdir(tmp_path / "my")
    return tmp_path / "my"


@pytest.fixture
def ends(monkeypatch, capsys):
    """`ends("curate", ...)`: the exit code of the whole command, and what it says on stderr."""
    from pipeline.cli import main

    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["pipeline", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, capsys.readouterr().err

    yield run
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run with contrast; its server is gone. Not to be written to."""
    from curated import Server, generate, write_inputs

    folder = tmp_path_factory.mktemp("finished")
    with Server() as server:
        generate(server, write_inputs(folder), folder / "run", "--contrast")
    return folder / "run"


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """The same, to be curated again."""
    return Path(shutil.copytree(finished, tmp_path / "run"))
