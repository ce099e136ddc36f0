"""The published figures: against figures typed from the papers once more, and a malformed file in one line."""

import re
from collections import Counter
from dataclasses import FrozenInstanceError

import pytest
import yaml

from shared.errors import UserError
from shared.experiments.figures import FIGURES
from shared.experiments.papers import FILE, papers
from shared.experiments.protocol import FINER, REQUIRED

ROWS = papers()


def find(paper: str, figure: str = "fid", **facts):
    """The rows of a paper with these facts, of the row or of its protocol."""
    return [
        row
        for row in ROWS
        if (row.paper, row.figure) == (paper, figure)
        and all(row.protocol.get(k, getattr(row, k, None)) == v for k, v in facts.items())
    ]


def test_every_table_has_as_many_figures_as_in_the_paper():
    assert Counter((row.paper, row.table) for row in ROWS) == {
        ("DDIM", "table 1"): 2 * 5 * 5,
        ("DDIM", "table 2"): 7,
        ("DDPM", "table 1"): 4 + 3,  # IS, FID against train, FID against test, NLL; L has none against test
        ("DDPM", "table 2"): 4,
        ("Improved DDPM", "table 2"): 2 * 2,
        ("EDM", "README"): 2,
        ("LDM", "table 10"): 3 + 1,
        ("LDM", "README, autoencoders"): 4 * 2,
        ("LDM", "README, latent diffusion"): 2,
        ("Classifier-free guidance", "table 1"): 5 * 2,
        ("Guided diffusion", "README"): 4,
        ("DiT", "table 4"): 4 * 3,
        ("DiT", "conditioning"): 4,
        ("DiT", "table 2"): 3,
        ("VDM", "joint training"): 3,
        ("VDM", "longer videos"): 2,
        ("VDM", "BAIR"): 1,
        ("DiffFlow", "table 2"): 5,
        ("smalldiffusion", "README"): 2,
        ("SimpleDiffusion", "README of LatentDiffusion"): 1,
    }


@pytest.mark.parametrize(
    ("paper", "figure", "facts", "value"),
    [
        ("DDIM", "fid", {"data": "cifar10", "eta": 0.0, "steps": 10}, 13.36),
        ("DDIM", "fid", {"data": "cifar10", "eta": 0.2, "steps": 50}, 4.77),
        ("DDIM", "fid", {"data": "cifar10", "eta": 0.5, "steps": 1000}, 4.29),
        ("DDIM", "fid", {"data": "cifar10", "eta": 1.0, "steps": 20}, 18.36),
        ("DDIM", "fid", {"data": "cifar10", "model": "sigma-hat", "steps": 100}, 9.99),
        ("DDIM", "fid", {"data": "celeba-64", "eta": 0.0, "steps": 1000}, 3.51),
        ("DDIM", "fid", {"data": "celeba-64", "eta": 0.2, "steps": 20}, 14.11),
        ("DDIM", "fid", {"data": "celeba-64", "eta": 0.5, "steps": 100}, 8.09),
        ("DDIM", "fid", {"data": "celeba-64", "eta": 1.0, "steps": 50}, 18.48),
        ("DDIM", "fid", {"data": "celeba-64", "model": "sigma-hat", "steps": 10}, 299.71),
        ("DDIM", "reconstruction_mse", {"steps": 20}, 0.0065),
        ("DDIM", "reconstruction_mse", {"steps": 200}, 0.0004),
        ("DDPM", "fid", {"table": "table 1", "reference": "the 10,000 CIFAR-10 test images"}, 5.24),
        ("DDPM", "fid", {"table": "table 1", "model": "L"}, 13.51),
        ("DDPM", "inception_score", {"model": "L"}, 7.67),
        ("DDPM", "bits_per_dim", {"model": "L"}, 3.70),
        ("DDPM", "fid", {"table": "table 2", "model": "mu-tilde, L, learned diagonal Sigma"}, 23.69),
        ("DDPM", "fid", {"table": "table 2", "model": "mu-tilde, L, fixed isotropic Sigma"}, 13.22),
        ("Improved DDPM", "fid", {"model": "cosine, L_hybrid", "steps": 4000}, 3.19),
        ("Improved DDPM", "bits_per_dim", {"model": "cosine, L_vlb"}, 2.94),
        ("EDM", "fid", {"guidance": "none", "steps": 18}, 1.97),
        ("EDM", "fid", {"model": "class-conditional"}, 1.79),
        ("LDM", "fid", {"guidance": 1}, 10.56),
        ("LDM", "fid", {"guidance": 1.25}, 3.95),
        ("LDM", "inception_score", {"guidance": 1.5}, 247.67),
        ("LDM", "rfid", {"model": "VQ-f8"}, 1.14),
        ("LDM", "psnr", {"model": "KL-f8"}, 24.19),
        ("LDM", "fid", {"data": "ffhq-256"}, 4.98),
        ("Classifier-free guidance", "fid", {"guidance": 1.1}, 1.55),  # the paper's w = 0.1
        ("Classifier-free guidance", "fid", {"guidance": 5}, 26.22),  # w = 4
        ("Classifier-free guidance", "inception_score", {"guidance": 2}, 170.1),  # w = 1
        ("Guided diffusion", "fid", {"data": "imagenet-128"}, 2.97),
        ("Guided diffusion", "fid", {"data": "imagenet-512"}, 7.72),
        ("DiT", "fid", {"model": "S/2"}, 68.40),
        ("DiT", "fid", {"model": "B/4"}, 68.38),
        ("DiT", "fid", {"model": "L/8"}, 118.87),
        ("DiT", "fid", {"model": "XL/4"}, 43.01),
        ("DiT", "fid", {"model": "XL/2, cross-attention"}, 26.14),
        ("DiT", "fid", {"table": "table 2", "guidance": 1.25}, 3.22),
        ("VDM", "fvd", {"model": "4 image frames"}, 68.11),
        ("VDM", "fvd", {"model": "replacement"}, 451.45),
        ("VDM", "fvd", {"data": "bair"}, 66.92),
        ("DiffFlow", "bits_per_dim", {"model": "FFJORD", "data": "mnist"}, 0.99),
        ("DiffFlow", "bits_per_dim", {"model": "RealNVP"}, 1.06),
        ("SimpleDiffusion", "fid", {"n": 5000}, 9.88),
    ],
)
def test_figures_typed_once_more(paper, figure, facts, value):
    (row,) = find(paper, figure, **facts)
    assert row.value == value


