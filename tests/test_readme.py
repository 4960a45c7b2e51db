"""Every command line of the documentation and of the commands' examples is run, or checked as far as possible.

A line of a ```bash block is one command; comments are passed over, and a line that ends with a backslash goes on.
"""

import ast
import importlib.util
import pathlib
import re
import shlex

import pytest
from bench import ROOT, call, error_of, succeed

pytestmark = pytest.mark.long

PAGES = (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), ROOT / "data/README.md", ROOT / "configs/README.md")
# Programs on a reader's machine that are not checked.
FOREIGN = {"cd", "export", "git", "ls", "pip", "python3", "rsync", "source", "tensorboard", "unzip"}
# Programs that start a command of ours, which is checked.
LAUNCHERS = {"gcloud", "mpirun", "srun", "xpk"}
# No machine has as many devices: train.py refuses after it has read all options and the config.
IMPOSSIBLE = "--config.parallel.devices=999999"


def lines_of(markdown: str) -> list[str]:
    """The command lines of all ```bash blocks."""
    blocks = re.findall(r"^```bash\n(.*?)^```", markdown, flags=re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def examples_of(program: str) -> list[str]:
    """The command lines of a program's docstring."""
    text = ast.get_docstring(ast.parse((ROOT / program).read_text())).replace("\\\n", " ")
    return re.findall(r"^    ((?:\w+=\S+ )?python .*)$", text, flags=re.MULTILINE)


def words_of(line: str) -> list[str]:
    """A command without its folder and its arguments, without a comment at the end and variables at the start."""
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z0-9_]+=.*", words[0]):
        del words[0]
    return [pathlib.Path(words[0]).name, *words[1:]] if words else []


LINES = list(
    dict.fromkeys(
        [
            *(line for page in PAGES if page.exists() for line in lines_of(page.read_text(encoding="utf-8"))),
            *(line for path in sorted(ROOT.glob("motion_jax/tools/[a-z]*.py")) for line in examples_of(path)),
        ]
    )
)


def check_train(arguments):
    # Buckets need packages that only the long tests install.
    local = [argument.replace("gs://BUCKET/", "") for argument in arguments]
    # A process would wait for the others, which nobody starts here.
    joining = ("--distributed", "--coordinator", "--processes", "--process_id")
    assert all(option in call("train", "--help").stdout for option in joining)
    local = [argument for argument in local if not argument.startswith(joining)]
    assert "parallel.devices is 999999" in error_of(call("train", *local, IMPOSSIBLE))


def check_eval(arguments):
    # The run of the example is absent: eval.py refuses after it has read all options.
    done = call("eval", *(re.sub(r"=runs/", "=runs/absent/", argument) for argument in arguments))
    assert "error: no checkpoint" in error_of(done)


def check_module(name, arguments):
    if name in ("pytest", "pip", "venv"):
        return
    if name == "motion_jax.tools.launch":
        split = arguments.index("--")
        test_line(shlex.join(["python", *arguments[split + 1 :]]))
        arguments = arguments[:split]
    if name == "benchmarks.torch_training":
        pytest.importorskip("torch", reason="PyTorch is an extra")
    assert name.startswith(("motion_jax.", "benchmarks.")), f"what is python -m {name}?"
    assert importlib.util.find_spec(name), f"there is no module {name}"
    done = call(name, "--help")
    text = done.stdout
    assert done.returncode == 0, done.stderr
    config = [word for word in arguments if re.match(r"--config=|[^-]\S*\.py\b", word)]
    if overrides := [flag for flag in arguments if flag.startswith("--config.")]:
        assert "go to train.py" in text or "--config.KEY=VALUE" in text, f"{name} knows no {overrides[0]}"
        done = call("train", "--help", *config, *overrides)
        assert done.returncode == 0, done.stderr
    for flag in set(arguments) - set(overrides):
        assert not flag.startswith("-") or flag.partition("=")[0] in text, f"{name} --help knows no {flag}"


def check_make(targets):
    known = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert set(targets) <= set(known), f"the Makefile has {known}"


def check_files(arguments):
    for argument in arguments:
        if pathlib.Path(argument).suffix in (".txt", ".py", ".toml") and "/" not in argument:
            assert (ROOT / argument).is_file(), f"there is no {argument}"


