"""The GPU engine: interpreted on the CPU, compiled for a GPU that need not be there, and on one where there is one."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightning_modules.pixelrnn import triton_scan
from reporting.folder import REPOSITORY
from tests.pixelrnn import triton_interpreted as interpreted

LOW, FULL = torch.bfloat16, torch.float32
TF32 = "tf32"  # float32 whose products may be rounded
TYPES = {LOW: "*bf16", FULL: "*fp32"}
COMPILED = list(itertools.product((64, 128, 256), (LOW, FULL, TF32), (True, False)))  # h, type, diagonal
QUICK = (64, TF32, True)


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

    def compile_kernel(kernel, dtype, numbers, num_warps, num_stages):
        always_full = ("c_outside", "cell", "carry", "grad_c")
        signature = {
            name: "constexpr" if name in numbers else "i32" if name == "maps" else TYPES[dtype]
            for name in kernel.arg_names
        } | {name: "*fp32" for name in always_full if name in kernel.arg_names}
        aligned = {(at,): [["tt.divisibility", 16]] for at, name in enumerate(signature) if signature[name][0] == "*"}
        source = ASTSource(kernel, signature, numbers, aligned)
        options = {"num_warps": num_warps, "num_stages": num_stages}
        return compiled(source, target=GPUTarget("cuda", 90, 32), options=options)

    return compile_kernel


def compile_pass(compiler, name: str, hidden: int, dtype: torch.dtype | str, diagonal: bool, size: int = 32):
    from lightning_modules.pixelrnn import triton_kernels

    forward, sides, precision = name == "forward", 2 if diagonal else 3, TF32 if dtype == TF32 else "ieee"
    dtype = FULL if dtype == TF32 else dtype
    numbers = triton_scan.tiles(forward, size, hidden, sides, dtype, precision)
    launch = [numbers.pop(key) for key in ("num_warps", "num_stages")]
    numbers |= {"DIAGONAL": diagonal, "SIDES": sides, "HEIGHT": size, "WIDTH": size, "HIDDEN": hidden}
    if forward:
        numbers |= {"PADDED": size + (1 if diagonal else 2), "SAVE": True}
    return compiler(getattr(triton_kernels, name), dtype, numbers, *launch)


def spilled_bytes(cubin: bytes, folder: Path) -> int:
    """Of a thread's stack, where Triton's wheel has the tool that says so."""
    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    if not tool.exists():
        return 0
    (folder / "kernel.cubin").write_bytes(cubin)
    report = subprocess.run([tool, "-res-usage", folder / "kernel.cubin"], capture_output=True, text=True, check=True)
    return int(re.search(r"STACK:(\d+)", report.stdout)[1])


@pytest.mark.parametrize("name", ["forward", "backward"])
@pytest.mark.parametrize(
    ("hidden", "dtype", "diagonal"),
    [
        pytest.param(
            *case, marks=() if (case[0] < 256 and case[1] == LOW) or case == QUICK else pytest.mark.slow, id=str(case)
        )
        for case in COMPILED
    ],
)
def test_compiles_for_an_h100(compiler, name, hidden, dtype, diagonal, tmp_path):
    kernel = compile_pass(compiler, name, hidden, dtype, diagonal)
    assert kernel.metadata.shared <= 101376  # what a block may have on every GPU since 8.6
    assert spilled_bytes(kernel.asm["cubin"], tmp_path) <= 64
    assert ("mma" in kernel.asm["ptx"]) == (dtype != FULL)  # tensor cores, but never in float32 that is not rounded


@pytest.mark.parametrize("name", ["forward", "backward"])
@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize("hidden", [16, 128])
def test_nothing_is_loaded_ahead_of_the_barrier(compiler, name, diagonal, hidden):
    """A pipelined loop hands its loads under way on to its next turn; the loop over the steps must hand on nothing."""
    code = compile_pass(compiler, name, hidden, LOW, diagonal).asm["ttgir"]
    loop = re.search(r"scf\.for %(?:step|back)\w* = .*", code)
    assert loop and "iter_args" not in loop[0]
    assert len(re.findall(r"ttg\.barrier all|gpu\.barrier", code)) == 1
    indent = len(code[code.rindex("\n", 0, loop.start()) + 1 : loop.start()])
    barrier = re.search(r"\n( *)(?:ttg\.barrier all|gpu\.barrier)[^\n]*\n( *)\}", code)
    assert barrier and len(barrier[1]) == indent + 2 and len(barrier[2]) == indent  # the loop's last operation


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
    inputs = getattr(interpreted, f"{scan}_inputs")(2 if scan == "diagonal" else 3, 3, hidden, 32, 32)
    inputs = [tensor.to(device, dtype) for tensor in inputs]
    reference = getattr(interpreted, f"{scan}_reference")
    interpreted.compare(getattr(triton_scan, f"{scan}_scans"), reference, inputs, tolerance)
    interpreted.twice_the_same(getattr(triton_scan, f"{scan}_scans"), inputs)
