"""The task's part of a run's report."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch

from datamodules.strokes.forms import to_polylines
from lightning_modules.classification.figures import save_matrix
from lightning_modules.classification.report import SPLITS
from lightning_modules.sketch.animation import svg
from lightning_modules.sketch.drawing import draw, draw_classes, lines_of, redraw
from lightning_modules.sketch.judging import batch_of, shares
from lightning_modules.sketch.pictures import save_attention, save_densities, save_sheet
from lightning_modules.sketch.studio import morphed
from reporting.report import Section

HEATS = (0.2, 0.4, 0.6, 0.8, 1.0)
MOST_ROWS = 10  # classes of a sheet
PAIRS = 8  # drawings redrawn
WAYS = 10  # to complete one


def report_sections(module: Any, run: Any) -> list[Section]:
    """Likelihood, drawings, what a judge says of them, and what the network sees while it draws."""
    sections = [Section("Likelihood", likelihood_table(module, run))]
    if module.network.looks != "encoder":
        sections += [sheet_section(module, run), animation_section(module, run)]
    judged = run.folder / "judged.json"
    if judged.exists():
        sections += judged_sections(json.loads(judged.read_text(encoding="utf-8")), module, run)
    if module.network.latent:
        sections.append(pairs_section(module, run))
    if module.network.looks != "encoder":
        sections += [completion_section(module, run), *latent_sections(module, run), *inside_sections(module, run)]
    return sections


def likelihood_table(module: Any, run: Any) -> str:
    """Markdown: ours on each split, a drawing without memory, and what others published of the same data."""
    names = {"nats_per_sketch": "nats per drawing", "elbo_nats": "−ELBO, nats", "l_r": "L_R", "l_s": "L_s",
             "l_p": "L_p", "l_kl": "L_KL", "l_r_floored": "L_R, floored"}  # fmt: skip
    lines = [f"| drawings | {' | '.join(names.values())} | |", f"|---|{'---:|' * len(names)}---|"]
    for split, name in SPLITS.items():
        if f"{split}/l_r" in run.metrics:
            cells = [f"{run.metrics[f'{split}/{key}']:.3f}" if f"{split}/{key}" in run.metrics else "" for key in names]
            lines.append(f"| **{name}** | {' | '.join(cells)} | this run |")
    if "test/nats_memoryless" in run.metrics:
        empty = " | ".join([""] * (len(names) - 1))
        nats = run.metrics["test/nats_memoryless"]
        lines.append(f"| test | {nats:.3f} | {empty} | without memory: one mixture, each pen from the last |")
    for entry in run.config.published:
        if entry.data == run.config.choices.data:
            cells = [f"{entry.figures[key]:.2f}" if key in entry.figures else "" for key in names]
            lines.append(f"| {SPLITS[entry.split]} | {' | '.join(cells)} | {entry.source} |")
    spec = module.network.spec
    terms = "all N_max steps" if module.pad_loss else "steps up to the first end"
    note = f" The data: {run.datamodule.note}." if run.datamodule.note else ""
    return "\n".join(lines) + (
        f"\n\nOffsets are in units of {spec.scale:.3f}, N_max is {spec.length}; pens count at {terms}. L_R depends on "
        f"both, so it never compares data sets; in a VAE the bound (−ELBO) is the likelihood, not L_R. Floored: as "
        f"magenta computes it, 1e-6 under each density.{note}"
    )


def shown_classes(module: Any) -> list[int]:
    return list(range(min(max(module.network.spec.classes, 1), MOST_ROWS)))


def class_titles(module: Any, labels: list[int]) -> list[str]:
    return [module.network.spec.names[label] for label in labels] if module.network.spec.names else []


def sheet_section(module: Any, run: Any) -> Section:
    """Classes by temperatures."""
    labels = shown_classes(module)
    each = 2 if len(labels) > 1 else 8
    rows = [[] for _ in labels] if len(labels) > 1 else [[] for _ in range(each)]
    for heat in HEATS:
        drawn = draw_classes(module.network, torch.tensor(labels).repeat_interleave(each), heat, module.seed)
        for number, lines in enumerate(lines_of(drawn, module.network.spec.scale)):
            rows[number // each if len(labels) > 1 else number].append(lines)
    columns = [f"τ = {heat:g}" if n == 0 else "" for heat in HEATS for n in range(each if len(labels) > 1 else 1)]
    save_sheet(run.folder / "figures" / "sheet.png", rows, class_titles(module, labels), columns)
    return Section(
        "Drawn at five temperatures",
        "Not chosen; at each temperature from the same random numbers.",
        "figures/sheet.png",
    )


def animation_section(module: Any, run: Any) -> Section:
    """Drawings that draw themselves."""
    labels = shown_classes(module)
    each = 10 if len(labels) == 1 else 2
    drawn = draw_classes(
        module.network, torch.tensor(labels).repeat_interleave(each), module.temperature, module.seed + 1
    )
    picture = svg(lines_of(drawn, module.network.spec.scale), columns=2 * min(len(labels), 5) if each == 2 else 5)
    text = f"Temperature {module.temperature:g}; the order and direction of strokes are the network's own."
    return Section("Drawing itself", f"{text}\n\n<div>{picture}</div>")


def judged_sections(found: dict[str, Any], module: Any, run: Any) -> list[Section]:
    """The judge's answers, and how doodles were drawn."""
    heats = found.get("temperatures", {})
    names = {"recognised": "recognised", "recognised_as_pictures": "recognised as pictures", "ended": "came to an end",
             "strokes_right": "right number of strokes", "faces_right": "faces with eyes and mouth inside"}  # fmt: skip
    lines = [
        f"| | {' | '.join(f'τ = {heat}' for heat in heats)} | real drawings |",
        f"|---|{'---:|' * (len(heats) + 1)}",
    ]
    real, pictures = found.get("real", {}), next((own.get("pictures_real") for own in heats.values()), None)
    beside = {"recognised": found.get("recognised_real"), "recognised_as_pictures": pictures,
              "ended": 1.0, **real}  # fmt: skip
    for key, name in names.items():
        if any(key in own for own in heats.values()):
            cells = [f"{own[key]:.1%}" if key in own else "" for own in heats.values()]
            known = "" if beside.get(key) is None else f"{beside[key]:.1%}"
            lines.append(f"| {name} | {' | '.join(cells)} | {known} |")
    if any("closure" in own for own in heats.values()):
        cells = [f"{own['closure']:.3f}" if "closure" in own else "" for own in heats.values()]
        known = f"{real['closure']:.3f}" if "closure" in real else ""
        lines.append(f"| squares: from end to start, in parts of their length | {' | '.join(cells)} | {known} |")
    text = "\n".join(lines) if heats else ""
    if "no_judge" in found:
        text += f"\n\nWithout `recognised`: {found['no_judge']}."
    else:
        low, high = found["recognised_real_interval"]
        how = "trained on the training drawings; the real ones are of the test"
        if "judges" in found:
            how = (
                f"{found['judges']} of them, each trained on all real drawings but a part, of any split, which it is "
                "tested on; what the network draws is judged by all"
            )
        text += (
            f"\n\nThe judge is a bidirectional GRU on strokes, {how}. Of {found['real_drawings']} real drawings it "
            f"names {found['recognised_real']:.1%} right ({low:.1%} … {high:.1%}, Wilson's interval)."
        )
    if "pictures_real" in heats.get("0.5", {}):
        text += (
            " As pictures: by a CNN on bitmaps of 28 pixels, trained on published ones of other drawings of these "
            "classes; the real ones are all drawings here."
        )
    if "0.5" in heats and "novelty" in heats["0.5"]:
        text += (
            f" Novelty {heats['0.5']['novelty']:.2f}: the median distance of drawn ones to the nearest training "
            "drawing over that of real test drawings; near 1 they are as new as those, near 0 copied."
        )
    if "retrieval_top1" in found:
        alone = found.get("retrieval_class_alone")
        text += (
            f" Retrieval {found['retrieval_top1']:.1%}: a reconstruction's nearest test drawing is its original (by "
            f"chance {found['retrieval_chance']:.1%}{'' if alone is None else f', by the class alone {alone:.1%}'})."
        )
    sections = [Section("What a judge says", text)]
    if "confusions" in heats.get("0.5", {}) and module.network.spec.classes <= 20:
        path = run.folder / "figures" / "judged.png"
        save_matrix(path, np.array(heats["0.5"]["confusions"]), list(module.network.spec.names))
        sections.append(Section("Drawn as, taken for", "Rows: the class asked for, at τ = 0.5.", "figures/judged.png"))
    if "frequencies" in heats.get("1", {}):
        sections.append(frequency_section(heats["1"]["frequencies"]))
    return sections


