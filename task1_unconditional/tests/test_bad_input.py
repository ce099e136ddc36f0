"""Each mistake ends in one line that names it, with no traceback and nothing half-written."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from shared.errors import UserError
from shared.tests.test_checkpoint import NO_CHECKPOINTS
from shared.training.checkpoint import read_facts, read_tensors, write_checkpoint
from task1_unconditional.config import model_config
from task1_unconditional.model import load
from task1_unconditional.tests.commands import OWN, TINY, do_evaluate, do_sample, do_train, record

USAGE, MISTAKE = 2, 1


def names(folder: Path) -> set[str]:
    """Everything in a folder and below."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# --- options of training ------------------------------------------------------------------------------------

OPTIONS = [
    # usage
    (["--train.stps", "3"], USAGE, "train.stps"),
    (["--train.step", "3"], USAGE, "train.step"),
    (["--traim.steps", "3"], USAGE, "traim.steps"),
    (["three"], USAGE, "three"),
    (["--train.steps", "many"], USAGE, "train.steps", "many"),
    (["--train.steps", "2.5"], USAGE, "train.steps", "2.5"),
    (["--train.steps", "0"], USAGE, "train.steps", "0"),
    (["--train.batch", "-1"], USAGE, "train.batch", "-1"),
    (["--train.accumulate", "0"], USAGE, "train.accumulate"),
    (["--train.keep", "0"], USAGE, "train.keep"),
    (["--train.log-every", "-1"], USAGE, "train.log_every"),
    (["--train.workers", "-1"], USAGE, "train.workers"),
    (["--train.clip", "-1"], USAGE, "train.clip"),
    (["--train.seed", "99999999999999999999"], USAGE, "train.seed"),
    (["--train.precision", "fp16"], USAGE, "train.precision", "fp16", "bf16"),
    (["--train.compile", "perhaps"], USAGE, "train.compile", "perhaps"),
    (["--optimizer.name", "adamm"], USAGE, "optimizer.name", "adamm", "adamw"),
    (["--optimizer.schedule", "cosin"], USAGE, "optimizer.schedule", "cosin", "cosine"),
    (["--optimizer.lr", "-1"], USAGE, "optimizer.lr"),
    (["--optimizer.lr", "nan"], USAGE, "optimizer.lr"),
    (["--optimizer.lr", "1e39"], USAGE, "optimizer.lr"),
    (["--optimizer.betas", "[0.9,1]"], USAGE, "optimizer.betas"),
    (["--optimizer.betas", "[0.9]"], USAGE, "optimizer.betas"),
    (["--optimizer.step-size", "0"], USAGE, "optimizer.step_size"),
    (["--optimizer.milestones", "[3,x]"], USAGE, "optimizer.milestones", "x"),
    (["--averages.ema", "1.5"], USAGE, "averages.ema"),
    (["--averages.swa-every", "0"], USAGE, "averages.swa_every"),
    (["--data.name", "digit"], USAGE, "data.name", "digit", "digits"),
    (["--schedule.name", "cos"], USAGE, "schedule.name", "cos"),
    (["--own-network", "5"], USAGE, "own_network"),
    (["--config", "gone.yaml"], USAGE, "gone.yaml"),
    (["--resume", "a", "--init-from", "b"], USAGE, "--resume", "--init-from"),
    # what does not fit together, or is not there
    (["--network.patch", "8"], MISTAKE, "28×28", "multiples of 8", "network.patch"),
    (
        ["--network.multipliers", "[1,2,3,4]", "--network.attention", "[none,none,none,none]"],
        MISTAKE,
        "multiples of 16",
    ),
    (["--network.attention", "[none,full]"], MISTAKE, "network.attention", "network.multipliers"),
    (["--network.heads", "3", "--network.middle-attention", "full"], MISTAKE, "8 channels", "3 attention heads"),
    (["--network.width", "7"], MISTAKE, "7 features are not even"),
    (["--network.dropout", "2"], USAGE, "network.dropout", "2"),
    (["--sampling.steps", "5000"], MISTAKE, "5000 sampling steps", "T = 1000"),
    (["--sampling.steps", "0"], USAGE, "sampling.steps", "0"),
    (["--sampling.eta", "2"], USAGE, "sampling.eta", "2"),
    (["--schedule.T", "0"], USAGE, "schedule.T"),
    (["--schedule.T", str(2**70)], USAGE, "schedule.T"),
    (["--schedule.name", "linear", "--schedule.beta-end", "3"], MISTAKE, "beta"),
    (["--diffusion.predict", "eps", "--schedule.zero-terminal-snr", "true"], MISTAKE, "diffusion.predict is eps"),
    (["--bound.variance", "learned"], MISTAKE, "L_simple teaches no variance", "hybrid or vlb"),
    (["--bound.objective", "hybrid"], MISTAKE, "bound.variance learned"),
    (["--bound.objective", "hybrid", "--bound.variance", "large"], MISTAKE, "bound.variance learned"),
    (["--bound.objective", "vlb", "--diffusion.times", "uniform"], MISTAKE, "diffusion.times must be levels"),
    (["--bound.loss-aware", "--diffusion.times", "logit_normal"], MISTAKE, "diffusion.times must be levels"),
    (["--bound.variance", "medium"], USAGE, "bound.variance", "medium"),
    (["--bound.share", "0"], USAGE, "bound.share"),
    (["--data.name", "folder"], MISTAKE, "--data.root"),
    (["--data.name", "folder", "--data.root", "gone"], MISTAKE, "gone does not exist"),
    (["--data.name", "mnist", "--data.root", "gone"], MISTAKE, "gone", "--data.download true"),
    (["--data.size", "20"], MISTAKE, "--data.size must be at least 28"),
    (["--data.channels", "3"], MISTAKE, "--data.channels"),
    (["--own-network", '{"class_path": "gone.Net"}'], MISTAKE, "cannot build gone.Net"),
    (["--own-network", '{"init_args": {}}'], MISTAKE, "cannot build a class without class_path"),
    (["--resume", "gone"], MISTAKE, "gone/config.yaml"),
    (["--init-from", "gone"], MISTAKE, "gone"),
    (["--run.name", "a/b"], MISTAKE, "run.name is a/b"),
]


