"""Introduced in task 3; used by task 3.

All emoji with their names in English and Chinese, from the PyPI package `emoji`.

Its English names are those of Unicode's emoji-test.txt, its Chinese ones those of Unicode's CLDR (annotations of type
"tts"). It writes them as `:waving_hand_light_skin_tone:`, and leaves "flag: " out, which is put back: "Norway" is no
name of a flag.
"""

import re
from typing import NamedTuple

from shared.errors import UserError

SKIN_TONE = re.compile(r" (?:medium-)?(?:light|medium|dark) skin tone")
SAID_WITH_TONES = " person person"  # "kiss" is so named where its two persons have a tone each


class Emoji(NamedTuple):
    """One emoji of Unicode's list."""

    code: str  # its characters
    en: str
    zh: str

    @property
    def file_name(self) -> str:
        """Without an ending: "1f44b-1f3fb" is a waving hand with a light skin tone."""
        return "-".join(f"{ord(character):x}" for character in self.code)

    @property
    def group(self) -> str:
        """The English name without skin tones: the same for all skin tones of one emoji."""
        return SKIN_TONE.sub("", self.en).removesuffix(SAID_WITH_TONES)


def all_emoji() -> list[Emoji]:
    """Every emoji that Unicode recommends for use, sorted by its characters.

    Raises:
        UserError: the package is not installed.
    """
    try:
        import emoji
    except ImportError:
        raise UserError("the names of emoji need the extra text: pip install -e '.[text]'") from None
    emoji.config.load_language(["en", "zh"])
    wanted = emoji.STATUS["fully_qualified"]  # the others are parts, and other spellings of these
    known = sorted((code, about) for code, about in emoji.EMOJI_DATA.items() if about["status"] == wanted)
    return [named(code, about["en"], about["zh"]) for code, about in known]


def named(code: str, en: str, zh: str) -> Emoji:
    """An emoji with the package's names made readable."""
    en, zh = (name.strip(":").replace("_", " ") for name in (en, zh))
    return Emoji(code, f"flag: {en}", f"旗: {zh}") if is_flag(code) else Emoji(code, en, zh)


def is_flag(code: str) -> bool:
    """Whether an emoji is the flag of a country (two regional indicators) or of a part of one (a flag and tags)."""
    return all(0x1F1E6 <= ord(c) <= 0x1F1FF for c in code) or any(0xE0020 <= ord(c) <= 0xE007F for c in code)
