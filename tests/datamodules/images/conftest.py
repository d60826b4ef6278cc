"""What the tests of image data share."""

from __future__ import annotations

import pytest


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    """No test reaches the Hub, or a copy from it that this machine may hold."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
