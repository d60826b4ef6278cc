"""The task as a whole: loss and void, learning, its stages' files, and what is refused."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch.nn import functional as F

from datamodules.errors import UsageError
from datamodules.scenes.batches import SceneBatch
from datamodules.spec import SceneSpec
from lightning_modules.schedules import poly
from lightning_modules.segmentation import FastSCNN, Segmentation
from lightning_modules.segmentation.scores import scores
from reporting.load import load_run, read_checkpoint
from reporting.predictions import read_predictions
from reporting.report import ComparedRun
from tests.conftest import SMALLEST, real_data, run_here
from tests.soak.compare import unequal, without_folder

VOID = 3
SMALL = ["task=segmentation", *SMALLEST["segmentation"].words]


def module(**options) -> Segmentation:
    torch.manual_seed(0)
    spec = SceneSpec(3, 32, 40, 256, 3, ("a", "b", "c"), ignore=VOID)
    optimizer = partial(torch.optim.AdamW, lr=2e-3)
    return Segmentation(FastSCNN(spec, width=0.25, dropout=0.0), optimizer, partial(poly, power=0.9), **options)


def batch(void: float = 0.3) -> SceneBatch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 32, 40), generator=generator, dtype=torch.uint8)
    masks = torch.randint(0, 3, (4, 32, 40), generator=generator)
    return SceneBatch(images, masks.where(torch.rand(masks.shape, generator=generator) >= void, VOID))


def test_the_loss_is_torchs_with_weights_and_void_left_out():
    own, given = module(weights="median"), batch()
    own.class_weights.copy_(torch.tensor([0.5, 2.0, 1.0]))
    logits = torch.randn(4, 3, 32, 40, requires_grad=True)
    above, below = own.pixel_losses(logits, given.masks)
    expected = F.cross_entropy(logits, given.masks, own.class_weights, ignore_index=VOID)
    torch.testing.assert_close(above.sum() / below.sum(), expected)
    (above.sum() / below.sum()).backward()
    assert (logits.grad.permute(0, 2, 3, 1)[given.masks == VOID] == 0).all() and logits.grad.abs().sum() > 0


def test_a_batch_without_a_label_costs_nothing():
    measured = module().measure(batch(void=1.1), "train")
    assert measured.loss == 0
    measured.loss.backward()


def test_auxiliary_heads_are_for_training_alone():
    plain, helped = module(), module(aux_weight=0.4)
    count = sum(p.numel() for p in helped.network.parameters())
    assert count == sum(p.numel() for p in plain.network.parameters()) < sum(p.numel() for p in helped.parameters())
    helped.network.load_state_dict(plain.network.state_dict())
    assert helped.measure(batch(), "train").loss > plain.measure(batch(), "train").loss
    helped.eval(), plain.eval()
    helped.network.load_state_dict(plain.network.state_dict())
    torch.testing.assert_close(helped.measure(batch(), "val").loss, plain.measure(batch(), "val").loss)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run_here([*SMALL, "task.module.weights=sqrt_median", "sizes=[[32,32],[32,48]]"], folder)
    return folder


def test_figures_agree_with_the_predictions(run):
    metrics, kept = json.loads((run / "metrics.json").read_text()), read_predictions(run)
    assert kept["confusion"].shape == (6, 11, 11) and kept["confusion"].sum() == 6 * 32 * 32
    names = ["background", *"0123456789"]
    for name, value in scores(kept["confusion"].sum(0), names, background=True).items():
        assert metrics[f"test/{name}"] == pytest.approx(value), name
    assert metrics["test/pixel_accuracy"] == pytest.approx(Segmentation.item_figures(kept)["pixel_accuracy"].mean()), (
        "masks of one size"
    )
    assert 0 <= metrics["test/boundary_f1"] <= 1 and metrics["baseline/commonest_class_of_each_place/miou"] > 0
    speed = json.loads((run / "speed.json").read_text())
    assert [(row["width"], row["precision"]) for row in speed["rows"]] == [
        (32, "float32"), (32, "bf16"), (48, "float32"), (48, "bf16"),
    ]  # fmt: skip
    assert metrics["speed/fps"] == speed["rows"][0]["fps"] and speed["rows"][2]["macs"] > speed["rows"][0]["macs"] > 0
    report = (run / "report.md").read_text()
    for words in ("Mean IoU", "95 % interval", "commonest class of each place", "frames a second", "examples.png"):
        assert words in report


def test_weights_of_classes_are_kept_in_the_checkpoint(run):
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    weights = checkpoint["state_dict"]["class_weights"]
    assert weights[0] < 1 and weights.max() > 1


def test_a_run_cut_in_the_middle_of_an_epoch_is_the_one_that_was_not(tmp_path, monkeypatch):
    words = [*SMALL, "stages=[fit]", "data.train_items=20", "trainer.max_epochs=2", "trainer.val_check_interval=2"]
    words += [f"paths.cache={tmp_path / 'cache'}", "task.module.aux_weight=0.4"]
    run_here(words, tmp_path / "whole")
    measure, seen = Segmentation.measure, []

    def cut(self, batch, split):
        seen.append(split)
        if seen.count("train") == 9:  # the fourth batch of the second epoch, two after the last checkpoint
            raise KeyboardInterrupt
        return measure(self, batch, split)

    monkeypatch.setattr(Segmentation, "measure", cut)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run_here(words, tmp_path / "cut")
    monkeypatch.setattr(Segmentation, "measure", measure)
    assert read_checkpoint(tmp_path / "cut/checkpoints/last.ckpt")["loader_place"] == {"batches_done": 2}
    run_here([*words, f"ckpt_path={tmp_path / 'cut'}"], tmp_path / "cut")
    for name in ("last", "best"):
        whole, gone_on = (
            without_folder(read_checkpoint(folder / f"checkpoints/{name}.ckpt"), str(folder))
            for folder in (tmp_path / "whole", tmp_path / "cut")
        )
        assert unequal(whole, gone_on) == []


def test_runs_are_compared_by_quality_and_time(tmp_path):
    def made(name: str, **figures: float) -> ComparedRun:
        metrics = {f"{'test' if key == 'miou' else 'speed'}/{key}": value for key, value in figures.items()}
        return ComparedRun(name, tmp_path, OmegaConf.create(), metrics, {})

    slow = made("360, 480", miou=0.5, latency_p50_ms=40.0, macs=5.6e8)
    quick = made("180, 240", miou=0.45, latency_p50_ms=11.0, macs=1.5e8)
    (section,) = Segmentation.comparison([slow, made("untimed", miou=0.6), quick], tmp_path)
    assert section.text.splitlines()[2:4] == [
        "| 180, 240 | 0.450 | 11.0 ms | 0.150 |", "| 360, 480 | 0.500 | 40.0 ms | 0.560 |",
    ]  # fmt: skip
    assert (tmp_path / section.figure).exists() and not Segmentation.comparison([slow], tmp_path)


def test_ones_own_pictures_of_any_kind(run, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    for name, mode, size in (("grey", "L", (50, 40)), ("clear", "RGBA", (64, 33)), ("colour", "RGB", (40, 40))):
        pixels = rng.integers(0, 256, (*size[::-1], len(mode)), np.uint8).squeeze()
        Image.fromarray(pixels, mode).save(pictures / f"{name}.png")
    (pictures / "broken.png").write_bytes(b"no picture")
    Image.new("RGB", (8, 8)).save(pictures / "tiny.png")
    folder = tmp_path / "out"
    run_here([f"ckpt_path={run}", "stages=[segment]", f"images={pictures}", *SMALL], folder)
    out = folder / "segmented"
    found = sorted(file.name for file in out.iterdir())
    assert found == sorted(
        [*(f"{n}{e}.png" for n in ("grey", "clear", "colour") for e in ("", "_overlay")), "legend.png"]
    )
    with Image.open(out / "grey.png") as mask, Image.open(out / "grey_overlay.png") as overlay:
        assert mask.mode == "P" and mask.size == overlay.size == (50, 40) and np.asarray(mask).max() < 11
    network, _, _ = load_run(run)
    assert isinstance(network, FastSCNN)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["stages=[segment]"], "needs images=FOLDER"),
        (["stages=[segment]", "images=nowhere"], "images=nowhere is no folder"),
    ],
)
def test_segmenting_nothing_is_one_sentence(run, tmp_path, words, sentence):
    with pytest.raises(UsageError, match=sentence):
        run_here([f"ckpt_path={run}", *SMALL, *words], tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["task.module.weights=medain"], "task.module.weights is 'medain'.*median"),
        (["task.module.aux_weight=-1"], "task.module.aux_weight is -1"),
        (["sizes=[[16,16]]"], r"sizes is .*list of \[height, width\] from 32"),
        (["data=digits"], "Fast-SCNN models scenes.*data=digit_scenes"),
        (["data.background=false"], "Fast-SCNN learns from masks.*data.background=true"),
        (["data.batch_size=1"], "one image has no variance"),
    ],
)
def test_what_cannot_be_is_one_sentence(tmp_path, words, sentence):
    own = [word for word in SMALL if words != ["data=digits"] or not word.startswith("data.")]
    with pytest.raises(UsageError, match=sentence):
        run_here([*own, "debug=quick", *words], tmp_path)


@pytest.mark.slow
def test_four_images_are_learned_by_heart():
    folder = real_data("samples/camvid")
    files = sorted((folder / "train").glob("*.png"))[:4]
    size = (240, 180)
    images = np.stack([np.asarray(Image.open(f).resize(size)).transpose(2, 0, 1) for f in files])
    labels = [
        np.asarray(Image.open(folder / "trainannot" / f.name).resize(size, Image.Resampling.NEAREST)) for f in files
    ]
    masks = torch.from_numpy(np.stack(labels).astype(np.int64))
    torch.manual_seed(0)
    spec = SceneSpec(3, 180, 240, 256, 11, tuple("abcdefghijk"), ignore=11)
    own = Segmentation(FastSCNN(spec, dropout=0.0), partial(torch.optim.AdamW, lr=2e-3), partial(poly, power=0.9))
    optimizer = torch.optim.AdamW(own.parameters(), lr=2e-3)
    for _ in range(150):
        measured = own.measure(SceneBatch(torch.from_numpy(images), masks), "train")
        optimizer.zero_grad()
        measured.loss.backward()
        optimizer.step()
    right = measured.values["pixel_accuracy"]
    assert right.above.sum() / right.below.sum() >= 0.95
