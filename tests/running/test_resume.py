"""Runs killed and stopped at chosen moments go on bit for bit; `make soak` tries many more."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from datamodules.errors import UsageError
from reporting.load import read_checkpoint
from tests.conftest import run_here
from tests.forked import Command
from tests.soak.cases import CASES
from tests.soak.compare import unequal

# Between them all kinds, and runs stopped and then killed; twenty at random moments of each: `make soak`.
MOMENTS = {
    "pixelrnn": "val:4:1+save:1:half",
    "pixelnet": "step:8+stage:test",
    "classification": "term:8:-+save:2:whole",
    "char_lm": "term:31:-+step:2",  # a validation is due after the first's step
    "distillation": "step:10+save:2:half",
    "char_gru": "int:36:-+save:1:half",  # the second amid the writing of the plateau's state
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, list[dict]]:
    """What `tests.soak.resume` found, in processes of their own, from which it can fork."""
    cases, halves = list(MOMENTS), []
    for number in range(2):  # two at once, each of one thread
        folder = tmp_path_factory.mktemp("resume")
        moments = [f"{case}={MOMENTS[case]}" for case in cases[number::2]]
        halves.append(Command(["--folder", str(folder), "--moments", *moments], folder, "tests.soak.resume"))
    found = {}
    for half in halves:
        done = half.ended(900)
        assert done.returncode == 0, done.stderr[-3000:]
        found |= json.loads(done.stdout)
    assert found.keys() == CASES.keys()
    return found


@pytest.mark.timeout(900)  # the first waits for all of them
@pytest.mark.parametrize("case", CASES)
def test_a_run_that_goes_on_is_the_run_that_was_never_ended(case, outcomes):
    (found,) = outcomes[case]
    assert found["differences"] == []
    assert found["ended"][0] in ("killed", "stopped") and found["ended"][-1] == "finished"
    assert len(found["ended"]) == 1 + len(found["moments"]), "a moment never came"


def test_a_checkpoint_without_random_states_is_refused(tmp_path):
    words = ["stages=[fit]", "debug=quick", "model=pixelcnn", "model.hidden=4", "model.layers=1"]
    run_here(words, tmp_path)
    last = tmp_path / "checkpoints/last.ckpt"
    checkpoint = read_checkpoint(last)
    del checkpoint["random_states"]
    torch.save(checkpoint, last)
    with pytest.raises(UsageError, match="written by an earlier version"):
        run_here(["stages=[fit]", f"ckpt_path={last}"], tmp_path)


@pytest.mark.parametrize(
    ("one", "other", "places"),
    [
        ({"a": torch.ones(2)}, {"a": torch.ones(2)}, 0),
        ({"a": torch.ones(2)}, {"a": torch.tensor([1.0, 1 + 1e-7])}, 1),
        ({"a": [1, 2]}, {"a": [1]}, 1),
        ({"a": 1}, {"a": 1.0}, 1),
        ({"a": 1}, {"b": 1}, 2),
        ({"a": float("nan")}, {"a": float("nan")}, 0),
        ({"a": np.zeros(3, np.int64)}, {"a": np.zeros(3, np.int32)}, 1),
    ],
)
def test_the_comparison_sees_the_last_bit(one, other, places):
    assert len(unequal(one, other)) == places
