"""Dynamic evaluation equals its definition, and looks at nothing before it is scored."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from datamodules.errors import UsageError
from datamodules.spec import TextSpec
from datamodules.text.loader import Stretch
from lightning_modules.char_lm import CharGRU, CharLSTM
from lightning_modules.char_lm.dynamic import dynamic_scores
from tests.conftest import run_here

SPEC = TextSpec(tuple("abcdefg"), "char")


def network(kind=CharLSTM):
    return kind(SPEC, embedding=5, hidden=6, layers=2, dropout=0.3).train()


def stretch(codes: np.ndarray, first: int = 3) -> Stretch:
    return Stretch(codes, first, len(codes), "carried", 8, 4)


@pytest.fixture
def codes() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 7, 60)


@pytest.mark.parametrize("kind", [CharLSTM, CharGRU])
def test_without_a_step_it_is_the_carried_scoring(kind, codes):
    made = network(kind)
    nats, hits = dynamic_scores(made, stretch(codes), 0.0, 7)
    with torch.no_grad():
        logits, _ = made.eval()(torch.from_numpy(codes[2:-1])[None])
    expected = F.cross_entropy(logits[0], torch.from_numpy(codes[3:]), reduction="none")
    torch.testing.assert_close(nats, expected)
    assert torch.equal(hits, logits[0].argmax(-1) == torch.from_numpy(codes[3:]))


def test_each_window_is_scored_by_the_weights_after_the_windows_before(codes):
    """Two steps by hand."""
    made = network()
    found = dynamic_scores(made, stretch(codes), 0.5, 10).nats
    copy, state = deepcopy(made).eval(), None
    inputs, targets = torch.from_numpy(codes[2:-1]), torch.from_numpy(codes[3:])
    for start in (0, 10, 20):
        logits, state = copy(inputs[None, start : start + 10], state)
        nats = F.cross_entropy(logits[0], targets[start : start + 10], reduction="none")
        torch.testing.assert_close(found[start : start + 10], nats.detach())
        state = tuple(part.detach() for part in state)
        gradients = torch.autograd.grad(nats.mean(), list(copy.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(copy.parameters(), gradients, strict=True):
                parameter -= 0.5 * gradient


def test_nothing_is_predicted_by_weights_that_have_seen_it(codes):
    """Another text from some place on leaves all scores before it as they were, the place's own window included."""
    made = network()
    weights = deepcopy(made.state_dict())
    changed = codes.copy()
    changed[40:] = (changed[40:] + 1) % 7
    first, second = (dynamic_scores(made, stretch(text), 0.5, 10).nats for text in (codes, changed))
    assert torch.equal(first[: 40 - 3], second[: 40 - 3]) and not torch.equal(first, second)
    assert all(torch.equal(value, weights[name]) for name, value in made.state_dict().items())


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text.txt").write_text("to be or not to be, that is the question:\n" * 60)
    words = ["task=char_lm", "data=text", f"data.path={folder / 'text.txt'}", "model.hidden=12", "model.embedding=6"]
    words += ["data.window=12", "data.batch_size=4", "trainer.max_epochs=2", "trainer.precision=32-true"]
    run_here([*words, "stages=[fit,test]", "data.test_from=0.9"], folder / "run")
    return folder / "run"


def test_the_stage_takes_the_rate_that_is_best_on_validation_text(trained, tmp_path):
    """One of them diverges."""
    words = [f"ckpt_path={trained}", "task=char_lm", "data=text", "task.module.adapt_lr=[1e30,1e-6,0.05]"]
    run_here(["stages=[test,adapt,report]", *words], tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["adapt/lr"] == 0.05 and metrics["adapt/window"] == 32
    assert metrics["test/loss_dynamic"] < metrics["test/loss_carried"]
    kept = np.load(tmp_path / "adapted.npz")
    assert kept["nats"].mean(dtype=float) == pytest.approx(metrics["test/loss_dynamic"], rel=1e-6)
    assert len(kept["nats"]) == len(np.load(tmp_path / "predictions.npz")["nats_carried"])
    report = (tmp_path / "report.md").read_text()
    assert "Going on to learn" in report and "test, dynamic" in report
    assert (tmp_path / "figures/adapting.png").stat().st_size > 1000


def test_rates_that_all_diverge_are_refused(trained, tmp_path):
    words = [f"ckpt_path={trained}", "task=char_lm", "data=text", "task.module.adapt_lr=[1e30,1e20]"]
    with pytest.raises(UsageError, match=r"diverges with task\.module\.adapt_lr=\[1e\+30, 1e\+20\]"):
        run_here(["stages=[adapt]", *words], tmp_path)


def test_a_random_split_has_no_text_to_choose_on(trained, tmp_path):
    with pytest.raises(UsageError, match="needs validation text of its own"):
        words = ["task=char_lm", "data=text", "data.split=random", "data.carry=false", "data.scoring=reset"]
        words += ["data.test_from=0.95"]
        run_here(["stages=[adapt]", f"ckpt_path={trained}", *words], tmp_path)
