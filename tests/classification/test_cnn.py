"""The network: its size, what images it takes, and that how maps lie in memory changes no value."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from datamodules.errors import UsageError
from datamodules.spec import ImageSpec, TextSpec
from lightning_modules.classification import CNN

CIFAR = ImageSpec(3, 32, 32, 256, classes=10)


@pytest.mark.parametrize(("filters", "depth", "parameters"), [(32, 5, 141_034), (64, 7, 2_332_106)])
def test_the_course_projects_parameter_counts(filters, depth, parameters):
    network = CNN(CIFAR, filters=filters, depth=depth)
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize("depth", [1, 2, 3, 6, 7])
@pytest.mark.parametrize("spec", [ImageSpec(1, 8, 8, 17, 10), ImageSpec(3, 9, 13, 256, 3)])
def test_any_depth_and_odd_sizes(depth, spec):
    network = CNN(spec, filters=3, depth=depth)
    maps = network.maps(torch.zeros(2, *spec.shape, dtype=torch.uint8))
    sizes = [(3 * 2 ** (n // 2), spec.height >> n // 2, spec.width >> n // 2) for n in range(depth)]
    assert [tuple(found.shape[1:]) for found in maps] == sizes
    assert network(torch.zeros(2, *spec.shape, dtype=torch.uint8)).shape == (2, spec.classes)


def test_the_network_is_what_its_description_says():
    """Written out again from the description, without the class's own loop."""
    network = CNN(CIFAR, filters=4, depth=3).eval()
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    x = images / 255
    for number, (convolution, norm, _) in enumerate(network.layers):
        x = F.max_pool2d(x, 2) if number == 2 else x
        x = F.batch_norm(F.conv2d(x, convolution.weight, padding=1), norm.running_mean, norm.running_var).relu()
    torch.testing.assert_close(network(images), network.head(x.mean((2, 3))))


def test_memory_format_changes_no_value():
    fast = CNN(CIFAR, filters=4, depth=5).eval()
    plain = CNN(CIFAR, filters=4, depth=5, channels_last=False).eval()
    plain.load_state_dict(fast.state_dict())
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    weight = fast.layers[1][0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    assert plain.layers[1][0].weight.is_contiguous()
    for a, b in zip(fast.maps(images), plain.maps(images), strict=True):
        assert a.is_contiguous(memory_format=torch.channels_last) and b.is_contiguous()
        torch.testing.assert_close(a, b)


def test_integers_and_floats_on_one_scale_are_the_same_images():
    network = CNN(ImageSpec(1, 8, 8, 17, 10), filters=4, depth=3).eval()
    images = torch.randint(0, 17, (4, 1, 8, 8), dtype=torch.uint8)
    expected = network(images)
    for same in (images.long(), images.float()):
        assert torch.equal(network(same), expected)


def test_dropout_acts_in_training_alone():
    network = CNN(ImageSpec(1, 8, 8, 17, 10), filters=16, depth=1, dropout=0.9)
    features = torch.ones(1, 16)
    assert (network.train().dropout(features) == 0).any() and (network.eval().dropout(features) == 1).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"filters": 0}, "model.filters is 0"),
        ({"depth": 0}, "model.depth is 0"),
        ({"dropout": 1.0}, "model.dropout is 1.0"),
        ({"depth": 9}, r"model.depth=9 halves images 4 times, which 9×8 does not allow: choose model.depth=8 or less"),
    ],
)
def test_impossible_settings_are_one_sentence(settings, message):
    with pytest.raises(UsageError, match=message) as error:
        CNN(ImageSpec(3, 9, 8, 256, 5), **settings)
    assert "\n" not in str(error.value)


def test_the_depth_that_is_advised_is_the_deepest_that_works():
    CNN(ImageSpec(3, 9, 8, 256, 5), filters=1, depth=8)


def test_data_without_classes_or_images_is_refused():
    with pytest.raises(UsageError, match="no classes"):
        CNN(ImageSpec(3, 32, 32, 256))
    with pytest.raises(UsageError, match="models images"):
        CNN(TextSpec("ab"))


@pytest.mark.parametrize(("shape", "message"), [((1, 32, 32), "are grey of 32×32"), ((3, 3, 40), "are RGB of 3×40")])
def test_images_of_another_kind_are_one_sentence(shape, message):
    with pytest.raises(UsageError, match=f"{message}.*takes RGB ones of at least 4×4") as error:
        CNN(CIFAR, filters=2, depth=5)(torch.zeros(2, *shape, dtype=torch.uint8))
    assert "\n" not in str(error.value)
