"""The task's part of a run's report."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from lightning_modules.forecasting import figures
from lightning_modules.forecasting.baselines import ridge
from lightning_modules.forecasting.lags import attention_by_lag, occlusion_by_lag, rank_correlation
from lightning_modules.forecasting.recurrent import Recurrent
from lightning_modules.forecasting.scores import LEVELS
from reporting.predictions import read_predictions
from reporting.report import Section

COLUMNS = {"mse": "MSE", "mae": "MAE", "r2": "R²", "crps": "CRPS", "nll": "nll", "coverage_90": "90 % covers",
           "width_90": "width"}  # fmt: skip
TITLES = {"mse": "MSE", "r2": "R², about the lead's own mean", "crps": "CRPS",
          "coverage_90": "coverage of 90 % intervals", "width_90": "width of 90 % intervals"}  # fmt: skip
OWN = ("network", "split", "rolling")
CALIBRATED = (*OWN, "ridge", "ridge_rolling", "oracle")  # those whose calibration is drawn
WEEK = 168  # windows


def report_sections(module: Any, run: Any) -> list[Section]:
    """Everything the run's stages left material for."""
    sections = []
    if "test/mse" in run.metrics:
        sections.append(Section("Forecasts", f"{table(run)}\n\n{how(module, run)}"))
    if (run.folder / "predictions.npz").exists():
        kept = read_predictions(run.folder)
        methods = [str(name) for name in kept["methods"]]
        sections.append(intervals_section(run, methods))
        sections += [*horizon_sections(run, kept, methods), calibration_section(run, kept, methods)]
        sections += [drift_section(run, kept, methods), fan_section(module, run, kept)]
        if module.passes > 1:
            sections.append(paths_section(module, run, kept))
    if "test/mse" in run.metrics and isinstance(module.network, Recurrent) and module.network.pooling == "attention":
        sections.append(lags_section(module, run))
    if "stress/clean_0/network_mse" in run.metrics:
        sections.append(stress_section(run))
    if "ensemble/mse" in run.metrics:
        sections.append(Section("Ensemble", ensemble_table(run)))
    return sections


def row_of(name: str, metrics: dict[str, float], prefix: str, keys: Any) -> str:
    cells = [cell(key, metrics.get(f"{prefix}{key}")) for key in keys]
    return f"| {name} | {' | '.join(cells)} |"


def cell(key: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1%}" if key.startswith("coverage") else f"{value:.4f}"


def table(run: Any) -> str:
    """Markdown: the network, every baseline on the same windows, what others published."""
    lines = [f"| {run.datamodule.horizon} steps ahead | {' | '.join(COLUMNS.values())} | |"]
    lines.append(f"|---|{'---:|' * len(COLUMNS)}---|")
    for name, shown in figures.NAMES.items():
        prefix = "test/" if name == "network" else f"test/{name}/"
        if f"{prefix}mse" in run.metrics:
            shown = f"**{run.config.choices.model}{shown.removeprefix('network')}**" if name in OWN else shown
            lines.append(f"{row_of(shown, run.metrics, prefix, COLUMNS)} {'this run' if name in OWN else ''} |")
    for entry in run.config.published:
        if entry.data == run.config.choices.data and beside(entry.get("ours"), run.config):
            cells = [cell(key, entry.figures.get(key)) for key in COLUMNS]
            lines.append(f"| {entry.get('name', '')} | {' | '.join(cells)} | {entry.source} |")
    return "\n".join(lines)


def beside(words: str | None, config: Any) -> bool:
    """Is a published figure of this horizon, these features and this split?"""
    said = dict(word.split("=", 1) for word in (words or "").split())
    return all(str(OmegaConf.select(config, key)) == value for key, value in said.items())


