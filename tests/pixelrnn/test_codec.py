"""The lossless codec: what it writes it reads, at the stated size, and a likelihood that looks ahead does not pass."""

from __future__ import annotations

import json
import math

import pytest
import torch

from datamodules.errors import UsageError
from datamodules.spec import ImageSpec
from lightning_modules.pixelrnn import PixelCNN, RowLSTM
from lightning_modules.pixelrnn.codec import (
    compress,
    compression_figures,
    compression_table,
    decompress,
    picture_bytes,
    read,
)
from tests.conftest import run_here
from tests.pixelrnn.networks import NETWORKS, make, random_images

GREY, COLOUR = ImageSpec(1, 6, 5, levels=17), ImageSpec(3, 5, 6, levels=256)
NO_LABELS = torch.zeros(8, dtype=torch.int64)


def small(network: type, spec: ImageSpec, **sizes) -> torch.nn.Module:
    return make(network, spec, std=0.1, **sizes).float()


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("spec", [GREY, COLOUR])
def test_every_pixel_comes_back_and_the_size_is_the_stated_one(network, spec, tmp_path):
    made, images = small(network, spec), random_images(spec, 8)
    compress(made, images, NO_LABELS, tmp_path / "file")
    assert torch.equal(decompress(made, tmp_path / "file"), images.long())
    header, words = read(tmp_path / "file")
    with torch.no_grad():
        stated = made.nats(images).double().sum().item() / math.log(2)
    assert 0.99 * stated - 32 <= 32 * len(words) <= 1.01 * stated + 64
    assert header["images"] == 8 and header["arithmetic"] == "float32"


def test_labels_go_with_the_images_of_a_conditional_network(tmp_path):
    spec = ImageSpec(1, 4, 4, levels=5, classes=3)
    made, images, labels = small(RowLSTM, spec, conditional=True), random_images(spec, 6), torch.arange(6) % 3
    compress(made, images, labels, tmp_path / "file")
    assert torch.equal(decompress(made, tmp_path / "file"), images.long())


def test_a_network_that_sees_its_own_pixel_states_less_than_its_file_takes(tmp_path):
    """Trained with a mask-B first layer, it copies what it predicts; the decoder has nothing to copy."""
    spec = ImageSpec(1, 4, 4, levels=2)
    network = PixelCNN(spec, hidden=8, layers=1)
    network.first.mask[:, :, 3, 3] = 1
    optimizer, images = torch.optim.Adam(network.parameters(), lr=0.02), random_images(spec, 64)
    for _ in range(60):
        optimizer.zero_grad()
        network.nats(images).mean().backward()
        optimizer.step()
    figures = compression_figures(network, images, torch.zeros(64, dtype=torch.int64), tmp_path / "file")
    assert figures["compress/stated_bits_per_dim"] < 0.1
    assert figures["compress/file_bits_per_dim"] > 1
    assert "looks ahead" in compression_table(figures)


def damaged(path, how):
    content = bytearray(path.read_bytes())
    if how == "cut":
        content = content[:-8]
    elif how == "header":
        content = content[:30]
    elif how == "one bit":
        content[-20] ^= 4
    elif how == "empty":
        content = b""
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("how", ["cut", "header", "one bit", "empty"])
def test_a_damaged_file_is_named(how, tmp_path):
    made, images = small(PixelCNN, COLOUR), random_images(COLOUR, 4)
    compress(made, images, NO_LABELS[:4], tmp_path / "file")
    damaged(tmp_path / "file", how)
    with pytest.raises(UsageError, match=r"file' (decodes into other pixels|is no file of compressed images)"):
        decompress(made, tmp_path / "file")


def test_another_networks_file_is_refused(tmp_path):
    compress(small(PixelCNN, GREY), random_images(GREY, 2), NO_LABELS[:2], tmp_path / "file")
    with pytest.raises(UsageError, match="another network's weights"):
        decompress(small(PixelCNN, GREY), tmp_path / "file")
    with pytest.raises(UsageError, match="is no file of compressed images"):
        decompress(small(PixelCNN, GREY), tmp_path / "absent")


@pytest.mark.parametrize(("spec", "bits"), [(ImageSpec(1, 28, 28, levels=2), 1), (ImageSpec(3, 32, 32, levels=256), 8)])
def test_pictures_are_counted_at_their_own_depth(spec, bits, tmp_path):
    """Noise cannot be compressed: a PNG takes its depth, plus a byte a row, and rows end with a byte."""
    images = random_images(spec, 20)
    noise = images.numel() * bits / 8
    assert noise <= picture_bytes(images, spec.levels, "png") <= 1.6 * noise
    assert picture_bytes(images, spec.levels, "webp") >= 0.95 * noise


def test_the_stage_writes_its_file_and_figures(quick_run, tmp_path):
    words = ["stages=[compress,report]", f"ckpt_path={quick_run}", "task.module.compressed=5"]
    run_here(words, tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["compress/images"] == 5
    assert metrics["compress/file_bits_per_dim"] == pytest.approx(
        (tmp_path / "compressed.bin").stat().st_size * 8 / (5 * 64)
    )
    assert "Lossless compression" in (tmp_path / "report.md").read_text()
