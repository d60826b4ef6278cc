"""Runs of the task: training and scoring against plain loops, going on, generation by command, any script, words."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from datamodules.errors import UsageError
from datamodules.text.loader import Streams
from datamodules.text.text import Text
from datamodules.text.vocabulary import encode
from lightning_modules.char_lm import leakage
from reporting.load import load_run, read_checkpoint
from reporting.statistics import half_interval
from running.check import check_command
from tests.conftest import run_here

LINES = "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer\n"
SMALL = ["task=char_lm", "data=text", "data.window=16", "data.batch_size=4", "data.eval_batch_size=3"]
SMALL += ["model.hidden=12", "model.embedding=6", "model.dropout=0.0", "task.module.length=30"]
PLAIN = ["trainer.precision=32-true", "scheduler=constant", "trainer.gradient_clip_val=null"]


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "my.txt"
    rng = np.random.default_rng(0)
    path.write_text("".join(LINES.split("\n")[number] + "\n" for number in rng.integers(0, 2, 70)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(text, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    words = ["model=char_gru", *PLAIN, "trainer.max_epochs=2", "optimizer.lr=0.01", "model.layers=2"]
    run_here([*SMALL, f"data.path={text}", *words], folder)
    return folder


def figures(folder: Path) -> dict[str, float]:
    return json.loads((folder / "metrics.json").read_text())


def on_checkpoint(words: list[str], folder: Path) -> None:
    """As train.py does it: the words that choose what the checkpoint was trained with are added."""
    run_here([*check_command(words), *words], folder)


def datamodule(text: Path, **how) -> Text:
    data = Text(str(text), window=16, batch_size=4, **how)
    data.prepare_data()
    return data


@torch.no_grad()
def test_both_scores_are_those_of_a_plain_loop_and_every_character_counts_once(run, text):
    network, spec, _ = load_run(run)
    data = datamodule(text)
    first, last = data.stretch("test")
    assert (last - first) % 16, "an odd length, or this test shows less"
    codes = torch.from_numpy(encode(text.read_text(), spec))
    carried = F.cross_entropy(network(codes[None, first - 1 : last - 1])[0][0], codes[first:last], reduction="none")
    reset = []
    for start in range(first, last, 16):
        window = slice(start, min(start + 16, last))
        logits = network(codes[None, window.start - 1 : window.stop - 1])[0][0]
        reset.append(F.cross_entropy(logits, codes[window], reduction="none"))
    tested, found = np.load(run / "predictions.npz"), figures(run)
    for scoring, nats in {"carried": carried, "reset": torch.cat(reset)}.items():
        assert tested[f"code_{scoring}"].tolist() == codes[first:last].tolist()
        np.testing.assert_allclose(tested[f"nats_{scoring}"], nats, atol=1e-5)
        assert found[f"test/loss_{scoring}"] == pytest.approx(nats.mean().item(), rel=1e-5)
        assert found[f"test/perplexity_{scoring}"] == pytest.approx(math.exp(nats.mean()), rel=1e-5)
        assert found[f"test/bits_per_char_{scoring}"] == pytest.approx(nats.mean().item() / math.log(2), rel=1e-5)
        assert found[f"test/accuracy_{scoring}"] == pytest.approx(tested[f"hit_{scoring}"].mean())
    assert found["test/loss"] == found["test/loss_reset"] != found["test/loss_carried"]


def test_the_protocol_asked_for_is_the_one_watched(run, text, tmp_path):
    words = ["stages=[test]", f"ckpt_path={run}", f"data.path={text}", "data.scoring=carried"]
    on_checkpoint(words, tmp_path)
    found = figures(tmp_path)
    assert found["test/loss"] == found["test/loss_carried"] == figures(run)["test/loss_carried"]


def test_training_is_truncated_back_propagation_with_carried_state(run, text, tmp_path):
    """The same weights as a plain loop's, from the same start."""
    words = [*SMALL, f"data.path={text}", "model=char_gru", *PLAIN, "stages=[fit]", "model.layers=2", "seed=3"]
    run_here([*words, "optimizer.lr=0.0", "optimizer.weight_decay=0", "trainer.max_epochs=1"], tmp_path / "start")
    run_here([*words, "optimizer.lr=0.01", "trainer.max_epochs=2"], tmp_path / "trained")
    network = load_run(tmp_path / "start").network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01, weight_decay=0.01)
    data = datamodule(text)
    loader = Streams(data.codes[: data.stretch("train")[1]], 4, 16, seed=3)
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        state = None
        for inputs, targets, _ in loader:
            logits, state = network(inputs, state)
            state = tuple(part.detach() for part in state)
            optimizer.zero_grad()
            F.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
            optimizer.step()
    trained = read_checkpoint(tmp_path / "trained/checkpoints/last.ckpt")["state_dict"]
    for name, weights in network.state_dict().items():
        torch.testing.assert_close(trained[f"network.{name}"], weights, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("how", [["data.carry=true", "task.module.forget=0.3"], ["data.carry=false"]])
def test_a_run_that_goes_on_in_the_middle_of_an_epoch_is_the_whole_run(how, text, tmp_path):
    words = [*SMALL, f"data.path={text}", *PLAIN, *how, "stages=[fit]", "trainer.max_epochs=2"]
    words += ["trainer.val_check_interval=7", "model=char_lstm"]
    run_here(words, tmp_path / "whole")
    run_here([*words, "trainer.max_steps=31"], tmp_path / "halves")
    place = read_checkpoint(tmp_path / "halves/checkpoints/last.ckpt")["loader_place"]["batches_done"]
    assert place > 0, "it must stop in the middle, or this test shows nothing"
    run_here(["stages=[fit]", f"ckpt_path={tmp_path / 'halves'}", "trainer.max_steps=-1"], tmp_path / "halves")
    whole, halves = (read_checkpoint(tmp_path / name / "checkpoints/last.ckpt") for name in ("whole", "halves"))
    assert whole["global_step"] == halves["global_step"] > 31
    for name, weights in whole["state_dict"].items():
        assert torch.equal(weights, halves["state_dict"][name]), name


def test_forget_one_is_training_from_the_zero_state(text, tmp_path):
    words = [*SMALL, f"data.path={text}", *PLAIN, "stages=[fit]", "trainer.max_epochs=1"]
    found = {}
    for forget in (0.0, 1.0):
        run_here([*words, f"task.module.forget={forget}"], tmp_path / str(forget))
        found[forget] = figures(tmp_path / str(forget))["train/loss"]
    assert found[0.0] != found[1.0]
    assert read_checkpoint(tmp_path / "1.0/checkpoints/last.ckpt")["carried_state"] is not None


# Generation by command


def by_command(words: list[str], folder: Path) -> list[dict]:
    on_checkpoint(words, folder)
    return json.loads((folder / "generated.json").read_text(encoding="utf-8"))


def test_a_prompt_on_a_checkpoint_by_the_documented_command(run, text, tmp_path):
    words = ["stages=[generate]", f"ckpt_path={run}", 'prompt="To be, or not to"']
    drawn = by_command(words, tmp_path / "one")
    assert [entry["temperature"] for entry in drawn] == [0.5, 0.8, 1.0]
    assert all(entry["prompt"] == "To be, or not to" and len(entry["text"]) == 30 for entry in drawn)
    assert by_command(words, tmp_path / "two") == drawn
    assert by_command([*words, "task.module.seed=9"], tmp_path / "three") != drawn
    more = ["task.module.temperature=0.3", "task.module.draws=2", "task.module.length=7", "task.module.top_k=1"]
    drawn = by_command([*words, *more], tmp_path / "four")
    assert [len(entry["text"]) for entry in drawn] == [7, 7] and drawn[0] == drawn[1]


def test_without_a_prompt_the_texts_own_first_line_is_it(run, text):
    drawn = json.loads((run / "generated.json").read_text())
    assert drawn[0]["prompt"] == text.read_text().split("\n")[0] + "\n"


def test_a_checkpoint_generates_without_its_text(run, tmp_path):
    words = ["stages=[generate]", f"ckpt_path={run}", f"data.path={tmp_path / 'gone.txt'}"]
    drawn = by_command([*words, 'prompt="To be, or not to"'], tmp_path / "run")
    assert drawn == by_command([*words[:2], 'prompt="To be, or not to"'], tmp_path / "with_text")
    with pytest.raises(UsageError, match="give prompt="):
        by_command(words, tmp_path / "no_prompt")
    with pytest.raises(UsageError, match="cannot be read"):
        by_command(["stages=[test]", *words[1:]], tmp_path / "test")


def test_another_text_is_not_put_on_a_checkpoint(run, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("Quite another text. " * 50)
    with pytest.raises(UsageError, match="was trained on text over 2"):
        on_checkpoint(["stages=[test]", f"ckpt_path={run}", f"data.path={other}"], tmp_path / "run")


# The report


def test_the_report_shows_what_was_asked_of_it(run):
    page = (run / "report.md").read_text()
    for title in ("Likelihood", "Generated text", "Is it quoting?", "Surprise", "Where the loss is",
                  "Carried and reset", "Units", "Curves"):  # fmt: skip
        assert f"## {title}" in page
    for name in ("quotation", "surprise", "groups", "windows", "units", "curves"):
        assert (run / "figures" / f"{name}.png").stat().st_size > 1000
    found = figures(run)
    assert f"{found['test/loss_carried']:.4f}" in page and f"{found['test/perplexity_reset']:.3f}" in page
    assert json.loads((run / "generated.json").read_text())[0]["text"].splitlines()[-1] in page


def test_published_figures_stand_beside_ours_on_their_data_only(run, text, tmp_path):
    entry = "{source: someone, data: DATA, metric: perplexity, split: val, figures: {theirs: 5.0}}"
    for data, shown in [("text", True), ("shakespeare", False)]:
        words = ["stages=[test,report]", f"ckpt_path={run}", f"published=[{entry.replace('DATA', data)}]"]
        on_checkpoint(words, tmp_path / data)
        page = (tmp_path / data / "report.md").read_text()
        assert ("| theirs, val | 1.6094 | 5.000 | 2.3219 |  | someone |" in page) == shown


@pytest.mark.parametrize(
    "line", ["بنی‌آدم اعضای یک پیکرند که در آفرینش ز یک گوهرند\n", "床前明月光,疑是地上霜。舉頭望明月,低頭思故鄉。\n"]
)
def test_any_script_trains_tests_generates_and_reports(line, tmp_path):
    path = tmp_path / "my.txt"
    path.write_text(line * 40, encoding="utf-8")
    run_here([*SMALL, f"data.path={path}", "trainer.max_epochs=1"], tmp_path / "run")
    drawn = json.loads((tmp_path / "run/generated.json").read_text(encoding="utf-8"))
    assert set(drawn[0]["text"]) <= set(line) and drawn[0]["prompt"] == line
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert "<div dir='auto'><span style=\"background:rgb(" in page
    assert not (tmp_path / "run/figures/surprise.png").exists(), "the font of pictures has no such script"


def test_words_in_place_of_characters(text, tmp_path):
    words = [*SMALL, f"data.path={text}", "data.unit=word", "data.words=12", "trainer.max_epochs=2"]
    run_here([*words, 'prompt="To be or xyzzy"'], tmp_path)
    found = figures(tmp_path)
    assert found["test/bits_per_word"] == pytest.approx(found["test/loss"] / math.log(2))
    network, spec, _ = load_run(tmp_path)
    assert len(spec.tokens) == 13 and network.output.out_features == 13
    assert "nats/word" in (tmp_path / "report.md").read_text()


# The leakage experiment


@pytest.fixture(scope="module")
def sweep(text, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    words = [*SMALL, f"data.path={text}", "stages=[fit,test]", "data.carry=false", "data.stride=4"]
    for number, (split, seed) in enumerate([(s, n) for s in ("temporal", "random") for n in (1, 2)]):
        words_of_job = [f"data.split={split}", f"seed={seed}", "trainer.max_epochs=1"]
        run_here([*words, *words_of_job], folder / str(number))
    return folder


def test_the_leakage_table_is_of_the_runs_figures(sweep):
    printed = leakage.main([str(sweep)])
    assert (sweep / "leakage.png").stat().st_size > 1000
    page = (sweep / "leakage.md").read_text()
    assert printed == page
    random = [figures(sweep / number) for number in ("2", "3")]
    gaps = [run["test/loss_reset"] - run["val/loss"] for run in random]
    assert f"{np.mean(gaps):.4f} ± {half_interval(gaps):.4f}" in page
    assert f"| random | 1 | {random[0]['val/loss']:.4f} | {random[0]['test/loss_reset']:.4f} | {gaps[0]:+.4f} |" in page
    assert "7.6 %" in page and "nats" in leakage.conclusion(leakage.read_results(sweep))


def test_the_conclusion_follows_the_figures():
    def results(gap: float) -> list[leakage.Result]:
        return [
            leakage.Result(split, seed, 1.0, 1.5, 1.5 + (gap if split == "random" else 0) + seed / 100, 0.5, 0.5, 0.5)
            for split in ("temporal", "random")
            for seed in (1, 2, 3)
        ]

    assert "looks 0.500 nats better than it is" in leakage.conclusion(results(0.5))
    assert "looks 0.500 nats worse than it is" in leakage.conclusion(results(-0.5))
    assert "no leakage beyond the seeds' own spread" in leakage.conclusion(results(0.0))


def test_a_folder_without_both_splits_is_one_sentence(sweep, tmp_path):
    with pytest.raises(UsageError, match="has no finished runs of both splits"):
        leakage.read_results(tmp_path)
    with pytest.raises(UsageError, match="Give one folder"):
        leakage.main([])


def test_the_sweeps_mean_their_jobs():
    for name in ("char_split", "char_hidden_size"):
        assert check_command([f"sweep={name}"]) == [] == check_command([f"sweep={name}", "data=shakespeare"])
