"""The task: sentences about images, taught by true ones and judged by those the network says itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.captions.batches import CaptionBatch
from datamodules.captions.facts import fact_of_row
from datamodules.captions.grammar import TEMPLATES
from datamodules.captions.words import GRAMMARS, decode_sentence
from datamodules.errors import UsageError
from lightning_modules.base import MakeOptimizer, MakeScheduler, Measured, Ratio, Task
from lightning_modules.captioning.baselines import best_constant, nearest_captions
from lightning_modules.captioning.captions_of_folder import caption_folder, check_caption
from lightning_modules.captioning.criteria import (
    Presence,
    share_of_truth,
    smoothed_losses,
    spread_penalty,
)
from lightning_modules.captioning.decoding import beam_search, draw, silent_words, word_losses
from lightning_modules.captioning.judging import cells_on, hits, judge, named_words, object_masks
from lightning_modules.captioning.network import Captioner
from lightning_modules.captioning.report import report_sections
from lightning_modules.captioning.scores import (
    bleu,
    bleu_counts,
    bleu_paper,
    cider_d,
    rouge_l,
    without_punctuation,
)
from lightning_modules.captioning.show_attend_tell import ShowAttendTell
from reporting.load import load_run
from reporting.report import Section

GREEDY_ITEMS = 200  # validation images that are described after every epoch
NEAREST_ITEMS = 2000  # training images among which the nearest is sought
WAYS = ("beam", "greedy")


class Captioning(Task):
    """−Σ log p of true words, taught with the true words before them (teacher forcing).

    The loss is the sum over a batch's words divided by their number, `<end>` counted, the start that says the language
    not; plus `doubly_stochastic` · Σ_i (1 − Σ_t α_ti)² / L, plus `presence` · a cross-entropy of which digits and
    colours a scene has, on the encoder's features.

    Logs `loss`, nats a word, for train, val and test; for val `exact`, the share of 200 scenes of which the greedy
    sentence is true. For test, of the sentences of a beam, those of greedy decoding under `greedy_…`: `bleu_1` … `4`,
    `bleu_n_paper`, `cider_d`, `rouge_l`, `words`, `distinct`, `length_ratio`, `other_language`; on scenes also `exact`,
    `exact_1` … `3` by the number of digits, `parsed`, `count`, `colour`, `digit`, `place` (see `judging.judge`), and of
    teacher-forced attention `hit_colour`, `hit_digit`, `attention_hit` (at a digit's first word), beside `hit_chance`,
    `hit_shuffled` (another image's attention) and `attention_mass`; on photographs `unknown_words`, `human_…` (its
    first true sentence beside the others) and `bleu_4_3refs`. Test loss is over all true sentences; `excess` is
    nats a sentence beyond the ln 5 that no choice among five can avoid; `loss_shuffled` is that of another image.
    Figures of a second language end in its name. Baselines: `constant_…` and `nearest_…`.

    Args:
        network: a `Captioner`.
        optimizer: parameters → optimizer.
        scheduler: (optimizer, total_steps=…) → a learning-rate schedule stepped after every batch.
        doubly_stochastic: λ.
        scheduled_sampling: k of the decay with which input words are the network's own (Bengio et al. 2015); it is no
            consistent estimator (Huszár 2015). None: teacher forcing throughout. Recurrent decoders only.
        label_smoothing: in training only.
        presence: weight of that loss, on data that knows its scenes' facts.
        presence_alone: for this first part of training it is the only one.
        beam, length_penalty: of the test's sentences.
        language_model: folder of a run with model.image=false, whose log p is added with `lm_weight`.
        seed: of drawn sentences and of the baselines.

    Raises:
        UsageError: a number is impossible.
    """

    bar = ("loss", "exact")

    def __init__(
        self,
        network: Captioner,
        optimizer: MakeOptimizer,
        scheduler: MakeScheduler,
        doubly_stochastic: float = 0.0,
        scheduled_sampling: float | None = None,
        label_smoothing: float = 0.0,
        presence: float = 2.0,
        presence_alone: float = 0.1,
        beam: int = 3,
        length_penalty: float = 0.7,
        language_model: str | None = None,
        lm_weight: float = 0.0,
        seed: int = 0,
    ):
        super().__init__(network, optimizer, scheduler)
        if len(network.spec.vocabulary) < 10:
            raise UsageError(
                f"The captions have {len(network.spec.vocabulary)} words in all, but at least 10 are needed to say "
                "anything: give more captions, or a smaller data.least_count."
            )
        for name, value in {
            "doubly_stochastic": doubly_stochastic,
            "presence": presence,
            "lm_weight": lm_weight,
        }.items():
            if not 0 <= value < math.inf:
                raise UsageError(f"task.module.{name} is {value}, but it must be a number, 0 or more.")
        for name, value in {"label_smoothing": label_smoothing, "presence_alone": presence_alone}.items():
            if not 0 <= value < 1:
                raise UsageError(f"task.module.{name} is {value}, but it must be from 0 up to, not including, 1.")
        if not isinstance(beam, int) or not 1 <= beam <= 100:
            raise UsageError(f"beam is {beam}, but it must be a whole number from 1 to 100.")
        if not 0 <= length_penalty < math.inf:
            raise UsageError(f"length_penalty is {length_penalty}, but it must be a number, 0 or more.")
        if scheduled_sampling is not None and not 0 < scheduled_sampling < math.inf:
            raise UsageError(
                f"task.module.scheduled_sampling is {scheduled_sampling}, but it must be above 0, or null."
            )
        if scheduled_sampling is not None and not isinstance(network, ShowAttendTell):
            raise UsageError(
                "task.module.scheduled_sampling needs words one after the other, which a transformer is not trained "
                "by: leave it null, or choose model=show_attend_tell."
            )
        self.doubly_stochastic, self.scheduled_sampling = doubly_stochastic, scheduled_sampling
        self.label_smoothing, self.presence_weight, self.presence_alone = label_smoothing, presence, presence_alone
        self.beam, self.length_penalty, self.lm_weight, self.seed = beam, length_penalty, lm_weight, seed
        self.presence = Presence(network.encoder.features) if presence and network.encoder.image else None
        self.language_path = language_model
        self.blind: list[Captioner] = []  # the language model; in a list, so that it is no part of the checkpoint
        self.on_digits: dict[str, tuple[np.ndarray, dict[str, np.ndarray]]] = {}  # of each test, made when it begins

    def check_stages(self, run: Any) -> None:
        if self.lm_weight and self.language_path is None:
            raise UsageError(
                "task.module.lm_weight needs task.module.language_model=RUN, trained with model.image=false."
            )
        if self.language_path is not None:
            other, spec, _ = load_run(Path(str(self.language_path)))
            if spec.vocabulary != self.network.spec.vocabulary:
                raise UsageError(f"'{self.language_path}' has other words than this run: train it on the same data.")
            self.blind = [other.eval()]
        if "caption" in run.config.stages:
            check_caption(run, self.network.spec)

    # Training

    def measure(self, batch: CaptionBatch, split: str) -> Measured:
        return self.measure_training(batch) if split == "train" else self.measure_held(batch, split)

    def measure_training(self, batch: CaptionBatch) -> Measured:
        spec, network = self.network.spec, self.network
        inputs, targets = batch.codes[:, :-1], batch.codes[:, 1:]
        there = targets != spec.pad
        steps = int(there.sum(1).max())  # nothing is asked of what lies behind the longest
        inputs, targets, there = inputs[:, :steps], targets[:, :steps], there[:, :steps]
        maps = network.encoder.maps(batch.images)
        presence = self.presence.loss(maps, batch.facts) if self.presence is not None else None
        alone = presence is not None and self.part_done < self.presence_alone and bool((batch.facts[:, 0] >= 0).any())
        truth = share_of_truth(self.global_step, self.scheduled_sampling)
        with torch.set_grad_enabled(not alone):
            how = {} if self.scheduled_sampling is None else {"truth": truth}
            attend = self.doubly_stochastic > 0
            taught = network.teach(network.encoder.annotations(maps), inputs, attention=attend, **how)
            nats = word_losses(taught.logits, targets, spec.pad)
        if self.label_smoothing:
            silent = silent_words(spec, unknown=True)
            losses = smoothed_losses(taught.logits, targets, spec.pad, silent, self.label_smoothing)
        else:
            losses = nats
        loss = losses.sum() / there.sum()
        if self.doubly_stochastic:
            loss = loss + self.doubly_stochastic * spread_penalty(taught.weights, there).mean()
        values = {"loss": Ratio(nats.sum(1), there.sum(1))}
        if presence is not None:
            values["presence"] = presence.detach().expand(len(batch.codes))
            loss = self.presence_weight * presence + (0 if alone else loss)
        return Measured(loss, values)

    # Validation and test

    def measure_held(self, batch: CaptionBatch, split: str) -> Measured:
        annotations = self.network.encoder(batch.images)
        if split.startswith("val"):
            words, nats = self.sentence_losses(annotations, batch.codes[:, None])
            values = {"loss": Ratio(nats, words)}
            if (batch.facts[:, 0] >= 0).any():
                values["exact"] = self.greedy_exact(annotations, batch)
            return Measured(nats.sum() / words.sum(), values)
        words, nats = self.sentence_losses(annotations, batch.every)
        _, shuffled = self.sentence_losses(annotations.roll(1, 0), batch.every)
        sentences = (batch.every_lengths > 0).sum(1)
        values = {
            "loss": Ratio(nats, words),
            "loss_shuffled": Ratio(shuffled, words),
            "nats_per_sentence": Ratio(nats, sentences),
        }
        rows = {"item": batch.item, "facts": batch.facts, "_features": annotations.float().mean(1)}
        for language in self.network.spec.languages:
            for way, codes in self.say(annotations, language).items():
                rows[f"{way}_{language}"] = codes.int()
        if split in self.on_digits:
            rows |= self.attention_rows(annotations, batch, split)
        return Measured(nats.sum() / words.sum(), values, rows)

    def sentence_losses(self, annotations: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Words, and their −log p, of each image's sentences (B, K, T) together: (B,) each."""
        spec, (images, sentences, _) = self.network.spec, codes.shape
        flat = codes.flatten(0, 1)
        taught = self.network.teach(annotations.repeat_interleave(sentences, 0), flat[:, :-1], attention=False)
        losses = word_losses(taught.logits, flat[:, 1:], spec.pad).view(images, sentences, -1)
        return (codes[:, :, 1:] != spec.pad).sum((1, 2)), losses.sum((1, 2))

    def greedy_exact(self, annotations: Tensor, batch: CaptionBatch) -> Ratio:
        """Of the first items, is the greedy sentence true of the scene?"""
        asked = (batch.item < GREEDY_ITEMS).tolist()
        spec, starts = self.network.spec, {self.network.spec.start(name): name for name in self.network.spec.languages}
        right = torch.zeros(len(batch.item))
        if any(asked):
            said = draw(self.network, annotations, batch.codes[:, 0])
            for row, codes in enumerate(said.tolist()):
                grammar = GRAMMARS[starts[codes[0]]]
                fact = fact_of_row(batch.facts[row].tolist())
                right[row] = asked[row] and grammar.parse(decode_sentence(codes, spec)) == fact
        return Ratio(right, torch.tensor(asked))

    def say(self, annotations: Tensor, language: str, width: int | None = None) -> dict[str, Tensor]:
        """What the network says of each image (B, T), greedily and by the beam."""
        starts = torch.full((len(annotations),), self.network.spec.start(language), device=annotations.device)
        fusion = (
            {"language_model": self.blind[0].to(annotations.device), "lm_weight": self.lm_weight} if self.blind else {}
        )
        found = beam_search(
            self.network, annotations, starts, width or self.beam, length_penalty=self.length_penalty, **fusion
        )
        return {"beam": found.codes[:, 0], "greedy": draw(self.network, annotations, starts)}

    # Attention where the truth is known

    def on_test_start(self) -> None:
        data, encoder = self.trainer.datamodule, self.network.encoder
        self.on_digits = {}
        for split, name in {"test": "test", "test_unseen": "unseen"}.items():
            if getattr(data, "scenes", {}).get(name) is None or not encoder.image:
                continue
            scenes = data.scenes[name]
            facts = [fact_of_row(row) for row in data.splits[name].facts]
            cells = cells_on(object_masks(scenes, self.network.spec.height), encoder.rows, encoder.columns)
            words = {own: named_words(facts, scenes, GRAMMARS[own]) for own in self.network.spec.languages}
            self.on_digits[split] = cells, words

    def attention_rows(self, annotations: Tensor, batch: CaptionBatch, split: str) -> dict[str, Tensor]:
        """Of each digit of each scene: hits at its colour's word and at its own, by its own image and by another's."""
        cells, words = self.on_digits[split]
        items, found = batch.item.cpu().numpy(), {}
        for place, language in enumerate(self.network.spec.languages):
            codes = batch.every[:, TEMPLATES * place, :-1]
            own = self.network.teach(annotations, codes).weights
            other = self.network.teach(annotations.roll(1, 0), codes).weights
            for column, name in ((1, "colour"), (2, "digit")):
                named = words[language][items][:, :, [0, column]]
                hit, mass, chance = hits(own, named, cells[items])
                found |= {f"_{name}_hit_{language}": hit, f"_{name}_mass_{language}": mass, "_chance": chance}
                found[f"_{name}_shuffled_{language}"] = hits(other, named, cells[items])[0]
        return {name: torch.from_numpy(values) for name, values in found.items()}

    # Figures

    def figures(self, split: str, means: Mapping[str, Tensor], rows: Mapping[str, Tensor]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if "loss" in means:
            found["perplexity"] = means["loss"].exp().item()
        if not split.startswith("test"):
            return found
        data, spec = self.trainer.datamodule, self.network.spec
        name = {"test": "test", "test_unseen": "unseen"}[split]
        items = rows["item"].tolist()
        every = data.references(name)
        facts = [fact_of_row(row) for row in rows["facts"].tolist()] if (rows["facts"][:, 0] >= 0).all() else None
        if facts:
            found["excess"] = means["nats_per_sentence"].item() - math.log(TEMPLATES)
        for place, language in enumerate(spec.languages):
            ending = f"_{language}" if place else ""
            references = [every[language][item] for item in items]
            for way in WAYS:
                said = [decode_sentence(codes, spec) for codes in rows[f"{way}_{language}"].tolist()]
                before = "" if way == "beam" else f"{way}_"
                own = sentence_figures(said, references, language) | judged(said, facts, language)
                if facts is None and language == "en":  # as many as the Arabic ones
                    own["bleu_4_3refs"] = bleu(said, [true[:3] for true in references])["bleu_4"]
                own["other_language"] = share_of_others(said, language, data.language_words)
                found |= {f"{before}{key}{ending}": value for key, value in own.items()}
            if facts and f"_colour_hit_{language}" in rows:
                found |= {key + ending: value for key, value in attention_figures(rows, language).items()}
            if split == "test" and not self.trainer.sanity_checking:
                found |= self.baseline_figures(language, ending, rows["_features"].numpy(), references, facts)
        return found

    def baseline_figures(
        self, language: str, ending: str, features: np.ndarray, references: list[list[str]], facts: Any
    ) -> dict[str, Any]:
        data = self.trainer.datamodule
        known = data.references("train")[language][:NEAREST_ITEMS]
        constant = best_constant(known, self.seed)
        found = {"constant": [constant] * len(references)}
        if self.network.encoder.image:
            images = data.splits["train"].images[:NEAREST_ITEMS]
            found["nearest"] = nearest_captions(features, self.features_of(images), known)
        figures = {} if facts else photograph_figures(references, language, set(self.network.spec.vocabulary), ending)
        for name, said in found.items():
            own = sentence_figures(said, references, language) | judged(said, facts, language)
            wanted = ("bleu_4", "cider_d", "exact", "item_bleu", "item_cider_d")
            figures |= {f"{name}_{key}{ending}": own[key] for key in wanted if key in own}
        return figures

    @torch.no_grad()
    def features_of(self, images: np.ndarray, size: int = 100) -> np.ndarray:
        """The mean annotation of each image (N, D)."""
        parts = [
            torch.from_numpy(images[first : first + size].copy()).to(self.device)
            for first in range(0, len(images), size)
        ]
        return torch.cat([self.network.encoder(part).float().mean(1).cpu() for part in parts]).numpy()

    @staticmethod
    def item_figures(predictions: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Of each test image's sentence CIDEr-D, and on scenes whether it is true."""
        return {name: predictions[f"item_{name}"] for name in ("cider_d", "exact") if f"item_{name}" in predictions}

    # What is shown

    def stage_caption(self, run: Any) -> None:
        """Sentences about the pictures of a folder: `captions.json` and a page."""
        caption_folder(self, run)

    def report(self, run: Any) -> list[Section]:
        return report_sections(self, run)


def sentence_figures(said: Sequence[str], references: list[list[str]], language: str) -> dict[str, Any]:
    """Figures of sentences beside their references; `item_…` are arrays with a row for each image."""
    plain = [without_punctuation(sentence, language) for sentence in said]
    true = [[without_punctuation(sentence, language) for sentence in own] for own in references]
    items = cider_d(plain, true)
    return {
        **bleu(plain, true),
        **bleu_paper(said, references),
        "rouge_l": rouge_l(plain, true),
        "cider_d": items.mean(),
        "words": float(np.mean([len(sentence.split()) for sentence in said])),
        "distinct": len(set(said)) / len(said),
        "item_cider_d": items,
        "item_bleu": bleu_counts(plain, true),
    }


def photograph_figures(references: list[list[str]], language: str, known: set[str], ending: str) -> dict[str, float]:
    """What people reach, an image's first sentence beside its others; the share of words not in the vocabulary."""
    several = [own for own in references if len(own) > 1]
    words = [word for own in references for text in own for word in text.split(" ")]
    found = {f"unknown_words{ending}": sum(word not in known for word in words) / len(words)}
    if several:
        human = sentence_figures([own[0] for own in several], [own[1:] for own in several], language)
        found |= {f"human_{name}{ending}": human[name] for name in ("bleu_4", "cider_d")}
    return found


def judged(said: Sequence[str], facts: Any, language: str) -> dict[str, Any]:
    """What sentences say of scenes; nothing where facts are not known."""
    if not facts:
        return {}
    rows = judge(said, facts, GRAMMARS[language])
    found: dict[str, Any] = {name: values.mean() for name, values in rows.items()}
    count = np.array([len(fact.pairs) for fact in facts])
    found |= {f"exact_{n}": rows["exact"][count == n].mean() for n in np.unique(count).tolist()}
    return found | {"item_exact": rows["exact"]}


def share_of_others(said: Sequence[str], language: str, words: Mapping[str, set[str]]) -> float:
    """The share of all words said that only other languages have."""
    others = set().union(*(own for name, own in words.items() if name != language)) - words[language]
    all_words = [word for sentence in said for word in sentence.split()]
    return sum(word in others for word in all_words) / max(1, len(all_words))


def attention_figures(rows: Mapping[str, Tensor], language: str) -> dict[str, float]:
    """Means over all digits of all scenes."""

    def mean(name: str) -> float:
        return float(np.nanmean(rows[name].numpy()))

    first = "colour" if language == "en" else "digit"  # of a digit's words the one that is said first
    return {
        "hit_colour": mean(f"_colour_hit_{language}"),
        "hit_digit": mean(f"_digit_hit_{language}"),
        "attention_hit": mean(f"_{first}_hit_{language}"),
        "hit_shuffled": mean(f"_{first}_shuffled_{language}"),
        "hit_chance": mean("_chance"),
        "attention_mass": mean(f"_{first}_mass_{language}"),
    }
