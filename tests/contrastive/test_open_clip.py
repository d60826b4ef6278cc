"""A small model of open_clip by chance, saved to a file, and what is no such file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from datamodules.errors import UsageError
from datamodules.spec import ImageSpec
from lightning_modules.contrastive import OpenCLIP, open_clip_towers
from lightning_modules.contrastive.low_rank import merge_
from reporting.load import load_run
from tests.conftest import SMALLEST, run_here

open_clip = pytest.importorskip("open_clip")
SPEC = ImageSpec(3, 32, 32, 256, 3, names=("cat", "sweet_pepper", "dog"))
SIZES = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 48, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    """A model's sizes, and weights by chance."""
    folder = tmp_path_factory.mktemp("clip")
    sizes = folder / "smallest-clip.json"
    sizes.write_text(json.dumps(SIZES))
    open_clip.add_model_config(sizes)
    torch.manual_seed(0)
    model = open_clip.create_model("smallest-clip", load_weights=False)
    torch.save(model.state_dict(), folder / "weights.pt")
    return sizes, folder / "weights.pt"


def towers(files: tuple[Path, Path], **others) -> OpenCLIP:
    return OpenCLIP(SPEC, name=str(files[0]), weights=str(files[1]), quick_gelu=False, **others).eval()


def test_it_computes_what_open_clip_does(files):
    network = towers(files)
    model = open_clip.create_model("smallest-clip", load_weights=False)
    model.load_state_dict(torch.load(files[1], weights_only=True))
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    inside = torch.nn.functional.interpolate(images / 255, (48, 48), mode="bilinear", antialias=True)
    mean, deviation = (
        torch.tensor(values)[:, None, None] for values in (model.visual.image_mean, model.visual.image_std)
    )
    said = open_clip.get_tokenizer("smallest-clip")(["a photo of a cat"])
    model.eval()
    with torch.no_grad():
        found = model.encode_image((inside - mean) / deviation, normalize=True)
        torch.testing.assert_close(network.image(images), found, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(network.text(network.tokens(["a photo of a cat"])), model.encode_text(said, True))
        assert torch.equal(network.tokens(["a photo of a cat"]), said)
        assert network.scale.item() == pytest.approx(model.logit_scale.exp().item(), rel=1e-5)


def test_the_gradient_reaches_the_stored_image(files):
    network, images = towers(files), torch.rand(2, 3, 32, 32, requires_grad=True)
    network(images * 255)[:, 0].sum().backward()
    assert images.grad.abs().sum(dim=(1, 2, 3)).min() > 0


def test_safetensors_and_the_other_activation(files, tmp_path):
    from safetensors.torch import save_file

    save_file(
        {k: v.contiguous() for k, v in torch.load(files[1], weights_only=True).items()}, tmp_path / "w.safetensors"
    )
    images = torch.randint(0, 256, (2, 3, 32, 32))
    with torch.no_grad():
        exact = towers(files)(images)
        torch.testing.assert_close(towers((files[0], tmp_path / "w.safetensors"))(images), exact)
        quick = OpenCLIP(SPEC, name=str(files[0]), weights=str(files[1]), quick_gelu=True).eval()
        assert not torch.allclose(quick(images), exact)


def test_low_rank_parts_of_its_attention(files):
    start, adapted = towers(files), towers(files, defence="lora", rank=2)
    images = torch.randint(0, 256, (2, 3, 32, 32))
    names = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert any("in_proj_weight" in name for name in names) and any("mlp" in name for name in names)
    with torch.no_grad():
        torch.testing.assert_close(adapted(images), start(images), atol=1e-5, rtol=1e-5)
        for name, parameter in adapted.named_parameters():
            if ".b." in name:
                parameter.normal_(std=0.1)
        moved = adapted(images)
        assert not torch.allclose(moved, start(images), atol=1e-3)
        merge_(adapted.image_tower)
        torch.testing.assert_close(adapted(images), moved, atol=1e-5, rtol=1e-4)


def test_it_is_tested_and_attacked_as_it_is_and_then_defended(files, tmp_path):
    name, weights = map(str, files)
    words = ["task=contrastive", "model=open_clip", f"model.name={name}", f"model.weights={weights}"]
    words += ["model.quick_gelu=false", *SMALLEST["contrastive"].words, "attack.items=8", "attack.steps=1"]
    words += ["trainer.precision=32-true", "trainer.max_epochs=1", "trainer.limit_train_batches=1"]
    run_here([*words, "stages=[test,attack,report]"], tmp_path / "plain")
    run_here([*words, "stages=[fit,test]", "task.module.defence=text_head"], tmp_path / "defended")
    plain, defended = (json.loads((tmp_path / n / "metrics.json").read_text()) for n in ("plain", "defended"))
    assert plain["attack/images"] == 8 and plain["attack/worst/accuracy"] <= plain["attack/clean/accuracy"]
    network = load_run(tmp_path / "defended").network
    start = towers(files).text_tower.state_dict()
    assert all(torch.equal(value, start[key]) for key, value in network.text_tower.state_dict().items())
    assert defended["parameters"] < plain["parameters"]


def test_a_file_that_is_no_model_is_one_sentence(files, tmp_path, monkeypatch):
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pt")
    (tmp_path / "bad.json").write_text("[]")
    name, weights = map(str, files)
    for given, said in [
        ({"name": name, "weights": str(tmp_path / "none.pt"), "quick_gelu": True}, "There is no file"),
        ({"name": name, "weights": str(tmp_path / "bad.pt"), "quick_gelu": True}, "holds no weights of open_clip's"),
        ({"name": name, "weights": str(tmp_path / "other.pt"), "quick_gelu": True}, "holds no weights of open_clip's"),
        ({"name": name, "weights": weights}, "model.quick_gelu must be said of a file's weights"),
        ({"name": "ViT-B-33"}, r"model.name is ViT-B-33 \(did you mean 'ViT-B-32'\?\)"),
        (
            {"name": "ViT-B-32", "weights": "hub:opennai"},
            r"no weights 'opennai' of ViT-B-32 \(did you mean 'openai'\?\)",
        ),
        ({"name": str(tmp_path / "bad.json")}, "holds no sizes of an open_clip model"),
        ({"name": name, "defence": "prompt", "prompt": "tokens"}, "model.prompt=tokens needs"),
    ]:
        with pytest.raises(UsageError, match=said):
            OpenCLIP(SPEC, **given)
    with pytest.raises(UsageError, match="takes RGB images"):
        OpenCLIP(ImageSpec(1, 8, 8, 17, 2, names=("a", "b")), name=name)
    monkeypatch.setattr(open_clip_towers, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install -e '.\[clip\]'"):
        OpenCLIP(SPEC, name=name)
