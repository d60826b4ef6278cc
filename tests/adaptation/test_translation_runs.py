"""Runs of CycleGAN and CyCADA: exact resume, the players' steps, figures and pages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightning_modules.adaptation import SemanticTranslation
from reporting.load import read_checkpoint
from tests.conftest import run_here
from tests.several.ending import killed
from tests.soak.compare import differences

TINY = ["task=adaptation", "trainer.precision=32-true", "trainer.log_every_n_steps=1", "trainer.max_epochs=2"]
TINY += ["data.batch_size=8", "trainer.limit_train_batches=5", "trainer.val_check_interval=2"]
TINY += ["trainer.limit_val_batches=1", "data.eval_batch_size=16", "task.module.pool=6", "stages=[fit]"]
SMALL = ["model.generator_width=2", "model.generator_blocks=1", "model.discriminator_width=2"]
# Between them all that has a state: noise, dropout, statistics, pools, the labeller, schedules of weights.
MODELS = {
    "cyclegan": ["model=cyclegan", *SMALL, "model.noise=2", "model.dropout=0.3", "model.norm=joint"],
    "cycada": ["model=cycada", *SMALL, "task.module.feature_level=true", "task.module.semantic_target=0.5",
               "task.module.semantic_start=0.3", "task.module.source_steps=20", "task.module.clip=1.0"],
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ETUDES_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def metrics_of(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.parametrize(("model", "moment"), [("cyclegan", "step:8"), ("cycada", "step:5"), ("cycada", "term:3:-")])
def test_a_run_that_goes_on_is_the_run_that_was_never_ended(model, moment, tmp_path, monkeypatch):
    """Killed in the middle of an epoch of 5 batches, after the validation behind its 2nd and 4th."""
    trained = []
    before = SemanticTranslation.before_fit
    monkeypatch.setattr(SemanticTranslation, "before_fit", lambda *given: trained.append(before(*given)))
    words = [*TINY, *MODELS[model]]
    run_here(words, tmp_path / "whole")
    killed(run_here, words, tmp_path / "halves", moment)
    ended = read_checkpoint(tmp_path / "halves/checkpoints/last.ckpt")
    assert 0 < ended["batches_done"] < 9
    again = ["task=adaptation", f"model={model}", "stages=[fit]", f"ckpt_path={tmp_path / 'halves'}"]
    run_here(again, tmp_path / "halves")
    assert differences(tmp_path / "whole", tmp_path / "halves") == []
    last = read_checkpoint(tmp_path / "halves/checkpoints/last.ckpt")
    assert (last["batches_done"], last["global_step"], len(last["optimizer_states"])) == (9, 27, 3)
    assert last["state_dict"]["pool_target.count"] == 6
    assert len(trained) == (2 if model == "cycada" else 0), "the labeller is not trained again"
