"""Persian in pictures and pages: letters joined, run from right to left, each string in its own direction."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import pyplot as plt

from lightning_modules.captioning.pictures import as_large_as, marked, save_attention


def drawn(text: str) -> np.ndarray:
    """The text's pixels, cut to its ink: bool (H, W)."""
    figure = plt.figure(figsize=(6, 1), dpi=100)
    figure.text(0.5, 0.5, text, fontsize=30, ha="center", va="center")
    figure.canvas.draw()
    ink = np.asarray(figure.canvas.buffer_rgba())[..., 0] < 128
    plt.close(figure)
    columns = ink.any(0).nonzero()[0]
    return ink[:, columns[0] : columns[-1] + 1]


def test_letters_are_joined():
    word = "سبز"
    assert drawn(word).shape[1] < 0.9 * sum(drawn(letter).shape[1] for letter in word)


def test_the_first_letter_is_at_the_right():
    whole, first = drawn("راست ر"), drawn("راست")
    end = whole[:, -first.shape[1] :]
    assert (end != first).mean() < 0.05 and (whole[:, : first.shape[1]] != first).mean() > 0.05


def test_marked_text_says_its_language_and_direction():
    assert marked("سمت چپ", "fa") == '<span dir="rtl" lang="fa">سمت چپ</span>'
    assert marked("a < b", "en") == '<span dir="ltr" lang="en">a &lt; b</span>' and 'dir="rtl"' in marked("كلب", "ar")


@pytest.mark.parametrize("language", ["en", "fa"])
def test_attention_is_laid_over_the_image(language, tmp_path):
    weights = np.eye(4)[[0, 3, 1]]
    maps = as_large_as(weights, 2, 2, 8, 8)
    assert maps.shape == (3, 8, 8) and maps[0, 0, 0] == 1 == maps[1, 7, 7] and maps[0, 7, 7] == 0
    path = tmp_path / "figures" / "attention.png"
    path.parent.mkdir()
    save_attention(path, np.zeros((3, 8, 8), np.uint8), ["a", "b", "c"], weights, 2, 2, language)
    assert path.stat().st_size > 500
