"""The vision transformer: its mathematics written out again, its sizes, what it takes, and its place in the recipe."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from datamodules.errors import UsageError
from datamodules.spec import ImageSpec, TextSpec
from lightning_modules.classification import Classification, ViT
from lightning_modules.classification.networks.attention import rollout, similarities
from lightning_modules.classification.networks.vit import Attention
from lightning_modules.schedules import constant
from reporting import compare
from reporting.load import load_run
from tests.conftest import run_here

GREY, COLOUR = ImageSpec(1, 8, 8, 17, 10), ImageSpec(3, 12, 8, 256, classes=5)
SMALL = ["task=classification", "model=vit", "model.width=16", "model.depth=2", "trainer.precision=32-true"]


def vit(spec=COLOUR, **settings) -> ViT:
    return ViT(spec, **{"patch": 4, "width": 12, "depth": 2, "heads": 3, "mlp": 2, **settings})


def some(spec, count=3) -> torch.Tensor:
    return torch.randint(0, spec.levels, (count, *spec.shape), dtype=torch.uint8)


def written_out_attention(layer: Attention, x: torch.Tensor) -> torch.Tensor:
    """Equations 5 to 8, one head, one image and one token at a time."""
    width, images = x.shape[2], []
    size = width // layer.heads
    for tokens in x:
        found = tokens @ layer.qkv.weight.T + layer.qkv.bias
        heads = []
        for head in range(layer.heads):
            q, k, v = (found[:, part * width + head * size :][:, :size] for part in range(3))
            rows = []
            for query in q:
                powers = torch.stack([(query @ key / math.sqrt(size)).exp() for key in k])
                rows.append(sum(power / powers.sum() * value for power, value in zip(powers, v, strict=True)))
            heads.append(torch.stack(rows))
        images.append(torch.cat(heads, 1) @ layer.out.weight.T + layer.out.bias)
    return torch.stack(images)


def written_out(network: ViT, images: torch.Tensor) -> torch.Tensor:
    """Equations 1 to 4 again, patch by patch."""
    scaled = 2 * images.double() / (network.spec.levels - 1) - 1
    size, (_, height, width) = network.patch, network.spec.shape
    tokens = [network.class_token.expand(len(images), -1)]
    for top in range(0, height, size):
        for left in range(0, width, size):
            patch = scaled[:, :, top : top + size, left : left + size].reshape(len(images), -1)
            tokens.append(patch @ network.patches.weight.T + network.patches.bias)
    x = torch.stack(tokens, 1) + network.positions
    for block in network.blocks:
        first, _, _, last = block.mlp
        x = x + written_out_attention(block.attention, normalised(x, block.attention_norm))
        hidden = normalised(x, block.mlp_norm) @ first.weight.T + first.bias
        x = x + (hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2) @ last.weight.T + last.bias
    return normalised(x[:, 0], network.norm) @ network.head.weight.T + network.head.bias


def normalised(x: torch.Tensor, norm: torch.nn.LayerNorm) -> torch.Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


def shaken(network: ViT) -> ViT:
    """Every parameter away from zero and one, so that none can be forgotten."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize("settings", [{}, {"heads": 1, "mlp": 4, "patch": 2, "depth": 1}])
def test_values_and_gradients_are_those_of_the_written_out_equations(settings):
    network, images = shaken(vit(**settings).double()), some(COLOUR, 2)
    expected = written_out(network, images)
    weights = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * weights).sum(), list(network.parameters()))
    # The network's own scaling is in float32.
    network.scaled = lambda given: given.double() / (COLOUR.levels - 1)
    logits = network(images)
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)
    found = torch.autograd.grad((logits * weights).sum(), list(network.parameters()))
    for (name, _), ours, theirs in zip(network.named_parameters(), found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8, msg=name)
    with torch.no_grad():  # torch's own kernel
        torch.testing.assert_close(network(images), expected, rtol=1e-10, atol=1e-10)


def test_the_weights_shown_are_those_that_mix_the_values():
    layer, x = Attention(12, 3).double(), torch.randn(2, 5, 12, dtype=torch.float64)
    values = layer.queries_keys_values(x)[2]
    mixed = torch.einsum("bhij,bhjd->bihd", layer.weights(x), values).flatten(2)
    torch.testing.assert_close(layer(x), layer.out(mixed))
    network = vit()
    found = network.attention(some(COLOUR))
    assert found.shape == (2, 3, 3, 7, 7)
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 3, 3, 7))


