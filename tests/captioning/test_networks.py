"""Both networks against their equations: attention, gates, deep output, caches, padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datamodules.errors import UsageError
from datamodules.spec import CaptionSpec
from lightning_modules.captioning import CaptionTransformer, ShowAttendTell
from lightning_modules.captioning.decoding import word_losses

WORDS = ("<pad>", "<end>", "<unknown>", "<en>", "<fa>", "a", "red", "five", "پنج")
SPEC = CaptionSpec(3, 16, 16, 256, WORDS, ("en", "fa"), 7)
CODES = torch.tensor([[3, 5, 6, 7, 1, 0], [4, 8, 6, 1, 0, 0], [3, 1, 0, 0, 0, 0]])
SMALL = {"hidden": 8, "widths": (4, 5)}


def make(kind: str, **options):
    torch.manual_seed(0)
    if kind == "transformer":
        return CaptionTransformer(SPEC, heads=2, **{**SMALL, **options}).double().eval()
    return ShowAttendTell(SPEC, cell=kind, embedding=6, attention=7, **{**SMALL, **options}).double().eval()


def annotations(network, batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, network.encoder.positions, network.encoder.size, generator=seeded()).double()


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


every_network = pytest.mark.parametrize("kind", ["lstm", "gru", "transformer"])
recurrent = pytest.mark.parametrize("kind", ["lstm", "gru"])


@every_network
def test_weights_are_a_distribution_over_positions_and_images_are_read(kind):
    network = make(kind)
    images = torch.randint(0, 256, (2, 3, 16, 16), generator=seeded(), dtype=torch.uint8)
    found = network.float()(images, CODES[:2])
    assert found.logits.shape == (2, 6, len(WORDS)) and found.weights.shape == (2, 6, 16)
    assert (found.weights >= 0).all()
    torch.testing.assert_close(found.weights.sum(2), torch.ones(2, 6))
    assert network(images).logits.shape == (2, 1, len(WORDS))


@recurrent
def test_positions_may_be_exchanged(kind):
    network, order = make(kind), torch.randperm(16, generator=seeded())
    a = annotations(network)
    one, other = network.teach(a, CODES), network.teach(a[:, order], CODES)
    torch.testing.assert_close(other.logits, one.logits, atol=1e-6, rtol=0)
    torch.testing.assert_close(other.weights, one.weights[:, :, order], atol=1e-6, rtol=0)


@recurrent
def test_equal_annotations_are_looked_at_alike(kind):
    network = make(kind)
    a = annotations(network)[:, :1].expand(-1, 16, -1)
    memory = network.remember(a)
    state = network.begin(memory)
    weights = network.attention(memory[1], state[0], network.words(CODES[:, 0]))
    torch.testing.assert_close(weights.double(), torch.full((3, 16), 1 / 16).double(), atol=1e-6, rtol=0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("deep", [True, False])
@pytest.mark.parametrize("gate", [True, False])
@pytest.mark.parametrize("query", [True, False])
@recurrent
def test_a_step_is_the_papers_equations(kind, deep, gate, query):
    network = make(kind, deep_output=deep, gate=gate, query_word=query)
    a = annotations(network)
    w = {name: value.detach().numpy() for name, value in network.named_parameters()}
    y, words = a.numpy(), CODES[:, 0].numpy()

    def linear(name, x):
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)

    h = np.tanh(linear("starts.0", y.mean(1)))
    e_y = w["words.weight"][words]
    inner = linear("attention.of_annotation", y) + linear("attention.of_state", h)[:, None]
    if query:
        inner = inner + linear("attention.of_word", e_y)[:, None]
    e = np.tanh(inner) @ w["attention.v.weight"][0]
    alpha = np.exp(e) / np.exp(e).sum(1, keepdims=True)
    z = (alpha[:, :, None] * y).sum(1)
    if gate:
        z = sigmoid(linear("gate", h)) * z
    x = np.concatenate([e_y, z], 1)
    i = x @ w["cell.weight_ih"].T + w["cell.bias_ih"]
    g = h @ w["cell.weight_hh"].T + w["cell.bias_hh"]
    if kind == "lstm":
        c = np.tanh(linear("starts.1", y.mean(1)))
        into, forget, new, out = np.split(i + g, 4, 1)
        c = sigmoid(forget) * c + sigmoid(into) * np.tanh(new)
        h = sigmoid(out) * np.tanh(c)
    else:
        (ir, iz, inn), (gr, gz, gn) = np.split(i, 3, 1), np.split(g, 3, 1)
        n = np.tanh(inn + sigmoid(ir + gr) * gn)
        h = (1 - sigmoid(iz + gz)) * n + sigmoid(iz + gz) * h
    last = e_y + linear("of_state", h) + linear("of_context", z) if deep else h
    found = network.teach(a, CODES[:, :1])
    np.testing.assert_allclose(found.logits[:, 0].detach().numpy(), linear("output", last), atol=1e-6)
    np.testing.assert_allclose(found.weights[:, 0].detach().numpy(), alpha, atol=1e-6)


@every_network
def test_step_by_step_is_teacher_forcing_and_padding_changes_nothing(kind):
    network = make(kind, **({"encoder_layers": 1} if kind == "transformer" else {}))
    a = annotations(network)
    whole = network.teach(a, CODES[:, :-1]).logits
    memory = network.remember(a)
    state, steps = network.begin(memory), []
    for place in range(CODES.shape[1] - 1):
        logits, state = network.step(memory, state, CODES[:, place])
        steps.append(logits)
    torch.testing.assert_close(torch.stack(steps, 1), whole, atol=1e-5, rtol=0)
    losses = word_losses(whole, CODES[:, 1:], SPEC.pad).sum(1)
    for row, length in enumerate((SPEC.pad != CODES).sum(1).tolist()):
        alone = network.teach(a[row : row + 1], CODES[row : row + 1, : length - 1]).logits
        own = word_losses(alone, CODES[row : row + 1, 1:length], SPEC.pad).sum()
        torch.testing.assert_close(own, losses[row], atol=1e-5, rtol=0)


def test_the_explicit_softmax_is_the_fused_one():
    network = make("transformer", layers=3)
    a = annotations(network)
    fused, explicit = (network.teach(a, CODES, attention=flag) for flag in (False, True))
    torch.testing.assert_close(fused.logits, explicit.logits, atol=1e-5, rtol=0)
    assert fused.weights is None and explicit.weights.shape == (3, 6, 16)


@every_network
def test_later_words_do_not_reach_back(kind):
    network = make(kind)
    a, changed = annotations(network), CODES.clone()
    changed[:, 3:] = 5
    one, other = network.teach(a, CODES).logits, network.teach(a, changed).logits
    torch.testing.assert_close(one[:, :3], other[:, :3])


@every_network
def test_the_language_word_is_heard_and_without_an_image_all_are_alike(kind):
    network = make(kind)
    a = annotations(network)
    english, persian = (network.teach(a, torch.full((3, 1), code)).logits for code in (3, 4))
    assert (english - persian).abs().max() > 1e-3
    blind = make(kind, image=False).float()
    images = torch.randint(0, 256, (2, 3, 16, 16), generator=seeded(), dtype=torch.uint8)
    found = blind(images, CODES[:1].expand(2, -1)).logits
    torch.testing.assert_close(found[0], found[1])


def test_coordinates_are_part_of_the_annotations():
    encoder = make("lstm").encoder
    assert encoder.size == 5 + 2 and encoder.positions == 16
    found = encoder.annotations(torch.zeros(1, 5, 4, 4).double())[0, :, 5:]
    assert found[0].tolist() == [-1, -1] and found[3].tolist() == [1, -1] and found[15].tolist() == [1, 1]
    assert make("lstm", coordinates=False).encoder.size == 5


def test_scheduled_sampling_gives_the_network_its_own_words():
    network = make("lstm")
    a = annotations(network, 3)
    torch.manual_seed(0)
    always, never = network.teach(a, CODES, truth=1.0).logits, network.teach(a, CODES, truth=0.0).logits
    torch.testing.assert_close(always[:, 0], never[:, 0])
    assert (always[:, 2] - never[:, 2]).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("rnn", {}, "model.cell is 'rnn': choose lstm or gru"),
        ("lstm", {"widths": ()}, "model.widths is empty"),
        ("lstm", {"widths": (4, 4, 4, 4)}, "name fewer widths"),
        ("lstm", {"encoder": "resnet"}, "model.encoder is 'resnet'"),
        ("lstm", {"dropout": 1.0}, "model.dropout is 1.0"),
        ("transformer", {"hidden": 9}, "must be even and divisible by model.heads=2"),
    ],
)
def test_impossible_sizes_are_named(kind, options, said):
    with pytest.raises(UsageError, match=said):
        make(kind, **options)


@every_network
def test_a_few_images_are_learned(kind):
    network = make(kind).float().train()
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    images = torch.randint(0, 256, (3, 3, 16, 16), generator=seeded(), dtype=torch.uint8)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.02)
    for _ in range(120):
        loss = word_losses(network(images, CODES[:, :-1]).logits, CODES[:, 1:], SPEC.pad).sum() / 9
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
