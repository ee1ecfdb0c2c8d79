"""Which server is it? Real loopback sockets, since what half-made servers do is the point; and messages that say what to try."""

import asyncio
import http.server
import json
import threading
from contextlib import contextmanager

import httpx
import pytest
from fakes import FakeServer
from hypothesis import given, settings
from hypothesis import strategies as st
from wire import Wire, reply, sends, stalls, unused_port

from pipeline.client.client import LLMClient
from pipeline.client.headers import request_headers
from pipeline.client.probe import Server, base_url, probe
from pipeline.client.transport import AiohttpTransport
from pipeline.dialects import DIALECTS
from pipeline.errors import ConfigError
from pipeline.records import Message, Request

MARKER = "sk-marker-0123456789"
CHAT, GENERATE = "/v1/chat/completions", "/api/v1/generate"
CHAT_REPLY = {"choices": [{"message": {"role": "assistant", "content": "Hm."}}]}
TEXT_REPLY = {"results": [{"text": " Hm."}]}
MODELS = {"object": "list", "data": [{"id": "mira-7b", "object": "model"}]}


def look(address, *, dialect="auto", transport=None, api_key=None, patience=5.0):
    async def ask():
        way = transport or AiohttpTransport()
        try:
            return await probe(
                address,
                dialect=dialect,
                transport=way,
                headers=lambda url: request_headers(url, api_key),
                patience=patience,
            )
        finally:
            await way.aclose()

    return asyncio.run(ask())


class Routes:
    """A server with the given answers, {(method, path): (status, JSON or text)}; `other` is what all else gets."""

    def __init__(self, routes, other=(404, {"detail": "Not Found"})):
        self._routes, self._other, self.asked, self.hosts = routes, other, [], set()
        self.transport = httpx.MockTransport(self._handle)

    def _handle(self, request):
        self.asked.append((request.method, request.url.path))
        self.hosts.add(request.url.host)
        status, body = self._routes.get(self.asked[-1], self._other)
        if isinstance(body, Exception):
            raise body
        return httpx.Response(status, **({"text": body} if isinstance(body, str) else {"json": body}))


def found(routes, other=(404, {"detail": "Not Found"}), **options):
    return look("http://npc", transport=Routes(routes, other).transport, **options)


def message(routes, other=(404, {"detail": "Not Found"}), **options):
    with pytest.raises(ConfigError) as caught:
        found(routes, other, **options)
    return str(caught.value)


# --- addresses


@pytest.mark.parametrize(
    "address, url, dialect",
    [
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000", None),
        ("http://127.0.0.1:5000/", "http://127.0.0.1:5000", None),
        ("127.0.0.1:5000", "http://127.0.0.1:5000", None),
        ("localhost", "http://localhost", None),
        ("v1", "http://v1", None),
        (" http://gpu:5000\n", "http://gpu:5000", None),
        ("HTTP://GPU:5000", "http://gpu:5000", None),
        ("http://gpu:5000/v1", "http://gpu:5000", None),
        ("http://gpu:5000/v1/", "http://gpu:5000", None),
        ("http://gpu:5000/v1/models", "http://gpu:5000", None),
        ("http://gpu:5000/v1/completions", "http://gpu:5000", "completions"),
        ("http://gpu:8080/completion", "http://gpu:8080", "llamacpp"),
        ("http://gpu:11434/api/chat", "http://gpu:11434", "ollama"),
        ("http://gpu:11434/api/generate", "http://gpu:11434", "ollama-generate"),
        ("http://gpu:5001/api/extra/generate/stream", "http://gpu:5001", None),
        ("http://gpu:5000/v1/chat/completions", "http://gpu:5000", "openai"),
        ("http://gpu:5000/api/v1/generate", "http://gpu:5000", "textgen"),
        ("http://gpu:5000/api/v1/model", "http://gpu:5000", None),
        ("gpu:5000/v1/chat/completions/", "http://gpu:5000", "openai"),
        ("https://host/llm/v1", "https://host/llm", None),
        ("https://host/api/v1", "https://host/api", None),  # the chat API below /api, as gateways have it
        ("http://gpu:5000/?key=1#top", "http://gpu:5000", None),
        ("http://[::1]:5000/v1", "http://[::1]:5000", None),
        ("[::1]:5000", "http://[::1]:5000", None),
        ("http://mira:word@gpu/v1", "http://mira:word@gpu", None),
    ],
)
def test_an_address_is_taken_as_people_paste_it(address, url, dialect):
    assert base_url(address) == (url, dialect)
    assert base_url(url) == (url, None)


