"""What an entry of `published:` says."""

from __future__ import annotations

import pytest

from datamodules.errors import UsageError
from reporting.published import chosen, published_figures

ENTRY = {"source": "a book", "data": "mnist", "split": "test"}


def test_a_row_is_named_by_its_system():
    of_settings = {**ENTRY, "name": "GRU", "metric": "loss", "figures": {"hidden 8": 2.0, "hidden 16": 1.0}}
    of_metrics = {**ENTRY, "name": "CNN", "figures": {"accuracy": 0.5, "loss": 1.0}}
    unnamed = {**ENTRY, "figures": {"f1": 0.5}}
    found = published_figures([of_settings, of_metrics, unnamed])
    assert [figure.name for figure in found] == ["GRU, hidden 8", "GRU, hidden 16", "CNN", "CNN", "a book"]
    assert [figure.metric for figure in found] == ["test/loss"] * 2 + ["test/accuracy", "test/loss", "test/f1"]


@pytest.mark.parametrize("metric", ["attack/worst/accuracy", "svm/test/accuracy", "test/precision/cat"])
def test_a_metric_with_a_slash_is_a_full_name(metric):
    for entry in ({**ENTRY, "metric": metric, "figures": {"CNN": 0.5}}, {**ENTRY, "figures": {metric: 0.5}}):
        (figure,) = published_figures([entry])
        assert figure.metric == metric and not figure.lower


def test_which_way_is_better():
    names = ["loss", "perplexity", "bits_per_dim", "nats_per_image", "mistake_severity", "loss_carried", "score"]
    found = published_figures([{**ENTRY, "figures": dict.fromkeys(names, 1.0)}])
    assert [figure.lower for figure in found] == [True] * 6 + [False]
    (figure,) = published_figures([{**ENTRY, "mode": "min", "figures": {"score": 1.0}}])
    assert figure.lower


def test_the_same_figure_of_two_files_is_one():
    entry = {**ENTRY, "figures": {"accuracy": 0.5}}
    assert len(published_figures([entry, {**entry, "headline": False}])) == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"figures": {"accuracy": "high"}}, "published gives 'high' for accuracy of 'a book': it must be a number"),
        ({"ours": "cnn"}, "published names 'cnn' under ours of 'a book': write key=value"),
        ({"mode": "lowest"}, "published gives mode 'lowest' for 'a book': it must be min or max"),
    ],
)
def test_a_wrong_entry_is_one_sentence(changed, message):
    with pytest.raises(UsageError, match=message):
        published_figures([{**ENTRY, "figures": {"accuracy": 0.5}, **changed}])


def test_groups_that_a_file_chooses():
    defaults = ["pixelrnn_mnist", {"override /model": "cnn"}, {"override /hydra/sweeper": "basic"}]
    assert chosen(defaults) == {"model": "cnn"}
