"""The article's vision transformers, top to bottom: attention, feed-forward, block, ViT.

Source of the layout: vit-pytorch's `ViT` (parameter names are the same, so its weights load), with
the normalisation passed in as a callable, a CLS token whatever the pooling, and sine positions.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from einops import rearrange, repeat
from einops.layers.torch import Rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from models.merged_attention import merged_attention
from models.norms import Norm
from models.switches import ImageShape, ViTSwitches

# Beyond it fused kernels, which do not lay out the scores, are faster than saving projections.
MOST_TOKENS = 200

FeedForward = Callable[[int, int, float], nn.Module]
"""Builds a feed-forward branch from its dim, hidden dim and dropout."""


class Attention(nn.Module):
    """Pre-normalised multi-head self-attention: (B, N, dim) → (B, N, dim)."""

    shift: Tensor | None

    def __init__(self, dim: int, heads: int, dim_head: int, dropout: float, norm: Norm) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.is_merged = False
        self.register_buffer("shift", None, persistent=False)  # see `fold_in`
        self.norm = norm(dim)
        self.to_qkv = nn.Linear(dim, 3 * heads * dim_head, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * dim_head, dim), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """Attend over the tokens of `x` (B, N, dim)."""
        x = self.norm(x)
        dropout = self.dropout if self.training else 0.0
        if self.is_merged and (self.to_qkv.bias is None or self.shift is not None):
            if self.shift is not None:
                x = x + self.shift
            linear, out_dropout = self.to_out
            assert isinstance(linear, nn.Linear)
            return out_dropout(merged_attention(x, self.to_qkv, linear, self.heads, dropout))
        qkv = self.to_qkv(x)
        q, k, v = rearrange(qkv, "b n (three h d) -> three b h n d", three=3, h=self.heads)
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        return self.to_out(rearrange(out, "b h n d -> b n (h d)"))

    def fold_in(self, scale: Tensor, shift: Tensor) -> None:
        """Note that scale·x + shift (dim,) before `to_qkv` has become part of its weight and bias.

        Merged attention has no place for that bias, but W·x + b = W·(x + shift / scale).
        """
        added = shift / scale
        if added.isfinite().all():
            self.shift = added.to(self.to_qkv.weight.dtype)

    def merge(self, merged: bool) -> None:
        """Compute with `merged_attention`, where that takes no more multiply-adds."""
        dim, dim_head = self.to_qkv.in_features, self.to_qkv.out_features // (3 * self.heads)
        self.is_merged = merged and dim <= dim_head


class PreNormFeedForward(nn.Module):
    """LayerNorm, Linear, GELU, Linear: (B, N, dim) → (B, N, dim)."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, dim),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Transform each token of `x` (B, N, dim) by itself."""
        return self.net(x)


class HiddenNormFeedForward(nn.Module):
    """Linear, norm of the hidden features, GELU, Linear: (B, N, dim) → (B, N, dim).

    There is no pre-norm: the hidden norm takes its place (Yao et al. 2021).
    """

    def __init__(self, dim: int, hidden: int, dropout: float, norm: Norm) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(dim, hidden),
            norm(hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, dim),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Transform the tokens of `x` (B, N, dim)."""
        return self.net(x)


class Block(nn.Sequential):
    """Residual branches applied in turn, attention then feed-forward: (B, N, dim) → (B, N, dim).

    In training a share `drop_path` of the images skips a branch, and the others' is scaled up
    (stochastic depth, Huang et al. 2016).
    """

    drop_path = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Add each branch's output to its input."""
        for branch in self:
            x = self._kept(branch(x)) + x
        return x

    def _kept(self, added: Tensor) -> Tensor:
        if not (self.training and self.drop_path):
            return added
        keep = 1.0 - self.drop_path
        mask = added.new_empty(added.shape[0], 1, 1).bernoulli_(keep)
        return added * mask.div_(keep)


