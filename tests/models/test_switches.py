"""Switches are parsed by type and refused with one clear line."""

import pytest

from models.backbones import BACKBONES
from models.errors import InputError
from models.registry import ARTICLE, DEFECTS, variant
from models.switches import ImageShape, ViTSwitches, non_default, parse_switches


def message(*texts: str) -> str:
    """The refusal of switches given as `name=value`."""
    with pytest.raises(InputError) as refused:
        parse_switches(dict(text.split("=") for text in texts))
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 2
    return str(refused.value)


def test_each_kind_of_switch_is_read() -> None:
    texts = {
        "depth": "4",
        "dropout": "0.25",
        "pool": "mean",
        "pos_emb": "pe1d",
        "track_running_stats": "False",
    }
    assert parse_switches(texts) == ViTSwitches(
        depth=4, dropout=0.25, pool="mean", pos_emb="pe1d", track_running_stats=False
    )


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("1", True), ("FALSE", False), ("0", False)]
)
def test_a_truth_value_has_several_spellings(text: str, value: bool) -> None:
    assert parse_switches({"track_running_stats": text}).track_running_stats is value


def test_no_switches_are_the_defaults() -> None:
    assert parse_switches({}) == ViTSwitches()


def test_an_unknown_switch_suggests_the_nearest() -> None:
    assert message("patchsize=4") == "unknown switch 'patchsize'; did you mean 'patch_size'?"


def test_a_switch_like_no_other_lists_all() -> None:
    found = message("zzz=1")
    assert found.startswith("unknown switch 'zzz'; known: bn_momentum, ")
    assert found.endswith(", pos_emb, dropout, emb_dropout, drop_path")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("depth=1.5", "depth=1.5 must be a whole number"),
        ("depth=six", "depth=six must be a whole number"),
        ("depth=", "depth= must be a whole number"),
        ("dropout=low", "dropout=low must be a number"),
        ("pool=max", "pool=max is not one of cls, mean"),
        ("track_running_stats=maybe", "track_running_stats=maybe must be true or false"),
        ("depth=0", "depth=0 must be at least 1"),
        ("dim_head=-8", "dim_head=-8 must be at least 1"),
        ("dropout=1", "dropout=1.0 must lie in [0, 1)"),
        ("dropout=nan", "dropout=nan must lie in [0, 1)"),
        ("emb_dropout=-0.1", "emb_dropout=-0.1 must lie in [0, 1)"),
        ("bn_momentum=0", "bn_momentum=0.0 must lie in (0, 1]"),
        ("bn_momentum=2", "bn_momentum=2.0 must lie in (0, 1]"),
    ],
)
def test_a_bad_value_is_named_with_what_would_be_good(text: str, expected: str) -> None:
    assert message(text) == expected


def test_sine_positions_need_an_even_dim() -> None:
    assert message("pos_emb=pe1d", "dim=15") == "pos_emb=pe1d needs an even dim, not 15"


def test_a_patch_that_does_not_divide_the_image_is_refused_with_those_that_do() -> None:
    image = ImageShape(channels=1, size=28, classes=10)
    assert image.patches(7) == (16, 49)
    assert ImageShape(channels=3, size=28, classes=10).patches(14) == (4, 588)
    with pytest.raises(InputError, match="patch_size=5 does not divide the image size 28") as bad:
        variant("vit").build(image, ViTSwitches(patch_size=5))
    assert str(bad.value).endswith("choose one of 1, 2, 4, 7, 14, 28")


def test_only_switches_that_differ_are_told() -> None:
    assert non_default(ViTSwitches()) == {}
    assert non_default(ViTSwitches(depth=3, pool="mean", dim=64)) == {"depth": 3, "pool": "mean"}


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("vitbm", "; did you mean 'vitbn'?"),
        ("vit-bn-ffn", "; did you mean 'vitbnffn'?"),
        ("resnet", f"; known: {', '.join([*ARTICLE, *DEFECTS, *BACKBONES])}"),
    ],
)
def test_an_unknown_model_suggests_the_nearest(name: str, end: str) -> None:
    with pytest.raises(InputError) as refused:
        variant(name)
    assert str(refused.value) == f"unknown model '{name}'{end}"
