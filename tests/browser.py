"""A real Chromium, over its own protocol: aiohttp speaks it already, and no loop of Playwright's stays under other tests.

    with Browser() as browser:
        page = browser.open(path, width=400, dark=True)
        page.press("Tab"); page("document.title"); page.complaints; page.asked_for

https://chromedevtools.github.io/devtools-protocol/
"""

import asyncio
import base64
import json
import re
import shutil
import subprocess
import tempfile
from itertools import count
from pathlib import Path
from typing import Any, Self

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"),
    *("--no-first-run", "--no-default-browser-check", "--disable-component-update", "--disable-sync"),
    *("--remote-debugging-port=0", "--hide-scrollbars", "--force-prefers-reduced-motion", "about:blank"),
)
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowUp": 38, "ArrowDown": 40}


def executable() -> str:
    """Fails where there is none: a page that no browser has opened is not tested."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    assert found, "no Chromium on the PATH; the README's section on development says how to get one"
    return found


class Browser:
    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            [executable(), f"--user-data-dir={self._folder.name}", *FLAGS], stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr
        for line in self._process.stderr:
            if found := re.search(r"listening on (ws://\S+)", line):
                break
        else:
            raise AssertionError("Chromium ended before it listened")
        self._loop = asyncio.new_event_loop()
        self._numbers = count(1)
        self._pages: dict[str, Page] = {}
        self._loop.run_until_complete(self._connect(found[1]))
        return self

    async def _connect(self, url: str) -> None:
        self._session = aiohttp.ClientSession()
        self._socket = await self._session.ws_connect(url, max_msg_size=0)

    def __exit__(self, *exc: object) -> None:
        async def end() -> None:
            await self._socket.close()
            await self._session.close()

        self._loop.run_until_complete(end())
        self._loop.close()
        self._process.terminate()
        self._process.communicate(timeout=20)
        self._folder.cleanup()

    def ask(self, method: str, session: str | None = None, **params: Any) -> Any:
        return self._loop.run_until_complete(asyncio.wait_for(self._ask(method, session, params), 120))

    async def _ask(self, method: str, session: str | None, params: dict[str, Any]) -> Any:
        number = next(self._numbers)
        said = {"id": number, "method": method, "params": params}
        await self._socket.send_str(json.dumps(said | ({"sessionId": session} if session else {})))
        while True:
            answer = await self._heard()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    async def _heard(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads((await self._socket.receive()).data)
        if "method" in answer and (page := self._pages.get(answer.get("sessionId", ""))):
            page.events.append(answer)
        return answer

    def wait_for(self, page: "Page", method: str) -> None:
        async def wait() -> None:
            while not any(event["method"] == method for event in page.events):
                await self._heard()

        self._loop.run_until_complete(asyncio.wait_for(wait(), 120))

    def open(
        self, path: Path, *, width: int = 1400, dark: bool = False, scripts: bool = True, hash: str = ""
    ) -> "Page":
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.ask(f"{domain}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.ask("Emulation.setEmulatedMedia", features=[scheme])
        page.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
        page.ask("Emulation.setScriptExecutionDisabled", value=not scripts)
        page.ask("Page.navigate", url=path.resolve().as_uri() + hash)
        self.wait_for(page, "Page.loadEventFired")
        return page


class Page:
    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session
        self.events: list[dict[str, Any]] = []

    def ask(self, method: str, **params: Any) -> Any:
        return self._browser.ask(method, self._session, **params)

    def __call__(self, script: str) -> Any:
        """What an expression comes to, in the page."""
        found = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, *keys: str) -> None:
        for key in keys:
            of_key = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
            typed = {"text": "\r"} if key == "Enter" else {}
            self.ask("Input.dispatchKeyEvent", type="keyDown" if typed else "rawKeyDown", **of_key, **typed)
            self.ask("Input.dispatchKeyEvent", type="keyUp", **of_key)

    def type(self, text: str) -> None:
        self.ask("Input.insertText", text=text)

    def choose(self, select: str, value: str) -> None:
        self(f"(() => {{ const s = document.getElementById({select!r}); s.value = {json.dumps(value)};"
             " s.dispatchEvent(new Event('input', {bubbles: true})); })()")  # fmt: skip

    def screenshot(self, path: Path, *, beyond: bool = True) -> None:
        """Of the page, also where it goes on beyond the window."""
        found = self.ask("Page.captureScreenshot", captureBeyondViewport=beyond)
        path.write_bytes(base64.b64decode(found["data"]))

    @property
    def complaints(self) -> list[str]:
        """Whatever the console says, and what a policy held back."""
        found = (
            "Runtime.exceptionThrown",
            "Runtime.consoleAPICalled",
            "Log.entryAdded",
            "Page.javascriptDialogOpening",
        )
        return [json.dumps(event) for event in self.events if event["method"] in found]

    @property
    def asked_for(self) -> list[str]:
        """Addresses that were loaded, whatever for."""
        sent = [event["params"] for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [one["request"]["url"] for one in sent]