@pytest.mark.parametrize("case", OPTIONS, ids=lambda case: " ".join(case[0]))
def test_an_option_of_training(case, here):
    options, status, *parts = case
    assert do_train(*TINY, "--train.steps", 2, *options).says(status, "task1-train: error: ", *parts)
    assert names(here) == set()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("command", [do_train, do_sample, do_evaluate])
def test_a_gpu_that_is_not_there(command, trained, here):
    options = [*TINY, "--train.device", "cuda"] if command is do_train else ["--run", trained, "--device", "cuda"]
    assert command(*options).says(1, "torch sees no GPU")
    assert names(here) == set()


YAML = {
    "unknown key": ("train: {stps: 3}", "stps"),
    "unknown section": ("traim: {steps: 3}", "traim"),
    "wrong type": ("train: {steps: many}", "train.steps"),
    "out of range": ("train: {steps: -1}", "train.steps"),
    "not YAML": ("train: {steps: 3", "config"),
    "a tag": ("train: !!python/object/apply:pathlib.Path.touch [executed]", "config"),
    "a binary file": ("\x00\x01\x02", "config"),
}


@pytest.mark.parametrize("name", YAML)
def test_a_config_file(name, here):
    content, part = YAML[name]
    Path("c.yaml").write_text(content)
    assert do_train(*TINY, "--train.steps", 2, "--config", "c.yaml").says(USAGE, part)
    assert names(here) == {"c.yaml"}


def empty(folder: Path) -> str:
    return "no images in"


def text_files(folder: Path) -> str:
    (folder / "a.txt").write_text("hello")
    (folder / "b.md").write_text("hello")
    return "no images in"


def text_named_as_image(folder: Path) -> str:
    (folder / "a.png").write_text("hello")
    return "a.png cannot be read as an image"


def one_broken_image(folder: Path) -> str:
    Image.effect_noise((32, 32), 50).save(folder / "a.png")
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:300])
    return "b.png cannot be read as an image"


def mixed_sizes(folder: Path) -> str:
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    Image.new("L", (16, 8)).save(folder / "b.png")
    return "b.png 16×8"


def too_odd(folder: Path) -> str:
    Image.new("RGB", (9, 9)).save(folder / "a.png")
    return "images of 9×9"


