"""The notebooks, run from top to bottom.

    python tests/kernel.py [01 ...]      runs them with the embedded model, and writes what they show

Nothing of where and when they were run stays in them.
"""

import os
import sys
from pathlib import Path

import nbclient
import nbformat

FOLDER = Path(__file__).parent.parent / "notebooks"
ALL = sorted(FOLDER.glob("*.ipynb"))


def executed(path: Path, folder: Path, **environment: str) -> nbformat.NotebookNode:
    """The notebook with what its cells show when they run in `folder`. Raises nbclient's CellExecutionError."""
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        timeout=1200,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
    )
    client.execute(env={**os.environ, "TQDM_DISABLE": "1", **environment})
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


if __name__ == "__main__":
    for chosen in ALL:
        if not sys.argv[1:] or chosen.name[:2] in sys.argv[1:]:
            nbformat.write(executed(chosen, FOLDER), chosen)
            print(chosen.name, flush=True)
