"""Figures are counted once, in lightning_modules/base.py: means, ratios, rows, several tests, several processes."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from torch import nn

from datamodules.loader import BatchLoader
from datamodules.spec import TextSpec
from lightning_modules import gathering
from lightning_modules.base import Measured, Ratio, Task
from lightning_modules.char_lm import CharLM, CharLSTM
from lightning_modules.gathering import in_order
from reporting.predictions import read_predictions, write_predictions
from running.build import batches_of
from running.composed import compose_config
from tests.conftest import SMALLEST, TASKS
from tests.smallest import inputs

ITEMS = 11
IMAGES = np.arange(ITEMS * 4, dtype=np.uint8).reshape(ITEMS, 1, 2, 2)
LABELS = np.arange(ITEMS) % 3


class Counting(Task):
    """Every kind of figure of an image's sum of pixels; its network is of no use."""

    spoiled = False

    def measure(self, batch: Any, split: str) -> Measured:
        images, labels = batch
        sums = images.flatten(1).sum(1)
        loss = self.network(torch.ones(1, 1)).sum() * 0 + sums.float().mean()
        values = {"loss": sums, "per_label": Ratio(sums, labels), "pixel": images[:, 0], "_square": sums.square()}
        if self.spoiled:
            values["loss"] = sums * float("nan")
        if split == "train":
            return Measured(loss, values)
        ragged = [image.flatten()[: label + 1] for image, label in zip(images, labels, strict=True)]
        rows = {"label": labels, "sum": sums, "ragged": ragged, "_hidden": sums}
        return Measured(loss, values, rows)

    def figures(self, split: str, means: Any, rows: Any) -> dict[str, Any]:
        found = {"spread": (means["_square"] - means["loss"].square()).sqrt(), "root": means["loss"].sqrt()}
        if split != "train":
            found |= {"largest": max(row.max() for row in rows["ragged"]), "names": np.array(["zero", "one", "two"])}
        return found


class Loaders(L.LightningDataModule):
    """The images to train and validate on; to test on all of them and on the last five."""

    def __init__(self, rank: int = 0, world: int = 1):
        super().__init__()
        self.make = partial(BatchLoader, batch_size=3, rank=rank, world=world)

    def train_dataloader(self) -> BatchLoader:
        return self.make(IMAGES, LABELS)

    val_dataloader = train_dataloader

    def test_dataloader(self) -> dict[str, BatchLoader]:
        return {"": self.make(IMAGES, LABELS), "last": self.make(IMAGES[-5:], LABELS[-5:])}


def counting() -> Counting:
    def constant(optimizer: torch.optim.Optimizer, total_steps: int) -> Any:
        return torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)

    return Counting(nn.Linear(1, 1), partial(torch.optim.SGD, lr=0.0), constant)


def trainer(folder: Path, **how: Any) -> L.Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return L.Trainer(accelerator="cpu", max_epochs=1, default_root_dir=folder, **quiet, **how)


def expected(first: int = 0) -> dict[str, float]:
    images, labels = IMAGES[first:].astype(float), LABELS[first:]
    sums = images.sum((1, 2, 3))
    largest = max(image.flatten()[: label + 1].max() for image, label in zip(images, labels, strict=True))
    return {"loss": sums.mean(), "per_label": sums.sum() / labels.sum(), "spread": sums.std(),
            "root": math.sqrt(sums.mean()), "largest": largest}  # fmt: skip


def test_means_ratios_and_what_follows_from_them(tmp_path):
    made = trainer(tmp_path, num_sanity_val_steps=2)
    made.fit(counting(), datamodule=Loaders())
    for split in ("train", "val"):
        for name, value in expected().items():
            if (split, name) != ("train", "largest"):
                assert made.callback_metrics[f"{split}/{name}"].item() == pytest.approx(value, rel=1e-15), (split, name)
    names = {name.split("/")[1] for name in made.callback_metrics} - {"loss_step"}
    assert names == expected().keys(), "neither what begins with _ nor arrays are logged"


def test_several_tests_are_told_apart_by_name_and_the_first_is_the_main_one(tmp_path):
    module = counting()
    found = trainer(tmp_path).test(module, Loaders(), verbose=False)[0]
    for ending, first in {"": 0, "_last": ITEMS - 5}.items():
        for name, value in expected(first).items():
            assert found[f"test/{name}{ending}"] == pytest.approx(value, rel=1e-15)
    kept = module.predictions
    both = {f"{name}{ending}" for name in ("label", "sum", "ragged", "pixel", "names") for ending in ("", "_last")}
    assert kept.keys() == both
    np.testing.assert_array_equal(kept["label"], LABELS)
    np.testing.assert_array_equal(kept["label_last"], LABELS[-5:])
    np.testing.assert_allclose(kept["pixel"], IMAGES[:, 0].mean(0))
    assert [len(row) for row in kept["ragged"]] == (LABELS + 1).tolist()


def test_a_split_may_have_rows_alone(tmp_path):
    module = counting()
    rows = lambda labels: {"label": labels, "half": labels.bfloat16()}  # noqa: E731
    module.measure = lambda batch, split: Measured(torch.zeros(()), {}, rows(batch[1]))
    module.figures = lambda split, means, rows: {"largest": rows["label"].max()} if split != "train" else {}
    found = trainer(tmp_path).test(module, Loaders(), verbose=False)[0]
    assert found["test/largest"] == 2 and module.predictions["half"].dtype == np.float32
    np.testing.assert_array_equal(module.predictions["label"], LABELS)


