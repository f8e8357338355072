"""The words around a run: what it is about to do, and what to do next."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace

from objectives.recipes import Recipe
from study.identity import StudyIdentity
from study.overview import Overview
from study.placing import Placing
from study.plan import Plan
from study.recipe_checks import notes
from study.request import Request
from study.service import Session
from study.words import counted, ranges


def opening(sessions: Sequence[Session], placing: Placing) -> list[str]:
    """What is about to happen, or that there is nothing left to do."""
    seen = [session.overview() for session in sessions]
    pairs = zip(seen, sessions, strict=True)
    lines = [line for one, session in pairs for line in _study_lines(one, session)]
    lines.append(f"workers: {_workers_line(sessions, placing)}")
    asked = sum(session.request.trials for session in sessions)
    total, ended = sum(len(one.counted) for one in seen), sum(len(one.ended) for one in seen)
    if asked < total:
        lines.append(f"asked:   {counted(asked, 'trial')}, fewer than have begun; those stay")
    if ended == total:
        return [*lines, f"all {total} trials have ended already; nothing is left to do"]
    if ended:
        lines.append(f"{ended} trials have ended already; going on")
    return lines


def _study_lines(seen: Overview, session: Session) -> list[str]:
    identity, total = seen.identity, len(seen.counted)
    most = "" if identity.is_planned else "at most "
    return [
        f"study:   {seen.study}, {'new' if session.is_new else 'found'}",
        _values_line(identity, total),
        f"trials:  {total} of {most}{counted(identity.epochs, 'epoch')} on "
        f"{identity.train_images:,} images, {identity.precision}",
        *([] if identity.recipe == Recipe() else [f"recipe:  {identity.recipe}"]),
        f"trains:  {session.trained}",
        *notes(session.request),
    ]


def _values_line(identity: StudyIdentity, total: int) -> str:
    """What is searched, or what is trained."""
    if not identity.is_planned:
        (low, high), (first, last) = identity.lr, identity.batch_size
        return (
            f"search:  lr {low:g}–{high:g} (log), batch size {first}–{last}, "
            f"{''.join(f'{one}, ' for one in identity.others)}{identity.sampler}, {identity.pruner}"
        )
    if identity.kind == "stability":
        return _ranges_line(identity)
    each = [f"{lr:g} with {batch_size}" for lr, batch_size in identity.configurations]
    last_seed = identity.seed + total // len(each) - 1
    seeds = f"seeds {identity.seed}–{last_seed}" if last_seed > identity.seed else "one seed"
    split = "train and validation" if identity.is_joined else "the train split"
    kind = f"{identity.kind}:".ljust(9)
    return f"{kind}lr and batch size {', '.join(each)}; {seeds}; on {split}"


def _ranges_line(identity: StudyIdentity) -> str:
    (low, high), sizes = identity.lr, ", ".join(map(str, identity.batch_sizes))
    seeds = range(identity.seed, identity.seed + identity.seeds)
    return (
        f"rates:   {identity.grid} of lr {low:g}–{high:g} (log), then {identity.steps} where "
        f"stability ends; batch sizes {sizes}; seeds {ranges(seeds)}"
    )


def next_steps(sessions: Sequence[Session], seen: Sequence[Overview]) -> list[str]:
    """What to do next."""
    first = replace(sessions[0].request, fresh=False)
    if seen[0].study != first.study_name:  # --fresh took the next free one
        first = replace(first, study=seen[0].study)
    if any(len(one.ended) < len(one.counted) for one in seen):
        return [f"go on:    {first.command()}"]
    places = replace(first, mlflow=None).places()
    return [
        *(f"trials:   {shlex.join(['bnvit-study', 'show', one.study, *places])}" for one in seen),
        f"browse:   {shlex.join(['bnvit-study', 'ui', *first.places()])}",
        *(f"add more: {command}" for command in _more(first, seen[0])),
    ]


def _more(request: Request, seen: Overview) -> Iterator[str]:
    """The command for a larger total, where that is not fixed for the study's life."""
    if request.plan is None:
        yield request.command(trials=2 * len(seen.counted))
    elif isinstance(request.plan, Plan):
        yield request.command(plan=replace(request.plan, seeds=2 * request.plan.seeds))


def _workers_line(sessions: Sequence[Session], placing: Placing) -> str:
    """Who trains: our workers with their threads, or only those of others."""
    first = sessions[0]
    if not placing.places:
        names = [session.study.study_name for session in sessions]
        return "none here; others join with: " + shlex.join(
            ["bnvit-study", "worker", *names, *first.request.places()]
        )
    threads = counted(placing.places[0].threads, "thread")
    return f"{len(placing.places)} on {placing.where}, {threads} each"
