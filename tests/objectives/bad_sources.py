"""Sources of MNIST that fail or deliver something else."""

from pathlib import Path

from objectives import mnist


def down(_temporary: Path) -> Path:
    raise RuntimeError("the mirrors\nare down")


def garbled(temporary: Path) -> Path:
    for name in mnist.MD5:
        (temporary / name).write_bytes(b"not MNIST")
    return temporary
