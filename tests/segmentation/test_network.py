"""Fast-SCNN: the paper's parameters and sizes, its parts' properties, folding, and which weights decay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from datamodules.errors import UsageError
from datamodules.spec import ImageSpec, SceneSpec
from lightning_modules.schedules import poly
from lightning_modules.segmentation import FastSCNN
from lightning_modules.segmentation.fast_scnn import FeatureFusion, PyramidPooling, folded, parameter_groups


def spec(classes: int = 11, height: int = 64, width: int = 64) -> SceneSpec:
    return SceneSpec(3, height, width, 256, classes, tuple(f"class {n}" for n in range(classes)), ignore=classes)


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize(("classes", "with_norms", "without"), [(19, 1_138_051, 1_114_371), (11, 1_137_019, 1_113_339)])
def test_parameters_are_the_papers(classes, with_norms, without):
    network = FastSCNN(spec(classes))
    norms = sum(count(module) for module in network.modules() if isinstance(module, nn.BatchNorm2d))
    assert count(network) == with_norms and norms == 23_680 and count(network) - norms == without
    first, second, third = network.learning_to_downsample
    assert [count(first), count(second), count(third)] == [928, 1_984, 3_728]
    assert count(network.bottlenecks) == 1_016_448
    assert count(network.pyramid.branches) == 16_640 and count(network.pyramid.fusion) == 33_024
    fusion = network.fusion
    assert [count(fusion.low_depthwise), count(fusion.low), count(fusion.high)] == [1_408, 16_768, 8_576]
    assert count(network.classifier, network.last) == 36_096 + 128 * classes + classes


def test_sizes_are_the_papers():
    with torch.device("meta"):
        network, image = FastSCNN(spec()).eval(), torch.empty(1, 3, 1024, 2048, dtype=torch.uint8)
    found = {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda m, given, out, name=name: found.update({name: tuple(out.shape[1:])}))
    network.parts(image)
    layers = [f"learning_to_downsample.{n}" for n in range(3)] + [f"bottlenecks.{n}" for n in (2, 5, 8)]
    layers += ["pyramid", "fusion", "last"]
    sizes = [(32, 512, 1024), (48, 256, 512), (64, 128, 256), (64, 64, 128), (96, 32, 64), (128, 32, 64)]
    sizes += [(128, 32, 64), (128, 128, 256), (11, 128, 256)]
    assert [found[name] for name in layers] == sizes


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (45, 60), (64, 97)])
def test_any_size_gives_a_class_for_every_pixel(size):
    image = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    assert FastSCNN(spec(5), width=0.25).eval()(image).shape == (2, 5, *size)


def test_what_decays():
    decayed, free = parameter_groups(FastSCNN(spec(19)))
    depthwise = 47_376
    assert sum(p.numel() for p in decayed["params"]) == 1_066_720
    assert sum(p.numel() for p in free["params"]) == depthwise + 23_955 and free["weight_decay"] == 0


def test_the_learning_rate_is_the_closed_form():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.045)
    schedule, rates = poly(optimizer, total_steps=100, power=0.9), []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    for step in (0, 50, 99):
        assert rates[step] == pytest.approx(0.045 * (1 - step / 100) ** 0.9, rel=1e-12)
    with pytest.raises(ValueError, match=r"scheduler.power is 0"):
        poly(optimizer, 10, 0)


def warmed(**options) -> FastSCNN:
    """A network whose batch norms have seen something."""
    network = FastSCNN(spec(5), width=0.25, **options)
    for _ in range(3):
        network(torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8))
    return network.eval()


@torch.no_grad()
def test_folded_norms_change_nothing():
    network, image = warmed(), torch.randint(0, 256, (1, 3, 64, 80), dtype=torch.uint8)
    fast = folded(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    torch.testing.assert_close(fast(image), network(image), rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_pyramid_keeps_a_constant_map_constant():
    maps = torch.randn(1, 16, 1, 1).expand(1, 16, 7, 9)
    found = PyramidPooling(16, (1, 2, 3, 6)).eval()(maps)
    torch.testing.assert_close(found, found[:, :, :1, :1].expand_as(found))


@torch.no_grad()
def test_an_impulse_in_the_fusion_reaches_as_far_as_its_dilation():
    fusion = FeatureFusion(4, 4, 4).double().eval()
    high = torch.zeros(1, 4, 17, 17, dtype=torch.float64)
    impulse = torch.zeros(1, 4, 17, 17, dtype=torch.float64)
    impulse[:, :, 8, 8] = 1
    found = []
    hook = fusion.low_depthwise[0].register_forward_hook(lambda m, given, out: found.append(out))
    fusion(high, impulse)
    hook.remove()
    reached = {(int(y) - 8, int(x) - 8) for y, x in found[0][0].abs().sum(0).nonzero()}
    assert reached == {(y, x) for y in (-4, 0, 4) for x in (-4, 0, 4)}


@torch.no_grad()
@pytest.mark.parametrize("width", [97, 129])
def test_a_mirrored_network_sees_a_mirrored_image_alike(width):
    network = warmed().double()
    image = torch.randint(0, 256, (1, 3, 33, width)).double()
    before = network(image)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.copy_(module.weight.flip(3))
    assert (network(image.flip(3)) - before.flip(3)).abs().max() < 1e-12


def test_a_batch_of_one_and_what_is_impossible_are_sentences():
    network = FastSCNN(spec(), width=0.25)
    with pytest.raises(UsageError, match=r"one image has no variance.*pyramid's batch norm.*batch_size=2 or more"):
        network(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    with pytest.raises(UsageError, match=r"Images of 31×64 pixels are too small for Fast-SCNN.*at least 32"):
        network(torch.zeros(2, 3, 64, 31, dtype=torch.uint8))
    with pytest.raises(UsageError, match=r"Fast-SCNN models scenes.*an ImageSpec.*data=digit_scenes"):
        FastSCNN(ImageSpec(3, 64, 64, 256))
    for options in ({"width": 0}, {"bins": [0]}, {"dropout": 1}, {"ffm_dilation": 0}):
        with pytest.raises(UsageError, match=f"model.{next(iter(options))} is"):
            FastSCNN(spec(), **options)


def test_ablations_leave_parts_out():
    plain = FastSCNN(spec(), bins=(), skip=False)
    assert count(plain) == 1_137_019 - 16_640 - 33_024 - 8_576
    assert plain.eval()(torch.zeros(1, 3, 40, 40)).shape == (1, 11, 40, 40)
