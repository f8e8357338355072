"""How a study's trials are computed: decided once, so that all its workers do the same."""

from dataclasses import replace

import optuna

from models.profile import profile
from models.registry import variant
from models.switches import ImageShape
from objectives.compiling import pays
from objectives.execution import FAST, Execution
from study.forecast import images_of_new
from study.identity import StudyIdentity
from study.request import Compile

COMPILE_KEY = "bnvit:compile"
PAYS = "pays"  # what "auto" became where a CPU is expected to save more than compiling takes


def decide(
    study: optuna.Study,
    identity: StudyIdentity,
    shape: ImageShape,
    asked: Compile,
    trials: int,
    workers: int,
) -> None:
    """Note with a new `study`, or where it is asked for, whether its steps are compiled."""
    if asked == "auto" and COMPILE_KEY in study.user_attrs:
        return
    decision: str = asked
    if asked == "auto":
        model = variant(identity.model).build_blank(shape, identity.model_switches)
        images = images_of_new(identity, trials) / max(workers, 1)
        decision = PAYS if pays(model, profile(model, shape), images) else "off"
    study.set_user_attr(COMPILE_KEY, decision)


def execution_of(study: optuna.Study) -> Execution:
    """How this study's trials are computed, where the device allows it."""
    decision = study.user_attrs.get(COMPILE_KEY)
    return replace(FAST, compiled=decision in ("on", PAYS), graphed=decision == "on")
