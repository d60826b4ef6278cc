"""Two generators, two discriminators and a classifier of translated images."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from datamodules.errors import UsageError
from datamodules.spec import Spec
from lightning_modules.adaptation.network import TARGET, DigitNetwork
from lightning_modules.adaptation.translation.discriminators import PatchDiscriminator
from lightning_modules.adaptation.translation.generators import Generator
from lightning_modules.classification.network import require_least


class TranslatedClassifier(DigitNetwork):
    """A classifier that is trained on translated images and tested on the target's own."""

    own_domain = TARGET


class CycleGAN(nn.Module):
    """`model=cyclegan`: G translates source to target (`to_target`), F back (`to_source`); D_T and D_S judge.

    As a module it is its classifier: images (B, C, H, W) → logits (B, classes). Images of [−1, 1] are what the others
    take and give; `scaled` makes them of intensities.

    Args:
        spec: the images of both domains and their classes.
        generator_width, generator_blocks: of G and F.
        discriminator_width, discriminator_layers: of D_T and D_S.
        noise: planes of noise that G is given beside an image.
        norm, dropout: of the classifier, see `DigitNetwork`.

    Raises:
        UsageError: the images' sides are no multiples of 4, or a setting is impossible.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        generator_width: int = 16,
        generator_blocks: int = 2,
        discriminator_width: int = 32,
        discriminator_layers: int = 1,
        noise: int = 0,
        norm: str = "none",
        dropout: float = 0.0,
    ):
        super().__init__()
        self.spec = spec
        self.classifier = self.make_classifier(spec, norm=norm, dropout=dropout)
        if spec.height % 4 or spec.width % 4:
            raise UsageError(
                f"Generators halve an image twice, and these are {spec.height}×{spec.width}: choose data whose sides "
                "are multiples of 4, such as data=digits_m."
            )
        require_least(1, generator_width=generator_width, discriminator_width=discriminator_width)
        require_least(1, discriminator_layers=discriminator_layers)
        require_least(0, generator_blocks=generator_blocks, noise=noise)
        channels, side = spec.channels, min(spec.height, spec.width)
        self.to_target = Generator(channels, generator_width, generator_blocks, noise)
        self.to_source = Generator(channels, generator_width, generator_blocks)
        self.judge_target, self.judge_source = (
            PatchDiscriminator(channels, discriminator_width, discriminator_layers, side) for _ in range(2)
        )

    def make_classifier(self, spec: Spec, **settings: Any) -> DigitNetwork:
        return TranslatedClassifier(spec, **settings)

    def scaled(self, images: Tensor) -> Tensor:
        """Intensities 0 … levels−1 → [−1, 1]."""
        return 2 * self.classifier.scaled(images) - 1

    def intensities(self, x: Tensor) -> Tensor:
        """[−1, 1] → floating intensities 0 … levels−1, as classifiers take them."""
        return (x.float() + 1) * ((self.spec.levels - 1) / 2)

    def classify(self, x: Tensor) -> Tensor:
        """The classifier's logits of images in [−1, 1]."""
        return self.classifier(self.intensities(x), TARGET)

    def forward(self, images: Tensor, domain: int = TARGET) -> Tensor:
        return self.classifier(images, domain)
