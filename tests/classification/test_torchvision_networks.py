"""torchvision's networks: equal to torchvision's own, their weights from files alone, and what is refused."""

from __future__ import annotations

import time
from hashlib import sha256

import pytest
import torch
from torchvision import models

from datamodules.errors import UsageError
from datamodules.spec import ImageSpec
from lightning_modules.classification.networks import VGG16, AlexNet, CovidCNN, MobileNetV2, ResNet50

IMAGENET = ImageSpec(3, 64, 64, 256, classes=1000)
GREY = ImageSpec(1, 28, 28, 256, classes=2)


@pytest.mark.parametrize(
    ("kind", "count"),
    [(VGG16, 138_357_544), (AlexNet, 61_100_840), (MobileNetV2, 3_504_872), (ResNet50, 25_557_032)],
)
def test_the_sizes_are_the_published_ones(kind, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in kind(IMAGENET).parameters()) == count


@pytest.mark.parametrize(("kind", "make"), [(MobileNetV2, models.mobilenet_v2), (ResNet50, models.resnet50)])
def test_weights_of_a_file_give_torchvisions_logits(kind, make, tmp_path):
    theirs = make().eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    torch.save(theirs.state_dict(), tmp_path / "unnamed.pth")
    digest = sha256((tmp_path / "unnamed.pth").read_bytes()).hexdigest()
    file = (tmp_path / "unnamed.pth").rename(tmp_path / f"own-{digest[:8]}.pth")
    own = kind(IMAGENET, size=64, weights=str(file)).eval()
    assert own.begin_() == f"{file.name} (sha256 {digest[:8]})"
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    mean, sd = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        torch.testing.assert_close(own(images), theirs((images / 255 - mean) / sd), rtol=1e-4, atol=1e-3)
    two = kind(GREY, size=64, weights=str(file))
    two.begin_()  # with other classes the backbone alone
    assert two.frozen_norms and two.head.out_features == 2
    with pytest.raises(UsageError, match="weights of another network than AlexNet"):
        AlexNet(GREY, size=64, weights=str(file)).begin_()


def test_without_a_connection_the_sentence_names_file_and_folder_within_seconds(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def refused(url, *_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refused)
    started = time.perf_counter()
    with pytest.raises(UsageError, match=r"mobilenet_v2-b0353104\.pth was not found in .*model=efficientnet_lite0"):
        MobileNetV2(GREY, size=32, weights="imagenet").begin_()
    assert time.perf_counter() - started < 5
    place = tmp_path / "hub" / "checkpoints" / "mobilenet_v2-b0353104.pth"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"altered")
    with pytest.raises(UsageError, match="not with b0353104"):  # a file in the cache is held against its name too
        MobileNetV2(GREY, size=32, weights="imagenet").begin_()


def test_the_courses_network_has_its_size_and_pools_while_the_map_is_large():
    network = CovidCNN(GREY).eval()
    assert sum(p.numel() for p in network.parameters()) == 1_145_666
    assert sum(p.numel() for p in CovidCNN(GREY, widths=[64, 64, 128, 128, 256, 512]).parameters()) == 1_736_514
    with torch.no_grad():
        maps = network.maps(torch.zeros(1, 1, 28, 28))
    assert [found.shape[2] for found in maps] == [14, 7, 7, 7, 7, 7]
    with pytest.raises(UsageError, match=r"model.widths"):
        CovidCNN(GREY, widths=[])