@pytest.mark.parametrize(
    "address", ["", "  ", "http://", "ftp://gpu", "http://gpu:port", "::1", "http://gpu:99999", "\0"]
)
def test_what_is_no_address_is_refused_with_what_one_looks_like(address):
    with pytest.raises(ConfigError, match=r"http://127\.0\.0\.1:5000"):
        base_url(address)


@pytest.mark.parametrize(
    "address", [f"http://mira:{MARKER}/x@gpu", f"http://mira:{MARKER}@gpu:port", f"m:{MARKER}/@:x"]
)
def test_a_broken_address_is_not_shown_where_it_may_hold_a_password(address):
    with pytest.raises(ConfigError) as caught:
        base_url(address)
    assert MARKER not in str(caught.value)
    assert caught.value.__cause__ is None


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=30) | st.text("htp:/@[]?#.v1%: x", max_size=30))
def test_any_text_is_an_address_or_refused(address):
    try:
        url, _ = base_url(address)
    except ConfigError:
        return
    assert url.startswith(("http://", "https://")) and not url.endswith("/")


# --- servers as they are


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/", CHAT])
def test_an_openai_style_server_is_found_with_its_model(suffix):
    with FakeServer(models=("mira-7b",)) as server:
        assert look(server.url + suffix) == Server(server.url, "openai", ("mira-7b",))
        assert look(server.url.removeprefix("http://") + suffix) == Server(server.url, "openai", ("mira-7b",))
        assert not server.requests  # nothing was generated to find out


@pytest.mark.parametrize("suffix", ["", "/", GENERATE, "/api/v1/model"])
def test_a_textgen_style_server_is_found_with_its_model(suffix):
    with FakeServer(dialects=("textgen",), models=("mira-7b",)) as server:
        assert look(server.url + suffix) == Server(server.url, "textgen", ("mira-7b",))
        assert not server.requests


def test_a_server_with_both_apis_is_asked_by_chat_unless_told_otherwise():
    with FakeServer(dialects=("openai", "textgen")) as server:
        assert look(server.url).dialect == "openai"
        assert look(server.url, dialect="textgen").dialect == "textgen"
        assert look(server.url + GENERATE).dialect == "textgen"


def test_all_models_are_told():
    with FakeServer(models=("a", "b", "c")) as server:
        assert look(server.url).models == ("a", "b", "c")


def test_an_ipv6_address_works():
    async def ask():
        async with Wire(sends(reply(json.dumps(MODELS).encode())), host="::1") as server:
            way = AiohttpTransport()
            try:
                return await probe(
                    f"[::1]:{server.port}/v1",
                    dialect="auto",
                    transport=way,
                    headers=lambda url: request_headers(url, None),
                )
            finally:
                await way.aclose()

    try:
        server = asyncio.run(ask())
    except OSError:
        pytest.skip("no IPv6 on this machine")
    assert (server.dialect, server.models) == ("openai", ("mira-7b",))


def test_a_server_below_a_path_of_a_proxy_is_found_and_then_asked_there():
    routes = Routes({("GET", "/llm/v1/models"): (200, MODELS), ("POST", "/llm" + CHAT): (200, CHAT_REPLY)})
    server = look("http://npc/llm/v1", transport=routes.transport)
    assert server == Server("http://npc/llm", "openai", ("mira-7b",))
    client = LLMClient(server.url, dialect=server.dialect, transport=routes.transport)
    asyncio.run(client.complete(Request(messages=(Message(role="user", content="Hello"),))))
    assert routes.asked[-1] == ("POST", "/llm" + CHAT)


@pytest.mark.parametrize(
    "models, names",
    [
        ({"object": "list", "data": []}, ()),
        ({"data": [{"id": "a"}, {"id": 7}, {"name": "b"}, "c", None]}, ("a",)),
    ],
)
def test_a_list_of_models_may_be_empty_or_odd(models, names):
    assert found({("GET", "/v1/models"): (200, models)}) == Server("http://npc", "openai", names)


def test_ollama_without_a_model_yet_is_an_openai_style_server():
    needs_model = {"error": {"message": "model is required", "type": "invalid_request_error"}}
    routes = {("GET", "/v1/models"): (200, {"object": "list", "data": None}), ("POST", CHAT): (400, needs_model)}
    assert found(routes, (404, "404 page not found")) == Server("http://npc", "openai", ())


