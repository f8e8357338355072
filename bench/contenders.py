"""What is measured against what: stretches of training, and evaluations, each as one call."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice

import article_loop
import torch
from floor import floor
from torch import nn

from models.anatomy import anatomy
from models.fold import fold
from models.registry import variant
from models.switches import ViTSwitches
from models.vit import merge_attention
from objectives.data import SearchData
from objectives.evaluation import evaluate
from objectives.execution import FAST, PLAIN, Execution, autocast
from objectives.precision import Precision
from objectives.recipe import TrainConfig
from objectives.run import start
from objectives.training import train

Call = Callable[[], object]

BATCH_SIZE = 100  # images
LR = 1e-4
COMPILED = replace(FAST, compiled=True)
GRAPHED = replace(FAST, graphed=True)
EVALUATION_BATCH_SIZE = TrainConfig.evaluation_batch_size
WAYS: dict[str, tuple[Execution, Precision]] = {
    "ours, plain": (PLAIN, "float32"),
    "ours": (FAST, "float32"),
    "ours, compiled": (COMPILED, "float32"),
    "ours, bf16": (FAST, "bf16"),
    "ours, bf16, compiled": (COMPILED, "bf16"),
}


def training_calls(
    model: str, data: SearchData, device: torch.device, steps: int
) -> dict[str, Call]:
    """Stretches of `steps` training steps at batch 100, by each way; the article's loop first."""
    article = article_loop.training(model, data.train, BATCH_SIZE, LR, device)
    calls: dict[str, Call] = {"article": partial(_take, article, steps)}
    for name, (execution, precision) in WAYS.items():
        calls[name] = stretches(config_of(model, data, precision), data, device, execution, steps)
    return calls


def floor_calls(device: torch.device, steps: int) -> dict[str, Call]:
    """The floors of as many steps: the published products, and those of merged attention."""
    calls: dict[str, Call] = {}
    for name, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):
        for merged in (False, True):
            products = floor(ViTSwitches(), BATCH_SIZE, dtype, device, merged)
            calls[f"floor {name}{', merged' if merged else ''}"] = partial(_times, products, steps)
    return calls


def evaluation_calls(model: str, data: SearchData, device: torch.device) -> dict[str, Call]:
    """Evaluations of the validation split by the article's way and by ours."""
    split = data.validation
    reference = article_loop.ArticleViT(model).to(device)
    plain = variant(model).build(data.shape).to(device)
    merged = copy.deepcopy(plain)
    merge_attention(merged)
    with_no_grad = torch.no_grad()(article_loop.evaluation)

    def ours(built: nn.Module, precision: Precision = "float32") -> None:
        with autocast(device, precision):
            evaluate(fold(built).model, split, EVALUATION_BATCH_SIZE)

    return {
        "article": partial(article_loop.evaluation, reference, split, device),
        "article, no_grad": partial(with_no_grad, reference, split, device),
        "ours, not merged": partial(ours, plain),
        "ours": partial(ours, merged),
        "ours, bf16": partial(ours, merged, "bf16"),
    }


def inference_calls(data: SearchData, device: torch.device) -> dict[str, Call]:
    """The folded BatchNorm model, the same without any norm, and its LayerNorm twin."""
    torch.manual_seed(0)
    built = {name: variant(name).build(data.shape).to(device).eval() for name in ("vitbn", "vit")}
    bare = copy.deepcopy(built["vitbn"])
    for site in anatomy(bare).sites:
        bare.set_submodule(site.path, nn.Identity())
    models = {
        "vitbn, folded": fold(built["vitbn"]).model,
        "vitbn, norms deleted": bare,
        "vitbn, not folded": built["vitbn"],
        "vit": built["vit"],
    }
    for model in models.values():
        merge_attention(model)
    return {
        name: partial(evaluate, model, data.validation, EVALUATION_BATCH_SIZE)
        for name, model in models.items()
    }


def config_of(model: str, data: SearchData, precision: Precision = "float32") -> TrainConfig:
    """The article's configuration, without an end."""
    switches = variant(model).resolved(None, data.shape)
    images = len(data.train)
    return TrainConfig(
        model, switches, "mnist", LR, BATCH_SIZE, (1 << 40,), images, 0, precision=precision
    )


def stretches(
    config: TrainConfig, data: SearchData, device: torch.device, execution: Execution, steps: int
) -> Call:
    """`steps` steps of a run, and with each call as many more."""
    run = start(config, data, device, execution)
    events = train(run, lambda: run.step % steps == 0)  # which makes a pause after each stretch
    return partial(next, events)


def _take(losses: Iterator[float], steps: int) -> None:
    for _ in islice(losses, steps):
        pass


def _times(call: Callable[[], None], count: int) -> None:
    for _ in range(count):
        call()
