"""The training still to come, against simulated studies of trials that are all alike."""

import random
from dataclasses import replace
from datetime import UTC, datetime

import optuna
import pytest

from objectives.recipe import REDUCTION_FACTOR, search_rungs
from study.forecast import images_left
from study.identity import PrunerName, StudyIdentity
from study.overview import Overview, TrialRow
from study.samplers import SCOUTED_TRIALS, is_scout

EPOCH = 800  # images
RUNGS = search_rungs(EPOCH, epochs=3)
IDENTITY = StudyIdentity(
    model="vitbn",
    switches={},
    dataset="mnist",
    data_checksum="",
    train_images=EPOCH,
    validation_images=100,
    epochs=3,
    rungs=RUNGS,
    lr=(1e-5, 1e-2),
    batch_size=(20, 120),
    sampler="tpe",
    pruner="asha",
    seed=0,
)
STUDY = optuna.create_study()  # none of its trials is looked at
WAITING = TrialRow(
    number=0,
    state="WAITING",
    outcome="waiting",
    lr=None,
    batch_size=None,
    val_accuracy=None,
    images_seen=0,
    rungs=(),
    suggested_by=None,
    attempt=0,
    worker=None,
    started=None,
    finished=None,
    mlflow_run_id=None,
    reason=None,
)


def study(waiting: int, *others: TrialRow, pruner: PrunerName = "asha") -> Overview:
    rows = [*others, *[WAITING] * waiting]
    numbered = tuple(replace(row, number=number) for number, row in enumerate(rows))
    return Overview("study", "uuid", replace(IDENTITY, pruner=pruner), numbered, STUDY)


def ended(rungs: int) -> TrialRow:
    seen = RUNGS[:rungs]
    return replace(
        WAITING, outcome="pruned", images_seen=seen[-1], rungs=seen, finished=datetime.now(UTC)
    )


def simulated_images(trials: int, draw: random.Random) -> int:
    """Successive halving over trials of random and constant quality."""
    reported: list[list[float]] = [[] for _ in RUNGS]
    images = 0
    for number in range(trials):
        quality = draw.random()
        for index, rung in enumerate(RUNGS):
            reported[index].append(quality)
            last = rung
            kept = max(len(reported[index]) // REDUCTION_FACTOR, 1)
            scouts = index == 0 and is_scout(number, trials)
            if scouts or quality < sorted(reported[index], reverse=True)[kept - 1]:
                break
        images += last
    return images


@pytest.mark.parametrize("trials", [2, 4, SCOUTED_TRIALS - 1, SCOUTED_TRIALS, 20, 40])
def test_it_foresees_the_mean_of_simulated_studies(trials: int) -> None:
    draw = random.Random(0)
    simulated = [simulated_images(trials, draw) for _ in range(2000)]
    mean = sum(simulated) / len(simulated)
    assert images_left(study(trials)) == pytest.approx(mean, rel=0.13)


def test_without_a_pruner_every_trial_goes_to_the_end() -> None:
    assert images_left(study(5, pruner="none")) == 5 * RUNGS[-1]


def test_the_median_lets_the_first_go_on_and_then_half_of_them() -> None:
    assert images_left(study(4, pruner="median")) == 4 * RUNGS[-1]
    one_of_many = study(1, *[ended(len(RUNGS))] * 10, pruner="median")
    steps = [after - before for before, after in zip((0, *RUNGS), RUNGS, strict=False)]
    assert images_left(one_of_many) == sum(step / 2**i for i, step in enumerate(steps))


def test_nothing_is_left_of_an_ended_study() -> None:
    assert images_left(study(0, ended(1), ended(4))) == 0


def test_a_running_trial_counts_with_what_it_has_left() -> None:
    running = replace(ended(3), outcome="running", finished=None, images_seen=RUNGS[2] + 10)
    assert images_left(study(0, running)) == RUNGS[3] - RUNGS[2] - 10


def test_a_scout_is_expected_to_end_at_its_first_rung() -> None:
    others = [ended(1)] * (SCOUTED_TRIALS - 1)
    assert images_left(study(1, *others)) > RUNGS[0]
    scout = replace(study(0), trials=(WAITING, *study(0, ended(1), *others).trials[1:]))
    assert images_left(scout) == RUNGS[0]
