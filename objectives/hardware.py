"""What something ran on, in words."""

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
