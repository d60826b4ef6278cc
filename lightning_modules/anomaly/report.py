"""The task's part of a run's report."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from sklearn.metrics import average_precision_score

from lightning_modules.anomaly.baselines import HEADLINE, in_words
from lightning_modules.anomaly.explore import FILE
from lightning_modules.anomaly.figures import (
    save_extremes,
    save_histogram,
    save_kl,
    save_latents,
    save_rows,
    save_score_curves,
)
from lightning_modules.anomaly.judging import BINS, areas, at_threshold, auc_within, correlation
from lightning_modules.anomaly.likelihoods import Likelihood
from lightning_modules.anomaly.maps import FILE as MAP
from lightning_modules.anomaly.maps import map_section
from lightning_modules.anomaly.scores import SCORES
from lightning_modules.anomaly.vae import VAE
from reporting.intervals import Interval, bootstrap, delong, delong_difference
from reporting.predictions import read_predictions
from reporting.report import Section

SHOWN = 5  # images of each kind
RESAMPLES = 500  # of the intervals of average precision, which takes a millisecond or more each time


def report_sections(network: VAE, likelihood: Likelihood, run: Any) -> list[Section]:
    """Every score and baseline, the threshold, what the score sees, the likelihood, extreme images, latents, draws."""
    sections = []
    if (run.folder / "predictions.npz").exists():
        predictions = read_predictions(run.folder)
        sections += scored_sections(predictions, run)
        sections.append(likelihood_section(likelihood, run))
        sections.append(extremes_section(network, likelihood, predictions, run))
        sections += latent_sections(predictions, run)
    if (run.folder / MAP).exists():
        sections.append(map_section(run))
    if (run.folder / FILE).exists():
        with np.load(run.folder / FILE) as found:
            sections += explored_sections(dict(found), run)
    return sections


def scores_in(predictions: dict[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    """The scores of a kind, `score` or `baseline`, by their names."""
    return {name.partition("_")[2]: kept for name, kept in predictions.items() if name.startswith(f"{kind}_")}


def scored_sections(predictions: dict[str, np.ndarray], run: Any) -> list[Section]:
    """What every score is worth; nothing but a sentence where the test images are all of one side."""
    anomalous, chosen = predictions["anomalous"], run.config.task.module.score
    own, without = scores_in(predictions, "score"), scores_in(predictions, "baseline")
    if anomalous.all() or not anomalous.any():
        side = "an anomaly" if anomalous.all() else "normal"
        return [Section("Scores", f"Every test image is {side}: areas under curves are not defined.")]
    found = {name: delong(anomalous, scores) for name, scores in (own | without).items()}
    figures = run.folder / "figures"
    plain_areas = {name: interval.value for name, interval in found.items()}
    save_score_curves(figures / "scores.png", anomalous, own, without, plain_areas, chosen)
    threshold = run.metrics["test/threshold"]
    save_histogram(figures / "threshold.png", anomalous, own[chosen], threshold, chosen)
    text = f"{verdict(predictions, found, run)}\n\n{score_table(predictions, found, run)}"
    return [
        Section("Scores", text, "figures/scores.png"),
        Section("Threshold", threshold_text(anomalous, own[chosen], run), "figures/threshold.png"),
        Section("Does the score see the anomaly or the grey?", shortcut_text(predictions, run)),
    ]


def verdict(predictions: dict[str, np.ndarray], found: dict[str, Interval], run: Any) -> str:
    """Whether the network is worth its while, in plain sentences."""
    anomalous, chosen = predictions["anomalous"], run.config.task.module.score
    own, without = scores_in(predictions, "score"), scores_in(predictions, "baseline")
    normal = ", ".join(run.datamodule.normal_names)
    lines = [
        f"Normal: {normal}. {(~anomalous).sum():,} normal test images, {anomalous.sum():,} anomalies. The score that "
        f"decides, `{chosen}`, was fixed beforehand: area under the ROC curve **{found[chosen]}**."
    ]
    ap = (bootstrap(average_precision_score, labels, scores, classes=labels, resamples=RESAMPLES)
          for labels, scores in ((anomalous, own[chosen]), (~anomalous, -own[chosen])))  # fmt: skip
    lines.append("Average precision {}, with the normal images as positives {}.".format(*ap))
    if "excess" in own:
        lines.append(
            f"The same network's `reconstruction` has {found['reconstruction'].value:.4f} and its `excess`, the same "
            f"less the image's own grey entropy, {found['excess'].value:.4f}: plain Bernoulli scores have that entropy "
            "in them, which is no fault of the reconstruction."
        )
    rival = HEADLINE if HEADLINE in without else next((name for name in without if name.startswith("pca")), None)
    for name, why in ((rival, "fixed beforehand"), (max(without, key=lambda n: found[n].value), "the best baseline")):
        if name is None or (name == rival and why == "the best baseline"):
            continue
        gap = delong_difference(anomalous, own[chosen], without[name])
        sure = "" if not gap.p < 0.05 else f" (p = {gap.p:.2g})"
        if gap.value == 0:
            lines.append(f"It equals {in_words(name)}, {why}.")
            continue
        if gap.value > 0:
            said = f"The network is better than {in_words(name)}, {why}, by {gap.value:.4f}{sure}."
        else:
            said = (
                f"**The network loses to {in_words(name)}**, {why}: {found[name].value:.4f}, by {-gap.value:.4f}{sure}."
            )
        lines.append(said + ("" if sure else " The difference is within the noise of these test images."))
    if run.datamodule.note:
        lines.append(f"The data: {run.datamodule.note}.")
    return " ".join(lines)


def score_table(predictions: dict[str, np.ndarray], found: dict[str, Interval], run: Any) -> str:
    """Markdown: each score of the network and each baseline, as areas."""
    anomalous, chosen = predictions["anomalous"], run.config.task.module.score
    own, without = scores_in(predictions, "score"), scores_in(predictions, "baseline")
    rows = ["| score | what it is | AUC, ROC | 95 % interval | AP | AP, normal | within contrast |"]
    rows.append("|---|---|---:|---|---:|---:|---:|")
    for group in (own, without):
        for name, scores in group.items():
            area = areas(anomalous, scores)
            what = SCORES[name] if group is own else in_words(name)
            interval = found[name]
            ends = "not estimable" if math.isnan(interval.low) else f"{interval.low:.4f} … {interval.high:.4f}"
            bold = "**" if name == chosen else ""
            inside = auc_within(anomalous, scores, predictions["contrast"])
            inside = "" if math.isnan(inside) else f"{inside:.4f}"
            rows.append(
                f"| {bold}{name.replace('_', ' ')}{bold} | {what} | {bold}{interval.value:.4f}{bold} | {ends} "
                f"| {area['auc_pr']:.4f} | {area['auc_pr_normal']:.4f} | {inside} |"
            )
        if group is own:
            rows.append("| *without a network* | | | | | | |")
    prevalence = anomalous.mean()
    rows.append(
        f"\nIntervals: DeLong's; those of average precision, above, by {RESAMPLES} bootstrap samples of the images. "
        f"AP: average precision; a score that knows nothing has {prevalence:.3f}, the share of "
        f"anomalies, and {1 - prevalence:.3f} with the normal images as positives. Within contrast: the mean area "
        f"inside {BINS} bins of like contrast. A sign is never turned: an area below 0.5 stays there. PCA's 32 "
        "components are the same for all data; on MNIST they were seen to do well on test images."
    )
    rows += published_rows(run)
    return "\n".join(rows)


def published_rows(run: Any) -> list[str]:
    """Others' figures of this normal class and of this data."""
    names, lines = run.datamodule.normal_names, []
    for entry in run.config.published:
        if entry.data == run.config.choices.data:
            for name, value in entry.figures.items():
                if [str(name)] == names or str(name) == "auc_roc":
                    lines.append(f"| {entry.get('name', '')} | {name} | {value:.4f} | {entry.source} |")
    head = ["", "| published | normal class | AUC, ROC | source |", "|---|---|---:|---|"]
    return [*head, *lines] if lines else []


