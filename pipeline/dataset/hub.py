"""The dataset on the Hugging Face hub: one commit of the card and the tables it names.

Private unless asked otherwise, also when the repository is there already: rows never go to a public one by oversight. The
dropped rows stay here unless asked for; then the card that is sent does not speak of them, and those of an earlier push are
deleted. The token comes from HF_TOKEN or from what `hf auth login` stored, and is sent to the hub and shown nowhere.
"""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from pipeline.errors import Busy, ConfigError, Denied, PipelineError, Refused, Unreachable

REJECTED = "rejected"
_OURS = re.compile(r"(sft|preference|kto|rejected)/[^/]+\.parquet")  # what an earlier push may have left there
_HEAD = re.compile(r"---\r?\n(.*?)^---\r?\n", re.DOTALL | re.MULTILINE)


def push_to_hub(
    dataset_folder: Path, repo_id: str, *, public: bool, with_rejected: bool, say: Callable[[str], None]
) -> str:
    """Make the dataset repository `repo_id` hold this dataset; returns its address.

    Raises ConfigError where a person has to change something, and a ServerError where the hub refuses or is out of reach.
    """
    card, paths = _to_send(dataset_folder, with_rejected)
    with _worded_errors(repo_id):
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

        token = get_token()
        if not token:
            raise ConfigError("no token for the Hugging Face hub: set HF_TOKEN, or log in once with `hf auth login`.")
        if not (token.isascii() and token.isprintable()):
            raise ConfigError("the token for the Hugging Face hub has characters that no token has. Look at HF_TOKEN.")
        api = HfApi(token=token)
        with _quiet():
            # Private from its first moment, whatever the account's default is. A name without owner gets its owner here.
            made = api.create_repo(repo_id, repo_type="dataset", private=not public, exist_ok=True)
            there = api.dataset_info(made.repo_id)
            if not there.private and not public:
                raise ConfigError(f"{there.id} is there already, and public. Say --public, or take another name.")
            stale = sorted(
                file.rfilename
                for file in there.siblings or []
                if _OURS.fullmatch(file.rfilename) and file.rfilename not in paths
            )
            size = sum((dataset_folder / path).stat().st_size for path in paths) + len(card)
            where = "private" if there.private else "public"
            say(f"Sending {len(paths) + 1} files, {size / 1e6:.1f} MB, to the {where} dataset {there.id}.")
            operations: list[Any] = [CommitOperationAdd("README.md", card)]
            operations += [CommitOperationAdd(path, dataset_folder / path) for path in paths]
            operations += [CommitOperationDelete(path) for path in stale]
            api.create_commit(there.id, operations, repo_type="dataset", commit_message="Upload the dataset")
            if stale:
                say(f"Deleted there: {', '.join(stale)}. The history of the repository still has them.")
            if public and there.private:
                say("It was there already, and private: it stays so.")
        return f"{_endpoint()}/datasets/{there.id}"


def _to_send(folder: Path, with_rejected: bool) -> tuple[bytes, list[str]]:
    """The card, and the tables that it names, as paths in the folder. No other file of the folder is sent."""
    try:
        text = (folder / "README.md").read_bytes().decode("utf-8")
        found = _HEAD.match(text)
        head: Any = yaml.safe_load(found[1] if found else "")
        configs = [config for config in head["configs"] if with_rejected or config["config_name"] != REJECTED]
        paths = [file["path"] for config in configs for file in config["data_files"]]
        paths += [name for name in ("curation.yaml",) if paths and (folder / name).is_file()]
    except FileNotFoundError as exc:
        raise ConfigError(f"{folder}: no dataset there (no README.md). pipeline generate makes one.") from exc
    except (OSError, ValueError, yaml.YAMLError, LookupError, TypeError) as exc:
        raise ConfigError(f"{folder / 'README.md'}: not a card of ours. pipeline generate writes it anew.") from exc
    if not paths:
        raise ConfigError(f"{folder}: no rows to send.")
    for path in paths:
        inside = not PurePosixPath(path).is_absolute() and ".." not in PurePosixPath(path).parts
        if not inside or not (folder / path).is_file():
            raise ConfigError(
                f"{folder}: {path} is not there, and the card names it. pipeline generate writes it anew."
            )
    assert found is not None
    if len(configs) < len(head["configs"]):
        head["configs"] = configs
        body = [_unspoken(line) for line in text[found.end() :].splitlines(keepends=True)]
        text = f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n{''.join(body)}"
    return text.encode("utf-8"), paths


