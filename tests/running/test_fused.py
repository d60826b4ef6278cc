"""What is asked of torch's fused optimizers; also on a GPU, where there is one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from running.training.fused import LaidOut, is_fused

MAKE = {
    "adam": torch.optim.Adam,
    "adamw": lambda weights, **how: torch.optim.AdamW(weights, weight_decay=0.1, **how),
    "sgd": lambda weights, **how: torch.optim.SGD(
        weights, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1, **how
    ),
    "gradient_descent": lambda weights, **how: torch.optim.SGD(weights, lr=0.1, **how),
}


def step(optimizer: torch.optim.Optimizer, weight: torch.nn.Parameter, value: float) -> dict[str, torch.Tensor]:
    """A step whose gradient is `value` everywhere; what there is afterwards."""
    weight.grad = torch.full_like(weight, value)
    optimizer.found_inf = (~weight.grad.isfinite().all()).float()
    optimizer.step()
    return {
        "weight": weight.detach().clone(),
        **{k: v.clone() for k, v in optimizer.state[weight].items() if v is not None},
    }


def leaves_out(name: str, device: str) -> None:
    weight = torch.nn.Parameter(torch.randn(5, 7, device=device))
    optimizer = MAKE[name]([weight], fused=True)
    assert is_fused(optimizer)
    before, after = step(optimizer, weight, 1.0), step(optimizer, weight, float("nan"))
    assert before.keys() == after.keys()
    for part, value in before.items():
        assert torch.equal(after[part], value), part
    assert not torch.equal(step(optimizer, weight, 1.0)["weight"], before["weight"])


@pytest.mark.parametrize("name", MAKE)
def test_a_step_that_is_not_finite_changes_nothing(name):
    leaves_out(name, "cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", MAKE)
def test_a_step_that_is_not_finite_changes_nothing_on_a_gpu(name):
    leaves_out(name, "cuda")


def test_what_a_fused_optimizer_keeps_lies_as_its_weights_do():
    """As after a checkpoint from a machine whose weights lie in the usual order."""
    weight = torch.nn.Parameter(torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last))
    there, moved = (torch.optim.Adam([weight], fused=True) for _ in range(2))
    weight.grad = torch.randn_like(weight)
    there.step()
    moved.load_state_dict(there.state_dict())
    for name in ("exp_avg", "exp_avg_sq"):
        moved.state[weight][name] = moved.state[weight][name].contiguous()
    LaidOut().on_train_start(SimpleNamespace(optimizers=[moved]), None)
    for name, kept in there.state[weight].items():
        found = moved.state[weight][name]
        assert torch.equal(found, kept) and found.stride() == kept.stride()
