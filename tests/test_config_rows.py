"""Every row of the supplements has its config, its numbers and its line in configs/README.md."""

import re

import pytest
from bench import ROOT, call, error_of, succeed

from motion_jax import list_models
from motion_jax.cli import read_config
from motion_jax.configs import motionsqueeze_supplement, selfy_supplement
from motion_jax.experiment import Experiment
from motion_jax.models import build_model
from motion_jax.tools import rows as tool

README = ROOT / "configs" / "README.md"
SUPPLEMENTS = {"MotionSqueeze": motionsqueeze_supplement, "SELFY": selfy_supplement}
TSM_R18 = {"top1": "43.0", "top5": "72.3"}

# Supplement, table, row -> all its numbers, copied from the pages by hand.
PRINTED = {
    ("MotionSqueeze", "Table 1", "TSM-R50"): {"gflops": "33.1", "top1": "46.7"},
    ("MotionSqueeze", "Table 1", "MSNet-R50, 1x(1,1)"): {"gflops": "33.4", "top1": "49.3"},
    ("MotionSqueeze", "Table 1", "MSNet-R50, 1x(3,3)"): {"gflops": "33.5", "top1": "49.8"},
    ("MotionSqueeze", "Table 1", "MSNet-R50, 4x(3,3)"): {"gflops": "35.8", "top1": "50.4"},
    ("MotionSqueeze", "Table 1", "MSNet-R50, ours"): {"gflops": "33.7", "top1": "50.9"},
    ("MotionSqueeze", "Table 2", "baseline"): {"gflops": "14.6", "top1": "41.5", "top5": "71.8"},
    ("MotionSqueeze", "Table 2", "CP module"): {"gflops": "20.4", "top1": "44.9", "top5": "75.6"},
    ("MotionSqueeze", "Table 2", "MS module"): {"gflops": "15.0", "top1": "45.8", "top5": "76.4"},
    ("SELFY", "Table 2", "TSM, 16 frames"): {"gflops": "65", "views": "30", "top1": "74.7"},
    ("SELFY", "Table 2", "MSNet-TSM, 16 frames"): {"gflops": "67", "views": "10", "top1": "76.4"},
    ("SELFY", "Table 2", "SELFYNet-TSM, 16 frames"): {"gflops": "77", "views": "30", "top1": "77.1"},
    ("SELFY", "Table 3a", "TSM-R18"): {"gflops": "14.6", **TSM_R18},
    ("SELFY", "Table 3a", "5x5"): {"gflops": "17.1", "top1": "47.8", "top5": "77.1"},
    ("SELFY", "Table 3a", "9x9"): {"gflops": "17.3", "top1": "48.4", "top5": "77.6"},
    ("SELFY", "Table 3a", "13x13"): {"gflops": "18.4", "top1": "48.4", "top5": "77.8"},
    ("SELFY", "Table 3a", "17x17"): {"gflops": "19.8", "top1": "48.6", "top5": "78.3"},
    ("SELFY", "Table 3b", "TSM-R18"): TSM_R18,
    ("SELFY", "Table 3b", "pool1"): {"top1": "45.7", "top5": "77.6"},
    ("SELFY", "Table 3b", "res2"): {"top1": "47.2", "top5": "76.6"},
    ("SELFY", "Table 3b", "res3"): {"top1": "48.4", "top5": "77.6"},
    ("SELFY", "Table 3b", "res4"): {"top1": "46.6", "top5": "76.0"},
    ("SELFY", "Table 3b", "res5"): {"top1": "42.8", "top5": "72.6"},
    ("SELFY", "Table 3b", "res2,3,4"): {"top1": "48.6", "top5": "77.9"},
    ("SELFY", "Table 3c", "TSM-R18, V"): TSM_R18,
    ("SELFY", "Table 3c", "SELFYNet, Z"): {"top1": "45.5", "top5": "75.9"},
    ("SELFY", "Table 3c", "SELFYNet, Z + V"): {"top1": "48.4", "top5": "77.6"},
    ("SELFY", "Table 3d", "TSM-R18"): TSM_R18,
    ("SELFY", "Table 3d", "{-1, 0, 1}"): {"top1": "47.4", "top5": "77.0"},
    ("SELFY", "Table 3d", "{-2, ..., 2}"): {"top1": "48.3", "top5": "77.2"},
    ("SELFY", "Table 3d", "{-3, ..., 3}"): {"top1": "48.5", "top5": "77.4"},
    ("SELFY", "Table 3e", "TSM-R18"): TSM_R18,
    ("SELFY", "Table 3e", "embed. G, mult. w/ V"): {"top1": "43.8", "top5": "72.3"},
    ("SELFY", "Table 3e", "embed. G, Conv"): {"top1": "47.6", "top5": "76.8"},
    ("SELFY", "Table 3e", "cosine, Conv"): {"top1": "47.8", "top5": "77.1"},
    ("SELFY", "Table 3f", "TSM-R18"): TSM_R18,
    ("SELFY", "Table 3f", "KS + CM, (1, 9, 9)"): {"top1": "46.1", "top5": "75.3"},
    ("SELFY", "Table 3f", "KS + CM, (5, 9, 9)"): {"top1": "47.4", "top5": "76.8"},
    ("SELFY", "Table 3f", "Conv, (1, 9, 9)"): {"top1": "47.1", "top5": "76.3"},
    ("SELFY", "Table 3f", "Conv, (5, 9, 9)"): {"top1": "48.4", "top5": "77.6"},
    ("SELFY", "Table 3g", "TSM-R50, 8 frames"): {
        "gflops": "33.1",
        "memory": "8.2",
        "runtime": "15.6",
        "top1": "45.6",
        "top5": "74.2",
    },
    ("SELFY", "Table 3g", "TSM-R50, 16 frames"): {
        "gflops": "66.3",
        "memory": "15.7",
        "runtime": "30.1",
        "top1": "47.3",
        "top5": "77.1",
    },
    ("SELFY", "Table 3g", "TSM-R50 + NL"): {
        "gflops": "46.5",
        "memory": "10.3",
        "runtime": "24.0",
        "top1": "49.1",
        "top5": "77.2",
    },
    ("SELFY", "Table 3g", "TSM-R50 + MHSA"): {
        "gflops": "50.6",
        "memory": "15.9",
        "runtime": "26.3",
        "top1": "49.2",
        "top5": "77.9",
    },
    ("SELFY", "Table 3g", "TSM-R50 + SELFY"): {
        "gflops": "36.6",
        "memory": "9.6",
        "runtime": "21.1",
        "top1": "52.5",
        "top5": "80.8",
    },
}
# Networks of other authors, all in SELFY's Table 2: GFLOPs, views, top-1.
QUOTED = {
    "STM": ("67", "30", "73.7"),
    "TEINet": ("66", "30", "76.2"),
    "TEA": ("70", "30", "76.1"),
    "SlowFast": ("234", "30", "79.8"),
    "TimeSformer-L": ("2380", "3", "80.7"),
}
NAMED = [(paper, name) for paper, supplement in SUPPLEMENTS.items() for name in supplement.ROWS]

