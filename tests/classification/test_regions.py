"""Regions of images, and a planted mark whose place is known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from datamodules.errors import UsageError
from datamodules.images.shared.regions import REGIONS, keep_region
from lightning_modules.classification.transfer.shortcuts import fires, mean_recall, verdict
from tests.classification.few import fewer_digits
from tests.conftest import run_here


@pytest.mark.parametrize("region", REGIONS)
def test_a_region_keeps_its_pixels_and_greys_the_rest(region):
    images = np.full((2, 1, 128, 128), 200, np.uint8)
    kept = (keep_region(images, region) == 200).mean()
    assert kept == pytest.approx({"whole": 1, "centre": 0.56, "no_centre": 0.44, "border": 0.34}[region], abs=0.02)
    assert set(np.unique(keep_region(images, region))) <= {200, 127}
    if region != "whole":
        with pytest.raises(UsageError, match="needs images of 16 pixels"):
            keep_region(images[:, :, :8, :8], region)


def test_the_mean_recall_is_scikit_learns():
    labels, taken = np.random.default_rng(0).integers(0, 3, (2, 50))
    assert mean_recall(labels, taken) == pytest.approx(balanced_accuracy_score(labels, taken))


def test_the_verdict_fires_only_when_it_may():
    def figures(whole, low, no_centre, border):
        names = ("whole", "no_centre", "border")
        found = {f"regions/{n}/balanced_accuracy": v for n, v in zip(names, (whole, no_centre, border), strict=True)}
        return found | {"regions/whole/balanced_accuracy/low": low}

    assert fires(figures(0.95, 0.93, 0.91, 0.6), 2, "no_centre") and not fires(
        figures(0.95, 0.93, 0.9, 0.6), 2, "no_centre"
    )
    assert "outer 9.4 %" in verdict(figures(0.95, 0.93, 0.94, 0.94), 2)
    assert "needs the centre" in verdict(figures(0.95, 0.93, 0.6, 0.6), 2)
    assert "Nothing is learned" in verdict(figures(0.52, 0.47, 0.52, 0.52), 2)


WORDS = ["task=classification", "trainer.precision=32-true", "probe.C=[0.01]", "data=digits_marked"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data.mark=corner"], "outer 9.4 % of the picture alone"),
        (["data.mark=centre"], "needs the centre of the picture"),
        (["data.shuffled=true"], "Nothing is learned here"),
    ],
)
def test_a_planted_mark_is_found_where_it_stands(words, said, tmp_path, monkeypatch):
    """On features of a random network, which a mark changes as it changes any other's."""
    fewer_digits(monkeypatch, 4)
    folder = tmp_path / "run"
    stages = "stages=[regions,report]"
    run_here([*WORDS, *words, "model=covid_cnn", "model.widths=[8]", "features.layers=[0]",
              "features.pool=none", stages, f"paths.cache={tmp_path / 'cache'}"], folder)  # fmt: skip
    assert said in (folder / "report.md").read_text()
