"""`recalibrate` and `batch-stats`: from the command line to files."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.errors import InputError
from models.fold import fold
from models.registry import variant
from models.switches import ViTSwitches
from objectives import card
from objectives.batch_stats import recalibrated
from objectives.card import Card
from objectives.data import SearchData
from objectives.evaluation import Evaluation
from objectives.idx import read
from objectives.metrics import RungMetrics
from objectives.nbs import Judged
from objectives.recipes import Recipe
from objectives.three_way import Leakage, ThreeWay
from objectives.training import train
from study.batch_stats_charts import batch_stats_charts
from study.batch_stats_findings import findings, jitter
from study.batch_stats_request import BatchStatsRequest
from study.batch_stats_runs import BatchStats, Swept, Watched
from study.batch_stats_sizes import parse_batches, parse_nbs
from study.batch_stats_tables import batch_stats_tables
from study.charts import Line, Panel
from study.charts_scale import short_log_ticks
from tests.conftest import SUBSET, TINY
from tests.objectives.tiny import new_run, rung_metrics
from tests.study.test_cli import SMALL, Command

CHEAP = f"batch-stats --model vitbn --dataset {SUBSET} {SMALL} --device cpu"


@pytest.fixture
def bnvit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data_dir: Path
) -> Command:
    return Command(monkeypatch, capsys, data_dir)


@pytest.fixture(scope="module")
def checkpoint(subset: SearchData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of one epoch with averages that lag far behind."""
    run = new_run(subset, switches=replace(TINY, bn_momentum=0.005), lr=1e-2, rungs=(1_834,))
    list(train(run))
    path = tmp_path_factory.mktemp("weights") / "lagging.safetensors"
    card.save(path, run.model.state_dict(), run.card)
    return path


def buffers(path: Path) -> dict[str, Tensor]:
    return dict(card.load(path)[1].named_buffers())


@pytest.mark.parametrize("method", ["exact", "one-pass"])
def test_recalibrate_writes_what_it_says(
    bnvit: Command, checkpoint: Path, tmp_path: Path, subset: SearchData, method: str
) -> None:
    path = tmp_path / "new.safetensors"
    code, out, err = bnvit(
        f"recalibrate {checkpoint} --method {method} --images 200 --batch-size 16 "
        f"--dataset {SUBSET} -o {path}"
    )
    assert (code, err) == (0, "")
    rows = dict(line.rsplit(maxsplit=2)[:2] for line in out.splitlines() if line.count("%") == 1)
    accuracies = {name.strip(): float(value.rstrip("%")) for name, value in rows.items()}
    assert accuracies["exact"] > accuracies["as they were"] + 10
    assert abs(accuracies["exact"] - accuracies["one-pass"]) < 10
    assert "mini-batches of 16" in accuracies
    assert "sorting the images by class changes the accuracy by -" in out
    assert "by +0.00 by population statistics" in out
    assert f"written: {path}" in out.splitlines()

    _, model = card.load(checkpoint)
    with recalibrated(model, subset.train.first(200).all_pixels()):
        exact = {name: value.clone() for name, value in model.named_buffers()}
    found = buffers(path)
    apart = max(
        float((found[name] - exact[name]).abs().max()) for name in exact if "running" in name
    )
    assert (apart < 1e-3) == (method == "exact")
    weights = dict(card.load(path)[1].named_parameters())
    torch.testing.assert_close(weights, dict(model.named_parameters()), rtol=0.0, atol=0.0)