def frequency_section(entries: list[dict[str, Any]]) -> Section:
    """How often each way to draw is taken, at temperature 1, where it should be as in the data."""
    lines = ["| class | question | answers | χ², p |", "|---|---|---|---:|"]
    for e in entries:
        p = f"{e['p']:.3f}" if sum(e["counts"]) else "none to be read"
        lines.append(f"| {e['class']} | {e['question']} | {shares(e['counts'])} | {p} |")
    text = (
        "Temperature 1, at which the network's frequencies are to be those of the data, where each answer is as likely "
        "as the others. Corners are numbered clockwise from the top. Drawings with a wrong number of strokes cannot be "
        "read so, and are left out.\n\n"
    )
    return Section("How they are drawn", text + "\n".join(lines))


def pairs_section(module: Any, run: Any) -> Section:
    """Test drawings, and what is drawn from their z."""
    network, data = module.network, run.datamodule
    own = data.splits["test"].taken(np.arange(min(PAIRS, len(data.splits["test"].labels))))
    labels = torch.from_numpy(own.labels) if network.spec.classes else None
    strokes = batch_of(own, data.scale)
    rows = [[to_polylines(drawing) for drawing in own.strokes]]
    rows += [lines_of(redraw(network, strokes, labels, heat, module.seed), data.scale) for heat in (0.1, 0.5)]
    save_sheet(run.folder / "figures" / "pairs.png", rows, ["original", "τ = 0.1", "τ = 0.5"])
    return Section("Redrawn", "The first test drawings, and what the decoder draws from their μ.", "figures/pairs.png")


