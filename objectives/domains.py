"""Domain-specific statistics: those of one data set under a model, evaluated on another."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from objectives.evaluation import Evaluation, evaluate
from objectives.images import Split
from objectives.population import Method, estimate_on, on_population


@dataclass(frozen=True)
class Domain:
    """Images of one kind."""

    train: Split  # whose statistics are taken
    validation: Split  # on which is evaluated


def across_domains(
    model: nn.Module, domains: Mapping[str, Domain], method: Method, batch_size: int
) -> dict[tuple[str, str], Evaluation]:
    """Each domain's validation images by each domain's statistics.

    Keys: whose statistics, whose images. The model stays as it is.

    Source: Wu & Johnson 2021, arXiv 2105.07576, section 5.
    """
    found = {}
    for source, of_source in domains.items():
        statistics = estimate_on(model, of_source.train, method, batch_size)
        with on_population(model, statistics):
            for target, of_target in domains.items():
                found[source, target] = evaluate(model, of_target.validation, batch_size)
    return found
