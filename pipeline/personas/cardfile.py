"""A card out of the file it travels in: a PNG picture with the card as a text, a CharX archive, or JSON.

In a picture the card is base64 of JSON under the keyword `ccv3` (version 3) or `chara` (1 and 2); where both are there the
former counts. A CharX file is a zip archive with `card.json` in it. Files come from anywhere: what they hold is bounded before
it is unpacked. Raises BadCard, with the reason.
"""

import binascii
import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from pipeline.personas.cards import BadCard
from pipeline.personas.png import BadPicture, texts

LIMIT = 8 * 2**20  # bytes of a card's JSON; long lorebooks have a tenth of it
KEYWORDS = ("ccv3", "chara")
ENDINGS = (".png", ".apng", ".charx")


class NoCard(BadCard):
    """A whole picture, but with no card in it."""

    def __init__(self) -> None:
        super().__init__("a picture without a character card in it (no text under 'ccv3' or 'chara')")


def card_in(path: Path) -> Any:
    """What the card says, as JSON has it. Raises BadCard and OSError."""
    if path.suffix.lower() == ".charx":
        return _archive(path)
    with path.open("rb") as file:
        try:
            found = texts(file, KEYWORDS, LIMIT * 4 // 3 + 4)
        except BadPicture as exc:
            raise BadCard(str(exc)) from exc
    for keyword in KEYWORDS:
        if keyword in found:
            return parsed(_decoded(found[keyword], keyword))
    raise NoCard


def parsed(text: bytes) -> Any:
    """JSON of a card. Raises BadCard."""
    if len(text) > LIMIT:
        raise BadCard(f"over {LIMIT // 2**20} MiB of JSON")
    try:
        return json.loads(text.decode("utf-8-sig"), parse_constant=lambda _: None)
    except UnicodeDecodeError as exc:
        raise BadCard(f"its JSON is not UTF-8 at byte {exc.start}") from exc
    except json.JSONDecodeError as exc:
        raise BadCard(f"not JSON: {exc.msg} at character {exc.pos + 1}") from exc
    except (ValueError, RecursionError) as exc:
        raise BadCard(f"not JSON that can be read: {exc}") from exc


def _decoded(text: bytes, keyword: str) -> bytes:
    if text.lstrip().startswith(b"{"):
        return text  # some write the JSON as it is
    text = b"".join(text.split())
    try:
        return binascii.a2b_base64(text + b"=" * (-len(text) % 4), strict_mode=True)
    except binascii.Error as exc:
        raise BadCard(f"its text {keyword!r} is not base64: {exc}") from exc


def _archive(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            entry = archive.getinfo("card.json")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise BadCard("its card.json is packed in a way that cards are not")
            with archive.open(entry) as file:
                text = file.read(LIMIT + 1)
    except KeyError as exc:
        raise BadCard("an archive without a card.json") from exc
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, NotImplementedError) as exc:
        raise BadCard(f"not an archive that can be read: {exc}") from exc
    return parsed(text)
