"""Evennia's settings, read from the environment under Evennia's names."""

import os

import pytest

from pipeline.config import LLMSettings, RunConfig
from pipeline.errors import ConfigError

MARKER = "sk-marker-0123456789"


def test_without_any_setting_evennias_defaults_hold():
    settings = LLMSettings.from_environment({})
    assert settings.host == "http://localhost:5000"
    assert settings.path is None  # /api/v1/generate where Evennia's API is spoken; it counts only when set
    assert settings.headers == {"Content-Type": "application/json"}
    assert settings.prompt_keyname == "prompt"
    assert settings.request_body == {"max_new_tokens": 250, "temperature": 0.7}
    assert settings.api_key is None


def test_each_setting_is_read_by_its_name():
    settings = LLMSettings.from_environment(
        {
            "LLM_HOST": "http://gpu:8080",
            "LLM_PATH": "/v1/completions",
            "LLM_HEADERS": '{"X-Game": "Dolorne"}',
            "LLM_PROMPT_KEYNAME": "input",
            "LLM_REQUEST_BODY": '{"max_tokens": 60}',
            "LLM_API_KEY": MARKER,
        }
    )
    assert (settings.host, settings.path, settings.prompt_keyname) == ("http://gpu:8080", "/v1/completions", "input")
    assert (settings.headers, settings.request_body) == ({"X-Game": "Dolorne"}, {"max_tokens": 60})
    assert settings.api_key == MARKER


def test_the_environment_is_read_when_asked_not_when_imported(monkeypatch):
    monkeypatch.setitem(os.environ, "LLM_HOST", "http://later:1")
    assert LLMSettings.from_environment().host == "http://later:1"


@pytest.mark.parametrize("name", ["LLM_HOST", "LLM_PATH", "LLM_HEADERS", "LLM_PROMPT_KEYNAME", "LLM_REQUEST_BODY"])
def test_an_empty_variable_is_one_that_is_not_set(name):
    assert LLMSettings.from_environment({name: ""}) == LLMSettings()


@pytest.mark.parametrize(
    "given, value",
    [
        ('"application/json"', "application/json"),
        ('["application/json"]', "application/json"),
        ('["text/plain", "application/json"]', "text/plain, application/json"),
        ("1", "1"),
    ],
)
def test_header_values_are_strings_or_lists_of_them(given, value):
    settings = LLMSettings.from_environment({"LLM_HEADERS": f'{{"Accept": {given}}}'})
    assert settings.headers == {"Accept": value}


@pytest.mark.parametrize("name", ["LLM_HEADERS", "LLM_REQUEST_BODY"])
@pytest.mark.parametrize(
    "value",
    [
        MARKER,
        f'{{"Authorization": "Bearer {MARKER}"',
        f'["{MARKER}"]',
        f'"{MARKER}"',
        "null",
        f'{{"{MARKER}": {"9" * 5000}}}',
        f'{{"{MARKER}": {"[" * 100_000}',
    ],
)
def test_a_setting_that_is_no_json_object_is_refused_by_name_and_not_shown(name, value):
    with pytest.raises(ConfigError, match=name) as caught:
        LLMSettings.from_environment({name: value})
    assert MARKER not in str(caught.value)
    assert caught.value.__cause__ is None  # a JSONDecodeError holds the whole document


def test_no_repr_shows_what_may_hold_a_key():
    settings = LLMSettings.from_environment(
        {
            "LLM_HOST": f"http://mira:{MARKER}@gpu",
            "LLM_HEADERS": f'{{"X-Key": "{MARKER}"}}',
            "LLM_REQUEST_BODY": f'{{"key": "{MARKER}"}}',
            "LLM_API_KEY": MARKER,
        }
    )
    config = RunConfig(
        command="generate",
        personas="p",
        scenarios="s",
        server=f"http://mira:{MARKER}@gpu",
        headers={"X-Key": MARKER},
    )
    assert MARKER not in repr(settings) + repr(config) + str(config.fingerprint())


@pytest.mark.parametrize(
    "server, shown",
    [
        ("embedded", "embedded"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("http://mira:secret@gpu:5000/llm/v1", "http://gpu:5000/llm/v1"),
        ("mira:secret@gpu:5000", "gpu:5000"),
        ("http://mira:se@cret@gpu", "http://gpu"),
        ("http://gpu/a@b", "http://gpu/a@b"),
        ("http://[::1]:5000", "http://[::1]:5000"),
    ],
)
def test_a_server_is_shown_without_its_user_part(server, shown):
    assert RunConfig(command="eval", personas="p", scenarios="s", server=server).shown_server() == shown


def test_what_may_change_between_a_run_and_its_resumption_does_not_make_another_run():
    def asked(**changes):
        return RunConfig(command="generate", personas="p", scenarios="s", **changes).fingerprint()

    assert asked() == asked(concurrency=64, timeout=5.0, limit=10, headers={"X-Key": "k"})
    assert asked() != asked(seed=1)
    assert asked(server="http://mira:one@gpu") == asked(server="http://mira:two@gpu")
