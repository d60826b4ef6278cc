"""Beam search against exhaustive search and against its own words scored again; greedy and drawn sentences."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from datamodules.spec import CaptionSpec
from lightning_modules.captioning.decoding import beam_search, draw, penalty, rescore, said
from lightning_modules.captioning.network import Taught
from tests.captioning.test_networks import annotations, every_network, make

# Four words can be said: the end and three more.
SPEC = CaptionSpec(1, 4, 4, 2, ("<pad>", "<end>", "<unknown>", "<en>", "A", "B", "C"), ("en",), 5)
START, T = 3, 4
STARTS = torch.full((3,), START)


class Table(nn.Module):
    """p of the next word by the words so far; what the image is changes nothing but `shift`."""

    def __init__(self, spec: CaptionSpec, chances: dict[str, dict[str, float]]):
        super().__init__()
        self.spec, self.chances = spec, chances

    def logits_of(self, said: list[int]) -> torch.Tensor:
        found = torch.full((len(self.spec.vocabulary),), 1e-12)
        # Rows that are no hypothesis any more may hold anything.
        known = self.chances.get("".join(self.spec.vocabulary[code] for code in said), {})
        for word, chance in known.items():
            found[self.spec.codes[word]] = chance
        return found.log()

    def remember(self, annotations):
        return (annotations,)

    def begin(self, memory):
        return (torch.zeros(len(memory[0]), 0, dtype=torch.int64),)

    def step(self, memory, state, codes):
        so_far = torch.cat([state[0], codes[:, None]], 1)
        return torch.stack([self.logits_of(row[1:].tolist()) for row in so_far]), (so_far,)

    def teach(self, annotations, codes, attention=True):
        state, found = self.begin((annotations,)), []
        for place in range(codes.shape[1]):
            so_far = torch.cat([state[0], codes[:, place : place + 1]], 1)
            state = (so_far,)
            found.append(torch.stack([self._known(row[1:].tolist()) for row in so_far]))
        return Taught(torch.stack(found, 1), None)

    def _known(self, said):
        return self.logits_of(said) if self.spec.pad not in said and self.spec.end not in said else torch.zeros(7)


def example() -> Table:
    """Greedy's prefix falls out of the wider beam, which ends worse (captions where width 2 scores below width 1)."""
    four = {"A": 0.25, "B": 0.25, "C": 0.25, "<end>": 0.25}
    after = {"A": 0.3, "B": 0.25, "C": 0.25, "<end>": 0.2}
    chances = {"": {"A": 0.5, "B": 0.45, "C": 0.05}, "A": after, "B": {"A": 0.5, "C": 0.5}, "AA": {"<end>": 1.0}}
    for prefix in ("BA", "BC"):
        chances[prefix] = four
        chances |= {prefix + word: {"<end>": 1.0} for word in "ABC"}
    return Table(SPEC, chances)


def test_a_wider_beam_may_be_worse_and_never_with_greedy_kept():
    table, a = example(), torch.zeros(1, 1, 1)
    one, two = (beam_search(table, a, STARTS[:1], width, length_penalty=0.0) for width in (1, 2))
    assert one.log_probs[0, 0].exp() == pytest.approx(0.15, rel=1e-4)
    assert two.log_probs[0, 0].exp() == pytest.approx(0.05625, rel=1e-4)
    kept = beam_search(table, a, STARTS[:1], 2, length_penalty=0.0, keep_greedy=True)
    assert torch.equal(kept.codes[0, 0], one.codes[0, 0]) and kept.scores.shape == (1, 2)
    again = beam_search(table, a, STARTS[:1], 1, length_penalty=0.0, keep_greedy=True)
    assert torch.equal(again.codes, one.codes), "greedy's sentence is not there twice"


def test_a_sentence_that_ends_does_not_narrow_the_beam():
    four = {"A": 0.25, "B": 0.25, "C": 0.25, "<end>": 0.25}
    chances = {"": {"<end>": 0.4, "A": 0.35, "B": 0.25}, "A": {"A": 0.51, "B": 0.49}, "AA": four, "AB": {"<end>": 1.0}}
    found = beam_search(Table(SPEC, chances), torch.zeros(1, 1, 1), STARTS[:1], 2, length_penalty=3.0)
    assert found.codes[0, 0].tolist() == [START, SPEC.codes["A"], SPEC.codes["B"], 1, 0]


def random_table(seed: int) -> Table:
    generator = torch.Generator().manual_seed(seed)
    chances = {}
    for length in range(T):
        for prefix in itertools.product("ABC", repeat=length):
            drawn = torch.rand(4, generator=generator).pow(2)
            values = (drawn / drawn.sum()).tolist()
            chances["".join(prefix)] = dict(zip(("A", "B", "C", "<end>"), values, strict=True))
    return Table(SPEC, chances)


