"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

In which number format a network computes.
"""

import contextlib
from typing import Literal

import torch

Precision = Literal["fp32", "bf16"]


def resolve(asked: str, device: torch.device) -> Precision:
    """What "auto" means here: bf16 where the processor multiplies it in hardware, as emulated it is slower."""
    if asked in ("fp32", "bf16"):
        return asked
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    able = torch.cpu.get_capabilities()
    return "bf16" if any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")) else "fp32"


def computing_in(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager:
    """A `with` block in which matrix products and convolutions use a format; what loses by it stays float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
