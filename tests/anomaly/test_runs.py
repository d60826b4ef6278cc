"""A run's figures and report, the page that compares runs, and every wrong setting."""

from __future__ import annotations

import json
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from sklearn.metrics import average_precision_score, roc_auc_score

from datamodules.errors import UsageError
from datamodules.images import kvasir
from datamodules.images.one_class import DigitsOneClass
from datamodules.spec import ImageSpec
from lightning_modules.anomaly import VAE, AnomalyDetection
from lightning_modules.anomaly.comparison import mean_and_range, score_table
from lightning_modules.anomaly.explore import linear, spherical
from lightning_modules.anomaly.judging import quantile_threshold
from lightning_modules.anomaly.maps import averaged
from reporting.compare import main as compare
from reporting.folder import read_run
from reporting.load import load_run
from reporting.predictions import read_predictions, write_predictions
from reporting.report import ComparedRun
from reporting.summary.page import write_summary
from tests.conftest import run_here
from tests.datamodules.images.test_one_class import save_pictures

SMALL = ["task=anomaly", "model.hidden=16", "model.latent=3", "task.module.iwae_samples=4", "trainer.max_epochs=3"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    figures = "{source: a book, name: theirs, data: digits_one_class, split: test, metric: auc_roc, figures: {8: 0.9}}"
    run_here([*SMALL, "task.module.likelihood=bernoulli", f"published=[{figures}]"], folder)
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("other")
    words = ["task.module.likelihood=discretised", "task.module.threshold=youden_val", "task.module.beta=0.5"]
    run_here([*SMALL, *words, "data.normal=[0,1]", "data.contrast=per_image", "task.module.beta_warmup=0.5"], folder)
    return folder


def test_figures_agree_with_the_predictions(run):
    metrics, kept = json.loads((run / "metrics.json").read_text()), read_predictions(run)
    anomalous = kept["label"] != 8
    np.testing.assert_array_equal(kept["anomalous"], anomalous)
    assert metrics["test/prevalence"] == pytest.approx(anomalous.mean()) and len(anomalous) == 360
    for name, scores in kept.items():
        if name.startswith(("score_", "baseline_")):
            own = metrics[f"test/auc_roc_{name.partition('_')[2]}"]
            assert own == pytest.approx(roc_auc_score(anomalous, scores)), name
    chosen = kept["score_mse"]
    assert metrics["test/auc_roc"] == metrics["test/auc_roc_mse"]
    assert metrics["test/auc_pr"] == pytest.approx(average_precision_score(anomalous, chosen))
    assert metrics["test/auc_pr_normal"] == pytest.approx(average_precision_score(~anomalous, -chosen))
    called = chosen > metrics["test/threshold"]
    assert metrics["test/sensitivity"] == pytest.approx(called[anomalous].mean())
    assert metrics["test/specificity"] == pytest.approx(1 - called[~anomalous].mean())
    assert metrics["test/nats_per_image"] == pytest.approx(kept["score_elbo"][~anomalous].mean())
    assert metrics["test/iwae"] == pytest.approx(kept["score_iwae"][~anomalous].mean())
    assert metrics["test/psnr"] == pytest.approx(kept["psnr"][~anomalous].mean(), rel=1e-5)
    assert metrics["test/psnr_anomalies"] == pytest.approx(kept["psnr"][anomalous].mean(), rel=1e-5)
    assert metrics["test/kl"] == pytest.approx(kept["kl_per_latent"].sum(), rel=1e-5)
    assert metrics["test/active_units"] == (kept["mean"][~anomalous].var(0, ddof=1) > 0.01).sum()
    assert "test/bits_per_dim" not in metrics and "test/sigma" not in metrics


def test_the_threshold_is_validations(run):
    network, _, config = load_run(run)
    data = DigitsOneClass(normal=8, val_items=config.data.val_items)
    data.prepare_data()
    images = torch.from_numpy(data.splits["val"].images)
    with torch.no_grad():
        errors = (images / 16 - network(images)[0].sigmoid()).square().sum((1, 2, 3)).numpy()
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["test/threshold"] == pytest.approx(quantile_threshold(errors, 0.95), rel=1e-5)


def test_a_discretised_likelihood_has_bits(other):
    metrics = json.loads((other / "metrics.json").read_text())
    kept = read_predictions(other)
    normal = np.isin(kept["label"], [0, 1])
    assert metrics["test/bits_per_dim"] == pytest.approx(kept["score_iwae"][normal].mean() / 64 / np.log(2))
    assert "test/auc_roc_complexity_corrected" in metrics and "test/auc_roc_excess" not in metrics
    assert 0 < metrics["test/sigma"] < 1
    assert "largest on validation images" in (other / "report.md").read_text()


def test_the_report_shows_every_part(run):
    text = (run / "report.md").read_text()
    titles = ["Scores", "Threshold", "Does the score see the anomaly or the grey?", "Likelihood and reconstruction"]
    titles += ["The most and the least anomalous", "Where the images lie", "KL of each latent", "What each latent does"]
    for title in [*titles, "From one image to another", "Samples from the prior", "Curves"]:
        assert f"## {title}\n" in text
    assert "**The network loses to the residual of PCA with 32 components**, fixed beforehand" in text
    assert "| theirs | 8 | 0.9000 | a book |" in text
    names = ("scores", "threshold", "extremes", "latents", "kl", "traversals", "interpolations", "samples")
    assert all((run / f"figures/{name}.png").exists() for name in names)


def test_average_precision_has_its_interval(run):
    one = r"([\d.]+) \(([\d.]+) … ([\d.]+)\)"
    words = f"Average precision {one}, with the normal images as positives {one}"
    said = re.search(words, (run / "report.md").read_text())
    found, metrics = [float(text) for text in said.groups()], json.loads((run / "metrics.json").read_text())
    for name, (value, low, high) in (("auc_pr", found[:3]), ("auc_pr_normal", found[3:])):
        assert low < value < high and value == pytest.approx(metrics[f"test/{name}"], abs=1e-4)


def test_a_sweep_over_normal_classes_shows_their_scores_and_ranks_nothing(run, tmp_path):
    shutil.copytree(run, tmp_path / "0")
    shutil.copytree(run, tmp_path / "1")
    for number, normal in enumerate((8, 3)):
        config = OmegaConf.load(tmp_path / f"{number}/config.yaml")
        config.data.normal, config.task.ranked = normal, False
        OmegaConf.save(config, tmp_path / f"{number}/config.yaml")
    kept = read_predictions(run)
    write_predictions(tmp_path / "1", {**kept, "normal_names": np.array(["3"])})
    write_summary([tmp_path], tmp_path)
    text = (tmp_path / "summary.md").read_text()
    area = f"{json.loads((run / 'metrics.json').read_text())['test/auc_roc_mse']:.4f}"
    assert "| score | normal 8 | normal 3 | mean |" in text and f"| **mse** | {area} | {area} | **{area}** |" in text
    assert "| *published* |" in text and "ranks nothing" in text
    assert "Best val" not in text and "ranking.png" not in text and "Larger than the noise" not in text
    (tmp_path / "1/predictions.npz").write_bytes(b"cut")
    write_summary([tmp_path], tmp_path)
    assert "Area under the ROC curve" not in (tmp_path / "summary.md").read_text()
    for number, (beta, seed) in enumerate(((1.0, 1), (1.0, 2), (2.0, 1), (2.0, 2))):
        shutil.copytree(run, tmp_path / str(number), dirs_exist_ok=True)
        config = OmegaConf.load(tmp_path / f"{number}/config.yaml")
        config.task.module.beta, config.seed = beta, seed
        OmegaConf.save(config, tmp_path / f"{number}/config.yaml")
    write_summary([tmp_path], tmp_path)
    text = (tmp_path / "summary.md").read_text()
    assert "| score | beta 1 | beta 2 |\n" in text and f"| **mse** | {area} | {area} |" in text
    assert mean_and_range([0.5, 0.75]) == "0.6250 (0.5000 … 0.7500)" and not mean_and_range([0.5, np.nan])


def test_runs_are_compared_score_by_score(run, other, tmp_path):
    compare([str(run), str(other), "--output", str(tmp_path / "page.html")])
    text = (tmp_path / "page.html").read_text()
    assert "normal 8, beta 1, likelihood bernoulli" in text and "normal 0, 1, beta 0.5" in text
    assert "Rate and distortion" in text and "theirs (a book)" in text


def test_runs_of_one_setting_have_a_mean(run, tmp_path):
    config, metrics = read_run(run)
    first = ComparedRun("a", run, config, metrics, read_predictions(run))
    second = first._replace(config=config.copy(), predictions={**first.predictions, "normal_names": np.array(["3"])})
    table = score_table([first, second])
    area = metrics["test/auc_roc_mse"]
    assert (
        f"| **mse** | {area:.4f} | {area:.4f} | **{area:.4f}** |" in table and "| normal 8 | normal 3 | mean |" in table
    )
    assert "| theirs (a book) | 0.9000 |  |  |" in table
    second.config.task.module.beta = 2.0
    assert f"| **mse** | {area:.4f} | {area:.4f} |\n" in score_table([first, second])


def test_one_side_alone_has_no_areas(caplog):
    spec = ImageSpec(1, 4, 4, 17)
    module = AnomalyDetection(VAE(spec, latent=2, hidden=4), None, None)
    module.find_threshold = lambda: 1.0
    module._trainer = type("Trainer", (), {"datamodule": type("Data", (), {"normal_names": ["0"]})})
    rows = {"anomalous": torch.tensor([False, False]), "mean": torch.randn(2, 2), "psnr": torch.ones(2)}
    found = module.figures("test", {}, {**rows, "score_mse": torch.ones(2)})
    assert (
        found.keys() == {"normal_names", "sigma", "active_units", "threshold"}
        and "no anomaly among the test images" in caplog.text
    )
    found = module.figures("test", {}, {**rows, "anomalous": torch.tensor([True, True]), "score_mse": torch.ones(2)})
    assert found.keys() == {"normal_names", "sigma", "threshold", "psnr_anomalies"}


def test_beta_grows_in_training_alone():
    spec = ImageSpec(1, 4, 4, 17)
    module = AnomalyDetection(VAE(spec, latent=2, hidden=4), None, None, beta=3.0, beta_warmup=0.5)
    images = torch.randint(0, 17, (5, 1, 4, 4), dtype=torch.uint8)
    batch = images, torch.zeros(5)
    for done, share in ((0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (1.0, 1.0)):
        type(module).part_done = property(lambda self, done=done: done)
        try:
            measured = module.measure(batch, "train")
        finally:
            del type(module).part_done
        values = measured.values
        expected = (values["reconstruction"] + 3 * share * values["kl"]).mean()
        torch.testing.assert_close(measured.loss, expected)
        torch.testing.assert_close(values["loss"], values["reconstruction"] + 3 * values["kl"])
    first, second = (module.measure(batch, "val").loss for _ in range(2))
    assert first == second, "validation draws the same noise"


def test_ways_between_two_latents():
    first, last = torch.randn(3, 5), torch.randn(3, 5)
    for way in (linear, spherical):
        points = way(first, last, 7)
        torch.testing.assert_close(points[:, 0], first)
        torch.testing.assert_close(points[:, -1], last)
    unit = torch.nn.functional.normalize(first), torch.nn.functional.normalize(last)
    torch.testing.assert_close(spherical(*unit, 9).norm(dim=2), torch.ones(3, 9))
    torch.testing.assert_close(spherical(first, 2 * first, 3), linear(first, 2 * first, 3))


# Maps


def test_patches_are_put_back():
    errors = np.arange(2 * 2 * 2).reshape(2, 2, 2).astype(float)
    found = averaged(errors, [(0, 0), (0, 1)], (2, 4))
    np.testing.assert_allclose(found, [[0, (1 + 4) / 2, 5, 0], [2, (3 + 6) / 2, 7, 0]])


def test_the_held_out_picture_is_mapped(tmp_path, monkeypatch):
    save_pictures(tmp_path / "kvasir_seg")
    monkeypatch.setattr(kvasir, "ITEMS", {"train": 64, "val": 20})
    words = [f"paths.data={tmp_path}", "debug=quick", "model.hidden=8", "model.latent=2"]
    run_here(["experiment=anomaly_kvasir_demo", *words, "stages=[fit,map,report]"], tmp_path / "run")
    metrics, text = (tmp_path / "run/metrics.json").read_text(), (tmp_path / "run/report.md").read_text()
    assert all(f"map/auc_{name}" in metrics for name in ("error", "saturation", "variance"))
    assert "an illustration, no result" in text and (tmp_path / "run/figures/map.png").exists()


# What cannot be

WRONG = {
    "task.module.beta=-1": r"beta is -1, but it must be 0 or more",
    "task.module.beta_warmup=2": r"beta_warmup is 2, but a part",
    "task.module.quantile=1": r"quantile is 1, but it must lie between 0 and 1",
    "task.module.quantile=0": r"quantile is 0, but",
    "task.module.iwae_samples=0": r"iwae_samples is 0, but",
    "task.module.score=msee": r"score is 'msee' \(did you mean 'mse'\?\)",
    "task.module.score=complexity_corrected": r"with task\.module\.likelihood=gaussian choose one of mse",
    "task.module.threshold=youden": r"threshold is 'youden' \(did you mean 'youden_val'\?\)",
    "task.module.sigma=0": r"sigma is 0, but it must be a number from",
    "task.module.likelihood=normal": r"likelihood is 'normal': choose one of bernoulli",
    "model.latent=0": r"model\.latent is 0, but it must be a whole number, 1 or more",
    "data.normal=12": r"data\.normal is 12.*, but the classes are 0, 1",
    "data=digits": r"data=digits does not say what is normal: .*data=digits_one_class",
    "stages=[fit,map]": r"stages=\[map\] needs one large picture",
}


@pytest.mark.parametrize("word", WRONG)
def test_a_wrong_setting_is_a_sentence_before_anything_is_trained(word, tmp_path):
    with pytest.raises(UsageError, match=WRONG[word]) as error:
        run_here([*SMALL, word], tmp_path)
    assert "\n" not in str(error.value) and not (tmp_path / "checkpoints").exists()


def test_a_threshold_by_anomalies_needs_them():
    module = AnomalyDetection(VAE(ImageSpec(1, 4, 4, 17)), None, None, threshold="youden_val")
    data = type("Data", (), {"normal_labels": [0], "splits": {}})()
    choices = type("Config", (), {"choices": type("C", (), {"data": "own"}), "stages": ["fit"]})
    with pytest.raises(UsageError, match=r"needs anomalies among the validation images, of which data=own has none"):
        module.check_stages(type("Run", (), {"datamodule": data, "config": choices}))


def test_a_learned_sigma_is_trained_and_kept():
    make = partial(AnomalyDetection, VAE(ImageSpec(1, 4, 4, 17)), torch.optim.Adam, None, likelihood="gaussian")
    assert "likelihood.log_sigma" in make().state_dict() and make().likelihood.log_sigma.requires_grad
    assert not make(sigma=0.3).likelihood.log_sigma.requires_grad
    assert make(sigma=0.3).likelihood.sigma.item() == pytest.approx(0.3)