def test_a_figure_that_is_no_number_is_shown(tmp_path):
    module, made = counting(), trainer(tmp_path)
    module.spoiled = True
    made.fit(module, datamodule=Loaders())
    assert made.callback_metrics["val/loss"].isnan() and made.callback_metrics["val/per_label"].isfinite()


def test_an_interrupted_validation_leaves_nothing_behind(tmp_path):
    module, made = counting(), trainer(tmp_path)
    module.count(module.measure(next(iter(Loaders().val_dataloader())), "val"), "val")
    module.rows["val"] = [{"label": torch.tensor([9])}]
    made.fit(module, datamodule=Loaders())
    assert made.callback_metrics["val/loss"].item() == pytest.approx(expected()["loss"], rel=1e-15)


# Several processes


@pytest.mark.parametrize("world", [2, 3, 4, 13])
def test_rows_of_several_processes_are_put_in_the_splits_order(world, monkeypatch):
    """Each process has every world-th item, in batches of three; with 13 of them two have none."""
    batches = [
        [
            {"label": labels, "row": list(images)}
            for images, labels in BatchLoader(IMAGES, LABELS, 3, rank=r, world=world)
        ]
        for r in range(world)
    ]
    monkeypatch.setattr(gathering, "gathered", lambda own: [in_order(own, dealt=False) for own in batches])
    found = in_order(batches[0], dealt=True)
    np.testing.assert_array_equal(found["label"], LABELS)
    assert [int(row[0, 0, 0]) for row in found["row"]] == IMAGES[:, 0, 0, 0].tolist()


def test_sums_are_of_all_processes(tmp_path, monkeypatch):
    modules = [counting() for _ in range(3)]
    for rank, module in enumerate(modules):
        for batch in Loaders(rank, 3).val_dataloader():
            module.count(module.measure(batch, "val"), "val")
    sums = [module.own_sums("val") for module in modules]
    monkeypatch.setattr("lightning_modules.base.gathered", lambda own: sums)
    above, below = modules[0].totals("val")["loss"]
    assert above / below == expected()["loss"] and below == ITEMS


def loaders_of(made: Any) -> list[Any]:
    return list(made.values()) if isinstance(made, dict) else [made]


@pytest.mark.parametrize(
    "words",
    [
        *([f"task={task}", *SMALLEST[task].words] for task in TASKS),
        ["data=photos"],
        ["task=char_lm", "data.split=random"],
    ],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize("split", ["val", "test"])
def test_a_loader_that_deals_its_items_says_so(words, split):
    """`Task` puts rows back in order where the loader's `world` is more than 1, and there alone."""
    made = []
    for rank in range(2):
        module = instantiate(compose_config(words).data)
        module.prepare_data()
        module.trainer = type("Two", (), {"global_rank": rank, "world_size": 2})()
        made.append(loaders_of(getattr(module, f"{split}_dataloader")()))
    for first, second in zip(*made, strict=True):
        one, other = next(iter(first)), next(iter(second))
        dealt = not torch.equal(one[0], other[0])
        assert getattr(first, "world", 1) == (2 if dealt else 1)


# What is kept


def test_ragged_rows_are_read_back_as_they_were(tmp_path):
    arrays = {"found": [np.ones((n, 7), np.float32) for n in (2, 0, 3)], "label": np.arange(3), "none": []}
    write_predictions(tmp_path, arrays)
    found = read_predictions(tmp_path)
    assert found.keys() == arrays.keys() and found["none"] == []
    assert [row.shape for row in found["found"]] == [(2, 7), (0, 7), (3, 7)] and found["found"][0].dtype == np.float32
    with np.load(tmp_path / "predictions.npz") as plain:
        assert plain["found"].shape == (5, 7) and plain["found_lengths"].tolist() == [2, 0, 3]


def test_lengths_that_do_not_fit_are_a_damaged_file(tmp_path):
    np.savez(tmp_path / "predictions.npz", found=np.ones((5, 7)), found_lengths=np.array([2, 2]))
    with pytest.raises(ValueError, match="damaged"):
        read_predictions(tmp_path)


def test_a_carried_state_from_a_checkpoint_moves_to_where_it_is_used():
    """Lightning restores a checkpoint before it moves the module: `meta` stands for a GPU."""
    spec = TextSpec("\n abc")
    network = CharLSTM(spec, embedding=4, hidden=6, layers=1, dropout=0.0)
    module = CharLM(network, partial(torch.optim.SGD, lr=0.1), lambda optimizer, total_steps: None, forget=0.5)
    codes = inputs(spec)
    batch = type("Batch", (), {"inputs": codes, "targets": codes, "carried": True})
    module.measure(batch, "train")
    assert module.states["train"][0].device.type == "cpu"
    module.to("meta")
    batch.inputs = batch.targets = codes.to("meta")
    module._trainer = type("Trainer", (), {"global_step": 3})()
    module.measure(batch, "train")
    assert all(part.device.type == "meta" for part in module.states["train"])


def test_batches_are_counted_of_loaders_by_name():
    assert batches_of(Loaders()) == {"train": 4, "val": 4, "test": 2}