def test_sums_over_whole_tables():
    """A figure mistyped anywhere in the large tables shows here: the sums were taken apart from the file."""

    def total(**facts):
        return round(sum(row.value for row in find(**facts)), 2)

    lines = [total(paper="DDIM", data="cifar10", eta=eta) for eta in (0, 0.2, 0.5, 1)]
    assert lines == [33.07, 34.26, 39.01, 77.95]
    lines = [total(paper="DDIM", data="celeba-64", eta=eta) for eta in (0, 0.2, 0.5, 1)]
    assert lines == [50.27, 51.71, 59.30, 97.54]
    assert total(paper="DDIM", model="sigma-hat", data="cifar10") == 546.68
    assert total(paper="DDIM", model="sigma-hat", data="celeba-64") == 603.71
    assert total(paper="DiT", table="table 4") == 913.73
    assert total(paper="Classifier-free guidance") == 45.20


def test_deviations_and_bounds_are_kept():
    (score,) = find("DDPM", "inception_score", model="L_simple")
    assert (score.value, score.deviation, score.bound) == (9.46, 0.11, None)
    (bits,) = find("DDPM", "bits_per_dim", model="L_simple")
    assert (bits.value, bits.deviation, bits.bound) == (3.75, None, "≤")
    (fashion,) = find("smalldiffusion", data="fashion_mnist")
    assert (fashion.value - fashion.deviation, fashion.value + fashion.deviation) == (5, 6)
    assert {row.paper for row in ROWS if row.bound} == {"DDPM"}


def test_a_figure_of_two_tables_is_the_same_in_both():
    assert {row.value for row in find("DDPM", model="L_simple", reference="the 50,000 CIFAR-10 training images")} == {
        row.value for row in find("DDPM", model="eps, L_simple, fixed isotropic Sigma")
    }
    (a,), (b,) = find("DiT", table="table 4", model="XL/2"), find("DiT", model="XL/2, adaLN-Zero")
    assert a.value == b.value


@pytest.mark.parametrize("data", ["cifar10", "celeba-64"])
def test_ddims_fid_falls_with_more_steps_and_rises_with_eta(data):
    grid = [[r.value for r in find("DDIM", data=data, eta=eta)] for eta in (0.0, 0.2, 0.5, 1.0)]
    for line in [*grid, [row.value for row in find("DDIM", data=data, model="sigma-hat")]]:
        assert len(line) == 5 and line == sorted(line, reverse=True)
    for column in zip(*grid, strict=True):
        assert list(column) == sorted(column)


