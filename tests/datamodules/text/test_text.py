"""Texts: codes and back, stretches, every batch against plain slicing, going on in the middle of an epoch, mistakes."""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pytest
import torch

from datamodules import sources
from datamodules.errors import UsageError
from datamodules.spec import TextSpec, spec_from_dict, spec_to_dict
from datamodules.text.loader import Streams, Stretch, Windows
from datamodules.text.pydocs import PyDocs
from datamodules.text.shakespeare import Shakespeare
from datamodules.text.text import SCORINGS, Text
from datamodules.text.vocabulary import UNKNOWN, character_spec, decode, encode, word_spec
from tests.conftest import real_data

PERSIAN = "بنی‌آدم اعضای یک پیکرند\nکه در آفرینش ز یک گوهرند\n"
CHINESE = "床前明月光,疑是地上霜。\n舉頭望明月,低頭思故鄉。\n"


def text_file(tmp_path, content, name="my.txt"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def made(tmp_path, content="abcdefghij" * 200, **how):
    data = Text(text_file(tmp_path, content), **{"window": 7, "batch_size": 3, **how})
    data.prepare_data()
    return data


# Codes


@pytest.mark.parametrize("text", ["To be\nor not", PERSIAN, CHINESE, "a\U0001f600b"])
def test_characters_of_any_script_go_there_and_back(text):
    spec = character_spec(text)
    assert spec.vocabulary == "".join(sorted(set(text)))
    codes = encode(text, spec)
    assert [spec.tokens[code] for code in codes] == list(text) and decode(codes, spec) == text
    assert spec_from_dict(spec_to_dict(spec)) == spec


def test_a_character_outside_the_vocabulary_is_named():
    with pytest.raises(UsageError, match="'é', 'ü', which the text"):
        encode("café über", character_spec("abcdefghijklmnopqrstuvwxyz "))


def test_words_are_the_frequent_ones_and_the_rest_is_unknown():
    text = "the cat and the dog, and the bird.\nIt isn't a well-known bird!"
    spec = word_spec(text, 3)
    assert spec.tokens == [UNKNOWN, "the", "and", "bird"] and spec.unit == "word"
    assert encode("the owl and", spec).tolist() == [1, 0, 2]
    spec = word_spec(text, 100)
    assert "isn't" in spec.tokens and "well-known" in spec.tokens and "\n" in spec.tokens
    assert decode(encode(text, spec), spec) == text
    assert spec_from_dict(spec_to_dict(spec)) == spec


def test_the_words_known_are_those_of_the_stretch_that_trains(tmp_path):
    data = made(tmp_path, "one two three " * 300 + "omega " * 100, unit="word")
    assert "omega" not in data.spec.tokens and (data.codes[-100:] == 0).all()


# Stretches and windows


@pytest.mark.parametrize("total", [1000, 1999, 2001])
def test_the_temporal_split_is_90_5_5(tmp_path, total):
    data = made(tmp_path, ("abcdefghij" * 300)[:total])
    assert data.stretch("train") == (0, int(total * 0.9))
    assert data.stretch("val") == (int(total * 0.9), int(total * 0.95))
    assert data.stretch("test") == (int(total * 0.95), total)
    assert made(tmp_path, ("abcdefghij" * 300)[:total], test_from=0.90).stretch("test") == (int(total * 0.9), total)


def test_random_windows_share_text_with_training_and_the_held_out_stretch_does_not(tmp_path):
    data = made(tmp_path, split="random", stride=2)
    train, val = data.window_starts("train"), data.window_starts("val")
    pool = np.arange(0, 1900 - 7, 2)
    assert sorted([*train, *val]) == pool.tolist() and len(val) == round(len(pool) * 5 / 95)
    covered = {place for start in train for place in range(start, start + 8)}
    shared = [np.mean([place in covered for place in range(start, start + 8)]) for start in val]
    assert np.mean(shared) > 0.9
    assert not covered & set(range(1900, 2000)), "the held-out stretch must share nothing with training"
    assert not {place for start in val for place in range(start, start + 8)} & set(range(1900, 2000))
    assert np.array_equal(val, made(tmp_path, split="random", stride=2, seed=5).window_starts("val"))


@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize(("first", "last"), [(0, 50), (10, 11), (10, 17), (10, 18), (10, 61), (3, 100)])
def test_every_code_of_a_stretch_is_a_target_once_in_order(scoring, first, last):
    codes = np.random.default_rng(0).integers(0, 9, 100)
    loader = Stretch(codes, first, last, scoring, window=7, batch_size=3)
    loader.window = 20 if scoring == "carried" else 7
    loader.batches = len(loader._pieces())
    batches = list(loader)
    assert len(batches) == len(loader)
    begin = max(first, 1)
    assert torch.cat([batch.targets.flatten() for batch in batches]).tolist() == codes[begin:last].tolist()
    assert torch.cat([batch.inputs.flatten() for batch in batches]).tolist() == codes[begin - 1 : last - 1].tolist()
    assert [batch.carried for batch in batches] == [scoring == "carried" and n > 0 for n in range(len(batches))]


# Training batches


def test_streams_are_contiguous_text_and_the_first_batch_alone_starts_anew():
    codes = np.arange(103)
    batches = list(Streams(codes, streams=3, window=5))
    assert len(batches) == 34 // 5 and [batch.carried for batch in batches] == [False] + [True] * 5
    inputs, targets = (torch.cat([getattr(batch, name) for batch in batches], 1) for name in ("inputs", "targets"))
    for row in range(3):
        assert inputs[row].tolist() == list(range(34 * row, 34 * row + 30))
    assert torch.equal(targets, inputs + 1)


def test_streams_begin_elsewhere_every_epoch_and_wrap_around():
    codes = np.arange(103)
    loader = Streams(codes, 3, 5, seed=1)
    first = next(iter(loader)).inputs[:, 0].tolist()
    assert next(iter(loader)).inputs[:, 0].tolist() == first
    loader.sampler.set_epoch(1)
    second = next(iter(loader)).inputs[:, 0].tolist()
    assert first != second and [(b - a) % 103 for a, b in pairwise(second)] == [34, 34]


def test_two_processes_read_different_streams():
    rows = [next(iter(Streams(np.arange(121), 2, 5, None, rank, 2))).inputs[:, 0].tolist() for rank in (0, 1)]
    assert rows == [[0, 30], [60, 90]]


def test_windows_are_slices_in_an_order_of_seed_and_epoch():
    codes, starts = np.arange(50) * 2, np.arange(0, 40, 3)
    loader = Windows(codes, starts, window=4, batch_size=5, seed=3)
    batches = list(loader)
    assert [len(batch.inputs) for batch in batches] == [5, 5, 4] and not any(batch.carried for batch in batches)
    found = torch.cat([batch.inputs[:, 0] for batch in batches])
    assert sorted(found.tolist()) == (starts * 2).tolist() and found.tolist() != (starts * 2).tolist()
    for batch in batches:
        assert torch.equal(batch.targets, batch.inputs + 2)
    loader.sampler.set_epoch(1)
    assert not torch.equal(torch.cat([batch.inputs[:, 0] for batch in loader]), found)


@pytest.mark.parametrize("carry", [True, False])
def test_a_loader_goes_on_in_the_middle_of_an_epoch(carry, tmp_path):
    whole = list(made(tmp_path, carry=carry).train_dataloader())
    broken, other = (made(tmp_path, carry=carry).train_dataloader() for _ in range(2))
    list(islice(broken, 4))
    other.load_state_dict(broken.state_dict())
    rest = list(other)
    assert len(rest) == len(whole) - 4
    for wanted, found in zip(whole[4:], rest, strict=True):
        assert torch.equal(wanted.inputs, found.inputs) and wanted.carried == found.carried


def test_a_random_split_trains_and_validates_on_windows(tmp_path):
    data = made(tmp_path, split="random")
    assert not data.carry and isinstance(data.train_dataloader(), Windows)
    assert isinstance(data.val_dataloader(), Windows)
    assert sum(len(batch.inputs) for batch in data.val_dataloader()) == len(data.window_starts("val"))
    assert [type(loader) for loader in data.test_dataloader().values()] == [Stretch, Stretch]
    assert next(iter(data.test_dataloader())) == data.scoring, "its figures are those without an ending"


# The texts


def test_pydocs_is_running_text_without_repeated_paragraphs():
    data = PyDocs()
    data.prepare_data()
    assert 300_000 < len(data.codes) < 600_000 and "lambda" in data.text
    paragraphs = data.text.split("\n\n")
    assert len(paragraphs) == len(set(paragraphs))
    assert decode(data.codes[:500], data.spec) == data.text[:500]


def test_shakespeare_is_the_known_text(tmp_path):
    data = Shakespeare(str(real_data("tiny_shakespeare").parent), str(tmp_path))
    data.prepare_data()
    assert len(data.codes) == 1_115_394 and len(data.spec.tokens) == 65
    assert data.text.startswith("First Citizen:\n") and data.stretch("val")[0] == 1_003_854
    assert not list(tmp_path.iterdir())


def test_another_text_in_shakespeares_place_is_refused(tmp_path):
    (tmp_path / "tiny_shakespeare").mkdir()
    text_file(tmp_path, "Not by him.", "tiny_shakespeare/input.txt")
    with pytest.raises(UsageError, match=r"input\.txt is not Tiny Shakespeare \(sha256 .*data=text data\.path="):
        Shakespeare(str(tmp_path), str(tmp_path)).prepare_data()


def test_without_file_and_connection_the_text_that_needs_none_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_answers", lambda address: False)
    with pytest.raises(UsageError, match=r"tiny_shakespeare, nor at https.*no connection.*data=pydocs"):
        Shakespeare(str(tmp_path), str(tmp_path / "cache")).prepare_data()


def test_a_download_is_checked_and_kept(tmp_path, monkeypatch):
    text = (real_data("tiny_shakespeare") / "input.txt").read_bytes()
    (tmp_path / "served.txt").write_bytes(text)
    monkeypatch.setattr("datamodules.text.shakespeare.ADDRESS", (tmp_path / "served.txt").as_uri())
    monkeypatch.setattr(sources, "_answers", lambda address: True)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    Shakespeare(str(tmp_path), str(tmp_path / "cache")).prepare_data()
    assert (tmp_path / "cache" / "tiny_shakespeare.txt").read_bytes() == text
    (tmp_path / "served.txt").write_text("gone")
    Shakespeare(str(tmp_path), str(tmp_path / "cache")).prepare_data()
    with pytest.raises(UsageError, match="another text stands there"):
        Shakespeare(str(tmp_path), str(tmp_path / "other")).prepare_data()


# Mistakes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"caf\xe9 au lait " * 100, r"my\.txt is not UTF-8 text \(byte 3 is 0xe9\): save it as UTF-8"),
        (b"", r"my\.txt is empty"),
        (b" \n\n ", r"my\.txt is empty"),
        (b"too short", r"has 9 chars, but 3 streams of 7 need 25: .*data\.window or data\.batch_size"),
    ],
)
def test_a_file_that_cannot_be_is_one_sentence(tmp_path, content, message):
    with pytest.raises(UsageError, match=message):
        made(tmp_path, content)


