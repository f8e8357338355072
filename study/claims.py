"""What a source claims, what is known of it, and the mark that this gives: types only."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from objectives.denormals import Slowdown
from study.counts import Counted
from study.results import StudyResult
from study.speeds import Speeds

Status = Literal["confirmed", "refuted", "undecided", "not run"]
STATUSES: tuple[Status, ...] = ("confirmed", "refuted", "undecided", "not run")

Part = Literal[
    "speed",
    "denormals",
    "experiment1",
    "experiment2",
    "dropout",
    "counts",
    "inference",
    "elsewhere",
]
"""What a claim needs; `elsewhere`: data or hardware that this command does not use."""


@dataclass(frozen=True)
class Evidence:
    """All that was computed for a source, whenever it was; what is missing says why."""

    sweeps: tuple[StudyResult, ...] = ()  # all blocks run
    one_block: tuple[StudyResult, ...] = ()  # the same with one
    searches: tuple[StudyResult, ...] = ()
    fits: tuple[StudyResult, ...] = ()
    dropout: tuple[StudyResult, ...] = ()
    article_speeds: Speeds | None = None  # of the article's loop, data loading included
    own_speeds: Speeds | None = None  # of our steps alone
    own_one_block: Speeds | None = None
    slowdowns: tuple[Slowdown, ...] = ()  # by denormals
    inference: tuple[Speeds, ...] = ()  # one for each backbone
    counts: Mapping[str, Counted] = field(default_factory=dict)  # by model
    missing: Mapping[Part, str] = field(default_factory=dict)  # why, and what would run it


@dataclass(frozen=True)
class Judgement:
    """What the evidence says."""

    status: Status
    ours: str
    reason: str
    budget: str = ""


Judge = Callable[[Evidence], Judgement]


@dataclass(frozen=True)
class Claim:
    """A statement of a source, as it stands there."""

    id: str
    place: str  # in the source: "table 1"
    text: str
    published: str
    needs: Part
    judge: Judge | None = None  # None: nothing that is computed here decides it
    unrun: str = ""  # why it is not run by this command, and what would
    is_headline: bool = False  # one that the source stands or falls with


@dataclass(frozen=True)
class Finding:
    """A claim and its mark."""

    claim: Claim
    judgement: Judgement

    @property
    def status(self) -> Status:
        """The mark."""
        return self.judgement.status


def finding(claim: Claim, evidence: Evidence) -> Finding:
    """The mark of a claim; "not run" where its part is missing."""
    if claim.judge is None:
        return Finding(claim, Judgement("not run", "", claim.unrun))
    if (why := evidence.missing.get(claim.needs)) is not None:
        return Finding(claim, Judgement("not run", "", why))
    return Finding(claim, claim.judge(evidence))


def findings(claims: Iterable[Claim], evidence: Evidence) -> tuple[Finding, ...]:
    """The marks of all claims, in order."""
    return tuple(finding(claim, evidence) for claim in claims)
