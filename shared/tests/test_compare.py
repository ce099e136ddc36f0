"""`compare`: runs of known figures, and what the command makes of them."""

import csv
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shared.experiments import compare, comparison
from shared.experiments.axis import BUDGETS
from shared.files import write_whole
from shared.tests.made_evaluations import PROTOCOL, Ended, call, evaluation, make, published

CHANGES = {  # of each field that must match, and the reason that is given; None takes the field away
    "n": (64, "n 64, not 1000"),
    "reference": ("the training images", "reference the training images, not the 10,000 test images"),
    "extractor": ("Inception-v3", "extractor Inception-v3, not a judge"),
    "sampler": ("ddpm", "sampler ddpm, not ddim"),
    "steps": (20, "steps 20, not 50"),
    "guidance": (1.5, "guidance 1.5, not none"),
    "weights": ("model", "weights model, not ema"),
    "data": ("mnist", "data mnist, not digits"),
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """An empty current folder, with its own list of published figures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(comparison, "FILE", published(tmp_path / "papers.yaml"))
    return tmp_path


def table(*arguments: object) -> list[dict[str, str]]:
    """The rows of `compare --format csv`, without the published ones unless asked for."""
    given = [] if "--papers" in arguments else ["--papers", "false"]
    ended = call(*arguments, *given, "--format", "csv")
    assert (ended.status, ended.err) == (0, ""), ended
    return list(csv.DictReader(io.StringIO(ended.out)))


def names(rows: list[dict[str, str]]) -> list[str]:
    """Of rows."""
    return [row["name"] for row in rows]


# Unlike protocols


def check_refused(field: str, value: Any, reason: str) -> None:
    """A run whose evaluation differs in one field has no figure beside those of others, in any format."""
    evaluation(make("base"), 4.0)
    evaluation(make("like"), 4.125)
    evaluation(make("unlike"), 77.125, figures={"judge_confident": 0.777}, **{field: value})
    base, like, unlike = table("base", "like", "unlike")
    assert (base["comparable"], like["comparable"], unlike["comparable"]) == ("reference", "yes", "no")
    assert (base["judge_distance"], like["judge_distance"], unlike["judge_distance"]) == ("4.0", "4.125", "")
    assert unlike["judge_confident"] == "" and unlike["reasons"] == reason and like["reasons"] == ""
    for form in ("terminal", "markdown", "csv"):
        ended = call("base", "like", "unlike", "--format", form)
        assert "77" not in ended.out and reason in ended.out and "4.125" in ended.out


@pytest.mark.parametrize("field", CHANGES)
def test_a_run_of_another_protocol_is_refused_and_says_why(field):
    check_refused(field, *CHANGES[field])


@pytest.mark.parametrize("field", CHANGES)
def test_a_run_that_does_not_state_a_field_is_refused(field):
    check_refused(field, None, f"{field} is not stated")


@pytest.mark.parametrize("field", CHANGES)
def test_the_check_above_would_notice_a_comparison_that_refuses_nothing(field, monkeypatch):
    monkeypatch.setattr(comparison, "differences", lambda *_: [])
    with pytest.raises(AssertionError):
        check_refused(field, *CHANGES[field])


def test_every_reason_is_named_and_a_detail_that_both_state_counts():
    evaluation(make("base"), 4.0)
    evaluation(make("unlike"), 5.0, steps=20, n=None, eta=1.0)
    evaluation(make("silent"), 6.0, eta=None, seed=5)
    ended = call("base", "unlike", "silent")
    assert "not comparable: n is not stated; steps 20, not 50; eta 1, not 0" in ended.out
    assert table("base", "silent")[1]["comparable"] == "yes"


def test_the_protocol_stands_above_the_table_once():
    evaluation(make("base"), 4.0)
    first = call("base").out.splitlines()[0]
    assert first == (
        "Protocol of the reference base: data digits, n 1000, reference the 10,000 test images, extractor a judge, "
        "sampler ddim, steps 50, guidance none, weights ema, eta 0, spacing trailing, clamp yes."
    )


def test_a_reference_that_does_not_state_its_protocol_has_nothing_beside_it():
    evaluation(make("base"), 4.0, n=None)
    evaluation(make("like"), 4.125, n=None)
    ended = call("base", "like")
    assert "the reference does not state n: nothing can stand beside it" in ended.out and "4.125" not in ended.out


def test_a_row_without_the_figure_is_refused():
    evaluation(make("base"), 4.0)
    evaluation(make("other"), 5.0, figures={"fid": 3.0})
    rows = table("base", "other", "--figure", "fid")
    assert [row["reasons"] for row in rows] == ["fid was not measured", ""] and rows[1]["fid"] == "3.0"


# Which evaluations


def test_the_first_named_run_is_the_reference_unless_another_is_given():
    path = evaluation(make("a"), 4.0, steps=20)
    evaluation(make("b"), 5.0)
    assert [row["comparable"] for row in table("a", "b")] == ["reference", "no"]
    assert [row["comparable"] for row in table("b", "a")] == ["reference", "no"]
    for reference in ("b", "runs/task1/b", "runs/task1/b/evaluations/2026-01-01-000000/evaluation.json"):
        assert [row["comparable"] for row in table("a", "b", "--reference", reference)] == ["no", "reference"]
    assert [row["comparable"] for row in table("b", "--reference", path)] == ["no"]


def test_a_run_is_shown_by_the_evaluation_that_matches_best():
    evaluation(make("base"), 4.0)
    run = make("run")
    evaluation(run, 5.0, "2026-01-01", steps=20, n=10)
    evaluation(run, 6.0, "2026-01-02", step=100)
    evaluation(run, 7.0, "2026-01-03")
    evaluation(run, 8.0, "2026-01-04", step=200)  # measured last, but of an earlier checkpoint
    evaluation(run, 9.0, "2026-01-05", steps=20)
    assert table("base", "run")[1]["judge_distance"] == "7.0"
    rows = table("base", "run", "--all", "true")
    assert [row["evaluation"] for row in rows[1:]] == [f"2026-01-0{i}" for i in range(1, 6)]
    assert [row["judge_distance"] for row in rows] == ["4.0", "", "6.0", "7.0", "8.0", ""]


def test_an_evaluation_outside_a_run_is_compared_by_its_file_or_folder():
    evaluation(make("base"), 4.0)
    moved = Path("stage/results/evaluation.json")
    moved.parent.mkdir(parents=True)
    evaluation(Path("elsewhere"), 5.0).rename(moved)
    for name in (moved, moved.parent):
        row = table("base", name)[1]
        assert (row["name"], row["stage"], row["judge_distance"]) == ("stage/results", "task1", "5.0")
    inside = "runs/task1/base/evaluations/2026-01-01-000000/evaluation.json"
    assert names(table("base", inside)) == ["base", "base/2026-01-01-000000"]


def test_runs_of_one_name_are_told_apart_and_a_run_named_twice_is_one():
    evaluation(make("a"), 4.0)
    Path("other/task1").mkdir(parents=True)
    copy = Path("runs/task1/a").rename("other/task1/a")
    evaluation(make("a"), 5.0)
    assert names(table(copy, "runs/task1/a", copy, "a")) == ["other/task1/a", "runs/task1/a"]
    Path("runs/task1/a").rename("runs/task1/b")
    make("c", task="task2").rename("other/task1/b")
    evaluation(Path("other/task1/b"), 5.0)
    assert names(table("b", "other/task1/b")) == ["task1/b", "task2/b"]


def test_without_a_name_all_evaluated_runs_are_compared_and_can_be_filtered():
    evaluation(make("a"), 4.0)
    evaluation(make("b", state="failed"), 5.0)
    evaluation(make("c", task="task2"), 6.0)
    make("not-evaluated")
    assert names(table()) == ["a", "b", "c"]
    assert names(table("--stage", "task1")) == ["a", "b"]
    assert names(table("--state", "failed")) == ["b"]


def test_a_named_run_that_was_not_evaluated_has_a_row_that_says_so():
    evaluation(make("a"), 4.0)
    make("b")
    assert table("b", "a")[0]["reasons"] == "it was not evaluated"
    assert call("b").status == 0 and "it was not evaluated" in call("b").out
    ended = call("b", "--out", "out")
    assert sorted(path.name for path in Path("out").iterdir()) == ["comparison.csv", "comparison.md", "loss.png"]
    assert "not drawn, as nothing has what it takes: figure-against-seconds.png" in ended.out


# The formats


def test_csv_holds_the_very_numbers():
    third = 1 / 3
    evaluation(make('a, and "b"'), third, seconds=0.1 + 0.2, images=123456789, step=7, figures={"fid": 1e-9})
    (row,) = table('a, and "b"')
    assert row["name"] == 'a, and "b"' and row["kind"] == "run"
    assert float(row["judge_distance"]) == third and float(row["fid"]) == 1e-9 and row["images"] == "123456789"
    assert float(row["seconds"]) == 0.1 + 0.2 and row["steps_of_training"] == "7"
    assert {name: row[name] for name in PROTOCOL if name != "seed"} == {
        name: str(value) for name, value in PROTOCOL.items() if name != "seed"
    }


def test_markdown_and_terminal_hold_the_same_cells():
    evaluation(make("a"), 4.0, seconds=275, images=192000)
    evaluation(make("b|c"), 5.0, steps=20)
    lines = [line for line in call("a", "b|c", "--format", "markdown", "--papers", "false").out.splitlines() if line]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[1:]]
    assert cells[0][:4] == ["run", "stage", "judge distance", "confident (≥ 0.9)"]
    settings = ["1000", "ddim", "50", "none", "ema"]
    assert cells[2] == ["a", "task1", "4.000", "50.0%", "4 min 35 s", "192,000", *settings, "reference"]
    assert cells[3][0] == r"b\|c" and cells[3][2:4] == ["—", "—"]
    assert cells[3][-1] == "not comparable: steps 20, not 50"
    terminal = call("a", "b|c", "--papers", "false").out.splitlines()
    assert re.split(r" {2,}", terminal[4]) == cells[2]
    assert re.split(r" {2,}", terminal[5]) == [cell.replace("\\", "") for cell in cells[3]]


def test_figures_are_chosen_by_name_and_the_main_one_is_first():
    evaluation(make("a"), 4.0, figures={"fid": 3.0})
    columns = list(table("a")[0])
    assert columns[4:10:2] == ["judge_distance", "judge_confident", "fid"]
    assert [c for c in table("a", "--figure", "fid,judge-confident")[0] if c in PROTOCOL or "_" in c][:2] == [
        "fid_deviation",
        "judge_confident",
    ]


# Published figures


def test_a_published_figure_stands_beside_ours_only_if_it_is_comparable():
    evaluation(make("a"), 4.0)
    ended = call("a")
    main, apart = ended.out.split("Published, and not to be set beside the above")
    assert "Ours, table 1 (P)" in main and "4.500 ± 0.250" in main and "comparable" in main
    for value, reason in (("4.625", "steps 7, not 50"), ("4.75", "figure is fid, not judge_distance")):
        assert value not in main and value in apart and reason in apart
    assert "4.88" not in ended.out  # another figure of other data: nobody asked
    rows = {row["name"]: row for row in table("a", "--papers", "true") if row["kind"] == "published"}
    same, fewer = rows["Ours, table 1 (P)"], rows["Ours, table 2 (P)"]
    assert (same["judge_distance"], same["judge_distance_deviation"], same["published_value"]) == ("4.5", "0.25", "")
    assert (fewer["judge_distance"], fewer["published_value"], fewer["comparable"]) == ("", "4.625", "no")
    assert fewer["published_figure"] == "judge_distance" and fewer["reasons"] == "steps 7, not 50"


@pytest.mark.parametrize("field", CHANGES)
def test_a_published_figure_is_refused_for_each_field(field):
    evaluation(make("a"), 4.0, **{field: CHANGES[field][0]})
    rows = [row for row in table("a", "--papers", "true") if row["kind"] == "published"]
    assert rows and all(row["comparable"] == "no" and row["judge_distance"] == "" for row in rows)
    assert all(field in row["reasons"] and row["judge_distance_deviation"] == "" for row in rows)


def test_published_figures_are_left_out_or_chosen_by_data():
    evaluation(make("a"), 4.0)
    assert "Ours" not in call("a", "--papers", "false").out
    (row,) = [row for row in table("a", "--papers", "cifar10") if row["kind"] == "published"]
    assert row["published_value"] == "4.875" and "data cifar10, not digits" in row["reasons"]


def test_the_real_list_of_papers_has_nothing_beside_the_judge(monkeypatch):
    monkeypatch.setattr(comparison, "FILE", Path(comparison.__file__).with_name("papers.yaml"))
    evaluation(make("a"), 4.0)
    rows = table("a", "--papers", "cifar10")[1:]
    assert len(rows) > 20 and all(row["comparable"] == "no" for row in rows)


# Against something


def test_rows_are_sorted_by_a_field_of_the_config():
    for name, width in (("a", 128), ("b", 8), ("c", 64)):
        evaluation(make(name, width=width), width / 10)
    evaluation(make("d", width=16), 5.0, steps=20)
    rows = table("a", "b", "c", "d", "--against", "network.width")
    assert [(row["name"], row["network.width"]) for row in rows] == [("b", "8"), ("d", "16"), ("c", "64"), ("a", "128")]
    assert [row["judge_distance"] for row in rows] == ["0.8", "", "6.4", "12.8"]  # the axis frees nothing else


def test_a_field_of_the_protocol_on_the_axis_may_differ_and_nothing_else():
    run = make("a")
    for i, steps in enumerate((50, 10, 250)):
        evaluation(run, 1000 / steps, f"2026-01-0{i}", steps=steps)
    evaluation(run, 99.0, "2025-12-01", steps=20, step=100)  # of an earlier checkpoint
    evaluation(run, 98.0, "2025-12-02", steps=10)  # measured again since
    evaluation(make("b"), 97.0, steps=20, n=10)
    rows = table("a", "b", "--against", "steps", "--papers", "true")
    shown = [(row["name"], row["steps"], row["judge_distance"]) for row in rows if row["comparable"] != "no"]
    assert shown == [
        ("Ours, table 2 (P)", "7", "4.625"),
        ("a", "10", "100.0"),
        ("a", "50", "20.0"),
        ("Ours, table 1 (P)", "50", "4.5"),
        ("a", "250", "4.0"),
    ]
    assert {row["name"]: row["reasons"] for row in rows}["b"] == "n 10, not 1000"
    assert "steps may differ" in call("a", "--against", "steps").out.splitlines()[0]


@pytest.mark.parametrize(("axis", "column"), [("seconds", "seconds"), ("images", "images"),
                                               ("steps-of-training", "steps_of_training")])  # fmt: skip
def test_what_a_training_cost_is_what_the_evaluation_says(axis, column):
    run = make("a")  # its record says 999 seconds, and its last line of figures 2331
    for i in (3, 1, 2):
        evaluation(run, float(i), f"2026-01-0{i}", step=i, images=i * 10, seconds=i * 1.5)
    rows = table("a", "--against", axis)
    assert [row["judge_distance"] for row in rows] == ["1.0", "2.0", "3.0"]
    assert [float(row[column]) for row in rows] == {
        "seconds": [1.5, 3, 4.5], "images": [10, 20, 30], "steps_of_training": [1, 2, 3]
    }[column]  # fmt: skip


def test_times_of_unlike_machines_are_told():
    evaluation(make("a", gpu="a GPU"), 4.0)
    evaluation(make("b"), 5.0)
    assert (
        "Note: the training times are of unlike machines: a CPU, a GPU." in call("a", "b", "--against", "seconds").out
    )
    assert "unlike machines" not in call("b", "--against", "seconds").out


def test_what_is_not_stated_is_not_on_the_axis():
    evaluation(make("a"), 4.0)
    evaluation(make("b"), 5.0, seconds=None)
    evaluation(Path("outside"), 6.0)
    outside = "outside/evaluations/2026-01-01-000000/evaluation.json"
    rows = table("b", "a", "--against", "seconds")
    assert [(row["name"], row["reasons"]) for row in rows] == [("a", ""), ("b", "seconds is not stated")]
    assert table("a", outside, "--against", "network.width")[1]["reasons"] == "network.width is not stated"


# Seeds


def test_runs_that_differ_in_the_seed_alone_are_one_row():
    for seed, distance in ((0, 4.0), (1, 5.0), (2, 6.0)):
        evaluation(make(f"s{seed}", seed=seed), distance, seconds=10.0 * seed)
    evaluation(make("again", seed=2), 60.0)
    evaluation(make("wide", seed=3, width=64), 70.0)
    evaluation(make("few", seed=4), 80.0, steps=20)
    evaluation(make("few-too", seed=5), 90.0, steps=20)
    ended = call("--group", "true", "--format", "csv", "--papers", "false", *"s0 s1 s2 again wide few few-too".split())
    group, wide, few, _ = csv.DictReader(io.StringIO(ended.out))
    assert (group["name"], group["seeds"], group["comparable"]) == ("s0, s1, s2", "3", "reference")
    assert float(group["judge_distance"]) == 5.0 and float(group["judge_distance_deviation"]) == 1.0  # by hand
    assert float(group["seconds"]) == 10.0
    assert (wide["name"], wide["seeds"], wide["judge_distance_deviation"]) == ("wide", "1", "")
    assert (few["name"], few["judge_distance"], few["reasons"]) == ("few", "", "steps 20, not 50")
    text = call("--group", "true", *"s0 s1 s2 again".split()).out
    assert "5.000 ± 1.000" in text and "Note: again is left out of the mean: it has the seed of s2." in text


def test_checkpoints_of_several_seeds_are_a_row_for_each_step():
    for seed in (0, 1):
        run = make(f"s{seed}", seed=seed)
        for step in (100, 200):
            evaluation(run, step + seed * 2.0, f"2026-01-{step}", step=step, seconds=step + seed * 10.0)
    rows = table("--group", "true", "--against", "seconds")
    assert [(row["name"], float(row["seconds"]), float(row["judge_distance"])) for row in rows] == [
        ("s0, s1", 105.0, 101.0),
        ("s0, s1", 205.0, 201.0),
    ]


# What is wrong


def one_line(ended: Ended, *parts: str) -> None:
    """The command ended in one line of error that has these parts."""
    assert (ended.status, ended.out, ended.err.count("\n")) == (1, "", 1), ended
    assert all(part in ended.err for part in parts), ended.err


def test_mistakes_in_the_command_are_one_line():
    one_line(call(), "nothing to compare")
    one_line(call("none"), "there is no run none")
    path = evaluation(make("a"), 4.0)
    one_line(call("a", "--against", "network.widht"), "there is no network.widht", "network.width")
    one_line(call("a", "--against", "width"), "did you mean network.width?")
    one_line(call("a", "--figure", "judge_distanse"), "judge_distanse; did you mean judge_distance?")
    one_line(call("a", "--papers", "cifar-10"), "no figures of cifar-10; did you mean cifar10?")
    one_line(call("a", "--reference", "b"), "there is no run b")
    make("b")
    one_line(call("a", "--reference", "b"), "b was not evaluated")
    one_line(call("a", "--state", "failed"), "nothing to compare")
    ended = call("a", "--out", path)
    assert ended.status == 1 and ended.err.startswith("compare: error: cannot read or write") and "4.000" in ended.out


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"protocol": {}}', '{"figures": {}}', "\udcff", "[" * 10**5]
)
def test_a_damaged_evaluation_is_named_and_hides_no_other(content):
    evaluation(make("a"), 4.0)
    evaluation(make("b"), 5.0, "2026-01-01")
    bad = evaluation(Path("runs/task1/b"), 6.0, "2026-01-02")
    bad.write_text(content, errors="surrogateescape")
    only = evaluation(make("c"), 7.0)
    only.write_text(content, errors="surrogateescape")
    for arguments in ((), ("a", "b", only)):
        ended = call(*arguments, "--format", "csv", "--papers", "false")
        rows = list(csv.DictReader(io.StringIO(ended.out)))
        assert [row["judge_distance"] for row in rows] == ["4.0", "5.0"]
        assert ended.status == 0 and sorted(str(p) in ended.err for p in (bad, only)) == [True, True]
        assert ended.err.count("\n") == 2
    assert call("c").status == 0 and str(only) in call("c").err


@pytest.mark.parametrize("file", ["record.json", "config.yaml", "metrics.jsonl"])
def test_a_damaged_file_of_a_run_is_named_and_hides_no_other(file):
    evaluation(make("a"), 4.0)
    evaluation(make("b"), 5.0)
    Path("runs/task1/b", file).write_bytes(b"\xff{\n[\n")
    ended = call("a", "b", "--out", "out", "--group", "true", "--against", "network.width")
    assert ended.status == 0 and ended.err.count("\n") == 1 and file in ended.err, ended
    assert Path("out/loss.png").stat().st_size > 1000


def test_what_a_folder_of_somebody_else_holds_reaches_no_terminal():
    evaluation(make("a"), 4.0)
    evil = {"data": "\x1b[2J\n<b>", "figures": {"judge_distance": 5.0, "\x1b]0;x\x07": 1.0}}
    evaluation(make("b"), 5.0, **evil)
    evaluation(make("c"), 5.0, **evil)
    for arguments in (["a", "b"], ["b", "c", "--out", "out"], ["b", "--format", "markdown"], ["b", "--format", "csv"]):
        ended = call(*arguments)
        assert ended.status == 0 and not re.search(r"[\x00-\x09\x0b-\x1f]", ended.out + ended.err)
    assert "<b>" not in Path("out/comparison.md").read_text()


def test_the_figure_of_a_refused_row_is_not_given_out():
    assert comparison.Row("a", figures={"fid": 3.0}).value("fid") == 3.0
    assert comparison.Row("a", figures={"fid": 3.0}, reasons=("n 1, not 2",)).value("fid") is None


# What is written, and at what cost


def test_a_folder_gets_tables_and_pictures_and_no_part_of_one(monkeypatch):
    evaluation(make("a"), 4.0)
    evaluation(make("b"), 77.125, weights="model")
    written = []
    watched = lambda path, write: (written.append(path.name), write_whole(path, write))  # noqa: E731
    monkeypatch.setattr("shared.files.write_whole", watched)
    monkeypatch.setattr("shared.experiments.plots.write_whole", watched)
    ended = call("a", "b", "--against", "network.width", "--out", "some/folder", "--log", "both")
    files = {"comparison.md", "comparison.csv", "loss.png", *(
        f"figure-against-{axis}.png" for axis in ("network.width", "seconds", "images"))}  # fmt: skip
    assert {path.name for path in Path("some/folder").iterdir()} == files == set(written)
    assert ended.status == 0 and "written into some/folder" in ended.out
    assert "not drawn against network.width, seconds, images: b (weights model, not ema)" in ended.out
    document = Path("some/folder/comparison.md").read_text()
    assert "Made by `compare a b --against network.width" in document and "![loss](loss.png)" in document
    assert all(f"]({name})" in document for name in files if name.endswith("png"))
    assert "77" not in document + Path("some/folder/comparison.csv").read_text()
    assert list(csv.reader(Path("some/folder/comparison.csv").open()))[1][1] == "a"
    assert all(path.stat().st_size < 150_000 for path in Path("some/folder").iterdir())


def test_csv_on_the_screen_is_clean_while_a_folder_is_written():
    evaluation(make("a"), 4.0)
    ended = call("a", "--format", "csv", "--out", "out")
    assert ended.out == Path("out/comparison.csv").read_text() and "written into out" in ended.err


def test_a_table_takes_neither_torch_nor_matplotlib():
    evaluation(make("a"), 4.0)
    code = (
        "import sys; sys.argv = ['compare', *{}]\n"
        "from shared.experiments.compare import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "assert not {{'torch', 'matplotlib', 'pandas', 'numpy'}} & set(sys.modules)"
    )
    for arguments in (["--help"], ["a", "--group", "true", "--against", "images"]):
        environment = {**os.environ, "PYTHONPATH": str(Path(compare.__file__).parents[2])}
        subprocess.run([sys.executable, "-c", code.format(arguments)], check=True, env=environment, capture_output=True)


def test_each_name_of_a_cost_is_a_field_of_a_row():
    assert set(BUDGETS.values()) <= set(comparison.Row.__dataclass_fields__)
