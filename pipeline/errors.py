"""Everything the pipeline raises on purpose.

* PipelineError
  + ConfigError          a file or an option is wrong, or no server is there; nothing was sent
  + RunStopped           the run cannot go on; what was answered is safe, the same command resumes it
  + ServerError          one request failed for good
    - Unreachable        no whole answer came (refused, reset, no such host): start the server, look at the address
      . TimedOut         not by the deadline: wait longer, or ask less at a time
    - Refused            the server answered with an HTTP error status: look at the request and the settings
      . Denied           401, 403: set the key
      . Busy             429, 503, 529: come back after `retry_after`, or ask less at a time
      . TooLong          the prompt does not fit the model's context: shorten it by `over` tokens
    - BadReply           a 200 that is no answer in this dialect: look at --dialect, or ask again

An empty completion is none of these: it is an answer, with `Completion.empty` set.

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


class TimedOut(Unreachable):
    """The deadline for the reply, all attempts together, has passed."""


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


class Denied(Refused):
    """The server wants a key, or another one."""


class Busy(Refused):
    """Too much at a time, still loading, or a quota spent."""


class TooLong(Refused):
    """Prompt and reply do not fit the model's context. `over` is by how many tokens, None where the server does not say."""

    over: int | None = None


class BadReply(ServerError):
    """A 200 that this dialect cannot read. Asking again may help: some servers answer so when out of memory."""
