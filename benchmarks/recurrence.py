"""One recurrent layer, forward and backward: the usual form, the same with care, and this project's engines.

`python -m benchmarks.recurrence [--rounds 5]`; two minutes on two CPU cores; the usual form is timed once.
Ratios are against the careful form in float32, measured in turn in this process. `benchmarks/common_forms.py` has both
common forms. Products are as in training: on a GPU, TF32 in every form. The floor is what the layer's products would
take at the rate of dense ones, measured in turn with the forms.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.common_forms import diagonal_layer, row_layer, without_masks
from benchmarks.timing import PRODUCTS, Run, as_in_training, products, ratio, seconds, side_by_side, spread, where
from datamodules.tools import Arguments, device_here, whole_number
from lightning_modules.pixelrnn.diag_bilstm import DiagonalLayer
from lightning_modules.pixelrnn.row_lstm import RowLayer

SIDE = 32
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SIZES = [("Diagonal", 16, 128), ("Diagonal", 8, 64), ("Row", 16, 128), ("Row", 8, 64)]


def operations(kind: str, batch: int, hidden: int) -> float:
    """Floating-point operations of the products that cannot be spared, forward and backward (twice the forward).

    Diagonal: 2h + 2h features to 4h gates, twice; Row: masked 3 × 1 leaves two taps of 2h, and three of h; h to 2h.
    """
    features = 2 * 4 if kind == "Diagonal" else 2 * 2 + 3
    return 3 * 2 * batch * SIDE**2 * (features * hidden * 4 * hidden + 2 * hidden**2)


def make(kind: str, hidden: int) -> nn.Module:
    return DiagonalLayer(hidden, 3, "learned") if kind == "Diagonal" else RowLayer(hidden, 3, 3, "learned")


def step(layer: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor, towards: Tensor, bfloat16: bool) -> Run:
    """Forward and backward once."""

    def run() -> None:
        layer.zero_grad()
        x.grad = None
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bfloat16):
            y = forward(x)
        y.backward(towards.to(y.dtype))

    return run


def with_engine(layer: nn.Module, engine: str, x: Tensor) -> Tensor:
    layer.engine = engine
    return layer(x)


def main() -> None:
    parser = Arguments(description="One recurrent layer, forward and backward, 32×32.")
    parser.add_argument("--rounds", type=whole_number, default=5)
    parser.add_argument("--device", type=device_here, default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    as_in_training()
    print(f"One layer, {SIDE}×{SIDE}, forward and backward, ms (min … max); {where()}\n")
    print(
        "| layer | form | ms | careful form takes × as long | floor, ms | × the floor |\n|---|---|---:|---:|---:|---:|"
    )
    for kind, batch, hidden in SIZES:
        layer = make(kind, hidden).to(args.device)
        plain = without_masks(layer)
        common = partial(diagonal_layer if kind == "Diagonal" else row_layer, plain)
        own = partial(with_engine, layer)
        shape = (batch, 2 * hidden, SIDE, SIDE)
        x, last = (torch.randn(shape, device=args.device).contiguous(memory_format=form).requires_grad_()
                   for form in (torch.contiguous_format, torch.channels_last))  # fmt: skip
        towards = torch.randn_like(x)
        fast = ["triton"] if args.device == "cuda" else ["fused", "compiled"]
        forms = {
            "careful, float32": step(plain, common, x, towards, False),
            "careful, bfloat16": step(plain, common, x, towards, True),
            "reference, float32": step(layer, partial(own, "reference"), x, towards, False),
            **{
                f"{engine}, {name}": step(layer, partial(own, engine), last, towards, name == "bfloat16")
                for engine in fast
                for name in TYPES
            },
        }
        alone = {f"products alone, {name}": products(dtype, args.device) for name, dtype in TYPES.items()}
        times = side_by_side(forms | alone, args.rounds)
        usual = seconds(step(plain, partial(common, careful=False), x, towards, False))
        name = f"{kind}, B = {batch}, h = {hidden}"
        print(f"| {name} | as usually written, float32 | {usual * 1e3:,.0f} (once) | | | |")
        for form in forms:
            scale = operations(kind, batch, hidden) / PRODUCTS
            floor = [scale * value for value in times[f"products alone, {form.split(', ')[1]}"]]
            of_floor = statistics.median(mine / least for mine, least in zip(times[form], floor, strict=True))
            compared = f"{ratio(times, 'careful, float32', form):.2f}"
            print(
                f"| {name} | {form} | {spread(times[form])} | {compared} | {spread(floor)} | {of_floor:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
