"""The embedded captions: their splits, batches, seeds, cache, and what is refused."""

from __future__ import annotations

from functools import partial
from unittest import mock

import lightning as L
import numpy as np
import pytest
import torch

from datamodules.captions import digit_captions
from datamodules.captions.batches import CaptionBatch
from datamodules.captions.digit_captions import DigitCaptions
from datamodules.captions.facts import fact_of_row, held_out
from datamodules.captions.words import GRAMMARS, decode_sentence
from datamodules.errors import UsageError
from lightning_modules.base import LossTask

ITEMS = {"train": 50, "val": 12, "test": 21, "unseen": 14}
FEW = {f"{split}_items": items for split, items in ITEMS.items()}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def make(cache, **options) -> DigitCaptions:
    data = DigitCaptions(**{"cache": str(cache), "side": 32, "batch_size": 8, "eval_batch_size": 10, **FEW, **options})
    data.prepare_data()
    return data


def test_splits_and_spec(cache):
    data = make(cache)
    assert data.spec.shape == (3, 32, 32) and data.spec.languages == ("en",) and data.spec.length == 25
    assert data.class_names[10 * 5 + 1] == "a white digit one" and len(data.spec.names) == 60
    assert data.held_out == [0, 6, 11, 17, 22, 28, 33, 39, 44, 55]
    for name, split in data.splits.items():
        assert {len(array) for array in split} == {ITEMS[name]}
        assert split.images.shape[1:] == data.spec.shape and split.images.dtype == np.uint8
        for row, facts in enumerate(split.facts):
            fact = fact_of_row(facts)
            assert sum(held_out(*pair) for pair in fact.pairs) == (name == "unseen")
            assert split.fact[row] == fact.number and len(fact.pairs) == data.scenes[name].count[row]
            colour, digit = fact.pairs[0]
            assert split.labels[row] == (10 * colour + digit if fact.kind == "one" else -1)
            told = [decode_sentence(codes, data.spec) for codes in split.codes[row]]
            assert told == GRAMMARS["en"].sentences(fact)


def test_batches(cache):
    data = make(cache)
    batch = next(iter(data.train_dataloader()))
    assert batch._fields == CaptionBatch._fields
    assert batch.every.shape == (8, 5, 25) and batch.every_lengths.shape == (8, 5) and batch.item.shape == (8,)
    chosen = (batch.every == batch.codes[:, None]).all(2)
    assert (chosen.sum(1) == 1).all() and (batch.every_lengths[chosen] == batch.lengths).all()
    assert batch.images.shape == (8, 3, 32, 32) and batch.images.dtype == torch.uint8
    assert batch.codes.shape == (8, 25) and {part.dtype for part in batch[1:]} == {torch.int64}
    for codes, length, facts in zip(batch.codes, batch.lengths, batch.facts, strict=True):
        assert codes[length - 1] == data.spec.end and (codes[length:] == data.spec.pad).all()
        assert GRAMMARS["en"].parse(decode_sentence(codes, data.spec)) == fact_of_row(facts.tolist())
    assert [len(batch.codes) for batch in data.val_dataloader()] == [10, 2]


def test_two_tests_in_the_scenes_order_with_the_same_sentences_every_time(cache):
    data, other = make(cache), make(cache, seed=4)
    loaders = data.test_dataloader()
    assert list(loaders) == ["", "unseen"]
    for name, split in {"": "test", "unseen": "unseen"}.items():
        found, again = (list(d.test_dataloader()[name]) for d in (data, other))
        np.testing.assert_array_equal(torch.cat([b.facts for b in found]), data.splits[split].facts)
        assert all(
            torch.equal(*codes) for codes in zip((b.codes for b in found), (b.codes for b in again), strict=True)
        )


def told(loader) -> list[tuple[int, ...]]:
    return [tuple(codes) for batch in loader for codes in batch.codes.tolist()]


def test_sentences_change_with_the_epoch_and_go_on_in_its_middle(cache):
    loader = make(cache).train_dataloader()
    first = told(loader)
    assert told(loader) == first
    loader.sampler.set_epoch(1)
    half = iter(loader)
    begun = [tuple(codes) for _ in range(3) for codes in next(half).codes.tolist()]
    resumed = make(cache).train_dataloader()
    resumed.sampler.set_epoch(1)
    resumed.load_state_dict(loader.state_dict())
    second = begun + told(resumed)
    assert len(second) == len(first) and sorted(second) != sorted(first), "others of the same images' sentences"
    fresh = make(cache).train_dataloader()
    fresh.sampler.set_epoch(1)
    assert told(fresh) == second
    assert sorted(told(make(cache, seed=1).train_dataloader())) != sorted(first)


