"""The networks: sizes, what may matter and what may not, drawing against scoring, dropout, attention."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from datamodules.errors import UsageError
from datamodules.spec import ImageSpec, SketchSpec, spec_from_dict, spec_to_dict
from lightning_modules.sketch import SketchDecoder, SketchRNN
from lightning_modules.sketch.attention import PastAttention
from lightning_modules.sketch.drawing import draw, draw_classes, redraw, slerp
from lightning_modules.sketch.losses import padded_to, reconstruction
from lightning_modules.sketch.mixture import as_mixture, ends_like, log_densities, log_pens
from lightning_modules.sketch.recurrence import Dropout, LayerNormLSTM, StrokeLSTM, stepwise

SPEC = SketchSpec(12, 2.0, 3, ("a", "b", "c"))
PLAIN = {"attention": "none", "absolute": False}
NO_DROPOUT = {"p": 0.0, "kind": "none"}
SMALL = {"decoder": 10, "mixtures": 3, "embedding": 4}
RNN = {**SMALL, "encoder": 6, "latent": 5}
EVERY = [
    (kind, {**sizes, "attention": attention, "absolute": absolute, "cell": cell, "layers": layers})
    for kind, sizes in ((SketchDecoder, SMALL), (SketchRNN, RNN))
    for attention, absolute, cell, layers in (
        ("none", False, "lstm", 1),
        ("past", True, "lstm", 2),
        ("past", False, "layer_norm", 1),
        *([("encoder", True, "lstm", 1)] if kind is SketchRNN else []),
    )
]


def drawings(lengths=(5, 8, 3), steps=9, seed=0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    strokes = torch.zeros(len(lengths), steps, 5, dtype=torch.float64)
    for row, length in zip(strokes, lengths, strict=True):
        row[:length, :2] = torch.randn(length, 2, generator=generator, dtype=torch.float64)
        lifted = torch.rand(length, generator=generator) < 0.3
        row[:length, 2], row[:length, 3] = (~lifted).double(), lifted.double()
        row[length:, 4] = 1
    return strokes


LABELS = torch.tensor([0, 2, 1])


def parameters_of(network, strokes, labels=LABELS):
    found = network(strokes, labels)
    return found[0] if isinstance(found, tuple) else found


@pytest.mark.parametrize(
    ("network", "count"),
    [
        (lambda spec: SketchRNN(spec, **PLAIN), 2_190_203),
        (lambda spec: SketchDecoder(spec, **PLAIN), 1_126_011),
        (lambda spec: SketchRNN(spec, **PLAIN, cell="layer_norm"), 2_189_179),
    ],
)
def test_the_papers_networks_have_their_sizes(network, count):
    with torch.device("meta"):
        made = network(SketchSpec(250, 1.0))
    assert sum(parameter.numel() for parameter in made.parameters()) == count


@pytest.mark.parametrize(("kind", "how"), EVERY)
def test_nothing_from_the_future_and_no_padding_matters(kind, how):
    network, strokes = kind(SPEC, **how).double().eval(), drawings()
    found = parameters_of(network, strokes)
    changed = strokes.clone()
    changed[:, 4:, :2] += 3 * (changed[:, 4:, 4:] == 0)
    if not network.latent:  # z comes from all of the drawing
        assert torch.equal(parameters_of(network, changed)[:, :5], found[:, :5])
        assert not torch.equal(parameters_of(network, changed)[:, 5:], found[:, 5:])
    longer = parameters_of(network, padded_to(strokes, 12))
    torch.testing.assert_close(longer[:, :9], found, atol=1e-12, rtol=0)
    alone = parameters_of(network, strokes[2:, :4], LABELS[2:])
    torch.testing.assert_close(alone, found[2:, :4], atol=1e-12, rtol=0)
    turned = parameters_of(network, strokes.flip(0), LABELS.flip(0)).flip(0)
    torch.testing.assert_close(turned, found, atol=1e-12, rtol=0)


def test_the_decoder_sees_nothing_ahead_whatever_z_is():
    network, strokes = SketchRNN(SPEC, **RNN).double().eval(), drawings()
    z, classes = torch.randn(3, 5, dtype=torch.float64), network.class_vectors(LABELS, 3)
    changed = strokes.clone()
    changed[:, 4:, :2] += 3
    found = [network.decode(own, z, classes) for own in (strokes, changed)]
    assert torch.equal(found[0][:, :5], found[1][:, :5])


def test_the_encoder_reads_neither_the_start_nor_padding():
    """Its states are those of torch's bidirectional LSTM on the points alone."""
    network = SketchRNN(SketchSpec(12, 2.0), **RNN).double().eval()
    strokes = drawings()
    mean, _, encoded = network.encode(strokes, network.class_vectors(None, 3))
    library = nn.LSTM(5, 6, bidirectional=True, batch_first=True).double()
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        getattr(library, f"{name}_l0").data = getattr(network.onward, f"{name}_l0").data
        getattr(library, f"{name}_l0_reverse").data = getattr(network.backward, f"{name}_l0").data
    for number, length in enumerate((5, 8, 3)):
        states, (last, _) = library(strokes[number : number + 1, :length])
        torch.testing.assert_close(encoded.states[number, :length], states[0], atol=1e-12, rtol=0)
        torch.testing.assert_close(mean[number], network.mean(last[:, 0].flatten()), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("kind", "how"), EVERY)
