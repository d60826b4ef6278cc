"""Tiny Shakespeare: 1,115,394 characters, 65 distinct; from a local file or its well-known address."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

from datamodules import sources
from datamodules.errors import UsageError
from datamodules.text.text import TextDataModule, decode_utf8

SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
FOLDERS = ("tiny_shakespeare", "tinyshakespeare", "shakespeare", "shakespeare_char", ".")
FILES = ("input.txt", "tinyshakespeare.txt", "tiny_shakespeare.txt")
ADDRESS = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"


class Shakespeare(TextDataModule):
    """`data=shakespeare`: parts of Shakespeare's plays, as in char-rnn and nanoGPT.

    Args:
        path: the folder looked in, `paths.data`; then it is downloaded.
        cache: the folder a download is kept in, `paths.cache`.

    Source: Karpathy, github.com/karpathy/char-rnn, data/tinyshakespeare.
    """

    def __init__(self, path: str, cache: str, **how: object):
        super().__init__(**how)
        self.path, self.cache = Path(path).expanduser().absolute(), Path(cache).expanduser().absolute()

    @property
    def title(self) -> str:
        return "Tiny Shakespeare"

    def read_text(self) -> str:
        kept = self.cache / "tiny_shakespeare.txt"
        candidates = [self.path / folder / name for folder in FOLDERS for name in FILES]
        for file in [*(file for file in candidates if self._is_the_text(file)), kept]:
            if file.is_file():
                return decode_utf8(checked(file), str(file))
        content = download(self.path)
        with suppress(OSError):  # kept only to spare the next run the download
            self.cache.mkdir(parents=True, exist_ok=True)
            beside = kept.with_name(f"{kept.name}.{os.getpid()}")
            beside.write_bytes(content)
            beside.replace(kept)
        return decode_utf8(content, self.title)

    def _is_the_text(self, file: Path) -> bool:
        """A file called input.txt straight in paths.data may be anything: only a folder's own name vouches for it."""
        return file.is_file() and (file.parent != self.path or file.name != "input.txt")


def checked(file: Path) -> bytes:
    """The content of a file that is Tiny Shakespeare byte for byte.

    Raises:
        UsageError: it cannot be read, or is another text.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror}).") from error
    if (found := hashlib.sha256(content).hexdigest()) != SHA256:
        raise UsageError(
            f"{file} is not Tiny Shakespeare (sha256 {found[:12]}…, expected {SHA256[:12]}…): "
            f"replace it, or take it as a text of its own with data=text data.path={file}."
        )
    return content


def download(path: Path) -> bytes:
    """The text from its well-known address.

    Raises:
        UsageError: it cannot be had, or is another text; this was the last place to look.
    """
    reason = "no connection"
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        reason = "offline mode is set"
    elif sources._answers(ADDRESS):
        try:
            with urlopen(ADDRESS, timeout=20) as response:
                content = response.read()
            if hashlib.sha256(content).hexdigest() == SHA256:
                return content
            reason = "another text stands there"
        except OSError as error:
            reason = sources._reason(error)
    raise UsageError(
        f"Tiny Shakespeare was not found as input.txt in {path / FOLDERS[0]}, nor at {ADDRESS} ({reason}): "
        "set paths.data=FOLDER or ETUDES_DATA=FOLDER to where tiny_shakespeare/input.txt is, or take data=pydocs, "
        "which needs no download."
    )
