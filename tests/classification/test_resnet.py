"""Residual networks: the published sizes, torchvision's values, the pre-activation form written out."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.errors import UsageError
from datamodules.spec import ImageSpec, TextSpec
from lightning_modules.classification import ResNet
from lightning_modules.classification.networks.resnet import PreactivationUnit

GREY = ImageSpec(1, 8, 8, 17, classes=10)


def cifar(classes: int = 10) -> ImageSpec:
    return ImageSpec(3, 32, 32, 256, classes)


def some(spec: ImageSpec, count: int = 3) -> Tensor:
    return torch.randint(0, spec.levels, (count, *spec.shape), dtype=torch.uint8)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("depth", "width", "classes", "count"),
    [
        (18, 64, 10, 11_173_962),
        (18, 64, 100, 11_220_132),
        (34, 64, 10, 21_282_122),
        (34, 64, 100, 21_328_292),
        (18, 40, 10, 4_368_690),
        (18, 28, 100, 2_163_072),
    ],
)
def test_the_parameters_are_the_published_ones(depth, width, classes, count):
    with torch.device("meta"):
        assert parameters(ResNet(cifar(classes), depth=depth, width=width)) == count


def test_the_preactivation_parameters():
    """Of the form without the last normalisation 11,171,146 are widely printed; its gain and bias come to it."""
    with torch.device("meta"):
        assert parameters(ResNet(cifar(), width=64, preactivation=True)) == 11_171_146 + 2 * 512


def randomised(network: nn.Module) -> nn.Module:
    """Every normalisation with statistics, gain and bias of its own, so that none is the identity."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor, 0.1, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.eval()


@pytest.mark.parametrize("depth", [18, 34])
def test_it_is_torchvisions_network_with_a_small_stem(depth):
    theirs = getattr(torchvision.models, f"resnet{depth}")(num_classes=10)
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    ours = ResNet(cifar(), depth=depth, width=64)
    assert parameters(ours) == parameters(theirs)
    values = randomised(theirs).state_dict().values()  # both name the same layers in the same order
    ours.load_state_dict(dict(zip(ours.state_dict(), values, strict=True)))
    images = some(ImageSpec(3, 9, 12, 256))
    torch.testing.assert_close(ours.eval()(images), theirs(images / 255), rtol=1e-4, atol=1e-4)


def test_the_preactivation_form_is_what_its_description_says():
    """Written out from He et al. 2016b, the appendix's first and last unit included."""
    network = randomised(ResNet(cifar(), depth=18, width=4, preactivation=True))
    images = some(ImageSpec(3, 9, 12, 256))

    def active(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        mean, variance, gain, bias = (
            value[:, None, None] for value in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        )
        return ((x - mean) / (variance + norm.eps).sqrt() * gain + bias).clamp(min=0)

    x = active(F.conv2d(images / 255, network.stem.weight, padding=1), network.stem_norm)
    for number, unit in enumerate(unit for stage in network.stages for unit in stage):
        assert isinstance(unit, PreactivationUnit)
        stride = 2 if number in (2, 4, 6) else 1
        before = active(x, unit.norm1) if number else x
        shortcut = F.conv2d(before, unit.shortcut.weight, stride=stride) if stride == 2 else x
        inner = active(F.conv2d(before, unit.conv1.weight, stride=stride, padding=1), unit.norm2)
        x = shortcut + F.conv2d(inner, unit.conv2.weight, padding=1)
    expected = network.head(active(x, network.last_norm).mean((2, 3)))
    torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("preactivation", [False, True])
@pytest.mark.parametrize("depth", [10, 34])
@pytest.mark.parametrize("spec", [GREY, ImageSpec(3, 9, 13, 256, 3), ImageSpec(2, 1, 5, 4, 2)])
def test_any_depth_and_size(depth, spec, preactivation):
    network = ResNet(spec, depth=depth, width=3, preactivation=preactivation)
    maps = network.maps(some(spec))
    halved = [[-(-side // 2**stage) for side in spec.shape[1:]] for stage in (0, 0, 1, 2, 3)]
    widths = [3, 3, 6, 12, 24]
    assert [list(found.shape[1:]) for found in maps] == [[w, *s] for w, s in zip(widths, halved, strict=True)]
    assert network(some(spec)).shape == (3, spec.classes)
    assert network.eval()(torch.zeros(1, spec.channels, 11, 6)).shape == (1, spec.classes), (
        "another size than the spec's"
    )


def test_kernels_begin_with_the_variance_that_backward_passes_keep():
    network = ResNet(cifar(), depth=10, width=32)
    for layer in (layer for layer in network.modules() if isinstance(layer, nn.Conv2d)):
        outputs = layer.out_channels * layer.kernel_size[0] ** 2
        assert layer.weight.std().item() == pytest.approx((2 / outputs) ** 0.5, rel=0.1)


@pytest.mark.parametrize("preactivation", [False, True])
def test_whitened_first_filters(preactivation):
    network = ResNet(GREY, depth=10, width=20, preactivation=preactivation)
    later = network.stages[0][0].conv1.weight.clone()
    network.whiten_(some(GREY, 200))
    filters = network.stem.weight
    assert torch.equal(filters[9:18], -filters[:9]) and torch.equal(network.stages[0][0].conv1.weight, later)


def test_integers_and_floats_on_one_scale_are_the_same_images():
    network, images = ResNet(GREY, depth=10, width=4).eval(), some(GREY)
    assert torch.equal(network(images.float()), network(images))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 20}, "model.depth is 20, but it must be 10, 18 or 34."),
        ({"width": 0}, "model.width is 0, but it must be 1 or more."),
    ],
)
def test_impossible_settings_are_one_sentence(settings, message):
    with pytest.raises(UsageError) as error:
        ResNet(GREY, **settings)
    assert str(error.value) == message


def test_other_data_is_refused():
    with pytest.raises(UsageError, match="no classes"):
        ResNet(ImageSpec(3, 32, 32, 256))
    with pytest.raises(UsageError, match="models images"):
        ResNet(TextSpec("ab"))
    with pytest.raises(UsageError, match=r"are RGB of 8×8.*takes grey ones of at least 1×1"):
        ResNet(GREY, width=2)(torch.zeros(2, 3, 8, 8))