@pytest.mark.parametrize(
    ("spec", "settings"),
    [
        (GREY, {"patch": 2, "width": 64, "depth": 4, "heads": 4, "mlp": 4}),
        (ImageSpec(3, 32, 32, 256, 10), {"patch": 4, "width": 192, "depth": 6, "heads": 3, "mlp": 2}),
        (COLOUR, {"patch": 1, "width": 5, "depth": 1, "heads": 5, "mlp": 1}),
    ],
)
def test_parameters_are_as_many_as_the_formula_says(spec, settings):
    patch, width, depth, _, m = settings.values()
    count = (patch**2 * spec.channels + 1) * width + (spec.height * spec.width // patch**2 + 2) * width
    count += depth * ((4 + 2 * m) * width**2 + (9 + m) * width) + 2 * width + (width + 1) * spec.classes
    assert sum(p.numel() for p in ViT(spec, **settings).parameters()) == count


def test_the_papers_base_network_has_its_86_million_parameters():
    with torch.device("meta"):
        network = ViT(ImageSpec(3, 224, 224, 256, 1000), patch=16, width=768, depth=12, heads=12)
    assert sum(p.numel() for p in network.parameters()) == 86_567_656  # as timm counts vit_base_patch16_224


def test_without_positions_the_order_of_the_patches_is_nothing():
    network, images = shaken(vit()).eval(), some(COLOUR).float()
    patches = images.unfold(2, 4, 4).unfold(3, 4, 4)  # (B, C, 3, 2, 4, 4)
    turned = patches.flip(2, 3).permute(0, 1, 2, 4, 3, 5).reshape(images.shape)
    with torch.no_grad():
        assert (network(turned) - network(images)).abs().max() > 1e-3
        network.positions.zero_()
        torch.testing.assert_close(network(turned), network(images), rtol=1e-4, atol=1e-5)
        expected = network.attention(images)
        order = [0, 6, 5, 4, 3, 2, 1]
        torch.testing.assert_close(network.attention(turned), expected[..., order, :][..., order])


@pytest.mark.parametrize("spec", [GREY, COLOUR, ImageSpec(3, 32, 32, 256, 10), ImageSpec(1, 4, 20, 2, 2)])
@pytest.mark.parametrize("patch", [1, 2, 4])
def test_any_size_that_the_patch_divides(spec, patch):
    network = vit(spec, patch=patch, width=6, depth=1)
    assert network.positions.shape == (1 + spec.height * spec.width // patch**2, 6)
    assert network(some(spec, 2)).shape == (2, spec.classes)


def test_integers_and_floats_on_one_scale_are_the_same_images():
    network, images = vit(GREY, patch=2).eval(), some(GREY)
    for same in (images.long(), images.float()):
        assert torch.equal(network(same), network(images))


def test_positions_between_the_learned_ones():
    network = vit(ImageSpec(1, 16, 16, 17, 10))
    with torch.no_grad():  # the position says its place, in patches
        network.positions[1:, 0] = torch.arange(4.0).repeat_interleave(4)
        network.positions[1:, 1] = torch.arange(4.0).repeat(4)
    assert network.positions_of(4, 4) is network.positions
    found = network.positions_of(2, 8)
    assert torch.equal(found[0], network.positions[0])
    down, across = found[1:, :2].T.reshape(2, 2, 8).detach()
    torch.testing.assert_close(down, torch.tensor([0.5, 2.5])[:, None].expand(2, 8))
    torch.testing.assert_close(across[0], torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]))
    assert network(torch.zeros(2, 1, 8, 32)).shape == (2, 10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch": 8}, "model.patch=8 does not divide images of 12×8: choose one of 1, 2, 4."),
        ({"patch": 0}, "model.patch is 0"),
        ({"width": 0}, "model.width is 0"),
        ({"depth": 0}, "model.depth is 0"),
        ({"heads": 5}, "model.heads=5 does not divide model.width=12"),
        ({"mlp": 0}, "model.mlp is 0"),
        ({"dropout": 1.0}, "model.dropout is 1.0"),
        ({"spec": ImageSpec(3, 32, 32, 256)}, "no classes"),
        ({"spec": TextSpec("ab")}, "models images"),
    ],
)
def test_what_cannot_be_is_one_sentence(settings, message):
    with pytest.raises(UsageError, match=message) as error:
        vit(**settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(1, 12, 8), (3, 12, 9), (3, 0, 8)])
