"""The GPU engine: interpreted on the CPU, compiled for a GPU that need not be there, and on one where there is one."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_modules.pixelrnn import triton_scan
from lightning_modules.pixelrnn.diag_bilstm import DiagonalLayer
from lightning_modules.pixelrnn.row_lstm import RowLayer
from reporting.folder import REPOSITORY
from tests.pixelrnn import triton_interpreted as interpreted

LOW, FULL = torch.bfloat16, torch.float32
TF32 = "tf32"  # float32 whose products may be rounded
TYPES = {LOW: "*bf16", FULL: "*fp32"}
ROOM = {80: triton_scan.LEAST, 90: 232448}  # bytes of shared memory, by compute capability
CASES = itertools.product((32, 64, 128, 256), (LOW, FULL, TF32), (True, False), ROOM)  # h, type, diagonal
QUICK = [(64, LOW, True, 90), (128, LOW, True, 90), (64, LOW, False, 90), (64, TF32, True, 90)]


@pytest.mark.parametrize("which", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_interpreted_on_the_cpu(which):
    pytest.importorskip("triton", reason="Triton is not installed")
    run = subprocess.run(
        [sys.executable, "-m", "tests.pixelrnn.triton_interpreted", "-m", which],
        cwd=REPOSITORY,
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_why_not(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(triton_scan.importlib.util, "find_spec", lambda name: object())
    assert triton_scan.unavailable(torch.device("cpu"), 16) == "there is no CUDA device"
    assert "256 features, and h is 257" in triton_scan.unavailable(torch.device("cpu"), 257)
    monkeypatch.setattr(triton_scan.importlib.util, "find_spec", lambda name: None)
    assert triton_scan.unavailable(torch.device("cpu"), 16) == "Triton is not installed"


def test_float32_is_rounded_where_torchs_own_products_are(monkeypatch):
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")  # as in training
    assert [triton_scan.factors(torch.zeros(1, dtype=dtype)) for dtype in (FULL, LOW)] == [TF32, "ieee"]
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "highest")
    assert triton_scan.factors(torch.zeros(1)) == "ieee"


def test_a_trial_that_fails_is_a_reason(monkeypatch):
    def fails(*inputs):
        raise RuntimeError("Failed to find C compiler.\nMore.")

    monkeypatch.setattr(triton_scan, "diagonal_scans", fails)
    reason = triton_scan.trial.__wrapped__(torch.device("cpu"))
    assert reason == "Triton does not work here (RuntimeError: Failed to find C compiler.)"


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """(kernel, types, numbers, tiles) → what Triton makes of it for an H100."""
    pytest.importorskip("triton", reason="Triton is not installed")
    if triton_scan.interpreted():
        pytest.skip("TRITON_INTERPRET is set: nothing is compiled")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from triton import compile as compiled
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    def compile_kernel(kernel, dtype, numbers, num_warps, num_stages, capability):
        always_full = ("bias", "outside", "cell", "carry", "grad_c", "sums")
        signature = {
            name: "constexpr" if name in numbers else "i32" if name == "images" else TYPES[dtype]
            for name in kernel.arg_names
        } | {name: "*fp32" for name in always_full if name in kernel.arg_names}
        aligned = {(at,): [["tt.divisibility", 16]] for at, name in enumerate(signature) if signature[name][0] == "*"}
        source = ASTSource(kernel, signature, numbers, aligned)
        options = {"num_warps": num_warps, "num_stages": num_stages}
        return compiled(source, target=GPUTarget("cuda", capability, 32), options=options)

    return compile_kernel


def compile_pass(compiler, name: str, hidden: int, dtype: torch.dtype | str, diagonal: bool, capability: int):
    from lightning_modules.pixelrnn import triton_kernels

    forward, sides, precision = name != "backward", 2 if diagonal else 3, TF32 if dtype == TF32 else "ieee"
    dtype, size = FULL if dtype == TF32 else dtype, 32
    numbers = triton_scan.tiles(forward, size, hidden, sides, dtype, precision, ROOM[capability])
    launch = [numbers.pop(key) for key in ("num_warps", "num_stages")]
    numbers |= {"DIAGONAL": diagonal, "SIDES": sides, "HEIGHT": size, "WIDTH": size, "HIDDEN": hidden}
    if forward:
        numbers |= {"SAVE": name == "forward"}
    return compiler(triton_kernels.forward if forward else triton_kernels.backward, dtype, numbers, *launch, capability)


def spilled_bytes(cubin: bytes, folder: Path) -> int:
    """Of a thread's stack, where Triton's wheel has the tool that says so."""
    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    if not tool.exists():
        return 0
    (folder / "kernel.cubin").write_bytes(cubin)
    report = subprocess.run([tool, "-res-usage", folder / "kernel.cubin"], capture_output=True, text=True, check=True)
    return int(re.search(r"STACK:(\d+)", report.stdout)[1])


@pytest.mark.parametrize("name", ["forward", "backward", pytest.param("nothing saved", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("hidden", "dtype", "diagonal", "capability"),
    [
        pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow, id=str(case))
        for case in CASES
        if case[3] == 90 or case[1] == LOW
    ],
)
def test_compiles_for_a_gpu(compiler, name, hidden, dtype, diagonal, capability, tmp_path):
    kernel = compile_pass(compiler, name, hidden, dtype, diagonal, capability)
    assert kernel.metadata.shared <= ROOM[capability]
    assert spilled_bytes(kernel.asm["cubin"], tmp_path) <= 64
    assert ("mma" in kernel.asm["ptx"]) == (dtype != FULL)  # tensor cores, but never in float32 that is not rounded
    check_that_nothing_is_loaded_ahead_of_the_barrier(kernel.asm["ttgir"], name)


def check_that_nothing_is_loaded_ahead_of_the_barrier(code: str, name: str) -> None:
    """A pipelined loop hands its loads under way on to its next turn; the loop over the steps must hand on nothing."""
    loops = re.findall(r"\n( *)scf\.for %(?:step|back)\w* = (.*)", code)
    assert len(loops) == 1 and "iter_args" not in loops[0][1]
    barriers = list(re.finditer(r"\n *(?:ttg\.barrier all|gpu\.barrier)[^\n]*((?:\n *\}[^\n]*)*)", code))
    assert len(barriers) == (1 if name == "backward" else 2)  # the first of two is after the frame
    assert f"\n{loops[0][0]}}}" in barriers[-1][1]  # the loop's last operation


@pytest.mark.parametrize(
    ("kind", "colours", "most"), [("diagonal", 1, 28), ("diagonal", 3, 34), ("row", 1, 27), ("row", 3, 29)]
)
def test_few_operations_beside_the_scan(kind, colours, most, monkeypatch):
    """Each is a launch on a GPU: of a layer, forward and backward, in bf16, views and allocations not counted."""
    kernels = pytest.importorskip("lightning_modules.pixelrnn.triton_kernels", reason="Triton is not installed")
    for name in ("forward", "backward"):
        monkeypatch.setattr(kernels, name, defaultdict(lambda: lambda *tensors, **numbers: None))
    layer = DiagonalLayer(6, colours, "learned") if kind == "diagonal" else RowLayer(6, colours, 3, "learned")
    x = torch.randn(2, 12, 4, 5, dtype=LOW).contiguous(memory_format=torch.channels_last).requires_grad_()
    towards = torch.ones_like(x)
    with Operations() as counted:
        with torch.autocast("cpu", LOW):
            y = layer.up.by_product(layer.by_triton(x))
        y.backward(towards)
    assert counted.number <= most


class Operations(TorchDispatchMode):
    """Counts what is computed or copied."""

    number = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        schema = operation._schema
        view = any(result.alias_info and not result.alias_info.is_write for result in schema.returns)
        self.number += not view and not any(free in schema.name for free in ("empty", "detach", "_unsafe_view"))
        return operation(*args, **(kwargs or {}))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("hidden", [16, 64, 128])
@pytest.mark.parametrize(("dtype", "tolerance"), [(FULL, 1e-4), (TF32, 1e-2), (LOW, 3e-2)])
@pytest.mark.parametrize("scan", ["diagonal", "row"])
def test_on_a_gpu(scan, dtype, tolerance, hidden, monkeypatch):
    device = torch.device("cuda")
    if dtype == TF32:
        monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
        dtype = FULL
    if reason := triton_scan.unavailable(device, hidden):
        pytest.skip(reason)
    size = (3, hidden, 32, 32)
    inputs = interpreted.diagonal_inputs(*size) if scan == "diagonal" else interpreted.row_inputs(3, *size)
    inputs = [tensor.to(device, dtype) for tensor in inputs]
    reference = getattr(interpreted, f"{scan}_reference")
    interpreted.compare(getattr(triton_scan, f"{scan}_scans"), reference, inputs, tolerance)
    interpreted.twice_the_same(getattr(triton_scan, f"{scan}_scans"), inputs)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("make", interpreted.LAYERS)
def test_a_layer_on_a_gpu(make):
    device = torch.device("cuda")
    if reason := triton_scan.unavailable(device, 6):
        pytest.skip(reason)
    x = torch.randn(3, 12, 5, 7, device=device).contiguous(memory_format=torch.channels_last)
    interpreted.a_layer_is_the_layer(make(), x, 1e-2)  # convolutions take TF32
