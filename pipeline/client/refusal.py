"""From an answer with an HTTP error status to the error that says what can be done about it."""

import json
import time

import httpx

from pipeline.client.retry import retry_after, retryable_status
from pipeline.dialects.base import context_overflow, quota_spent
from pipeline.errors import Busy, Denied, Refused, TooLong


def overflow_in(address: str, status: int, said: str) -> TooLong | None:
    """The error for a context overflow that came with a 200."""
    try:
        too_long, over = context_overflow(json.loads(said))
    except (ValueError, RecursionError):
        return None
    if not too_long:
        return None
    found = TooLong(
        f"POST {address}: {_shorten(over)} {said[:200]!r}", url=address, status=status, body=said, retryable=False
    )
    found.over = over
    return found


def _shorten(over: int | None) -> str:
    by = f"by {over} tokens " if over else ""
    return f"The prompt is too long {by}for the model's context: shorten it, or give the model more (--ctx-size, n_ctx ...)."


def refused_by(address: str, status: int, body: str, headers: httpx.Headers) -> Refused:
    hints = {
        401: " Set LLM_API_KEY (or what `key` of its target names) to the server's key.",
        403: " Is the key in LLM_API_KEY the right one?",
        404: " Is the address right? Does the server's API go by another --dialect?",
    }
    hint = (
        " Redirects are not followed: give the address it points to." if 300 <= status < 400 else hints.get(status, "")
    )
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        parsed = None
    too_long, over = context_overflow(parsed) if status in (400, 413, 422, 500) else (False, None)
    spent = status == 429 and quota_spent(parsed)
    wait = retry_after(headers, now=time.time())
    if spent:
        hint += " The account's quota is spent: waiting does not help."
    elif wait is not None:
        hint += f" It asks to wait for {wait:.0f} s."
    if too_long:
        hint += f" {_shorten(over)}"
    kind = {401: Denied, 403: Denied, 429: Busy, 503: Busy, 529: Busy}.get(status, TooLong if too_long else Refused)
    refused = kind(
        f"POST {address}: {status} {body[:200]!r}.{hint}",
        url=address,
        status=status,
        body=body,
        retryable=retryable_status(status) and not spent and not too_long,
        retry_after=wait,
    )
    if isinstance(refused, TooLong):
        refused.over = over
    return refused
