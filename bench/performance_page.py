"""The page of `make bench`: its numbers as tables, with what they mean."""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from turns import Times, ratio

Turns = Mapping[str, Sequence[float]]


def page(numbers: Mapping[str, Any], results: Path | None) -> str:
    """All sections; what other scripts measured is taken from `results`, if that is given."""
    about = numbers["about"]
    sections = [
        _head(about),
        _training(numbers["training"], about),
        _evaluation(numbers["evaluation"], about["validation_images"]),
        _inference(numbers["inference"]),
        _layouts(numbers["layouts"]),
        _memory(numbers["peak_mib"]),
    ]
    if results is not None:
        sections += [_seeds(results / "seeds.json"), _startup(results / "startup.json")]
        sections.append(_gpu(results))
    return "\n".join(section for section in sections if section)


def _head(about: Mapping[str, Any]) -> str:
    return f"""# How fast one trial is

Made by `{about["command"]}` on {about["date"]}: {about["threads"]} threads of
{about["processor"]}, torch {about["torch"]}. The machine is shared, so contenders take turns, and a
ratio is the median over the turns with its quartiles. Read the ratios; milliseconds are of that
machine and hour.

*article* is the article's loop, written from its description (`objectives/article_loop.py`):
DataLoader with Resize and ToTensor, BatchNorm between transposes, attention in three products,
Adam, `.item()` at each step – with all six blocks. *plain* is our model and loop, which keeps
the images as tensors; *ours* is the default: attention's projections multiplied out
(`models/merged_attention.py`), BatchNorm folded at evaluation, fused Adam. *compiled* adds
torch.compile, *bf16* computes matrix products in bfloat16 (`--precision bf16`). Loss curves of all
float32 ways agree within 2e-5 over 25 to 100 steps (`tests/objectives/test_execution.py`).
"""


def _training(training: Mapping[str, Turns], about: Mapping[str, Any]) -> str:
    floors = training["floor"]
    images = about["amount"]["steps"] * about["batch_size"]
    rows = []
    for model, turns in training.items():
        if model == "floor":
            continue
        for name in turns:
            products = "bf16" if "bf16" in name else "float32"
            rows.append(
                (
                    f"`{model}`",
                    name,
                    _ms(turns[name], images / 100),
                    _ratio(turns["article"], turns[name]),
                    _ratio(floors[f"floor {products}"], turns[name]),
                    _ratio(floors[f"floor {products}, merged"], turns[name]),
                )
            )
    floor_rows = [(name, _ms(turns, images / 100)) for name, turns in floors.items()]
    headings = (
        "model", "way", "ms per 100 images", "faster than the article's loop",
        "floor / time", "merged floor / time",
    )  # fmt: skip
    return f"""## Training

Loading, forward, backward, Adam; batch {about["batch_size"]}, {about["amount"]["turns"]} turns of
{about["amount"]["steps"]} steps.

{_table(headings, rows)}

The floor is the matrix products of a step alone, forward and backward, without norms, softmax,
activations, residuals, Adam and data. Merged attention has fewer products than the published one,
so it can pass the published floor and has one of its own:

{_table(("floor", "ms per 100 images"), floor_rows)}
"""


def _evaluation(evaluation: Mapping[str, Turns], images: int) -> str:
    rows = [
        (
            f"`{model}`",
            name,
            _ms(turns[name], images / 1000),
            _ratio(turns["article"], turns[name]),
            _ratio(turns["article, no_grad"], turns[name]),
        )
        for model, turns in evaluation.items()
        for name in turns
    ]
    headings = (
        "model", "way", "ms per 1,000 images", "faster than the article's", "than that with no_grad"
    )  # fmt: skip
    return f"""## Evaluation

One evaluation of {images:,} images. The article's loop evaluates 5,000 at once and records for
gradients; with `no_grad` it would not. Ours folds BatchNorm away first (the time of folding is
counted) and runs in inference mode. At a rung a trial evaluates a BatchNorm model twice, on
recalibrated and on running statistics, and recalibrates it on 2,000 images.

{_table(headings, rows)}
"""


def _inference(inference: Turns) -> str:
    if not inference:
        return ""
    bare = "vitbn, norms deleted"
    rows = [
        (name, _ratio(turns, inference[bare], 3), _ratio(turns, inference["vit"], 3))
        for name, turns in inference.items()
    ]
    return f"""## What BatchNorm costs at inference

Time of evaluation over that of the same model with its norms deleted, and over its LayerNorm
twin's; all with merged attention, float32.

{_table(("model", "time / norms deleted", "time / `vit`"), rows)}
"""


def _layouts(found: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    rows = []
    for way, layouts in found.items():
        speeds = list(layouts.items())
        if not speeds or not speeds[0][1]:
            continue
        _, alone = speeds[0]
        for layout, values in speeds:
            each = [value / one for value, one in zip(values, alone, strict=True)]
            middle = statistics.median(each)
            gain = f"{middle:.2f} ({min(each):.2f}–{max(each):.2f})"
            rows.append((way, layout, f"{statistics.median(values):.0f}", gain))
    if not rows:
        return ""
    headings = ("way", "workers × threads", "images/s together", "over one worker")
    return f"""## Workers × threads

Processes that train `vitbn` at the same time, not compiled, each with its threads; median and
range. `bnvit-study run --workers auto` measures its own study so, compiled if the study is, and
takes more workers than one where they train at least 1.2 times as much.

{_table(headings, rows)}
"""


def _memory(peaks: Mapping[str, int]) -> str:
    if not peaks:
        return ""
    rows = [(name, f"{mib:,}") for name, mib in peaks.items()]
    return f"""## Peak memory

Of a process that does nothing else (`vitbn`, MNIST in memory), in MiB.

{_table(("process", "MiB"), rows)}
"""


def _seeds(path: Path) -> str:
    if not path.exists():
        return "## Accuracy\n\nNot measured yet: `python bench/seeds.py`.\n"
    found = json.loads(path.read_text())
    rows = [
        (f"`{row['model']}`", row["way"], row["accuracy"], row["difference"])
        for row in found["rows"]
    ]
    headings = ("model", "way", "validation accuracy", "paired difference to plain, 95 % interval")
    return f"""## Accuracy

`{found["command"]}`, {found["date"]}: {found["about"]}

{_table(headings, rows)}
"""


def _startup(path: Path) -> str:
    if not path.exists():
        return ""
    found = json.loads(path.read_text())
    rows = [(row["what"], row["median"], row["spread"], row["user"]) for row in found["rows"]]
    return f"""## Start-up and memory of the program

`{found["command"]}`, {found["date"]}, {found["about"]}

{_table(("what", "median", "spread", "user time"), rows)}
"""


def _gpu(results: Path) -> str:
    measured = sorted(results.glob("gpu-*.md"))
    lines = [f"- [{path.stem}](results/{path.name})" for path in measured]
    return "## GPU\n\n" + ("\n".join(lines) or "Not measured yet.") + "\n"


def _ratio(slow: Sequence[float], fast: Sequence[float], digits: int = 2) -> str:
    return ratio(Times(tuple(slow)), Times(tuple(fast))).shown(digits)


def _ms(turns_s: Sequence[float], parts: float) -> str:
    return f"{_median(turns_s) * 1e3 / parts:.1f}"


def _median(turns_s: Sequence[float]) -> float:
    return statistics.median(turns_s)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])
