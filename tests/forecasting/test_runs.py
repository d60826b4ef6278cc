"""A run's figures, report and stages; baselines as published; and what a command cannot ask for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.errors import UsageError
from datamodules.series import ETT, Waves
from lightning_modules.forecasting import BiGRU, Forecasting, NLinear
from lightning_modules.forecasting.baselines import Scaling, fitted, outcomes, past_of
from lightning_modules.forecasting.lags import occlusion_by_lag
from lightning_modules.forecasting.report import beside
from lightning_modules.forecasting.scores import Forecasts, each_value, of_passes, summary
from lightning_modules.forecasting.stress import block, scattered, with_outliers
from lightning_modules.forecasting.testing import baselines
from reporting.load import load_run
from running.composed import compose_config
from tests.conftest import real_data, run_here

SMALL = [
    "task=forecasting", "debug=quick", "data.window=30", "data.horizon=3", "data.batch_size=16", "model.hidden=4",
    "data.eval_batch_size=80", "model.attention=3", "task.module.passes=3", "task.module.calibration_window=50",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    published = "published=[{source: a book, name: theirs, data: waves, split: test, figures: {mse: 0.5}}]"
    run_here([*SMALL, published, "stages=[fit,test,stress,report]", "data.missing=0.3"], folder)
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("other")
    run_here([*SMALL, "seed=1", "stages=[fit,test]"], folder)
    return folder


def test_figures_agree_with_the_predictions(run):
    metrics, kept = json.loads((run / "metrics.json").read_text()), np.load(run / "predictions.npz")
    error = kept["target"].astype(float) - kept["mean"]
    assert len(error) == 160 and error.shape[1:] == (3, 1)
    assert metrics["test/mse"] == pytest.approx((error**2).mean(), rel=1e-4)
    assert metrics["test/mse_at_1"] == pytest.approx((error[:, 0] ** 2).mean(), rel=1e-4)
    assert metrics["test/crps"] == pytest.approx(kept["window_crps"].mean(), rel=1e-4)
    spread = ((kept["target"] - kept["target"].mean()) ** 2).mean()
    assert metrics["test/r2"] == pytest.approx(1 - metrics["test/mse"] / spread, rel=1e-4)
    total = metrics["test/epistemic"] + metrics["test/aleatoric"]
    assert total == pytest.approx(kept["variance"].mean(), rel=1e-4) and metrics["test/epistemic"] > 0
    assert metrics["test/mae_in_units"] == pytest.approx(metrics["test/mae"] * load_run(run)[1].scale[0])
    for method in ("last", "seasonal", "climatology", "ridge", "ridge_rolling", "oracle", "split", "rolling"):
        assert metrics[f"test/{method}/crps"] > 0 and 0 <= metrics[f"test/{method}/coverage_90"] <= 1
    assert metrics["test/oracle/mse"] < metrics["test/mse"] and metrics["test/split/mse"] == metrics["test/mse"]
    methods = kept["methods"].tolist()
    assert methods[:3] == ["network", "split", "rolling"] and kept["lead_r2"].shape[1] == 3
    assert kept["coverage"][0, 1] == pytest.approx(metrics["test/coverage_80"])
    assert kept["coverage"][methods.index("ridge"), 2] == pytest.approx(metrics["test/ridge/coverage_90"])


def test_the_report_shows_every_part(run):
    text = (run / "report.md").read_text()
    for title in ("Forecasts", "Intervals, raw and calibrated", "R² against the horizon", "Coverage by lead",
                  "Calibration", "Along the test part", "Four forecasts", "The passes", "What the attention looks at",
                  "Missing values and outliers"):  # fmt: skip
        assert f"## {title}\n" in text
    assert "| theirs | 0.5000 |" in text and "| oracle |" in text and "| ridge |" in text
    assert "recurrent part alone" in text and "λ = " in text and "N = 23,904" in text
    assert len(list((run / "figures").glob("*.png"))) >= 9


def test_stress_spoils_the_same_inputs_for_all_and_no_target(run):
    metrics = json.loads((run / "metrics.json").read_text())
    for kind, percents in {"scattered": (10, 20, 30, 50, 70), "block": (10, 70), "outliers": (1, 2, 5, 10)}.items():
        for percent in percents:
            for method in ("network", "ridge", "last"):
                assert np.isfinite(metrics[f"stress/{kind}_{percent}/{method}_mse"])
    assert metrics["stress/block_70/ridge_mse"] > metrics["stress/clean_0/ridge_mse"]
    assert {"stress/outliers_10/network_median5_mse_hit", "stress/outliers_10/network_mse_missed"} <= metrics.keys()
    assert "stress/clean_0/network_median5_mse" in metrics, "what the other centre costs where nothing is spoiled"
    assert metrics["stress/robust"] in (0, 1)
    data = Waves(window=30, horizon=3)
    data.prepare_data()
    batch = data.windows(data.origins("test")[:50])
    spoiled, hit = with_outliers(batch, 0.1, np.array(data.spec.scale))
    moved = (spoiled.inputs - batch.inputs).abs()
    torch.testing.assert_close(moved[hit], torch.full((hit.sum(),), 5 * data.spec.scale[0]), rtol=1e-4, atol=0)
    assert (moved[~torch.from_numpy(hit)] == 0).all() and 0.07 < hit.mean() < 0.13
    assert torch.equal(spoiled.targets, batch.targets)
    one = block((6, 30, 2), 0.3)
    assert (one.sum(1) == 9).all() and (np.abs(np.diff(one[..., 0].astype(int), axis=1)).sum(1) <= 2).all()
    assert 0.25 < scattered((100, 30, 1), 0.3).mean() < 0.35


def test_an_ensemble_is_the_mixture_of_its_members(run, other, tmp_path):
    words = [*SMALL, "stages=[ensemble]", f"members=[{run},{other}]"]
    found = run_here(words, tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["ensemble/members"] == 2 and metrics["ensemble/rolling/crps"] > 0
    both = [np.load(folder / "predictions.npz") for folder in (run, other)]
    mean = (both[0]["mean"].astype(float) + both[1]["mean"]) / 2
    assert metrics["ensemble/mse"] == pytest.approx(((both[0]["target"] - mean) ** 2).mean(), rel=1e-4)
    assert found == metrics["ensemble/crps"] or np.isnan(found)


def test_a_checkpoint_on_a_shifted_series_keeps_its_scaling(run, tmp_path):
    words = [*SMALL, "data.shift=level", "data.train_length=4000", "stages=[test]", f"ckpt_path={run}"]
    run_here(words, tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["test/oracle_unshifted/mse"] > 0
    before, after = (np.load(folder / "predictions.npz") for folder in (run, tmp_path))
    assert (after["origin"] == before["origin"] - 4000).all()
    np.testing.assert_allclose(after["target"], before["target"], atol=1e-5)  # scaled as it was trained
    np.testing.assert_allclose(after["mean"], before["mean"], atol=1e-4)


def test_a_file_of_ones_own_with_gaps_in_its_targets(tmp_path):
    rng = np.random.default_rng(0)
    lines = ["when,load,price"]
    for step in range(700):
        if step % 97 != 50:
            day, hour = divmod(step, 24)
            price = "" if step % 31 == 5 else f"{np.sin(step / 4) + rng.normal():.4f}"
            lines.append(f"2024-{1 + day // 28:02d}-{1 + day % 28:02d} {hour:02d}:00,{rng.normal():.4f},{price}")
    (tmp_path / "my.csv").write_text("\n".join(lines))
    words = [*SMALL, "data=series", f"data.path={tmp_path / 'my.csv'}", "data.target=price", "data.features=MS"]
    run_here([*words, "stages=[fit,test,stress,report]", "model.level=variance"], tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    kept = np.load(tmp_path / "run" / "predictions.npz")
    assert np.isnan(kept["target"]).any() and np.isfinite(kept["mean"]).all()
    assert all(np.isfinite(value) for name, value in metrics.items() if name.startswith(("test/", "stress/")))
    assert metrics["test/mse"] == pytest.approx(np.nanmean((kept["target"] - kept["mean"]) ** 2.0), rel=1e-4)
    assert "of targets: left out of loss and figures" in (tmp_path / "run" / "report.md").read_text()


@pytest.mark.parametrize("model", ["dlinear", "bi_gru"])
def test_a_random_split_and_no_calibration(model, tmp_path):
    words = [*SMALL, f"model={model}", "+data.split=random", "task.module.calibration=none"]
    own = ("model.hidden", "model.attention")
    run_here([word for word in words if model != "dlinear" or not word.startswith(own)], tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert "test/rolling/crps" not in metrics and metrics["test/ridge/crps"] > 0
    assert ("One pass, nothing dropped" in (tmp_path / "report.md").read_text()) == (model == "dlinear")


def waves(**how: object) -> Waves:
    data = Waves(**{"window": 48, "horizon": 6, **how})
    data.prepare_data()
    return data


def test_forecasts_do_not_know_what_comes_after():
    """Values after the origin changed, or missing: the same forecast, of the network and of every baseline."""
    data = waves()
    module = Forecasting(BiGRU(data.spec, hidden=4, layers=1), None, None, passes=3)
    origins = data.origins("test")[:40:8]
    methods = fitted(data, module.scaling)
    before = module.passes_of(data, origins)[0]
    known = {name: f(past_of(data.windows(origins), data, module.scaling)) for name, f in methods.items()}
    for spoiled in (1e3, np.nan):
        data.series.values[origins[-1] + 1 :] = spoiled
        torch.testing.assert_close(module.passes_of(data, origins)[0], before, rtol=0, atol=0)
        again = past_of(data.windows(origins), data, module.scaling)
        for name, f in methods.items():
            np.testing.assert_array_equal(f(again), known[name])


def test_passes_do_not_depend_on_batches_and_are_one_where_nothing_is_dropped():
    data = waves()
    origins = data.origins("test")[:30]
    module = Forecasting(BiGRU(data.spec, hidden=4, layers=2), None, None, passes=4, mc_chunk=7)
    means, variances = module.passes_of(data, origins)
    assert means.shape == variances.shape == (4, 30, 6, 1) and (means[0] != means[1]).any()
    module.mc_chunk = 256
    torch.testing.assert_close(module.passes_of(data, origins)[0], means)
    for network in (NLinear(data.spec), BiGRU(data.spec, hidden=4, dropout={"p": 0.0})):
        one = Forecasting(network, None, None, passes=50)
        assert one.passes == 1 and len(one.passes_of(data, origins)[0]) == 1
    own = of_passes(*one.passes_of(data, origins))
    assert (own.epistemic == 0).all() and np.isfinite(own.variance).all()


def test_the_penalty_is_the_papers():
    data = waves()
    module = Forecasting(BiGRU(data.spec, hidden=4, layers=2, dropout={"p": 0.2}), None, None, length_scale=3.0)
    module._trainer = type("Trainer", (), {"datamodule": data})()
    values = (8000 - 48 - 6 + 1) * 6
    assert module.decay(data) == pytest.approx((9 / (2 * values * 0.8), 9 / (2 * values)))
    weights, biases = module.network.decayed()
    assert len(weights) == 4 + 2 + 1 and len(biases) == 8 + 1, (
        "all that is recurrent, the second layer's inputs, the head"
    )
    expected = sum(w.square().sum() for w in weights) / 0.8 + sum(b.square().sum() for b in biases)
    assert module.penalty().item() == pytest.approx(9 / (2 * values) * expected.item(), rel=1e-5)
    without = Forecasting(module.network, None, None, length_scale=None)
    assert without.penalty() == 0
    naive = BiGRU(data.spec, hidden=4, layers=2, dropout={"kind": "naive"})
    assert len(naive.decayed()[0]) == 2 + 1, "nothing that recurs is dropped"
    one = Forecasting(module.network, None, None, length_scale=3.0, passes=1)
    one._trainer = module._trainer
    assert one.penalty() == module.penalty(), "what is trained does not depend on the test's passes"


def test_missing_targets_are_left_out_of_loss_and_figures():
    data = waves()
    batch = data.windows(data.origins("train")[:8])
    module = Forecasting(NLinear(data.spec), None, None)
    whole = module.measure(batch, "val")
    targets = batch.targets.clone()
    targets[:4] = torch.nan
    part = module.measure(batch._replace(targets=targets), "val")
    half = module.measure(type(batch)(*(value[4:] for value in batch)), "val")
    assert part.loss.item() == pytest.approx(half.loss.item(), rel=1e-5) != whole.loss.item()
    y = np.array([[[0.0]], [[np.nan]], [[2.0]]])
    values = each_value(Forecasts(np.zeros_like(y), np.ones_like(y)), y)
    figures = summary(values, y)
    assert figures["mse"] == 2 and figures["r2"] == 1 - 2 / 1 and figures["coverage_90"] == 0.5


def test_hiding_a_step_that_counts_moves_the_forecast():
    data = waves()
    network = NLinear(data.spec)
    with torch.no_grad():
        network.map.weight.zero_()
        network.map.weight[:, 40] = 1.0
    found = occlusion_by_lag(Forecasting(network, None, None), data)
    assert found.argmax() == 40 and (np.delete(found, [40, 47]) < 1e-6).all()


# Published figures


def ridge_errors(horizon: int, features: str = "S", window: int = 336) -> tuple[float, float]:
    data = ETT(path=str(real_data("ett").parent), window=window, horizon=horizon, features=features, target="OT")
    data.prepare_data()
    target = list(data.spec.target)
    scaling = Scaling(np.array(data.spec.mean)[target], np.array(data.spec.scale)[target])
    batch = data.windows(data.origins("test"))
    error = outcomes(batch, scaling) - fitted(data, scaling)["ridge"](past_of(batch, data, scaling))
    return float((error**2).mean()), float(np.abs(error).mean())


def test_the_ridge_is_nlinear_as_published():
    assert ridge_errors(96) == pytest.approx((0.0528, 0.1767), abs=5e-4)
    assert ridge_errors(24, window=168)[0] == pytest.approx(0.0263, abs=2e-4)


def test_the_ridge_s_intervals_are_too_wide_until_they_roll():
    """Fitted on validation they cover 97.5 % where 90 % are asked for; by the latest 720 errors 90.7 %, narrower."""
    data = ETT(path=str(real_data("ett").parent), window=336, horizon=24)
    data.prepare_data()
    scaling = Scaling(np.array(data.spec.mean), np.array(data.spec.scale))
    origins = data.origins("test")
    y = outcomes(data.windows(origins), scaling)
    methods = baselines(data, scaling, origins, y, rolling=True, window=720)
    found = {name: summary(each_value(methods[name], y), y) for name in ("last", "ridge", "ridge_rolling")}
    keys = ("crps", "nll", "coverage_90", "width_90")
    assert [found["ridge"][key] for key in keys] == pytest.approx([0.0904, -0.382, 0.975, 0.713], abs=1e-3)
    assert [found["ridge_rolling"][key] for key in keys] == pytest.approx([0.0876, -0.457, 0.9065, 0.528], abs=1e-3)
    assert (found["last"]["mse"], found["last"]["mae"]) == pytest.approx((0.0343, 0.1394), abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("horizon", "expected"), [(192, (0.0686, 0.2035)), (336, (0.0802, 0.2250)), (720, (0.0795, 0.2250))]
)
def test_the_ridge_at_longer_horizons(horizon, expected):
    assert ridge_errors(horizon) == pytest.approx(expected, abs=5e-4)


@pytest.mark.slow
def test_the_shared_ridge_of_all_channels():
    assert ridge_errors(96, "M") == pytest.approx((0.3696, 0.3913), abs=5e-4)


# What cannot be


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"passes": 0}, "task.module.passes is 0"),
        ({"mc_chunk": 0}, "task.module.mc_chunk is 0"),
        ({"length_scale": -1.0}, "task.module.length_scale is -1"),
        ({"calibration": "all"}, "task.module.calibration is 'all'"),
    ],
)
def test_numbers_that_cannot_be_are_said(how, said):
    with pytest.raises(UsageError, match=said):
        Forecasting(NLinear(waves().spec), None, None, **how)


def test_members_that_do_not_belong_together_are_refused(run, other, tmp_path):
    words = [*SMALL, "stages=[ensemble]"]
    with pytest.raises(UsageError, match=r"needs runs to put together"):
        run_here([*words, f"members=[{run}]"], tmp_path / "one")
    with pytest.raises(UsageError, match=r"has no predictions\.npz"):
        run_here([*words, f"members=[{run},{tmp_path}]"], tmp_path / "two")
    np.savez(tmp_path / "predictions.npz", label=np.arange(3))
    with pytest.raises(UsageError, match=r"no run of task=forecasting"):
        run_here([*words, f"members=[{run},{tmp_path}]"], tmp_path / "three")
    kept = dict(np.load(other / "predictions.npz"))
    np.savez(tmp_path / "predictions.npz", **{**kept, "target": kept["target"] + 1})
    with pytest.raises(UsageError, match=r"forecast different values"):
        run_here([*words, f"members=[{run},{tmp_path}]"], tmp_path / "four")
    with pytest.raises(UsageError, match=r"another horizon"):
        run_here([*words, f"members=[{run},{other}]", "data.horizon=4"], tmp_path / "five")


@pytest.mark.parametrize("word", ["data.window=31", "data.horizon=4"])
def test_a_checkpoint_of_another_window_or_horizon_is_refused(run, tmp_path, word):
    with pytest.raises(UsageError, match=r"was trained on a series of 1 channel \(y\), 30 steps seen, 3 of y forecast"):
        run_here([*SMALL, word, "stages=[test]", f"ckpt_path={run}"], tmp_path)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["data.horizon=192"], {0.071, 0.069, 0.114, 0.217}),
        (["data.horizon=48"], set()),
        (["data.horizon=192", "data.features=M"], set()),
        (["data.horizon=192", "data.split=random"], set()),
    ],
)
def test_published_figures_stand_beside_their_horizon_and_split(words, shown):
    config = compose_config(["experiment=forecast_ett_96", *words])
    assert {entry.figures.mse for entry in config.published if beside(entry.ours, config)} == shown
    assert beside(None, config)
