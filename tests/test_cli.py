"""The manner of all commands: help, names, overrides of a config, and what is missing on this machine."""

import dataclasses
import importlib
import json
import logging
import os
import pkgutil

import pytest
from bench import ROOT, call, error_of, run

from motion_jax import cli, tools
from motion_jax.experiment import Experiment, keys_of
from motion_jax.training.progress import log

COMMANDS = [module.name for module in pkgutil.iter_modules(tools.__path__)]
SMOKE = "configs/moving_shapes.py:msnet_tsm_r18,8,smoke"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples_and_names_no_library_error(command):
    done = call(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    module = importlib.import_module(f"motion_jax.tools.{command}")
    assert done.stdout.startswith(f"usage: {command} ")
    assert module.__doc__.strip() in done.stdout
    assert "Examples:\n    python " in done.stdout
    assert "--json" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_is_one_line_with_a_hint(command):
    line = error_of(call(command, "--jsom"))
    assert "--jsom" in line or "required" in line
    assert "; did you mean --json?" in line or "; see --help" in line


def test_all_commands_are_listed():
    done = run("-m", "motion_jax", "--help")
    assert done.returncode == 0
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in done.stdout.splitlines() if line.startswith("  ")}
    assert list(lines) == COMMANDS
    assert all(text.endswith(".") for text in lines.values())


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("-m", "motion_jax", "trian"),
            "python -m motion_jax: error: there is no command 'trian'; did you mean train?",
        ),
        (("-m", "motion_jax"), "python -m motion_jax: error: give a command; see --help"),
        (
            ("-m", "motion_jax", "import-weights", "--colour"),
            "python -m motion_jax import-weights: error: the following arguments are required: FILE, --config, "
            "--workdir; see --help",
        ),
        (("-m", "motion_jax.tools.models", "x"), "python -m motion_jax.tools.models: error: unrecognized arguments"),
        (("train.py",), "train.py: error: --config=FILE and --workdir=DIR are needed; see --help"),
        (("eval.py",), "eval.py: error: --workdir=DIR or --checkpoint=PATH is needed; see --help"),
    ],
)
def test_messages_name_the_command_as_it_was_typed(arguments, line):
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(line)
    assert len(done.stderr.splitlines()) == 1


def test_a_dispatched_command_imports_no_other():
    code = (
        "import sys; sys.argv = ['motion-jax', 'models', '--help']\n"
        "from motion_jax.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(*(name for name in sys.modules if name.startswith('motion_jax.tools.')))"
    )
    *text, last = run("-c", code).stdout.splitlines()
    assert last == "motion_jax.tools.models"
    assert text[0].startswith("usage: motion-jax models ")


def test_a_missing_platform_is_one_line():
    done = run("-m", "motion_jax.tools.doctor", JAX_PLATFORMS="cuda")
    line = error_of(done)
    assert "JAX finds no device for JAX_PLATFORMS=cuda: unset it, or install" in line
    assert "Unable to initialize backend 'abc'" in error_of(run("-m", "motion_jax.tools.doctor", JAX_PLATFORMS="abc"))


@pytest.mark.parametrize(("missing", "named"), [("motion_jax.data", "motion_jax"), ("jax", "jax"), ("optax", "optax")])
@pytest.mark.parametrize("program", ["train.py", "eval.py"])
def test_what_is_not_installed_is_one_line(program, missing, named):
    # As an import behaves where the package is absent.
    code = f"""
import importlib.abc, runpy, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
runpy.run_path({program!r}, run_name="__main__")
"""
    done = run("-c", code)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"{program}: error: {named} is not installed; run pip install -r requirements.txt (or pip install -e .)\n"
    )


