"""What something ran on, in words."""

import os
import platform
from functools import cache
from pathlib import Path

import torch


@cache
def processor() -> str:
    """The processor's name, with bf16 matrix units where it says that it has them."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name} with AMX" if any(" amx_bf16" in line for line in lines) else name


def device_label(device: torch.device) -> str:
    """The device with its product name, for people."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({processor()})"


def cuda_index(device: torch.device) -> int:
    """The number of a CUDA device, which "cuda" alone leaves to the current one."""
    return torch.cuda.current_device() if device.index is None else device.index


def has_mps() -> bool:
    """Whether NVIDIA's Multi-Process Service runs: without it processes take turns on a GPU."""
    folder = os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps")
    return (Path(folder) / "control").exists()


def memory_bytes(device: torch.device) -> int:
    """Memory of `device`: this process's share of the GPU's, or the machine's."""
    if device.type == "cuda":
        index = cuda_index(device)  # the fraction is not told of a device without a number
        share = torch.cuda.get_per_process_memory_fraction(index)
        return int(torch.cuda.get_device_properties(index).total_memory * share)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
