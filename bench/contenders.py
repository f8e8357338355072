"""What is measured against what: stretches of training, and evaluations, each as one call."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice

import torch
from floor import floor
from torch import Tensor, nn

from models.anatomy import anatomy
from models.fold import fold
from models.registry import variant
from models.switches import ViTSwitches
from models.vit import merge_attention
from objectives import article_loop
from objectives.compiling import why_not_compiled
from objectives.data import SearchData
from objectives.evaluation import evaluate
from objectives.execution import FAST, PLAIN, Execution, autocast
from objectives.precision import Precision
from objectives.recipe import TrainConfig
from objectives.starting import start
from objectives.steps import CudaRecorder
from objectives.training import train

Call = Callable[[], object]

BATCH_SIZE = 100  # images
LR = 1e-4
COMPILED = replace(FAST, compiled=True)
GRAPHED = replace(FAST, graphed=True)
EVALUATION_BATCH_SIZE = TrainConfig.evaluation_batch_size
ARTICLE_WAY = "article"
EVALUATION_WAYS = ("article", "article, no_grad", "ours, not merged", "ours", "ours, bf16")
WAYS: dict[str, tuple[Execution, Precision]] = {
    "ours, plain": (PLAIN, "float32"),
    "ours": (FAST, "float32"),
    "ours, compiled": (COMPILED, "float32"),
    "ours, bf16": (FAST, "bf16"),
    "ours, bf16, compiled": (COMPILED, "bf16"),
}


def training_ways(device: torch.device) -> list[str]:
    """The article's loop, and those of `WAYS` that can be computed here."""
    compiles = device.type == "cpu" and not why_not_compiled(nn.Identity())
    ours = [name for name, (execution, _) in WAYS.items() if compiles or not execution.compiled]
    return [ARTICLE_WAY, *ours]


def training_call(way: str, model: str, data: SearchData, device: torch.device, steps: int) -> Call:
    """Stretches of `steps` training steps at batch 100."""
    if way == ARTICLE_WAY:
        reference = article_loop.ArticleViT(model).to(device)
        losses = article_loop.training(reference, data.train, BATCH_SIZE, LR, device)
        return partial(_take, losses, steps)
    execution, precision = WAYS[way]
    return stretches(config_of(model, data, precision), data, device, execution, steps)


def floor_calls(device: torch.device, steps: int) -> dict[str, Call]:
    """The floors of as many steps: the published products, and those of merged attention."""
    calls: dict[str, Call] = {}
    for name, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):
        for merged in (False, True):
            products = floor(ViTSwitches(), BATCH_SIZE, dtype, device, merged)
            call = _launched_at_once(products, device)
            calls[f"floor {name}{', merged' if merged else ''}"] = partial(_times, call, steps)
    return calls


def evaluation_call(way: str, model: str, data: SearchData, device: torch.device) -> Call:
    """One of `EVALUATION_WAYS` of evaluating the validation split."""
    split = data.validation
    torch.manual_seed(0)
    if way.startswith(ARTICLE_WAY):
        reference = article_loop.ArticleViT(model).to(device)
        evaluation = article_loop.evaluation
        if way.endswith("no_grad"):
            evaluation = torch.no_grad()(evaluation)
        return partial(evaluation, reference, split, device)
    built = variant(model).build(data.shape).to(device)
    merge_attention(built, merged=not way.endswith("not merged"))

    def ours() -> None:
        with autocast(device, "bf16" if way.endswith("bf16") else "float32"):
            evaluate(fold(built).model, split, EVALUATION_BATCH_SIZE)

    return ours


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
    """`steps` steps of a run, and with each call as many more.

    Raises RuntimeError where this machine would compute them in another way.
    """
    run = start(config, data, device, execution)
    if (run.execution.compiled, run.execution.graphed) != (execution.compiled, execution.graphed):
        raise RuntimeError(f"'{execution}' cannot be computed here, but '{run.execution}'")
    events = train(run, lambda: run.step % steps == 0)  # which makes a pause after each stretch
    return partial(next, events)


def _launched_at_once(products: Callable[[], None], device: torch.device) -> Callable[[], object]:
    """On CUDA one graph, as launching small products one by one would take longer than they do."""
    if device.type != "cuda":
        return products
    recorder, nothing = CudaRecorder(device), torch.zeros((), device=device)

    def work() -> Tensor:
        products()
        return nothing

    recorder.aside(work)
    return recorder.record(work)


def _take(losses: Iterator[float], steps: int) -> None:
    for _ in islice(losses, steps):
        pass


def _times(call: Callable[[], object], count: int) -> None:
    for _ in range(count):
        call()
