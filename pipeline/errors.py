"""Everything the pipeline raises on purpose.

* PipelineError
  + ConfigError          a file or an option is wrong, or no server is there; nothing was sent
  + RunStopped           the run cannot go on; what was answered is safe, the same command resumes it
  + ServerError          one request failed for good
    - Unreachable        nobody answered: refused, reset, no such host, or the deadline passed
    - Refused            the server answered with an HTTP error status
    - BadReply           the server answered 200, but not in its dialect

A request that fails costs its row, not the run: `generation` writes the failure into the journal and goes on.
Only ConfigError and RunStopped end a command.
"""


class PipelineError(Exception):
    """Catch this to catch all of ours and none of anyone else's."""


class ConfigError(PipelineError):
    """A person has to change something; the message says what was found, where, and what to try."""


class RunStopped(PipelineError):
    """The journal cannot be written, or the server has gone away."""


class ServerError(PipelineError):
    """`url` is the address asked, without its user part; `retryable` says whether asking again may help."""

    retryable = True

    def __init__(self, message: str, *, url: str) -> None:
        super().__init__(message)
        self.url = url


class Unreachable(ServerError):
    """No whole answer came."""

    def __init__(self, message: str, *, url: str, retryable: bool = True) -> None:
        super().__init__(message, url=url)
        self.retryable = retryable


class Refused(ServerError):
    """An answer came, with an error status. `status` is that of HTTP, `body` what came with it, keys redacted;
    `retry_after` is how many seconds the server asks to wait, if it does."""

    def __init__(
        self, message: str, *, url: str, status: int, body: str, retryable: bool, retry_after: float | None = None
    ) -> None:
        super().__init__(message, url=url)
        self.status = status
        self.body = body
        self.retryable = retryable
        self.retry_after = retry_after


class BadReply(ServerError):
    """A 200 that this dialect cannot read. Asking again may help: some servers answer so when out of memory."""
