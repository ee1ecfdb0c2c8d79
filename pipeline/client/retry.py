"""What is worth asking again, and when: pure functions. The client hands in the clock's and the dice's values."""

from collections.abc import Mapping
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


def retry_delay(attempt: int, *, retry_after: float | None, left: float, dice: float) -> float | None:
    """Seconds to wait after failed attempt number `attempt` (from 1), or None: give up.

    A server that names a delay is obeyed, up to LONGEST_WAIT and to the `left` seconds that there are. On top of it, or
    without one, full jitter: uniform below 0.5 s, doubling to 8 s (`dice` in [0, 1)), so that many failed requests do not come
    back in step, and an attempt is never spent at once; and below half of what is left, so that the dice never cost a row.
    """
    asked = retry_after or 0.0
    if attempt >= MAX_ATTEMPTS or not asked <= min(LONGEST_WAIT, left):
        return None
    return float(asked + dice * min(0.5 * 2 ** (attempt - 1), 8.0, (left - asked) / 2))


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Seconds that a server asks to wait: `retry-after-ms` (vLLM's and OpenAI's), or Retry-After as a number or a date
    (RFC 9110, 10.2.3). `now` is Unix time."""
    try:
        return max(0.0, float(headers["retry-after-ms"]) / 1000)
    except (LookupError, ValueError):
        pass
    value = headers.get("retry-after", "")
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


class RetryBudget:
    """Keeps retries from making a storm of a server's bad minute: about 30 for 100 first attempts, and ten a second beside.

    What is over budget waits its turn rather than fails: a row is lost to its deadline only. (The shape is that of Finagle's
    RetryBudget, which fails instead.) Times are of any steady clock, in seconds.
    """

    SHARE = 0.3
    PER_SECOND = 10.0
    _MOST = 100.0  # retries that a long quiet time saves up

    def __init__(self) -> None:
        self._balance = 2 * self.PER_SECOND
        self._seen: float | None = None

    def first_attempt(self) -> None:
        self._balance = min(self._balance + self.SHARE, self._MOST)

    def take(self, now: float, *, left: float) -> float | None:
        """Take one retry from the budget: the seconds until it is covered. None, and nothing taken, if that is longer than the
        `left` seconds that there are."""
        elapsed = now - self._seen if self._seen is not None else 0.0
        self._seen = now
        self._balance = min(self._balance + elapsed * self.PER_SECOND, self._MOST)
        wait = max(0.0, (1 - self._balance) / self.PER_SECOND)
        if wait >= left:
            return None
        self._balance -= 1
        return wait
