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
