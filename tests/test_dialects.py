"""Each wire format against golden files: what must go over the wire, and what came back from each kind of server.

tests/golden/<dialect>/request_*.json is what `encode` has to give, reply_<server>.json and stream_<server>.sse are answers
in the shape of that server.
"""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.client.reply import UnreadableReply, read_reply
from pipeline.dialects import DIALECTS, dialect_named
from pipeline.dialects.base import (
    context_overflow,
    count_of,
    error_text,
    quota_spent,
    reason_of,
    server_figures,
    text_of,
    well_formed,
)
from pipeline.errors import ConfigError
from pipeline.records import GenerateConfig, Message, Request, Usage

GOLDEN = Path(__file__).parent / "golden"
OPENAI, TEXTGEN = DIALECTS["openai"], DIALECTS["textgen"]
TEXT = "Safe as ever. Mind the rope."
COUNTED, UNCOUNTED = Usage(prompt_tokens=31, completion_tokens=8), Usage()

ASKED = "Is the river safe tonight? “Quick”, now – {{not a template}} 100%"
REQUEST = Request(
    messages=(
        Message(role="system", content="You are Mira, who keeps the ferry at Ash Ford."),
        Message(role="user", content=ASKED),
    ),
    prompt=f"Mira keeps the ferry.\nAnna: {ASKED}\nMira:",
)
FULL = GenerateConfig(max_tokens=120, temperature=0.7, stop=("\nAnna:",), seed=7)


def golden(name):
    return (GOLDEN / name).read_text(encoding="utf-8")


def with_config(config):
    return Request(messages=REQUEST.messages, prompt=REQUEST.prompt, config=config)


@pytest.mark.parametrize(
    "name, request_, model, stream",
    [
        ("openai/request_full.json", with_config(FULL), "mira-7b", True),
        ("openai/request_bare.json", REQUEST, None, False),
        ("textgen/request_full.json", with_config(FULL), "mira-7b", False),
        ("textgen/request_bare.json", REQUEST, None, False),
        ("completions/request_full.json", with_config(FULL), "mira-7b", True),
        ("completions/request_bare.json", REQUEST, None, False),
        ("koboldcpp/request_full.json", with_config(FULL), "mira-7b", True),
        ("koboldcpp/request_bare.json", REQUEST, None, False),
        ("llamacpp/request_full.json", with_config(FULL), "mira-7b", True),
        ("llamacpp/request_bare.json", REQUEST, None, False),
        ("ollama/request_full.json", with_config(FULL), "mira-7b", True),
        ("ollama/request_bare.json", REQUEST, None, False),
        ("ollama-generate/request_full.json", with_config(FULL), "mira-7b", True),
        ("ollama-generate/request_bare.json", REQUEST, None, False),
    ],
)
def test_what_is_sent_is_the_golden_request(name, request_, model, stream):
    dialect = DIALECTS[name.partition("/")[0]]
    assert dialect.encode(request_, model=model, stream=stream) == json.loads(golden(name))


