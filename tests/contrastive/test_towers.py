"""The loss by its definition, the towers, and what a defence freezes, adds and leaves as it was."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from datamodules.captions.facts import PAIRS, facts_of_one
from datamodules.captions.words import GRAMMARS, grammar_vocabulary, longest_sentence
from datamodules.errors import UsageError
from datamodules.spec import CaptionSpec, ImageSpec, TextSpec, spec_from_dict, spec_to_dict
from lightning_modules.contrastive import TinyCLIP
from lightning_modules.contrastive.definitions import DEFINITIONS
from lightning_modules.contrastive.loss import info_nce, recall, similarities
from lightning_modules.contrastive.low_rank import merge_
from lightning_modules.contrastive.sentences import TEMPLATES, class_sentences, described
from lightning_modules.contrastive.towers import DEFENCES, border

NAMES = tuple(GRAMMARS["en"].digit(*pair) for pair in PAIRS[:6])
SPEC = CaptionSpec(3, 32, 32, 256, grammar_vocabulary(["en"]), ("en",), longest_sentence(["en"]), NAMES)
SMALL = {"filters": 4, "depth": 5, "size": 8, "width": 8, "blocks": 2, "heads": 2, "patch": 8}
TEXT = {"text_width": 8, "text_layers": 2, "text_heads": 2}


def tiny(image: str = "cnn", spec=SPEC, **others) -> TinyCLIP:
    torch.manual_seed(0)
    return TinyCLIP(spec, image=image, **SMALL | TEXT | others)


def some_images(count: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)


# The loss


def test_the_loss_is_the_papers_where_all_facts_differ():
    logits = torch.randn(6, 6, dtype=torch.float64)
    fact = torch.arange(6)
    plain = (F.cross_entropy(logits, fact) + F.cross_entropy(logits.T, fact)) / 2
    assert info_nce(logits, fact).mean().item() == pytest.approx(plain.item(), rel=1e-12)


def test_items_of_an_equal_fact_share_the_target_both_ways():
    logits, fact = torch.randn(4, 4, dtype=torch.float64), torch.tensor([7, 3, 7, 5])
    rows, columns = logits.log_softmax(1), logits.log_softmax(0)
    by_hand = []
    for item in range(4):
        same = [other for other in range(4) if fact[other] == fact[item]]
        by_hand.append(-sum(rows[item, k] + columns[k, item] for k in same) / len(same) / 2)
    torch.testing.assert_close(info_nce(logits, fact), torch.stack(by_hand))
    # Its floor is the entropy of the targets, reached by logits that give equal facts equal shares.
    best = torch.where(fact[:, None] == fact, 0.0, -1e4)
    assert info_nce(best, fact).tolist() == pytest.approx([math.log(2), 0, math.log(2), 0], abs=1e-6)


def test_recall_counts_equal_facts():
    eye = torch.eye(4)
    assert recall(eye, eye, torch.arange(4), 1) == (1.0, 1.0)
    turned = eye.roll(1, 0)
    assert recall(eye, turned, torch.arange(4), 1) == (0.0, 0.0) and recall(eye, turned, torch.arange(4), 4)[0] == 1
    assert recall(eye, turned, torch.tensor([0, 0, 1, 1]), 1) == (0.5, 0.5)


def test_cosines_are_float32_whatever_holds_outside():
    first = F.normalize(torch.randn(4, 8), dim=1)
    with torch.autocast("cpu", torch.bfloat16):
        found = similarities(first, first, 100.0)
    torch.testing.assert_close(found, 100 * first @ first.T)


# The towers


@pytest.mark.parametrize("image", ["cnn", "vit"])
def test_embeddings_have_length_one_and_logits_are_scaled_cosines(image):
    network, images = tiny(image).eval(), some_images()
    with torch.no_grad():
        found, names = network.image(images), network.names
        assert found.norm(dim=1).tolist() == pytest.approx([1] * 5, rel=1e-5) and names.shape == (6, 8)
        torch.testing.assert_close(network(images), found @ names.T / 0.07)
        network.log_scale.fill_(9.0)
        assert network.scale.item() == pytest.approx(100)
        torch.testing.assert_close(network(images.float()), 100 * found @ names.T)


def test_a_name_is_the_mean_of_all_its_sentences():
    network = tiny().eval()
    own = [text for fact in facts_of_one(PAIRS[2]) for text in GRAMMARS["en"].sentences(fact)]
    assert len(set(own)) == 20 and network.sentences[2] == own
    with torch.no_grad():
        mean = network.text(network.tokens(own)).mean(0)
    torch.testing.assert_close(network.names[2], mean / mean.norm())


def test_a_name_may_be_as_likely_as_all_its_sentences():
    mean, network = tiny().eval(), tiny(naming="probabilities").eval()
    mean.load_state_dict(network.state_dict())
    images = some_images()
    with torch.no_grad():
        told = torch.cat([network.text(network.tokens(own)) for own in network.sentences])
        each = (network.image(images) @ told.T / 0.07).softmax(1).view(5, 6, 20)
        torch.testing.assert_close(network(images).softmax(1), each.sum(2))
        assert not torch.allclose(mean(images).softmax(1), each.sum(2), atol=1e-4)
    inside = torch.rand(2, 3, 32, 32, requires_grad=True)
    network(inside)[:, 0].sum().backward()
    assert inside.grad.abs().sum() > 0


def test_names_follow_the_weights():
    network = tiny().eval()
    before = network.names
    assert network.names is before, "computed once"
    changed = {name: value + 0.1 for name, value in network.state_dict().items()}
    network.load_state_dict(changed)
    assert not torch.equal(network.names, before)
    before = network.names
    network.train()
    with torch.no_grad():
        network.text_tower.projection.weight.mul_(-1).add_(0.01)
    assert not torch.equal(network.eval().names, before)


def test_the_text_tower_looks_back_only_and_not_at_the_padding():
    network = tiny().eval()
    codes = network.tokens(["a red zero at the top left", "there is a red five at the top left"])
    with torch.no_grad():
        both, alone = network.text(codes), network.text(codes[:1])
        torch.testing.assert_close(both[:1], alone)
        after = codes.clone()
        after[0, (codes[0] == 1).nonzero()[0, 0] + 1 :] = 7  # behind the end
        torch.testing.assert_close(network.text(after)[:1], alone)
        before = codes.clone()
        before[0, 2] = 9
        assert not torch.allclose(network.text(before)[:1], alone)


def test_a_mean_over_the_map_still_tells_left_from_right():
    network = tiny().eval()
    images = torch.zeros(2, 3, 32, 32)
    images[0, 0, 12:20, 2:8] = images[1, 0, 12:20, 24:30] = 255
    with torch.no_grad():
        left, right = network.image(images)
    assert (left - right).abs().max() > 1e-3


def test_photographs_get_sentences_with_a_definition():
    spec = ImageSpec(3, 32, 32, 256, 2, names=("cat", "sweet_pepper"))
    cat, pepper = class_sentences(spec)
    assert len(cat) == len(TEMPLATES) + 1 == 9 and cat[-1] == f"a cat : {DEFINITIONS['cat']}"
    assert "a photo of a sweet pepper" in pepper
    known = described(spec)
    assert known.names == spec.names and {"sweet", "whiskers"} <= set(known.vocabulary)
    assert tiny(spec=spec)(torch.zeros(1, 3, 32, 32)).shape == (1, 2)


def test_every_class_of_cifar_has_a_definition():
    from datamodules.images.cifar10_files import CLASS_NAMES as TEN
    from datamodules.images.cifar100 import CLASS_NAMES as HUNDRED

    assert set(DEFINITIONS) == {*TEN, *HUNDRED} and len(set(DEFINITIONS.values())) == 110


def test_specs_older_than_names_are_equal():
    new, old = ImageSpec(3, 32, 32, 256, 2, names=("a", "b")), ImageSpec(3, 32, 32, 256, 2)
    assert new == old and hash(new) == hash(old)
    record = spec_to_dict(new)
    assert spec_from_dict({**record, "names": ["a", "b"]}).names == ("a", "b")
    del record["names"]
    assert spec_from_dict(record) == new


# The defences


def trained(network: nn.Module) -> set[str]:
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("image", ["cnn", "vit"])
@pytest.mark.parametrize("defence", [name for name in DEFENCES if name != "none"])
def test_frozen_means_frozen(image, defence):
    """Two steps of training: every other tensor, running statistics too, is the same bit for bit."""
    network = tiny(image, defence=defence, prompt="tokens" if image == "vit" else "pixels")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    for _ in range(2):
        network.train()
        F.cross_entropy(network.training_logits(some_images()), torch.arange(5)).backward()
        optimizer.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    if defence in ("cross_entropy", "text_head", "tecoa"):
        assert {name.split(".")[0] for name in changed} == {"image_tower", *["head"] * (defence != "tecoa")}
        assert any("running" in name for name in changed) == (image == "cnn")
    else:
        assert changed and changed <= trained(network)
        assert all("parametrizations" in name or name == "prompt" for name in changed)
    assert not any(name.startswith(("text_tower", "log_scale")) for name in trained(network))


@pytest.mark.parametrize("image", ["cnn", "vit"])
def test_low_rank_begins_as_the_frozen_tower_and_merges_back(image):
    start, adapted = tiny(image).eval(), tiny(image, defence="lora").eval()
    adapted.start_from(start.state_dict())
    images = some_images()
    with torch.no_grad():
        assert torch.equal(adapted(images), start(images))
        for name, parameter in adapted.named_parameters():
            if ".b." in name:
                parameter.normal_()
        moved = adapted(images)
        assert not torch.allclose(moved, start(images))
        merge_(adapted.image_tower)
        torch.testing.assert_close(adapted(images), moved, atol=1e-5, rtol=1e-5)
    assert adapted.state_dict().keys() == start.state_dict().keys()


def test_queries_and_values_have_parts_of_their_own_and_keys_none():
    network = tiny("vit", defence="lora").eval()
    layer = network.image_tower.blocks[0].attention.qkv
    low = layer.parametrizations.weight[0]
    with torch.no_grad():
        for b in low.b:
            b.normal_()
        change = layer.weight - layer.parametrizations.weight.original
    queries, keys, values = change.chunk(3)
    torch.testing.assert_close(queries, low.b[0] @ low.a[0], atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(values, low.b[1] @ low.a[1], atol=1e-6, rtol=1e-4)
    assert not keys.any() and torch.linalg.matrix_rank(queries) == 2


def test_low_rank_is_small():
    network = TinyCLIP(SPEC, image="vit", defence="lora")
    tower = sum(p.numel() for n, p in network.image_tower.named_parameters() if ".a." not in n and ".b." not in n)
    added = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert added == 7168 and added / tower <= 0.05


def test_a_frame_is_added_to_the_edge_alone_and_not_clipped():
    network = tiny(defence="prompt", prompt_size=3).eval()
    assert border(4, 6, 1).tolist() == [[True] * 6, *[[True, *[False] * 4, True]] * 2, [True] * 6]
    with torch.no_grad():
        network.prompt.fill_(0.5)
        frame = network.frame()
    assert frame[:, 3:-3, 3:-3].abs().sum() == 0 and (frame[:, :3] == 0.5).all() and (frame[:, :, -3:] == 0.5).all()
    seen = []
    network.image_features = lambda images: seen.append(images) or torch.ones(len(images), 8)
    network.image(torch.full((1, 3, 32, 32), 255.0))
    assert seen[0].max().item() == pytest.approx(255 * 1.5)


def test_a_prompt_of_zeros_and_a_text_head_begin_as_the_start():
    start, images = tiny("vit").eval(), some_images()
    for defence in ("prompt", "text_head", "tecoa"):
        network = tiny("vit", defence=defence).eval()
        network.start_from(start.state_dict())
        network.begin_head()
        with torch.no_grad():
            torch.testing.assert_close(network(images), start(images))
            torch.testing.assert_close(network.training_logits(images), start(images))


def test_tokens_are_put_before_the_blocks():
    network = tiny("vit", defence="prompt", prompt="tokens", prompt_size=5).eval()
    seen = []
    network.image_tower.blocks[0].register_forward_hook(lambda module, given, found: seen.append(given[0]))
    with torch.no_grad():
        network(some_images(2))
    assert seen[0].shape == (2, 1 + 5 + 16, 8) and torch.equal(seen[0][0, 1:6], network.prompt)


def test_another_network_is_no_start():
    network = tiny("vit", defence="tecoa")
    with pytest.raises(RuntimeError):
        network.start_from(tiny("cnn").state_dict())


# Mistakes


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"defence": "tecao"}, r"task.module.defence is tecao \(did you mean 'tecoa'\?\): choose none"),
        ({"image": "vti"}, r"model.image is vti \(did you mean 'vit'\?\)"),
        ({"image": "vit", "defence": "lora", "rank": 9}, "model.rank is 9, but it must be from 1 to 8: .* 8×8"),
        ({"defence": "lora", "rank": 0}, "model.rank is 0"),
        ({"defence": "prompt", "prompt": "pixel"}, r"model.prompt is pixel \(did you mean 'pixels'\?\)"),
        ({"defence": "prompt", "prompt": "tokens"}, "needs a vision transformer: choose model.image=vit"),
        ({"defence": "prompt", "prompt_size": 17}, "from 1 to 16 pixels wide in images of 32×32"),
        ({"image": "vit", "defence": "prompt", "prompt": "tokens", "prompt_size": 0}, "from 1 to 1000 tokens"),
        ({"naming": "embeddings"}, r"model.naming is embeddings \(did you mean 'embedding'\?\)"),
        ({"text_heads": 3}, "model.text_heads=3 does not divide model.text_width=8"),
        ({"size": 1}, "model.size is 1, but it must be 2 or more"),
    ],
)
def test_an_impossible_network_is_one_sentence(given, said):
    with pytest.raises(UsageError, match=said):
        tiny(**given)


@pytest.mark.parametrize("spec", [TextSpec("\n ab"), ImageSpec(1, 8, 8, 17, 10)])
def test_classes_without_names_are_refused(spec):
    with pytest.raises(UsageError, match=r"names of their classes.*choose data=digit_names"):
        tiny(spec=spec)