# Overrides.


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("train.steps", "7", 7),
        ("train.steps", "None", None),
        ("train.steps", "", None),
        ("train.epochs", "0.5", 0.5),
        ("train.learning_rate", "1", 1.0),
        ("train.learning_rate", "1e-3", 1e-3),
        ("train.nesterov", "false", False),
        ("train.nesterov", "True", True),
        ("train.milestones", "", ()),
        ("train.milestones", "()", ()),
        ("train.milestones", "5", (5.0,)),
        ("train.milestones", "(5, 7.5,)", (5.0, 7.5)),
        ("data.resize", "(240,320)", (240, 320)),
        ("data.resize", "240,320", (240, 320)),
        ("data.resize", "[240, 320]", (240, 320)),
        ("data.resize", "256", 256),
        ("data.resize", "None", None),
        ("data.root", "/videos/a b", "/videos/a b"),
        ("data.root", "'/videos'", "/videos"),
        ("data.root", "a=b", "a=b"),
        ("model.sites", "res2,res3", ("res2", "res3")),
        ("model.sites", "('res2', \"res3\")", ("res2", "res3")),
        ("model.sites", "res2", ("res2",)),
        ("model.block.radius", "5", 5),
        ("model.block.sigma", "5", 5.0),
        ("model.block.widths", "8,8,8", (8, 8, 8)),
        ("model.block.transformation", "1x(3,3)", "1x(3,3)"),
        ("seed", "3", 3),
    ],
)
def test_an_override_is_parsed_by_the_type_of_its_key(key, text, value):
    config = cli.read_config(SMOKE, {key: text})
    *sections, name = key.split(".")
    for section in sections:
        config = config[section]
    assert config[name] == value
    assert type(config[name]) is type(value)


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("train.batch_size", "None", r"--config\.train\.batch_size=None: expected an integer$"),
        ("train.batch_size", "8.0", r"expected an integer$"),
        ("train.nesterov", "perhaps", r"expected true or false$"),
        ("data.clips", "1,2,3", r"--config\.data\.clips=1,2,3: expected a tuple of 2 int, or None$"),
        ("data.resize", "a", r"expected a tuple of 2 int, or an integer, or None$"),
        ("model.block", "{}", r"--config\.model\.block=\{\}: expected a section$"),
        ("model.block.radius", "wide", r"--config\.model\.block\.radius=wide: expected an integer$"),
    ],
)
def test_an_override_that_does_not_parse(key, text, message):
    with pytest.raises(ValueError, match=message):
        cli.read_config(SMOKE, {key: text})


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("train.lr", "train.learning_rate"),
        ("eval.bs", "eval.batch_size"),
        ("train.bs", "train.batch_size"),
        ("train.wd", "train.weight_decay"),
        ("learning_rate", "train.learning_rate"),
        ("model.root", "data.root"),
        ("tain.stpes", "train.steps"),
        ("train.learnin_rate", "train.learning_rate"),
    ],
)
def test_a_wrong_key_is_answered_with_the_right_one(key, meant):
    with pytest.raises(ValueError, match=rf"the config has no key {key}; did you mean {meant}\?$"):
        cli.read_config(SMOKE, {key: "1"})


def test_a_config_and_overrides_may_be_given_with_spaces():
    parser = cli.Parser("", configurable=True)
    parser.add_argument("--config")
    parser.add_argument("--full", action="store_true")
    one = parser.parse_args(["--config=a.py:b", "--config.train.steps=3", "--config.data.root=x=y", "--json=true"])
    two = parser.parse_args(["--config.train.steps", "3", "--config", "a.py:b", "--full=false", "--json"])
    assert (one.config, one.changes, one.json) == ("a.py:b", {"train.steps": "3", "data.root": "x=y"}, True)
    assert (two.config, two.changes, two.json, two.full) == ("a.py:b", {"train.steps": "3"}, True, False)


def test_every_key_has_a_meaning():
    sections = [Experiment, *(field.type for field in dataclasses.fields(Experiment) if field.name != "seed")]
    fields = {(section.__name__, field.name) for section in sections for field in dataclasses.fields(section)}
    described = {(section.__name__, name) for section in sections for name in cli.meanings(section)}
    assert fields == described