def threshold_text(anomalous: np.ndarray, scores: np.ndarray, run: Any) -> str:
    """Where the threshold comes from, and what it does on test images."""
    module, threshold = run.config.task.module, run.metrics["test/threshold"]
    val = len(run.datamodule.splits["val"].images)
    if module.threshold == "quantile":
        origin = f"the {module.quantile:g} quantile of {val:,} normal validation images' scores"
    else:
        origin = f"where sensitivity + specificity is largest on validation images, {val:,} of them normal"
    at = at_threshold(anomalous, scores, threshold)
    called = scores > threshold
    rows = ["| test images | called normal | called anomalous |", "|---|---:|---:|"]
    for name, side in (("normal", ~anomalous), ("anomalies", anomalous)):
        rows.append(f"| {name} | {(~called[side]).sum():,} | {called[side].sum():,} |")
    return (
        f"An image is called anomalous if its score is above {threshold:.4g}: {origin}; no test image had a say. "
        f"Sensitivity {at['sensitivity']:.1%}, specificity {at['specificity']:.1%}, balanced accuracy "
        f"{at['balanced_accuracy']:.1%}.\n\n" + "\n".join(rows)
    )


def shortcut_text(predictions: dict[str, np.ndarray], run: Any) -> str:
    """How far each of the network's scores goes with brightness and contrast, and what is left without contrast."""
    anomalous, chosen = predictions["anomalous"], run.config.task.module.score
    rows = ["| score | with brightness | with contrast | AUC | within contrast |", "|---|---:|---:|---:|---:|"]
    for name, scores in scores_in(predictions, "score").items():
        with_both = [correlation(scores, predictions[other]) for other in ("brightness", "contrast")]
        cells = [
            *with_both,
            areas(anomalous, scores)["auc_roc"],
            auc_within(anomalous, scores, predictions["contrast"]),
        ]
        bold = "**" if name == chosen else ""
        shown = " | ".join(f"{cell:.3f}" if not math.isnan(cell) else "" for cell in cells)
        rows.append(f"| {bold}{name.replace('_', ' ')}{bold} | {shown} |")
    note = (
        "Spearman's correlation of each score with the image's mean and standard deviation, over all test images. A "
        "score that falls much within bins of like contrast has told grey from grey; `data.contrast=per_image` takes "
        "both quantities away before training."
    )
    return f"{note}\n\n" + "\n".join(rows)


