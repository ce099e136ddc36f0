"""Stage 1: unconditional diffusion, from noise to images and nothing else.

from task1_unconditional import load
images = load().sample(16, sampler="dpm_solver_pp", steps=20)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from task1_unconditional.model import Model, load

__all__ = ["Model", "load"]


def __getattr__(name: str) -> Any:
    """`load` and `Model`, imported when first asked for: torch takes seconds, and `--help` should not."""
    if name in __all__:
        from task1_unconditional import model

        return getattr(model, name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
