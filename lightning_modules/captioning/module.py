"""The task: sentences about images, taught by true ones and judged by those the network says itself."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
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
from lightning_modules.captioning.decoding import draw, say, silent_words, word_losses
from lightning_modules.captioning.encoder import FrozenEncoder, Maps
from lightning_modules.captioning.figures import (
    attention_figures,
    baseline_figures,
    judged,
    photograph_figures,
    sentence_figures,
    share_of_others,
)
from lightning_modules.captioning.judging import KnownDigits
from lightning_modules.captioning.network import Captioner
from lightning_modules.captioning.options import check_options
from lightning_modules.captioning.report import report_sections
from lightning_modules.captioning.scores import bleu
from reporting.load import load_run
from reporting.report import Section

log = logging.getLogger(__name__)

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
    first true sentence beside the others) and `bleu_4_3refs`. `beam_worse` is the share of images whose greedy sentence
    scores better than the beam's. Test loss is over all true sentences; `excess` is
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
        presence_alone: float = 0.25,
        beam: int = 3,
        length_penalty: float = 0.7,
        language_model: str | None = None,
        lm_weight: float = 0.0,
        seed: int = 0,
    ):
        super().__init__(network, optimizer, scheduler)
        check_options(
            network,
            above={"doubly_stochastic": doubly_stochastic, "presence": presence, "lm_weight": lm_weight},
            shares={"label_smoothing": label_smoothing, "presence_alone": presence_alone},
            scheduled_sampling=scheduled_sampling,
            beam=beam,
            length_penalty=length_penalty,
        )
        self.doubly_stochastic, self.scheduled_sampling = doubly_stochastic, scheduled_sampling
        self.label_smoothing, self.presence_weight, self.presence_alone = label_smoothing, presence, presence_alone
        self.beam, self.length_penalty, self.lm_weight, self.seed = beam, length_penalty, lm_weight, seed
        self.presence = Presence(network.encoder.features) if presence and network.encoder.image else None
        self.language_path = language_model
        self.blind: list[Captioner] = []  # the language model; in a list, so that it is no part of the checkpoint
        self.maps: Maps | None = None  # of the data's images, when a training or a test begins
        self.on_digits: dict[str, KnownDigits] = {}  # of each test, made when it begins

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

        if isinstance(self.network.encoder, FrozenEncoder) and run.datamodule.augments:
            raise UsageError(
                "A frozen encoder's maps are computed once, of images as they are: leave data.shift, data.scale and "
                "data.light at 0, or choose model.encoder=cnn."
            )

    def before_fit(self, run: Any) -> None:
        encoder = self.network.encoder
        if isinstance(encoder, FrozenEncoder) and run.checkpoint_path is None:
            log.info("the encoder begins with %s", encoder.begin_())

    def on_fit_start(self) -> None:
        self.know_images()

    def know_images(self) -> None:
        data, precision = self.trainer.datamodule, str(self.trainer.precision)
        self.maps = self.maps or Maps(self.network.encoder, data, self.device, precision)

    # Training

    def measure(self, batch: CaptionBatch, split: str) -> Measured:
        return self.measure_training(batch) if split == "train" else self.measure_held(batch, split)

    def measure_training(self, batch: CaptionBatch) -> Measured:
        spec, network = self.network.spec, self.network
        inputs, targets = batch.codes[:, :-1], batch.codes[:, 1:]
        there = targets != spec.pad
        steps = int(there.sum(1).max())  # nothing is asked of what lies behind the longest
        inputs, targets, there = inputs[:, :steps], targets[:, :steps], there[:, :steps]
        maps = self.maps(batch.images, "train", batch.item)
        values: dict[str, Any] = {}
        presence: Tensor | float = 0.0
        if self.presence is not None and (batch.facts[:, 0] >= 0).any():
            presence = self.presence_weight * self.presence.loss(maps, batch.facts)
            values["presence"] = presence.detach().expand(len(batch.codes)) / self.presence_weight
            if self.part_done < self.presence_alone:
                return Measured(presence, values)
        how = {}
        if self.scheduled_sampling is not None:
            how["truth"] = share_of_truth(self.global_step, self.scheduled_sampling)
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
        values["loss"] = Ratio(nats.sum(1), there.sum(1))
        return Measured(loss + presence, values)

    # Validation and test

    def measure_held(self, batch: CaptionBatch, split: str) -> Measured:
        network, spec = self.network, self.network.spec
        annotations = network.encoder.annotations(self.maps(batch.images, split, batch.item))
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
        other = self.blind[0].to(annotations.device) if self.blind else None
        for place, language in enumerate(spec.languages):
            starts = torch.full_like(batch.item, spec.start(language))
            told, worse = say(network, annotations, starts, self.beam, self.length_penalty, other, self.lm_weight)
            rows |= {f"{way}_{language}": codes.int() for way, codes in told.items()}
            values[f"beam_worse{f'_{language}' if place else ''}"] = worse
        if split in self.on_digits:
            rows |= self.on_digits[split].rows(self.network, annotations, batch)
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

    # Attention where the truth is known

    def on_test_start(self) -> None:
        self.know_images()
        data, self.on_digits = self.trainer.datamodule, {}
        for split, name in {"test": "test", "test_unseen": "unseen"}.items():
            scenes = getattr(data, "scenes", {}).get(name)
            if scenes is not None and self.network.encoder.image:
                facts = [fact_of_row(row) for row in data.splits[name].facts]
                self.on_digits[split] = KnownDigits(self.network, scenes, facts)

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
                beside = self.baselines(language, rows["_features"].numpy(), references, facts)
                found |= {key + ending: value for key, value in beside.items()}
        return found

    def baselines(self, language: str, features: np.ndarray, references: list[list[str]], facts: Any) -> dict[str, Any]:
        data = self.trainer.datamodule
        known = data.references("train")[language][:NEAREST_ITEMS]
        said = {"constant": [best_constant(known, self.seed)] * len(references)}
        if self.network.encoder.image:
            said["nearest"] = nearest_captions(features, self.features_of_training(NEAREST_ITEMS), known)
        figures = {} if facts else photograph_figures(references, language, set(self.network.spec.vocabulary))
        return figures | baseline_figures(said, references, facts, language)

    @torch.no_grad()
    def features_of_training(self, items: int, size: int = 100) -> np.ndarray:
        """The mean annotation of each of the first training images (N, D)."""
        images, found = self.trainer.datamodule.splits["train"].images[:items], []
        for rows in torch.arange(len(images)).split(size):
            part = torch.from_numpy(images[rows.numpy()]).to(self.device)
            found.append(self.network.encoder.annotations(self.maps(part, "train", rows)).float().mean(1).cpu())
        return torch.cat(found).numpy()

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
