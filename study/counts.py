"""What models are made of, counted without memory for their weights."""

from dataclasses import dataclass

from models.anatomy import anatomy
from models.profile import count_parameters, profile
from models.registry import variant
from models.switches import ImageShape
from objectives.initial import train_head_only
from study.identity import StudyIdentity


@dataclass(frozen=True)
class Counted:
    """One model at one image size."""

    parameters: int
    macs: int  # multiply-adds of one image's forward pass
    weights_bytes: int  # of parameters and buffers as a file holds them, in float32
    dim: int  # of the first stage, for Swin; so too heads
    heads: int
    depth: int  # blocks


def counted_model(name: str, image: ImageShape) -> Counted:
    """Count the model called `name`; raises InputError."""
    model = variant(name).build_blank(image)
    found = profile(model, image)
    blocks = anatomy(model).blocks
    return Counted(
        parameters=found.parameters,
        macs=found.macs,
        weights_bytes=sum(each.nbytes for each in model.state_dict().values()),
        dim=int(model.embed_dim),  # type: ignore[arg-type]  # timm's attributes are untyped
        heads=int(model.get_submodule(blocks[0]).attn.num_heads),  # type: ignore[union-attr, arg-type]
        depth=len(blocks),
    )


@dataclass(frozen=True)
class Trained:
    """How many of a model's parameters a study trains."""

    trained: int
    parameters: int  # of the model

    def __str__(self) -> str:
        """For people."""
        if self.trained == self.parameters:
            return f"all {self.parameters:,} parameters"
        return f"{self.trained:,} of {self.parameters:,} parameters (a linear probe)"


def trained_of(identity: StudyIdentity, image: ImageShape) -> Trained:
    """Count what a trial of the study trains, of images of that shape."""
    model = variant(identity.model).build_blank(image, identity.model_switches)
    if identity.recipe.train == "head":
        train_head_only(model)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Trained(trained, count_parameters(model))