@pytest.mark.parametrize(
    "name, text, finish_reason, usage",
    [
        ("textgen/reply_textgen_legacy.json", f" {TEXT}", None, UNCOUNTED),
        ("textgen/reply_textgen_legacy_without_a_model.json", "", None, UNCOUNTED),
        ("textgen/reply_koboldcpp_1.76.json", f" {TEXT}", None, UNCOUNTED),
        ("textgen/reply_koboldcpp_1.102.json", f" {TEXT}", "stop", COUNTED),
        ("openai/reply_textgen.json", TEXT, "stop", COUNTED),
        ("openai/reply_koboldcpp_1.76.json", TEXT, None, UNCOUNTED),  # its counts are made up
        ("openai/reply_koboldcpp_1.102.json", TEXT, "stop", COUNTED),
        ("openai/reply_llamacpp.json", TEXT, "stop", COUNTED),
        ("openai/reply_ollama.json", TEXT, "stop", COUNTED),
        ("openai/reply_vllm.json", TEXT, "stop", COUNTED),
        ("openai/reply_vllm_reasoning_only.json", "", "length", Usage(prompt_tokens=31, completion_tokens=80)),
        ("openai/stream_textgen.sse", TEXT, "stop", COUNTED),
        ("openai/stream_koboldcpp_1.76.sse", TEXT, "stop", UNCOUNTED),
        ("openai/stream_llamacpp.sse", TEXT, "stop", COUNTED),
        ("openai/stream_ollama.sse", TEXT, "stop", COUNTED),
        ("openai/stream_vllm.sse", TEXT, "stop", COUNTED),
        ("completions/reply_vllm.json", f" {TEXT}", "stop", COUNTED),
        ("completions/reply_llamacpp.json", f" {TEXT}", "length", COUNTED),
        ("completions/reply_koboldcpp_1.76.json", f" {TEXT}", None, UNCOUNTED),
        ("completions/stream_textgen.sse", f" {TEXT}", "stop", COUNTED),
        ("koboldcpp/reply_1.76.json", f" {TEXT}", None, UNCOUNTED),  # it says "length" of a stop string, too
        ("koboldcpp/reply_1.102.json", f" {TEXT}", "stop", COUNTED),
        ("koboldcpp/stream_1.76.sse", f" {TEXT}", "stop", UNCOUNTED),
        ("koboldcpp/stream_1.102.sse", f" {TEXT}", "stop", UNCOUNTED),
        ("llamacpp/reply_completion.json", f" {TEXT}", "stop", COUNTED),
        ("llamacpp/reply_limit.json", f" {TEXT}", "length", COUNTED),
        ("llamacpp/reply_2024.json", f" {TEXT}", "stop", COUNTED),
        ("llamacpp/stream_completion.sse", f" {TEXT}", "stop", COUNTED),
        ("ollama/reply_chat.json", TEXT, "stop", COUNTED),
        ("ollama/reply_thinking_cached.json", "", "length", Usage(completion_tokens=8)),
        ("ollama/stream_chat.ndjson", TEXT, "stop", COUNTED),
        ("ollama-generate/reply_generate.json", f" {TEXT}", "stop", COUNTED),
        ("ollama-generate/stream_generate.ndjson", f" {TEXT}", "stop", COUNTED),
    ],
)
def test_the_golden_reply_is_read(name, text, finish_reason, usage):
    reply = read_reply(DIALECTS[name.partition("/")[0]], golden(name), streamed="/stream_" in name)
    if usage == UNCOUNTED:
        usage = Usage(completion_tokens=math.ceil(len(text) / 4), source="estimate")
    assert (reply.text, reply.finish_reason, reply.usage) == (text, finish_reason, usage)
    own = {
        "llamacpp": "predicted_n",
        "ollama/": "eval_duration",
        "ollama-": "eval_duration",
        "s/reply_vllm": "queue_time_ms",
    }
    for server, figure in own.items():  # its own figures are kept beside ours
        assert (server in name) <= (figure in reply.server)