def test_domains_are_evaluated_by_each_others_statistics(
    bnvit: Command, checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "faint"
    folder.mkdir()
    for file in Path(SUBSET.removeprefix("idx:")).iterdir():
        data = file.read_bytes()
        if "images" in file.name:  # a header of 16 bytes, then pixels
            data = data[:16] + bytes(120 + value // 3 for value in data[16:])
        (folder / file.name).write_bytes(data)
    assert int(read(folder, True)[0].min()) == 120
    code, out, _ = bnvit(
        f"recalibrate {checkpoint} --images 200 --dataset {SUBSET} --domains idx:{folder} "
        f"-o {tmp_path / 'new.safetensors'}"
    )
    assert code == 0
    table = out.partition("Validation accuracy by the domain")[2]
    cells = [line.split()[-2:] for line in table.splitlines() if line.count("%") == 2]
    (own, faint_by_own), (own_by_faint, faint) = (
        [float(cell.rstrip("%")) for cell in row] for row in cells
    )
    assert own > own_by_faint + 10
    assert faint > faint_by_own + 10


def test_what_cannot_be_recalibrated_is_said_in_one_line(
    bnvit: Command, checkpoint: Path, tmp_path: Path, subset: SearchData
) -> None:
    told, model = card.load(checkpoint)
    without, folded = tmp_path / "vit.safetensors", tmp_path / "folded.safetensors"
    vit = Card("vit", asdict(TINY), told.image)
    card.save(without, variant("vit").build(subset.shape, TINY).state_dict(), vit)
    card.save(folded, fold(model).model.state_dict(), replace(told, folded=True))
    other = "fake:240x3x32x10"
    for line, message in (
        ("vitbn", "'vitbn' is a model of random weights; name a study, a run or a file"),
        (f"{without}", "is a vit, which has no BatchNorm that keeps statistics"),
        (f"{folded}", "is folded: no BatchNorm is left in it"),
        (f"{checkpoint} --method ema", "unknown --method 'ema'; write exact or one-pass"),
        (f"{checkpoint} --images 918", "--images 918 must lie between 2 and 917"),
        (f"{checkpoint} --images 1", "--images 1 must be at least 2"),
        (f"{checkpoint} -o {checkpoint}", "would replace what is recalibrated"),
        (f"{checkpoint} -o {tmp_path}", "is a folder; name a file in it"),
        (f"{checkpoint} -o {tmp_path}/no/where", "there is no folder"),
        (f"{checkpoint} -o {tmp_path}/where.pt", "must end in .safetensors"),
        (f"{checkpoint} --domains {other}", "has other images or classes than"),
        (f"{checkpoint} --domains nmist", "unknown data set 'nmist'; did you mean 'mnist'?"),
        (f"{tmp_path}/none.pt", "there is no file"),
    ):
        code, _, err = bnvit(f"recalibrate {line} --dataset {SUBSET}")
        assert code == 2, line
        assert message in err
        assert err.count("\n") == 1


def test_batch_stats_writes_a_report_figures_and_json(bnvit: Command, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "found"
    line = (
        f"{CHEAP} --epochs 2 --train-images 200 --validation-images 60 --nbs 2,7,20 --sgd-batch 20 "
        f"--freeze-last 25 --curve-batches 10,100 --momentum 0.99 --lr 5e-3 -o {folder}"
    )
    code, out, err = bnvit(line)
    assert code == 0, err
    said = err.splitlines()
    assert "BatchNorm's momentum: 0.99, the weight of the old average" in said[0]
    assert "bn_momentum=0.01, the weight of the newest batch (torch's)" in said[0]
    assert said[1].startswith("NBS 7 do not divide the SGD batch of 20: its last ghost batch has")
    assert said[2] == "frozen: the last 0.5 of 2 epochs, as 25 of 100"
    assert said[3].startswith("run 1 of 3: NBS 2, seed 1, ")
    assert [line.split(",")[0] for line in said[6:]] == ["batch 10", "batch 100"]

    report = (folder / "README.md").read_text()
    assert f"    bnvit-study {line}" in report
    assert "## Leakage within a batch" in report
    assert "torch " in report
    pictures = sorted(path.name for path in (folder / "README-figures").iterdir())
    assert pictures == ["estimates.png", "frozen.png", "three-ways.png"]
    assert all(f"README-figures/{name}" in report for name in pictures)
    told = json.loads((folder / "batch-stats.json").read_text())
    assert [one["nbs"] for one in told["swept"]] == [2, 7, 20]
    assert all(one["judged"]["val_frozen"]["loss"] > 0 for one in told["swept"])
    assert [len(one["running_errors"]) for one in told["watched"]] == [2, 2]
    assert told["request"]["momentum"] == 0.99
    # The averages of 0.99 have hardly moved from their beginning after 2 steps.
    last = told["watched"][1]
    assert last["statistics_lag"][0] > 0.1
    for sentence in told["findings"]:
        assert sentence in out
    assert told["findings"][0].startswith("Training noise falls with NBS: ")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--model vit", "vit has no BatchNorm, whose statistics this is about; take one that has"),
        ("--model vitbm", "unknown model 'vitbm'; did you mean 'vitbn'?"),
        ("--model vitbn --nbs 1,2", "--nbs 1: BatchNorm needs two images to normalise"),
        ("--model vitbn --nbs 64 --sgd-batch 32", "--nbs 64 is larger than --sgd-batch 32"),
        ("--model vitbn --nbs 8,8", "--nbs names 8 twice"),
        ("--model vitbn --nbs few", "--nbs few must be whole numbers with commas between them"),
        ("--model vitbn --nbs none --curve-batches none", "leaves nothing to train"),
        ("--model vitbn --freeze-last 120", "--freeze-last 120 is longer than the run"),
        ("--model vitbn --freeze-last 20 --nbs none", "--freeze-last is about the sweep"),
        ("--model vitbn --momentum 1", "--momentum 1 must lie in [0, 1)"),
        ("--model vitbn --set bn_momentum=0.2", "leave out --set bn_momentum: give --momentum"),
        ("--model vitbn --set nbs=4", "leave out --set nbs: give --nbs"),
        ("--model vitbn --recipe deit", "give --set ema=0.0: averaged weights would hide"),
        ("--model vitbn --recipe finetune {data} --curve-batches none",
         "--nbs 512 needs as many validation images to be judged on; there are 83"),
        ("--model vitbn --set tau=2", "tau is about a teacher; name one with --teacher"),
        ("--model vitbn --set magnitude=5", "magnitude is only read with augment=randaugment"),
        ("--model vitbn --set track_running_stats=false", "keeps no population statistics"),
        ("--model vitbn --set depht=2", "unknown recipe field or switch 'depht'"),
        ("--model vitbn --recipe article2", "unknown recipe 'article2'"),
        ("--model vitbn --epochs 0", "--epochs 0 must be at least 1"),
        ("--model vitbn --lr=-1", "--lr -1 must be a positive number"),
        ("--model vitbn {data}", "a batch of 1024 exceeds the 917 training images"),
        ("--model vitbn {data} --sgd-batch 100 --nbs 90 --curve-batches none",
         "--nbs 90 needs as many validation images to be judged on; there are 83"),
        ("--model vitbn {data} --sgd-batch 64 --validation-images 84",
         "--validation-images 84 must lie between 1 and 83"),
        ("--model vitbn {data} --sgd-batch 64 --nbs 8 --curve-batches 8 --freeze-last 1 --epochs 2",
         "--freeze-last 1 leaves no step frozen in 2 epochs of 917 images"),
        ("--model vitbn -o {file}", "is no folder; name another with -o"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(bnvit: Command, tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "file"
    file.write_text("")
    filled = line.format(data=f"--dataset {SUBSET}", file=file)
    code, _, err = bnvit(f"batch-stats {filled}")
    assert code == 2
    assert message in err
    assert err.splitlines()[-1].startswith("bnvit-study: ")
    assert sum(one.startswith("bnvit-study: ") for one in err.splitlines()) == 1


def test_sizes_are_lists_or_begun_ones() -> None:
    assert parse_nbs(None, 40) == (2, 4, 8, 16, 32)
    assert parse_nbs("2,4,…,32", 64) == parse_nbs("2, 4, ..., 32", 64) == (2, 4, 8, 16, 32)
    assert parse_nbs("3,5", 64) == (3, 5)
    assert parse_batches("none") == ()
    for text in ("2,4,…,33", "4,2,…,32", "0,2,…,8", "2,…,8", "2;4", ""):
        with pytest.raises(InputError, match="must be whole numbers with commas between them"):
            parse_nbs(text, 64)


def test_the_two_conventions_of_momentum_add_up_to_one() -> None:
    assert BatchStatsRequest("vitbn", momentum=0.9).bn_momentum == 0.1
    assert BatchStatsRequest("vitbn", momentum=0.99).bn_momentum == 0.01


def judged(train: float, batch: float, population: float, frozen: float) -> Judged:
    """A run with such errors."""
    by = [Evaluation(one, 1.0 - one, 1.0) for one in (train, batch, population)]
    leak = Leakage(0.9, 0.7, 0.9, 0.9)
    return Judged(ThreeWay(*by), by[2], leak, Evaluation(frozen, 1.0 - frozen, 1.0))


def curve(running: list[float], precise: list[float]) -> tuple[RungMetrics, ...]:
    pairs = zip(running, precise, strict=True)
    return tuple(
        replace(rung_metrics(1, 1 - exact), val_accuracy_running_stats=1 - mine)
        for mine, exact in pairs
    )


def made(swept: tuple[Swept, ...], watched: tuple[Watched, ...], seeds: int) -> BatchStats:
    request = BatchStatsRequest(
        "vitbn", ViTSwitches(), Recipe(), nbs=(2, 8), sgd_batch=8, epochs=5, freeze_last=20,
        curve_batches=(4,), seeds=seeds,
    )  # fmt: skip
    return BatchStats(request, swept, watched, "", 100, 50, "cpu", 1, 1.0, {}, "")


def test_findings_are_judged_seed_by_seed_and_diverged_runs_left_out() -> None:
    swept = (
        Swept(2, 1, judged(0.30, 0.40, 0.50, 0.20)), Swept(8, 1, judged(0.10, 0.2, 0.2, 0.2)),
        Swept(2, 2, judged(0.20, 0.40, 0.35, 0.20)), Swept(8, 2, judged(0.05, 0.2, 0.2, 0.2)),
        Swept(2, 3, judged(0.00, 0.60, 0.70, 0.10)), Swept(8, 3, None),
    )  # fmt: skip
    watched = (Watched(4, 1, curve([0.9, 0.6, 0.1, 0.3, 0.1], [0.5, 0.4, 0.3, 0.2, 0.1])),)
    found = made(swept, watched, 3)
    noise, mini_batch, frozen, lag, few = findings(found)
    assert few == "Fewer than 5 seeds: these are numbers, no verdicts."
    assert noise.startswith(
        "Training noise falls with NBS: in 2 of 2 seeds, by +15.00 to +20.00 points."
    )
    assert "at NBS 2 25.00%, at NBS 8 7.50%" in noise
    assert "beat the population's: in 2 of 3 seeds, by -5.00 to +10.00 points." in mini_batch
    assert frozen.startswith(
        "Freezing BN for the last 1 of 5 epochs helps at a small NBS (2): in 3 of"
    )
    assert "lag after the first epoch: in 1 of 1 seed, by +40.00 points." in lag
    assert "by them 90.00%, by PreciseBN on the same weights 50.00%" in lag
    assert "from the mean of its neighbours by 20.00%, PreciseBN's by 0.00%" in lag
    sweep, leakage, estimates = batch_stats_tables(found)
    assert [row[-1] for row in sweep.rows] == ["0", "1"]
    assert leakage.rows[0][3:] == ("-20.00", "+0.00")
    assert estimates.rows[0][2:] == ("90.00%", "10.00%", "20.00%")
    assert [chart.name for chart in batch_stats_charts(found)] == [
        "three-ways", "frozen", "estimates",
    ]  # fmt: skip


def test_a_run_that_diverged_only_when_it_was_frozen_is_counted_as_such() -> None:
    sound = judged(0.1, 0.2, 0.2, 0.2)
    swept = (Swept(2, 1, replace(sound, frozen=None)), Swept(2, 2, sound), Swept(8, 1, sound))
    (sweep, _) = batch_stats_tables(made(swept, (), 2))
    assert [row[-1] for row in sweep.rows] == ["0, 1 frozen", "0"]


def test_runs_that_all_diverged_leave_no_finding_and_no_wrong_number() -> None:
    found = made((Swept(2, 1, None), Swept(8, 1, None)), (Watched(4, 1, ()),), 1)
    assert findings(found) == []
    (sweep,) = batch_stats_tables(found)
    assert [row[-1] for row in sweep.rows] == ["1", "1"]
    assert json.dumps(found.as_dict(), allow_nan=False)


def test_what_falls_evenly_does_not_jitter() -> None:
    assert jitter([9.0, 1.0, 0.5, 0.4, 0.3]) == pytest.approx(0.0)
    assert jitter([0.0, 0.0, 0.5, 0.1, 0.5]) == pytest.approx(0.4)
    assert jitter([0.5]) == 0.0


def test_batch_sizes_that_double_are_the_ticks_of_their_axis() -> None:
    found = made((), (), 1)
    sizes = (2.0, 8.0, 512.0)
    panel = Panel("", "", "", (Line("a", sizes, sizes),), log_x=True)
    assert short_log_ticks(panel, along_x=True) == [2.0, 8.0, 512.0]
    assert short_log_ticks(panel, along_x=False) is None
    odd = replace(panel, marks=(Line("a", (2.0, 7.0, 512.0), sizes),))
    assert short_log_ticks(odd, along_x=True) is None
    assert batch_stats_charts(found) == []