@pytest.mark.parametrize("make", [empty, text_files, text_named_as_image, one_broken_image, mixed_sizes, too_odd])
def test_a_folder_of_images(make, here):
    (here / "pictures").mkdir()
    part = make(here / "pictures")
    before = names(here)
    assert do_train(*TINY, "--data.name", "folder", "--data.root", "pictures").says(MISTAKE, part)
    assert names(here) == before


# --- data and networks of one's own -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name", "arguments", "parts"),
    [
        ("data", "Shades", {"size": 6, "low": 0.0}, ["range [-1, 1]"]),
        ("data", "Shades", {"size": 6, "colour": "red"}, ["Shades", "colour"]),
        ("data", "Shades", {"size": "six"}, ["Shades", "size", "six"]),
        ("data", "Shades", {}, ["Shades", "size"]),
        ("data", "Scale", {"channels": 1}, ["Scale", "Dataset"]),
        ("data", "Gone", {}, ["Gone"]),
        ("network", "Scale", {"start": "one"}, ["Scale", "start", "one"]),
        ("network", "Shades", {"size": 3}, ["Shades", "Module"]),
    ],
)
def test_own_classes(kind, name, arguments, parts, own, here):
    spec = json.dumps({"class_path": f"{own}.{name}", "init_args": arguments})
    assert do_train(*TINY, f"--own-{kind}", spec).says(MISTAKE, *parts)
    assert not (here / "runs").exists()


LEARNED = ["--bound.variance", "learned", "--bound.objective", "hybrid"]


def test_an_own_network_is_told_how_many_channels_to_make(own, here):
    """Of a learned variance twice as many: one that makes what it was told to is trained and sampled from."""
    with open(f"{own}.py", "a") as file:
        file.write(WIDE)
    spec = json.dumps({"class_path": f"{own}.Wide"})
    do_train(*TINY, "--own-network", spec, *LEARNED, "--run.name", "wide").well()
    drawn = ["--trust", "--n", 1, "--sampler", "ddpm_learned", "--steps", 2]
    do_sample("--run", "runs/task1/wide", *drawn).well()


WIDE = '''

class Wide(Scale):
    """As many channels as it is told to make."""

    def __init__(self, channels: int, out_channels: int):
        super().__init__(channels)
        self.times = out_channels // channels

    def forward(self, x, t, cond):
        return super().forward(x, t, cond).repeat(1, self.times, 1, 1)
'''


@pytest.mark.parametrize("options", [LEARNED, []], ids=["one for two", "three for one"])
def test_an_own_network_with_other_channels(options, own, here):
    with open(f"{own}.py", "a") as file:
        file.write(WIDE.replace("out_channels // channels", "3").replace("Wide", "Three"))
    spec = json.dumps({"class_path": f"{own}.{'Scale' if options else 'Three'}"})
    assert do_train(*TINY, "--own-network", spec, *options).says(MISTAKE, "channels")
    assert not (here / "runs").exists()


def test_own_data_that_breaks_down_later(own, here):
    """NaN in one image of 200: the run ends and says when; nothing broken was saved."""
    spec = json.dumps({"class_path": f"{own}.Shades", "init_args": {"size": 6, "broken": 3}})
    rest = [
        "--train.steps",
        60,
        "--train.save-every",
        1,
        "--train.workers",
        0,
        "--run.name",
        "own",
        "--train.log-every",
        7,
    ]
    ended = do_train(*TINY, "--own-data", spec, *rest)
    assert ended.status == 1 and "task1-train: error: the loss or its gradient was not finite at step" in ended.err
    run = Path("runs/task1/own")
    assert record(run)["state"] == "failed"
    assert record(run)["reason"].startswith("the loss or its gradient was not finite at step")
    for path in (run / "checkpoints").iterdir():
        assert all(v.isfinite().all() for v in read_tensors(path, "model").values())


# --- training that cannot go on -----------------------------------------------------------------------------


def last_line(text: str) -> str:
    """Of what was printed."""
    return text.splitlines()[-1]