def test_scenes_are_painted_once_and_depend_on_no_seed_but_theirs(cache):
    data = make(cache)
    with mock.patch.object(digit_captions, "paint", side_effect=AssertionError("painted again")):
        again = make(cache, seed=3, batch_size=5)
    for name, split in data.splits.items():
        np.testing.assert_array_equal(split.images, again.splits[name].images)
    longer = make(cache, train_items=53)
    np.testing.assert_array_equal(longer.splits["train"].images[:50], data.splits["train"].images)
    for options in ({"scene_seed": 1}, {"split_seed": 1}, {"gap": 20}, {"max_angle": 20}, {"stretch": 1.1}):
        other = make(cache, **options, **dict.fromkeys(FEW, 20))
        assert not np.array_equal(other.splits["train"].images, data.splits["train"].images[:20]), options


class Length(LossTask):
    """The words of each sentence as its loss; its network is of no use."""

    def losses(self, batch):
        assert isinstance(batch, CaptionBatch)
        return batch.lengths + 0 * self.network(torch.ones(1, 1)).sum()


def test_a_task_trains_and_is_tested_on_both(cache, tmp_path):
    def schedule(optimizer, total_steps):
        return torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)

    data = make(cache)
    module = Length(torch.nn.Linear(1, 1), partial(torch.optim.SGD, lr=0.0), schedule)
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, **quiet)
    trainer.fit(module, datamodule=data)
    trainer.test(module, datamodule=data, verbose=False)
    expected = {ending: torch.cat([b.lengths for b in loader]) for ending, loader in data.test_dataloader().items()}
    assert trainer.callback_metrics["test/loss"] == expected[""].double().mean()
    assert trainer.callback_metrics["test/loss_unseen"] == expected["unseen"].double().mean()
    np.testing.assert_array_equal(module.predictions["loss_unseen"], expected["unseen"])


def test_two_or_three_digits_have_no_class(cache):
    data = make(cache, objects=[2, 3])
    assert data.spec.names == () and (data.splits["test"].labels == -1).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"side": 24}, "data.side is 24, but it must be a multiple of 16 from 32 to 1024."),
        ({"side": 40}, "data.side is 40, but"),
        ({"side": "large"}, "data.side is 'large', but"),
        ({"objects": [1, 4]}, "data.objects is [1, 4], but it must be two whole numbers from 1 to 3, least and most."),
        ({"objects": [3, 1]}, "data.objects is [3, 1], but"),
        ({"objects": [True, 2]}, "data.objects is [True, 2], but"),
        ({"objects": [2]}, "data.objects is [2], but it must be a list of two numbers, least and most."),
        ({"objects": 2}, "data.objects is 2, but it must be a list"),
        ({"glyph_size": [0.3, 0.2]}, "data.glyph_size is [0.3, 0.2], but it must be two numbers above 0 up to 0.6"),
        ({"glyph_size": [0.3, 0.7]}, "data.glyph_size is [0.3, 0.7], but"),
        ({"glyph_size": [0, 0.2]}, "data.glyph_size is [0, 0.2], but"),
        ({"glyph_size": ["s", "l"]}, "data.glyph_size is ['s', 'l'], but"),
        ({"max_angle": 90}, "data.max_angle is 90, but it must be a number of degrees from 0 to 85, beyond which a 6"),
        ({"max_angle": float("nan")}, "data.max_angle is nan, but"),
        ({"stretch": 0.5}, "data.stretch is 0.5, but it must be a number, 1 or more."),
        ({"gap": -1}, "data.gap is -1, but it must be a number, 0 or more."),
        ({"unseen_items": 0}, "data.unseen_items is 0, but it must be a whole number from 1 to 100000."),
        ({"scene_seed": -1}, "data.scene_seed is -1, but it must be a whole number from 0 to 4294967295."),
        ({"batch_size": 0}, "data.batch_size is 0, but"),
        ({"objects": [3, 3], "glyph_size": [0.6, 0.6]}, "Scene 0 of train has no room for 3 digits after 200 attempts"),
    ],
)
def test_bad_input_is_one_sentence(options, said, cache):
    with pytest.raises(UsageError) as error:
        make(cache, **options)
    assert str(error.value).startswith(said) and str(error.value).endswith(".") and "\n" not in str(error.value)


def test_two_languages_share_a_vocabulary_and_each_is_drawn_as_often(cache):
    data = make(cache, language="both")
    assert data.spec.languages == ("en", "fa") and data.spec.vocabulary[3:5] == ("<en>", "<fa>")
    starts = [batch.codes[:, 0] for batch in data.train_dataloader()]
    assert set(torch.cat(starts).tolist()) == {3, 4}
    split = data.splits["test"]
    for codes, facts in zip(split.codes, split.facts, strict=True):
        told = [decode_sentence(row, data.spec) for row in codes]
        fact = fact_of_row(facts)
        assert told == GRAMMARS["en"].sentences(fact) + GRAMMARS["fa"].sentences(fact)
    with pytest.raises(UsageError, match=r"^data\.language is 'farsi': choose en, fa, both\.$"):
        make(cache, language="farsi")