def likelihood_section(likelihood: Likelihood, run: Any) -> Section:
    """Bounds and reconstructions of the normal test images."""
    metrics, module = run.metrics, run.config.task.module
    wanted = {
        "nats_per_image": "−ELBO, β = 1, nats",
        "iwae": f"−log p by {module.iwae_samples} samples (IWAE), nats",
        "bits_per_dim": "the same, bits per sub-pixel",
        "reconstruction": "distortion, −E log p(x ∣ z), nats",
        "kl": "rate, KL, nats",
        "active_units": f"latents in use, of {run.module.network.latent}",
        "sigma": "σ of the likelihood",
        "psnr": "PSNR, mean over images, dB",
        "psnr_anomalies": "… of the anomalies",
        "ssim": "SSIM",
    }
    rows = ["| normal test images | |", "|---|---:|"]
    for name, words in wanted.items():
        if (value := metrics.get(f"test/{name}")) is not None:
            rows.append(f"| {words} | {value:.0f} |" if name == "active_units" else f"| {words} | {value:.4f} |")
    note = (
        "A likelihood of the levels, comparable in bits per sub-pixel with `task=pixelrnn`."
        if likelihood.discrete
        else "No likelihood of integer levels: these nats compare with runs of the same likelihood only; "
        "`task.module.likelihood=discretised` gives bits per sub-pixel."
    )
    return Section("Likelihood and reconstruction", f"{note} β in training: {module.beta:g}.\n\n" + "\n".join(rows))


def extremes_section(network: VAE, likelihood: Likelihood, predictions: dict[str, np.ndarray], run: Any) -> Section:
    """The most normal and the most anomalous images of each side, with their reconstructions and errors."""
    anomalous, scores = predictions["anomalous"], predictions[f"score_{run.config.task.module.score}"]
    images, names = run.datamodule.splits["test"].images, run.datamodule.class_names
    device, groups = next(network.parameters()).device, {}
    for side, of in ((~anomalous, "normal images"), (anomalous, "anomalies")):
        order = np.flatnonzero(side)[np.argsort(scores[side], kind="stable")]
        for rows, which in ((order[:SHOWN], "least anomalous"), (order[::-1][:SHOWN], "most anomalous")):
            if not len(rows):
                continue
            with torch.no_grad():
                outputs = network(torch.from_numpy(np.array(images[rows])).to(device))[0]
            expected = likelihood.mean(outputs).cpu().numpy()
            x = images[rows] / (run.datamodule.spec.levels - 1)
            captions = [f"{names[predictions['label'][row]]}\n{scores[row]:.4g}" for row in rows]
            groups[f"{which} {of}"] = (x, expected, captions)
    save_extremes(run.folder / "figures" / "extremes.png", groups)
    text = (
        "Over each image its class and score; below it its reconstruction from the posterior's mean, and the error: "
        "red where the image is brighter, blue where it is darker."
    )
    return Section("The most and the least anomalous", text, "figures/extremes.png")


def latent_sections(predictions: dict[str, np.ndarray], run: Any) -> list[Section]:
    """Where the images lie among the latents, and which latents are in use."""
    figures = run.folder / "figures"
    save_latents(figures / "latents.png", predictions["mean"], predictions["anomalous"])
    save_kl(figures / "kl.png", predictions["kl_per_latent"])
    collapsed = int((predictions["kl_per_latent"] < 0.01).sum())
    text = (
        f"The mean over normal test images. {collapsed} of {len(predictions['kl_per_latent'])} latents are below 0.01."
    )
    return [
        Section("Where the images lie", "The test images' posterior means.", "figures/latents.png"),
        Section("KL of each latent", text, "figures/kl.png"),
    ]


def explored_sections(found: dict[str, np.ndarray], run: Any) -> list[Section]:
    """What the stage `explore` has drawn."""
    figures = run.folder / "figures"
    names = [f"latent {latent}" for latent in found["traversed"]]
    title = "from −3 to 3 standard deviations"
    save_rows(figures / "traversals.png", {title: found["traversals"]}, {title: names})
    text = "The mean latents of the training images, one of them moved over its spread; rows by KL, the largest first."
    sections = [Section("What each latent does", text, "figures/traversals.png")]
    if "linear" in found:
        ways = {"straight": found["linear"], "on the arc": found["spherical"]}
        save_rows(figures / "interpolations.png", ways)
        text = "Between the latents of two normal test images."
        sections.append(Section("From one image to another", text, "figures/interpolations.png"))
    side = math.isqrt(len(found["samples"]))
    samples = found["samples"][: side * side].reshape(side, side, *found["samples"].shape[1:])
    save_rows(figures / "samples.png", {"": samples})
    text = "Expected pictures of z drawn from the prior, N(0, 1); no image had a part in them."
    return [*sections, Section("Samples from the prior", text, "figures/samples.png")]
