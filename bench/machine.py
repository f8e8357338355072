"""What the figures were measured on, in words."""

import platform
from pathlib import Path


def processor() -> str:
    """The processor's name, with bf16 matrix units where it says that it has them."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor()
    return f"{name} with AMX" if any(" amx_bf16" in line for line in lines) else name