def test_the_first_api_without_its_model_path_is_found():
    assert found({("GET", GENERATE): (405, "")}).dialect == "textgen"
    assert found({("GET", CHAT): (405, "")}).dialect == "openai"


ELSE = [(404, "<h1>Not Found</h1>"), (405, "Method Not Allowed"), (501, "Unsupported method"), (400, "Bad Request")]


@pytest.mark.parametrize("other", ELSE)
@pytest.mark.parametrize("path, body, name", [(CHAT, CHAT_REPLY, "openai"), (GENERATE, TEXT_REPLY, "textgen")])
def test_a_server_where_nothing_but_its_one_path_exists_is_found(other, path, body, name):
    assert found({("POST", path): (200, body)}, other) == Server("http://npc", name, ())


@pytest.mark.parametrize("body, name", [(CHAT_REPLY, "openai"), (TEXT_REPLY, "textgen")])
def test_a_server_that_answers_every_post_alike_is_found_by_its_answer(body, name):
    posts = {("POST", CHAT): (200, body), ("POST", GENERATE): (200, body)}
    for other in ELSE:
        assert found(posts, other).dialect == name


def test_an_answer_tells_more_than_a_complaint():
    posts = {("POST", CHAT): (400, {"error": "no prompt"}), ("POST", GENERATE): (200, TEXT_REPLY)}
    assert found(posts).dialect == "textgen"