def test_a_learning_rate_far_too_high(here):
    ended = do_train(*TINY, "--train.steps", 9, "--optimizer.lr", "1e30", "--run.name", "wild", "--train.log-every", 1)
    assert ended.status == 1 and "Traceback" not in ended.err
    assert last_line(ended.err).startswith("task1-train: error: the loss or its gradient was not finite at step 2")
    assert record(Path("runs/task1/wild"))["state"] == "failed"


def test_a_disk_that_fills_up(here, monkeypatch):
    """At the second checkpoint; the first stays, and can be gone on with."""
    from shared.training import checkpoint

    plain, saves = checkpoint.save, []

    def full(*arguments, **options):
        saves.append(1)
        if len(saves) == 2:
            raise OSError(28, "No space left on device", "step-00000004.safetensors")
        return plain(*arguments, **options)

    monkeypatch.setattr(checkpoint, "save", full)
    ended = do_train(*TINY, "--train.steps", 6, "--train.save-every", 2, "--run.name", "full")
    assert ended.status == 1 and "Traceback" not in ended.err
    expected = "task1-train: error: cannot read or write step-00000004.safetensors: No space left on device"
    assert last_line(ended.err) == expected
    run = Path("runs/task1/full")
    assert record(run)["state"] == "failed"
    assert record(run)["reason"] == "[Errno 28] No space left on device: 'step-00000004.safetensors'"
    assert [p.name for p in (run / "checkpoints").iterdir()] == ["step-00000002.safetensors"]
    assert do_train("--resume", run).status == 0
    assert record(run)["state"] == "finished"


def test_a_disk_on_which_nothing_more_can_be_noted(here, monkeypatch):
    """The first error is reported, not that of the attempt to write it down."""
    from shared.experiments.run import RunRecord
    from shared.training import checkpoint

    def full(*_, **__):
        raise OSError(28, "No space left on device", "the checkpoint")

    def no_note(self, state, reason):
        raise OSError(28, "No space left on device", "the note")

    monkeypatch.setattr(checkpoint, "save", full)
    monkeypatch.setattr(RunRecord, "close", no_note)
    assert last_line(do_train(*TINY, "--train.steps", 1).err).endswith("the checkpoint: No space left on device")


@pytest.mark.parametrize("command", ["train", "sample", "evaluate"])
def test_a_folder_that_cannot_be_written(command, trained, here):
    """A file is where the folder should be: that stops root too."""
    Path("out").write_text("a file")
    ended = {
        "train": lambda: do_train(*TINY, "--run.folder", "out"),
        "sample": lambda: do_sample("--run", trained, "--n", 1, "--out", "out"),
        "evaluate": lambda: do_evaluate("--run", trained, "--n", 2, "--out", "out"),
    }[command]()
    assert ended.status == 1 and last_line(ended.err).startswith(f"task1-{command}: error: cannot read or write out")
    assert names(here) == {"out"} and Path("out").read_text() == "a file"


# --- runs and checkpoints that are none ---------------------------------------------------------------------


@pytest.mark.parametrize("make", [make for make in NO_CHECKPOINTS if make.__name__ != "folder"])
@pytest.mark.parametrize("use", ["sample", "init"])
def test_a_file_that_is_no_checkpoint(make, use, tmp_path, here):
    path = tmp_path / "given.safetensors"
    make(path)
    ended = do_sample("--run", path) if use == "sample" else do_train(*TINY, "--init-from", path)
    assert ended.says(1, "given.safetensors is not a checkpoint of this project")
    assert not {"samples", "runs", "executed"} & names(here)


def test_a_folder_that_is_no_run(here):
    (here / "empty").mkdir()
    assert do_sample("--run", "empty").says(1, "there is no checkpoint in empty/checkpoints")
    assert do_evaluate("--run", "empty").says(1, "there is no checkpoint in empty/checkpoints")
    assert do_train("--init-from", "empty").says(1, "there is no checkpoint in empty/checkpoints")
    assert do_train("--resume", "empty").says(1, "cannot read empty/config.yaml")
    assert names(here) == {"empty"}


def test_no_run_at_all(here):
    assert do_sample("--run", "latest").says(1, "there is no run in runs/task1: train one first")
    assert do_sample("--run", "gone").says(1, "there is no file gone")
    assert names(here) == set()


@pytest.fixture
def copied(trained, here) -> Path:
    """The run, to be changed."""
    return Path(shutil.copytree(trained, here / "run"))


