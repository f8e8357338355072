"""A stability study from its first slot to its tables, on rates that really diverge."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.errors import InputError
from objectives import objective
from objectives.metrics import Diverged
from objectives.outcome import Outcome
from objectives.search_space import SearchSpace
from study.bisection import Bisection
from study.briefing import next_steps, opening
from study.comparison_report import Asked, read_compared
from study.crew import Crew
from study.docket import Docket
from study.equality import inequalities
from study.experiment_requests import fit_of_study, planned, sweep_of
from study.identity import StudyIdentity
from study.patience import Patience
from study.placing import Placing
from study.plan import COMPUTED, CURVE, Plan
from study.report_html import html
from study.report_layouts import laid_out
from study.request import Request
from study.results import RunResult, StudyResult, read_result
from study.service import Session, open_session
from study.settings import Settings
from study.stability import Limit, limits
from study.stability_charts import stability_charts
from study.stability_plan import StabilityPlan
from study.stability_rate import Rate
from study.stability_report import StabilityReport
from study.stability_tables import stability_tables
from study.stop import Stop
from study.storage import Store
from study.studies import find_study
from study.summary import summary
from study.tables import trials_table
from study.worker import Limits, work
from study.workplace import workplace
from tests.conftest import SUBSET, TINY
from tests.study.conftest import train

Search = Callable[..., Session]

SIZES = (32, 64)
BISECTION = Bisection((1e-3, 1e9), SIZES, grid=3, steps=2, seeds=2)
PLAN = StabilityPlan(BISECTION)


@pytest.fixture(scope="module")
def asked() -> Request:
    request = Request(
        model="vitbn",
        switches=TINY,
        dataset=SUBSET,
        epochs=2,
        device="cpu",
        seed=3,
        train_images=128,
        study="test_stability",
    )
    return planned(request, PLAN)


@pytest.fixture(scope="module")
def session(asked: Request, store: Store, settings: Settings) -> Session:
    """Trained to its end."""
    assert store.engine is not None  # which keeps the server
    with open_session(asked, settings, lambda _: None) as opened:
        train(opened)
    return opened


@pytest.fixture(scope="module")
def result(session: Session, store: Store) -> StudyResult:
    return read_result(store, session.study.study_name)


def by_size(result: StudyResult) -> dict[int, Limit]:
    return {limit.batch_size: limit for limit in limits([result])}


def keys(result: StudyResult) -> list[tuple[float, int, int]]:
    return [(run.lr, run.batch_size, run.seed) for run in result.runs]


def test_all_runs_are_made_once_and_the_bracket_is_halved(result: StudyResult) -> None:
    assert len(set(keys(result))) == len(result.runs) == PLAN.runs == 2 * 5 * 2
    assert {run.seed for run in result.runs} == {3, 4}
    for size, limit in by_size(result).items():
        rates = [rate.lr for rate in limit.rates]
        assert set(BISECTION.rates) < set(rates)
        assert len(rates) == 5
        assert limit.ends.low is not None
        assert limit.ends.high is not None
        assert limit.ends.high / limit.ends.low == pytest.approx(10**1.5, rel=1e-4), "of 6 decades"
        for rate in limit.rates:
            assert len(rate.runs) == 2, size
            assert (rate.lr <= limit.ends.low) or rate.diverged


def test_a_run_that_diverged_tells_where_and_when(result: StudyResult) -> None:
    episodes = [episode for limit in limits([result]) for episode in limit.episodes]
    assert len(episodes) == sum(run.outcome is Outcome.DIVERGED for run in result.runs) > 0
    for episode in episodes:
        assert episode.told.layer is not None
        assert episode.told.stage in ("output", "gradient", "update")
        assert episode.told.grad_norm_before is not None
        assert math.isfinite(episode.told.grad_norm_before)
        assert "NaN" in episode.notation


def test_no_test_image_is_read_and_the_curve_is_kept(result: StudyResult, store: Store) -> None:
    study = find_study(store, result.name)
    for trial in study.get_trials():
        assert "test" not in trial.user_attrs
        assert trial.user_attrs["suggested_by"] == "plan"
        assert trial.user_attrs[COMPUTED]["classes"] == 10
        assert 0.1 < trial.user_attrs[COMPUTED]["majority_accuracy"] < 0.3
        if trial.user_attrs["outcome"] == "complete":
            assert [rung["rung"] for rung in trial.user_attrs[CURVE]] == [128, 256]


def test_the_study_is_shown_with_its_limits(result: StudyResult, asked: Request) -> None:
    first, *lines = summary(result.seen)
    assert first.startswith("20 trials: ")
    assert [line.partition(":")[0] for line in lines] == ["batch size 32", "batch size 64"]
    for line, limit in zip(lines, by_size(result).values(), strict=True):
        assert f"stable up to lr {limit.ends.low:.3g}, not at {limit.ends.high:.3g}" in line
    headings = [str(column.header) for column in trials_table(result.seen).columns]
    assert "seed" in headings
    assert "test accuracy" not in headings
    assert asked.command().startswith(
        "bnvit-study stability --models vitbn --batch-sizes 32,64 --lr 0.001:1000000000.0 "
        "--grid 3 --steps 2 --seeds 2 --dataset "
    )
    assert " --epochs 2 " in asked.command()
    assert " --epochs " not in replace(asked, epochs=3).command(), "what the command does anyway"


def test_the_same_again_trains_nothing_and_says_so(
    session: Session, settings: Settings, asked: Request
) -> None:
    with open_session(asked, settings, lambda _: None) as again:
        assert again.uuid == session.uuid
        lines = opening([again], Placing([], "", Crew))
        assert not again.is_new
        assert again.is_done
    assert "all 20 trials have ended already; nothing is left to do" in lines
    assert any("3 of lr 0.001–1e+09 (log), then 2 where stability ends" in line for line in lines)
    told = next_steps([again], [again.overview()])
    assert not any(line.startswith("add more") for line in told), "its total is fixed"


def test_the_report_has_tables_json_and_figures(
    session: Session, result: StudyResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    StabilityReport(False, tmp_path / "figures")([session], [result.seen])
    out = capsys.readouterr().out
    for title in ("Largest stable learning rate", "Learning rates", "Runs that diverged"):
        assert f"\n{title}\n" in out
    assert out.count("figure: ") == 3
    for name in ("accuracy", "map", "limits"):
        png = (tmp_path / "figures" / f"{name}.png").read_bytes()
        assert png.startswith(b"\x89PNG")
    StabilityReport(True, None)([session], [result.seen])
    told = json.loads(capsys.readouterr().out)
    assert told["unequal"] == []
    assert told["studies"][0]["identity"]["kind"] == "stability"
    ends = by_size(result)[32].ends
    first = told["stability"][0]
    assert (first["largest_stable_lr"], first["unstable_from_lr"]) == (ends.low, ends.high)
    assert {"estimate", "low", "high"} == set(first["rates"][0]["p_diverge"])
    assert {"layer", "stage", "step", "grad_norm_before", "notation", "seed"} <= set(
        first["diverged"][0]
    )


def test_a_folder_for_figures_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is no folder; name another with -o"):
        StabilityReport(False, tmp_path / "file").check()
    StabilityReport(False, tmp_path / "new").check()
    assert not (tmp_path / "new").exists()


def test_an_interrupted_study_goes_on_and_what_failed_is_made_again(
    store: Store, settings: Settings, asked: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = StabilityPlan(replace(BISECTION, grid=2, steps=2, seeds=1))
    request = planned(replace(asked, study="test_stability_interrupted", epochs=1), small)
    result_of, calls = objective.result, []

    def fail_once(*args: Any) -> objective.Result:
        calls.append(args)
        if len(calls) == 2:
            raise ValueError("a bug")
        return result_of(*args)

    monkeypatch.setattr(objective, "result", fail_once)
    with open_session(request, settings, lambda _: None) as session:
        trained(session, 3)
        seen = session.overview()
        assert (len(seen.ended), len(seen.counted)) == (3, 8)
        assert any("so far" in line for line in summary(seen))
    with open_session(request, settings, lambda _: None) as session:
        train(session)
    found = read_result(store, request.study_name)
    assert found.seen.outcomes["failed"] == 1
    assert len(set(keys(found))) == len(found.runs) == 8
    assert len(calls) == 9


def trained(session: Session, trials: int) -> None:
    """Have a worker leave after so many trials."""
    stop = Stop()
    with workplace(session.store, session.settings, session.device, Patience(60, stop)) as hands:
        docket = Docket(session.store, session.settings, session.device, [session.study.study_name])
        work(docket, hands, Limits(trials=trials))
        docket.close()


def test_where_nothing_is_stable_that_is_the_result(
    store: Store, search: Search, asked: Request
) -> None:
    bad = StabilityPlan(Bisection((1e12, 1e15), (64,), grid=2, steps=1, seeds=1))
    request = planned(replace(asked, study="test_stability_nothing", epochs=1), bad)
    search(request)
    found = read_result(store, request.study_name)
    (limit,) = limits([found])
    assert len(found.runs) == 3
    assert (limit.ends.low, limit.ends.high, limit.best) == (None, 1e12, None)
    assert summary(found.seen)[-1] == "batch size 64: no learning rate from 1e+12 on is stable"
    assert limit.sensitivity == limit.accuracy_lost == 0.0
    assert limits_row(limit)[2:4] == ("none", "1e+12")
    assert len(stability_charts([limit])) == 3


def limits_row(limit: Limit) -> tuple[str, ...]:
    return stability_tables([limit])[0].rows[0]


def test_a_search_is_not_watched(store: Store, small: Request, search: Search) -> None:
    search(small, space=SearchSpace(lr=(1e12, 1e15)), trials=1)
    (trial,) = find_study(store, small.study_name).get_trials()
    assert trial.user_attrs["diverged"]["layer"] is None


def test_what_was_stored_before_there_was_stability_reads_as_it_was(result: StudyResult) -> None:
    stored = result.identity.as_dict() | {"kind": "search"}
    for name in ("batch_sizes", "grid", "steps", "seeds"):
        del stored[name]
    old = StudyIdentity(**stored)
    assert (old.batch_sizes, old.grid, old.steps, old.seeds) == ((), 0, 0, 0)
    assert not any((old.is_planned, old.is_watched, old.is_tested))


def test_models_are_studies_of_their_own_and_alike(
    asked: Request, result: StudyResult, store: Store
) -> None:
    request = replace(asked, study=None, switches=None)
    vit, vitbn = sweep_of(request, ["vit", "vitbn"], PLAN)
    assert vit.study_name == "mnist-subset-vit-stability"
    assert vit.command() == vitbn.command()
    assert "stability --models vit,vitbn --batch-sizes 32,64 " in vit.command()
    assert inequalities([result, result], {}) == ()
    other = replace(result, identity=replace(result.identity, steps=5))
    assert (
        "learning rates: 3 and 2 steps, and 3 and 5 steps" in inequalities([result, other], {})[0]
    )
    with pytest.raises(InputError, match="is a stability study: 'bnvit-study report'"):
        read_compared(store, Asked((result.name,)))
    with pytest.raises(InputError, match="is a stability study, no search"):
        fit_of_study(result.seen, request, Plan("fit", ((0.0, 0),), 2, "train"))


def test_a_report_shows_its_limits_tables_and_figures(
    result: StudyResult, store: Store, settings: Settings
) -> None:
    told = laid_out(store, settings, Asked((result.name,)), "comparison", None)
    assert [line.startswith("vitbn, batch size") for line in told.verdicts] == [True, True]
    names = [table.name for table in told.tables]
    assert (names[:2], names[-1]) == (["limits", "rates"], "environment")
    assert told.tables[-1].rows[0][:2] == (result.name, "vitbn")
    assert {chart.name for chart in told.charts} == {"accuracy", "map", "limits"}
    assert "Share of runs that diverged" in html(told)


def run_of(lr: float, seed: int, accuracy: float | None, loss: float = 1.0) -> RunResult:
    """A run that ended so; None: it diverged. Of ten classes, the commonest has 11 %."""
    told = Diverged(step=9, images_seen=90, lr=lr, best_val_accuracy=0.0)
    return RunResult(
        number=0,
        lr=lr,
        batch_size=10,
        seed=seed,
        outcome=Outcome.DIVERGED if accuracy is None else Outcome.COMPLETE,
        value=0.1 if accuracy is None else accuracy,
        val_accuracy=accuracy,
        test={},
        curve=() if accuracy is None else ({"val_loss": loss},),
        computed={"classes": 10, "majority_accuracy": 0.11},
        diverged=vars(told) if accuracy is None else None,
        mlflow_run_id=None,
    )


def limit_of(*runs: RunResult) -> Limit:
    rates = sorted({run.lr for run in runs})
    found = tuple(Rate(lr, tuple(run for run in runs if run.lr == lr)) for lr in rates)
    return Limit("study", "vit", 10, tuple(rates), 100, found)


def test_collapsed_and_diverged_are_counted_apart() -> None:
    limit = limit_of(run_of(1.0, 1, 0.11), run_of(1.0, 2, None), run_of(1.0, 3, 0.12))
    (rate,) = limit.rates
    assert (rate.collapsed, rate.diverged) == (1, 1)
    assert rate.p_diverge.estimate == pytest.approx(1 / 3)
    assert rate.p_diverge.low < 1 / 3 < rate.p_diverge.high


def test_sensitivity_is_the_expected_excess_over_the_logarithmic_range() -> None:
    """Losses 0, 1, and guessing's from the third rate on, which lies twice as far away."""
    guessing = math.log(10)
    limit = limit_of(
        run_of(1e-3, 1, 0.9, loss=0.0), run_of(1e-2, 1, 0.5, loss=1.0), run_of(1.0, 1, None)
    )
    expected = (1 * 0.5 + 2 * (1.0 + guessing) / 2) / 3
    assert limit.sensitivity == pytest.approx(expected)
    assert limit.accuracy_lost == pytest.approx((1 * 0.2 + 2 * (0.4 + 0.8) / 2) / 3)
    worse = limit_of(
        run_of(1e-3, 1, 0.9, loss=0.0),
        run_of(1e-2, 1, 0.5, loss=1.0),
        run_of(1.0, 1, 0.02, loss=99),
    )
    assert worse.sensitivity == pytest.approx(expected), "no loss counts for more than guessing's"
    assert worse.accuracy_lost == pytest.approx(limit.accuracy_lost)


def test_the_best_rate_is_one_at_which_nothing_diverged() -> None:
    limit = limit_of(
        run_of(1e-3, 1, 0.05), run_of(1e-2, 1, 0.95), run_of(1e-2, 2, None), run_of(1.0, 1, None)
    )
    assert limit.best is not None
    assert limit.best.lr == 1e-3


def test_what_the_tables_cannot_show_in_a_cell_stands_below(result: StudyResult) -> None:
    open_above = limit_of(run_of(1e-3, 1, None), run_of(1e-2, 1, 0.9))
    notes = stability_tables([open_above])[0].notes
    assert any("no learning rate was seen to diverge above" in note for note in notes)
    assert any("lower learning rates diverged all the same: 0.001" in note for note in notes)
    names = [table.name for table in stability_tables([limit_of(run_of(1e-3, 1, 0.9))])]
    assert names == ["limits", "rates"], "no table of runs that diverged where there are none"
    rows = stability_tables(limits([result]))[2].rows
    assert len(rows) == sum(run.outcome is Outcome.DIVERGED for run in result.runs)
