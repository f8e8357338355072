"""`reproduce` end to end, on small models and few images; a second time nothing is trained."""

import json
from pathlib import Path

import pytest

from study.storage import Store
from tests.conftest import SUBSET
from tests.study.test_cli import Command

SMALL = "--set dim=16 --set depth=2 --set heads=2 --set dim_head=8 --set mlp_dim=32"
BUDGET = f"--dataset {SUBSET} {SMALL} --epochs 1 --seeds 1 --train-images 200 --device cpu"


@pytest.fixture
def shared_bnvit(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shared_dir: Path,
    store: Store,
) -> Command:
    """The command on the folder whose server runs already."""
    assert store.engine is not None
    return Command(monkeypatch, capsys, shared_dir)


def told(shared_bnvit: Command, line: str, path: Path) -> dict[str, list[dict[str, str]]]:
    """The tables of a reproduction, by name."""
    code, _, err = shared_bnvit(f"reproduce {line} -o {path} --format json")
    assert code == 0, err
    return dict(json.loads(path.read_text())["tables"])


def test_what_is_missing_is_run_once_and_all_that_is_there_is_told(
    shared_bnvit: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = f"article {BUDGET} --study tiny --only experiment1 --lr 0.0005,0.01"
    found = told(shared_bnvit, line, tmp_path / "r.json")
    rows = [row for rows in found.values() for row in rows]
    accuracies = [row for row in rows if row["published"].startswith("98.2")]
    assert accuracies
    assert all(row["mark"] == "undecided" and "seed" in row["reason"] for row in accuracies)
    unrun = [row for row in rows if row["published"].startswith("r ")]
    assert all("bnvit-study reproduce article --only speed" in row["reason"] for row in unrun)
    tuned = [row["reason"] for row in rows if "each with its tuned values" in row["claim"]]
    assert tuned
    assert not any("--lr" in reason for reason in tuned), "it is of experiment 1"
    left_out = [
        row for row in rows if "ViT has no advantage in convergence, lr 0.005" in row["claim"]
    ]
    assert [row["mark"] for row in left_out] == ["not run"]
    # Once all is there nothing is trained.
    monkeypatch.setattr("study.reproduction_runs.carry_out", pytest.fail)
    assert told(shared_bnvit, line, tmp_path / "t.json") == found
    # Models with all blocks are judged also where one with one block is not there.
    assert shared_bnvit("delete tiny-sweep-vitbn_oneblock --yes")[0] == 0
    monkeypatch.setattr("study.reproduction_runs.carry_out", lambda *_: 0)
    fewer = told(shared_bnvit, line, tmp_path / "u.json")
    (before,), (after,) = (
        [
            row["ours"]
            for rows in all_.values()
            for row in rows
            if row["published"].startswith("97.8")
        ][:1]
        for all_ in (found, fewer)
    )
    assert before.startswith(after)
    assert "1 block" in before
    assert "%" in after
    assert "1 block" not in after


def test_bad_input_is_one_line(shared_bnvit: Command) -> None:
    for line, message in (
        ("artcle", "unknown source 'artcle'; did you mean 'article'?"),
        ("article --only sped", "unknown part 'sped' of article; known: speed, denormals"),
        ("article --only speed --all", "--all is all parts; leave out --only"),
        ("article --epochs 0", "--epochs 0 must be at least 1"),
        ("article --lr 0.0005,0.1", "--lr 0.1 is none of the article's: 0.0005, 0.005, 0.01"),
        ("blog --lr 0.0005", "--lr is of the article's experiment 1"),
        ("article --lr fast", "--lr fast must be numbers with commas between them"),
        ("article --batch-size 9", "--batch-size is of the blog's inference"),
        ("article -o /no/folder/x.html", "there is no folder /no/folder"),
    ):
        code, _, err = shared_bnvit(f"reproduce {line}")
        assert code == 2, line
        assert message in err
        assert err.count("\n") == 1
