"""What sources claim, and the marks that evidence gives."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from objectives.calibration import Calibration
from objectives.denormals import FLUSHED, UNFLUSHED, Slowdown
from objectives.intervals import Interval
from objectives.speed import Race, Timing
from study.article_claims import RATIOS
from study.claims import Claim, Evidence, Finding, finding, findings
from study.claims_speed import gain_judged, ratio_judged
from study.claims_times import ARTICLE_STEPS
from study.judging import all_of, placed, short_of_article, too_few
from study.reproduction import SOURCE_PARTS, Reproduction, Source, claims_of, parse_parts
from study.reproduction_report import reproduction_report
from study.results import StudyResult
from study.speeds import Speeds, TaskSpeeds
from tests.study.results import result_of, run_of
from tests.study.test_speeds import made

FAST = {"vit": 1.0, "vitbnffn": 1.0, "vitbn": 1.02, "vitbnffn_oneblock": 2.7, "vitbn_oneblock": 2.5}


def loop_speeds(faster: dict[str, float], trouble: bool = False) -> Speeds:
    """Speeds of the article's loop: each model so many times as fast as ViT."""
    timings = tuple(
        Timing(name, tuple((1 + 0.001 * (i % 3)) / by for i in range(15)), 100, 6, 6.0, 1, None)
        for name, by in faster.items()
    )
    calibration = Calibration(1.0, 1.5 if trouble else 1.0)
    tasks = tuple(
        TaskSpeeds(work, 100, Race(timings, calibration, 1, True), None)
        for work in ("train", "eval")
    )
    return replace(made(1.0), models=tuple(faster), tasks=tasks)


def claim(source: Source, name: str) -> Claim:
    return next(one for one in claims_of(source) if one.id == name)


@pytest.mark.parametrize(
    ("found", "mark"),
    [
        (Interval(2.6, 2.5, 2.7), "confirmed"),
        (Interval(1.0, 0.9, 1.1), "refuted"),
        (Interval(3.5, 3.4, 3.6), "refuted"),
        (Interval(2.4, 1.9, 2.6), "undecided"),
    ],
)
def test_a_mark_is_where_an_interval_lies(found: Interval, mark: str) -> None:
    assert placed(found, 2.2, 2.9) == mark


def test_a_claim_that_says_several_things_is_as_good_as_its_worst() -> None:
    assert all_of(["confirmed", "confirmed"]) == "confirmed"
    assert all_of(["confirmed", "undecided"]) == "undecided"
    assert all_of(["undecided", "refuted"]) == "refuted"


def test_with_few_seeds_nothing_is_decided() -> None:
    assert too_few(3) == "3 seeds: 2 more are needed for a mark"
    assert too_few(5) == ""


def test_a_ratio_of_one_block_is_no_ratio_of_six() -> None:
    told = ratio_judged(Evidence(article_speeds=loop_speeds(FAST)), "vitbnffn", "train", 2.7, True)
    assert told.status == "refuted"
    assert "with all 6 blocks vitbnffn trains 1.00 times as fast" in told.reason
    assert "with one block, as the article ran it, 2.70: the published ratio" in told.reason
    slow = Evidence(article_speeds=loop_speeds({**FAST, "vitbnffn_oneblock": 4.0}))
    other = ratio_judged(slow, "vitbnffn", "train", 2.5, True)
    assert "one block gives 2.5 where 28% of ViT's time is not its blocks'" in other.reason
    assert "here is 10%" in other.reason
    gained = gain_judged(Evidence(article_speeds=loop_speeds(FAST)), "train")
    assert gained.status == "refuted"
    honest = {**FAST, "vitbnffn": 2.7, "vitbn": 2.6}
    assert gain_judged(Evidence(article_speeds=loop_speeds(honest)), "train").status == "confirmed"


def test_a_ratio_at_a_setting_that_was_not_raced_is_not_judged() -> None:
    evidence = Evidence(article_speeds=loop_speeds(FAST))
    marks = {setting: claim("article", f"ratio-{setting}-vitbn-train") for setting in RATIOS}
    told = {setting: finding(one, evidence) for setting, one in marks.items()}
    assert told[5e-4].status == "refuted"
    others = [one for setting, one in told.items() if setting != 5e-4]
    assert {one.status for one in others} == {"undecided"}
    assert all("not at this setting" in one.judgement.reason for one in others)


def trained(model: str, curve: Sequence[float], images: int = 55_000) -> StudyResult:
    """Six runs of the article's length at its largest learning rate."""
    runs = [run_of(seed, curve[-1], (1e-2, 100), curve) for seed in range(1, 7)]
    return result_of(
        model, runs, dataset="mnist", epochs=30, train_images=images, switches={"patch_size": 7}
    )


def stability(vit: Sequence[float], bn: Sequence[float]) -> dict[str, Finding]:
    sweeps = (trained("vit", vit), trained("vitbnffn", bn), trained("vitbn", bn))
    names = ("unstable-0.01", "stable-0.01", "larger-lr")
    return {name: finding(claim("article", name), Evidence(sweeps=sweeps)) for name in names}


LEARNT = [0.95] * 30
NEVER = [0.11] * 30


def test_a_model_that_never_learnt_is_neither_stable_nor_unstable() -> None:
    told = stability(NEVER, NEVER)
    assert {one.status for one in told.values()} == {"undecided"}
    assert "6 never above 90%" in told["stable-0.01"].judgement.reason