def how(module: Any, run: Any) -> str:
    """What the figures are of."""
    data, network = run.datamodule, module.network
    text = (
        f"Scaled units; nats per value; widths of 90 % intervals. The data: {data.note}. R² is about the test targets' "
        "own mean. Baselines have the variance of their validation errors, of each lead."
    )
    if "test/mae_in_units" in run.metrics:
        text += f" In the target's own units the MAE is {run.metrics['test/mae_in_units']:.3f}."
    if module.passes > 1:
        text += (
            f" The network is the mixture of {module.passes} passes with dropout ({network.kind}, p = {network.p:g})."
        )
        if network.skip is not None:
            text += " No mask is on the linear skip: `epistemic` is of the recurrent part alone."
    else:
        text += " One pass, nothing dropped: epistemic variance is 0."
    if module.drops and module.length_scale is not None:
        weights, biases = module.decay(data)
        values = len(data.origins("train")) * data.horizon * len(data.spec.target)
        text += (
            f" Its prior's length scale {module.length_scale:g} makes λ = {weights:.2e} for weights and {biases:.2e} "
            f"for biases, with N = {values:,} values, which are not independent: windows overlap."
        )
    return text


def intervals_section(run: Any, methods: list[str]) -> Section:
    """Coverage and widths at all levels, raw and calibrated."""
    names = [f"{level * 100:g}" for level in LEVELS]
    keys = [f"{kind}_{name}" for name in names for kind in ("coverage", "width")]
    head = " | ".join(f"{name} % covers | width" for name in names)
    lines = [f"| | {head} | CRPS | nll | pinball |", f"|---|{'---:|' * (len(keys) + 3)}"]
    for name in (name for name in OWN if name in methods):
        prefix = "test/" if name == "network" else f"test/{name}/"
        lines.append(row_of(figures.NAMES[name], run.metrics, prefix, [*keys, "crps", "nll", "pinball"]))
    known = run.config.task.module.calibration_window
    said = {
        "split": "`split` scales by the errors on validation windows, which also chose the checkpoint: approximate.",
        "rolling": f"`rolling` scales by the latest {known} errors of each lead that are known at a forecast's origin.",
    }
    parts = [sentence for name, sentence in said.items() if name in methods]
    if parts:
        parts.append("There is no guarantee here: windows overlap, and the series drifts.")
    text = "\n".join(lines) + "\n\n" + " ".join(parts)
    if run.metrics.get("test/epistemic"):
        epistemic, aleatoric = run.metrics["test/epistemic"], run.metrics["test/aleatoric"]
        text += f" Of the raw variance {epistemic / (epistemic + aleatoric):.1%} is epistemic ({epistemic:.2e})."
    if any(np.isinf(run.metrics.get(f"test/{name}/width_{level}", 0)) for name in OWN for level in names):
        text += " An infinite width: too few errors are known for that level."
    return Section("Intervals, raw and calibrated", text)


def horizon_sections(run: Any, kept: dict[str, np.ndarray], methods: list[str]) -> list[Section]:
    """R² and errors against the horizon; coverage and width by lead."""
    plain = [n for n, name in enumerate(methods) if name not in ("split", "rolling", "ridge_rolling")]
    curves = {name: kept[f"lead_{name}"][plain] for name in ("r2", "mse")}
    folder = run.folder / "figures"
    figures.save_by_lead(folder / "horizon.png", [methods[n] for n in plain], curves, TITLES)
    shown = [n for n, name in enumerate(methods) if name in CALIBRATED]
    spread = {name: kept[f"lead_{name}"][shown] for name in ("coverage_90", "width_90")}
    figures.save_by_lead(folder / "intervals.png", [methods[n] for n in shown], spread, TITLES)
    leads = sorted({1, *(lead for lead in (4, 24, 96) if lead < kept["lead_r2"].shape[1]), kept["lead_r2"].shape[1]})
    own, last = (kept["lead_r2"][methods.index(name)] for name in ("network", "last"))
    said = ", ".join(f"{own[lead - 1]:.3f} at {lead} ({last[lead - 1]:.3f})" for lead in leads)
    text = f"An R² says nothing without its horizon. The network's, and in brackets the last value's: {said}."
    return [
        Section("R² against the horizon", text, "figures/horizon.png"),
        Section("Coverage by lead", "Pooled coverage may hide leads that are too sure.", "figures/intervals.png"),
    ]