def test_orderings_that_the_papers_report():
    errors = [row.value for row in find("DDIM", "reconstruction_mse")]
    assert errors == sorted(errors, reverse=True)
    for size in ("S", "B", "L", "XL"):
        line = [find("DiT", table="table 4", model=f"{size}/{patch}")[0].value for patch in (8, 4, 2)]
        assert line == sorted(line, reverse=True)
    conditioning = [row.value for row in ROWS if row.table == "conditioning"]
    assert conditioning == sorted(conditioning, reverse=True)
    scores = [row.value for row in find("Classifier-free guidance", "inception_score")]
    assert scores == sorted(scores)  # guidance buys fidelity


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.label)
def test_every_row_is_whole(row):
    assert row.figure in FIGURES
    assert row.read in ("P", "R", "S")
    assert row.paper and row.table and row.authors
    assert row.value > 0 and (row.deviation or 1) > 0
    assert set(row.protocol) <= set(REQUIRED + FINER) and "data" in row.protocol
    assert None not in row.protocol.values()
    assert set(row.protocol_read) == set(row.protocol)
    assert set(row.protocol_read.values()) <= set("PRSK")
    assert row.arxiv is None or re.fullmatch(r"\d{4}\.\d{5}", row.arxiv)
    assert row.arxiv or row.repository
    assert row.label.endswith(f", {row.table} ({row.read})")


def test_no_figure_stands_there_twice():
    rows = Counter((row.paper, row.table, row.figure, row.model, str(row.protocol)) for row in ROWS)
    assert set(rows.values()) == {1}


def test_labels():
    assert find("DDIM", eta=0.2)[0].label == "DDIM, table 1 (P)"
    assert find("DiT", model="XL/8")[0].label == "DiT XL/8, table 4 (P)"
    assert find("DiffFlow", "bits_per_dim", model="DiffFlow")[0].label == "DiffFlow, table 2 (P)"


def test_rows_by_data_and_figure():
    assert len(papers(data="celeba-64")) == 25
    assert {row.paper for row in papers(figure="psnr")} == {"LDM"}
    assert len(papers(data="cifar10", figure="reconstruction_mse")) == 7
    assert papers(data="no such data") == []


def test_a_row_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        ROWS[0].value = 0.0


def test_what_an_unstated_column_takes_out_of_the_protocol_is_not_there():
    """All levels are visited at 1,000 steps, where spacing says nothing."""
    row = find("DDIM", data="cifar10", eta=0.0, steps=1000)[0]
    assert "spacing" not in row.protocol and "spacing" not in row.protocol_read
    assert find("DDIM", data="cifar10", eta=0.0, steps=100)[0].protocol_read["spacing"] == "K"
    assert row.protocol_read["steps"] == row.protocol_read["eta"] == "P"


# ------------------------------------------------------------------------------------------------ malformed files

SMALL = """
read: {P: in the paper}
papers:
  A: {authors: Somebody, year: 2020}
tables:
  - paper: A
    table: table 1
    figure: fid
    read: P
    protocol: {P: {data: cifar10, n: 1000}}
    across: {steps: [10, 20]}
    down: eta
    values:
      0.0: [2, 1.5]
      1.0: ["3 ± 0.5", ≤ 0.00001]
"""


