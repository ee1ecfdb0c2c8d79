"""What one test has settled must not hold for the next."""

import os
import random

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