@contextmanager
def only_do_post(answer):
    """The twenty lines that people write in front of a model of their own."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            data = json.dumps(answer(body)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    class Quiet(http.server.ThreadingHTTPServer):
        def handle_error(self, request, client_address):
            pass

    with Quiet(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "answer, name",
    [
        (lambda body: {"choices": [{"message": {"content": body["messages"][0]["content"]}}]}, "openai"),
        (lambda body: {"results": [{"text": body["prompt"]}]}, "textgen"),
    ],
)
def test_a_handler_with_nothing_but_do_post_is_found(answer, name):
    # It answers 501 to any GET, and drops the connection at a body it did not expect.
    with only_do_post(answer) as url:
        assert look(url) == Server(url, name, ())


def test_a_named_dialect_is_believed():
    for name in ("openai", "textgen"):
        assert found({}, dialect=name) == Server("http://npc", name, ())


def test_a_named_dialect_still_gets_the_models_name():
    assert found({("GET", "/api/v1/model"): (200, {"result": "mira"})}, dialect="textgen").models == ("mira",)
    assert found({("GET", "/v1/models"): (200, MODELS)}, dialect="openai").models == ("mira-7b",)


# --- servers that are none


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("where", [("GET", "/v1/models"), ("GET", "/api/v1/model"), ("POST", CHAT)])
@pytest.mark.parametrize("body", [{"detail": "Unauthorized"}, "<h1>No</h1>", ""])
def test_a_server_that_wants_a_key_says_where_to_put_it(status, where, body):
    said = message({where: (status, body)})
    assert "http://npc" in said and "LLM_API_KEY" in said and str(status) in said


def test_the_key_is_sent_and_never_shown():
    with FakeServer() as server:
        assert look(server.url, api_key=MARKER).dialect == "openai"
    for status in (401, 404, 503):
        said = message({}, (status, {"error": f"no such key: {MARKER}"}), api_key=MARKER)
        assert MARKER not in said


def test_a_password_in_the_address_is_used_and_never_shown():
    routes = Routes({("GET", "/v1/models"): (200, MODELS)})
    server = look(f"http://mira:{MARKER}@npc/v1", transport=routes.transport)
    assert MARKER in server.url and MARKER not in repr(server)
    for other in ((401, ""), (404, ""), (503, {"error": "loading"}), (0, httpx.ConnectError("refused"))):
        with pytest.raises(ConfigError) as caught:
            look(f"http://mira:{MARKER}@npc", transport=Routes({}, other).transport)
        assert "http://npc" in str(caught.value) and MARKER not in str(caught.value)


@pytest.mark.parametrize(
    "other", [(404, "<h1>Not Found</h1>"), (200, "<html>It works!</html>"), (200, {}), (500, "oh")]
)
def test_some_other_service_is_named_as_such(other):
    said = message({}, other)
    for part in (
        "http://npc",
        "none of the APIs we know",
        CHAT,
        "right port",
        "--api",
        "--dialect",
    ):
        assert part in said


def test_text_generation_webuis_page_is_told_from_its_api():
    said = message({("GET", "/"): (200, "<html><script>window.gradio_config = {}</script></html>")}, (404, "{}"))
    assert "Start it with --api" in said and "usually 5000" in said


def test_a_web_page_is_named_by_its_title():
    said = message({("GET", "/"): (200, "<html><TITLE lang=en>\n Grafana </title></html>")})
    assert "a page called 'Grafana'" in said


def listed(name="mira-7b", **more):
    return (200, {"object": "list", "data": [{"id": name, "object": "model", **more}]})


MODELS_AT = ("GET", "/v1/models")
PRODUCTS = {
    "llama.cpp": (
        {
            MODELS_AT: listed(owned_by="llamacpp"),
            ("GET", "/props"): (
                200,
                {"total_slots": 4, "default_generation_settings": {"n_ctx": 2048}, "build_info": "b6000-00dc"},
            ),
        },
        ("openai", "llama.cpp b6000-00dc", 4, None, 2048),
    ),
    "KoboldCpp": (
        {
            MODELS_AT: listed("koboldcpp/mira-7b", owned_by="koboldcpp"),
            ("GET", "/api/v1/model"): (200, {"result": "koboldcpp/mira-7b"}),
            ("GET", "/api/extra/version"): (200, {"result": "KoboldCpp", "version": "1.102"}),
            ("GET", "/api/extra/true_max_context_length"): (200, {"value": 8192}),
            ("GET", "/props"): (200, {"total_slots": 1}),  # 1.102 answers for others, too
            ("GET", "/api/version"): (200, {"version": "0.7.0"}),
            ("GET", "/api/tags"): (200, {"models": []}),
        },
        ("openai", "KoboldCpp 1.102", 1, 6, 8192),
    ),
    "KoboldCpp by its own API alone": (
        {
            ("GET", "/api/v1/model"): (200, {"result": "koboldcpp/mira-7b"}),
            ("GET", "/api/extra/version"): (200, {"result": "KoboldCpp", "version": "1.50"}),
        },
        ("textgen", "KoboldCpp 1.50", 1, 6, None),
    ),
    "Ollama": (
        {
            MODELS_AT: listed("mira:7b", owned_by="library"),
            ("GET", "/api/version"): (200, {"version": "0.12.3"}),
            ("GET", "/api/tags"): (200, {"models": [{"name": "mira:7b"}]}),
        },
        ("ollama", "Ollama 0.12.3", None, None, None),
    ),
    "vLLM": (
        {MODELS_AT: listed(owned_by="vllm", max_model_len=4096), ("GET", "/version"): (200, {"version": "0.11.0"})},
        ("openai", "vLLM 0.11.0", None, None, 4096),
    ),
    "text-generation-webui": (
        {MODELS_AT: listed(owned_by="user"), ("GET", "/v1/internal/health"): (200, {"status": "ok"})},
        ("openai", "text-generation-webui", None, None, None),
    ),
    "LM Studio": (
        {
            MODELS_AT: (200, {"data": [{"id": "big"}, {"id": "mira-7b"}, {"id": "embed"}]}),
            ("GET", "/api/v0/models"): (
                200,
                {
                    "data": [
                        {"id": "big", "type": "llm", "state": "not-loaded"},
                        {"id": "mira-7b", "type": "llm", "state": "loaded"},
                        {"id": "embed", "type": "embeddings", "state": "loaded"},
                    ]
                },
            ),
        },
        ("openai", "LM Studio", None, None, None),
    ),
    "llama-cpp-python": (
        {
            MODELS_AT: listed(owned_by="me"),
            ("GET", "/openapi.json"): (200, {"info": {"title": "llama.cpp Python API", "version": "0.3.36"}}),
        },
        ("openai", "llama-cpp-python 0.3.36", 1, 1, None),
    ),
    "transformers serve": (
        {MODELS_AT: listed(), ("GET", "/openapi.json"): (200, {"info": {}, "paths": {"/load_model": {}}})},
        ("openai", "transformers serve", 1, None, None),
    ),
    "somebody else": ({MODELS_AT: listed()}, ("openai", "", None, None, None)),
}


@pytest.mark.parametrize("routes, wanted", PRODUCTS.values(), ids=PRODUCTS)
def test_a_server_is_known_by_what_it_tells_about_itself(routes, wanted):
    server = found(routes)
    assert (server.dialect, server.product, server.slots, server.most, server.context) == wanted
    assert (
        found(routes, dialect="textgen").dialect == "textgen"
    )  # what is named is believed, and the rest is still found


@pytest.mark.parametrize("odd", ["[]", "null", "7", '{"total_slots": "many", "result": 7, "models": {}}', "<html>"])
def test_odd_answers_about_itself_are_passed_over(odd):
    server = found({MODELS_AT: listed(owned_by=7, max_model_len="long")}, (200, odd))
    assert (server.models, server.slots, server.context) == (("mira-7b",), None, None)


def test_of_ollamas_models_the_one_that_is_loaded_is_taken():
    both = (200, {"data": [{"id": "a"}, {"id": "b"}]})
    routes = {**PRODUCTS["Ollama"][0], MODELS_AT: both}
    assert found(routes).models == ("a", "b")
    assert found({**routes, ("GET", "/api/ps"): (200, {"models": [{"name": "b"}]})}).models == ("b",)


def test_of_lm_studios_models_the_loaded_ones_that_speak_are_offered():
    assert found(PRODUCTS["LM Studio"][0]).models == ("mira-7b",)


def test_transformers_serve_that_needs_no_name_is_sent_none():
    routes = PRODUCTS["transformers serve"][0]
    assert found(routes).models == ("mira-7b",)
    assert found({**routes, ("POST", CHAT): (200, CHAT_REPLY)}).models == ()


def test_koboldcpps_address_may_end_with_api():
    routes = PRODUCTS["KoboldCpp by its own API alone"][0]
    server = look("http://npc/api", transport=Routes(routes).transport)
    assert (server.url, server.product) == ("http://npc", "KoboldCpp 1.50")


def test_a_redirect_is_not_followed_and_is_named():
    routes = Routes({}, (308, ""))
    with pytest.raises(ConfigError, match="redirects, which is not followed"):
        look("http://npc", transport=routes.transport, api_key=MARKER)
    assert routes.hosts == {"npc"}


def test_a_server_that_still_loads_its_model_is_no_stranger():
    loading = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}
    said = message({}, (503, loading))
    assert "Loading model" in said and "Try again" in said and "none of" not in said


def test_a_busy_koboldcpp_is_found_all_the_same():
    busy = {"detail": {"msg": "Server is busy; please try again later.", "type": "service_unavailable"}}
    assert found({("GET", "/api/v1/model"): (200, {"result": "koboldcpp/mira"})}, (503, busy)).dialect == "textgen"


def on_the_wire(answer, **options):
    async def ask():
        async with Wire(answer) as server:
            way = AiohttpTransport()
            try:
                await probe(
                    server.url, dialect="auto", transport=way, headers=lambda url: request_headers(url, None), **options
                )
            finally:
                await way.aclose()

    with pytest.raises(ConfigError) as caught:
        asyncio.run(ask())
    return str(caught.value)


@pytest.mark.parametrize(
    "piece", [b"SSH-2.0-OpenSSH_9.6\r\n", b"-ERR unknown command\r\n", b"\x15\x03\x01\x00\x02\x02\x16", b""]
)
def test_a_port_that_speaks_no_http_is_named_as_such(piece):
    said = on_the_wire(sends(piece))
    assert "no HTTP" in said and "right port" in said


@pytest.mark.parametrize("answer", [stalls, sends(reply(b'{"data": ['), close=False)])
def test_a_server_that_never_answers_is_not_waited_for(answer):
    said = on_the_wire(answer, patience=0.3)
    assert "no answer to GET /v1/models within 0.3 s" in said and "loading" in said


def test_nobody_there_is_told_with_what_to_try():
    address = f"127.0.0.1:{unused_port()}"
    with pytest.raises(ConfigError) as caught:
        look(address)
    for part in (f"http://{address}", "connection refused", "running", "port", "embedded"):
        assert part in str(caught.value)


def test_a_name_nobody_has_is_told():
    with pytest.raises(ConfigError, match="cannot connect"):
        look("http://no-such-host.invalid", patience=20)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["data", "id", "result", "results", "choices", "error", "detail"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([200, 302, 400, 401, 404, 405, 422, 500, 503]), JSON | st.text(max_size=9)),
        min_size=1,
    )
)
def test_whatever_answers_is_a_known_server_or_a_message(answers):
    def handle(request):
        status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        return httpx.Response(status, text=body if isinstance(body, str) else json.dumps(body))

    try:
        server = look("http://npc", transport=httpx.MockTransport(handle))
    except ConfigError as exc:
        assert "http://npc" in str(exc)
    else:
        assert server.dialect in DIALECTS
