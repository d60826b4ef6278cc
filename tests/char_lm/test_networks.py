"""The networks: published parameter counts, what they compute, the state, tying, dropout."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from datamodules.errors import UsageError
from datamodules.spec import ImageSpec, TextSpec
from lightning_modules.char_lm import CharGRU, CharLSTM
from lightning_modules.char_lm.recurrent import select_rows, zero_state

SHAKESPEARE = TextSpec("".join(map(chr, range(65))))
SMALL = TextSpec("abcdefg")
NETWORKS = pytest.mark.parametrize("network", [CharLSTM, CharGRU])


def made(network, **how):
    return network(SMALL, **{"embedding": 5, "hidden": 6, "layers": 2, **how}).eval()


@pytest.mark.parametrize(
    ("network", "hidden", "parameters"),
    [
        (CharGRU, 256, 428_097),
        (CharGRU, 512, 1_232_705),
        (CharGRU, 1024, 4_021_569),
        (CharLSTM, 256, 559_681),
        (CharLSTM, 512, 1_626_945),
        (CharLSTM, 1024, 5_334_337),
    ],
)
def test_the_published_parameter_counts(network, hidden, parameters):
    made = network(SHAKESPEARE, embedding=256, hidden=hidden, layers=1)
    assert sum(p.numel() for p in made.parameters()) == parameters


def gru_step(x, h, w_x, w_h, b_x, b_h):
    """Cho et al. 2014, with the reset gate after the recurrent product."""
    (r_x, z_x, n_x), (r_h, z_h, n_h) = (x @ w_x.T + b_x).chunk(3, -1), (h @ w_h.T + b_h).chunk(3, -1)
    r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
    return (1 - z) * torch.tanh(n_x + r * n_h) + z * h


def lstm_step(x, h, c, w_x, w_h, b_x, b_h):
    i, f, g, o = (x @ w_x.T + b_x + h @ w_h.T + b_h).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


@NETWORKS
@torch.no_grad()
def test_logits_are_those_of_the_equations_step_by_step(network):
    """Both layers transcribed, carried over two calls."""
    lm = made(network).double()
    codes = torch.randint(7, (3, 9))
    first, state = lm(codes[:, :4])
    found = torch.cat([first, lm(codes[:, 4:], state)[0]], 1)
    states = [[torch.zeros(3, 6, dtype=torch.double)] * 2 for _ in range(2)]
    for step in range(9):
        x = lm.embedding.weight[codes[:, step]]
        for layer in range(2):
            weights = [getattr(lm.recurrent, f"{name}_l{layer}") for name in
                       ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]  # fmt: skip
            if network is CharLSTM:
                states[layer] = list(lstm_step(x, *states[layer], *weights))
            else:
                states[layer][0] = gru_step(x, states[layer][0], *weights)
            x = states[layer][0]
        torch.testing.assert_close(found[:, step], x @ lm.output.weight.T + lm.output.bias)


@NETWORKS
@torch.no_grad()
def test_no_logit_depends_on_what_comes_after(network):
    lm = made(network)
    codes = torch.randint(7, (2, 8))
    changed = codes.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % 7
    first, second = lm(codes)[0], lm(changed)[0]
    assert torch.equal(first[:, :5], second[:, :5]) and not torch.equal(first[:, 5], second[:, 5])


@NETWORKS
@torch.no_grad()
def test_no_state_is_the_zero_state_and_rows_can_be_set_to_it(network):
    lm = made(network)
    codes = torch.randint(7, (3, 4))
    zero = zero_state(lm, 3, torch.device("cpu"))
    assert torch.equal(lm(codes)[0], lm(codes, zero)[0])
    _, state = lm(codes)
    kept = select_rows(state, torch.tensor([True, False, True]))
    found = lm(codes, kept)[0]
    torch.testing.assert_close(found[1], lm(codes)[0][1])
    torch.testing.assert_close(found[0], lm(codes, state)[0][0])
    assert not torch.allclose(found[0], lm(codes)[0][0])


@NETWORKS
def test_tied_weights_are_one_and_learn_from_both_ends(network):
    for hidden in (5, 6):
        lm = made(network, tied=True, hidden=hidden)
        assert lm.output.weight is lm.embedding.weight
        untied = made(network, hidden=hidden)
        fewer = 7 * hidden - (5 * hidden if hidden != 5 else 0)
        difference = sum(p.numel() for p in untied.parameters()) - sum(p.numel() for p in lm.parameters())
        assert difference == fewer
        logits, _ = lm(torch.tensor([[0, 1]]))
        F.cross_entropy(logits[0], torch.tensor([1, 2])).backward()
        assert (lm.embedding.weight.grad != 0).any(1).all()  # codes never read learn from the softmax
        assert logits.shape == (1, 2, 7)


@NETWORKS
def test_dropout_is_where_it_was_asked_for(network):
    torch.manual_seed(0)
    codes = torch.randint(7, (4, 50))
    for how, places in [
        ({"dropout": 0.5}, (0.5, 0.5, 0.5)),
        ({"dropout": 0.5, "embedding_dropout": 0.0, "output_dropout": 0.1}, (0.0, 0.5, 0.1)),
        ({"dropout": 0.0, "output_dropout": 0.3}, (0.0, 0.0, 0.3)),
    ]:
        lm = made(network, **how)
        assert (lm.embedding_dropout.p, lm.recurrent.dropout, lm.output_dropout.p) == places
        still = lm(codes)[0]
        assert torch.equal(still, lm(codes)[0])
        assert not torch.equal(lm.train()(codes)[0], still)
    assert made(network, layers=1, dropout=0.5).recurrent.dropout == 0  # no place between one layer


@NETWORKS
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"hidden": 0}, "model.hidden is 0"),
        ({"layers": 1.5}, "model.layers is 1.5"),
        ({"embedding": -1}, "model.embedding is -1"),
        ({"dropout": 1.0}, "model.dropout is 1.0"),
        ({"output_dropout": -0.1}, "model.output_dropout is -0.1"),
    ],
)
def test_an_impossible_size_is_one_sentence(network, how, message):
    with pytest.raises(UsageError, match=message):
        made(network, **how)


def test_images_are_refused_by_name():
    with pytest.raises(UsageError, match=r"CharLSTM models text, but the data is an ImageSpec: .*data=pydocs"):
        CharLSTM(ImageSpec(1, 8, 8, 17))