R18, R50, MS18, MS50 = "tsm_r18", "tsm_r50", "msnet_tsm_r18", "msnet_tsm_r50"
SELFY18, SELFY50 = "selfynet_tsm_r18", "selfynet_tsm_r50"
# Row -> what its network is, beside res3 and the blocks' own defaults.
NETWORKS = {
    "table1_tsm": (R50, {}),
    "table1_1x11": (MS50, {"transformation": "1x(1,1)"}),
    "table1_1x33": (MS50, {"transformation": "1x(3,3)"}),
    "table1_4x33": (MS50, {"transformation": "4x(3,3)"}),
    "table1_ours": (MS50, {"transformation": "depthwise_separable"}),
    "table2_baseline": (R18, {}),
    "table2_cp": ("cpnet_tsm_r18", {}),
    "table2_ms": (MS18, {}),
    "table2_tsm": (R50, {}),
    "table2_msnet": (MS50, {}),
    "table2_selfynet": (SELFY50, {"window": (9, 9, 9)}),
    **{f"table3{letter}_tsm": (R18, {}) for letter in "abdef"},
    "table3a_5x5": (SELFY18, {"window": (5, 5, 5)}),
    "table3a_9x9": (SELFY18, {"window": (5, 9, 9)}),
    "table3a_13x13": (SELFY18, {"window": (5, 13, 13)}),
    "table3a_17x17": (SELFY18, {"window": (5, 17, 17)}),
    **{f"table3b_{site}": (SELFY18, {"sites": (site,)}) for site in ("pool1", "res2", "res3", "res4", "res5")},
    "table3b_res234": (SELFY18, {"sites": ("res2", "res3", "res4")}),
    "table3c_v": (R18, {}),
    "table3c_z": (SELFY18, {"fusion": "z_only"}),
    "table3c_zv": (SELFY18, {"fusion": "sum_of_relu"}),
    **{f"table3d_l{n}": (SELFY18, {"extraction": "conv3d", "window": (n, 9, 9)}) for n in (3, 5, 7)},
    "table3e_attention": ("localattention_tsm_r18", {"channels": 32}),
    "table3e_gaussian": (SELFY18, {"channels": 32, "similarity": "embedded_gaussian"}),
    "table3e_cosine": (SELFY18, {"channels": 32}),
    "table3f_kscm_l1": (SELFY18, {"extraction": "soft_argmax", "offsets": (1,), "window": (1, 9, 9)}),
    "table3f_kscm_l5": (SELFY18, {"extraction": "soft_argmax"}),
    "table3f_conv_l1": (SELFY18, {"offsets": (1,), "window": (1, 9, 9)}),
    "table3f_conv_l5": (SELFY18, {}),
    "table3g_tsm_8": (R50, {}),
    "table3g_tsm_16": (R50, {}),
    "table3g_nonlocal": ("nonlocal_tsm_r50", {}),
    "table3g_mhsa": ("mhsa_tsm_r50", {}),
    "table3g_selfy": (SELFY50, {"window": (5, 9, 9)}),
}


