"""The article's training and evaluation, from its description: what its times are times of.

DataLoader over torchvision's MNIST with Resize and ToTensor, BatchNorm between two transposes,
matmul-softmax-matmul attention, Adam, `.item()` at every step, evaluation of 5,000 images at a time
that records for gradients – with all six blocks, or with as many as are asked for: its BatchNorm
models ran one, as `return` stood inside the loop over the blocks.
"""

from collections.abc import Iterator

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from models.torchvision_import import datasets
from objectives.images import Split

TEST_BATCH_SIZE = 5_000
DIM, HEADS, DIM_HEAD, HIDDEN, BLOCKS, PATCH, PATCHES, CLASSES = 64, 8, 64, 128, 6, 7, 16, 10


class TransposedBatchNorm(nn.BatchNorm1d):
    """BatchNorm of (B, N, C) as (B, C, N)."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name for it
        """Normalise `input` (B, N, C)."""
        return super().forward(input.transpose(1, 2)).transpose(1, 2)


class Attention(nn.Module):
    """Pre-normalised attention in three steps: (B, N, DIM) → (B, N, DIM)."""

    def __init__(self, norm: type[nn.Module]) -> None:
        super().__init__()
        self.norm = norm(DIM)
        self.to_qkv = nn.Linear(DIM, 3 * HEADS * DIM_HEAD, bias=False)
        self.to_out = nn.Linear(HEADS * DIM_HEAD, DIM)

    def forward(self, x: Tensor) -> Tensor:
        """Attend over the tokens of `x` (B, N, DIM)."""
        parts = self.to_qkv(self.norm(x)).chunk(3, dim=-1)
        q, k, v = (rearrange(part, "b n (h d) -> b h n d", h=HEADS) for part in parts)
        shares = (torch.matmul(q, k.transpose(-1, -2)) * DIM_HEAD**-0.5).softmax(dim=-1)
        return self.to_out(rearrange(torch.matmul(shares, v), "b h n d -> b n (h d)"))


class ArticleViT(nn.Module):
    """Images (B, 1, 28, 28) → logits (B, 10), by the model called `name`.

    All blocks are built, as in the article; the first `blocks_run` of them run.
    """

    def __init__(self, name: str, blocks_run: int = BLOCKS) -> None:
        super().__init__()
        self.blocks_run = blocks_run
        norm = TransposedBatchNorm if name == "vitbn" else nn.LayerNorm
        self.first_norm = norm(PATCH**2)
        self.to_tokens = nn.Linear(PATCH**2, DIM)
        self.token_norm = norm(DIM)
        self.cls_token = nn.Parameter(torch.randn(1, 1, DIM))
        self.positions = nn.Parameter(torch.randn(1, PATCHES + 1, DIM))
        branches = [each for _ in range(BLOCKS) for each in (Attention(norm), _feed_forward(name))]
        self.branches = nn.ModuleList(branches)
        self.last_norm = norm(DIM)
        self.head = nn.Linear(DIM, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Classify `images`."""
        x = rearrange(images, "b c (h p) (w q) -> b (h w) (p q c)", p=PATCH, q=PATCH)
        x = self.token_norm(self.to_tokens(self.first_norm(x)))
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), dim=1) + self.positions
        for branch in self.branches[: 2 * self.blocks_run]:
            x = branch(x) + x
        return self.head(self.last_norm(x)[:, 0])


def training(
    model: nn.Module, split: Split, batch_size: int, lr: float, device: torch.device
) -> Iterator[float]:
    """Train `model`, which is on `device`, endlessly, yielding each step's loss."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    while True:
        for images, labels in _loader(split, batch_size, shuffle=True):
            loss = F.cross_entropy(model(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield loss.item()


def evaluation(model: nn.Module, split: Split, device: torch.device) -> float:
    """Accuracy on `split`, a share in [0, 1]."""
    model.eval()
    right = 0
    for images, labels in _loader(split, TEST_BATCH_SIZE, shuffle=False):
        logits = model(images.to(device))
        right += (logits.argmax(dim=1) == labels.to(device)).sum().item()
    return right / len(split)


def _feed_forward(name: str) -> nn.Sequential:
    if name == "vit":
        first = [nn.LayerNorm(DIM), nn.Linear(DIM, HIDDEN)]
    else:
        first = [nn.Linear(DIM, HIDDEN), TransposedBatchNorm(HIDDEN)]
    return nn.Sequential(*first, nn.GELU(), nn.Linear(HIDDEN, DIM))


def _loader(split: Split, batch_size: int, shuffle: bool) -> "DataLoader[tuple[Tensor, int]]":
    found = datasets()  # which makes torchvision importable
    from torchvision import transforms

    size = split.images.shape[-1]
    mnist = found.MNIST.__new__(found.MNIST)  # of images that are read already
    mnist.data, mnist.targets = split.images[:, 0], split.labels
    mnist.transform = transforms.Compose([transforms.Resize((size, size)), transforms.ToTensor()])
    mnist.target_transform = None
    return DataLoader(mnist, batch_size, shuffle=shuffle)