def test_drawing_step_by_step_has_the_densities_of_scoring(kind, how):
    network = kind(SPEC, **how).double().eval()
    classes = network.class_vectors(LABELS, 3).detach()
    z = torch.randn(3, 5, dtype=torch.float64) if network.latent else None
    encoded = network.encode(drawings(), classes)[2] if network.looks == "encoder" else None
    found = draw(network, z, classes, torch.rand(3, 12, 4, dtype=torch.float64), 1.0, None, encoded)
    mixture = as_mixture(network.decode(found.strokes, z, classes, encoded))
    ended = found.strokes[..., 4].cumsum(1)
    density = log_densities(mixture, found.strokes[..., :2]) * (ended == 0) + log_pens(mixture, found.strokes)
    torch.testing.assert_close(found.log_densities, density * (ended <= 1), atol=1e-10, rtol=0)


def test_what_is_begun_is_kept_and_gone_on_from():
    network, begun = SketchDecoder(SPEC, **SMALL), drawings((4,), 5)[:, :4].float()
    found = draw_classes(network, torch.tensor([1, 1]), 1.0, 0, begun)
    assert torch.equal(found[:, :4], begun.expand(2, -1, -1)) and not torch.equal(found[0], found[1])
    assert torch.equal(found, draw_classes(network, torch.tensor([1, 1]), 1.0, 0, begun))


@pytest.mark.parametrize(("likely", "pen"), [([50.0, 0.0, 0.0], 0), ([0.0, 50.0, 0.0], 1), ([0.0, -50.0, 90.0], 0)])
def test_whether_the_last_line_given_goes_on_is_the_networks_to_say(likely, pen):
    network, begun = SketchDecoder(SPEC, **SMALL), drawings((4,), 5)[:, :4].float()
    with torch.no_grad():
        network.output.weight[-3:] = 0
        network.output.bias[-3:] = torch.tensor(likely)
    begun[:, -1, 2:] = 0
    found = draw_classes(network, torch.tensor([1, 1]), 1.0, 0, begun)
    assert torch.equal(found[:, :4, :2], begun[..., :2].expand(2, -1, -1))
    assert torch.equal(found[:, :3], begun[:, :3].expand(2, -1, -1)) and (found[:, 3, 2 + pen] == 1).all()
    assert (found[:, 3, 2:].sum(-1) == 1).all() and not found[:, 3, 4].any()


