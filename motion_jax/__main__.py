"""``motion-jax COMMAND``: every command of the library by its name."""


def main() -> None:
    """Run a command."""
    raise SystemExit("motion-jax: error: no command yet")
