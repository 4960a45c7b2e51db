"""Check that this machine computes operations and motion blocks correctly, against a slow reference.

Examples:
    python -m motion_jax.tools.doctor
    python -m motion_jax.tools.doctor --json
    JAX_ENABLE_X64=1 python -m motion_jax.tools.doctor

It takes a minute or two on a CPU. The last line, before that of --json, is the verdict. The exit status is 0 if every
check passes, else 1.
"""

import importlib.metadata
import math
import platform
import sys

import jax

from motion_jax.cli import Parser, print_json, run, table
from motion_jax.inspection.health import Check, make_checks, title_of
from motion_jax.training.progress import bar, log

PACKAGES = ("motion-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "opencv-python-headless")


def main() -> None:
    """Run all checks, print a table and the verdict."""
    arguments = Parser(__doc__).parse_args()
    versions = {"python": platform.python_version(), **{name: version_of(name) for name in PACKAGES}}
    devices = [f"{device.platform}:{device.id} {device.device_kind}" for device in jax.devices()]
    print(table(("package", "version"), list(versions.items())), "\n")
    print("devices: " + ", ".join(devices))
    print(f"checked on {devices[0]}, matching also on all of them together\n" if devices[1:] else "")
    makers = make_checks()
    log(f"running {len(makers)} groups of checks; compiling them takes most of the time")
    checks: list[Check] = []
    with bar(makers, desc="doctor", unit="group", leave=False) as progress:
        for make in progress:
            progress.set_postfix_str(title_of(make))
            checks += make()
    print(as_table(checks), "\n")
    failed = [check for check in checks if not check.passed]
    print(verdict(checks))
    if arguments.json:
        # JSON has no infinity.
        finite = {check: check.difference if math.isfinite(check.difference) else None for check in checks}
        rows = [{**vars(check), "difference": finite[check], "passed": check.passed} for check in checks]
        print_json({"healthy": not failed, "versions": versions, "devices": devices, "checks": rows})
    sys.exit(1 if failed else 0)


def version_of(package: str) -> str:
    """Return the installed version of a package; empty if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def as_table(checks: list[Check]) -> str:
    """Format one row per comparison."""
    rows = [
        (
            *(getattr(check, field) for field in ("name", "case", "dtype", "part")),
            f"{check.difference:.1e}",
            f"{check.bound:.0e}",
            "ok" if check.passed else f"WRONG {check.error}".strip(),
        )
        for check in checks
    ]
    return table(("check", "size", "dtype", "of the", "difference", "bound", ""), rows)


def verdict(checks: list[Check]) -> str:
    """Return the verdict in one line."""
    failed = [check for check in checks if not check.passed]
    if not failed:
        return f"healthy: {len(checks)} of {len(checks)} checks within their bounds"
    named = dict.fromkeys(f"{check.part} of {check.name} in {check.dtype}" for check in failed)
    return f"NOT healthy: {len(failed)} of {len(checks)} checks failed: {', '.join(named)}"


if __name__ == "__main__":
    run(main)
