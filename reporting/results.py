"""RESULTS.md, made from the runs kept under results/.

`python -m reporting.results` writes it anew; `python -m reporting.results RUN NAME [FIGURE …]` keeps a run first, as
results/NAME: its config.yaml without the paths of the machine it ran on, its metrics.json, and figures by name; with
--weights also best.ckpt, without what only training needs.
"""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from datamodules.errors import UsageError
from datamodules.files import whole_file
from datamodules.tools import Arguments, run_tool
from reporting.folder import REPOSITORY, find_checkpoint, leaves, read_run, task_class, task_settings
from reporting.predictions import read_predictions
from reporting.published import Figure, published_figures
from reporting.report import write_text

INTRODUCTION = """# Results

Every row is a run of this project, kept under `results/` with its configuration and figures; this page is made from
them by `python -m reporting.results`. Test data was looked at once, at the end, with the weights that were best on
validation data. Minutes are of training alone, wall clock, on a machine that often did other work beside it.
"""


def keep(run: Path, kept: Path, figures: Sequence[str], weights: bool = False) -> None:
    """Copies what a run left into results/; figures are names of files in its figures/ folder."""
    config = OmegaConf.to_container(read_run(run)[0])
    for name in figures:
        if not (run / "figures" / name).is_file():
            raise UsageError(f"'{run}' has no figure {name!r}: give names of files in its figures/.")
    for part, keys in {"data": ("path", "cache"), "paths": ("data", "cache")}.items():
        config[part] = {key: value for key, value in config[part].items() if key not in keys}
    for name in {"command", "went on with"} & config["provenance"].keys():
        command = config["provenance"][name].split()
        config["provenance"][name] = " ".join(word for word in command if not word.startswith("hydra.run.dir="))
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    if (run / "predictions.npz").exists():
        metrics |= task_class(config["choices"]["task"]).kept_figures(read_predictions(run))
    if not {"seconds/fit", "steps"} <= metrics.keys():
        raise UsageError(f"'{run}' was not trained in its folder: keep the run that trained its network.")
    best = find_checkpoint(run) if weights else None
    kept.mkdir(parents=True, exist_ok=True)
    write_text(kept / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)))
    write_text(kept / "metrics.json", json.dumps(metrics, indent=2, sort_keys=True) + "\n")
    for name in figures:
        shutil.copyfile(run / "figures" / name, kept / name)
    if best:
        keep_weights(best, kept / "best.ckpt")


def keep_weights(best: Path, kept: Path) -> None:
    """A checkpoint to test and to draw from, without what only training needs."""
    import torch

    from reporting.load import KINDS, read_checkpoint

    checkpoint = read_checkpoint(best)
    config = checkpoint["config"] | {"ckpt_path": None}  # of a run that went on
    content = io.BytesIO()  # torch's own errors of a full disk are no OSErrors
    torch.save({key: checkpoint[key] for key in KINDS} | {"config": config}, content)
    with whole_file(kept) as unfinished:
        unfinished.write_bytes(content.getbuffer())


def kept_runs(results: Path) -> list[tuple[str, dict[str, Any], dict[str, float]]]:
    """(name, configuration, metrics) of each kept run, by name."""
    found = []
    for metrics in sorted(results.rglob("metrics.json")):
        config = OmegaConf.to_container(read_run(metrics.parent)[0])
        name = metrics.parent.relative_to(results).as_posix()
        found.append((name, config, json.loads(metrics.read_text(encoding="utf-8"))))
    return found


def results_page(results: Path) -> str:
    """RESULTS.md's text: a table for each task and data set, then where each run came from."""
    runs = kept_runs(results)
    lines = [INTRODUCTION]
    for task, data in sorted({(config["choices"]["task"], config["choices"]["data"]) for _, config, _ in runs}):
        node = task_settings(task)
        shown = [*node["shown"], *node.get("shown_of_other_stages", [])]
        columns = ["run", "parameters", "steps", "minutes", "train", "val", *(f"test {words(name)}" for name in shown)]
        lines += [f"## {task}: {data}", "", f"| {' | '.join(columns)} |", "|---|" + "---:|" * (len(columns) - 1)]
        for name, config, metrics in runs:
            if (config["choices"]["task"], config["choices"]["data"]) == (task, data):
                lines.append(row(name, metrics, shown))
        lines += ["", f"The columns train and val are {words(shown[0])}.", ""]
    lines += published_tables(runs)
    lines += ["## Commands, machines, commits", ""]
    for name, config, _ in runs:
        record = config["provenance"]
        lines.append(f"- **{name}**: `{record['command']}`; {record['machine']}; commit {record['commit']}")
    return "\n".join(lines) + "\n"


