"""The task's pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

from reporting.figures import save

NAMES = {
    "network": "network, raw",
    "split": "network, split conformal",
    "rolling": "network, rolling conformal",
    "last": "last value",
    "seasonal": "a season ago",
    "climatology": "climatology",
    "ridge": "ridge",
    "ridge_rolling": "ridge, rolling conformal",
    "oracle": "oracle",
    "oracle_unshifted": "oracle that knows of no shift",
}
COLOURS = {
    "network": "tab:blue",
    "split": "tab:cyan",
    "rolling": "tab:purple",
    "last": "tab:gray",
    "seasonal": "tab:olive",
    "climatology": "tab:brown",
    "ridge": "tab:orange",
    "ridge_rolling": "tab:red",
    "oracle": "black",
    "oracle_unshifted": "dimgray",
}
STRESSES = {"scattered": "missing, scattered", "block": "missing, one block", "outliers": "outliers"}
Z = {50: 0.6745, 90: 1.6449}


class Fan(NamedTuple):
    """One forecast in the series' own units: what was seen, what came (H,), the mean, both parts of the variance."""

    title: str
    seen: np.ndarray
    came: np.ndarray
    mean: np.ndarray
    epistemic: np.ndarray
    aleatoric: np.ndarray


def save_fans(path: Path, fans: Sequence[Fan], unit: str) -> None:
    """Forecasts with bands of 50 and 90 %; what the passes' disagreement alone makes of 90 % lies darker inside."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 6.6), squeeze=False)
    for axis, fan in zip(axes.flat, fans, strict=False):
        past, ahead = np.arange(1 - len(fan.seen), 1), np.arange(1, len(fan.came) + 1)
        sigma, passes = np.sqrt(fan.epistemic + fan.aleatoric), np.sqrt(fan.epistemic)
        for level, alpha in ((90, 0.18), (50, 0.3)):
            low, high = fan.mean - Z[level] * sigma, fan.mean + Z[level] * sigma
            axis.fill_between(ahead, low, high, color="tab:blue", alpha=alpha, lw=0, label=f"{level} %")
        low, high = fan.mean - Z[90] * passes, fan.mean + Z[90] * passes
        axis.fill_between(ahead, low, high, color="tab:red", alpha=0.5, lw=0, label="90 %, epistemic alone")
        axis.plot(ahead, fan.mean, color="tab:blue", lw=1.5, label="forecast")
        axis.plot(past, fan.seen, color="black", lw=1)
        axis.plot(ahead, fan.came, "o-", color="black", ms=2.5, lw=0.8, label="what came")
        axis.axvline(0.5, color="gray", lw=0.7, ls=":")
        axis.set_title(fan.title, fontsize=10)
        axis.set_ylabel(unit, fontsize=9)
    for axis in axes.flat[len(fans) :]:
        axis.axis("off")
    for axis in axes[-1]:
        axis.set_xlabel("steps from the last value seen")
    axes[0, 0].legend(fontsize=7, loc="best")
    figure.tight_layout()
    save(figure, path)


def save_paths(path: Path, origins: np.ndarray, paths: np.ndarray, came: np.ndarray, unit: str) -> None:
    """First leads of all passes along successive windows: each pass, one mask throughout, is one function's path."""
    figure, axis = plt.subplots(figsize=(10, 3.6))
    rows = np.arange(len(origins))
    axis.plot(rows, paths.T, color="tab:blue", lw=0.5, alpha=0.35)
    axis.plot(rows, came, color="black", lw=1, label="what came")
    axis.plot([], [], color="tab:blue", lw=1, label=f"{len(paths)} passes, one step ahead")
    axis.set_xlabel("windows of the test part")
    axis.set_ylabel(unit)
    axis.legend(fontsize=8)
    save(figure, path)


def save_by_lead(
    path: Path, methods: Sequence[str], curves: Mapping[str, np.ndarray], titles: Mapping[str, str]
) -> None:
    """Figures (methods, H) against the lead, a panel each."""
    figure, axes = plt.subplots(1, len(curves), figsize=(5.2 * len(curves), 4), squeeze=False)
    for axis, (name, values) in zip(axes[0], curves.items(), strict=True):
        for method, curve in zip(methods, values, strict=True):
            if np.isfinite(curve).any():
                style = "--" if method.startswith("oracle") else "-"
                one = "o" if len(curve) == 1 else ""
                leads = np.arange(1, len(curve) + 1)
                above = 3 if method == "network" else 2
                axis.plot(leads, curve, one + style, color=COLOURS[method], lw=1.4, label=NAMES[method], zorder=above)
        axis.set_xlabel("steps ahead")
        axis.set_title(titles[name], fontsize=10)
        axis.grid(alpha=0.3)
        if name == "r2":
            axis.set_ylim(max(-0.2, np.nanmin(values) - 0.05), 1.02)
        if name == "mse":
            axis.set_yscale("log")
        if name.startswith("coverage"):
            axis.axhline(0.9, color="black", lw=0.8, ls=":")
    axes[0, 0].legend(fontsize=7)
    figure.tight_layout()
    save(figure, path)


