"""Where tensors live."""

import torch

from unrolled.core.errors import UsageError

__all__ = ["pick_device"]


def pick_device(name: str = "auto") -> torch.device:
    """``auto`` is a CUDA GPU where there is one, else the CPU. Raises UsageError for an absent device."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {name!r} is not available here; use --device cpu or auto.") from error
    return device
