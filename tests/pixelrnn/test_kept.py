"""The trained networks kept under results/: small, whole, and as likely as their figures say."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch

from datamodules.images.mnist import MNIST
from reporting.load import load_run, read_checkpoint
from tests.conftest import REPOSITORY, real_data, run_here

RESULTS = REPOSITORY / "results/pixelrnn"
KEPT = RESULTS / "mnist_record_h200"
CODEC = RESULTS / "mnist_record_h200_codec"  # what its stage compress measured


@pytest.mark.parametrize(("name", "most"), [("mnist_record_h200", 0.3), ("cifar10_diag_bilstm_h200", 4.4)])
def test_it_is_small_and_names_nobodys_folders(name, most):
    """`most`: millions of bytes."""
    kept = RESULTS / name / "best.ckpt"
    assert kept.stat().st_size <= most * 1e6
    config = read_checkpoint(kept)["config"]
    assert config["ckpt_path"] is None and not re.search(r"/(tmp|home|root|work|mnt)\b", str(config))


def test_a_newcomer_draws_from_it_without_the_data(tmp_path):
    words = ["stages=[sample]", f"ckpt_path={KEPT / 'best.ckpt'}", "task.module.samples=2", f"paths.data={tmp_path}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        run_here([*words, f"paths.cache={tmp_path}"], tmp_path / "run")
    assert (tmp_path / "run/figures/samples.png").stat().st_size > 1000


def test_its_likelihood_is_the_codecs(tmp_path):
    """Of the test images that the kept run wrote to one file: what it took, and what the network says."""
    real_data("mnist")
    metrics = json.loads((CODEC / "metrics.json").read_text())
    network, spec, config = load_run(KEPT / "best.ckpt")
    data = MNIST(config.data.path, tmp_path, binarize="static")
    data.prepare_data()
    count = metrics["compress/images"]
    images, labels = (torch.from_numpy(part[:count].copy()) for part in data.splits["test"])
    with torch.no_grad():
        bits = network.nats(images, labels.long()).mean().item() / math.log(2)
    assert bits == pytest.approx(metrics["compress/stated_bits_per_dim"], rel=1e-3)
    in_file = metrics["compress/file_bits_per_dim"]
    assert 0 < (in_file - bits) * count * spec.dims / 8 < 300, "bytes: the file's header, and the coder's loss"