@pytest.mark.parametrize(("epoch", "mark"), [(15, "confirmed"), (2, "refuted")])
def test_instability_is_judged_by_when_it_begins(epoch: int, mark: str) -> None:
    told = stability([*LEARNT[: epoch - 1], *NEVER[epoch - 1 :]], LEARNT)
    assert told["unstable-0.01"].status == mark
    assert f"from epoch {epoch} on" in told["unstable-0.01"].judgement.reason
    assert told["larger-lr"].status == told["stable-0.01"].status == "confirmed"


def test_what_is_not_the_articles_training_is_said() -> None:
    assert short_of_article([trained("vit", LEARNT)]) == ""
    small = trained("vit", LEARNT, images=2_000)
    assert "2,000 training images of 55,000" in short_of_article([small])
    deep = replace(small.identity, switches={"patch_size": 7, "depth": 2})
    other = replace(small, identity=deep)
    assert "models with depth 2" in short_of_article([other])
    tuned = replace(trained("vit", LEARNT), source="search", source_trials=3)
    assert short_of_article([tuned]) == "the best of 3 trials of 20"


def test_the_time_of_a_run_that_diverged_decides_nothing() -> None:
    race = loop_speeds(FAST).tasks[0].race
    names = (UNFLUSHED, FLUSHED)
    timings = tuple(replace(race.timings[0], name=name) for name in names)
    lost = replace(race, timings=timings)
    slowdowns = tuple(
        Slowdown(model, lr, 100, ARTICLE_STEPS, math.nan if lr == 1e-2 else 0.1, lost)
        for model in ("vit", "vitbnffn", "vitbn")
        for lr in (5e-4, 5e-3, 1e-2)
    )
    evidence = Evidence(slowdowns=slowdowns)
    told = finding(claim("article", "time-0.01"), evidence)
    assert told.status == "undecided"
    assert "had diverged, whose time says nothing" in told.judgement.reason
    assert finding(claim("article", "time-0.005"), evidence).status == "refuted"


def test_a_disturbed_race_decides_nothing() -> None:
    evidence = Evidence(article_speeds=loop_speeds(FAST, trouble=True))
    told = ratio_judged(evidence, "vitbnffn", "train", 2.7, True)
    assert told.status == "undecided"
    assert "UNRELIABLE" in told.reason


def test_short_training_decides_nothing_about_accuracy() -> None:
    sweeps = tuple(
        result_of(m, [run_of(seed, 0.97, (5e-4, 100)) for seed in range(1, 6)])
        for m in ("vit", "vitbnffn", "vitbn")
    )
    claims = [one for one in claims_of("article") if one.id.startswith("accuracy-0.0005")]
    accuracies = findings(claims, Evidence(sweeps=sweeps, one_block=sweeps))
    assert len(accuracies) == 3
    assert {one.status for one in accuracies} <= {"undecided", "refuted"}
    assert all("epoch" in one.judgement.budget for one in accuracies)


def test_dropout_is_judged_beside_experiment_1_or_not_at_all() -> None:
    runs = [run_of(seed, 0.97, (5e-4, 100)) for seed in range(1, 6)]
    with_it = tuple(result_of(name, runs) for name in ("vit", "vitbn"))
    told = finding(claim("article", "dropout"), Evidence(dropout=with_it))
    assert told.status == "not run"
    assert told.judgement.reason.endswith("experiment 1 at lr 0.0005")
    beside = finding(claim("article", "dropout"), Evidence(dropout=with_it, sweeps=with_it))
    assert beside.status == "undecided"


def test_what_is_missing_is_not_run_and_says_how_it_would_be() -> None:
    asked = Reproduction("article", ("speed",))
    why = {"speed": f"not run; {asked.command('speed')}"}
    told = finding(claim("article", "gain-train"), Evidence(missing=why))  # type: ignore[arg-type]
    assert told.status == "not run"
    assert "bnvit-study reproduce article --only speed" in told.judgement.reason
    unrun = [one for one in claims_of("blog") if one.judge is None]
    assert unrun
    assert all(one.unrun for one in unrun)


@pytest.mark.parametrize("source", list(SOURCE_PARTS))
def test_every_claim_stands_in_one_table_with_its_mark(source: Source) -> None:
    claims = claims_of(source)
    assert len({one.id for one in claims}) == len(claims)
    missing = dict.fromkeys((one.needs for one in claims), "not run")
    told = reproduction_report(Reproduction(source, ()), Evidence(missing=missing))
    rows = [row for table in told.tables for row in table.rows]
    assert len(rows) == len(claims)
    assert {row[3] for row in rows} == {"not run"}
    assert told.verdicts[0].startswith(f"of {len(claims)} claims 0 confirmed, 0 refuted")


def test_all_ratios_of_the_article_are_claimed() -> None:
    told = {one.id for one in claims_of("article")}
    assert (
        len([name for name in told if name.startswith("ratio-")])
        == 4 * sum(len(models) for models in RATIOS.values()) // 2
    )
    assert (
        Finding(
            claim("article", "gain-eval"),
            gain_judged(Evidence(article_speeds=loop_speeds(FAST)), "eval"),
        ).status
        == "refuted"
    )


def test_parts_are_chosen_in_their_order() -> None:
    assert parse_parts("article", "experiment1,speed", False) == ("speed", "experiment1")
    assert "dropout" not in parse_parts("article", None, False)
    assert "dropout" in parse_parts("article", None, True)
