"""What the process that `tests.forked` forks from has imported; with OMP_NUM_THREADS=1 no thread of it computes."""

import datasets  # noqa: F401
import matplotlib.pyplot  # noqa: F401
import rich  # noqa: F401
import scipy.stats  # noqa: F401
import sklearn.datasets  # noqa: F401
import torch.distributed
import torch.utils.tensorboard  # noqa: F401
import torchvision  # noqa: F401
from hydra.utils import get_object
from omegaconf import OmegaConf

import running.configured
import running.run  # noqa: F401
import train  # noqa: F401
from reporting.folder import CONF

for file in [file for group in ("task", "task_module", "model", "data") for file in (CONF / group).glob("*.yaml")]:
    node = OmegaConf.to_container(OmegaConf.load(file))
    # A task whose models have different modules names none: they are those of conf/task_module.
    if target := node.get("task", {}).get("module", node).get("_target_"):
        get_object(target)  # a class, or a function that chooses one