def _unspoken(line: str) -> str:
    """The card says where the dropped rows are; they are not there in what is sent."""
    return "The dropped rows were not uploaded.\n" if f"config `{REJECTED}`" in line else line


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's progress bars and notes: what happens is said by us."""
    import warnings

    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    logger = logging.getLogger("huggingface_hub")
    shown, level = not are_progress_bars_disabled(), logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            disable_progress_bars()
            yield
    finally:
        logger.setLevel(level)
        if shown:
            enable_progress_bars()


@contextmanager
def _worded_errors(repo_id: str) -> Iterator[None]:
    """The library's exceptions in our words. They are not chained: they hold requests, and those hold the token."""
    try:
        yield
    except PipelineError:
        raise
    except Exception as exc:
        if (worded := _worded(exc, repo_id)) is None:
            raise
        raise worded from None


def _worded(exc: BaseException, repo_id: str) -> PipelineError | None:
    """None for what is no failure of the hub or on the way to it, but a mistake of ours."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    url = _endpoint()
    if isinstance(exc, HFValidationError):
        return ConfigError(
            f"{repo_id}: not a name for a dataset. OWNER/NAME, of letters, digits, '-', '_' and '.', each up to 96 long."
        )
    if isinstance(exc, OfflineModeIsEnabled):
        return ConfigError("HF_HUB_OFFLINE is set: nothing is sent to the hub. Unset it to push.")
    if isinstance(exc, HfHubHTTPError):
        return _refused(exc.response.status_code, exc.server_message or "", url, repo_id)
    if isinstance(exc, RuntimeError) and exc.__cause__ is not None:  # wrapped around what failed in a thread
        return _worded(exc.__cause__, repo_id)
    if isinstance(exc, OSError) and exc.filename:
        return ConfigError(f"{exc.filename}: cannot be read: {exc.strerror}.")
    if isinstance(exc, ValueError) and "README.md" in str(exc):
        return ConfigError("the hub does not take the head of the card, README.md. pipeline generate writes it anew.")
    if isinstance(exc, ValueError | KeyError):
        return Unreachable(f"{url} does not answer as the Hugging Face hub does.", url=url, retryable=False)
    library = type(exc).__module__.partition(".")[0]
    if library == "huggingface_hub":
        return ConfigError(
            f"no way into the Hugging Face hub ({type(exc).__name__}). Set HF_TOKEN, or `hf auth login`."
        )
    # It has had requests, httpx and httpx2 underneath; hf_xet raises what Rust gives it.
    if isinstance(exc, OSError | RuntimeError) or library in ("httpx", "httpx2", "httpcore", "requests", "hf_xet"):
        why = type(exc).__name__
        return Unreachable(f"{url} cannot be reached, or broke off ({why}). Try the same command again.", url=url)
    return None


def _endpoint() -> str:
    """The hub's address, without what may stand before an @ in it."""
    from huggingface_hub.constants import ENDPOINT

    return re.sub(r"//[^/@]*@", "//", ENDPOINT)


def _refused(status: int, said: str, url: str, repo_id: str) -> Refused:
    hints = {
        401: "the hub does not know the token. Set HF_TOKEN to a valid one, or log in anew with `hf auth login`.",
        403: "the token may not write there. It needs the right to write, and OWNER has to be you or your organisation.",
        404: "no such repository, or the token may not see it.",
        429: "too many requests. Try again later.",
    }
    hint = hints.get(status, "the hub failed. Try again later." if status >= 500 else "the hub refuses.")
    kind = {401: Denied, 403: Denied, 429: Busy, 503: Busy}.get(status, Refused)
    retryable = status == 429 or status >= 500
    detail = f" It says: {_safe(said)}" if said and status < 500 else ""
    return kind(f"{repo_id}: {status}, {hint}{detail}", url=url, status=status, body="", retryable=retryable)


def _safe(said: str) -> str:
    """One line, and without the token, should the hub have echoed it."""
    from huggingface_hub import get_token

    token = get_token()
    said = said.replace(token, "[key]") if token else said
    return " ".join(re.sub(r"hf_\w+", "[key]", said).split())[:200]
