"""Sentences from a network: the most probable word each time, a beam of hypotheses, or drawn at random; batched."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.spec import CaptionSpec
from lightning_modules.captioning.network import Captioner
from lightning_modules.char_lm.generation import probabilities


class Hypotheses(NamedTuple):
    """For each of B images up to W sentences, the best first.

    codes: (B, W, T) with the start word, the end where there is one, then padding.
    log_probs: log p of the sentence (B, W), the end counted; −∞ where there is no sentence.
    scores: what they are ordered by (B, W); length-normalised, with the language model's part if there is one.
    """

    codes: Tensor
    log_probs: Tensor
    scores: Tensor


def silent_words(spec: CaptionSpec, unknown: bool = False) -> list[int]:
    """Codes that are never said: padding, the languages' starts, and, unless `unknown`, the unknown word."""
    return [spec.pad, *(spec.start(language) for language in spec.languages), *([] if unknown else [spec.unknown])]


def penalty(words: Tensor | int, power: float) -> Tensor | float:
    """((5 + n) / 6)^a, n the words with the end (Wu et al. 2016, arXiv 1609.08144, equation 14)."""
    return ((5 + words) / 6) ** power


def log_probabilities(logits: Tensor, silent: list[int]) -> Tensor:
    """(…, V): of all words, so that a sentence's sum is what teacher forcing gives it; silent ones −∞."""
    found = F.log_softmax(logits.float(), -1)
    found[..., silent] = -math.inf
    return found


@torch.no_grad()
def draw(
    network: Captioner,
    annotations: Tensor,
    starts: Tensor,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
    unknown: bool = False,
) -> Tensor:
    """Codes (B, T), one sentence for each image: start, words, end, padding.

    Args:
        annotations: (B, L, D).
        starts: the languages' (B,).
        temperature: 0: the most probable word each time (greedy); above: drawn, see `char_lm.generation`.
        top_k, top_p: draw only from so many most probable words, or from the nucleus.
        unknown: the unknown word may be said.
    """
    spec, silent = network.spec, silent_words(network.spec, unknown)
    memory = network.remember(annotations)
    state, said = network.begin(memory), [starts]
    over = torch.zeros_like(starts, dtype=torch.bool)
    for _ in range(spec.length - 1):
        logits, state = network.step(memory, state, said[-1])
        logits = log_probabilities(logits, silent)
        if temperature:
            words = torch.multinomial(probabilities(logits, temperature, top_k, top_p), 1, generator=generator)[:, 0]
        else:
            words = logits.argmax(1)
        said.append(words.masked_fill(over, spec.pad))
        over = over | (words == spec.end)
        if over.all():
            break
    codes = torch.stack(said, 1)
    return F.pad(codes, (0, spec.length - codes.shape[1]), value=spec.pad)