@pytest.mark.parametrize(
    "said, over",
    [
        ({"message": "request too long", "type": "exceed_context_size_error", "n_prompt_tokens": 5000, "n_ctx": 4096}, 904),
        ({"message": "request too long", "type": "exceed_context_size_error"}, None),
        ("This model's maximum context length is 4096 tokens. However, you requested 4100 tokens (3100 in the messages, "
         "1000 in the completion).", 4),
        ("This model's maximum context length is 4096 tokens. However, your request has 5000 input tokens.", 904),
        ("You passed 5000 input tokens and requested 100 output tokens. However, the model's context length is only 4096 "
         "tokens, resulting in a maximum input length of 3996 tokens.", 1004),
        ("'max_tokens' is too large: 1000. This model's maximum context length is 2048 tokens and your request has 1500 "
         "input tokens (1000 > 2048 - 1500).", 452),
        ("Requested tokens (3000) exceed context window of 2048", 952),
        ("`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens and 100 `max_new_tokens`", 1004),
        ("the request exceeds the available context size. try increasing the context size", None),
        ("the request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it", 904),
        ("This model's maximum context length is 4097 tokens. However, your messages resulted in 4150 tokens.", 53),
        ("This model's maximum context length is 8,192 tokens. However, you requested 10,000 tokens (9,000 in the messages, "
         "1,000 in the completion).", 1808),
        ("`inputs` tokens + `max_new_tokens` must be <= 2048. Given: 1500 `inputs` tokens and 1500 `max_new_tokens`", 952),
        ("'max_tokens' is too large: 1500. This model's maximum context length is 2048 tokens and your request has 1500 "
         "input tokens (1500 > 2048 - 1500).", 952),
        ("prompt is too long: 210000 tokens > 200000 maximum", 10000),
    ],
)  # fmt: skip
def test_a_context_overflow_says_by_how_many_tokens(said, over):
    body = {"error": said if isinstance(said, dict) else {"message": said}}
    assert context_overflow(body) == (True, over)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(
    st.sampled_from(["error", "message", "type", "code", "timings", "x_duration"]), inner)))  # fmt: skip
def test_whatever_an_error_says_nothing_raises(body):
    found, over = context_overflow(body)
    assert found or over is None
    quota_spent(body)
    assert all(
        isinstance(value, int | float) for value in (server_figures(body) if isinstance(body, dict) else {}).values()
    )


def test_every_golden_file_is_used():
    used = Path(__file__).read_text(encoding="utf-8")
    files = [path.relative_to(GOLDEN).as_posix() for path in GOLDEN.rglob("*.*")]
    assert files and not [name for name in files if f'"{name}"' not in used]


@pytest.mark.parametrize(
    "dialect, names",
    [
        ("openai", ["max_tokens"]),
        ("completions", ["max_tokens"]),
        ("textgen", ["max_new_tokens", "max_length"]),
        ("koboldcpp", ["max_length"]),
        ("llamacpp", ["n_predict"]),
    ],
)
def test_the_length_limit_goes_under_each_name_a_server_may_know(dialect, names):
    body = DIALECTS[dialect].encode(Request(messages=REQUEST.messages, prompt="Hello"), model=None, stream=False)
    assert {name: body[name] for name in names} == dict.fromkeys(names, GenerateConfig().max_tokens)


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda dialect: dialect.name)
def test_a_field_left_none_is_not_sent(dialect):
    body = dialect.encode(with_config(GenerateConfig(max_tokens=None)), model=None, stream=False)
    body.pop("options", None)
    assert set(body) - {"trim_stop", "model", "stream", "raw"} in ({"messages"}, {"prompt"})


SAMPLING = {"top_p": 0.9, "top_k": 40, "min_p": 0.05, "repeat_penalty": 1.1, "presence_penalty": 0.2}


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda dialect: dialect.name)
def test_a_field_that_a_server_does_not_know_is_an_error_and_never_dropped(dialect):
    every = SAMPLING | {"frequency_penalty": 0.3, "json_schema": {"type": "object"}}
    for name, value in every.items():
        asked = with_config(GenerateConfig(**{name: value}))
        if name not in dialect.fields:
            with pytest.raises(ConfigError, match=name):
                dialect.encode(asked, model=None, stream=False)
            continue
        body = dialect.encode(asked, model=None, stream=False)
        assert json.dumps(value) in json.dumps(body)
    assert dialect.fields.keys() >= SAMPLING.keys()


def test_a_schema_goes_where_each_server_looks_for_it():
    schema = {"type": "object", "properties": {"mood": {"type": "string"}}}
    asked = with_config(GenerateConfig(json_schema=schema))
    sent = {
        name: dialect.encode(asked, model=None, stream=False)
        for name, dialect in DIALECTS.items()
        if "json_schema" in dialect.fields
    }
    assert sent["openai"]["response_format"]["json_schema"]["schema"] == schema
    assert sent["llamacpp"]["json_schema"] == sent["ollama"]["format"] == schema
    assert set(sent) == {"openai", "completions", "llamacpp", "ollama", "ollama-generate"}


