"""The receptive fields of several trained networks side by side:
`python -m lightning_modules.pixelrnn.receptive_fields RUN RUN … --out FILE.png`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra.utils import instantiate

from datamodules.errors import UsageError
from datamodules.tools import Arguments, run_tool
from lightning_modules.pixelrnn.figures import save_receptive_fields
from lightning_modules.pixelrnn.report import centre, receptive_field_of
from reporting.load import load_run


def main(words: Sequence[str]) -> Path:
    parser = Arguments(description="Draws the receptive fields of trained pixelrnn networks.")
    parser.add_argument("runs", nargs="+", help="run folders or checkpoints, trained on the same data")
    parser.add_argument("--out", type=Path, default=Path("receptive_fields.png"), help="the figure's file")
    args = parser.parse_args(words)
    fields = {}
    for run in args.runs:
        network, _, config = load_run(run)
        if config.choices.task != "pixelrnn":
            raise UsageError(f"'{run}' is of task={config.choices.task}: give runs of task=pixelrnn.")
        datamodule = instantiate(config.data)
        datamodule.prepare_data()
        model = config.choices.model
        name = f"{model}, {Path(run).name}" if model in fields else model
        fields[name] = receptive_field_of(network, datamodule)
        if len({field.shape for field in fields.values()}) > 1:
            raise UsageError(f"'{run}' was trained on images of another size than the runs before it: leave it out.")
        row, column = centre(network)
    save_receptive_fields(args.out, fields, row, column)
    return args.out


if __name__ == "__main__":
    run_tool(main)