def test_one_that_looks_at_the_encoder_redraws_only():
    network = SketchRNN(SPEC, **RNN, attention="encoder").eval()
    assert redraw(network, drawings().float(), LABELS, 0.1, 0).shape[0] == 3
    with pytest.raises(UsageError, match="cannot draw from a class"):
        draw_classes(network, LABELS, 1.0, 0)


# Recurrence


@pytest.mark.parametrize("layers", [1, 2])
def test_the_loop_is_torchs_lstm(layers):
    lstm = StrokeLSTM(4, 6, layers, Dropout(0.0, "memory")).double()
    inputs, state = torch.randn(3, 7, 4, dtype=torch.float64), tuple(torch.randn(2, layers, 3, 6).double())
    for before in (None, state):
        found, plain = stepwise(lstm, inputs, before, lstm.cell), nn.LSTM.forward(lstm, inputs, before)
        torch.testing.assert_close(found, plain, atol=1e-12, rtol=0)


def test_the_candidates_dropout_is_fresh_and_only_in_training():
    lstm, inputs = StrokeLSTM(4, 6, 1, Dropout(0.5, "memory")), torch.randn(3, 7, 4)
    first, second = lstm(inputs)[0], lstm(inputs)[0]
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    again = lstm(inputs)[0]
    torch.manual_seed(1)
    assert torch.equal(again, lstm(inputs)[0]), "drawn from the global random state, which a run that goes on has kept"
    assert torch.equal(lstm.eval()(inputs)[0], nn.LSTM.forward(lstm, inputs)[0])


@pytest.mark.parametrize("cell", [StrokeLSTM, LayerNormLSTM])
@pytest.mark.parametrize("kind", ["tied", "memory"])
def test_dropout_leaves_evaluation_alone(cell, kind):
    torch.manual_seed(0)
    lstm, inputs = cell(4, 6, 2, Dropout(0.5, kind)), torch.randn(3, 7, 4)
    assert not torch.equal(lstm(inputs)[0], lstm(inputs)[0])
    assert torch.equal(lstm.eval()(inputs)[0], lstm(inputs)[0])


def test_recurrent_weights_are_orthogonal_and_the_forget_gate_is_open():
    lstm = StrokeLSTM(4, 6, 1, Dropout(0.0, "none"))
    for gate in lstm.weight_hh_l0.detach().chunk(4):
        torch.testing.assert_close(gate @ gate.T, torch.eye(6), atol=1e-5, rtol=0)
    assert (lstm.bias_ih_l0 + lstm.bias_hh_l0).detach().tolist() == [0.0] * 6 + [1.0] * 6 + [0.0] * 12


# Attention


def test_the_first_step_has_no_past_and_the_context_says_where():
    attention = PastAttention(3, 4).double()
    states, positions = torch.randn(2, 5, 3, dtype=torch.float64), torch.randn(2, 5, 2, dtype=torch.float64)
    found = attention(states, positions)
    assert torch.equal(found[:, 0], torch.zeros(2, 5, dtype=torch.float64))
    torch.testing.assert_close(found[:, 1], torch.cat([states[:, 0], positions[:, 0] - positions[:, 1]], -1))
    weights = attention.weights(attention.query(states[:, 1:]), attention.past(states, positions).keys, 1)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, dtype=torch.float64))
    assert (weights.triu(1) == 0).all()


def test_pieces_are_the_whole(monkeypatch):
    attention = PastAttention(3, 4).double()
    states = torch.randn(2, 9, 3, dtype=torch.float64, requires_grad=True)
    positions = torch.randn(2, 9, 2, dtype=torch.float64)
    whole = attention(states, positions)
    (gradient,) = torch.autograd.grad(whole.square().sum(), states)
    monkeypatch.setattr("lightning_modules.sketch.attention.PIECE", 160)
    found = attention(states, positions)
    torch.testing.assert_close(found, whole, atol=1e-12, rtol=0)
    torch.testing.assert_close(torch.autograd.grad(found.square().sum(), states)[0], gradient, atol=1e-12, rtol=0)


