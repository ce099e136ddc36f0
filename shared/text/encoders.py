"""Introduced in task 3; used by tasks 3, 4, 5.

Frozen text encoders: the text part of a Hugging Face checkpoint.

Weights are read here, from safetensors, and put into the library's network. Its own loading would also follow what lies
in the folder to adapters, kernels and pickles, and where names do not fit it leaves random weights with a warning.
"""

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor, nn

from shared.errors import UserError
from shared.text.source import PARTS, WEIGHTS, found, library, part_names, quiet

Pool = Callable[[Any, Tensor], Tensor]  # (the network's output, mask (B, N)) -> (B, width)


def mean(output: Any, mask: Tensor) -> Tensor:
    """The mean over the tokens: how sentence encoders such as MiniLM were trained (Reimers 2019)."""
    shares = mask / mask.sum(dim=1, keepdim=True)  # (B, N)
    return (output.last_hidden_state * shares[..., None]).sum(dim=1)


def end(output: Any, mask: Tensor) -> Tensor:
    """The token that ends the text: in CLIP, where a token sees only those before it, it alone sees all."""
    return output.pooler_output


def first(output: Any, mask: Tensor) -> Tensor:
    """The first token: what Chinese CLIP projects beside the image."""
    return output.last_hidden_state[:, 0]


TOWERS: dict[str, tuple[str, Pool]] = {  # text parts of models of text and image, and how each sums a text up
    "clip_text_model": ("CLIPTextModel", end),
    "chinese_clip_text_model": ("ChineseCLIPTextModel", first),
}


class Encoder(NamedTuple):
    """A text encoder as it was loaded."""

    model: nn.Module
    tokenizer: Any
    pool: Pool
    limit: int  # tokens


def load_encoder(name: str) -> Encoder:
    """The encoder that a config names, in evaluation, float32, on the CPU. Torch's generator is left as it is.

    Raises:
        UserError: it is not there, no text encoder, pickled, or damaged.
    """
    transformers = library()
    folder = found(name)
    try:
        with quiet():
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            model, pool = build_model(transformers, config, folder)
    except UserError:
        raise
    except Exception as error:  # whatever the library trips over in a folder that holds something else
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{folder} cannot be read as a text encoder ({reason}): choose another text.encoder") from None
    return Encoder(model.eval().requires_grad_(False), tokenizer, pool, most_tokens(model, tokenizer))


def build_model(transformers: Any, config: Any, folder: Path) -> tuple[nn.Module, Pool]:
    """The network of a folder's settings with its weights, without any part for images; and how it sums a text up."""
    if hasattr(config, "vision_config"):
        config = getattr(config, "text_config", config)
    kind, pool = class_of(transformers, config, folder)
    options = {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(kind).parameters else {}
    model, report = kind.from_pretrained(
        None,
        config=config,
        state_dict=read_weights(folder),
        attn_implementation="eager",  # settings may ask for others, to be fetched
        dtype=torch.float32,
        output_loading_info=True,
        **options,
    )
    if lacking := report["missing_keys"] or report["mismatched_keys"]:
        raise UserError(f"{folder} lacks weights of a {kind.__name__} ({len(lacking)}, such as {min(lacking)})")
    return model, pool


def class_of(transformers: Any, config: Any, folder: Path) -> tuple[type[nn.Module], Pool]:
    """The library's class for a text encoder with these settings. Raises UserError if they are of something else."""
    if config.model_type in TOWERS:
        name, pool = TOWERS[config.model_type]
        return getattr(transformers, name), pool
    for known in (transformers.MODEL_FOR_TEXT_ENCODING_MAPPING, transformers.MODEL_MAPPING):
        if type(config) in known:
            kind = known[type(config)]
            whole = config.is_encoder_decoder and known is transformers.MODEL_MAPPING
            if isinstance(kind, type) and kind.main_input_name == "input_ids" and not whole:
                return kind, mean
    raise UserError(
        f"{folder} holds a {config.model_type}, which is no text encoder that is known here: choose another"
    )


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder; of a model of text and image, those of the text alone."""
    if not (folder / WEIGHTS).exists() and not (folder / PARTS).exists():
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        what = f"pickled weights ({pickled[0]}), which are never read" if pickled else "no weights"
        raise UserError(f"{folder} holds {what}: choose a text encoder with a {WEIGHTS}")
    state = {}
    for name in [WEIGHTS] if (folder / WEIGHTS).exists() else part_names(folder):
        with safe_open(folder / name, framework="pt") as file:
            towers = any(key.startswith("vision_model.") for key in file.keys())
            for key in file.keys():
                if not towers or key.startswith("text_model."):
                    state[key.removeprefix("text_model.")] = file.get_tensor(key)
    return state


def most_tokens(model: nn.Module, tokenizer: Any) -> int:
    """Tokens of a text that an encoder takes; some leave the first positions to padding (RoBERTa)."""
    padding = getattr(getattr(model, "embeddings", None), "padding_idx", None)
    positions = getattr(model.config, "max_position_embeddings", None) or sys.maxsize
    return min(tokenizer.model_max_length, positions - (0 if padding is None else padding + 1))
