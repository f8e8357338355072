"""Addresses of pages about studies, for those who read of them elsewhere."""

from collections.abc import Iterator, Sequence

from study.ports import LOOPBACK
from study.results import StudyResult
from study.settings import Settings, is_server, shown_address
from study.ui import MLFLOW_PORT, comparison_page


def links_of(settings: Settings, results: Sequence[StudyResult]) -> Iterator[tuple[str, str]]:
    """MLflow's pages of the studies' runs, all together and each: what for, and the address."""
    uri = settings.mlflow_uri or ""
    base = shown_address(uri) if is_server(uri) else f"http://{LOOPBACK}:{MLFLOW_PORT}"
    opens = "" if is_server(uri) else " (while 'bnvit-study ui' runs)"
    found = {
        result.name: str(experiment)
        for result in results
        if (experiment := result.seen.source.user_attrs.get("mlflow_experiment_id")) is not None
    }
    if len(found) > 1:
        yield f"all runs compared in MLflow{opens}", comparison_page(base, list(found.values()))
    for name, experiment in found.items():
        yield f"runs of {name} in MLflow{opens}", comparison_page(base, [experiment])
