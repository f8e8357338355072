"""The objective of the store's workers: it sleeps where the product would train."""

import math
import random
import time
from collections.abc import Callable, Iterator
from functools import cache

import torch

from models.registry import ARTICLE
from models.switches import ViTSwitches
from models.vit import ViT
from objectives.data import SearchData
from objectives.datasets import MNIST_SHAPE
from objectives.execution import loss_of
from objectives.metrics import Event, Pause, RungMetrics
from objectives.recipe import TrainConfig
from objectives.run import Run
from objectives.segment import Segment

TINY = ViTSwitches(dim=16, depth=1, heads=1, dim_head=8, mlp_dim=16)
CPU = torch.device("cpu")
NOISE = 0.01  # of the accuracy, standard deviation


def accuracy(lr: float, batch_size: int, share: float) -> float:
    """Validation accuracy of a configuration after `share` of its training, a share in [0, 1].

    Smooth in both values, with the noise of one measurement, which is the same whenever asked.
    """
    ideal = -3.0 + 0.5 * math.log10(batch_size / 60)  # of log10(lr)
    loss = 0.02 + 0.05 * (math.log10(lr) - ideal) ** 2 + 0.1 * math.exp(-6 * share)
    noise = random.Random(f"{lr} {batch_size} {share}").gauss(0.0, NOISE)
    return min(max(1.0 - loss + noise, 0.0), 1.0)


def blank_run(config: TrainConfig, data: SearchData) -> Run:
    """A run at its beginning that is never trained; all share one tiny model."""
    model, optimizer = _model()
    loss = loss_of(model, config.precision)
    return Run(config, data, CPU, model, optimizer, Segment.empty(CPU), loss, loss)


def sleeping_train(sleep_s: float) -> Callable[..., Iterator[Event]]:
    """A stand-in for `train` that sleeps before each rung."""

    def train(run: Run, pause: Callable[[], bool], _: object) -> Iterator[Event]:
        config = run.config
        for rung in config.rungs[len(run.curve) :]:
            time.sleep(sleep_s)
            if pause():
                yield Pause(run.images_seen)
            run.step = math.ceil(rung / config.batch_size)
            reached = accuracy(config.lr, config.batch_size, rung / config.rungs[-1])
            run.curve.append(_metrics(run, rung, reached))
            yield run.curve[-1]

    return train


@cache
def _model() -> tuple[ViT, torch.optim.Optimizer]:
    model = ARTICLE["vit"](MNIST_SHAPE, TINY)
    return model, torch.optim.SGD(model.parameters(), lr=1.0)


def _metrics(run: Run, rung: int, reached: float) -> RungMetrics:
    return RungMetrics(
        rung=rung,
        images_seen=run.images_seen,
        epoch=run.images_seen / run.config.train_images,
        train_loss=1.0 - reached,
        val_loss=1.0 - reached,
        val_accuracy=reached,
        val_accuracy_running_stats=reached,
        val_top5_accuracy=1.0,
        grad_norm=1.0,
        train_time_s=0.0,
        val_time_s=0.0,
        train_images_per_s=None,
    )