def save_calibration(
    path: Path, levels: Sequence[float], coverage: Mapping[str, np.ndarray], pit: Mapping[str, np.ndarray]
) -> None:
    """Nominal against observed coverage (levels,) of methods; and where values fall in the distribution functions of
    some, flat if calibrated."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2))
    left.plot([0, 1], [0, 1], color="black", lw=0.8, ls=":")
    for method, observed in coverage.items():
        left.plot(levels, observed, "o-", color=COLOURS[method], ms=4, label=NAMES[method])
    for method, shares in pit.items():
        edges = np.linspace(0, 1, len(shares) + 1)
        right.stairs(shares * len(shares), edges, color=COLOURS[method], lw=1.3, label=NAMES[method])
    left.set_xlim(0.4, 1)
    left.set_ylim(0.4, 1.01)
    left.set_xlabel("nominal coverage")
    left.set_ylabel("observed coverage")
    left.legend(fontsize=8)
    right.axhline(1, color="black", lw=0.8, ls=":")
    right.set_xlabel("PIT: the forecast's distribution function at what came")
    right.set_ylabel("density")
    for axis in (left, right):
        axis.grid(alpha=0.3)
    save(figure, path)


def save_weeks(path: Path, methods: Sequence[str], coverage: np.ndarray, width: np.ndarray, season: int) -> None:
    """Coverage and width of 90 % intervals (methods, weeks) along the test part."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.6))
    for axis, values, title in zip(axes, (coverage, width), ("90 % intervals: coverage", "width"), strict=True):
        for method, curve in zip(methods, values, strict=True):
            axis.plot(np.arange(1, len(curve) + 1), curve, "o-", ms=3, color=COLOURS[method], label=NAMES[method])
        axis.set_xlabel(f"stretches of {season} windows of the test part")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3)
    axes[0].axhline(0.9, color="black", lw=0.8, ls=":")
    axes[0].legend(fontsize=7)
    save(figure, path)


def save_lags(path: Path, lags: np.ndarray, attention: np.ndarray, beside: Mapping[str, np.ndarray]) -> None:
    """Attention by lag (N, L) as mean and 10–90 %, beside other measures (L,) of what a lag counts for."""
    figure, axes = plt.subplots(1 + len(beside), 1, figsize=(10, 2 * (1 + len(beside))), sharex=True)
    low, high = np.quantile(attention, (0.1, 0.9), axis=0)
    axes[0].fill_between(lags, low, high, color="tab:blue", alpha=0.25, lw=0)
    axes[0].plot(lags, attention.mean(0), color="tab:blue")
    axes[0].set_title("attention: mean, and 10–90 % of windows", fontsize=9)
    for axis, (title, values) in zip(axes[1:], beside.items(), strict=True):
        axis.plot(lags, values, color="tab:orange")
        axis.set_title(title, fontsize=9)
    for axis in axes:
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("steps back from the last value")
    axes[-1].invert_xaxis()
    figure.tight_layout()
    save(figure, path)


def save_stress(path: Path, curves: Mapping[str, Mapping[str, tuple[list[int], list[float], list[float]]]]) -> None:
    """MSE and coverage against the share of spoiled inputs: kind → method → (per cent, MSE, coverage)."""
    figure, axes = plt.subplots(2, len(curves), figsize=(4.4 * len(curves), 6.4), squeeze=False)
    for column, (kind, methods) in enumerate(curves.items()):
        for method, (percent, mse, coverage) in methods.items():
            known = method if method in NAMES else "network"
            label = NAMES.get(method, f"network, centred by {method.removeprefix('network_')}")
            style = "-" if method in NAMES else "--"
            axes[0, column].plot(percent, mse, "o" + style, ms=3, color=COLOURS[known], label=label)
            axes[1, column].plot(percent, coverage, "o" + style, ms=3, color=COLOURS[known], label=label)
        axes[0, column].set_title(STRESSES[kind], fontsize=10)
        axes[0, column].legend(fontsize=7)
        axes[0, column].set_yscale("log")
        axes[1, column].axhline(0.9, color="black", lw=0.8, ls=":")
        axes[1, column].set_xlabel("% of the inputs")
    axes[0, 0].set_ylabel("MSE")
    axes[1, 0].set_ylabel("coverage of 90 % intervals")
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    figure.tight_layout()
    save(figure, path)
