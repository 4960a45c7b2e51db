"""``motion-jax COMMAND`` and ``python -m motion_jax COMMAND``: run a command by its name."""

import ast
import difflib
import importlib
import pathlib
import pkgutil
import sys

from motion_jax import tools
from motion_jax.cli import fail, program, run


def main() -> None:
    """Run the command that the first argument names."""
    run(_dispatch)


def _dispatch() -> None:
    names = [module.name for module in pkgutil.iter_modules(tools.__path__)]
    command, *arguments = sys.argv[1:] or [""]
    if command in ("-h", "--help"):
        print(f"usage: {program()} COMMAND ...\n\nCommands; COMMAND --help describes one:")
        for name in names:
            print(f"  {name:<{max(map(len, names))}}  {_summary(name)}")
        return
    if (name := command.replace("-", "_")) not in names:
        close = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {close[0]}?" if close else "see --help"
        fail(f"there is no command {command!r}; {hint}" if command else "give a command; see --help")
    # Messages name the command as it was typed.
    sys.argv = [f"{program()} {command}", *arguments]
    importlib.import_module(f"motion_jax.tools.{name}").main()


def _summary(name: str) -> str:
    """Return the first line of a command's docstring without importing the command."""
    source = (pathlib.Path(tools.__path__[0]) / f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


if __name__ == "__main__":
    main()
