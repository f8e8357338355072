"""What a person types, and what comes back."""

import io
import json
import shlex
import socket
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import typer.main

from models.errors import BnvitError
from models.switches import ImageShape
from objectives.recipes import PRESETS, field_types
from study import cli, entry
from study.settings import Settings
from study.storage import Store, open_store
from tests.conftest import SUBSET
from tests.models.zoo import small
from tests.objectives.made_images import image_folder

SMALL = "--set dim=16 --set depth=2 --set heads=2 --set dim_head=8 --set mlp_dim=32 --epochs 1"


@pytest.fixture
def bnvit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data_dir: Path
) -> "Command":
    """The command on an empty data folder."""
    return Command(monkeypatch, capsys, data_dir)


@pytest.fixture
def made_bnvit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], made_dir: Path
) -> Iterator["Command"]:
    """The command on a data folder of its own, whose tables are made and whose server runs."""
    with open_store(Settings(data_dir=made_dir, storage_url=None, mlflow_uri=None)):
        yield Command(monkeypatch, capsys, made_dir)


@pytest.fixture
def shared_bnvit(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shared_dir: Path,
    store: Store,
) -> "Command":
    """The command on the folder whose server runs already, which is quicker."""
    assert store.engine is not None
    return Command(monkeypatch, capsys, shared_dir)


class Command:
    """Calls the entry point in this process."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        data_dir: Path,
    ) -> None:
        monkeypatch.setenv("BNVIT_DATA_DIR", str(data_dir))
        monkeypatch.delenv("BNVIT_STORAGE_URL", raising=False)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for name in (entry.DEBUG_VARIABLE, entry.LOG_FORMAT_VARIABLE):  # the program sets them
            monkeypatch.setenv(name, "")
        self.monkeypatch = monkeypatch
        self.capsys = capsys

    def __call__(self, line: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of `bnvit-study LINE`."""
        self.monkeypatch.setattr("sys.argv", ["bnvit-study", *shlex.split(line)])
        with pytest.raises(SystemExit) as ended:
            entry.main()
        captured = self.capsys.readouterr()
        code = ended.value.code
        return int(code or 0), captured.out, captured.err


def commands() -> list[tuple[str, Any]]:
    group = typer.main.get_command(cli.app)
    found = []
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        if inner is None:
            found.append((name, command))
        else:
            found += [(f"{name} {sub}", subcommand) for sub, subcommand in inner.items()]
    return found


@pytest.mark.parametrize(("name", "command"), commands(), ids=lambda value: str(value))
def test_every_command_has_help_with_an_example_and_stands_in_the_readme(
    name: str, command: Any
) -> None:
    assert command.help
    assert f"Example: bnvit-study {name}" in str(command.epilog)
    assert f"bnvit-study {name}" in (Path(__file__).parents[2] / "README.md").read_text()


def test_without_a_command_the_help_is_shown(bnvit: Command) -> None:
    code, out, _ = bnvit("")
    assert code == 0
    assert "Search a model's learning rate and batch size" in out


def test_recipes_are_listed_and_each_is_shown_in_full(bnvit: Command) -> None:
    code, out, _ = bnvit("recipes")
    assert code == 0
    assert {line.partition(" ")[0] for line in out.splitlines()} > PRESETS.keys()
    assert "train to be given" in out
    _, out, _ = bnvit("recipes deit")
    assert "arXiv 2012.12877" in out
    fields = {line.split()[0]: line.split()[1] for line in out.splitlines()[1:]}
    assert fields.keys() - {"field"} == field_types().keys()
    assert (fields["warmup"], fields["weight_decay"]) == ("0.016667", "0.05")
    told = json.loads(bnvit("recipes deit --json")[1])
    assert told["deit"]["recipe"]["mixup"] == 0.8
    code, _, err = bnvit("recipes deti")
    assert (code, err) == (2, "bnvit-study: unknown recipe 'deti'; did you mean 'deit'?\n")


