"""torchvision without its compiled operators, where they do not fit the torch at hand; reading data needs none."""

import sys

import torch


def use() -> None:
    """Make `import torchvision` work; nothing is done where it does."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        use.library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            use.library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
