"""What one test has settled must not hold for the next."""

import pytest

from pipeline.scorers.lexicon import settle_folder


@pytest.fixture(autouse=True)
def no_folder_is_settled():
    yield
    settle_folder(settled=False)
