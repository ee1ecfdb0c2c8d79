"""The README's pictures, taken of the real thing: its first commands in a terminal, and the reports that they leave.

    python tests/bench/pictures.py [WIDTH ...]     .github/images/terminal.png, report.png; or at WIDTH pixels, to look at

Needs Chromium, and what its README says the first command needs.
"""

import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from browser import Browser  # noqa: E402
from terminal import in_a_terminal  # noqa: E402

COLUMNS = 100
NEXT_FRAME = "\x1b[2K\x1b[1A\x1b[2K"  # the bar's two lines are wiped
PAGE = """<!doctype html><meta charset=utf-8><style>
body {{ margin: 0; background: #16181d }}
pre {{ margin: 0; padding: 20px; color: #d8dae0; font: 14px/1.45 "DejaVu Sans Mono", monospace; white-space: pre-wrap }}
b {{ color: #8fd18f; font-weight: normal }}
</style><pre><b>$ {command}</b>
{said}</pre>"""


def as_page(command: str, said: str) -> str:
    from rich.console import Console
    from rich.text import Text

    begun, *frames = said.split(NEXT_FRAME)
    if frames:
        begun = "\n".join(begun.splitlines()[:-2]) + "\n" + frames[-1]
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere)
        console.print(Text.from_ansi(begun), soft_wrap=True)
        colored = console.export_html(inline_styles=True, code_format="{code}")
    return PAGE.format(command=command, said=colored)


def main() -> None:
    widths = [int(width) for width in sys.argv[1:]]
    images = ROOT / ".github" / "images"
    images.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, Browser() as browser:
        command = [sys.executable, "-m", "pipeline", "generate", "--out", "runs/first"]
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
        code, shown, _ = in_a_terminal(command, columns=COLUMNS, env=environment, cwd=folder)
        said = shown.decode().replace("\r\n", "\n")
        assert code == 0, said
        page = Path(folder) / "terminal.html"
        page.write_text(as_page("pipeline generate --out runs/first", said), "utf-8")
        pictures = {"terminal": (page, 900), "report": (Path(folder) / "runs" / "first" / "report.html", 1100)}
        for name, (path, usual) in pictures.items():
            for width in widths or [usual]:
                shown = browser.open(path, width=width)
                height = min(shown("Math.ceil(document.body.getBoundingClientRect().height)"), 4000 if widths else 1100)
                size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
                shown.ask("Emulation.setDeviceMetricsOverride", **size)
                taken = (Path.cwd() if widths else images) / (f"{name}-{width}.png" if widths else f"{name}.png")
                shown.screenshot(taken, beyond=False)
                print(taken)


if __name__ == "__main__":
    main()
