"""LeNet-5: the published sizes, its definition written out, the frame; and images given mean 0 and deviation 1."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from datamodules.errors import UsageError
from datamodules.spec import ImageSpec
from lightning_modules.classification import CNN, LeNet5, ResNet
from reporting.load import load_run
from tests.conftest import run_here

MNIST = ImageSpec(1, 28, 28, 256, 10)
PADDED = ImageSpec(1, 32, 32, 256, 10)
COLOUR = ImageSpec(3, 12, 9, 17, 4)


@pytest.mark.parametrize(("width", "count"), [(1.0, 61_706), (0.5, 15_738)])
def test_the_parameters_are_the_published_ones(width, count):
    assert sum(p.numel() for p in LeNet5(PADDED, width=width).parameters()) == count


def test_it_is_what_its_description_says():
    """Written out as in the distillation's authors' code (VainF/Data-Free-Adversarial-Distillation)."""
    network, images = LeNet5(PADDED), torch.randint(0, 256, (3, 1, 32, 32), dtype=torch.uint8)
    first, second, third = network.convolutions
    x = F.max_pool2d(F.relu(F.conv2d(images / 255, first.weight, first.bias)), 2)
    x = F.max_pool2d(F.relu(F.conv2d(x, second.weight, second.bias)), 2)
    x = F.relu(F.conv2d(x, third.weight, third.bias))[:, :, 0, 0]
    x = F.relu(x @ network.hidden.weight.T + network.hidden.bias)
    expected = x @ network.head.weight.T + network.head.bias
    torch.testing.assert_close(network(images), expected)


@pytest.mark.parametrize("normalise", [False, True])
def test_smaller_images_are_framed_in_black(normalise):
    network = LeNet5(MNIST, normalise=normalise)
    images = torch.randint(0, 256, (2, 1, 28, 28), dtype=torch.uint8)
    if normalise:
        network.learn_statistics_(images)
    torch.testing.assert_close(network(images), network(F.pad(images, (2, 2, 2, 2))), rtol=0, atol=0)
    odd = LeNet5(COLOUR, normalise=normalise)
    assert odd(torch.zeros(2, 3, 12, 9)).shape == (2, 4) and odd(torch.zeros(1, 3, 5, 32)).shape == (1, 4)


@pytest.mark.parametrize("make", [LeNet5, CNN, ResNet])
def test_normalised_images_have_mean_0_and_deviation_1_and_an_entry_of_their_own(make):
    network = make(COLOUR, normalise=True).eval()
    images = torch.randint(0, 17, (50, 3, 12, 9), dtype=torch.uint8)
    images[:, 1] //= 3
    network.learn_statistics_(images)
    x = network.scaled(images).double()
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-5)
    torch.testing.assert_close(x.std((0, 2, 3), correction=0), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-5)
    plain = (images / 16).double()
    torch.testing.assert_close(network.mean.double()[:, 0, 0], plain.mean((0, 2, 3)))
    torch.testing.assert_close(network.sd.double()[:, 0, 0], plain.std((0, 2, 3), correction=0))
    torch.testing.assert_close(network.forward_normalised(x.float()), network(images), rtol=1e-4, atol=1e-4)


def test_gradients_reach_normalised_images():
    network, x = LeNet5(MNIST, normalise=True), torch.randn(2, 1, 28, 28, requires_grad=True)
    network.forward_normalised(x).sum().backward()
    assert x.grad.abs().sum() > 0


def test_without_normalise_nothing_is_kept_and_the_entry_takes_0_to_1():
    network = CNN(COLOUR, filters=4, depth=2).eval()
    images = torch.randint(0, 17, (2, 3, 12, 9), dtype=torch.uint8)
    assert not {"mean", "sd"} & network.state_dict().keys()
    torch.testing.assert_close(network.forward_normalised(images / 16), network(images))


def test_training_learns_the_statistics_and_a_checkpoint_keeps_them(tmp_path):
    words = ["task=classification", "model=lenet5", "model.width=0.2", "model.normalise=true", "debug=quick"]
    run_here([*words, "trainer.precision=32-true"], tmp_path)
    from datamodules.images.digits import Digits

    data = Digits()
    data.prepare_data()
    images = data.splits["train"].images / 16
    network = load_run(tmp_path).network
    assert network.mean.item() == pytest.approx(images.mean()) and network.sd.item() == pytest.approx(np.std(images))


def test_what_cannot_be_is_said():
    with pytest.raises(UsageError, match="at most 32×32, but these are 40×28: choose model=cnn"):
        LeNet5(ImageSpec(1, 40, 28, 256, 10))
    with pytest.raises(UsageError, match="at least one of the paper's 6 maps"):
        LeNet5(MNIST, width=0.05)
    with pytest.raises(UsageError, match="at most 32×32"):
        LeNet5(MNIST)(torch.zeros(1, 1, 33, 28))


def test_no_network_of_the_paper_has_normalisation():
    assert not [layer for layer in LeNet5(MNIST).modules() if isinstance(layer, nn.BatchNorm2d)]
