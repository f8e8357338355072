"""What `fit` and `sweep` are asked for: from the words of the command line to requests."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import get_args

from models.errors import InputError
from models.registry import variant
from models.switches import Switches
from study.overview import Overview
from study.plan import Configuration, Plan, TrainedOn
from study.request import Request
from study.stability_plan import StabilityPlan
from study.words import counted


def planned(request: Request, plan: Plan | StabilityPlan) -> Request:
    """`request`, to be trained as planned."""
    plan.check()
    return replace(
        request, plan=plan, trials=plan.runs, space=plan.space, sampler="random", pruner="none"
    )


def fit_of_study(seen: Overview, request: Request, plan: Plan) -> Request:
    """A fit of the best configuration of a search that has ended.

    Raises InputError where it has not, or has no best.
    """
    identity = seen.identity
    if identity.is_planned:
        kind = "stability study" if identity.kind == "stability" else identity.kind
        raise InputError(f"'{seen.study}' is a {kind}, no search; fit takes a search")
    if left := len(seen.counted) - len(seen.ended):
        raise InputError(
            f"the study '{seen.study}' has {counted(left, 'trial')} left; let it end first, as "
            "its best may change"
        )
    best = seen.best
    if best is None or best.lr is None or best.batch_size is None:
        raise InputError(f"the study '{seen.study}' has no completed trial to take values from")
    values = {"lr": best.lr, "batch_size": best.batch_size, **best.others}
    config = identity.config(values)
    taken = replace(
        request,
        model=identity.model,
        switches=config.switches,
        recipe=config.recipe,
        target=request.target or identity.target,
        dataset=identity.dataset,
        train_images=identity.train_images,
        image_size=identity.image_size,
        skip_broken=identity.skip_broken,
        weights=identity.weights,
        convert=identity.convert,
        new_head=identity.new_head,
        precision=identity.precision,
        study=request.study or f"{seen.study}-fit",
    )
    configuration = (best.lr, best.batch_size)
    plan = replace(plan, configurations=(configuration,), source=seen.study)
    return planned(taken, replace(plan, source_trials=len(seen.counted)))


def sweep_of(
    request: Request,
    models: Sequence[str],
    plan: Plan | StabilityPlan,
    switches: Callable[[str], Switches | None] | None = None,
) -> list[Request]:
    """The same values, or the same ranges, with each model, a study each.

    `switches` are those of a model; None: all have the request's.
    """
    if switches is not None:
        found = sweep_of(request, models, plan)
        return [replace(one, switches=switches(one.model)) for one in found]
    if len(set(models)) < len(models):
        raise InputError("--models names a model twice; name each once")
    if len(models) == 1:
        return [planned(replace(request, model=models[0]), plan)]
    plan = replace(plan, models=tuple(models), prefix=request.study)
    return [
        planned(replace(request, model=model, study=_named(request.study, model)), plan)
        for model in models
    ]


def _named(prefix: str | None, model: str) -> str | None:
    return None if prefix is None else f"{prefix}-{variant(model).name.replace(':', '-')}"


def parse_names(text: str) -> list[str]:
    """The names in a list with commas; raises InputError where one is empty."""
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise InputError(f"'{text}' must be names with commas between them")
    return names


def parse_grid(lr: str, batch_size: str) -> tuple[Configuration, ...]:
    """Each learning rate with each batch size, from lists with commas; raises InputError."""
    return tuple((rate, size) for rate in parse_rates(lr) for size in parse_sizes(batch_size))


def parse_rates(text: str, name: str = "lr") -> tuple[float, ...]:
    """Learning rates from a list with commas, the text of the option `name`; raises InputError."""
    return tuple(_numbers(name, text))


def parse_split(text: str) -> TrainedOn:
    """What is trained on, from the text of --on; raises InputError."""
    if text not in get_args(TrainedOn):
        raise InputError(f"--on {text} must be {' or '.join(get_args(TrainedOn))}")
    return text  # type: ignore[return-value]


def parse_sizes(text: str, name: str = "batch-size") -> list[int]:
    """Batch sizes from a list with commas, the text of the option `name`; raises InputError."""
    sizes = _numbers(name, text)
    if not all(size.is_integer() for size in sizes):
        raise InputError(f"--{name} {text} must be whole numbers with commas between them")
    return [int(size) for size in sizes]


def _numbers(name: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"--{name} {text} must be numbers with commas between them") from error
