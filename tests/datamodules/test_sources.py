"""Where published data sets come from: whether the Hub is there is known within seconds."""

from __future__ import annotations

import socket
import time
from types import SimpleNamespace

from datamodules import sources


def test_knocking_at_the_hub(monkeypatch):
    monkeypatch.setattr(sources, "getproxies", dict)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert sources._answers(f"https://{address}")
        monkeypatch.setattr(sources, "getproxies", lambda: {"https": address})
        assert sources._answers("https://huggingface.invalid"), "the proxy answers for it"
    assert not sources._answers("https://huggingface.invalid")
    monkeypatch.setattr(sources, "getproxies", dict)
    assert not sources._answers(f"https://{address}")

    def slow(*words: object) -> None:
        time.sleep(2)
        raise OSError

    monkeypatch.setattr(sources, "socket", SimpleNamespace(create_connection=slow))
    start = time.monotonic()
    assert not sources._answers("https://huggingface.invalid", seconds=0.1)
    assert time.monotonic() - start < 1
