"""Introduced in task 3; used by tasks 3, 4, 5.

What can be wrong with captions, each in one line, and how they are shown in it. Nothing is ever cut off silently.
"""

from collections.abc import Sequence

from shared.errors import UserError

SHOWN = 60  # characters of a caption in a message


def quoted(caption: str) -> str:
    """A caption in a message: between quotes, and not at length."""
    return f'"{caption if len(caption) <= SHOWN else caption[: SHOWN - 1] + "…"}"'


def check_captions(captions: Sequence[str]) -> None:
    """Raise UserError unless each caption is text that says something."""
    for n, caption in enumerate(captions, 1):
        which = "the caption" if len(captions) == 1 else f"caption {n} of {len(captions)}"
        if not isinstance(caption, str):
            raise UserError(f"{which} is {type(caption).__name__}: captions are text")
        if not caption.strip():
            raise UserError(f"{which} is empty: say in words what is to be seen")
        try:
            caption.encode()
        except UnicodeEncodeError:  # half a character, from a command line or file in another encoding
            raise UserError(f"{which} is not valid text: write it in UTF-8") from None


def check_length(caption: str, tokens: int, length: int, limit: int | None = None, name: str = "") -> None:
    """Raise UserError if a caption of so many tokens is longer than the config, or the encoder `name`, takes."""
    if limit is not None and tokens > limit:
        raise UserError(f"the caption {quoted(caption)} has {tokens} tokens, and {name} takes {limit}: shorten it")
    if tokens > length:
        raise UserError(
            f"the caption {quoted(caption)} has {tokens} tokens, and text.length is {length}: shorten it, or train "
            "with a greater text.length"
        )