def test_images_of_another_kind_are_one_sentence(shape):
    with pytest.raises(UsageError, match="takes RGB ones of sides that are multiples of 4: convert them"):
        vit()(torch.zeros(2, *shape))


def module(network: ViT, **settings) -> Classification:
    adamw = lambda parameters: torch.optim.AdamW(parameters, lr=0.5, weight_decay=0.1)  # noqa: E731
    return Classification(network, adamw, constant, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"initialisation": "whitened"}, "filters of a first convolution, which this network has not"),
        (
            {"early_part": 0.5, "early_size": 6},
            "early_size is 6, but the network takes images of sides that are multip",
        ),
    ],
)
def test_what_a_convolutional_network_alone_can_do_is_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        module(vit(), **settings)


def test_weight_decay_is_for_matrices_and_positions():
    made = module(vit(), norm_bias_lr=2.0)
    made.scheduled = lambda optimizer: {"optimizer": optimizer}
    matrices, vectors, norm_biases = made.configure_optimizers()["optimizer"].param_groups
    assert [group["weight_decay"] for group in (matrices, vectors, norm_biases)] == [0.1, 0.0, 0.0]
    assert any(p is made.network.positions for p in matrices["params"]) and norm_biases["lr"] == 1.0
    assert any(p is made.network.class_token for p in vectors["params"])
    assert len(norm_biases["params"]) == 2 * 2 + 1


def test_rollout_by_hand():
    first, last = np.array([[0.5, 0.5], [0, 1]]), np.array([[1, 0], [0.2, 0.8]])
    heads = np.stack([[[first, first]], [[last + 0.1 * (1 - 2 * np.eye(2)), last - 0.1 * (1 - 2 * np.eye(2))]]])
    expected = (last + np.eye(2)) / 2 @ (first + np.eye(2)) / 2
    np.testing.assert_allclose(rollout(heads), expected[None])
    np.testing.assert_allclose(rollout(np.full((3, 1, 2, 4, 4), 0.25)).sum(-1), 1)


def test_similarities_are_cosines():
    positions = np.array([[3.0, 0], [0, 2], [-1, 0], [1, 1], [0, 0]])
    half = math.sqrt(0.5)
    expected = [[1, 0, -1, half, 0], [0, 1, 0, half, 0], [-1, 0, 1, -half, 0], [half, half, -half, 1, 0], [0] * 5]
    np.testing.assert_allclose(similarities(positions), expected, atol=1e-12)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Small images first, the weights' average, averaged views, smoothed labels."""
    folder = tmp_path_factory.mktemp("run")
    words = ["task.module.early_size=4", "task.module.early_part=0.5", "average=0.9"]
    words += ["task.module.tta=true", "task.module.label_smoothing=0.1", "task.module.shown_images=[7,1,3]"]
    run_here([*SMALL, *words, "trainer.max_steps=12", "patience=null"], folder)
    return folder


def test_the_whole_recipe_ends_with_a_report_and_the_network_comes_back(run):
    metrics, text = json.loads((run / "metrics.json").read_text()), (run / "report.md").read_text()
    assert {"test/accuracy", "test/accuracy_tta", "val/loss"} <= metrics.keys()
    assert "## Attention" in text and "## Positions" in text and "Feature maps" not in text
    for name in ("attention", "positions"):
        with Image.open(run / "figures" / f"{name}.png") as picture:
            assert min(picture.size) > 200 and len(picture.convert("RGB").getcolors(1 << 24)) > 20
    network, spec, _ = load_run(run)
    assert F.softmax(network(some(spec)), 1).shape == (3, 10) and spec == GREY


def test_it_stands_beside_a_convolutional_network_on_one_page(run, tmp_path):
    words = ["task=classification", "model.filters=4", "model.depth=3", "trainer.precision=32-true"]
    run_here([*words, "stages=[fit,test]", "trainer.max_steps=2", "patience=null"], tmp_path / "cnn")
    text = compare.main([str(tmp_path / "cnn"), str(run), "--output", str(tmp_path / "page.html")]).read_text("utf-8")
    assert "Confusion matrices" in text and "<td>accuracy</td>" in text
    for model in ("cnn", "vit"):
        assert f">{model}</th>" in text
