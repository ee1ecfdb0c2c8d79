"""What is worth asking again, and when: pure functions. The client hands in the clock's and the dice's values."""

from datetime import UTC
from email.utils import parsedate_to_datetime

MAX_ATTEMPTS = 10
LONGEST_WAIT = 120.0  # seconds that a server may ask us to wait

_RETRYABLE = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
_ABOUT_THE_REQUEST = frozenset({400, 413, 414, 415, 422, 431, 451})


def retryable_status(status: int) -> bool:
    """Whether an HTTP error may go away by itself. A 400, 401, 403, 404 or 422 comes again."""
    return status in _RETRYABLE


def final_status(status: int) -> bool:
    """Whether an HTTP error is about this very request, so that a resumed run need not ask again. A wrong key or path (401,
    403, 404) is somebody's setting, and may be mended by then."""
    return status in _ABOUT_THE_REQUEST


def retry_delay(attempt: int, *, retry_after: float | None, dice: float) -> float | None:
    """Seconds to wait after failed attempt number `attempt` (from 1), or None: give up.

    A server that names a delay is obeyed, up to LONGEST_WAIT. Else full jitter: uniform below 0.5 s, doubling to 8 s
    (`dice` in [0, 1)), so that many failed requests do not come back in step.
    """
    if attempt >= MAX_ATTEMPTS:
        return None
    if retry_after is not None:
        return retry_after if retry_after <= LONGEST_WAIT else None
    return float(dice * min(0.5 * 2 ** (attempt - 1), 8.0))


def retry_after(value: str | None, *, now: float) -> float | None:
    """Seconds named by a Retry-After header: a number or a date (RFC 9110, 10.2.3). `now` is Unix time."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(value)
        # "-0000" is a date without a zone: it means UTC, where Python would take it for local time.
        return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now)
    except (ValueError, OverflowError):
        return None
