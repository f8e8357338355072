"""Whether models can be averaged with each other: by what their cards say."""

from collections.abc import Mapping
from dataclasses import asdict

from models.errors import InputError, few
from objectives.card import Card
from objectives.soup import LEAST_MEMBERS

# Switches that change how a model is trained, not what it computes once it is.
TRAINING_SWITCHES = (
    "dropout",
    "emb_dropout",
    "drop_path",
    "bn_momentum",
    "un_warm_up",
    "prepbn_share",
)
_REASON = (
    "weights average only where members lie in one basin, and the average of unrelated networks "
    "is at chance"
)


def check_members(cards: Mapping[str, Card], any_initialisation: bool) -> None:
    """Raise InputError where the models, by name, cannot go into one soup.

    They must be of one architecture and, unless `any_initialisation`, have begun with equal
    weights.
    """
    if len(cards) < LEAST_MEMBERS:
        raise InputError(f"a soup takes at least {LEAST_MEMBERS} members, and there is only one")
    (first, card), *others = cards.items()
    for name, told in cards.items():
        if told.folded:
            raise InputError(
                f"the norms of {name} are folded, so that no statistics can be estimated for an "
                "average; give the model as it was before"
            )
    for name, other in others:
        if lines := _differences(other, card):
            raise InputError(
                f"a soup of different architectures cannot be made: {'; '.join(lines)} "
                f"({name}, {first})"
            )
    if not any_initialisation:
        _check_initialisations(cards)


def common_initialisation(cards: Mapping[str, Card]) -> str | None:
    """What all of them began with; None where that differs or is not known."""
    found = {told.initialisation for told in cards.values()}
    return found.pop() if len(found) == 1 else None


def _check_initialisations(cards: Mapping[str, Card]) -> None:
    way = f"{_REASON}; --any-initialisation makes it all the same"
    if unknown := [name for name, told in cards.items() if told.initialisation is None]:
        raise InputError(f"what {few(unknown)} began with is not known: {way}")
    if common_initialisation(cards) is None:
        (first, card), *others = cards.items()
        name, other = next(
            (name, told) for name, told in others if told.initialisation != card.initialisation
        )
        raise InputError(
            f"{name} began with {other.initialisation}, {first} with {card.initialisation}: {way}"
        )


def _differences(mine: Card, theirs: Card) -> list[str]:
    """In what a model of one card computes otherwise than one of the other."""
    one, other = _computation(mine), _computation(theirs)
    names = {**one, **other}
    return [
        f"{name} is {one.get(name)}, not {other.get(name)}"
        for name in names
        if one.get(name) != other.get(name)
    ]


def _computation(told: Card) -> dict[str, object]:
    switches = {k: v for k, v in told.switches.items() if k not in TRAINING_SWITCHES}
    scaling = {"mean": told.mean, "std": told.std, "precision": told.precision}
    return {"model": told.model, **asdict(told.image), **switches, **scaling}
