"""The compiled engine against the reference in float64; and what happens where there is no compiler.

The library is compiled into the user's own cache, once: these tests and all runs share it.
"""

from __future__ import annotations

import copy
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lightning_modules.pixelrnn import compiler
from lightning_modules.pixelrnn.diag_bilstm import DiagonalLayer
from lightning_modules.pixelrnn.recurrence import COMPILED, choose_engine
from lightning_modules.pixelrnn.row_lstm import RowLayer

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
LAYERS = [
    pytest.param(lambda: DiagonalLayer(12, 3, "learned"), id="diagonal"),
    pytest.param(lambda: DiagonalLayer(37, 1, "learned"), id="diagonal of 37"),
    pytest.param(lambda: RowLayer(12, 3, 1, "learned"), id="row of 1"),
    pytest.param(lambda: RowLayer(12, 3, 5, "learned"), id="row of 5"),
]


def value_and_gradients(layer: nn.Module, engine: str, x: Tensor, towards: Tensor) -> list[Tensor]:
    layer.engine = engine
    value = layer(x)
    return [value, *torch.autograd.grad(value, [x, *layer.parameters()], towards.to(value.dtype))]


@needs_compiler
@pytest.mark.parametrize("make", LAYERS)
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (3, 6), (6, 3), (8, 9)])
def test_values_and_gradients_are_the_references(make, size):
    """Relative norms of the output and of every gradient, the learned outside states' among them."""
    layer = make()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    x, towards = torch.randn(3, 2 * layer.hidden, *size, requires_grad=True), torch.randn(3, 2 * layer.hidden, *size)
    exact = x.detach().double().requires_grad_()
    wanted = value_and_gradients(copy.deepcopy(layer).double(), "reference", exact, towards.double())
    choose_engine.cache_clear()
    assert choose_engine("compiled", x.device, layer.hidden, x.dtype) == "compiled"
    single = value_and_gradients(layer, "compiled", x, towards)
    with torch.autocast("cpu", torch.bfloat16):
        half = value_and_gradients(layer, "compiled", x, towards)
    for found, most in ((single, 1e-6), (half, 0.02)):
        for mine, theirs in zip(found, wanted, strict=True):
            assert (mine.double() - theirs).norm() <= most * theirs.norm() + 1e-12


@needs_compiler
@pytest.mark.parametrize("half", [False, True])
def test_large_numbers_saturate_and_a_nan_stays_one(half):
    """Of two images, that without the NaN keeps its values; the other has it in exactly the cells that see it."""
    layer, x = DiagonalLayer(16, 1, "learned", "compiled"), 1e4 * torch.randn(2, 32, 4, 5)
    with torch.autocast("cpu", torch.bfloat16, enabled=half), torch.no_grad():
        clean = layer.by_compiled(x)
        x[1, :, 1, 2] = float("nan")
        found, wanted = layer.by_compiled(x), layer.by_reference(x)
    assert clean.isfinite().all() and clean.abs().max() <= 2
    assert torch.equal(found[0], clean[0])
    assert torch.equal(found.isnan(), wanted.isnan()) and found[1].isnan().any() and not found[1].isnan().all()


def test_without_a_compiler_or_a_place_to_write_there_is_a_reason(tmp_path, monkeypatch):
    compiler.library.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "below"))
    (tmp_path / "file").touch()
    if shutil.which("g++"):
        with pytest.raises(compiler.CannotCompile, match=r"Not a directory|cannot be written"):
            compiler.library(COMPILED)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(compiler.CannotCompile, match=r"no g\+\+ here"):
        compiler.library(COMPILED)


@needs_compiler
def test_two_that_compile_at_once_make_one_library(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "answer.cpp"
    source.write_text('extern "C" int answer() { return 42; }\n')
    build = compiler.library.__wrapped__
    with caplog.at_level("INFO"), ThreadPoolExecutor(2) as both:
        libraries = list(both.map(build, [source, source]))
    assert [library.answer() for library in libraries] == [42, 42]
    assert caplog.text.count("compiling answer.cpp") == 1
    assert [path.suffix for path in Path(tmp_path, "etudes").iterdir() if path.suffix != ".lock"] == [".so"]
    source.write_text("not C++\n")
    with pytest.raises(compiler.CannotCompile, match=r"g\+\+ fails: "):
        build(source)
