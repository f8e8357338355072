"""torchvision, and timm which needs it, beside a torch of another build.

torchvision's wheel on the package index is a CUDA build. Beside a CPU-only torch its C++ operators
do not load, and its import fails while it registers `nms`, although data sets, transforms and
timm need none of them. Declaring the two missing schemas first lets the import through.

torch itself is imported only where that is needed: names of models are told without it.
"""

import importlib
import sys
from types import ModuleType

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_kept: list[object] = []  # a library's schemas live as long as the object


def datasets() -> ModuleType:
    """`torchvision.datasets`, imported in whichever way works here."""
    try:
        return importlib.import_module("torchvision.datasets")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(operator + _SCHEMA)
    _kept.append(library)
    return importlib.import_module("torchvision.datasets")


def transforms_v2() -> ModuleType:
    """`torchvision.transforms.v2`."""
    datasets()
    return importlib.import_module("torchvision.transforms.v2")


def timm_module(name: str) -> ModuleType:
    """`timm.NAME`, imported after what it needs of torchvision."""
    datasets()
    return importlib.import_module(f"timm.{name}")