def test_a_meaning_may_have_several_lines_and_markup():
    class Section:
        """A section.

        Attributes:
            one: the first of
                two lines, see :func:`run`.
            two: ``"a"`` or ``"b"``.

        Raises:
            ValueError: not a field.
        """

    assert cli.meanings(Section) == {"one": "the first of two lines, see run.", "two": '"a" or "b".'}


def test_help_lists_every_key_of_a_config_with_its_value_and_meaning():
    done = call("train", "--help", f"--config={SMOKE}", "--config.train.steps=77", "--config.data.root=None")
    assert done.returncode == 0
    text = " ".join(done.stdout.split())
    config = cli.read_config(SMOKE)
    assert f"values of {SMOKE}:" in text
    for key in keys_of():
        if key == "model.block":
            assert all(f" --config.model.block.{name}=" in text for name in config["model"]["block"])
        else:
            assert f" --config.{key}=" in text
    assert f" --config.train.steps=77 {cli.meanings(Experiment.__annotations__['train'])['steps']}" in text
    assert " --config.data.clips=48,24 " in text


# Where configs are looked up.


def test_a_config_of_the_package_is_found_from_any_folder(tmp_path):
    done = run(
        "-c",
        "from motion_jax.cli import read_config; import sys\n"
        "print(read_config('configs/moving_shapes.py')['data']['name'])\n"
        "print(*(name for name in sys.modules if name.endswith('moving_shapes')))",
        cwd=tmp_path,
    )
    assert done.stdout.splitlines()[0] == "moving_shapes", done.stderr
    assert done.stdout.splitlines()[1].split() == ["motion_jax.configs.moving_shapes"]


def test_a_config_of_the_current_folder_comes_first(tmp_path, monkeypatch):
    own = tmp_path / "configs" / "moving_shapes.py"
    own.parent.mkdir()
    own.write_text(
        "from motion_jax.configs import moving_shapes\n"
        "def get_config(arguments):\n"
        "    config = moving_shapes.get_config(arguments)\n"
        "    config.seed = 5\n"
        "    return config\n"
    )
    monkeypatch.chdir(tmp_path)
    assert cli.read_config("configs/moving_shapes.py:tsn_r18")["seed"] == 5
    assert cli.read_config(str(ROOT / "configs" / "moving_shapes.py"))["seed"] == 0


def test_a_config_that_cannot_be_used(tmp_path):
    (tmp_path / "a.py").write_text("import absent_module")
    with pytest.raises(ValueError, match=r"a\.py cannot be used: ModuleNotFoundError: No module named 'absent_module'"):
        cli.read_config(str(tmp_path / "a.py"))
    with pytest.raises(ValueError, match=r"no config file 'configs/absent\.py'; motion_jax brings .* moving_shapes"):
        cli.read_config("configs/absent.py")


def test_names_from_outside_are_escaped_where_lines_leave(capsys):
    name = os.fsdecode(b"caf\xe9\x1b[2J\n\xc2\x9b.mp4")
    with pytest.raises(SystemExit):
        cli.fail(f"{name} cannot be read")
    log(f"{name}: read")
    print(cli.table(("file",), [(name,)]))
    cli.print_json({"file": name})
    out, err = capsys.readouterr()
    assert not {"\x1b", "\x9b", "\udce9"} & set(out + err)
    assert err.splitlines()[0].endswith(r"caf\xe9\x1b[2J \x9b.mp4 cannot be read")
    assert err.splitlines()[1] == r"caf\xe9\x1b[2J\n\x9b.mp4: read"
    assert out.splitlines()[2] == r"caf\xe9\x1b[2J\n\x9b.mp4"
    assert os.fsencode(json.loads(out.splitlines()[3])["file"]) == os.fsencode(name)


def test_the_log_is_escaped(capfd):
    def main():
        logging.getLogger("motion_jax").warning("%s\n  two lines", "\x1b[2J")

    cli.run(main)
    assert capfd.readouterr().err == "\\x1b[2J\n  two lines\n"
