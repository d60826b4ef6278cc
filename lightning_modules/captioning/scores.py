"""How like the references sentences are: BLEU as sacrebleu and as the papers count it, CIDEr-D, ROUGE-L.

Sentences are normalised words between single blanks: nothing here tokenises them again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from sacrebleu.metrics import BLEU
from torchmetrics.text.rouge import ROUGEScore

# The signs that coco-caption leaves out where they stand alone.
PUNCTUATION = frozenset(["''", "'", "``", "`", '"', ".", "?", "!", ",", ":", "-", "--", "...", "…", ";"])
ORDERS = (1, 2, 3, 4)
SIGMA = 6.0  # of CIDEr-D's penalty of lengths that differ

Sentences = Sequence[str]
References = Sequence[Sequence[str]]  # of each image


def without_punctuation(sentence: str, language: str) -> str:
    """English without signs that stand alone; hyphens inside words stay. Other languages as they are."""
    if language != "en":
        return sentence
    return " ".join(word for word in sentence.split(" ") if word not in PUNCTUATION)


def bleu_metric(order: int) -> BLEU:
    return BLEU(tokenize="none", smooth_method="none", max_ngram_order=order, force=True)


def in_columns(references: References) -> list[list[str | None]]:
    """One list for each reference number, as sacrebleu wants them; None where an image has fewer."""
    most = max(map(len, references))
    return [[own[place] if place < len(own) else None for own in references] for place in range(most)]


def bleu(sentences: Sentences, references: References) -> dict[str, float]:
    """`bleu_1` … `bleu_4` of the corpus, 0 … 1, and `length_ratio`, words over those of the nearest references."""
    found = {}
    for order in ORDERS:
        score = bleu_metric(order).corpus_score(list(sentences), in_columns(references))
        found[f"bleu_{order}"] = score.score / 100
    return found | {"length_ratio": score.sys_len / max(1, score.ref_len)}


def bleu_paper(sentences: Sentences, references: References) -> dict[str, float]:
    """`bleu_1_paper` … without the brevity penalty, as Xu et al. report it."""
    found = {}
    for order in ORDERS:
        score = bleu_metric(order).corpus_score(list(sentences), in_columns(references))
        found[f"bleu_{order}_paper"] = score.score / 100 / score.bp if score.bp else 0.0
    return found


def bleu_signature(references: References) -> str:
    """The settings, as sacrebleu prints them."""
    metric = bleu_metric(4)
    metric.corpus_score([own[0] for own in references], in_columns(references))
    return str(metric.get_signature())


def bleu_counts(sentences: Sentences, references: References) -> np.ndarray:
    """(N, 10): of each image the right and all n-grams of four orders, its words, those of the nearest reference."""
    metric, rows = bleu_metric(4), []
    for sentence, own in zip(sentences, references, strict=True):
        score = metric.corpus_score([sentence], [[reference] for reference in own])
        rows.append([*score.counts, *score.totals, score.sys_len, score.ref_len])
    return np.array(rows, np.float64).reshape(-1, 10)


def bleu_4_of(counts: np.ndarray) -> float:
    """BLEU-4 of the images with these `bleu_counts`: of any resample of them."""
    right, totals, words, nearest = np.split(counts.sum(0), [4, 8, 9])
    if not right.all() or not words[0]:
        return 0.0
    brevity = min(0.0, 1 - nearest[0] / words[0])
    return float(np.exp(np.log(right / totals).mean() + brevity))


def rouge_l(sentences: Sentences, references: References) -> float:
    """ROUGE-L's F of the best reference, a mean over images. (The default tokeniser finds no word in Persian.)"""
    metric = ROUGEScore(rouge_keys="rougeL", normalizer=lambda text: text, tokenizer=str.split, accumulate="best")
    return metric(list(sentences), [list(own) for own in references])["rougeL_fmeasure"].item()


def n_grams(sentence: str) -> Counter[tuple[str, ...]]:
    """How often each of one to four words in a row stands in it."""
    words = sentence.split()
    return Counter(tuple(words[first : first + n]) for n in ORDERS for first in range(len(words) - n + 1))


class CiderD:
    """CIDEr-D (Vedantam et al. 2015, arXiv 1411.5726), × 10 as pycocoevalcap returns it; papers print × 100.

    An n-gram's weight is its count times ln(images / images with it in a reference); a reference's similarity is the
    cosine with the sentence's counts clipped to its own, times exp(−(difference in length)² / (2 · 6²)); the figure is
    the mean over references and over n.

    Args:
        references: of the images that document frequencies are counted in.
    """

    def __init__(self, references: References):
        self.images = math.log(max(1, len(references)))
        self.frequency = Counter(gram for own in references for gram in set().union(*map(n_grams, own)))
        self.known: dict[str, tuple[list[dict], list[float], int]] = {}

    def vectors(self, sentence: str) -> tuple[list[dict], list[float], int]:
        """For each n its n-grams' weights and their length as a vector; and how many pairs of words there are."""
        if sentence not in self.known:
            weights: list[dict] = [{} for _ in ORDERS]
            for gram, count in n_grams(sentence).items():
                rarity = self.images - math.log(max(1, self.frequency[gram]))
                weights[len(gram) - 1][gram] = count * rarity
            lengths = [math.sqrt(sum(value**2 for value in own.values())) for own in weights]
            self.known[sentence] = weights, lengths, max(0, len(sentence.split()) - 1)
        return self.known[sentence]

    def similarity(self, sentence: str, reference: str) -> float:
        (own, own_lengths, pairs), (other, lengths, other_pairs) = self.vectors(sentence), self.vectors(reference)
        found = 0.0
        for mine, its, length in zip(own, other, map(lambda a, b: a * b, own_lengths, lengths), strict=True):
            if length:
                found += sum(min(value, its.get(gram, 0)) * its.get(gram, 0) for gram, value in mine.items()) / length
        return 10 * found / len(ORDERS) * math.exp(-((pairs - other_pairs) ** 2) / (2 * SIGMA**2))

    def __call__(self, sentences: Sentences, references: References) -> np.ndarray:
        """Of each image's sentence (N,)."""
        found = [
            sum(self.similarity(sentence, reference) for reference in own) / len(own)
            for sentence, own in zip(sentences, references, strict=True)
        ]
        return np.array(found, np.float64)


def cider_d(sentences: Sentences, references: References) -> np.ndarray:
    """CIDEr-D of each image's sentence (N,), document frequencies from these references."""
    return CiderD(references)(sentences, references)
