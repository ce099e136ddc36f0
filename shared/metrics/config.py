"""Introduced in task 2; used by tasks 2, 3.

What can be configured about measures; free of torch, so that `--help` answers at once.
"""

from typing import Literal

Perceptual = Literal["none", "lpips", "st_lpips"]
Trunk = Literal["alex", "vgg"]
