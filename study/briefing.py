"""The words around a run: what it is about to do, and what to do next."""

import shlex
from dataclasses import replace

from study.crew import Berth
from study.environment import device_label
from study.overview import Overview
from study.service import Session
from study.words import counted


def opening(session: Session, places: list[Berth]) -> list[str]:
    """What is about to happen, or that there is nothing left to do."""
    seen = session.overview()
    identity, total = seen.identity, len(seen.counted)
    lines = [
        f"study:   {seen.study}, {'new' if session.is_new else 'found'}",
        f"search:  lr {identity.lr[0]:g}–{identity.lr[1]:g} (log), batch size "
        f"{identity.batch_size[0]}–{identity.batch_size[1]}, {identity.sampler}, {identity.pruner}",
        f"trials:  {total} of at most {counted(identity.epochs, 'epoch')} on "
        f"{identity.train_images:,} images, {identity.precision}",
        f"workers: {_workers_line(session, places)}",
    ]
    if session.request.trials < total:
        asked = counted(session.request.trials, "trial")
        lines.append(f"asked:   {asked}, fewer than have begun; those stay")
    if len(seen.ended) == total:
        return [*lines, f"all {total} trials have ended already; nothing is left to do"]
    if seen.ended:
        lines.append(f"{len(seen.ended)} trials have ended already; going on")
    return lines


def next_steps(session: Session, seen: Overview) -> list[str]:
    """What to do next."""
    request = replace(session.request, fresh=False)
    if seen.study != request.study_name:  # --fresh took the next free one
        request = replace(request, study=seen.study)
    if len(seen.ended) < len(seen.counted):
        return [f"go on:    {request.command()}"]
    more = request.command(trials=2 * len(seen.counted))
    show = shlex.join(["bnvit-study", "show", seen.study, *replace(request, mlflow=None).places()])
    return [
        f"trials:   {show}",
        f"browse:   {shlex.join(['bnvit-study', 'ui', *request.places()])}",
        f"add more: {more}",
    ]


def _workers_line(session: Session, places: list[Berth]) -> str:
    """Who trains: local workers with their threads, or only those of other nodes."""
    if not places:
        return "none here; others join with: " + shlex.join(
            ["bnvit-study", "worker", session.study.study_name, *session.request.places()]
        )
    threads = counted(places[0].threads, "thread")
    return f"{len(places)} on {device_label(session.device)}, {threads} each"