def started_by(arguments):
    """The command of ours that a launcher starts: after its options, or the last of a --command; [] for none."""
    for argument in arguments:
        if argument.startswith("--command="):
            arguments = shlex.split(argument.removeprefix("--command=").rpartition("&&")[2])
    programs = [number for number, word in enumerate(arguments) if pathlib.Path(word).name == "python"]
    return arguments[programs[0] :] if programs else []


@pytest.mark.parametrize("line", LINES)
def test_line(line):
    # docs/add_a_motion_block.md adds this model, and tests/models/test_add_a_block.py runs the commands on it.
    line = line.replace("framediff_tsm_r18", "tsm_r18")
    match words_of(line):
        case ["python", "train.py", *arguments]:
            check_train(arguments)
        case ["python", "eval.py", *arguments]:
            check_eval(arguments)
        case ["python", "-m", name, *arguments]:
            check_module(name, arguments)
        case ["motion-jax", command, *arguments]:
            check_module(f"motion_jax.tools.{command}", arguments)
        case ["make", *targets]:
            check_make([target for target in targets if "=" not in target])
        case [program, *arguments] if program in LAUNCHERS:
            if started := started_by(arguments):
                test_line(shlex.join(started))
        case [program, *arguments]:
            assert program in FOREIGN, f"what is {program}?"
            check_files(arguments)


@pytest.mark.xdist_group("commands_moving_shapes")
def test_the_first_run_of_the_readme(tmp_path):
    # The first training and the first evaluation a reader tries, made small, one after the other.
    lines = lines_of((ROOT / "README.md").read_text(encoding="utf-8"))
    train = next(words[2:] for words in map(words_of, lines) if words[:2] == ["python", "train.py"])
    evaluate = next(words[2:] for words in map(words_of, lines) if words[:2] == ["python", "eval.py"])
    workdir = f"--workdir={tmp_path}"
    config, *rest = (argument for argument in train if not argument.startswith("--workdir"))
    assert config.startswith("--config="), train
    if "smoke" not in config:
        config += ",smoke" if ":" in config else ":smoke"
    # What a smoke config chooses by itself.
    chosen = re.compile(r"--config\.(data\.|model\.|train\.(steps|epochs))")
    rest = [argument for argument in rest if not chosen.match(argument)]
    succeed("train.py", config, *rest, workdir)
    assert (tmp_path / "checkpoints" / "latest" / "12").is_dir()
    options = [argument for argument in evaluate if not re.match(r"--(workdir|checkpoint|config)\b", argument)]
    succeed("eval.py", workdir, *options)
    assert (tmp_path / "eval.json").is_file()


def test_lines_are_found():
    page = "```bash\n# first\nmake demo\npython train.py --a=1 \\\n    --b=2  # why\n\n```\n```python\nx = 1\n```\n"
    assert [words_of(line) for line in lines_of(page)] == [["make", "demo"], ["python", "train.py", "--a=1", "--b=2"]]
    assert words_of("JAX_PLATFORMS=cpu .venv/bin/python eval.py") == ["python", "eval.py"]
    assert words_of("export A=b") == ["export", "A=b"]
    assert started_by(["ssh", "--command=cd a && .venv/bin/python train.py --b"]) == [
        ".venv/bin/python",
        "train.py",
        "--b",
    ]
    assert started_by(["--nodes=2", "python", "train.py"]) == ["python", "train.py"]
    assert started_by(["create", "NAME"]) == []
    assert len(examples_of("motion_jax/tools/train.py")) == 3
    assert examples_of("motion_jax/tools/robustness.py")[1].endswith(" --levels=1,3,6 --json")


def test_examples_name_runs_of_the_demo():
    networks = re.search(r"^NETWORKS := (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)[1].split()
    for path in ROOT.glob("motion_jax/tools/[a-z]*.py"):
        assert set(re.findall(r"runs/demo/(\w+)", path.read_text())) <= set(networks), path


@pytest.mark.parametrize(
    "line",
    [
        "python train.py --config=configs/moving_shapes.py --workdir=runs/x --config.train.stpes=1",
        "python eval.py --workdir=runs/x --kroops=3",
        "python -m motion_jax.tools.nothing",
        "python -m motion_jax.tools.models --colour",
        "python -m motion_jax.tools.models --config.model.width=16",
        "python -m benchmarks.accuracy tsn_r18 --config=configs/video_folder.py --workdir=x --config.data.sizze=3",
        "make coffee",
        "wget https://example.org",
        "pip install -r requirement.txt",
    ],
)
def test_a_wrong_line_is_found(line):
    with pytest.raises(AssertionError):
        test_line(line)
