"""The blog's tables, filled with our studies and with results from elsewhere."""

from dataclasses import asdict
from pathlib import Path

import pytest

from models.errors import InputError
from models.registry import Sizes, variant
from models.switches import ZooSwitches
from objectives.metrics import Diverged
from objectives.outcome import Outcome
from study.blog_layout import Outside, blog_report, read_outside
from study.charts import Boxes, Chart
from study.report_files import check_layout
from study.results import RunResult, StudyResult
from tests.study.results import result_of, run_of
from tests.study.test_speeds import made

LOST = Diverged(1000, 917 * 235, 0.1, 0.807, 234.0, "blocks.3.mlp.fc1", "output", 7.0)
AT_ONCE = Diverged(700, 917 * 7 + 10, 0.1, 0.0, None, None, None, None)


def lost(seed: int, told: Diverged) -> RunResult:
    return run_of(seed, None, diverged=asdict(told))


@pytest.fixture
def results() -> list[StudyResult]:
    return [
        result_of("vit", [run_of(1, 0.80), run_of(2, 0.81)]),
        result_of("vit_bn_wn", [run_of(1, 0.7877), lost(2, LOST)]),
        result_of("vit_bn_relu6", [lost(1, AT_ONCE)]),
    ]


def test_the_matrix_has_the_blogs_cells(results: list[StudyResult]) -> None:
    models, matrix, environment = blog_report(results, None, None).tables
    assert [row[1] for row in environment.rows] == ["vit", "vit_bn_wn", "vit_bn_relu6"]
    assert [row[:2] for row in models.rows] == [
        ("vit", "80.5"),
        ("vit_bn_wn", "80.7 @ 234, NaN (1 of 2)"),
        ("vit_bn_relu6", "NaN (epoch 8)"),
    ]
    assert matrix.headings == (
        *("backbone", "LN", "bn_relu6", "bn_wn", "bn_wn_relu6", "lnbn_wn", "lnbn_wn_relu6"),
    )
    assert matrix.rows == (
        ("vit", "80.5", "NaN (epoch 8)", "80.7 @ 234, NaN (1 of 2)", "–", "–", "–"),
    )


def test_figures_show_the_accuracies_and_the_speeds(results: list[StudyResult]) -> None:
    blocks = [b for s in blog_report(results, made(1.25), None).sections for b in s.blocks]
    top1, speed = (block for block in blocks if isinstance(block, Chart))
    (boxes,) = top1.panels[0].marks
    assert isinstance(boxes, Boxes)
    assert boxes.categories == ("vit", "vit_bn_wn", "vit_bn_relu6")
    assert boxes.values[0] == (0.80, 0.81)
    assert boxes.values[1][1] == pytest.approx(0.1)  # the run that diverged guesses
    assert speed.name == "speed"


def test_two_studies_of_a_model_are_two_boxes() -> None:
    both = [
        result_of("vit", [run_of(1, value)], name=name) for value, name in ((0.8, "a"), (0.9, "b"))
    ]
    (chart,) = blog_report(both, None, None).charts
    (boxes,) = chart.panels[0].marks
    assert isinstance(boxes, Boxes)
    assert boxes.categories == ("vit (a)", "vit (b)")


def test_where_nothing_was_trained_there_is_no_figure() -> None:
    no_memory = run_of(1, None, outcome=Outcome.OOM)
    told = blog_report([result_of("vit", [no_memory])], None, None)
    assert "Figures" not in [section.title for section in told.sections]


def test_sizes_and_counts_stand_beside_the_accuracy(results: list[StudyResult]) -> None:
    models, *_ = blog_report(results, None, None).tables
    row = dict(zip(models.headings, models.rows[0], strict=True))
    assert (row["dim"], row["heads"], row["depth"]) == ("16", "2", "2")
    assert (row["params M"], row["GMACs"], row["img/s"]) == ("0.0", "1e-05", "")


@pytest.mark.parametrize(
    ("model", "sizes"),
    [
        ("deit_base_bn_relu6", Sizes("768", "12", "12")),
        ("swin_tiny", Sizes("96, 192, 384, 768", "3, 6, 12, 24", "2, 2, 6, 2")),
    ],
)
def test_published_sizes(model: str, sizes: Sizes) -> None:
    assert variant(model).sizes(ZooSwitches()) == sizes


def test_the_best_configuration_is_chosen_on_validation() -> None:
    runs = [
        run_of(1, 0.99, (1e-3, 50), (0.5,)),  # better on the test images, by chance
        run_of(1, 0.90, (1e-2, 50), (0.6,)),
    ]
    models, *_ = blog_report([result_of("vit", runs)], None, None).tables
    assert models.rows[0][1] == "90"


def test_results_from_elsewhere_are_joined_by_model(
    results: list[StudyResult], tmp_path: Path
) -> None:
    path = tmp_path / "outside.csv"
    path.write_text("model,COCO box AP,ADE20k mIoU\nvit,50.5,46.1\nswin_tiny,1,2\n")
    found = read_outside(path)
    assert found == Outside(
        ("COCO box AP", "ADE20k mIoU"), {"vit": ("50.5", "46.1"), "swin_tiny": ("1", "2")}
    )
    models, *_ = blog_report(results, None, found).tables
    assert models.headings[-2:] == ("COCO box AP", "ADE20k mIoU")
    assert [row[-2:] for row in models.rows] == [("50.5", "46.1"), ("", ""), ("", "")]
    assert "Without a study here: swin_tiny." in models.notes


@pytest.mark.parametrize("text", ["", "name,AP\nvit,1\n", "model,AP\nvit\n"])
def test_a_file_without_models_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=r"x\.csv"):
        read_outside(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_outside(tmp_path / "missing.csv")


def test_unlike_conditions_are_marked_and_speeds_are_of_evaluation() -> None:
    both = [
        result_of("vit", [run_of(1, 0.8)]),
        result_of("vitbn", [run_of(1, 0.8)], precision="bf16"),
    ]
    found = blog_report(both, made(1.25), None)
    assert all("differ in precision: float32, and bf16" in t.notes[-1] for t in found.tables[:2])
    assert found.tables[0].rows[0][3] == ""  # training speeds are no throughput


def test_the_layout_is_checked() -> None:
    check_layout("blog", Path("x"))
    with pytest.raises(InputError, match="unknown --layout 'block'; write comparison or blog"):
        check_layout("block", None)
    with pytest.raises(InputError, match="--outside is for --layout blog"):
        check_layout("comparison", Path("x"))