def test_models_lists_what_is_executed(bnvit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("study.model_tables.BACKBONES", ["deit_tiny", "swin_tiny"])
    code, out, _ = bnvit("models")
    assert code == 0
    for expected in ("893,164", "893,932", "16.87 M", "6 of 6", "15 of 15", "swin_tiny"):
        assert expected in out
    rows = json.loads(bnvit("models --json")[1])
    assert [row["blocks_executed"] for row in rows[:3]] == [6, 6, 6]
    one_block = [row["name"] for row in rows if row["blocks_executed"] != row["blocks"]]
    assert one_block == ["vit_oneblock", "vitbnffn_oneblock", "vitbn_oneblock"]


def test_a_model_is_shown_in_all_its_parts(bnvit: Command) -> None:
    code, out, _ = bnvit("models deit_tiny_lnbn_wn --dataset imagenet --batch-size 64")
    assert code == 0
    lines = out.splitlines()
    assert "parameters:   5,738,152" in lines
    assert "mult.-adds:   1.254 G for an image" in lines
    assert "norms:        12 of 25 vanish at inference" in lines
    assert any(line.startswith("memory:       about") and "batch of 64" in line for line in lines)
    assert ["blocks.*.norm2", "TokenBatchNorm", "192", "12"] in [line.split()[:4] for line in lines]
    told = json.loads(bnvit("models swin_tiny_bn --image-size 40 --set patch_size=4 --json")[1])
    assert told["switches"]["window_size"] == 10
    assert told["row"]["foldable_norms"] == told["row"]["norm_sites"] == 29


def test_memory_for_a_batch_grows_with_it(bnvit: Command) -> None:
    small_batch, large_batch = (
        json.loads(bnvit(f"models vitbn --batch-size {size} --json")[1])["training_bytes"]
        for size in (10, 1_010)
    )
    weights = 893_932 * 4 * 4
    per_image = (large_batch - small_batch) / 1_000
    assert small_batch == pytest.approx(weights + 10 * per_image, rel=0.01)
    assert 200_000 < per_image < 2_000_000


def test_every_model_is_listed(shared_bnvit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    few = ["vitbn", "vit_rms", "deit_tiny_bn_wn_relu6", "swin_tiny_ffnbn"]
    monkeypatch.setattr("study.model_tables.all_names", lambda: few)
    rows = json.loads(shared_bnvit("models --all --json")[1])
    assert [row["name"] for row in rows] == few
    assert [row["foldable_norms"] for row in rows] == [15, 0, 25, 12]
    assert "timm:NAME" in shared_bnvit("models --all")[1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("run --model vitbm", "unknown model 'vitbm'; did you mean 'vitbn'?"),
        (
            "run --model vit --set pol=mean",
            "unknown recipe field or switch 'pol'; did you mean 'pool'?",
        ),
        ("run --model vit --set pool=max", "pool=max is not one of cls, mean"),
        ("run --model vit --set pool", "--set pool must be NAME=VALUE"),
        ("run --model vit --trials 0", "trials 0 must be at least 1"),
        ("run --model vit --trials many", "Invalid value for '--trials'"),
        ("run --model vit --trials 1.5", "See 'bnvit-study run --help'"),
        ("run --model vit --trials 99999", "trials 99999 must be at most 10,000"),
        ("run --model vit --epochs 99999", "epochs 99999 must be at most 10,000"),
        ("run --model vit --lr 1e300:1e301", "must end at 1e+30 or below"),
        ("run --model vit --study ''", "study name '' must not be empty"),
        (f"run --model vit --study {'x' * 201}", "more than 200 characters"),
        ("run --model vit --set bn_momentum=0.2", "vit has no BatchNorm"),
        ("run --model vit --dataset idx:", "unknown data set 'idx:'"),
        ("run --model VITBN", "did you mean 'vitbn'?"),
        ("ui --dashboard-port 7 --mlflow-port 7", "are both 7"),
        ("ui --mlflow garbage", "the MLflow URI cannot be read"),
        ("run --model vit --epochs 0", "epochs 0 must be at least 1"),
        ("run --model vit --lr 1e-2:1e-5", "lr range 0.01:1e-05 must be positive"),
        ("run --model vit --lr=-1:1", "lr range -1:1 must be positive"),
        ("run --model vit --batch-size 9:3", "is reversed; write 3:9"),
        ("run --model vitbn --batch-size 1:3", "BatchNorm needs two images"),
        ("run --model vit --batch-size 0:3", "must start at 1"),
        ("run --model vit --batch-size 3:9999 {data}", "exceeds the 917 training images"),
        ("run --model vit --set patch_size=5 {data}", "patch_size=5 does not divide"),
        ("run --model vit --dataset nmist", "unknown data set 'nmist'; did you mean 'mnist'?"),
        ("run --model vit --device tpu {data}", "unknown device 'tpu'"),
        ("run --model vit --device cpu:1 {data}", "unknown device 'cpu:1'"),
        ("run --model vit --device cuda: {data}", "unknown device 'cuda:'"),
        ("run --model vit --device cuda:99 {data}", "CUDA"),
        ("run --model vit --seed 99999999999999999999", "seed 99999999999999999999 must be"),
        ("run --model vit --sampler gp --pruner asha", "use --pruner none"),
        ("run --model vit --storage sqlite:///x {data}", "scheme 'sqlite' is not supported"),
        ("run --model vit --mlflow ftp://x {data}", "the MLflow URI must start with"),
        ("run --no-such-option", "No such option: --no-such-option"),
        ("run", "Missing option '--model'"),
        ("shwo", "No such command 'shwo'. Did you mean 'show'? See"),
        ("sync --mlflow none", "MLflow is switched off; give the one that"),
        ("show nothing", "no study 'nothing'"),
        ("data fetch mnits", "unknown data set 'mnits'"),
        ("models deit_tny", "unknown model 'deit_tny'; did you mean 'deit_tiny'?"),
        ("models --set dim=3", "--set is about one model; give its NAME"),
        ("models deit_tiny --image-size 0", "image size 0 must lie between 1 and 2048"),
        ("run --model deit_tiny_bn_wn_rlu6", "deit_tiny has no 'rlu6'; did you mean 'relu6'?"),
        ("run --model deit_tiny --set window_size=7 {data}", "deit_tiny has no windows; leave out"),
        ("run --model deit_tiny --set pool=mean", "unknown recipe field or switch 'pool'"),
        ("run --model deit_tiny --set bn_momentum=0.2", "deit_tiny has no BatchNorm; leave out"),
        ("run --model deit_tiny_bn --set un_warm_up=9", "deit_tiny_bn has no Unified Norm"),
        ("run --model deit_tiny --set patch_size=5 {data}", "patch_size=5 does not divide the"),
        ("run --model timm:vit_tiny_patch16_224 {data}", "patch_size=16 does not divide the"),
        ("run --model timm:resnet18 {data}", "a ResNet is no transformer that the switches"),
        ("run --model deit_tiny_bn --batch-size 1:3", "BatchNorm needs two images"),
        ("run --model deit_tiny --convert --weights x", "LayerNorms, which deit_tiny has not"),
        ("run --model vitbn --convert --weights x", "vitbn is put together otherwise than its"),
        ("models deit_tiny_bn --set un_warm_up=9", "deit_tiny_bn has no Unified Norm"),
        ("run --model deit_tiny --convert", "--convert is about trained weights; name them"),
        ("run --model deit_tiny --new-head", "--new-head is about trained weights"),
        ("run --model deit_large --weights timm {data}", "timm has no weights of deit_large"),
        ("run --model vit --skip-broken {data}", "has no image files of its own"),
        ("stability --models vitbm", "unknown model 'vitbm'; did you mean 'vitbn'?"),
        ("stability --models vit,", "'vit,' must be names with commas between them"),
        ("stability --models vit,vit", "--models names a model twice; name each once"),
        ("stability --models vit --lr 1", "--lr 1 must be LOW:HIGH, two numbers"),
        ("stability --models vit --lr 1:1e-3", "lr range 1:0.001 must be positive, the lower"),
        ("stability --models vit --lr 0:1", "lr range 0:1 must be positive"),
        ("stability --models vit --lr 1:1e31", "must end at 1e+30 or below"),
        ("stability --models vit --lr 1:1.01 --grid 9", "is too narrow for 9 learning rates"),
        ("stability --models vit --batch-sizes 16,16", "a batch size is given twice"),
        ("stability --models vit --batch-sizes 1.5", "--batch-sizes 1.5 must be whole numbers"),
        ("stability --models vit,vitbn --batch-sizes 1,9", "BatchNorm needs two images"),
        ("stability --models vit --batch-sizes 16,9999 {data}", "exceeds the 917 training images"),
        ("stability --models vit --grid 0", "grid 0 must be from 2 to 100 learning rates"),
        ("stability --models vit --steps 11", "steps 11 must be from 0 to 10"),
        ("stability --models vit --seeds 0", "seeds 0 must be from 1 to 1,000"),
        ("stability --models vit --seeds 900", "trials 57600 must be at most 10,000"),
        ("stability --models vit -o /dev/null", "/dev/null is no folder; name another with -o"),
        ("stability", "Missing option '--models'"),
        ("export x --format xls", "write one of csv, parquet, json, safetensors, onnx"),
        ("export x --fold", "--fold is about models; add --format safetensors or onnx"),
        ("export x/y --format onnx", "there is no file x/y"),
        ("measure vit vit", "a model is named twice; name each once"),
        ("measure vit --threads 0", "--threads 0 must be from 1 to"),
        ("measure vit --within 2", "--within 2 must lie between 0 and 1"),
        ("measure vit --work rest", "--work rest must be train, eval or both"),
        ("measure vit --batch-size 1", "--batch-size must be 2 or more"),
        ("measure vit --batch-size 5000 {data}", "exceeds the 917 training images"),
        ("measure vit vitbn_oneblock {data}", "vitbn_oneblock executes 1 of 6 blocks, vit 6 of 6"),
        ("measure vit vtibn", "unknown model 'vtibn'; did you mean 'vitbn'?"),
        ("fit --on train", "fit needs a STUDY, or a model and its values: --model, --lr"),
        ("fit --on train --model vit --lr 1", "a model and its values: --batch-size"),
        ("fit x --on train --lr 1", "the values come from 'x'; leave out --lr"),
        ("fit x", "Missing option '--on'"),
        ("fit x --on half", "--on half must be train or train+val"),
        ("fit nothing --on train", "no study 'nothing'"),
        ("sweep --models vit,,vitbn", "'vit,,vitbn' must be names with commas between them"),
        ("sweep --models vit,vit", "--models names a model twice; name each once"),
        ("sweep --models vit --lr fast", "--lr fast must be numbers with commas between them"),
        ("sweep --models vit --lr 1e-3,1e-3", "is given twice; give each once"),
        ("sweep --models vit --batch-size 1.5", "--batch-size 1.5 must be whole numbers"),
        ("sweep --models vit --seeds 0", "seeds 0 must be from 1 to 1,000"),
        ("sweep --models vit --seed 9999999999", "seed 9999999999 must be"),
        ("sweep --models vit --lr=-1", "must be positive"),
        ("sweep --models vit,vitbn --batch-size 1", "BatchNorm needs two images"),
        ("compare", "name STUDIES, or models with --models, one of both"),
        ("compare a a", "a study is named twice; name each once"),
        ("compare nothing", "no study 'nothing'"),
        ("compare a --target 2", "--target 2 must be a share above 0"),
        ("compare a --speeds /no/file", "/no/file cannot be read"),
        ("report --models vit --dataset fake", "no study 'fake-vit'"),
        ("report x --format pdf", "unknown --format 'pdf'; write one of html, md, json, csv"),
        ("report x -o /no/folder/r.html", "there is no folder /no/folder to write r.html into"),
        ("replay nothing 1", "no study 'nothing'"),
    ],
)
def test_bad_input_is_one_line_with_exit_code_2_and_creates_nothing(
    shared_bnvit: Command, store: Store, line: str, message: str
) -> None:
    before = optuna.get_all_study_names(store.storage)
    code, _, err = shared_bnvit(line.replace("{data}", f"--dataset {shlex.quote(SUBSET)}"))
    assert code == 2
    assert message in err
    assert err.startswith("bnvit-study: ")
    assert err.count("\n") == 1
    assert optuna.get_all_study_names(store.storage) == before


@pytest.fixture
def spoiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, entered, with weights and data that are not good."""
    monkeypatch.chdir(tmp_path)
    torch.save({"model": torch.ones(1), "hook": Path}, tmp_path / "code.pth")
    torch.save(small("deit_tiny").state_dict(), tmp_path / "other.pth")
    with_classes = small("deit_tiny", ImageShape(channels=1, size=28, classes=100))
    torch.save(with_classes.state_dict(), tmp_path / "classes.pth")
    root = image_folder(tmp_path / "empty-class", per_class=2)
    for path in (root / "train" / "class-1").iterdir():
        path.unlink()
    root = image_folder(tmp_path / "broken", per_class=2)
    (root / "train" / "class-1" / "1.png").write_bytes(b"no image")
    return tmp_path


SMALL_DEIT = "--set dim=32 --set depth=2 --set heads=2"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--weights code.pth {data}", "code.pth is refused: it holds more than tensors and could"),
        ("--weights other.pth {data}", "the weights are not of deit_tiny: "),
        ("--weights classes.pth {data}", "the weights are for 100 classes, the data have 10; --n"),
        ("--weights none.pth {data}", "there is no file"),
        ("--dataset folder:empty-class", "has empty classes: class-1; fill or remove them"),
        ("--dataset folder:broken", "class-1/1.png (cannot identify image file"),
        ("--dataset folder:nowhere", "there is no folder"),
        ("--dataset cifar10:broken", "no cifar-10-python.tar.gz and no cifar-10-batches-py"),
    ],
)
def test_bad_weights_and_data_are_one_line_and_create_nothing(
    shared_bnvit: Command, store: Store, spoiled: Path, line: str, message: str
) -> None:
    before = optuna.get_all_study_names(store.storage)
    options = line.replace("{data}", f"--dataset {shlex.quote(SUBSET)}")
    code, _, err = shared_bnvit(f"run --model deit_tiny {SMALL_DEIT} {options}")
    assert code in (1, 2)
    assert message in err
    assert err.startswith("bnvit-study: ")
    assert err.count("\n") == 1
    assert optuna.get_all_study_names(store.storage) == before
    assert spoiled.is_dir()


@pytest.mark.parametrize(
    "line",
    [
        "run --model vitbm",
        "run --model vit --set pool=max",
        "run --model vit --lr 1e-2:1e-5",
        "run --model vit --device tpu",
        "run --model vit --storage sqlite:///x",
        "run --model vit --mlflow ftp://x",
        "shwo",
    ],
)
def test_bad_input_leaves_an_empty_folder_empty(bnvit: Command, data_dir: Path, line: str) -> None:
    assert bnvit(line)[0] == 2
    assert list(data_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("studies --storage postgresql://a:secret@127.0.0.1:9/b", "cannot be reached"),
        ("run --model vit --mlflow http://127.0.0.1:9 {data}", "does not answer"),
        ("run --model vit --dataset idx:/nowhere", "there is no folder /nowhere"),
    ],
)
def test_a_missing_part_is_one_line_with_exit_code_1(
    bnvit: Command, line: str, message: str
) -> None:
    code, _, err = bnvit(line.replace("{data}", f"--dataset {shlex.quote(SUBSET)}"))
    assert code == 1
    assert message in err
    assert err.count("\n") == 1
    assert "secret" not in err


def test_an_unwritable_data_folder_is_one_line(
    bnvit: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("BNVIT_DATA_DIR", str(tmp_path / "file"))
    for line in ("studies", "data fetch mnist", "run --model vit", "ui"):
        code, _, err = bnvit(line)
        assert code == 1
        assert "BNVIT_DATA_DIR" in err
        assert err.count("\n") == 1


@pytest.mark.parametrize("more", ["", "--mlflow http://127.0.0.1:9 --mlflow-port {port}"])
def test_a_taken_port_is_one_line_and_opens_no_store(
    bnvit: Command, data_dir: Path, more: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, err = bnvit(f"ui --dashboard-port {port} {more.format(port=port)}")
    assert code == 1
    assert f"port {port} cannot be used" in err
    assert err.count("\n") == 1
    assert list(data_dir.iterdir()) == []


def test_debug_shows_the_trace_wherever_it_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.argv", ["bnvit-study", "run", "--model", "vitbm", "--debug"])
    with pytest.raises(BnvitError, match="unknown model"):
        entry.main()


def test_a_study_from_the_command_line(made_bnvit: Command) -> None:
    bnvit = made_bnvit
    command = f"run --model vitbn --trials 3 --dataset {shlex.quote(SUBSET)} {SMALL}"
    code, out, err = bnvit(command)
    assert (code, err) == (0, "")
    assert "3 trials: " in out
    assert "epochs' worth of images trained" in out
    assert "best: trial" in out
    assert "bnvit-study ui" in out
    assert "3 of 3 trials ended" in out
    bnvit.monkeypatch.setattr("study.crew._started", pytest.fail)  # no worker is needed any more
    code, out, _ = bnvit(command)
    assert code == 0
    assert "all 3 trials have ended already" in out
    assert "--trials 6" in out
    assert "asked:   2 trials, fewer than have begun" in bnvit(command.replace("3", "2", 1))[1]
    assert bnvit(f"{command} --seed 1")[0] == 2
    told = json.loads(bnvit(f"{command} --json")[1])
    assert len(told["trials"]) == 3
    assert json.loads(bnvit("show mnist-subset-vitbn --json")[1]) == told
    shown = bnvit("show mnist-subset-vitbn")[1]
    assert "val. accuracy" in shown
    assert all(line == line.rstrip() for line in shown.splitlines())
    assert "3 of 3" in bnvit("studies")[1]
    assert "all 3 trials had ended already" in bnvit("stop mnist-subset-vitbn")[1]
    assert bnvit("sync")[1] == "0 records passed on, 0 out of date and dropped, 0 refused\n"
    bnvit.monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    code, out, err = bnvit("delete mnist-subset-vitbn")
    assert (code, err) == (1, "")
    assert "delete 'mnist-subset-vitbn' with 3 trials, its checkpoints and MLflow runs?" in out
    assert out.endswith("nothing was deleted\n")
    assert "3 of 3" in bnvit("studies")[1]


def test_an_interruption_is_one_line(bnvit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("study.service.probe_addresses", interrupted)
    assert bnvit("run --model vit") == (130, "", "bnvit-study: stopped at once\n")


def test_the_version_is_printed(bnvit: Command) -> None:
    assert bnvit("--version") == (0, f"bnvit-study {version('bnvit-study')}\n", "")


def test_studies_of_an_empty_store_say_what_to_do(bnvit: Command) -> None:
    assert "no studies yet; start one with" in bnvit("studies")[1]


def test_shell_completion_knows_the_commands(
    bnvit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_BNVIT_STUDY_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "bnvit-study s")
    monkeypatch.setenv("COMP_CWORD", "1")
    code, out, _ = bnvit("")
    assert code == 0
    names = ["studies", "show", "sweep", "stability", "soup", "status", "stop", "sync"]
    assert out.split() == names
