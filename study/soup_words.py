"""What a soup came to, for people."""

from collections.abc import Iterator

from objectives.soup import Step
from study.soup import Made
from study.tabular import Tabular


def opening_lines(made: Made) -> list[str]:
    """What was averaged, and by which images it was judged."""
    began = made.told.initialisation or "members began differently, or it is not known with what"
    return [
        f"model:   {made.told.model}, {made.told.precision}; {began}",
        f"images:  {len(made.images.validation):,} validation images of {made.images.dataset}, "
        f"statistics of {len(made.images.population):,} training images; {made.device}",
    ]


def members_table(made: Made) -> Tabular:
    """The members, best first, and what became of each."""
    is_greedy = made.kind == "greedy"
    headings = ("member", "kept", "alone", *(["soup with it"] if is_greedy else []))
    rows = tuple(_row(step, is_greedy) for step in made.soup.steps)
    return Tabular("members", "members, best first: validation accuracy", headings, rows, left=2)


def result_lines(made: Made) -> Iterator[str]:
    """The soup beside its best member."""
    soup, best = made.soup, made.best
    yield (
        f"{made.kind} soup of {len(soup.members)} of {len(soup.steps)}: {soup.val_accuracy:.2%} "
        f"against the best member's {best.val_accuracy:.2%}"
    )
    if len(soup.members) == 1:
        yield f"no other member makes {best.name} better: the file holds that alone"
    if made.tested is not None:
        alone = f"the best member's {made.tested.best_member:.2%}"
        yield f"test:    {made.tested.soup:.2%} against {alone}"
    elif made.kind == "greedy":
        yield "note:    it was chosen by these images, so it looks better than it is; see --test"
    yield f"written: {made.path}"


def _row(step: Step, is_greedy: bool) -> tuple[str, ...]:
    cells = (step.name, "yes" if step.is_kept else "no", f"{step.val_accuracy:.2%}")
    return (*cells, f"{step.soup_accuracy:.2%}") if is_greedy else cells