class Transformer(nn.Module):
    """All blocks, then the final norm: (B, N, dim) → (B, N, dim)."""

    def __init__(self, blocks: list[Block], norm: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(blocks)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Run every block."""
        for block in self.layers:
            x = block(x)
        return self.norm(x)


class FirstBlockTransformer(Transformer):
    """The defect of the article's BatchNorm models: all blocks are built, and only the first runs.

    There `return` stood inside the loop over the blocks (github.com/anindyahepth/
    BatchNorm_in_Transformers_CV at 99a16b1).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Run the first block."""
        return self.norm(self.layers[0](x))


class ViT(nn.Module):
    """Vision transformer: images (B, channels, size, size) → logits (B, classes)."""

    pos_embedding: Tensor

    def __init__(
        self,
        image: ImageShape,
        switches: ViTSwitches,
        norm: Norm,
        feed_forward: FeedForward,
        transformer: type[Transformer] = Transformer,
    ) -> None:
        super().__init__()
        s = switches.resolved(image)
        assert s.patch_size is not None
        patches, patch_dim = image.patches(s.patch_size)
        self.pool = s.pool
        self.to_patch_embedding = nn.Sequential(
            Rearrange("b c (h p1) (w p2) -> b (h w) (p1 p2 c)", p1=s.patch_size, p2=s.patch_size),
            norm(patch_dim),
            nn.Linear(patch_dim, s.dim),
            norm(s.dim),
        )
        self.cls_token = nn.Parameter(torch.randn(1, s.dim))
        if s.pos_emb == "learn":
            self.pos_embedding = nn.Parameter(torch.randn(patches + 1, s.dim))
        else:
            self.register_buffer("pos_embedding", sine_positions(patches + 1, s.dim))
        self.dropout = nn.Dropout(s.emb_dropout)
        blocks = [
            Block(
                Attention(s.dim, s.heads, s.dim_head, s.dropout, norm),
                feed_forward(s.dim, s.mlp_dim, s.dropout),
            )
            for _ in range(s.depth)
        ]
        for index, block in enumerate(blocks):  # rising linearly with depth, as in DeiT
            block.drop_path = s.drop_path * index / max(s.depth - 1, 1)
        self.transformer = transformer(blocks, norm(s.dim))
        self.mlp_head = nn.Linear(s.dim, image.classes)

    @property
    def blocks(self) -> list[nn.Module]:
        """The residual blocks, in order of execution."""
        return list(self.transformer.layers)

    def forward(self, images: Tensor) -> Tensor:
        """Classify float images (B, channels, size, size)."""
        x = self.to_patch_embedding(images)  # (B, N, dim)
        cls = repeat(self.cls_token, "one d -> b one d", b=images.shape[0])
        x = torch.cat((cls, x), dim=1)  # (B, 1 + N, dim)
        x = self.transformer(self.dropout(x + self.pos_embedding))
        x = x.mean(dim=1) if self.pool == "mean" else x[:, 0]  # (B, dim)
        return self.mlp_head(x)


def merge_attention(model: nn.Module, merged: bool = True) -> bool:
    """Let the article's models multiply their attention's projections out, where it is less work.

    The logits stay the same but for rounding, unless there is dropout, which draws other masks.
    Models of other families stay as they are. Returns whether any attention is merged now.
    """
    if not isinstance(model, ViT):
        return False
    tokens = model.pos_embedding.shape[0]
    attentions = [module for module in model.modules() if isinstance(module, Attention)]
    for module in attentions:
        module.merge(merged and tokens <= MOST_TOKENS)
    return any(module.is_merged for module in attentions)


@contextmanager
def unmerged(model: nn.Module) -> Iterator[None]:
    """Within this context attention is computed as the model defines it."""
    merged = [m for m in model.modules() if isinstance(m, Attention) and m.is_merged]
    try:
        merge_attention(model, merged=False)
        yield
    finally:
        for module in merged:
            module.merge(True)


def sine_positions(positions: int, dim: int) -> Tensor:
    """Fixed position embedding (positions, dim): [sin | cos] of position · 10000^(-k/half).

    k runs over 1…half with half = dim / 2. Source: the article's `pe1d`.
    """
    half = dim // 2
    k = torch.arange(1, half + 1, dtype=torch.float64)
    omega = torch.exp(-math.log(10_000.0) * k / half)
    angles = torch.arange(positions, dtype=torch.float64)[:, None] * omega
    return torch.cat((angles.sin(), angles.cos()), dim=1).float()