def test_the_least_length_named_is_enough(tmp_path):
    made(tmp_path, "ab" * 12 + "a")
    with pytest.raises(UsageError):
        made(tmp_path, "ab" * 12)


def test_shorter_than_a_window(tmp_path):
    with pytest.raises(UsageError, match=r"a window of 300 need 335: take a longer text, or a smaller data\.window\."):
        made(tmp_path, "abc" * 100, window=300, carry=False)


def test_line_ends_and_a_byte_order_mark_do_not_count(tmp_path):
    assert made(tmp_path, b"\xef\xbb\xbf" + b"one\r\ntwo\rthree\n" * 20).text == "one\ntwo\nthree\n" * 20


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"unit": "chars"}, r"data\.unit is 'chars' \(did you mean 'char'\?\): choose char or word"),
        ({"split": "temporl"}, r"data\.split is 'temporl' \(did you mean 'temporal'\?\)"),
        ({"scoring": "both"}, r"data\.scoring is 'both': choose carried or reset"),
        ({"test_from": 0.5}, r"data\.test_from is 0\.5: choose 0\.95 or 0\.9"),
        ({"window": 0}, r"data\.window is 0"),
        ({"batch_size": 2.5}, r"data\.batch_size is 2\.5"),
        ({"split": "random", "carry": True}, r"data\.carry=true cannot be"),
        ({"split": "random", "scoring": "carried"}, r"data\.scoring=carried cannot be"),
        ({"split": "random", "test_from": 0.9}, r"data\.test_from=0\.9 cannot be"),
    ],
)
def test_a_choice_that_cannot_be_is_one_sentence(how, message):
    with pytest.raises(UsageError, match=message):
        Text("never-read.txt", **how)


def test_a_missing_file_a_folder_and_no_path_are_one_sentence_each(tmp_path):
    with pytest.raises(UsageError, match=r"gone\.txt' cannot be read \(No such file or directory\)"):
        Text(str(tmp_path / "gone.txt")).prepare_data()
    with pytest.raises(UsageError, match="is a folder"):
        Text(str(tmp_path)).prepare_data()
    with pytest.raises(UsageError, match=r"data=text needs a file: give data\.path=FILE"):
        Text()


def test_the_spec_says_itself_shortly():
    assert str(TextSpec("abc")) == "text over 3 chars ('abc' …)"