def exhaustive(table: Table, power: float) -> tuple[float, list[int]]:
    """The best of all sentences that end within T words."""
    best = (-math.inf, [])
    for length in range(T):
        for words in itertools.product("ABC", repeat=length):
            log_p = sum(math.log(table.chances["".join(words[:n])][word]) for n, word in enumerate(words))
            log_p += math.log(table.chances["".join(words)]["<end>"])
            score = log_p / penalty(length + 1, power)
            best = max(best, (score, [SPEC.codes[word] for word in words]))
    return best


@pytest.mark.parametrize("power", [0.0, 0.7])
@pytest.mark.parametrize("seed", range(4))
def test_a_beam_wide_enough_is_exhaustive_and_one_of_width_1_greedy(seed, power):
    table, a = random_table(seed), torch.zeros(1, 1, 1)
    found = beam_search(table, a, STARTS[:1], 4**T, length_penalty=power)
    score, words = exhaustive(table, power)
    assert found.scores[0, 0].item() == pytest.approx(score, abs=1e-5)
    assert found.codes[0, 0].tolist() == ([START, *words, 1] + [0] * 5)[:5]
    one = beam_search(table, a, STARTS[:1], 1, length_penalty=power)
    torch.testing.assert_close(one.codes[:, 0], draw(table, a, STARTS[:1]))


@pytest.mark.parametrize("width", [1, 2, 3, 5])
@pytest.mark.parametrize("power", [0.0, 0.7])
@every_network
def test_scores_are_those_of_the_returned_sentences_and_images_do_not_meet(kind, width, power):
    network = make(kind)
    a, starts = annotations(network, 5), torch.tensor([3, 4, 3, 4, 3])
    found = beam_search(network, a, starts, width, length_penalty=power, unknown=True)
    there = found.scores.isfinite()
    assert there[:, 0].all() and (found.codes[:, :, 0] == starts[:, None]).all()
    again = rescore(network, a, found.codes)
    words = said(found.codes, network.spec)
    torch.testing.assert_close((again / penalty(words, power))[there].float(), found.scores[there], atol=1e-5, rtol=0)
    assert (found.scores.diff(dim=1)[there[:, 1:]] <= 0).all()
    order = torch.tensor([4, 2, 0, 1, 3])
    other = beam_search(network, a[order], starts[order], width, length_penalty=power, unknown=True)
    assert torch.equal(other.codes, found.codes[order])
    alone = beam_search(network, a[2:3], starts[2:3], width, length_penalty=power, unknown=True)
    assert torch.equal(alone.codes[0], found.codes[2])
    if width == 1:
        assert torch.equal(found.codes[:, 0], draw(network, a, starts, unknown=True))
    kept = beam_search(network, a, starts, width, length_penalty=power, unknown=True, keep_greedy=True)
    greedy = draw(network, a, starts, unknown=True)
    own = rescore(network, a, greedy[:, None])[:, 0] / penalty(said(greedy, network.spec), power)
    assert (kept.scores[:, 0] >= own - 1e-5).all()


@every_network
def test_silent_words_are_never_said(kind):
    network = make(kind)
    a, starts = annotations(network, 5), torch.tensor([3, 4, 3, 4, 3])
    beams = beam_search(network, a, starts, 3)
    found = beams.codes[beams.scores.isfinite()][:, 1:]
    drawn = draw(network, a, starts, temperature=3.0, generator=torch.Generator().manual_seed(0))[:, 1:]
    for codes in (found, drawn):
        assert not torch.isin(codes, torch.tensor([2, 3, 4])).any()
        ended = (codes == 1).int().cumsum(-1)
        assert ((codes == 0) == (ended - (codes == 1).int() > 0)).all(), "padding after the end and only there"


def test_a_language_model_changes_the_score_by_its_weight():
    network, other = make("gru"), make("lstm", image=False)
    a, starts = annotations(network), torch.tensor([3, 4, 3])
    found = beam_search(network, a, starts, 3, length_penalty=0.0, language_model=other, lm_weight=0.5)
    both = rescore(network, a, found.codes) + 0.5 * rescore(other, a, found.codes)
    there = found.scores.isfinite()
    torch.testing.assert_close(both[there].float(), found.scores[there], atol=1e-5, rtol=0)


@every_network
def test_drawn_sentences_follow_the_probabilities(kind):
    network = make(kind)
    a = annotations(network, 1).expand(4000, -1, -1)
    starts = torch.full((4000,), 3)
    drawn = draw(network, a, starts, temperature=1.0, generator=torch.Generator().manual_seed(0), unknown=True)
    logits, _ = network.step(network.remember(a[:1]), network.begin(network.remember(a[:1])), starts[:1])
    logits[:, [0, 3, 4]] = -math.inf
    expected = logits.softmax(1)[0]
    shares = torch.bincount(drawn[:, 1], minlength=len(expected)) / 4000
    assert (shares - expected).abs().max() < 0.04
    most_probable = draw(network, a[:3], starts[:3], temperature=1.0, top_k=1)
    assert torch.equal(most_probable, draw(network, a[:3], starts[:3]))