def completion_section(module: Any, run: Any) -> Section:
    """Half of a test drawing, gone on from in several ways."""
    network, data = module.network, run.datamodule
    test = data.splits["test"]
    number = len(test.labels) // 2 - 1
    half = len(test.strokes[number]) // 2
    begun = batch_of(test.taken(np.array([number])), data.scale)[:, :half]
    labels = torch.full((WAYS,), int(test.labels[number]))
    drawn = lines_of(draw_classes(network, labels, 0.5, module.seed, begun), data.scale)
    save_sheet(run.folder / "figures" / "completed.png", [drawn[: WAYS // 2], drawn[WAYS // 2 :]], begun=half)
    name = f" ({network.spec.names[int(test.labels[number])]})" if network.spec.names else ""
    return Section(
        "Completed", f"The first half of a test drawing{name} in red, and ten ways to go on, τ = 0.5.",
        "figures/completed.png",
    )  # fmt: skip


def latent_sections(module: Any, run: Any) -> list[Section]:
    """The way between two drawings, and z_a − z_b + z_c."""
    network, data = module.network, run.datamodule
    test = data.splits["test"]
    if not network.latent or len(test.labels) < 3:
        return []
    own = test.taken(np.arange(3))
    classes = network.class_vectors(labels_on(network, own.labels), 3).detach()
    training = network.training
    with torch.no_grad():
        z = network.eval().encode(batch_of(own, data.scale).to(classes.device), classes)[0]
    network.train(training)
    ends = [(z[:1], classes[:1]), (z[1:2], classes[1:2])]
    way = lines_of(morphed(network, ends, 10, 0.2, module.seed), data.scale)
    joined = z[:1] - z[1:2] + z[2:], classes[:1] - classes[1:2] + classes[2:]
    generator = torch.Generator().manual_seed(module.seed)
    uniforms = torch.rand(4, network.spec.length, 4, generator=generator).to(z.device)
    drawn = draw(network, joined[0].expand(4, -1), joined[1].expand(4, -1), uniforms, 0.2).strokes
    originals = [to_polylines(strokes) for strokes in own.strokes]
    save_sheet(run.folder / "figures" / "morph.png", [way[:5], way[5:]])
    save_sheet(
        run.folder / "figures" / "analogy.png", [originals + lines_of(drawn, data.scale)],
        column_titles=["a", "− b", "+ c", "=", "=", "=", "="],
    )  # fmt: skip
    return [
        Section("From one to another", "Along the great circle between the z of two test drawings, τ = 0.2.",
                "figures/morph.png"),
        Section("a − b + c", "z and class vectors of three test drawings, added up; four draws, τ = 0.2.",
                "figures/analogy.png"),
    ]  # fmt: skip


def labels_on(network: Any, labels: np.ndarray) -> torch.Tensor | None:
    return torch.from_numpy(labels).to(network.output.weight.device) if network.spec.classes else None


def inside_sections(module: Any, run: Any) -> list[Section]:
    """Where the next point is expected, and what attention looks at, while the network draws."""
    network, spec = module.network, module.network.spec
    labels = shown_classes(module)[-4:] if spec.classes else [0]
    generator = torch.Generator().manual_seed(module.seed + 2)
    device = network.output.weight.device
    z = torch.randn(len(labels), network.latent, generator=generator).to(device) if network.latent else None
    uniforms = torch.rand(len(labels), spec.length, 4, generator=generator).to(device)
    classes = network.class_vectors(torch.tensor(labels, device=device), len(labels)).detach()
    drawn = draw(network, z, classes, uniforms, 0.3)
    with torch.no_grad():
        training = network.training
        parameters = network.eval().decode(drawn.strokes, z, classes)[-1].cpu()
        network.train(training)
    strokes = drawn.strokes[-1].cpu().numpy()
    points = int((strokes[:, 4] == 0).sum())
    sections = []
    if points >= 5:
        steps = [1, points // 3, 2 * points // 3, points - 1]
        save_densities(run.folder / "figures" / "densities.png", strokes, parameters, steps)
        text = "The root of the density of the next point (blue), the pen (dot), and where it went (cross), τ = 0.3."
        sections.append(Section("What it expects", text, "figures/densities.png"))
    if network.looks == "past" and points >= 5:
        attended = [None if own is None else own.cpu().numpy() for own in drawn.attended]
        shown = [
            (drawn.strokes[n].cpu().numpy(), [None if own is None else own[n] for own in attended])
            for n in range(len(labels))
        ]
        save_attention(run.folder / "figures" / "attention.png", shown, class_titles(module, labels) or ["drawing"])
        text = "Lines lead from the pen at eight steps (dark early, bright late) to where it was at what it attends to."
        sections.append(Section("What it looks back at", text, "figures/attention.png"))
    return sections