def test_half_precision_leaves_the_pen_where_it_was():
    """Small steps far from the origin, which bfloat16 would take for one point."""
    attention = PastAttention(3, 4)
    torch.nn.init.zeros_(attention.score.weight)  # all of the past alike
    positions = 3 + torch.arange(5.0)[None, :, None].expand(1, 5, 2) / 1000
    with torch.autocast("cpu", torch.bfloat16):
        states = torch.zeros(1, 5, 3, dtype=torch.bfloat16)
        found = attention(states, positions)[0, :, 3:]
        before = attention.past(states[:, :4], positions[:, :4])
        drawn = attention.step(states[:, 4:], positions[:, 4:], before)[0][0, :, 3:]
    wanted = -(torch.arange(5.0) + 1) / 2000  # from the mean of 0 … i − 1 to i
    wanted[0] = 0
    torch.testing.assert_close(found.float(), wanted[:, None].expand(5, 2), atol=2e-5, rtol=0)
    torch.testing.assert_close(drawn[0], found[4], atol=2e-5, rtol=0)


def test_slerp_keeps_to_the_sphere():
    first, last = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    torch.testing.assert_close(slerp(first, last, 0.5), torch.tensor([2.0, 2.0]) / 2**0.5)
    torch.testing.assert_close(slerp(first, last, 1.0), last)
    torch.testing.assert_close(slerp(first, 2 * first, 0.5), 1.5 * first)


# What cannot be


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"mixtures": 0}, r"model.mixtures is 0"),
        ({"decoder": 2.5}, r"model.decoder is 2.5"),
        ({"attention": "encoder"}, r"model.attention is 'encoder': choose one of none, past"),
        ({"attention": "all"}, r"model.attention is 'all'"),
        ({"cell": "gru"}, r"model.cell is 'gru': choose one of lstm, layer_norm"),
        ({"dropout": {"p": 0.1, "kind": "rows"}}, r"model.dropout.kind is 'rows': choose one of none, tied, memory"),
        ({"dropout": {"p": 1.0, "kind": "tied"}}, r"model.dropout.p is 1.0"),
    ],
)
def test_what_cannot_be_is_said(how, said):
    with pytest.raises(UsageError, match=said):
        SketchDecoder(SPEC, **{**SMALL, **how})
    with pytest.raises(UsageError, match=r"model\.latent is 0"):
        SketchRNN(SPEC, latent=0)


def test_other_data_is_refused_and_the_spec_goes_through_a_checkpoint():
    with pytest.raises(UsageError, match="models drawings, but the data is an ImageSpec: choose drawings"):
        SketchDecoder(ImageSpec(1, 8, 8, 17))
    assert spec_from_dict({**spec_to_dict(SPEC), "names": ["a", "b", "c"]}) == SPEC and hash(SPEC)
    with pytest.raises(UsageError, match="no class 'bb': the nearest it knows are b"):
        SPEC.number("bb")


def test_a_batch_counts_as_its_drawings():
    """Nats of a drawing do not depend on N_max, padding, order or partners; on eq. 9's literal sum they do."""
    network, strokes = SketchDecoder(SPEC, **SMALL).double().eval(), drawings()
    found = [reconstruction(parameters_of(network, own), own, False) for own in (strokes, padded_to(strokes, 12))]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)
    every = reconstruction(parameters_of(network, padded_to(strokes, 12)), padded_to(strokes, 12), True)
    assert (every.pens > found[0].pens + 0.1).all() and torch.allclose(every.offsets, found[0].offsets)
    other = copy.deepcopy(network)
    other.spec = SketchSpec(12, 5.0, 3, SPEC.names)
    assert torch.equal(parameters_of(other, strokes), parameters_of(network, strokes))
    assert torch.equal(ends_like(strokes).sum((1, 2)), torch.full((3,), 9.0).double())