@torch.no_grad()
def beam_search(
    network: Captioner,
    annotations: Tensor,
    starts: Tensor,
    width: int,
    *,
    length_penalty: float = 0.7,
    keep_greedy: bool = False,
    unknown: bool = False,
    language_model: Captioner | None = None,
    lm_weight: float = 0.0,
) -> Hypotheses:
    """The best sentences that a beam of `width` hypotheses finds for each image.

    Of all continuations of an image's live hypotheses the best `width` are kept; those that end leave the beam, and of
    them too the best `width` are kept: width 1 is greedy. An image is done when no live hypothesis can overtake its
    best sentence, whatever its length: best score ≥ best live log p / ((5 + T) / 6)^a, T the longest sentence allowed.
    (Xu et al.'s own code narrows the beam by each sentence that ends, and is done when as many have ended.) What has
    not ended at T counts only where nothing has.

    Args:
        annotations: (B, L, D).
        starts: the languages' (B,).
        length_penalty: a of `penalty`, by which log p is divided.
        keep_greedy: the greedy sentence is a candidate too: without it a wider beam may score worse.
        unknown: the unknown word may be said.
        language_model, lm_weight: adds w log p(y) of a model without the image (shallow fusion).
    """
    spec, silent = network.spec, silent_words(network.spec, unknown)
    batch, most, device = len(starts), spec.length - 1, starts.device
    rows = torch.arange(batch, device=device)[:, None]
    models = [(network, 1.0)] + ([(language_model, lm_weight)] if language_model is not None and lm_weight else [])
    memories = [tuple(part.repeat_interleave(width, 0) for part in model.remember(annotations)) for model, _ in models]
    states = [model.begin(memory) for (model, _), memory in zip(models, memories, strict=True)]
    codes = torch.full((batch, width, spec.length), spec.pad, device=device)
    codes[:, :, 0] = starts[:, None]
    live = torch.full((batch, width), -math.inf, device=device)
    live[:, 0] = 0
    ended, scores = codes.clone(), live.new_full((batch, width), -math.inf)
    for place in range(1, spec.length):
        last, found = codes[:, :, place - 1].flatten(), 0
        for number, (model, weight) in enumerate(models):
            logits, states[number] = model.step(memories[number], states[number], last)
            found = found + weight * log_probabilities(logits, silent)
        words = found.shape[1]
        best, chosen = (live[:, :, None] + found.view(batch, width, words)).flatten(1).topk(width, 1)
        parent, word = chosen // words, chosen % words
        extended = codes[rows, parent]
        extended[:, :, place] = word
        ends = best.isfinite() & (word == spec.end)
        just_now = (best / penalty(place, length_penalty)).masked_fill(~ends, -math.inf)
        scores, order = torch.cat([scores, just_now], 1).sort(dim=1, descending=True, stable=True)
        scores, ended = scores[:, :width], torch.cat([ended, extended], 1)[rows, order[:, :width]]
        live = best.masked_fill(ends, -math.inf)
        codes = extended
        bound = live.amax(1) / penalty(most, length_penalty)
        live = live.masked_fill((scores[:, 0] >= bound)[:, None], -math.inf)
        if not live.isfinite().any():
            break
        moved = (rows * width + parent).flatten()
        states = [tuple(part[moved] for part in state) for state in states]
    nothing = ~scores[:, :1].isfinite()
    ended = torch.where(nothing[:, :, None], codes, ended)
    scores = torch.where(nothing, live / penalty(most, length_penalty), scores)
    if keep_greedy:
        greedy = draw(network, annotations, starts, unknown=unknown)[:, None]
        score = 0
        for model, weight in models:
            score = score + weight * rescore(model, annotations, greedy)
        score = score / penalty(said(greedy, spec), length_penalty)
        same = (ended == greedy).all(2).any(1, keepdim=True)
        ended = torch.cat([ended, greedy], 1)
        scores = torch.cat([scores, score.masked_fill(same, -math.inf)], 1)
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    ended, scores = ended[rows, order][:, :width], scores[:, :width]
    log_probs = rescore(network, annotations, ended).masked_fill(~scores.isfinite(), -math.inf)
    return Hypotheses(ended, log_probs, scores)


@torch.no_grad()
def say(
    network: Captioner,
    annotations: Tensor,
    starts: Tensor,
    width: int,
    length_penalty: float,
    language_model: Captioner | None,
    lm_weight: float,
) -> tuple[dict[str, Tensor], Tensor]:
    """Each image's `beam` and `greedy` sentence (B, T); and does the greedy one score better, 0 or 1 (B,)?"""
    found = beam_search(
        network,
        annotations,
        starts,
        width,
        length_penalty=length_penalty,
        language_model=language_model,
        lm_weight=lm_weight,
    )
    greedy = draw(network, annotations, starts)
    log_p = rescore(network, annotations, greedy[:, None])[:, 0]
    if language_model is not None:
        log_p = log_p + lm_weight * rescore(language_model, annotations, greedy[:, None])[:, 0]
    score = log_p / penalty(said(greedy, network.spec), length_penalty)
    return {"beam": found.codes[:, 0], "greedy": greedy}, (score > found.scores[:, 0] + 1e-4).float()


def said(codes: Tensor, spec: CaptionSpec) -> Tensor:
    """How many words of each sentence (…, T) were said, the end counted and the start not."""
    return (codes[..., 1:] != spec.pad).sum(-1)


@torch.no_grad()
def rescore(network: Captioner, annotations: Tensor, codes: Tensor) -> Tensor:
    """log p by teacher forcing of each image's sentences (B, W, T): (B, W)."""
    width = codes.shape[1]
    flat = codes.flatten(0, 1)
    taught = network.teach(annotations.repeat_interleave(width, 0), flat[:, :-1], attention=False)
    return -word_losses(taught.logits, flat[:, 1:], network.spec.pad).sum(1).view(-1, width)


def word_losses(logits: Tensor, targets: Tensor, pad: int) -> Tensor:
    """−log p of each target word (B, T), 0 where it is padding."""
    return F.cross_entropy(logits.float().transpose(1, 2), targets, ignore_index=pad, reduction="none")
