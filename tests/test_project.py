"""pipeline.toml: servers under names; a mistake in it says where and what."""

import pytest

from pipeline.errors import ConfigError
from pipeline.server.project import defaults, named_target


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "pipeline.toml"


GPU = '[targets.gpu]\nurl = "http://127.0.0.1:8000"\nmodel = "mira"\nkey = "GPU_KEY"\nprice = [0.15, 0.6]\nrequests_per_minute = 60\n'


def test_a_name_is_a_target_and_an_address_is_none(here):
    here.write_text(GPU)
    target = named_target("gpu")
    assert (target.url, target.model, target.key, target.price) == (
        "http://127.0.0.1:8000",
        "mira",
        "GPU_KEY",
        (0.15, 0.6),
    )
    for address in ("http://gpu", "127.0.0.1:5000", "gpu:5000", "localhost", "gpu.local", "[::1]", ""):
        assert named_target(address) is None


@pytest.mark.parametrize("text, said", [("", "It has no targets"), (GPU, "It has gpu"), (None, "There is none")])
def test_a_name_that_is_not_there_says_which_are(here, text, said):
    if text is not None:
        here.write_text(text)
    with pytest.raises(ConfigError, match=rf"--server cpu: .*pipeline\.toml.*{said}"):
        named_target("cpu")


@pytest.mark.parametrize(
    "text, said",
    [
        ("[targets.gpu\n", r"pipeline\.toml:1: not TOML"),
        ('[targets.gpu]\nmodel = "x"\n', r"toml:1: targets\.gpu: it has no url"),
        (GPU + "colour = 1\n", r"targets\.gpu has no 'colour'\. There are: url"),
        (GPU + "concurrency = 0\n", r"targets\.gpu\.concurrency has to be 1 or more"),
        (GPU.replace("[0.15, 0.6]", "[-1, 0.6]"), r"targets\.gpu\.price\.0"),
        ('[servers.gpu]\nurl = "x"\n', "toml:1: unknown section 'servers'"),
        ('[targets.embedded]\nurl = "x"\n', r"targets\.embedded: no name for a target"),
        ('[targets."gpu.home"]\nurl = "x"\n', r"targets\.gpu\.home: no name for a target"),
        (GPU.replace("[0.15, 0.6]", "[inf, 0.6]"), r"targets\.gpu\.price\.0"),
        ('[defaults]\npersona = "x"\n', r"toml:2: defaults has no 'persona'\. Did you mean personas\?"),
        ("[defaults]\nper_persona = 0\n", r"toml:2: defaults\.per_persona.* has to be 1 or more"),
        ('[defaults]\nserver = "cpu"\n', r"defaults\.server: 'cpu' is no address, and there is no \[targets\.cpu\]"),
        (
            GPU.replace('"GPU_KEY"', '"sk-secret-key-value"'),
            r"targets\.gpu\.key: it is the name of the environment variable",
        ),
    ],
)
def test_a_mistake_is_named_by_its_place_and_no_value_is_shown(here, text, said):
    here.write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        named_target("gpu")
    assert "sk-secret" not in str(caught.value)


DEFAULTS = """
[defaults]
personas = "people"
scenarios = "someone/plays"
per_persona = "all"
suite = "mine"
template = "npc/mine"
server = "gpu"
"""


def test_each_command_takes_the_defaults_that_are_for_it(here):
    assert defaults("generate", ()) == defaults("eval", ()) == defaults("ping", ()) == {}
    here.write_text(DEFAULTS + GPU)
    (here.parent / "people").mkdir()
    both = {"template": "npc/mine", "server": "gpu"}
    assert defaults("generate", ()) == {"personas": "people", "scenarios": "someone/plays", "per_persona": None, **both}
    assert defaults("eval", ()) == {"suite": "mine", **both}
    assert defaults("ping", ()) == {"server": "gpu"}
    assert defaults("generate", {"personas", "template", "per_persona"}) == {
        "scenarios": "someone/plays",
        "server": "gpu",
    }


def test_a_default_that_is_not_there_is_named_unless_something_else_is_given(here):
    here.write_text(DEFAULTS + GPU)
    with pytest.raises(ConfigError, match=r"pipeline\.toml: defaults\.personas: there is no 'people' in this folder"):
        defaults("generate", ())
    assert "personas" not in defaults("generate", {"personas"})
