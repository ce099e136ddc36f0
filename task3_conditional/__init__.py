"""Stage 3: conditional diffusion, told by a class, attributes, a caption or an image what to draw.

from task3_conditional import load
model = load()
images = model.sample(model.told(16, label=4))
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from task3_conditional.model import COMMITTED_TEXT, Model, load

__all__ = ["COMMITTED_TEXT", "Model", "load"]


def __getattr__(name: str) -> Any:
    """`load` and the rest, imported when first asked for: torch takes seconds, and `--help` should not."""
    if name in __all__:
        from task3_conditional import model

        return getattr(model, name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