def calibration_section(run: Any, kept: dict[str, np.ndarray], methods: list[str]) -> Section:
    coverage = {name: kept["coverage"][n] for n, name in enumerate(methods) if name in CALIBRATED}
    pit = {name: kept["pit"][n] for n, name in enumerate(methods) if name in OWN}
    figures.save_calibration(run.folder / "figures" / "calibration.png", LEVELS, coverage, pit)
    text = "Above the diagonal intervals are too wide; a hump in the middle of the histogram says the same."
    return Section("Calibration", text, "figures/calibration.png")


def drift_section(run: Any, kept: dict[str, np.ndarray], methods: list[str]) -> Section:
    """Coverage and width along the test part."""
    shown = [n for n, name in enumerate(methods) if name in OWN or name.startswith("oracle")]
    windows = kept["coverage_at"].shape[1]
    edges = np.arange(windows // WEEK or 1) * WEEK  # what is left over belongs to the last
    weeks = [np.stack([part.mean(1) for part in np.split(kept[key][shown], edges[1:], 1)], 1)
             for key in ("coverage_at", "width_at")]  # fmt: skip
    figures.save_weeks(run.folder / "figures" / "drift.png", [methods[n] for n in shown], *weeks, WEEK)
    return Section("Along the test part", "Is the coverage the same throughout?", "figures/drift.png")


def fan_section(module: Any, run: Any, kept: dict[str, np.ndarray]) -> Section:
    """Four forecasts: an easy one, a median one, a hard one and the worst, by CRPS."""
    data, scaling = run.datamodule, module.scaling
    order = np.argsort(kept["window_crps"])
    chosen = {"easy (a tenth are easier)": 0.1, "median": 0.5, "hard (a tenth are harder)": 0.9, "the worst": 1.0}
    column, mean, scale = data.spec.target[0], scaling.mean[0], scaling.scale[0]
    fans = []
    for name, share in chosen.items():
        place = order[round(share * (len(order) - 1))]
        origin = kept["origin"][place]
        seen = data.series.values[origin - min(data.window, 3 * data.horizon) + 1 : origin + 1, column]
        epistemic = kept["variance_epistemic"][place, :, 0] * scale**2
        total = kept["variance"][place, :, 0] * scale**2
        parts = kept["target"][place, :, 0] * scale + mean, kept["mean"][place, :, 0] * scale + mean
        fans.append(
            figures.Fan(f"{name}, CRPS {kept['window_crps'][place]:.3f}", seen, *parts, epistemic, total - epistemic)
        )
    figures.save_fans(run.folder / "figures" / "fans.png", fans, data.spec.targets[0])
    text = "Windows of the test part, by their CRPS; raw intervals, in the target's own units."
    return Section("Four forecasts", text, "figures/fans.png")


def paths_section(module: Any, run: Any, kept: dict[str, np.ndarray]) -> Section:
    """The passes as functions: each keeps its mask along all windows."""
    paths = kept["paths"] * module.scaling.scale[0] + module.scaling.mean[0]
    came = kept["target"][: paths.shape[1], 0, 0] * module.scaling.scale[0] + module.scaling.mean[0]
    path = run.folder / "figures" / "passes.png"
    figures.save_paths(path, kept["origin"][: paths.shape[1]], paths, came, run.datamodule.spec.targets[0])
    text = "With one mask for all windows a pass is one function: how far the functions lie apart is what is epistemic."
    return Section("The passes", text, "figures/passes.png")


def lags_section(module: Any, run: Any) -> Section:
    """Attention beside what the ridge weighs, and what hiding a lag does to the forecast."""
    attention = attention_by_lag(module, run.datamodule)
    weights = np.abs(ridge(run.datamodule, module.scaling)[1]).mean(1)
    occlusion = occlusion_by_lag(module, run.datamodule)
    lags = np.arange(len(weights) - 1, -1, -1)
    beside = {
        "ridge: mean size of its weights": weights,
        "occlusion: how far hiding the step moves the mean": occlusion,
    }
    figures.save_lags(run.folder / "figures" / "lags.png", lags, attention, beside)
    with_ridge, with_occlusion = (rank_correlation(attention.mean(0), other) for other in (weights, occlusion))
    text = (
        "Attention is not importance. Its rank correlation over lags with the size of the ridge's weights is "
        f"{with_ridge:.2f}, with occlusion {with_occlusion:.2f}."
    )
    return Section("What the attention looks at", text, "figures/lags.png")


def stress_section(run: Any) -> Section:
    """Curves of missing values and outliers, and whether the network is robust."""
    found: dict[str, dict[str, dict[int, list[float]]]] = {}
    for name in run.metrics:
        if said := re.fullmatch(r"stress/([a-z]+)_(\d+)/(\w+)_mse", name):
            kind, percent, method = said[1], int(said[2]), said[3]
            pair = [run.metrics[name], run.metrics[f"{name.removesuffix('mse')}coverage_90"]]
            found.setdefault(kind, {}).setdefault(method, {})[percent] = pair
    clean = found.pop("clean")
    curves = {}
    for kind, methods in ((kind, found[kind]) for kind in figures.STRESSES):
        curves[kind] = {}
        for method, points in methods.items():
            points = {0: clean[method][0], **points} if method in clean else points
            percents = sorted(points)
            curves[kind][method] = (percents, *([points[p][n] for p in percents] for n in range(2)))
    figures.save_stress(run.folder / "figures" / "stress.png", curves)
    before, after = (run.metrics[f"stress/{name}/network_mse"] for name in ("clean_0", "scattered_30"))
    verdict = "robust" if run.metrics["stress/robust"] else "not robust"
    text = (
        "Spoiled inputs, clean targets, the same windows for all; others than the network have missing values filled "
        f"forward. With 30 % missing the network's MSE is {after / before:.2f} times the clean one: it is {verdict} "
        "(at most 1.25 times, and at most 3 points less coverage). Trained with "
        f"data.missing={run.config.data.missing:g}."
    )
    if hits := hit_table(run):
        text += f"\n\nOutliers, by whether the last value of the window is one:\n\n{hits}"
    return Section("Missing values and outliers", text, "figures/stress.png")


def hit_table(run: Any) -> str:
    lines = ["| outliers | network | MSE, last value hit | MSE, others |", "|---|---|---:|---:|"]
    for name in sorted(run.metrics, key=lambda name: [int(n) for n in re.findall(r"\d+", name)]):
        if said := re.fullmatch(r"stress/outliers_(\d+)/(network\w*)_mse_missed", name):
            hit = run.metrics.get(f"{name.removesuffix('missed')}hit")
            method = said[2].replace("network_", "centred by ") if "_" in said[2] else "as trained"
            lines.append(
                f"| {said[1]} % | {method} | {'' if hit is None else f'{hit:.4f}'} | {run.metrics[name]:.4f} |"
            )
    return "\n".join(lines) if len(lines) > 2 else ""


def ensemble_table(run: Any) -> str:
    lines = [f"| {run.metrics['ensemble/members']} runs as one | {' | '.join(COLUMNS.values())} |"]
    lines.append(f"|---|{'---:|' * len(COLUMNS)}")
    for name in OWN:
        prefix = "ensemble/" if name == "network" else f"ensemble/{name}/"
        if f"{prefix}mse" in run.metrics:
            lines.append(row_of(figures.NAMES[name].replace("network", "ensemble"), run.metrics, prefix, COLUMNS))
    return "\n".join(lines)