def test_sampling_is_part_of_a_requests_key_and_what_was_not_given_is_not():
    plain = Request(messages=REQUEST.messages, config=GenerateConfig(seed=1))
    assert plain.key("m") == "ac2c6a480746b801c0b87d5fa71e2343"  # as it was before there were more than four fields
    keys = {
        Request(messages=REQUEST.messages, config=GenerateConfig(seed=1, **{k: v})).key("m")
        for k, v in SAMPLING.items()
    }
    assert len(keys | {plain.key("m")}) == len(SAMPLING) + 1


@pytest.mark.parametrize("name", ["koboldcpp", "llamacpp", "ollama", "ollama-generate", "completions"])
@pytest.mark.parametrize("said", [{"error": "out of memory"}, {"error": {"code": 500, "message": "out of memory"}}])
def test_an_error_in_the_middle_of_a_stream_is_said(name, said):
    dialect = DIALECTS[name]
    (path,) = [path for path in sorted((GOLDEN / name).glob("stream_*"))][:1]
    begin = path.read_text("utf-8").splitlines(keepends=True)[:2]
    line = json.dumps(said) + "\n"
    whole = "".join(begin) + (line if dialect.media_type == "application/x-ndjson" else f"\ndata: {line}\n")
    with pytest.raises(UnreadableReply, match="out of memory"):
        read_reply(dialect, whole, streamed=True)


