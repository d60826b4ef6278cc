"""Generation against a step-by-step reference; top-k and nucleus against their definitions."""

from __future__ import annotations

import pytest
import torch

from datamodules.spec import TextSpec
from lightning_modules.char_lm import CharGRU, CharLSTM
from lightning_modules.char_lm.generation import generate, probabilities

SPEC = TextSpec("abcdefgh")


@pytest.mark.parametrize("network", [CharLSTM, CharGRU])
@pytest.mark.parametrize("how", [{}, {"top_k": 3}, {"top_p": 0.6}, {"top_k": 5, "top_p": 0.9, "temperature": 0.7}])
@torch.no_grad()
def test_text_is_that_of_the_whole_text_read_anew_for_every_code(network, how):
    lm = network(SPEC, embedding=4, hidden=9, layers=2, dropout=0.5).double()
    for p in lm.parameters():
        p.mul_(3)  # far from uniform
    prompts = torch.randint(8, (4, 6))
    lm.train()
    drawn = generate(lm, prompts, 20, **how, generator=torch.Generator().manual_seed(5))
    assert lm.training and drawn.shape == (4, 20)
    lm.eval()
    generator, text = torch.Generator().manual_seed(5), prompts
    for _ in range(20):
        chances = probabilities(lm(text)[0][:, -1].float(), **how)
        text = torch.cat([text, torch.multinomial(chances, 1, generator=generator)], 1)
    assert torch.equal(drawn, text[:, 6:])


def test_every_row_has_its_own_temperature():
    lm = CharGRU(SPEC, embedding=4, hidden=9)
    heat = torch.tensor([1e-4, 1e-4, 100.0, 100.0])
    drawn = generate(lm, torch.zeros(4, 1, dtype=torch.long), 60, heat, generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[2], drawn[3])
    assert len(drawn[2].unique()) == 8


def test_nothing_asked_nothing_drawn():
    lm = CharGRU(SPEC, embedding=4, hidden=9)
    assert generate(lm, torch.zeros(2, 3, dtype=torch.long), 0).shape == (2, 0)


def test_top_k_keeps_the_k_most_probable_in_proportion():
    logits = torch.randn(6, 30)
    full, kept = logits.softmax(-1), probabilities(logits, top_k=4)
    for row in range(6):
        most = set(full[row].topk(4).indices.tolist())
        assert set(kept[row].nonzero().flatten().tolist()) == most
        places = list(most)
        torch.testing.assert_close(kept[row][places], full[row][places] / full[row][places].sum())
    assert torch.equal(probabilities(logits, top_k=1).argmax(-1), logits.argmax(-1))
    torch.testing.assert_close(probabilities(logits, top_k=99), full)


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 1.0])
def test_the_nucleus_is_the_smallest_set_of_that_probability(top_p):
    logits = torch.randn(6, 30) * 2
    full, kept = logits.softmax(-1), probabilities(logits, top_p=top_p)
    for row in range(6):
        chosen = kept[row] > 0
        total, least = full[row][chosen].sum(), full[row][chosen].min()
        assert total >= top_p - 1e-6
        assert total - least < top_p, "one fewer would do"
        assert top_p == 1.0 or full[row][~chosen].max() <= least
        torch.testing.assert_close(kept[row][chosen], full[row][chosen] / total)


def test_top_k_comes_before_the_nucleus():
    chances = torch.tensor([[0.4, 0.3, 0.2, 0.1]])
    kept = probabilities(chances.log(), top_k=2, top_p=0.55)  # of 4/7 and 3/7 the first is enough
    torch.testing.assert_close(kept, torch.tensor([[1.0, 0, 0, 0]]))


def test_equal_chances_at_the_border_are_still_k():
    assert (probabilities(torch.zeros(1, 10), top_k=3) > 0).tolist() == [[True] * 3 + [False] * 7]


def test_temperature_divides_the_logits():
    logits = torch.randn(3, 5)
    torch.testing.assert_close(probabilities(logits, 0.5), (2 * logits).softmax(-1))
