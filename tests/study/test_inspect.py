"""Looking into models: from the command line to the charts beside a run."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models.registry import variant
from models.switches import ImageShape
from objectives import card
from objectives.activations import Inspection, inspect
from objectives.card import Card
from objectives.data import SearchData
from objectives.images import Split
from study.charts import Line, Picture
from study.charts_png import png
from study.inspect_charts import charts_of
from study.inspect_tables import blocks_table, norms_table
from study.inspect_words import observations
from study.mlflow_tracker import MlflowTracker
from study.overview import overview
from study.request import Request
from study.service import Session, open_session
from study.settings import Settings
from study.storage import Store
from tests.conftest import SUBSET, TINY
from tests.models.zoo import SMALL, images, small, unsettle
from tests.objectives.tiny import new_run
from tests.study.conftest import train
from tests.study.test_cli import Command

STUDY = "to-inspect"
CHARTS = {"norms.png", "blocks.png", "channels.png"}


@pytest.fixture(scope="module")
def best(store: Store, settings: Settings) -> Session:
    """A finished study of vitbn, recorded in MLflow."""
    assert store.engine is not None  # it keeps the server alive
    request = Request(
        model="vitbn", switches=TINY, dataset=SUBSET, trials=1, epochs=1, device="cpu",
        pruner="none", study=STUDY,
    )  # fmt: skip
    with open_session(request, settings, lambda _: None) as session:
        train(session)
    return session


@pytest.fixture
def bnvit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shared_dir: Path
) -> Command:
    return Command(monkeypatch, capsys, shared_dir)


@pytest.fixture
def weights(subset: SearchData, tmp_path: Path) -> Path:
    """A file with a card, of vit after no training."""
    run = new_run(subset, model="vit")
    path = tmp_path / "vit.safetensors"
    card.save(path, run.weights(), run.card)
    return path


def run_id_of(session: Session) -> str:
    seen = overview(session.store, session.study)
    assert seen is not None
    assert seen.best is not None
    return str(seen.best.mlflow_run_id)


@pytest.fixture
def tracker(store: Store) -> MlflowTracker:
    return MlflowTracker(store.mlflow_url)


def test_a_studys_best_is_shown_and_kept_with_its_run(
    bnvit: Command, best: Session, weights: Path, tracker: MlflowTracker, tmp_path: Path
) -> None:
    folder = tmp_path / "new" / "figures"
    code, out, err = bnvit(f"inspect {STUDY} --against {weights} --inject 8 -o {folder}")
    assert (code, err) == (0, "")
    run_id = run_id_of(best)
    lines = out.splitlines()
    assert f"model:   vitbn, the best of study {STUDY}, trial 0" in lines
    assert f"model:   vit, the file {weights}" in lines
    assert any(
        line.startswith(f"images:  83 of the validation images of {SUBSET}") for line in lines
    )
    norms = [line.split()[0] for line in lines if line.split()[1:2] == ["BatchNorm"]]
    assert (norms[0], norms[6]) == ("to_patch_embedding.1", "transformer.norm")
    for said in (
        "vitbn: BatchNorm outputs have small mean and large variance as all channels differ:",
        "vitbn: the MLP changes the features more than attention does:",
        "vitbn: running means are ",
        "vit: LayerNorm outputs have small mean and large variance as a few channels hold",
        "vit: apart from extremes LayerNorm's channels are close to each other",
        "BatchNorm makes the variance between channels larger than LayerNorm:",
    ):
        assert sum(line.startswith(said) for line in lines) == 1, said
    assert sum("multiplied by 8 changes the residual stream" in line for line in lines) == 2

    written = {path.name for path in folder.iterdir()}
    features = {"features-vitbn.png", "features-vit.png"}
    more = {"statistics.png", "injection.png", "inspection.json"}
    assert written == CHARTS | features | more
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in folder.glob("*.png"))
    told = json.loads((folder / "inspection.json").read_text())
    assert [model["name"] for model in told["models"]] == ["vitbn", "vit"]
    assert told["models"][0]["run_id"] == run_id
    assert len(told["models"][0]["layers"]) == 7
    assert told["observations"] == [line for line in lines if line in told["observations"]]

    kept = {file.path for file in tracker.client.list_artifacts(run_id, "inspection")}
    assert kept == {f"inspection/{name}" for name in written}
    copy = tracker.client.download_artifacts(run_id, "inspection/norms.png", str(tmp_path))
    assert Path(copy).read_bytes() == (folder / "norms.png").read_bytes()
    assert f"written: {len(written)} files in {folder}" in lines
    assert tracker.client.get_run(run_id).data.tags["outcome"] == "complete"


def test_a_run_knows_its_data_set_and_json_is_all_of_the_output(
    bnvit: Command, best: Session
) -> None:
    run_id = run_id_of(best)
    code, out, err = bnvit(f"inspect {run_id} --images 10 --json")
    assert code == 0
    told = json.loads(out)
    assert told["dataset"] == SUBSET
    assert told["models"][0]["images"] == 10
    assert f"among the artifacts of run {run_id}" in err


def test_random_weights_are_said_to_be_random(bnvit: Command) -> None:
    line = f"inspect vitbn --dataset {SUBSET} --images 20 --mlflow none --json --seed 1"
    code, out, err = bnvit(line)
    assert (code, err) == (0, "")  # nothing is kept anywhere
    (told,) = json.loads(out)["models"]
    assert told["source"] == "randomly initialised with seed 1, not trained"
    assert not told["is_trained"]
    assert told["statistics"] == []
    # On statistics of the population, not on the averages of no batch.
    variances = [layer["output"]["variance"] for layer in told["layers"][2:]]
    assert variances == pytest.approx([1.0] * len(variances), rel=0.15)


def card_of_images(image: ImageShape, path: Path) -> Path:
    """A file of a small vit for such images."""
    chosen = variant("vit")
    told = Card("vit", vars(TINY).copy() | {"patch_size": 4}, image)
    model = chosen.build(image, chosen.switches(**told.switches))  # type: ignore[arg-type]
    card.save(path, model.state_dict(), told)
    return path


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("vitbnn", "unknown model 'vitbnn'; did you mean 'vitbn'?"),
        ("to-inspct", "no study 'to-inspct'; did you mean 'to-inspect'?"),
        ("a-b-c", "no study and no model is called 'a-b-c'; see 'bnvit-study studies' and"),
        ("nowhere.safetensors", "there is no file nowhere.safetensors"),
        (f"{'0' * 32} --dataset {SUBSET}", f"the weights of run {'0' * 32} are not to be had"),
        ("to-inspect --inject -1", "--inject -1 must be a number of at least 0"),
        ("to-inspect --images 84", "--images 84 must lie between 1 and 83"),
        ("to-inspect --images 0", "Invalid value for '--images'"),
        ("to-inspect --dataset fake:240x3x32x4", "takes images of 1×28×28 in 10 classes, fake"),
        ("to-inspect --image-size 32", "takes images of 1×28×28 in 10 classes"),
        ("to-inspect --against {other}", "the two models take different images"),
        ("to-inspect --against ???", "no study and no model is called '???'"),
        ("{odd}", "no published data set has images of 2×20×20 in 7 classes; say which"),
        ("to-inspect -o {weights}", "cannot write to"),
    ],
)
def test_bad_input_is_one_line(
    bnvit: Command, best: Session, weights: Path, tmp_path: Path, line: str, message: str
) -> None:
    assert best.is_done
    other = card_of_images(ImageShape(3, 32, 10), tmp_path / "other.safetensors")
    odd = card_of_images(ImageShape(2, 20, 7), tmp_path / "odd.safetensors")
    filled = line.format(other=other, odd=odd, weights=weights)
    code, _, err = bnvit(f"inspect {filled}")
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def looked_at(model: nn.Module) -> Inspection:
    """What is found with a few random images."""
    pixels = (images(12) * 255).to(torch.uint8)
    split = Split(pixels, torch.arange(12) % 10)
    return inspect(model, split, split.all_pixels(), 3.0)


def test_planted_extremes_are_told_in_words() -> None:
    plain, planted = unsettle(small("deit_tiny")), unsettle(small("deit_tiny"))
    with torch.no_grad():
        for module in planted.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight[4] = 30.0
                module.bias.zero_()
    before, after = (observations([("m", looked_at(model))])[0] for model in (plain, planted))
    assert "a few channels hold extremes: no." in before
    assert "exceed 6 times the median in 0 (at most 0 channels do)" in before
    assert "exceed 6 times the median in 4 (at most 1 channels do) and hold" in after


def test_a_pair_is_compared_by_the_norms_of_its_blocks() -> None:
    batch, layer = unsettle(small("deit_tiny_bn")), unsettle(small("deit_tiny"))
    with torch.no_grad():
        for module in batch.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.bias.copy_(torch.linspace(-9.0, 9.0, len(module.bias)))
    seen = [("a", looked_at(layer)), ("b", looked_at(batch))]
    last = observations(seen)[-1]
    assert last.startswith(
        "BatchNorm makes the variance between channels larger than LayerNorm: yes"
    )
    assert "BatchNorm makes" not in " ".join(observations(seen[:1]))


@pytest.mark.parametrize("backbone", SMALL)
def test_every_family_has_tables_and_charts(backbone: str) -> None:
    found = looked_at(unsettle(small(f"{backbone}_bn_ffnbn_relu6")))
    assert norms_table(found).row_count == len(found.layers)
    assert blocks_table(found).row_count == len(found.blocks)
    charts = charts_of([("one", found)], Picture(((0.0, 1.0),)))
    names = [chart.name for chart in charts]
    assert names == ["norms", "blocks", "channels", "statistics", "injection", "features-one"]
    attention, feed_forward, *_ = charts[1].panels[0].marks
    assert isinstance(attention, Line)
    assert attention.y == tuple(block.attention.relative for block in found.blocks)
    assert isinstance(feed_forward, Line)
    assert feed_forward.dashed


def test_charts_of_a_folded_model_leave_out_what_is_not_there(tmp_path: Path) -> None:
    from models.fold import fold

    found = looked_at(fold(unsettle(small("vit_bn"))).model)
    charts = charts_of([("one", found)], Picture(((0.0, 1.0),)))
    names = [chart.name for chart in charts]
    assert names == ["blocks", "injection", "features-one"]
    (tmp_path / "blocks.png").write_bytes(png(charts[0]))
    assert observations([("one", found)])[0].startswith("one: the MLP changes")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_diverged_model_is_called_so_and_drawn_all_the_same(value: float) -> None:
    broken, sound = unsettle(small("deit_tiny_bn")), unsettle(small("deit_tiny"))
    with torch.no_grad():
        broken.get_parameter("blocks.1.mlp.fc2.bias")[0] = value
    seen = [("a", looked_at(broken)), ("b", looked_at(sound))]
    told = observations(seen)
    assert told[0] == "a: values are no finite numbers at norm: the model has diverged"
    assert {line.partition(":")[0] for line in told[1:]} == {"b"}
    norms = charts_of(seen, Picture(((0.0, 1.0),)))[0]
    assert png(norms, dpi=40)


def test_two_of_a_name_are_told_apart(bnvit: Command, weights: Path, best: Session) -> None:
    assert best.is_done
    line = f"inspect {weights} --against vit --dataset {SUBSET} --images 5 --json"
    told: dict[str, Any] = json.loads(bnvit(line)[1])
    assert [model["name"] for model in told["models"]] == [f"vit ({weights})", "vit (vit)"]
