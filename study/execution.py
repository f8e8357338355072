"""How a study's trials are computed: decided when it is made, so that all workers do the same.

Who asks for another way later gets it from workers that join from then on.
"""

from dataclasses import replace

import optuna

from models.registry import variant
from models.switches import ImageShape
from objectives.compiling import pays, uncompilable
from objectives.execution import FAST, Execution
from study.forecast import images_of_new
from study.identity import StudyIdentity
from study.request import Compile

COMPILE_KEY = "bnvit:compile"
PAYS = "pays"  # what "auto" became where a CPU is expected to save more than compiling takes
GRAPH = "graph"  # what it became elsewhere: nothing on a CPU, on CUDA a graph


def decided(
    identity: StudyIdentity, shape: ImageShape, asked: Compile, trials: int, workers: int
) -> str:
    """Whether the steps of a new study are compiled: "on", "off", `PAYS` or `GRAPH`.

    `workers`: among how many the trials are divided, as far as that is known.
    """
    if asked != "auto":
        return asked
    if uncompilable(identity.recipe):
        return GRAPH
    model = variant(identity.model).build_blank(shape, identity.model_switches)
    images = images_of_new(identity, trials) / max(workers, 1)
    return PAYS if pays(model, shape, images) else GRAPH


def note_execution(study: optuna.Study, decision: str) -> None:
    """Fix with `study` whether its steps are compiled."""
    study.set_user_attr(COMPILE_KEY, decision)


def execution_of(study: optuna.Study) -> Execution:
    """How this study's trials are computed, where the device allows it."""
    decision = study.user_attrs.get(COMPILE_KEY)
    return replace(FAST, compiled=decision in ("on", PAYS), graphed=decision in ("on", PAYS, GRAPH))