@pytest.fixture(scope="module")
def counted():
    """Our counts of every row and every named model, a quarter of a second for each network."""
    return tool.count_all()


def cells_of(line):
    return [cell.strip() for cell in line[1:-1].split("|")]


def sections_of(page):
    """(supplement, table) -> (titles of its columns, rows of cells)."""
    sections = {}
    for part in re.split(r"^## ", page, flags=re.MULTILINE):
        paper = part.partition("'s supplement")[0]
        for table, text in re.findall(r"^### (Table \w+)\n(.*?)(?=^###|\Z)", part, flags=re.MULTILINE | re.DOTALL):
            header, _, *lines = [cells_of(line) for line in text.splitlines() if line.startswith("|")]
            sections[paper, table] = header, lines
    return sections


def test_every_printed_row_has_its_numbers_and_no_other_row():
    ours = {
        (paper, row.table, row.label): {key: value for key, value in vars(row.printed).items() if value}
        for paper, supplement in SUPPLEMENTS.items()
        for row in supplement.ROWS.values()
    }
    assert ours == PRINTED


@pytest.mark.parametrize(("paper", "table", "label"), PRINTED)
def test_every_printed_row_is_in_the_readme(paper, table, label):
    header, lines = sections_of(README.read_text(encoding="utf-8"))[paper, table]
    (line,) = [cells for cells in lines if cells[0] == label]
    row = dict(zip(header, line, strict=True))
    titles = {"views": "views", "memory": "GB", "runtime": "ms", "top1": "top-1", "top5": "top-5", "gflops": "GFLOPs"}
    assert {key: row[titles[key]] for key in PRINTED[paper, table, label]} == PRINTED[paper, table, label]
    # The config the line names is the row's.
    path, _, arguments = row["config"].strip("`").partition(":")
    config = read_config(f"{ROOT / path}:{arguments}")
    (named,) = [each for each in SUPPLEMENTS[paper].ROWS.values() if (each.table, each.label) == (table, label)]
    assert (config["model"]["name"], config["data"]["frames"]) == (named.model, named.frames)
    assert path == f"configs/{paper.lower()}_supplement.py"


def test_quoted_networks_are_numbers_only():
    header, lines = sections_of(README.read_text(encoding="utf-8"))["SELFY", "Table 2"]
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    without = {row["row"].partition(",")[0].split()[0]: row for row in rows if not row["config"]}
    assert {name: (row["GFLOPs"], row["views"], row["top-1"]) for name, row in without.items()} == QUOTED
    assert not any(row["our GFLOPs"] for row in without.values())


def test_every_named_model_and_config_is_in_the_readme():
    text = README.read_text(encoding="utf-8")
    for name in list_models():
        assert f"| `{name}` | `configs/something_v1.py:{name},8` |" in text
    for path in (ROOT / "configs").glob("*.py"):
        if path.stem not in ("__init__", "common", "rows"):
            assert f"`configs/{path.name}" in text


