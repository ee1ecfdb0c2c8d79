"""aiohttp's failures under httpx's names, each with a sentence that a person can read and no secret in it."""

import aiohttp
import httpx
from aiohttp.http import HttpProcessingError

ENGINE_ERRORS = (aiohttp.ClientError, HttpProcessingError, OSError, ValueError)


class ReplyTooLarge(httpx.ReadError):
    """Asking again would bring the same: not worth a retry, unlike other read errors."""


class NotTrusted(httpx.ConnectError):
    """The server's certificate is not one that the system's roots vouch for."""

    hint = "If the server is your own, --insecure (`insecure=True`) takes any certificate."


class NoHandshake(httpx.ConnectError):
    """Somebody is there, and does not speak TLS as we do."""

    hint = "Does the server speak http://, and not https://?"


def as_httpx(exc: BaseException, request: httpx.Request, *, reused: bool = False) -> httpx.TransportError:
    kind, message = _named(exc)
    if reused and isinstance(exc, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError):
        message += " (sent on an idle connection, which the server may just have given up)"
    return kind(message, request=request)


def _named(exc: BaseException) -> tuple[type[httpx.TransportError], str]:
    """From the special to the general. aiohttp's own errors are neither quoted nor chained: they hold the request's
    headers, the proxy's password and pieces of the reply."""
    match exc:
        case aiohttp.ConnectionTimeoutError():
            return httpx.ConnectTimeout, "no connection within the time allowed for it"
        case aiohttp.ServerTimeoutError():
            return httpx.ReadTimeout, "nothing came within the time allowed for a read"
        case aiohttp.ClientProxyConnectionError():
            return httpx.ProxyError, f"cannot reach the proxy: {_reason(exc.os_error)}"
        case aiohttp.ClientHttpProxyError():
            return httpx.ProxyError, f"the proxy answered {exc.status}"
        case aiohttp.ClientConnectorCertificateError():
            detail = getattr(exc.certificate_error, "verify_message", "")
            return NotTrusted, f"TLS certificate not trusted: {detail or 'it does not fit'}"
        case aiohttp.ClientConnectorSSLError():
            reason = getattr(exc.os_error, "reason", "no reason given")
            return NoHandshake, f"TLS handshake failed: {reason}"
        case aiohttp.ClientConnectorDNSError():
            return httpx.ConnectError, f"host name not found: {exc.os_error.strerror}"
        case aiohttp.ClientConnectorError():
            return httpx.ConnectError, _reason(exc.os_error)
        case aiohttp.ServerDisconnectedError():
            return httpx.RemoteProtocolError, "the server closed the connection without a whole reply"
        case aiohttp.ClientPayloadError():
            return httpx.RemoteProtocolError, "the reply is cut off"
        case aiohttp.ClientResponseError() | HttpProcessingError():
            return httpx.RemoteProtocolError, "the reply is not proper HTTP (or the address should be https://)"
        case aiohttp.NonHttpUrlClientError():
            return httpx.UnsupportedProtocol, "the address begins with neither http:// nor https://"
        case aiohttp.ClientConnectionResetError():
            return httpx.WriteError, "the connection was lost before the request was sent"
        case aiohttp.ClientOSError() if "write" in (exc.strerror or ""):
            return httpx.WriteError, "the connection was lost while the request was being sent"
        case OSError():
            return httpx.ReadError, _reason(exc)
        case ValueError():
            return httpx.LocalProtocolError, "cannot be sent: HTTP does not allow this address, method or header"
    return httpx.NetworkError, f"the connection failed ({type(exc).__name__})"


def _reason(exc: OSError) -> str:
    match exc:
        case ConnectionRefusedError():  # asyncio words this one with the numeric address alone
            return "connection refused"
        case ConnectionResetError():
            return "connection reset"
    return exc.strerror or str(exc) or type(exc).__name__
