"""By a proxy, or over TLS: and never where nobody said so."""

import asyncio
import contextlib
import json
import ssl
import traceback

import httpx
import pytest
from loopback import HELLO, PROXY_VARIABLES, SECRET, Loopback, ask, fetch, refusal, sends

from pipeline.client.httpx_errors import NotTrusted
from pipeline.client.transport import AiohttpTransport

# Proxies


@pytest.fixture
def environment(monkeypatch):
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_no_proxy_comes_between_us_and_this_machine(environment, host):
    environment.setenv("HTTP_PROXY", "http://127.0.0.1:1")

    async def main():
        async with Loopback(sends(HELLO)) as server, AiohttpTransport() as transport:
            assert await fetch(transport, server.url.replace("127.0.0.1", host)) == (200, b"hello")

    asyncio.run(main())


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
def test_a_proxy_from_the_environment_is_asked_for_other_hosts(environment, variable):
    async def main():
        async with Loopback(sends(HELLO)) as proxy, AiohttpTransport() as transport:
            environment.setenv(variable, proxy.url.replace("//", "//mira:pw@"))
            assert await fetch(transport, "http://tavern.example/talk") == (200, b"hello")
            assert proxy.requests[0].startswith(b"POST http://tavern.example/talk HTTP/1.1\r\nHost: tavern.example\r\n")
            assert b"Proxy-Authorization: Basic bWlyYTpwdw==" in proxy.requests[0]

    asyncio.run(main())


def test_a_proxy_that_fails_is_named_as_such(environment):
    async def main():
        async with Loopback(sends(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")) as proxy:
            environment.setenv("HTTPS_PROXY", proxy.url.replace("//", f"//mira:{SECRET}@"))
            environment.setenv("HTTP_PROXY", f"http://mira:{SECRET}@127.0.0.1:1")
            environment.setenv("NO_PROXY", "inn.example")
            for url, message in (("https://tavern.example/", "403"), ("http://tavern.example/", "refused")):
                async with AiohttpTransport() as transport:
                    with pytest.raises(httpx.ProxyError, match=message) as caught:
                        await fetch(transport, url)
                assert SECRET not in "".join(traceback.format_exception(caught.value))
            assert [request.split(b"\r\n")[0] for request in proxy.requests] == [b"CONNECT tavern.example:443 HTTP/1.1"]

    asyncio.run(main())


def test_a_proxy_of_another_kind_is_refused(environment):
    environment.setenv("ALL_PROXY", f"socks5://mira:{SECRET}@127.0.0.1:1")
    with pytest.raises(httpx.ProxyError, match="not an http:// one") as caught:
        asyncio.run(fetch(AiohttpTransport(), "http://tavern.example/"))
    assert SECRET not in str(caught.value)


# TLS. The key guards nothing: it is for these tests alone, and good until 2126.

CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgkNqfb3QwFiVZvch2
Z33xY0MtuFLLZVuVtPd4Z73nMCihRANCAASB0Mm5VCP2EFumaGM4DU/k7izLnGBA
GYcD3DM3L6edLiCMrKBDxXTVe45pz+ytVZepIuMJjK9ePEg8oPcouqKi
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBmzCCAUGgAwIBAgIUZGb8V0PkS/nEMKeoSbQ/jYoJmwAwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMTEwNDE1OFoYDzIxMjYxMTIy
MTA0MTU4WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAASB0Mm5VCP2EFumaGM4DU/k7izLnGBAGYcD3DM3L6edLiCMrKBDxXTV
e45pz+ytVZepIuMJjK9ePEg8oPcouqKio28wbTAdBgNVHQ4EFgQUJbbpHziRjrUM
m/+s0r59DHMnuSUwHwYDVR0jBBgwFoAUJbbpHziRjrUMm/+s0r59DHMnuSUwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSAAwRQIhAP1UN1med3IW5w6N2tgQwo6Gk/E9hkhD53l2ys6+k6vrAiBL
mfLE3phZr3LUI8TIfeox8lWulS2pPwccdpiuDWxb/g==
-----END CERTIFICATE-----
"""


@pytest.fixture
def self_signed(tmp_path):
    file = tmp_path / "home.pem"
    file.write_text(CERTIFICATE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def test_a_self_signed_certificate_is_refused_unless_the_caller_says_otherwise(self_signed):
    assert "certificate not trusted: self" in refusal(sends(HELLO), NotTrusted, tls=self_signed)
    assert ask(sends(HELLO), tls=self_signed, options={"verify": False}) == (200, b"hello")


def test_tls_with_a_server_that_speaks_plain_http_is_a_failed_connection():
    async def main():
        async def speaks_first(reader, writer):
            writer.write(HELLO)
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()

        async with await asyncio.start_server(speaks_first, "127.0.0.1", 0) as server, AiohttpTransport() as transport:
            with pytest.raises(httpx.ConnectError, match="TLS handshake failed"):
                await fetch(transport, f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")

    asyncio.run(main())


def test_an_httpx_client_works_on_top():
    async def main():
        body = json.dumps({"text": "Well met."}).encode()
        answer = sends(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        async with (
            Loopback(answer) as server,
            httpx.AsyncClient(transport=AiohttpTransport(), base_url=server.url) as client,
        ):
            assert (await client.post("/x", json={"prompt": "Hail!"})).json() == {"text": "Well met."}

    asyncio.run(main())
