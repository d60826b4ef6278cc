"""Grad-CAM against its definition, on each kind of network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from datamodules.spec import ImageSpec
from lightning_modules.classification import CNN, ResNet, ViT
from lightning_modules.grad_cam import Cams, grad_cam, save_cams, weighted_sums

SPEC = ImageSpec(3, 16, 16, 256, classes=5)
IMAGES = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([0, 3, 4, 1])
NETWORKS = {
    "cnn": lambda: CNN(SPEC, filters=4, depth=3),
    "resnet": lambda: ResNet(SPEC, width=4, depth=10),
    "vit": lambda: ViT(SPEC, patch=4, width=8, depth=2, heads=2),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    torch.manual_seed(0)
    return NETWORKS[request.param]().eval()


def test_the_map_leads_to_the_logits(network):
    with torch.no_grad():
        maps, logits = network.map_and_logits(IMAGES)
        torch.testing.assert_close(logits, network(IMAGES))
    assert maps.ndim == 4 and len(maps) == 4


def test_equations_1_and_2_by_loops(network):
    for parameter in network.parameters():
        parameter.requires_grad_(False)  # a frozen network has a map too
    found, cams = weighted_sums(network, IMAGES, CLASSES), grad_cam(network, IMAGES, CLASSES)
    for number, (image, label) in enumerate(zip(IMAGES.float(), CLASSES, strict=True)):
        maps, logits = network.map_and_logits(image[None].requires_grad_())
        (slopes,) = torch.autograd.grad(logits[0, label], maps)
        expected = sum(slopes[0, k].mean() * maps[0, k] for k in range(maps.shape[1])).detach()
        torch.testing.assert_close(found[number], expected, atol=1e-6, rtol=1e-4)
        heat = F.interpolate(expected.relu()[None, None], (16, 16), mode="bilinear")[0, 0].numpy()
        assert cams.maxima[number] == pytest.approx(heat.max(), rel=1e-4, abs=1e-7)
        if heat.max() > 0:
            np.testing.assert_allclose(cams.heat[number], heat / heat.max(), atol=1e-4)


def test_after_a_mean_and_one_layer_it_is_cam():
    """Σ_k α_k A^k = CAM / Z, and the mean of CAM with the bias is the logit (Zhou et al. 2016, arXiv 1512.04150)."""
    network = CNN(SPEC, filters=4, depth=3, dropout=0.0).eval()
    with torch.no_grad():
        maps, logits = network.map_and_logits(IMAGES)
        cam = torch.einsum("bk,bkhw->bhw", network.head.weight[CLASSES], maps)
    z = maps.shape[2] * maps.shape[3]
    torch.testing.assert_close(weighted_sums(network, IMAGES, CLASSES), cam / z, atol=1e-6, rtol=1e-5)
    chosen = logits.gather(1, CLASSES[:, None])[:, 0]
    torch.testing.assert_close(cam.mean((1, 2)) + network.head.bias[CLASSES], chosen, atol=1e-6, rtol=1e-5)


def test_a_head_that_reads_one_channel_shows_that_channel():
    network = CNN(SPEC, filters=4, depth=3).eval()
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.weight[:, 2] = 1.0
        channel = network.map_and_logits(IMAGES)[0][:, 2]
    found = weighted_sums(network, IMAGES, CLASSES)
    torch.testing.assert_close(found * channel.shape[1] * channel.shape[2], channel, atol=1e-5, rtol=1e-4)


def test_of_a_vision_transformer_the_tokens_that_enter_the_last_block_count():
    network = ViT(SPEC, patch=4, width=8, depth=2, heads=2).eval()
    maps, logits = network.map_and_logits(IMAGES.float().requires_grad_())
    (slopes,) = torch.autograd.grad(logits[:, 0].sum(), maps)
    assert maps.shape == (4, 8, 4, 4) and (slopes.mean((2, 3)) != 0).any(1).all()


def test_no_evidence_is_drawn_black_and_said(tmp_path):
    network = CNN(SPEC, filters=4, depth=3)
    with torch.no_grad():
        network.head.weight.fill_(-1.0)
    cams = grad_cam(network, IMAGES, CLASSES)
    assert (cams.heat == 0).all() and (cams.maxima == 0).all() and network.training, "its mode is as it was"
    save_cams(tmp_path / "cams.png", IMAGES.numpy(), Cams(cams.heat, cams.maxima), ["a"] * 4, 256, columns=3)
    assert (tmp_path / "cams.png").stat().st_size > 1000
