"""llama.cpp's own HTTP server in a child process: `python -m pipeline.server.embedded`.

In a process of its own because inside ours it takes the interpreter down at exit when a request is in flight. The parent
talks to it through two pipes and, like to any other server, over HTTP on the loopback:

    parent -- one JSON line: model, adapter, threads, slots, key --> child's stdin      (then held open)
    parent <-- one JSON line: address or error ---------- child's stdout

The child leaves when its stdin closes. The system closes it when the parent is gone, however it went, kill -9 included; so no
server stays behind. The key is made anew for each child and goes by the pipe, where no list of processes shows it.
"""

import asyncio
import json
import os
import secrets
import sys
import threading
from pathlib import Path
from typing import Self

from pipeline.errors import ConfigError

CONTEXT = 2048  # tokens for one slot
_START = 120.0  # seconds: a large model on a slow disk
# llama.cpp's threads wait for each other hundreds of times a token, by default spinning: with another busy process on the
# machine each then burns the time the other needs. Measured on 2 cores beside one such process: 20 times slower than alone,
# with this 2.4 times; alone it costs nothing.
_SPIN = {"GOMP_SPINCOUNT": "2000"}


def slots() -> int:
    """Replies at a time. On few cores one at a time is fastest: its neighbour's prompt is still in the cache (measured on
    2 cores: 1.4 s a reply with one slot, 2.4 s with four)."""
    return max(1, (os.cpu_count() or 1) // 4)


class EmbeddedServer:
    """`async with EmbeddedServer(model, parallel=1) as server:` has `server.url` and `server.api_key`.

    Should the child crash, it is started again, once, at the same address: the client's retries do the rest.
    """

    def __init__(self, model: Path, *, parallel: int, adapter: Path | None = None) -> None:
        self.url = ""
        self.api_key = secrets.token_hex(16)
        self._model, self._parallel, self._adapter = model, parallel, adapter
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.url = await self._start(port=0)
        self._watch = asyncio.create_task(self._restart_once())
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self._end()

    async def _restart_once(self) -> None:
        assert self._process is not None
        await self._process.wait()
        await self._start(port=int(self.url.rpartition(":")[2]))

    async def _start(self, port: int) -> str:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # without the working directory on its path: a file there may be called pipeline.py
            "-m",
            "pipeline.server.embedded",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            # Ctrl-C in a terminal goes to all of a group. The replies in flight are still wanted then.
            start_new_session=True,
            env={**_SPIN, **os.environ},
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        wanted = {
            "model": str(self._model),
            "adapter": str(self._adapter) if self._adapter else None,
            "parallel": self._parallel,
            "threads": os.cpu_count() or 1,
            "api_key": self.api_key,
            "port": port,
        }
        problem = "it died while it was loading the model"
        try:
            self._process.stdin.write(json.dumps(wanted).encode() + b"\n")
            async with asyncio.timeout(_START):
                answer = json.loads(await self._process.stdout.readline() or b"{}")
            if "url" in answer:
                return str(answer["url"])
            problem = answer.get("error", problem)
        except TimeoutError:
            problem = f"it was not ready after {_START:g} s"
        except (OSError, ValueError) as exc:
            problem = type(exc).__name__
        except BaseException:
            await self._end()
            raise
        await self._end()
        raise ConfigError(f"the embedded server did not start: {problem}. Try a server of your own with --server URL.")

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 5)
        except TimeoutError:
            process.kill()
            await process.wait()


def _leave_with_parent() -> None:
    while os.read(0, 4096):
        pass
    # Not sys.exit: the interpreter's own way out waits for the server's threads.
    os._exit(0)


def _serve() -> None:
    # The answer's pipe must carry nothing but the answer: whatever else writes to stdout writes to nowhere.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            os._exit(0)
        line += byte
    wanted = json.loads(line)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    try:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = wanted["model"]
        if wanted["adapter"]:
            adapter = xllamacpp.CommonAdapterLoraInfo()
            adapter.path, adapter.scale = wanted["adapter"], 1.0
            params.lora_adapters = [adapter]
        params.n_parallel = wanted["parallel"]
        params.n_ctx = CONTEXT * wanted["parallel"]
        params.cpuparams.n_threads = wanted["threads"]
        params.port = wanted["port"]
        params.api_keys = [wanted["api_key"]]
        params.cors_origins = "http://127.0.0.1"  # its default answers any web page
        params.cache_ram_mib = 256  # its default takes 8 GB of prompts
        params.ui = False
        params.verbosity = 0
        server = xllamacpp.Server(params)
        said = {"url": str(server.listening_address)}
    except ImportError:
        said = {"error": "there is no xllamacpp for this system"}
    except Exception as exc:
        said = {"error": str(exc) or type(exc).__name__}
    answer.write(json.dumps(said) + "\n")
    answer.close()
    if "error" in said:
        os._exit(1)
    threading.Event().wait()


if __name__ == "__main__":
    _serve()