def test_a_run_that_was_stopped_before_its_first_checkpoint(copied):
    shutil.rmtree(copied / "checkpoints")
    assert do_train("--resume", copied).says(1, "there is no checkpoint in", "nothing was saved")
    assert do_sample("--run", copied).says(1, "there is no checkpoint in")


def test_a_run_whose_checkpoint_is_damaged(copied):
    path = copied / "checkpoints" / "step-00000008.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    before = {p: p.read_bytes() for p in copied.rglob("*") if p.is_file()}
    for ended in (do_train("--resume", copied, "--train.steps", 9), do_sample("--run", copied)):
        assert ended.says(1, "step-00000008.safetensors is not a checkpoint of this project, or is damaged")
    assert {p: p.read_bytes() for p in copied.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: 1", "this is not a config of stage 1"),
        ("train: 3", "this is not a config of stage 1"),
        ("- a", "does not hold names and values"),
        ("shape: !!python/object/apply:pathlib.Path.touch [executed]", "is not valid YAML"),
        ("train: {stps: 4}", "this is not a config of stage 1: .*stps"),
    ],
)
def test_a_run_whose_config_is_none(content, message, copied):
    (copied / "config.yaml").write_text(content)
    ended = do_train("--resume", copied)
    assert ended.says(1)
    with pytest.raises(UserError, match=message):
        raise UserError(ended.err)
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--train.batch", "5"], ["train.batch 4, not 5"]),
        (["--train.seed", "5"], ["train.seed 0, not 5"]),
        (["--optimizer.lr", "0.5"], ["optimizer.lr 0.01, not 0.5"]),
        (["--network.width", "16"], ["network.width 8, not 16"]),
        (["--diffusion.predict", "x0"], ["diffusion.predict v, not x0"]),
        (["--averages.ema", "0.5"], ["averages.ema 0.9, not 0.5"]),
        (["--train.accumulate", "2"], ["train.accumulate 1, not 2"]),
        (["--data.split", "test"], ["data.split train, not test"]),
    ],
)
def test_a_resumed_run_with_another_config(options, parts, copied):
    before = {p: p.read_bytes() for p in copied.rglob("*") if p.is_file()}
    ended = do_train("--resume", copied, *options)
    assert ended.says(1, "the checkpoint was made with", *parts, "--init-from")
    assert {p: p.read_bytes() for p in copied.rglob("*") if p.is_file()} == before


def test_init_from_another_network(trained, here):
    ended = do_train(*TINY, "--network.width", "16", "--init-from", trained)
    assert ended.says(1, "of another network", "is (8,) there and (16,) here")
    assert names(here) == set()


def test_a_run_name_that_is_taken(here):
    assert do_train(*TINY, "--run.name", "one").status == 0
    before = {p: p.read_bytes() for p in here.rglob("*") if p.is_file()}
    assert do_train(*TINY, "--run.name", "one").says(1, "runs/task1/one exists", "--resume")
    assert {p: p.read_bytes() for p in here.rglob("*") if p.is_file()} == before


def test_weights_that_are_not_there(trained, here):
    """SWA that was never asked for, or had not begun: its tensors are the random ones of the start."""
    assert do_train(*TINY, "--run.name", "none").status == 0
    assert do_sample("--run", "runs/task1/none", "--weights", "swa").says(1, "holds no swa weights")
    late = [*TINY, "--averages.swa-start", 5, "--run.name", "late"]
    assert do_train(*late).status == 0
    assert do_sample("--run", "runs/task1/late", "--weights", "swa").says(1, "averages.swa_start was not reached")
    assert not Path("samples").exists()


# --- options of sampling and measuring ----------------------------------------------------------------------


@pytest.mark.parametrize("command", [do_sample, do_evaluate])
@pytest.mark.parametrize(
    ("options", "status", "parts"),
    [
        (["--steps", "1001"], 1, ["1001 sampling steps", "T = 1000"]),
        (["--steps", "0"], 1, ["0 sampling steps"]),
        (["--eta", "1.5"], 1, ["eta is 1.5"]),
        (["--sampler", "dimm"], 2, ["sampler", "dimm", "ddim"]),
        (["--spacing", "even"], 2, ["spacing", "even", "trailing"]),
        (["--weights", "raw"], 2, ["weights", "raw", "model"]),
        (["--n", "0"], 2, ["n", "0"]),
        (["--n", "few"], 2, ["n", "few"]),
        (["--seed", "-1"], 2, ["seed"]),
        (["--stepz", "3"], 2, ["stepz"]),
    ],
)
def test_an_option_of_sampling(command, options, status, parts, trained, here):
    assert command("--run", trained, "--out", "o", *options).says(status, *parts)
    assert names(here) == set()


