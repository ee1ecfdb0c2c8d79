"""Limits by the minute, as paid APIs have them: known beforehand, or told in the headers of a reply."""

import re
from collections.abc import Mapping
from datetime import datetime

_LONGEST = 120.0  # seconds that a header may make us wait
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class RateLimit:
    """Says how long to wait before the next request. Times are of a steady clock, in seconds, except for `wall`.

    Each limit is spent evenly, a fiftieth of a minute's worth at most in one go: a server that counts by the second does not
    refuse what is right by the minute. (The scheme is GCRA, the leaky bucket of ATM networks.)
    """

    BURST = 1.2  # seconds' worth

    def __init__(self, requests_per_minute: float | None = None, tokens_per_minute: float | None = None) -> None:
        self._requests, self._tokens = requests_per_minute, tokens_per_minute
        self._next_request = self._next_token = self._told = float("-inf")

    def take(self, now: float, tokens: int) -> float:
        """Seconds until a request of about `tokens` (prompt and reply) may be sent; it counts as sent then."""
        at = max(now, self._told)
        if self._requests:
            at = max(at, self._next_request - self.BURST)
            self._next_request = max(self._next_request, at) + 60 / self._requests
        if self._tokens:
            at = max(at, self._next_token - self.BURST)
            self._next_token = max(self._next_token, at) + tokens * 60 / self._tokens
        return at - now

    def told(self, headers: Mapping[str, str], *, now: float, wall: float) -> None:
        """Learn from `x-ratelimit-remaining-requests` and its kin (OpenAI's names, and Anthropic's) that nothing is left."""
        for prefix in ("x-ratelimit", "anthropic-ratelimit"):
            for kind in ("requests", "tokens"):
                swapped = prefix.startswith("anthropic")
                names = [f"{kind}-remaining", f"{kind}-reset"] if swapped else [f"remaining-{kind}", f"reset-{kind}"]
                left, reset = (headers.get(f"{prefix}-{name}", "") for name in names)
                if left.strip() in ("0", "0.0") and (wait := _span(reset, wall)) is not None:
                    self._told = max(self._told, now + min(wait, _LONGEST))


def _span(text: str, wall: float) -> float | None:
    """Seconds in "1.5", "6m0s", "20ms" or a date."""
    text = text.strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text):
        return float(text)
    if len(text) < 40 and re.fullmatch(rf"(?:{_SPAN.pattern})+", text):
        return sum(float(number) * _SECONDS[unit] for number, unit in _SPAN.findall(text))
    try:
        return max(0.0, datetime.fromisoformat(text).timestamp() - wall)
    except (ValueError, OverflowError):
        return None
