"""How many at a time a server is asked, by what it tells about itself."""

import pytest

from pipeline.client.autolimit import AutoLimit
from pipeline.client.probe import Server
from pipeline.config import RunConfig
from pipeline.server.target import _concurrency


def asked(concurrency, said=None, **told):
    config = RunConfig(command="generate", personas="", scenarios="", concurrency=concurrency)
    found = Server("http://npc", told.pop("dialect", "openai"), ("m",), product="X", **told)
    return _concurrency(config, found, (said if said is not None else []).append)


@pytest.mark.parametrize(
    "told, wanted",
    [
        ({}, AutoLimit()),
        ({"slots": 8}, AutoLimit(start=8, most=8)),  # llama.cpp: more would only queue there
        ({"slots": 1, "most": 6}, AutoLimit(start=1, most=6)),  # KoboldCpp
        ({"slots": 1, "most": 1}, AutoLimit(start=1, most=1)),  # llama-cpp-python
        ({"dialect": "ollama"}, AutoLimit(start=1)),
    ],
)
def test_auto_begins_with_what_the_server_tells(told, wanted):
    assert asked(None, **told) == wanted


def test_a_number_is_a_number_unless_the_server_would_refuse_it():
    said = []
    assert asked(32, said, slots=4) == 32 and not said
    assert asked(32, said, slots=1, most=6) == 6
    assert "takes 6 at a time, not 32" in said[0]
