"""RESULTS.md's text, made from the runs and sweeps kept under results/."""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf

from reporting.folder import REPOSITORY, leaves, read_run
from reporting.published import Figure, Origin, chosen, published_figures
from reporting.report import write_text
from reporting.results.beside import headline, published_tables
from reporting.results.kept import Kept, kept_sweeps
from reporting.results.runs import class_page, origins_list, run_tables, sweep_table

INTRODUCTION = """# Results

Every figure of ours is of a run or a sweep of this project, kept under `results/` with its configuration; this page
is made from them by `python -m reporting.results`. Test data was looked at once, at the end, with the weights that were
best on validation data. Minutes are of training alone, wall clock, on a machine that often did other work beside it.

## Ours beside theirs

▲ ours is better, ▼ worse, whatever the budget: what each run took, and every other published figure, is below.
"""
PICTURE = "pixelrnn/cifar10_diag_bilstm_h200"  # the run whose samples the page shows


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