def all_published() -> list[Figure]:
    """What experiments, sweeps and results/published.yaml name."""
    files = [path for group in ("experiment", "sweep") for path in sorted((REPOSITORY / "conf" / group).glob("*.yaml"))]
    entries = [entry for path in files for entry in OmegaConf.to_container(OmegaConf.load(path)).get("published", [])]
    return published_figures([*entries, *OmegaConf.to_container(OmegaConf.load(REPOSITORY / "results/published.yaml"))])


def published_tables(runs: Sequence[tuple[str, dict[str, Any], dict[str, float]]]) -> list[str]:
    """Every published figure, a table for each data set, with the kept run that stands beside it."""
    lines = [
        "## Published figures, and ours beside them",
        "",
        "Beside each figure stands the kept run with the settings that it names, whatever its budget and recipe: of",
        "several the best on validation data. Not run: there is none.",
        "",
    ]
    figures = all_published()
    for data in dict.fromkeys(figure.data for figure in figures):
        lines += [
            f"### {data}",
            "",
            "| published | metric | theirs | ours | difference | our run | source |",
            "|---|---|---:|---:|---:|---|---|",
        ]
        lines += [published_row(figure, runs) for figure in figures if figure.data == data]
        lines.append("")
    return lines


def published_row(figure: Figure, runs: Sequence[tuple[str, dict[str, Any], dict[str, float]]]) -> str:
    """The figure, and the kept run that stands beside it."""

    def on_validation(run: tuple[str, Mapping[str, Any], Mapping[str, float]]) -> float:
        own = f"val/{figure.metric.split('/', 1)[1]}"  # some metrics are of the test split alone
        metric = own if own in run[2] else f"val/{task_settings(run[1]['choices']['task'])['shown'][0]}"
        return run[2][metric] * (1 if "accuracy" in metric else -1)

    beside = [
        (name, config, metrics)
        for name, config, metrics in runs
        if figure.metric in metrics
        and figure.beside(config["choices"]["data"], dict(leaves(config)) | config["choices"])
    ]
    best = max(beside, key=on_validation, default=None) if figure.words else None
    value = best and best[2][figure.metric]
    ours = [f"{value:.4f}", f"{value - figure.value:+.4f}", best[0]] if best else ["not run", "", ""]
    cells = [figure.name, words(figure.metric.replace("/", " ")), f"{figure.value:g}", *ours, figure.source]
    return f"| {' | '.join(cells)} |"


def words(metric: str) -> str:
    """A metric's name as a table prints it."""
    return metric.replace("bits_per_dim", "bits/dim").replace("_per_", "/").replace("_", " ")


def row(name: str, metrics: dict[str, float], shown: Sequence[str]) -> str:
    minutes = metrics["seconds/fit"] / 60
    keys = [f"train/{shown[0]}", f"val/{shown[0]}", *(f"test/{metric}" for metric in shown)]
    figures = [f"{metrics[key]:.4f}" if key in metrics else "" for key in keys]
    cells = [name, f"{metrics['parameters']:,}", f"{metrics['steps']:,}", f"{minutes:.1f}", *figures]
    return f"| {' | '.join(cells)} |"


def main(words: Sequence[str]) -> Path:
    parser = Arguments(prog="python -m reporting.results", description="Writes RESULTS.md, keeping a run first.")
    parser.add_argument("run", nargs="?", type=Path, help="a run's folder")
    parser.add_argument("name", nargs="?", help="what to keep it as, such as pixelrnn/digits")
    parser.add_argument("figures", nargs="*", metavar="figure", help="names of files in its figures/")
    parser.add_argument("--weights", action="store_true", help="keep its best weights too")
    args = parser.parse_intermixed_args(words)
    if args.run and not args.name:
        raise UsageError("Say under which name to keep the run: python -m reporting.results RUN NAME [FIGURE …]")
    if args.run:
        if not re.fullmatch(r"[\w-]+(/[\w-]+)*", args.name):
            raise UsageError(f"{args.name!r} is no name to keep a run by: give one such as pixelrnn/digits.")
        keep(args.run, REPOSITORY / "results" / args.name, args.figures, args.weights)
    return write_text(REPOSITORY / "RESULTS.md", results_page(REPOSITORY / "results"))


if __name__ == "__main__":
    run_tool(main)
