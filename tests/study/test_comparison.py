"""Studies side by side: what must be alike, what is paired, what is said."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from objectives.outcome import Outcome
from objectives.recipes import Recipe
from objectives.searched import Searched
from study.charts import Line
from study.comparison import Reached, best_by_batch_size, cells, epoch_times_s, pairs
from study.comparison_charts import times_chart
from study.comparison_report import Asked, Compared, report_of
from study.comparison_tables import (
    accuracy_verdicts,
    cells_table,
    convergence_verdicts,
    pairs_table,
)
from study.equality import inequalities, refuse, unlike_speeds
from study.errors import UnequalError
from study.report import Report
from study.results import StudyResult, told_apart
from tests.conftest import SUBSET
from tests.study.results import COMPUTED, result_of, run_of
from tests.study.test_speeds import made

LN = (0.970, 0.972, 0.968, 0.971, 0.969)
SLOW = (0.5, 0.8, 0.9, 0.98)


def seeds(accuracies: tuple[float | None, ...], **changes: object) -> list:  # type: ignore[type-arg]
    return [run_of(seed, value, **changes) for seed, value in enumerate(accuracies, 1)]  # type: ignore[arg-type]


def compared(*results: StudyResult, **asked: object) -> Report:
    names = tuple(result.name for result in results)
    given = Asked(names, **asked)  # type: ignore[arg-type]
    return report_of(Compared(results, {}, inequalities(results, {}), given))


@pytest.fixture
def vit() -> StudyResult:
    return result_of("vit", seeds(LN))


def worse(by: float = 0.01) -> StudyResult:
    """A study whose runs are worse than those of `LN` with the same seeds, nearly evenly."""
    jitter = (0.0, 0.001, 0.0, -0.001, 0.0)
    return result_of("vitbn", seeds(tuple(x - by + e for x, e in zip(LN, jitter, strict=True))))


def test_runs_are_paired_by_seed(vit: StudyResult) -> None:
    other = worse()
    shuffled = replace(other, runs=other.runs[::-1])
    (pair,) = pairs(cells([vit, shuffled]))
    assert pair.accuracy is not None
    assert pair.accuracy.pairs == 5
    assert pair.accuracy.difference.estimate == pytest.approx(-0.01)
    assert pair.accuracy.won == 0
    (line,) = accuracy_verdicts([pair])
    assert "vitbn against vit at lr 0.001, batch size 50: less accurate; difference −1.00" in line
    (none,) = accuracy_verdicts(pairs(cells([vit, worse(0.0)])))
    assert "no difference shown" in none


def test_with_few_seeds_there_are_numbers_and_no_verdict(vit: StudyResult) -> None:
    few = [replace(result, runs=result.runs[:4]) for result in (vit, worse())]
    (line,) = accuracy_verdicts(pairs(cells(few)))
    assert "no verdict: fewer than 5 seeds; difference −1.00" in line


def test_a_run_that_diverged_counts_with_the_accuracy_of_guessing(vit: StudyResult) -> None:
    lost = result_of("vitbn", seeds((0.97, None, 0.97, 0.97, 0.97)))
    (cell,) = cells([lost])
    assert cell.accuracies[2] == 0.1
    assert cell.diverged == 1
    said = compared(vit, lost).verdicts
    assert "stability: vitbn diverged in 1 of 5 runs at lr 0.001, batch size 50" in said


def test_a_run_out_of_memory_is_said_and_counts_nowhere(vit: StudyResult) -> None:
    runs = seeds(LN)
    runs[1:3] = [replace(run, outcome=Outcome.OOM, test={}, curve=()) for run in runs[1:3]]
    lost = result_of("vitbn", runs)
    assert sorted(cells([lost])[0].accuracies) == [1, 4, 5]
    assert cells_table(cells([lost]), 0.97, ()).rows[0][3] == "5, 2 out of memory"
    said = compared(vit, lost).verdicts
    assert any("memory: vitbn ran out of it in 2 of 5 runs" in line for line in said)


def test_without_a_validation_split_nothing_is_said_of_convergence() -> None:
    joined = [
        result_of(m, seeds(LN, curve=()), kind="fit", trained_on="train+val")
        for m in ("vit", "vitbn")
    ]
    said = [line for line in compared(*joined).verdicts if line.startswith("convergence")]
    assert said == ["convergence: not known, as the validation images were trained on, too"]
    assert cells_table(cells(joined), 0.97, ()).rows[0][7] == "no validation split"


def test_where_every_run_diverged_that_is_the_result(vit: StudyResult) -> None:
    lost = result_of("vitbn", seeds((None,) * 5, curve=()))
    said = compared(vit, lost).verdicts
    assert any("less accurate" in line for line in said)
    assert "stability: vitbn diverged in 5 of 5 runs at lr 0.001, batch size 50" in said


def test_times_of_batch_sizes_are_lines_of_their_own() -> None:
    grid = [(lr, size) for size in (50, 100) for lr in (1e-3, 1e-2)]
    runs = [run for values in grid for run in seeds(LN, configuration=values)]
    chart = times_chart(cells([result_of("vit", runs)]))
    assert chart is not None
    names = [mark.name for mark in chart.panels[0].marks if isinstance(mark, Line)]
    assert names == ["vit, batch size 50", "vit, batch size 100"]
    assert times_chart(cells([result_of("vit", seeds(LN))])) is None


def test_equal_values_are_compared_with_each_other() -> None:
    grid = [(1e-3, 50), (1e-2, 50)]
    both = [
        result_of(model, [run for values in grid for run in seeds(LN, configuration=values)])
        for model in ("vit", "vitbn")
    ]
    found = pairs(cells(both))
    assert [(pair.cell.model, pair.cell.lr, pair.reference.lr) for pair in found] == [
        ("vitbn", 1e-3, 1e-3),
        ("vitbn", 1e-2, 1e-2),
    ]
    assert found[0].accuracy is not None
    assert found[0].accuracy.family == 2


def test_fits_are_compared_each_at_its_own_values() -> None:
    both = [
        result_of("vit", seeds(LN), kind="fit", source="a"),
        result_of("vitbn", seeds(LN, configuration=(5e-3, 32)), kind="fit", source="b"),
    ]
    (pair,) = pairs(cells(both))
    assert (pair.cell.lr, pair.reference.lr) == (5e-3, 1e-3)
    (line,) = accuracy_verdicts([pair])
    assert "vitbn (lr 0.005, batch size 32) against vit (lr 0.001, batch size 50)" in line


def test_epochs_to_the_target(vit: StudyResult) -> None:
    slow = result_of("vitbn", seeds(LN, curve=SLOW))
    (cell,) = cells([vit])
    assert cell.reached(0.97)[1] == Reached(3.0, 30.0)
    (line,) = convergence_verdicts(pairs(cells([vit, slow])), 0.97)
    assert "more epochs to 97% validation accuracy; difference +1.00" in line
    (never,) = convergence_verdicts(pairs(cells([vit, slow]), 0.99), 0.99)
    assert "no verdict, as not all runs reached 99%: vitbn 0 of 5, vit 0 of 5" in never


def test_times_of_epochs_are_differences_of_the_clock() -> None:
    assert epoch_times_s(run_of(1, 0.9)) == [10.0] * 4


def test_each_batch_size_has_its_own_best_learning_rate() -> None:
    grid = {(1e-3, 50): 0.9, (1e-2, 50): 0.95, (1e-3, 100): 0.8, (1e-2, 100): 0.7}
    runs = [run for c, end in grid.items() for run in seeds(LN, configuration=c, curve=(end,))]
    found = best_by_batch_size(cells([result_of("vit", runs)]))
    assert [(cell.lr, cell.batch_size) for cell in found] == [(1e-2, 50), (1e-3, 100)]


def changed(field: str, value: Any) -> StudyResult:
    """A study that differs from `vit` in one field of its identity."""
    return result_of("vitbn", seeds(LN), **{field: value})


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (changed("data_checksum", "feedbeef00"), "differ in data: .*feedbeef"),
        (changed("train_images", 500), "differ in split: 917 training"),
        (changed("split_seed", 3), "split 3"),
        (changed("precision", "bf16"), "differ in precision: float32, and bf16"),
        (changed("epochs", 9), "differ in budget: 4 epochs, and 9 epochs"),
        (changed("recipe", Recipe(mixup=0.8)), "differ in recipe: article, and article mixup=0.8"),
        (
            result_of("vitbn", seeds(LN, computed={**COMPUTED, "processes": 4})),
            "made-vitbn was trained by 4 processes at once",
        ),
        (
            result_of("vitbn", seeds(LN, configuration=(2e-3, 50))),
            "differ in values: 0.001 with 50",
        ),
        (result_of("vitbn", seeds(LN[:4])), "differ in seeds: 1-5, and 1-4"),
        (
            result_of("vitbn", seeds(LN, computed={**COMPUTED, "blocks_executed": 1})),
            "made-vit executes 2 blocks, made-vitbn 1 block",
        ),
        (
            result_of("vitbn", seeds(LN, computed={**COMPUTED, "multiply_adds": 20_000})),
            "made-vitbn 2e-05",
        ),
        (
            result_of("vitbn", seeds(LN), kind="fit", source="search"),
            "only one is the best of a search",
        ),
    ],
)
def test_what_is_unequal_is_refused_by_name_and_marked_everywhere(
    vit: StudyResult, other: StudyResult, said: str
) -> None:
    with pytest.raises(UnequalError, match=said) as error:
        refuse(inequalities([vit, other], {}))
    assert "--allow-unequal" in str(error.value)
    shown = compared(vit, other, allow_unequal=True)
    assert any(line.startswith("UNEQUAL: ") for line in shown.verdicts)
    comparing = [table for table in shown.tables if table.name != "environment"]
    assert comparing
    for table in comparing:
        assert any(note.startswith("UNEQUAL: ") for note in table.notes), table.name


def test_what_is_about_batch_norm_alone_may_differ_between_twins(vit: StudyResult) -> None:
    assert inequalities([vit, changed("recipe", Recipe(nbs=8, freeze_bn=1))], {}) == ()
    synced = seeds(LN, computed={**COMPUTED, "processes": 4})
    assert inequalities([vit, result_of("vitbn", synced, recipe=Recipe(sync_bn=True))], {}) == ()
    assert inequalities([result_of("vit", synced), changed("seed", 1)], {}) == ()


def test_fits_may_have_each_its_tuned_value_of_a_searched_field() -> None:
    decay = (Searched("weight_decay", 1e-4, 0.3, is_log=True),)
    sources = {
        name: result_of(model, seeds(LN), kind="search", name=name, others=decay)
        for model, name in (("vit", "a"), ("vitbn", "b"))
    }
    tuned = [
        result_of(m, seeds(LN), kind="fit", source=s, recipe=Recipe(weight_decay=w))
        for m, s, w in (("vit", "a", 0.01), ("vitbn", "b", 0.03))
    ]
    assert inequalities(tuned, sources) == ()
    by_hand = replace(tuned[1].identity.recipe, mixup=0.5)
    other = replace(tuned[1], identity=replace(tuned[1].identity, recipe=by_hand))
    assert any("differ in recipe" in line for line in inequalities([tuned[0], other], sources))


def test_a_teacher_is_what_it_says_wherever_it_lies() -> None:
    def taught(model: str, path: str, checksum: str) -> StudyResult:
        recipe = Recipe(teacher=path, distillation="hard")
        return result_of(model, seeds(LN), recipe=recipe, teacher_checksum=checksum)

    first = taught("vit", "/a.safetensors", "one")
    assert inequalities([first, taught("vitbn", "/b.safetensors", "one")], {}) == ()
    other = inequalities([first, taught("vitbn", "/a.safetensors", "two")], {})
    assert any("differ in recipe" in line for line in other)


def test_speeds_of_something_else_are_unequal(vit: StudyResult) -> None:
    speeds = replace(made(1.0), dataset="cifar10", precision="bf16", models=("vit",))
    said = list(unlike_speeds([vit, worse()], speeds))
    assert any("differ in data: cifar10, and idx:" in line for line in said)
    assert any("differ in precision: bf16, and float32" in line for line in said)
    assert said[-1] == "the speeds are not those of vitbn"
    alike = replace(speeds, dataset=SUBSET, precision="float32", models=("vit", "vitbn"))
    assert list(unlike_speeds([vit, worse()], alike)) == []


def test_models_that_are_called_alike_are_told_apart(vit: StudyResult) -> None:
    other = replace(vit, name="with-dropout")
    names = [result.model for result in told_apart([vit, other, worse()])]
    assert names == ["vit (made-vit)", "vit (with-dropout)", "vitbn"]


def test_equal_studies_are_not_called_unequal(vit: StudyResult) -> None:
    refuse(inequalities([vit, worse()], {}))
    assert not any("UNEQUAL" in line for line in compared(vit, worse()).verdicts)


def test_fits_of_searches_that_were_unequal_are_unequal() -> None:
    searches = {
        "a": result_of("vit", [run_of(0, 0.9)], kind="search", name="a"),
        "b": result_of("vitbn", [run_of(0, 0.9)], kind="search", name="b", lr=(1e-5, 1.0)),
    }
    fits = [
        result_of(m, seeds(LN), kind="fit", source=s) for m, s in (("vit", "a"), ("vitbn", "b"))
    ]
    assert "a and b differ in space: lr 1e-05–0.01" in inequalities(fits, searches)[0]
    assert "the search is gone" in inequalities(fits, {"a": searches["a"]})[0]
    fewer = [fits[0], replace(fits[1], source_trials=40)]
    assert "trials that they were the best of" in inequalities(fewer, searches)[-1]
    alike = {**searches, "b": result_of("vitbn", [run_of(0, 0.9)], kind="search", name="b")}
    assert inequalities(fits, alike) == ()


def test_tables_say_what_the_runs_were(vit: StudyResult) -> None:
    found = cells([vit, worse()])
    table = cells_table(found, 0.97, ())
    assert table.rows[0][:5] == ("vit", "0.001", "50", "5", "97.00 ± 0.20 %")
    assert table.rows[0][6:8] == ("0 of 5", "3.0")
    (row,) = pairs_table(pairs(found), ()).rows
    assert row[3] == "5"
    assert row[-1] == "less accurate"
    assert all(len(a) == len(b) for a, b in pairwise([table.headings, *table.rows]))