def test_a_dialect_of_another_package_is_found_by_its_entry_point(tmp_path, monkeypatch):
    package = tmp_path / "npc_dialect-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: npc-dialect\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(
        "[pipeline.dialects]\nmine = npc_dialect:Mine\nbroken = npc_dialect:Nothing\n"
    )
    (tmp_path / "npc_dialect.py").write_text(
        "from pipeline.dialects.openai import OpenAIChat\nclass Mine(OpenAIChat):\n    name = 'mine'\n    path = '/mine'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert dialect_named("mine").path == "/mine"
    with pytest.raises(ConfigError, match=r"broken.*npc_dialect:Nothing"):
        dialect_named("broken")
    with pytest.raises(ConfigError, match=r"unknown dialect 'telepathy'.*openai.*mine"):
        dialect_named("telepathy")


def test_a_text_dialect_makes_do_with_messages_alone():
    asked = Request(messages=(Message(role="system", content="You are Mira."), Message(role="user", content="Hello")))
    assert TEXTGEN.encode(asked, model=None, stream=False)["prompt"] == "You are Mira.\nHello"


def test_encoding_changes_nothing_in_the_request():
    before = repr(REQUEST)
    OPENAI.encode(REQUEST, model="m", stream=True)["messages"].clear()
    assert repr(REQUEST) == before


@pytest.mark.parametrize("value", [None, 1, True, 1.5, [], ["stop"], {}, {"type": "stop"}, "", "null"])
def test_a_finish_reason_is_a_string_or_none(value):
    assert reason_of(value) is None
    choice = {"message": {"content": "Hm."}, "finish_reason": value}
    assert OPENAI.decode({"choices": [choice]}).finish_reason is None
    assert TEXTGEN.decode({"results": [{"text": "Hm.", "finish_reason": value}]}).finish_reason is None
    event = json.dumps({"choices": [{"delta": {"content": "Hm."}, "finish_reason": value}]})
    assert OPENAI.decode_event(event).finish_reason is None


@pytest.mark.parametrize("value", [None, True, -1, 1.0, "8", [8], 10**30])
def test_a_count_is_a_number_that_a_table_can_hold(value):
    assert count_of(value) is None
    body = {"choices": [{"message": {"content": ""}}], "usage": {"prompt_tokens": value, "completion_tokens": 8}}
    assert OPENAI.decode(body).usage == Usage(prompt_tokens=None, completion_tokens=8)


@pytest.mark.parametrize("usage", [None, [], "many", 8, {}, {"total_tokens": 8}])
def test_a_reply_without_usage_has_none(usage):
    assert OPENAI.decode({"choices": [{"message": {"content": "Hm."}}], "usage": usage}).usage == UNCOUNTED


def test_only_koboldcpps_made_up_usage_is_doubted():
    usage = {"prompt_tokens": 100, "completion_tokens": 100, "total_tokens": 200}
    body = {"choices": [{"message": {"content": "Hm."}}], "usage": usage}
    assert OPENAI.decode(body).usage.completion_tokens == 100
    assert OPENAI.decode({**body, "model": "koboldcpp/x"}).usage.completion_tokens is None
    for model in (None, 7, ["koboldcpp/x"]):
        assert OPENAI.decode({**body, "model": model}).usage.completion_tokens == 100


def test_a_text_is_a_string_and_null_is_silence():
    assert text_of(None) == ""
    for value in (5, True, ["Hm."], {"text": "Hm."}):
        with pytest.raises(TypeError):
            text_of(value)


@pytest.mark.parametrize(
    "text, mended",
    [
        ("Mind the rope.", "Mind the rope."),
        ("“Añejo” 🜂", "“Añejo” 🜂"),
        ("\ud83d\ude00", "😀"),
        ("half \ud83d", "half \ufffd"),
        ("\ude00 and \ud83d", "\ufffd and \ufffd"),
    ],
)
def test_a_text_can_always_be_written_to_a_file(text, mended):
    assert well_formed(text) == mended
    well_formed(text).encode()


@pytest.mark.parametrize(
    "body, message",
    [
        ({"error": "model 'x' not found"}, "model 'x' not found"),
        ({"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}, "Loading model"),
        ({"error": {"message": "too long", "type": "BadRequestError", "param": None, "code": 400}}, "too long"),
        ({"object": "error", "message": "too long", "code": 400}, "too long"),
        ({"detail": "Unauthorized"}, "Unauthorized"),
        (
            {"detail": {"msg": "Server is busy; please try again later.", "type": "service_unavailable"}},
            "Server is busy",
        ),
        ({"detail": {"error": "Unauthorized", "msg": "Authentication key is missing."}}, "key is missing"),
        ({"detail": [{"loc": ["body", "messages"], "msg": "Field required", "type": "missing"}]}, "Field required"),
        ({"error": "out of memory", "error_type": "generation"}, "out of memory"),
        ({"error": {"code": 7}}, "7"),
        ({"error": 7}, "7"),
        ({"error": ["one", "two"]}, "one"),
        ({"error": ""}, None),
        ({"error": None, "detail": "Not Found"}, "Not Found"),
        ({"choices": []}, None),
        ({}, None),
        ([], None),
        (None, None),
        ("error", None),
        (7, None),
    ],
)
def test_the_message_is_found_in_every_shape_of_error(body, message):
    found = error_text(body)
    assert found is None if message is None else message in found


def nested(depth, key):
    body = "deep"
    for _ in range(depth):
        body = {key: body} if key else [body]
    return body


@pytest.mark.parametrize("key", ["error", "detail", "message", "msg", None])
@pytest.mark.parametrize("depth", [5, 100, 900, 5000])
def test_however_deep_an_error_is_looking_for_its_message_does_not_raise(key, depth):
    for body in (nested(depth, key), {"error": nested(depth, key)}, {"error": {"code": nested(depth, key)}}):
        found = error_text(body)
        assert found is None or isinstance(found, str)


def test_an_errors_message_is_short_and_can_be_written_to_a_file():
    assert error_text({"error": "long " * 10**6}) == ("long " * 100)
    assert error_text({"error": {"message": "half \ud83d"}}) == "half \ufffd"