def test_an_image_is_enlarged_by_whole_numbers(trained, here):
    assert do_sample("--run", trained, "--upscale", "0").says(2, "upscale")
    assert names(here) == set()


def test_the_judge_needs_two_images(trained, here):
    assert do_evaluate("--run", trained, "--n", 1).says(1, "at least 2 images")


def test_the_judge_takes_digits_only(own, here, monkeypatch):
    """It says so at once, not after the samples were drawn."""
    spec = json.dumps({"class_path": f"{own}.Shades", "init_args": {"size": 6}})
    assert (
        do_train(*TINY, "--own-data", spec, "--train.steps", 1, "--train.workers", 0, "--run.name", "grey").status == 0
    )
    monkeypatch.setattr("task1_unconditional.model.Model.sample", lambda *_, **__: pytest.fail("sampled for nothing"))
    assert do_evaluate("--run", "runs/task1/grey").says(1, "the judge takes digits of shape", "(1, 1, 6, 6)")


# --- files from strangers -----------------------------------------------------------------------------------


def test_a_strangers_checkpoint_runs_no_code_unless_trusted(trained, here, monkeypatch):
    """Neither by a network of its own, nor by a dotted path in a place where none belongs."""
    monkeypatch.syspath_prepend(here)
    (here / "trap.py").write_text(f"open('executed', 'w')\n{OWN}")
    source = trained / "checkpoints" / "step-00000008.safetensors"
    facts, tensors = read_facts(source), {f"ema.{k}": v for k, v in read_tensors(source, "ema").items()}
    own = {"class_path": "trap.Scale", "init_args": {}}
    sections = [name for name in facts["config"] if isinstance(facts["config"][name], dict)]
    assert len(sections) >= 8
    places = [
        ("own_network", own),
        ("own_data", own),
        *((name, trap) for name in sections for trap in (own, "trap.Scale")),
    ]
    for name, trap in places:
        write_checkpoint(here / "x.safetensors", tensors, {"config": {**facts["config"], name: trap}})
        ended = do_sample("--run", "x.safetensors", "--n", 1, "--out", "o")
        if name != "own_data":  # of which sampling has no need
            assert ended.says(1)
        assert do_train("--init-from", "x.safetensors").says(1)
        assert not Path("executed").exists(), name


@pytest.mark.parametrize(
    "config",
    [{}, {"shape": [1, 28, 28], "more": 1}, {"shape": "abc"}, {"shape": None}, [], "words", None, {"train": 3}],
)
def test_a_strangers_config(config, trained, here):
    source = trained / "checkpoints" / "step-00000008.safetensors"
    tensors = {f"ema.{k}": v for k, v in read_tensors(source, "ema").items()}
    write_checkpoint(here / "x.safetensors", tensors, {"config": config})
    assert do_sample("--run", "x.safetensors").says(1, "this is not a config of stage 1")
    assert do_train("--init-from", "x.safetensors").says(1, "this is not a config of stage 1")
    with pytest.raises(UserError):
        model_config(config)


def test_weights_of_a_stranger_that_do_not_fit(trained, here):
    source = trained / "checkpoints" / "step-00000008.safetensors"
    write_checkpoint(here / "x.safetensors", {"ema.weight": torch.zeros(2)}, {"config": read_facts(source)["config"]})
    assert do_sample("--run", "x.safetensors").says(1, "of another network")
    with pytest.raises(UserError, match="of another network"):
        load(here / "x.safetensors")


def test_a_foreign_safetensors_file_with_the_right_names(trained, here):
    save_file(read_tensors(trained / "checkpoints" / "step-00000008.safetensors", "ema"), here / "x.safetensors")
    assert do_sample("--run", "x.safetensors").says(1, "is not a checkpoint of this project")