def written(tmp_path, text: str):
    """A file with this text."""
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_of_ones_own(tmp_path):
    rows = papers(written(tmp_path, SMALL))
    assert [(row.protocol["eta"], row.protocol["steps"], row.value) for row in rows] == [
        (0.0, 10, 2),
        (0.0, 20, 1.5),
        (1.0, 10, 3),
        (1.0, 20, 1e-5),
    ]
    assert [(row.deviation, row.bound) for row in rows] == [(None, None), (None, None), (0.5, None), (None, "≤")]
    assert (rows[0].arxiv, rows[0].repository, rows[0].model, rows[0].note) == (None, None, None, None)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("read: {P: in the paper}", "", "read is missing"),
        ("papers:", "paper:", "unknown field paper"),
        ("tables:", "tables: x\nrest:", "unknown field rest"),
        ("{authors: Somebody, year: 2020}", "{year: 2020}", "paper A: authors is missing"),
        ("{authors: Somebody, year: 2020}", "Somebody", "paper A"),
        ("year: 2020", "year: soon", "paper A: year is 'soon'"),
        ("year: 2020", "year: true", "paper A: year is True"),
        ("year: 2020", "yaer: 2020", "paper A: unknown field yaer"),
        ("  - paper: A", "  - paper: B", "entry 1 (B, table 1): papers does not list B"),
        ("    table: table 1", "    table: 1", "entry 1: table is 1"),
        ("    table: table 1", "    tabel: table 1", "entry 1: unknown field tabel"),
        ("    figure: fid", "", "entry 1 (A, table 1): figure is None"),
        ("    figure: fid", "    figure: fidd", "entry 1 (A, table 1): figure is fidd"),
        ("    figure: fid", "    figure: 3", "entry 1: figure is 3"),
        ("    read: P", "    read: K", "entry 1 (A, table 1): read is K"),
        ("    read: P", "", "entry 1: read is missing"),
        ("{P: {data: cifar10, n: 1000}}", "", "entry 1: protocol is missing"),
        ("{P: {data: cifar10, n: 1000}}", "{data: cifar10}", "entry 1 (A, table 1): protocol holds data"),
        ("{P: {data: cifar10, n: 1000}}", "{Q: {n: 1}}", "entry 1 (A, table 1): protocol holds Q"),
        ("{P: {data: cifar10, n: 1000}}", "{P: {n: 1}, K: {n: 1}}", "protocol field n stands there twice"),
        ("n: 1000", "seed: 0", "entry 1 (A, table 1): protocol field seed is not known"),
        ("n: 1000", "n: true", "entry 1 (A, table 1): n is True"),
        ("n: 1000", "n: [1000]", "entry 1 (A, table 1): n is [1000]"),
        ("n: 1000", "n: .nan", "entry 1 (A, table 1): n is nan"),
        ("n: 1000", "weights: best", "weights is 'best'"),
        ("n: 1000", "clamp: 1", "clamp is 1"),
        ("n: 1000", "sampler: 3", "sampler is 3"),
        ("data: cifar10", "data: 10", "data is 10"),
        ("{steps: [10, 20]}", "{steps: [10, 20, 50]}", "eta 0.0: values must be a list of 3"),
        ("{steps: [10, 20]}", "{steps: [10, 20], n: [1]}", "lists of one length"),
        ("{steps: [10, 20]}", "{steps: 10}", "lists of one length"),
        ("{steps: [10, 20]}", "{steps: []}", "lists of one length"),
        ("{steps: [10, 20]}", "[10, 20]", "across is [10, 20]"),
        ("{steps: [10, 20]}", "{colour: [10, 20]}", "colour names neither"),
        ("{steps: [10, 20]}", "{figure: [[fid], fid]}", "figure is ['fid']"),
        ("{steps: [10, 20]}", "{model: [1, 2]}", "model is 1"),
        ("{steps: [10, 20]}", "", "entry 1 (A, table 1): the value [2, 1.5]"),
        ("    down: eta", "", "values must be a list of 2"),
        ("    down: eta", "    down: colour", "colour names neither"),
        ("      0.0: [2, 1.5]", "      0.0: 2", "eta 0.0: values must be a list of 2"),
        ("[2, 1.5]", "[2, two]", "the value 'two'"),
        ("[2, 1.5]", "[2, true]", "the value True"),
        ("[2, 1.5]", "[2, .inf]", "the value inf"),
        ("[2, 1.5]", "[2, ]", "eta 0.0: values must be a list of 2"),
        ("[2, 1.5]", "[2, null]", "the value None"),
        ("3 ± 0.5", "3 ± ", "the value '3 ± '"),
        ("3 ± 0.5", "≥ 3", "the value '≥ 3'"),
        ("    values:", "    values: 3\n    note:", "entry 1: note is"),
        ("tables:", "tables: !!python/object/apply:os.getcwd []\nrest:", "not valid YAML"),
    ],
)
def test_a_malformed_file_is_one_line_that_names_the_entry(tmp_path, old, new, words):
    assert SMALL.count(old) == 1 or old in ("read: P", "    read: P", "tables:", "papers:")
    path = written(tmp_path, SMALL.replace(old, new, 1))
    with pytest.raises(UserError, match=re.escape(words)) as error:
        papers(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "3", "read: {}", "read: {}\npapers: {}\ntables: [3]", "a: [", "\x00"])
def test_what_is_no_such_file_is_one_line(tmp_path, text):
    with pytest.raises(UserError):
        papers(written(tmp_path, text))


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        papers(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("entry", range(len(yaml.safe_load(FILE.read_text(encoding="utf-8"))["tables"])))
def test_an_unknown_field_is_found_in_any_entry(tmp_path, entry):
    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    content["tables"][entry]["colour"] = "red"
    with pytest.raises(UserError, match=f"entry {entry + 1}: unknown field colour"):
        papers(written(tmp_path, yaml.safe_dump(content)))


def test_the_file_explains_its_letters():
    assert set(yaml.safe_load(FILE.read_text(encoding="utf-8"))["read"]) == set("PRSK")
