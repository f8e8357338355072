"""What goes into each norm of a model and what comes out of it."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from models.anatomy import Role, Site
from objectives.channels import Channels, ChannelSums, Spread


@dataclass(frozen=True)
class LayerActivations:
    """What goes into a norm and comes out of it."""

    path: str
    role: Role
    norm: str  # its class
    depth: float  # see `depth_of`
    input: Spread
    output: Spread
    channels: Channels  # of the output


class NormMeter:
    """Listens to a norm, batch by batch."""

    def __init__(self, site: Site, norm: nn.Module, depth: float) -> None:
        self.site, self.norm, self.depth = site, type(norm).__name__, depth
        self.input, self.output = ChannelSums(), ChannelSums()

    def add(self, _module: Any, args: Any, _named: Any, output: Any) -> None:
        """Take one call."""
        self.input.add(args[0])
        self.output.add(output)

    def result(self) -> LayerActivations:
        """What was heard."""
        return LayerActivations(
            path=self.site.path,
            role=self.site.role,
            norm=self.norm,
            depth=self.depth,
            input=self.input.spread(),
            output=self.output.spread(),
            channels=self.output.result(),
        )


def depth_of(site: Site, blocks: tuple[str, ...]) -> float:
    """Where `site` stands: 0 before all blocks, n in the nth, and one more than those behind them.

    Before the first block of a later stage of Swin it is half less than in that.
    """
    if site.role in ("patch", "stream"):
        return 0.0
    if site.role == "final":
        return len(blocks) + 1.0
    for number, block in enumerate(blocks, start=1):
        if site.path.startswith(f"{block}."):
            return float(number)
    stage = site.path.partition("downsample")[0]
    return next(i for i, block in enumerate(blocks) if block.startswith(stage)) + 0.5
