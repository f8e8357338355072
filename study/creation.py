"""Create a study, or find the one that was asked for again and refuse a different one."""

import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from uuid import uuid4

import optuna

from models.errors import InputError
from models.registry import Variant, variant
from models.switches import ImageShape
from objectives.data import SearchData
from objectives.initial import check_fit, initial_weights
from objectives.recipe import epoch_rungs, recalibration_images, search_rungs
from objectives.recipes import Recipe, field_types
from objectives.teacher import load_teacher, teacher_source
from study.environment import versions
from study.errors import IdentityError
from study.execution import note_execution
from study.identity import IDENTITY_KEY, UUID_KEY, StudyIdentity, identity_of
from study.keeping import note_keeping
from study.request import Request
from study.samplers import pruner
from study.storage import Store
from study.studies import SOURCE_KEY, SOURCE_TRIALS_KEY, VERSIONS_KEY, is_blank


def identify(request: Request, data: SearchData) -> StudyIdentity:
    """The identity of the requested study on `data`; raises InputError if they do not fit."""
    request.space.check_fits(len(data.train))
    chosen = variant(request.model)
    switches = chosen.resolved(request.switches, data.shape)
    chosen.check_buildable(data.shape, switches)
    _check_searched(request, chosen, data.shape)
    initial = None
    if request.weights is not None:
        options = (chosen, request.convert, request.new_head)
        initial, state = initial_weights(request.weights, *options)
        check_fit(initial, state, chosen, data.shape, switches)
    recipe, teacher_checksum = _taught(request.recipe, data)
    rungs = epoch_rungs if request.plan else search_rungs
    return StudyIdentity(
        model=chosen.name,
        switches=asdict(switches),
        dataset=request.dataset,
        data_checksum=data.checksum,
        train_images=len(data.train),
        validation_images=len(data.validation),
        epochs=request.epochs,
        rungs=rungs(len(data.train), request.epochs),
        lr=request.space.lr,
        batch_size=request.space.batch_size,
        sampler=request.sampler,
        pruner=request.pruner,
        seed=request.seed,
        image_size=request.image_size,
        skip_broken=request.skip_broken,
        weights=None if initial is None else initial.source,
        weights_checksum=None if initial is None else initial.checksum,
        convert=request.convert,
        new_head=request.new_head,
        recalibration_images=recalibration_images(data.shape.size),
        precision=request.precision,
        recipe=recipe,
        others=request.space.others,
        target=request.target,
        teacher_checksum=teacher_checksum,
        **(request.plan.identity_fields if request.plan else {}),
    )


def _check_searched(request: Request, chosen: Variant, image: ImageShape) -> None:
    """Raise InputError where a model with a searched switch cannot be built for such images."""
    given = request.switches or chosen.switches()
    for one in request.space.others:
        for value in () if one.name in field_types() else one.corners():
            try:
                switches = replace(given, **{one.name: value})
                chosen.check_buildable(image, chosen.resolved(switches, image))
            except InputError as error:
                raise InputError(f"--search {one}: {error}") from None


def _taught(recipe: Recipe, data: SearchData) -> tuple[Recipe, str | None]:
    """`recipe` with its teacher as it is found from any folder, and the teacher's checksum."""
    if recipe.teacher is None:
        return recipe, None
    source = teacher_source(recipe.teacher)
    teacher = load_teacher(source)
    teacher.check(data.shape)
    return replace(recipe, teacher=source), teacher.checksum


def create_or_resume(
    store: Store,
    identity: StudyIdentity,
    request: Request,
    decide: Callable[[], str] = lambda: "off",
) -> tuple[optuna.Study, bool]:
    """The requested study, and whether it is new; call it under a lock.

    `decide` is asked how a new one is computed, and any for which the request says it.

    Raises IdentityError where a study of that name differs.
    """
    names = set(optuna.get_all_study_names(store.storage))
    name = request.study_name
    if request.fresh:
        name = _free_name(name, names)
    found = None
    if name in names:
        found = optuna.load_study(study_name=name, storage=store.storage, pruner=pruner(identity))
        if not is_blank(found):
            _refuse_difference(found, identity, request)
            if request.compile != "auto":
                note_execution(found, decide())
            note_keeping(found, request.keep_weights)
            return found, False
    execution = decide()
    study = found or optuna.create_study(
        study_name=name, storage=store.storage, direction="maximize", pruner=pruner(identity)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([identity.value_name])  # on the dashboard's axes
    note_execution(study, execution)
    note_keeping(study, request.keep_weights)
    study.set_user_attr(VERSIONS_KEY, versions())
    if request.plan is not None and request.plan.source is not None:
        study.set_user_attr(SOURCE_TRIALS_KEY, request.plan.source_trials)
        study.set_user_attr(SOURCE_KEY, request.plan.source)
    study.set_user_attr(UUID_KEY, str(uuid4()))
    study.set_user_attr(IDENTITY_KEY, identity.as_dict())
    return study, True


def _refuse_difference(study: optuna.Study, identity: StudyIdentity, request: Request) -> None:
    stored = identity_of(study)
    if stored is None:
        raise IdentityError(
            f"the study '{study.study_name}' was not made by bnvit-study; choose another --study"
        )
    if lines := stored.differences(identity):
        raise IdentityError(
            f"the study '{study.study_name}' exists and differs: {'; '.join(lines)}. "
            f"Ask for the same, or start another with: {request.command(fresh=True)}"
        )


def _free_name(name: str, taken: set[str]) -> str:
    if name not in taken:
        return name
    number = 2
    while f"{name}-{number}" in taken:
        number += 1
    return f"{name}-{number}"
