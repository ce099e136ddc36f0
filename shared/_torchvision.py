"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Let a CUDA build of torchvision be imported beside a CPU-only torch.

Where pip finds a CPU build of torch, torchvision's wheel (built for CUDA) cannot load its compiled operators,
and its Python part then fails to import: "operator torchvision::nms does not exist" (pytorch/vision issue
9085). Declaring the two operators that it registers fakes for is enough for its data sets, transforms and
models; calling them still fails.
"""

import importlib.util
from pathlib import Path

import torch

_declared: torch.library.Library | None = None  # the declarations live as long as this object


def prepare() -> bool:
    """Make `import torchvision` work; call it before every such import. Repeated calls cost nothing.

    True where torchvision's compiled operators load, False where only its Python part will work.
    Raises `ModuleNotFoundError` where torchvision is not installed.
    """
    global _declared
    if _declared is not None:
        return False
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("torchvision is not installed", name="torchvision")
    for path in sorted(Path(spec.origin).parent.glob("_C*.so")):
        try:
            torch.ops.load_library(str(path))
            return True
        except OSError:  # its CUDA libraries are missing: the case this module is for
            pass
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared = library
    return False
