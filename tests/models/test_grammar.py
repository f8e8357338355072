"""Names of models: taken apart, put together, refused with what would be right."""

import pytest

from models.errors import InputError
from models.grammar import ModelName
from models.registry import all_names, variant

BLOG = ("bn_relu6", "bn_wn", "bn_wn_relu6", "lnbn_wn", "lnbn_relu6", "lnbn_wn_relu6")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("vit", ModelName("vit")),
        ("vitbn_relu6", ModelName("vitbn", relu6=True)),
        ("vit_rms", ModelName("vit", "rms")),
        ("vit_large_bn", ModelName("vit_large", "bn")),
        ("deit_base", ModelName("deit_base")),
        ("deit_base_distilled_lnbn", ModelName("deit_base_distilled", "lnbn")),
        ("deit_tiny_bn_wn_relu6", ModelName("deit_tiny", "bn", weight_norm=True, relu6=True)),
        ("swin_tiny_ffnbn", ModelName("swin_tiny", hidden_bn=True)),
        ("timm:vit_tiny_patch16_224_bn", ModelName("timm:vit_tiny_patch16_224", "bn")),
    ],
)
def test_a_name_is_taken_apart_and_put_together(name: str, parts: ModelName) -> None:
    found = variant(name)
    assert found.parts == parts
    assert found.name == str(parts) == name


def test_layer_norm_may_be_said_and_need_not() -> None:
    assert variant("deit_tiny_ln_wn").name == "deit_tiny_wn"


def test_every_listed_name_means_itself() -> None:
    names = all_names()
    assert len(set(names)) == len(names) > 200
    assert [variant(name).name for name in names] == names


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large"])
@pytest.mark.parametrize("suffixes", BLOG)
def test_every_combination_of_the_blog_is_listed(size: str, suffixes: str) -> None:
    assert f"deit_{size}_{suffixes}" in all_names()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("deit_tny_bn", "unknown model 'deit_tny_bn'; did you mean 'deit_tiny'?"),
        ("deit_tiny_bnn", "deit_tiny has no 'bnn'; did you mean 'bn'?"),
        ("deit_tiny_relu6_bn", "write deit_tiny_bn_relu6; the order is norm, ffnbn, wn, relu6"),
        ("deit_tiny_bn_rms", "one norm, and each suffix once"),
        ("deit_tiny_wn_wn", "one norm, and each suffix once"),
        ("vitbn_rms", "vitbn says already which norms it has; write vit_rms_ffnbn"),
        ("vitbnffn_ffnbn", "vitbnffn says already which norms it has; write vit_ffnbn"),
        ("timm:vit_gigantic", "timm has no model 'vit_gigantic'"),
        ("timm:vit_tiny_patch16_224_bnn", "has no 'bnn'; did you mean 'bn'?"),
    ],
)
def test_a_name_that_means_nothing_is_refused_with_what_would(name: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        variant(name)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "uses"),
    [("vit", False), ("vitbnffn", True), ("deit_tiny_rms_wn", False), ("deit_tiny_ffnbn", True),
     ("swin_tiny_lnbn", True), ("cait_s36_un", True), ("vit_large_prepbn", True)],
)  # fmt: skip
def test_models_that_need_two_images_are_known(name: str, uses: bool) -> None:
    assert variant(name).uses_batch_norm is uses
