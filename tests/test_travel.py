"""A run packed into small files goes on elsewhere as it would have here."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from pathlib import Path

import pytest
import torch

from datamodules.errors import UsageError
from running import travel
from running.load import read_checkpoint
from tests.conftest import run_here
from tests.soak.compare import unequal

WORDS = ["task=classification", "model.filters=6", "model.depth=4", "stages=[fit]", "trainer.precision=32-true"]
WORDS += ["scheduler=constant", "trainer.val_check_interval=5", "optimizer=adam", "average=0.9", "patience=null"]
GO_ON = ["stages=[fit]", "trainer.max_steps=25"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "first"
    run_here([*WORDS, "trainer.max_steps=15"], folder)
    return folder


def last(folder: Path) -> dict:
    return read_checkpoint(folder / "checkpoints/last.ckpt")


def test_an_exact_state_goes_on_bit_for_bit(run, tmp_path):
    said = travel.main(["pack", str(run), str(tmp_path / "parts"), "--part", "0.05"])
    assert said.endswith("exact") and len(list((tmp_path / "parts").glob("state.*.*"))) > 2
    assert max(path.stat().st_size for path in (tmp_path / "parts").iterdir()) <= 0.05 * 2**20
    elsewhere = tmp_path / "elsewhere"
    assert str(elsewhere / "checkpoints/last.ckpt") in travel.main(["unpack", str(tmp_path / "parts"), str(elsewhere)])
    here = Path(shutil.copytree(run, tmp_path / "here"))
    for folder in (here, elsewhere):
        run_here([*GO_ON, f"ckpt_path={folder}"], folder)
    ours, theirs = last(here), last(elsewhere)
    for part in ("state_dict", "optimizer_states", "training_weights", "random_states", "loader_place"):
        assert not unequal(ours[part], theirs[part]), part
    assert (here / "metrics.csv").read_text() == (elsewhere / "metrics.csv").read_text()


def unbeatable(run: Path, folder: Path) -> Path:
    """A copy of a run with a best score that nothing to come can beat."""
    shutil.copytree(run, folder)
    checkpoint = last(folder)
    for name, state in checkpoint["callbacks"].items():
        if name.startswith("ModelCheckpoint{'monitor': 'val"):
            state["best_model_score"] = state["kth_value"] = torch.tensor(-1.0)
            state["best_k_models"] = {path: torch.tensor(-1.0) for path in state["best_k_models"]}
    torch.save(checkpoint, folder / "checkpoints/last.ckpt")
    return folder


@pytest.mark.parametrize("how", ["moved", "packed"])
def test_the_best_score_so_far_is_known_elsewhere(how, run, tmp_path):
    first, elsewhere = unbeatable(run, tmp_path / "first"), tmp_path / "elsewhere"
    if how == "moved":
        first.rename(elsewhere)
    else:
        travel.main(["pack", str(first), str(tmp_path / "parts")])
        travel.main(["unpack", str(tmp_path / "parts"), str(elsewhere)])
    best = elsewhere / "checkpoints/best.ckpt"
    before = best.read_bytes()
    run_here([*GO_ON, f"ckpt_path={elsewhere}"], elsewhere)
    assert last(elsewhere)["global_step"] == 25 and best.read_bytes() == before


@pytest.mark.parametrize(("dtype", "step"), [(torch.bfloat16, 2**-8), (torch.float8_e5m2, 2**-3)])
def test_a_rounded_state_keeps_the_weights_and_nearly_all_else(run, monkeypatch, dtype, step):
    monkeypatch.setattr(travel, "SMALL", 1)
    whole = last(run)
    again = travel.full(travel.smaller(whole, dtype))
    assert not unequal(whole["training_weights"], again["training_weights"])
    for number, moments in whole["optimizer_states"][0]["state"].items():
        for name, value in moments.items():
            found = again["optimizer_states"][0]["state"][number][name]
            assert found.dtype == value.dtype
            assert torch.equal(found == 0, value == 0), "what is not 0 stays so"
            near = value.abs() > 1e-6 * value.abs().max()
            torch.testing.assert_close(found[near], value[near], rtol=step, atol=0)
    for name, value in whole["state_dict"].items():
        away = (value - whole["training_weights"]["weights"].get(name.removeprefix("network."), value)).abs()
        assert ((again["state_dict"][name] - value).abs() <= step * away.double() + 1e-6 * value.abs()).all(), name


def test_a_rounded_state_goes_on(run, tmp_path, monkeypatch):
    monkeypatch.setattr(travel, "SMALL", 1)
    exact = (run / "checkpoints/last.ckpt").stat().st_size / 2**20
    said = travel.main(["pack", str(run), str(tmp_path / "parts"), "--most", str(exact)])
    assert "rounded to 16 bits, without the best checkpoint" in said
    elsewhere = tmp_path / "elsewhere"
    travel.main(["unpack", str(tmp_path / "parts"), str(elsewhere)])
    assert not (elsewhere / "checkpoints/best.ckpt").exists()
    run_here([*GO_ON, f"ckpt_path={elsewhere}"], elsewhere)
    assert last(elsewhere)["global_step"] == 25 and (elsewhere / "checkpoints/best.ckpt").exists()


def test_what_was_packed_before_is_whole_until_the_new_parts_are(run, tmp_path, monkeypatch):
    parts, later = tmp_path / "parts", Path(shutil.copytree(run, tmp_path / "later"))
    (later / "metrics.csv").write_text("a later state")
    travel.main(["pack", str(run), str(parts), "--part", "0.05"])

    def full_disk(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(travel, "write_text", full_disk)
        with pytest.raises(OSError, match="No space"):
            travel.main(["pack", str(later), str(parts), "--part", "0.05"])
    travel.main(["unpack", str(parts), str(tmp_path / "first")])
    assert (tmp_path / "first/metrics.csv").read_bytes() == (run / "metrics.csv").read_bytes()
    travel.main(["pack", str(later), str(parts), "--part", "0.05"])
    travel.main(["unpack", str(parts), str(tmp_path / "second")])
    assert (tmp_path / "second/metrics.csv").read_text() == "a later state"
    assert len(list(parts.iterdir())) == len(json.loads((parts / "state.json").read_text())["sha256"]) + 1


def test_a_best_checkpoint_that_did_not_come_along_is_forgotten(run, tmp_path):
    first, elsewhere = unbeatable(run, tmp_path / "first"), tmp_path / "elsewhere"
    (elsewhere / "checkpoints").mkdir(parents=True)
    for name in ("config.yaml", "checkpoints/last.ckpt"):
        shutil.copyfile(first / name, elsewhere / name)
    run_here([*GO_ON, f"ckpt_path={elsewhere}"], elsewhere)
    assert (elsewhere / "checkpoints/best.ckpt").exists()


def test_what_cannot_be_packed_or_unpacked_is_said(run, tmp_path):
    with pytest.raises(UsageError, match=r"even when rounded, more than 0\.001"):
        travel.main(["pack", str(run), str(tmp_path / "parts"), "--most", "0.001"])
    assert not (tmp_path / "parts").exists()
    with pytest.raises(UsageError, match="There is no checkpoint"):
        travel.main(["pack", str(tmp_path), str(tmp_path / "parts")])
    with pytest.raises(UsageError, match="does not hold all parts"):
        travel.main(["unpack", str(tmp_path), str(tmp_path / "back")])
    travel.main(["pack", str(run), str(tmp_path / "parts"), "--part", "0.1"])
    with pytest.raises(UsageError, match="holds a run"):
        travel.main(["unpack", str(tmp_path / "parts"), str(run)])
    part = next((tmp_path / "parts").glob("state.*.1"))
    part.write_bytes(b"x" + part.read_bytes()[1:])
    with pytest.raises(UsageError, match=r"state\.\w+\.1' is damaged"):
        travel.main(["unpack", str(tmp_path / "parts"), str(tmp_path / "back")])
    (tmp_path / "parts/state.json").write_text(json.dumps({"sha256": {"state.0": hashlib.sha256(b"x").hexdigest()}}))
    (tmp_path / "parts/state.0").write_bytes(b"x")
    with pytest.raises(UsageError, match="holds no packed run"):
        travel.main(["unpack", str(tmp_path / "parts"), str(tmp_path / "back")])
    with tarfile.open(tmp_path / "parts/state.0", "w") as packed:
        packed.add(run / "config.yaml", "../config.yaml")
    content = (tmp_path / "parts/state.0").read_bytes()
    (tmp_path / "parts/state.json").write_text(json.dumps({"sha256": {"state.0": hashlib.sha256(content).hexdigest()}}))
    with pytest.raises(UsageError, match=r"holds '\.\./config\.yaml', which is none"):
        travel.main(["unpack", str(tmp_path / "parts"), str(tmp_path / "back")])
    (tmp_path / "parts/state.0").unlink()
    with pytest.raises(UsageError, match="does not hold all parts"):
        travel.main(["unpack", str(tmp_path / "parts"), str(tmp_path / "back")])
    assert not (tmp_path / "back").exists()
    with pytest.raises(UsageError, match="give the run's folder"):
        travel.main(["pack", str(run / "checkpoints/last.ckpt"), str(tmp_path / "more")])
    with pytest.raises(UsageError, match="numbers above 0"):
        travel.main(["pack", str(run), str(tmp_path / "more"), "--part", "0"])