def test_the_readme_is_what_the_tool_writes(counted):
    assert tool.page(*counted) == README.read_text(encoding="utf-8"), (
        "configs/README.md is out of date: python -m motion_jax.tools.rows --output=configs/README.md"
    )


def test_every_row_is_described():
    assert sorted(NETWORKS) == sorted(name for _, name in NAMED)


@pytest.mark.parametrize(("paper", "name"), NAMED)
def test_network_of_a_row(paper, name):
    config = SUPPLEMENTS[paper].get_config(name)
    config.data.root = "videos"
    experiment = Experiment.from_config(config.to_dict())
    model, fields = NETWORKS[name]
    frames = 16 if name in ("table2_tsm", "table2_msnet", "table2_selfynet", "table3g_tsm_16") else 8
    assert (experiment.model.name, experiment.data.frames, experiment.model.width) == (model, frames, 64)
    assert experiment.model.build(num_classes=5) == build_model(model, num_classes=5, **fields)
    train, data = experiment.train, experiment.data
    if (paper, name.partition("_")[0]) == ("SELFY", "table2"):
        assert (data.name, data.sampling, train.epochs, train.schedule) == ("kinetics400", "dense", 65, "cosine")
    else:
        assert (data.name, data.sampling) == ("something_v1", "segment")
        # The compared networks are trained like the paper's own.
        assert (train.batch_size, train.epochs) == ((48, 40) if paper == "MotionSqueeze" else (64, 50))


@pytest.mark.parametrize(("paper", "name"), NAMED)
def test_smoke_of_a_row(paper, name):
    full, smoke = (SUPPLEMENTS[paper].get_config(arguments) for arguments in (name, f"{name},smoke"))
    assert smoke.is_locked
    experiment = Experiment.from_config(smoke.to_dict())
    assert (experiment.data.name, experiment.train.steps, experiment.model.width) == ("moving_shapes", 12, 8)
    assert experiment.model.block == full.model.block.to_dict()
    assert experiment.model.sites == full.model.sites


@pytest.mark.parametrize(("paper", "default"), [("MotionSqueeze", "table1_ours"), ("SELFY", "table3g_selfy")])
def test_default_row(paper, default):
    get_config = SUPPLEMENTS[paper].get_config
    assert get_config().to_dict() == get_config(default).to_dict()
    assert get_config("smoke").to_dict() == get_config(f"{default},smoke").to_dict()


@pytest.mark.parametrize("arguments", ["table9_x", "table1_ours,8", "table1_ours,table2_ms", ",smoke"])
def test_an_unknown_row_is_one_line_with_the_rows(arguments):
    with pytest.raises(ValueError, match=r"config arguments are row\[,smoke\], such as table1_ours; got .*; rows: "):
        motionsqueeze_supplement.get_config(arguments)
    with pytest.raises(ValueError, match=r"table2_tsm, .*table3g_selfy$"):
        selfy_supplement.get_config(arguments)


def test_an_unknown_row_on_the_command_line(tmp_path):
    line = error_of(call("train", "--config=configs/selfy_supplement.py:table4", f"--workdir={tmp_path}"))
    assert "error: config arguments are row[,smoke], such as table3g_selfy; got 'table4'; rows: table2_tsm" in line


def test_a_row_trains(tmp_path):
    # Two options that are the row's own: KS + CM, and l = {1}.
    succeed("train.py", "--config=configs/selfy_supplement.py:table3f_kscm_l1,smoke", f"--workdir={tmp_path}")
    assert (tmp_path / "checkpoints" / "latest" / "12").is_dir()


def test_the_tool_prints_and_writes(monkeypatch, tmp_path):
    monkeypatch.setattr(tool, "SUPPLEMENTS", {"MotionSqueeze": motionsqueeze_supplement})
    monkeypatch.setattr(tool, "list_models", lambda: ["tsm_r18"])
    written, result = call("rows", f"--output={tmp_path / 'page.md'}", "--json").stdout.splitlines()
    assert written == f"8 rows and 1 models -> {tmp_path / 'page.md'}"
    assert '"config": "configs/motionsqueeze_supplement.py:table1_tsm"' in result
    assert call("rows").stdout == (tmp_path / "page.md").read_text() + "\n"
