"""The benchmark beside PyTorch: both sides are timed, in turns, and compared with the best of the other."""

import json
import re
import sys

import jax
import pytest

from benchmarks import peers
from motion_jax.data.progress import progress_bar

ROW = {"mode": "forward", "batch": 1, "dtype": "float32", "frames": 8, "size": 224, "preparation_seconds": 1.0}


def row(model, by, milliseconds, cpu_seconds):
    return {**ROW, "model": model, "by": by, "milliseconds": milliseconds, "cpu_seconds": cpu_seconds}


@pytest.fixture
def rows():
    """Medians of the rounds: ours 10 and 15, the best twins' 12 and 12."""
    return [
        row("tsm_r50", peers.OURS, [10.0, 90.0, 9.0], [0.02, 0.02, 0.02]),
        row("tsm_r50", "PyTorch eager NCHW", [12.0, 12.0, 12.0], [0.05, 0.05, 0.05]),
        row("tsm_r50", "PyTorch eager channels_last", [13.0, 13.0, 1.0], [0.04, 0.04, 0.04]),
        row("msnet_tsm_r50", peers.OURS, [15.0, 15.0, 15.0], [0.03, 0.03, 0.03]),
        row("msnet_tsm_r50", "PyTorch eager NCHW", [15.0, 15.0, 15.0], [0.03, 0.03, 0.03]),
        row("msnet_tsm_r50", "PyTorch eager channels_last", [12.0, 12.0, 12.0], [0.06, 0.06, 0.06]),
    ]


def test_ours_is_compared_with_the_best_twin(rows):
    tsm, msnet = peers.comparisons(rows)
    assert (tsm["by"], msnet["by"]) == ("PyTorch eager NCHW", "PyTorch eager channels_last")
    assert tsm["ratio"] == pytest.approx(10 / 12)
    assert msnet["ratio"] == pytest.approx(15 / 12)
    # In CPU seconds, or in its best round, another twin may be the best.
    assert tsm["cpu_ratio"] == pytest.approx(0.02 / 0.04)
    assert tsm["shortest_ratio"] == pytest.approx(9 / 1)
    assert (msnet["ours_over_first"], msnet["peer_over_first"]) == (1.5, 1.0)
    assert (peers.verdict(tsm), peers.verdict(msnet)) == ("1.03 met", "1.03 missed")


def test_bars_are_for_float32_and_their_batch(rows):
    tsm = peers.comparisons(rows)[0]
    assert peers.verdict({**tsm, "batch": 4}) == peers.verdict({**tsm, "dtype": "bfloat16"}) == ""


def test_programs_take_turns():
    called = []
    programs = [({"by": name}, lambda name=name: (called.append(name) or len(called), 0.5)) for name in "abc"]
    with progress_bar(6, label="rounds") as bar:
        rows = peers.take_turns(programs, rounds=2, bar=bar)
    assert "".join(called) == "abccba"
    assert [row["milliseconds"] for row in rows] == [[1, 6], [2, 5], [3, 4]]
    assert rows[0]["cpu_seconds"] == [0.5, 0.5]


def test_a_worker_says_what_went_wrong():
    with peers.worker(peers.Ours, 1) as ask, pytest.raises(RuntimeError, match="there is no model 'nothing'"):
        ask("prepare", peers.Case("nothing", "forward", 1, "float32"), None)


def test_tables(rows):
    assert "12.0-12.0" in peers.times_table(rows)
    assert len(peers.comparison_table(peers.comparisons(rows)).splitlines()) == 4


def test_tf32_is_a_choice_for_float32_on_cuda_alone():
    case = peers.Case("tsm_r18", "forward", 1, "float32")
    on_cuda = peers.variants(case, ("NCHW",), True, on_cuda=True)
    assert list(map(str, on_cuda)) == [
        "PyTorch eager NCHW",
        "PyTorch eager NCHW TF32",
        "PyTorch torch.compile NCHW",
        "PyTorch torch.compile NCHW TF32",
    ]
    assert len(peers.variants(case, peers.LAYOUTS, False, on_cuda=False)) == 2


def test_the_allocator_is_set_as_in_the_makefile(request):
    makefile = (request.config.rootpath / "Makefile").read_text()
    assert re.search(r"^export GLIBC_TUNABLES \?= (\S+)$", makefile, flags=re.MULTILINE)[1] == peers.ALLOCATOR


def test_both_sides_must_run_on_one_kind_of_device():
    with pytest.raises(ValueError, match="JAX runs on gpu and PyTorch on cpu"):
        peers.setting_of({"platform": "gpu"}, {"platform": "cpu"}, threads=1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--mode=backward"], "--mode: expected some of forward,train; got backward"),
        (["--layout=NHWC"], "--layout: expected some of NCHW,channels_last; got NHWC"),
        (["--size=72"], "--size: expected a multiple of 16; got 72"),
        (["--threads=9999"], "--threads: this process may use"),
    ],
)
def test_bad_input(arguments, says, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["peers", *arguments])
    with pytest.raises(SystemExit) as left:
        peers.main()
    assert left.value.code == 2
    assert says in capsys.readouterr().err


def test_a_whole_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch", reason="PyTorch is not installed: pip install -r benchmarks/requirements.txt")
    output = tmp_path / "results" / "peers.json"
    arguments = ["tsm_r18", "--size=32", "--frames=2", "--rounds=2", "--threads=1", f"--output={output}"]
    monkeypatch.setattr(sys, "argv", ["peers", *arguments])
    # The worker compiles what these tests compiled before.
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(jax.config.jax_compilation_cache_dir))
    peers.main()
    result = json.loads(output.read_text())
    assert {(row["mode"], row["batch"], row["by"]) for row in result["rows"]} == {
        (mode, batch, by)
        for mode, batch in (("forward", 1), ("train", 2))
        for by in (peers.OURS, "PyTorch eager NCHW", "PyTorch eager channels_last")
    }
    assert all(len(row["milliseconds"]) == len(row["cpu_seconds"]) == 2 for row in result["rows"])
    assert all(min(row["milliseconds"] + row["cpu_seconds"]) > 0 for row in result["rows"])
    assert not result["skipped"]
    assert result["setting"]["threads"] == 1
    assert "best peer" in capsys.readouterr().out


def test_there_must_be_a_twin():
    pytest.importorskip("torch", reason="PyTorch is not installed: pip install -r benchmarks/requirements.txt")
    with pytest.raises(ValueError, match="there is no PyTorch version of i3d"):
        peers.compare(
            [peers.Case("i3d", "forward", 1, "float32")], layouts=peers.LAYOUTS, compiled=False, rounds=1, threads=1
        )
