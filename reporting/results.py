"""RESULTS.md, made from the runs and sweeps kept under results/.

`python -m reporting.results` writes it anew, and each results/NAME/classes.md.
`python -m reporting.results RUN NAME [FIGURE …]` keeps a run first, as results/NAME: its config.yaml without the paths
of the machine it ran on, its metrics.json, and figures by name; with --weights also best.ckpt, without what only
training needs. Of a sweep's folder in place of RUN the summary is kept, and files by name.
"""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from datamodules.errors import UsageError
from datamodules.files import whole_file
from datamodules.tools import Arguments, run_tool
from reporting.folder import REPOSITORY, find_checkpoint, leaves, read_run, task_class
from reporting.predictions import read_predictions
from reporting.published import Figure, Origin, chosen, published_figures
from reporting.report import write_text
from reporting.results_beside import headline, published_tables
from reporting.results_kept import PLACES, Kept, keep_sweep, kept_sweeps
from reporting.results_runs import class_page, origins_list, run_tables, sweep_table

INTRODUCTION = """# Results

Every figure of ours is of a run or a sweep of this project, kept under `results/` with its configuration; this page
is made from them by `python -m reporting.results`. Test data was looked at once, at the end, with the weights that were
best on validation data. Minutes are of training alone, wall clock, on a machine that often did other work beside it.

## Ours beside theirs

▲ ours is better, ▼ worse, whatever the budget: what each run took, and every other published figure, is below.
"""
PICTURE = "pixelrnn/cifar10_diag_bilstm_h200"  # the run whose samples the page shows


def keep(run: Path, kept: Path, figures: Sequence[str], weights: bool = False) -> None:
    """Copies what a run left into results/; figures are names of files in its figures/ folder."""
    config = OmegaConf.to_container(read_run(run)[0])
    for name in figures:
        if not (run / "figures" / name).is_file():
            raise UsageError(f"'{run}' has no figure {name!r}: give names of files in its figures/.")
    for part, keys in {"data": ("path", "cache"), "paths": ("data", "cache")}.items():
        config[part] = {key: value for key, value in config[part].items() if key not in keys}
    config["ckpt_path"] = portable_checkpoint(config.get("ckpt_path"))
    for name in {"command", "went on with"} & config["provenance"].keys():
        config["provenance"][name] = portable_command(config["provenance"][name])
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    if (run / "predictions.npz").exists():
        metrics |= task_class(config["choices"]["task"]).kept_figures(read_predictions(run))
    if not any("/" in name and not name.startswith("seconds/") for name in metrics):
        raise UsageError(f"'{run}' holds no figures: keep a run that was trained or tested, or whose stages measured.")
    best = find_checkpoint(run) if weights else None
    kept.mkdir(parents=True, exist_ok=True)
    write_text(kept / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)))
    write_text(kept / "metrics.json", json.dumps(metrics, indent=2, sort_keys=True) + "\n")
    for name in figures:
        shutil.copyfile(run / "figures" / name, kept / name)
    if best:
        keep_weights(best, kept / "best.ckpt")


def portable_command(command: str) -> str:
    """A command without the words that say where things lie on one machine, a checkpoint's path as it is from here."""
    words = [word for word in command.split() if not word.startswith(PLACES)]
    name = "ckpt_path="
    return " ".join(
        f"{name}{portable_checkpoint(word.removeprefix(name)) or '…'}" if word.startswith(name) else word
        for word in words
    )


def portable_checkpoint(path: str | None) -> str | None:
    """A checkpoint's path from the repository; None outside it, where the path says nothing to others."""
    if path is None or not Path(path).is_absolute():
        return path
    inside = Path(path).resolve().is_relative_to(REPOSITORY)
    return Path(path).resolve().relative_to(REPOSITORY).as_posix() if inside else None


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


def kept_runs(results: Path) -> list[Kept]:
    """Each kept run, by name."""
    found = []
    for path in sorted(results.rglob("metrics.json")):
        read, metrics = read_run(path.parent)
        config = OmegaConf.to_container(read)
        choices, name = config["choices"], path.parent.relative_to(results).as_posix()
        settings = dict(leaves(config)) | choices
        found.append(Kept(name, choices["task"], choices["data"], settings, metrics, config["provenance"]))
    return found


