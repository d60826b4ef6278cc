"""A run in two languages: its figures, its report, the stage caption; and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.captions.words import GRAMMARS, decode_sentence
from datamodules.errors import UsageError
from lightning_modules.captioning.criteria import (
    Presence,
    presence_targets,
    share_of_truth,
    smoothed_losses,
    spread_penalty,
)
from lightning_modules.captioning.encoder import Maps
from reporting.load import load_run
from tests.captioning.smallest import SMALLEST
from tests.conftest import run_here

WORDS = ["task=captioning", *SMALLEST.words, "data.language=both", "trainer.precision=32-true", "patience=null"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run_here([*WORDS, *SMALLEST.words_of("show_attend_tell"), "trainer.max_epochs=2"], folder)
    return folder


def test_figures_are_there_and_agree(run):
    metrics, kept = json.loads((run / "metrics.json").read_text()), np.load(run / "predictions.npz")
    for name in ("bleu_4", "cider_d", "exact", "parsed", "greedy_exact", "exact_fa", "exact_unseen", "exact_fa_unseen",
                 "attention_hit", "hit_chance", "hit_colour_fa", "nearest_bleu_4", "constant_cider_d_fa",
                 "other_language", "loss_shuffled", "excess", "perplexity"):  # fmt: skip
        assert f"test/{name}" in metrics, name
    assert metrics["test/perplexity"] == pytest.approx(math.exp(metrics["test/loss"]))
    assert metrics["test/cider_d"] == pytest.approx(kept["item_cider_d"].mean())
    assert kept["beam_en"].shape == (20, kept["greedy_fa"].shape[1]) and kept["beam_en"].dtype == np.int32
    assert 0.02 < metrics["test/hit_chance"] < 0.5


def test_loss_is_a_ratio_of_sums_over_all_sentences(run):
    network, spec, config = load_run(run)
    from hydra.utils import instantiate

    data = instantiate(config.data)
    data.prepare_data()
    nats = words = 0.0
    for batch in data.test_dataloader()[""]:
        for image, sentences in zip(batch.images, batch.every, strict=True):
            for codes in sentences:
                length = int((codes != spec.pad).sum())
                logits = network(image[None], codes[None, : length - 1]).logits[0].log_softmax(1)
                nats -= logits[torch.arange(length - 1), codes[1:length]].sum().item()
                words += length - 1
    assert json.loads((run / "metrics.json").read_text())["test/loss"] == pytest.approx(nats / words, rel=1e-4)


def test_the_report_shows_every_part(run):
    text = (run / "report.md").read_text()
    for title in ("Sentences", "How sure", "Scenes", "What is taken for what", "Where it looks (en)",
                  "Where it looks (fa)", "Best, middle and worst (fa)", "Lengths"):  # fmt: skip
        assert f"## {title}\n" in text
    assert '<span dir="rtl" lang="fa">' in text and '<span dir="rtl" lang="fa">' in (run / "report.html").read_text()
    assert "| **beam of 3 (en)** |" in text and "tok:none" in text


def test_captions_of_a_folder(run, tmp_path):
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for name in ("one", "two"):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)).save(images / f"{name}.png")
    words = [f"ckpt_path={run}", "stages=[caption]", f"images={images}", "language=fa", "beam=5", "temperature=1.0"]
    run_here([*WORDS, *SMALLEST.words_of("show_attend_tell"), *words], out)
    found = json.loads((out / "captions" / "captions.json").read_text(encoding="utf-8"))
    assert found["language"] == "fa" and found["images"].keys() == {"one", "two"}
    best = found["images"]["one"]["beams"][0]
    assert best["words"] and set(best["sentence"].split()) <= GRAMMARS["fa"].words | GRAMMARS["en"].words
    assert all(sum(step["attention"]) == pytest.approx(1, abs=1e-3) for step in best["words"])
    page = (out / "captions" / "captions.html").read_text(encoding="utf-8")
    assert best["sentence"] in page and 'dir="rtl" lang="fa"' in page and (out / "captions" / "two.png").exists()
    (images / "bad.png").write_text("no image")
    for wrong, said in {
        f"images={images}": "cannot be read as an image",
        f"images={tmp_path / 'none'}": "There is no folder images=",
        "images=null": "needs images=FOLDER",
    }.items():
        with pytest.raises(UsageError, match=said):
            run_here([*WORDS, *words[:2], *SMALLEST.words_of("show_attend_tell"), wrong], tmp_path / "other")
    with pytest.raises(UsageError, match="There is no language 'de' here: choose en or fa"):
        run_here([*WORDS, *SMALLEST.words_of("show_attend_tell"), *words, "language=de"], tmp_path / "other")


FROZEN = ["model.encoder=efficientnet_lite0", "model.weights=none", "data.language=en"]


def test_a_frozen_encoder_stays_as_it_is_and_its_maps_are_computed_once(tmp_path):
    few = [f"data.{name}_items={count}" for name, count in {"train": 8, "val": 3, "test": 4, "unseen": 3}.items()]
    words = [*WORDS, *SMALLEST.words_of("show_attend_tell"), *FROZEN, *few, "trainer.max_epochs=1"]
    run_here(words, tmp_path / "run")
    network, _, _ = load_run(tmp_path / "run")
    encoder, images = network.encoder, torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    assert (encoder.rows, encoder.columns, encoder.features) == (7, 7, 320)
    assert not any(part.training for part in network.train().encoder.modules())
    assert not any(weight.requires_grad for weight in encoder.parameters())

    split = SimpleNamespace(images=images.numpy())
    data, items = SimpleNamespace(splits={"train": split}, cache=tmp_path / "cache"), torch.tensor([2, 0])
    maps = Maps(encoder, data, torch.device("cpu"), "32-true")
    with mock.patch.object(encoder, "maps_of", side_effect=AssertionError):
        found = maps(images[items], "train", items)
    torch.testing.assert_close(found, encoder.maps(images[items]), atol=1e-4, rtol=1e-4)
    with pytest.raises(UsageError, match="maps are computed once"):
        run_here([*words, "data.shift=1.0"], tmp_path / "other")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["beam=0"], "beam is 0, but it must be a whole number from 1 to 100"),
        (["beam=101"], "from 1 to 100"),
        (["task.module.presence=-1.0"], "task.module.presence is -1.0"),
        (["task.module.label_smoothing=1.0"], "task.module.label_smoothing is 1.0"),
        (["task.module.scheduled_sampling=0.0"], "must be above 0, or null"),
        (["task.module.lm_weight=0.5"], "needs task.module.language_model=RUN"),
        (["model=caption_transformer", "task.module.scheduled_sampling=100.0"], "a transformer is not trained"),
        (["data=digits"], "models images with captions"),
    ],
)
def test_what_cannot_work_is_refused(words, said, tmp_path):
    small = WORDS if "data=digits" not in words else ["task=captioning"]
    with pytest.raises(UsageError, match=said):
        run_here([*small, *words], tmp_path)


# Criteria


def test_the_penalty_by_hand():
    there = torch.ones(1, 2, dtype=torch.bool)
    half = torch.full((1, 2, 4), 0.25)
    assert spread_penalty(half, there).item() == pytest.approx(0.25)
    assert spread_penalty(torch.eye(4)[None], torch.ones(1, 4, dtype=torch.bool)).item() == 0
    drawn = torch.rand(50, 2, 4).softmax(2)
    assert (spread_penalty(drawn, there.expand(50, -1)) >= (1 - 2 / 4) ** 2 - 1e-6).all()
    padded = torch.cat([half, torch.rand(1, 3, 4)], 1)
    assert spread_penalty(padded, torch.tensor([[True, True, False, False, False]])).item() == pytest.approx(0.25)


def test_smoothing_spreads_over_words_that_are_said():
    logits, targets = torch.randn(2, 3, 6), torch.tensor([[1, 4, 0], [5, 2, 1]])
    found = smoothed_losses(logits, targets, 0, [0, 3], 0.1)
    log_p = logits.log_softmax(-1)
    by_hand = -(0.9 * log_p[1, 0, 5] + 0.1 * log_p[1, 0, [1, 2, 4, 5]].mean())
    assert found[1, 0].item() == pytest.approx(by_hand.item(), rel=1e-5) and found[0, 2] == 0


def test_the_share_of_truth_falls_from_one():
    assert share_of_truth(0, None) == 1 and share_of_truth(5, 10.0) == pytest.approx(10 / (10 + math.exp(0.5)))
    assert share_of_truth(10**9, 10.0) < 1e-100 and share_of_truth(0, 1000.0) > 0.99


def test_presence():
    facts = torch.tensor([[3, -1, -1, 0, 5, 2, 7, 0, 5], [0, 1, 1, 5, 9, -1, -1, -1, -1], [-1] * 9])
    found = presence_targets(facts)
    assert found[0].nonzero()[:, 0].tolist() == [0, 2, 6 + 5, 6 + 7]
    assert found[1].nonzero()[:, 0].tolist() == [5, 6 + 9] and found[2].sum() == 0
    head = Presence(4)
    maps = torch.randn(3, 4, 2, 2)
    assert head.loss(maps, facts).item() == pytest.approx(head.loss(maps[:2], facts[:2]).item())
    assert head.loss(maps[2:], facts[2:]).item() == 0


def test_sentences_are_read_back_from_what_is_kept(run):
    kept = np.load(run / "predictions.npz")
    _, spec, _ = load_run(run)
    assert all(decode_sentence(row, spec) for row in kept["beam_fa"])
