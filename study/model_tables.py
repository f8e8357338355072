"""The models for the command line: a row each, or one in all its parts."""

import copy
import re
from dataclasses import dataclass

import torch
from rich.table import Table
from torch import nn

from models.anatomy import Site, anatomy
from models.backbones import BACKBONES
from models.fold import why_kept
from models.grammar import NORMS
from models.profile import count_norms, count_parameters, profile, training_bytes
from models.registry import ARTICLE, DEFECTS, Variant, all_names, variant
from models.surgery import operate
from models.switches import ImageShape, Switches
from objectives.data import load_search_data
from objectives.data_options import DataOptions
from objectives.datasets import dataset, shape_of
from study.settings import Settings
from study.tables import plain_table

GRAMMAR = f"[_{'|'.join(norm for norm in NORMS if norm != 'ln')}][_ffnbn][_wn][_relu6]"


@dataclass(frozen=True)
class ModelRow:
    """One model at one image size."""

    name: str
    norms: str
    parameters: int
    multiply_adds: int  # of one image
    blocks: int
    blocks_executed: int
    foldable_norms: int
    norm_sites: int


@dataclass(frozen=True)
class VariantRow:
    """A backbone with one normalisation; what executes is as for the backbone alone."""

    name: str
    norms: str
    parameters: int
    foldable_norms: int
    norm_sites: int


@dataclass(frozen=True)
class NormRow:
    """Norms that stand at the same place of several blocks."""

    place: str
    norm: str
    features: str
    count: int
    folds_into: str  # empty: not at all
    kept_because: str


@dataclass(frozen=True)
class ModelView:
    """One model in its parts."""

    row: ModelRow
    image: ImageShape
    switches: Switches
    batch_size: int
    training_bytes: int  # for a batch, with Adam in float32
    norms: list[NormRow]


def image_shape(dataset_name: str, options: DataOptions, settings: Settings) -> ImageShape:
    """The shape of a data set's images; published sets need not be here for it."""
    known = shape_of(dataset_name, settings.data_dir, options)
    if known is not None:
        return known
    return load_search_data(dataset(dataset_name, settings.data_dir, options)).shape


def model_rows(image: ImageShape) -> list[ModelRow]:
    """The backbones, profiled by a forward pass."""
    rows = []
    for name in (*ARTICLE, *DEFECTS, *BACKBONES):
        chosen = variant(name)
        with torch.device("meta"):
            rows.append(_row(chosen, chosen.build(image), image))
    return rows


def variant_rows(image: ImageShape) -> list[VariantRow]:
    """All models by name."""
    backbones: dict[str, nn.Module] = {}  # one is built for all of its variants
    rows = []
    for name in all_names():
        chosen = variant(name)
        switches, backbone = chosen.resolved(None, image), chosen.parts.backbone
        with torch.device("meta"):
            if backbone not in backbones:
                backbones = {backbone: chosen.backbone(image, switches)}
            model = operate(copy.deepcopy(backbones[backbone]), chosen.parts, switches)
        total, foldable = count_norms(model)
        rows.append(VariantRow(name, chosen.norms, count_parameters(model), foldable, total))
    return rows


def model_view(
    name: str, image: ImageShape, switches: Switches | None, batch_size: int
) -> ModelView:
    """The model called `name`: where each norm stands, what it needs, what would fold."""
    chosen = variant(name)
    resolved = chosen.resolved(switches, image)
    with torch.device("meta"):
        model = chosen.build(image, resolved)
    norms: dict[tuple[str, ...], int] = {}
    for site in anatomy(model).sites:
        norm = model.get_submodule(site.path)
        reason = why_kept(model, site, trained=False)
        into = "" if reason else _neighbours(site)
        key = (_place(site.path), type(norm).__name__, str(_features(norm)), into, reason)
        norms[key] = norms.get(key, 0) + 1
    rows = [
        NormRow(place, norm, features, count, into, reason)
        for (place, norm, features, into, reason), count in norms.items()
    ]
    needed = training_bytes(model, image, batch_size)
    return ModelView(_row(chosen, model, image), image, resolved, batch_size, needed, rows)


def variants_table(rows: list[VariantRow]) -> Table:
    """All models for people."""
    table = plain_table("model", "normalisation")
    for heading in ("parameters", "norms that fold"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        folds = f"{row.foldable_norms} of {row.norm_sites}"
        table.add_row(row.name, row.norms, f"{row.parameters:,}", folds)
    return table


def models_table(rows: list[ModelRow]) -> Table:
    """The backbones for people."""
    table = plain_table("model", "normalisation")
    for heading in ("parameters", "mult.-adds", "blocks executed", "norms that fold"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.name,
            row.norms,
            f"{row.parameters:,}",
            f"{row.multiply_adds / 1e6:,.2f} M",
            f"{row.blocks_executed} of {row.blocks}",
            f"{row.foldable_norms} of {row.norm_sites}",
        )
    return table


def norms_table(view: ModelView) -> Table:
    """Where the norms of a model stand."""
    table = plain_table("place", "norm")
    for heading in ("features", "times"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("folds into")
    for row in view.norms:
        told = row.folds_into or f"stays: {row.kept_because}"
        table.add_row(row.place, row.norm, row.features, str(row.count), told)
    return table


def view_lines(view: ModelView) -> list[str]:
    """What is to be said of a model besides its norms."""
    row, image = view.row, view.image
    size = f"{image.channels}×{image.size}×{image.size}"
    return [
        f"{row.name}: {row.norms}",
        f"images:       {size}, {image.classes} classes, patches of {view.switches.patch_size}",
        f"parameters:   {row.parameters:,}",
        f"mult.-adds:   {row.multiply_adds / 1e9:.4g} G for an image",
        f"blocks:       {row.blocks_executed} of {row.blocks} executed",
        f"memory:       about {view.training_bytes / 2**20:,.0f} MiB to train with a batch of "
        f"{view.batch_size} (float32, Adam)",
        f"norms:        {row.foldable_norms} of {row.norm_sites} vanish at inference",
    ]


def _row(chosen: Variant, model: nn.Module, image: ImageShape) -> ModelRow:
    counted = profile(model, image)
    return ModelRow(
        name=chosen.name,
        norms=chosen.norms,
        parameters=counted.parameters,
        multiply_adds=counted.macs,
        blocks=counted.blocks,
        blocks_executed=counted.blocks_executed,
        foldable_norms=counted.foldable_norms,
        norm_sites=counted.norms,
    )


def _place(path: str) -> str:
    """The path with the numbers of blocks left open."""
    return re.sub(r"\b(blocks|layers|blocks_token_only)\.\d+", r"\1.*", path)


def _neighbours(site: Site) -> str:
    """The maps that take the norm in."""
    return ", ".join(_place(path) for path in (site.before, *site.after) if path)


def _features(norm: nn.Module) -> int:
    return max((parameter.numel() for parameter in norm.parameters()), default=0)