def results_page(results: Path) -> str:
    """RESULTS.md's text: ours beside theirs, a picture, all published figures, every run and sweep, their origins."""
    runs, sweeps = kept_runs(results), kept_sweeps(results)
    figures, brought, kept = all_published(), origins(), [*runs, *sweeps]
    lines = [INTRODUCTION, *headline(figures, kept, brought), *picture(results)]
    lines += published_tables(figures, kept, brought)
    lines += [*run_tables(runs), *sweep_table(sweeps), *origins_list(kept)]
    return "\n".join(lines) + "\n"


def picture(results: Path) -> list[str]:
    """Samples of one network, and how to draw more; nothing where it is not kept."""
    if not (results / PICTURE / "samples.png").is_file():
        return []
    said = f"Drawn by `{PICTURE}`, beside real images"
    more = (
        f'`python train.py "stages=[sample]" ckpt_path=results/{PICTURE}/best.ckpt` draws them, with no data at hand.'
    )
    return [f"![Drawn by {PICTURE}, beside real images](results/{PICTURE}/samples.png)", "", f"{said}; {more}", ""]


def origins() -> list[Origin]:
    """The experiments and sweeps that bring published figures along, then the entries of results/published.yaml."""
    found = []
    for group in ("experiment", "sweep"):
        for path in sorted((REPOSITORY / "conf" / group).glob("*.yaml")):
            config = OmegaConf.to_container(OmegaConf.load(path))
            if entries := config.get("published"):
                settings = dict(leaves(config)) | chosen(config.get("defaults", []))
                found.append(Origin(f"{group}={path.stem}", settings, published_figures(entries)))
    for entry in OmegaConf.to_container(OmegaConf.load(REPOSITORY / "results/published.yaml")):
        found.append(Origin(entry.get("run", ""), {}, published_figures([entry])))
    return found


def all_published() -> list[Figure]:
    """What experiments, sweeps and results/published.yaml name, each once."""
    return list(dict.fromkeys(figure for origin in origins() for figure in origin.figures))


def write_results(results: Path) -> Path:
    """Writes RESULTS.md, and the figures of single classes of each run that has them; returns the former's path."""
    figures, page = all_published(), results_page(results)
    for run in kept_runs(results):
        if text := class_page(run, figures):
            write_text(results / run.name / "classes.md", text)
    return write_text(results.parent / "RESULTS.md", page)


def main(words: Sequence[str]) -> Path:
    parser = Arguments(prog="python -m reporting.results", description="Writes RESULTS.md, keeping a run first.")
    parser.add_argument("run", nargs="?", type=Path, help="a run's folder, or a sweep's")
    parser.add_argument("name", nargs="?", help="what to keep it as, such as pixelrnn/digits or sweeps/digits")
    parser.add_argument(
        "figures", nargs="*", metavar="figure", help="names of files in its figures/ (a sweep's: in it)"
    )
    parser.add_argument("--weights", action="store_true", help="keep its best weights too")
    args = parser.parse_intermixed_args(words)
    if args.run and not args.name:
        raise UsageError("Say under which name to keep the run: python -m reporting.results RUN NAME [FIGURE …]")
    if args.run:
        if not re.fullmatch(r"[\w-]+(/[\w-]+)*", args.name):
            raise UsageError(f"{args.name!r} is no name to keep a run by: give one such as pixelrnn/digits.")
        keep_either(args.run, REPOSITORY / "results" / args.name, args.figures, args.weights)
    return write_results(REPOSITORY / "results")


def keep_either(folder: Path, kept: Path, names: Sequence[str], weights: bool) -> None:
    """Keeps a run, or a sweep: a folder of runs."""
    if (folder / "config.yaml").exists() or not any(folder.glob("*/config.yaml")):
        keep(folder, kept, names, weights)
    elif weights:
        raise UsageError(f"'{folder}' is a sweep's: keep the weights of one of its runs, '{folder}/0' or another.")
    else:
        keep_sweep(folder, kept, names)


if __name__ == "__main__":
    run_tool(main)
