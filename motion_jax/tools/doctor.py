"""Check that this machine computes motion right: versions, devices, operations and blocks against a slow reference.

Examples:
    python -m motion_jax.tools.doctor
    python -m motion_jax.tools.doctor --json
    JAX_ENABLE_X64=1 python -m motion_jax.tools.doctor

A minute at most on a CPU. The last line but for --json is the verdict; the exit status is 0 if all is well, else 1.
"""

import dataclasses
import importlib.metadata
import math
import platform
import sys

import jax

from motion_jax.cli import Parser, print_json, run, table
from motion_jax.inspection.health import Check, make_checks
from motion_jax.training.progress import bar

PACKAGES = ("motion-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "opencv-python-headless")


def main() -> None:
    """Checks -> table and verdict."""
    parser = Parser(__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object, last")
    arguments = parser.parse_args()
    versions = {"python": platform.python_version(), **{name: version_of(name) for name in PACKAGES}}
    devices = [f"{device.platform}:{device.id} {device.device_kind}" for device in jax.devices()]
    print(table(("package", "version"), list(versions.items())), "\n")
    print("devices: " + ", ".join(devices))
    print(f"checked on {devices[0]}, matching also on all of them together\n" if devices[1:] else "")
    checks: list[Check] = []
    for make in bar(make_checks(), desc="doctor", unit="check", leave=False):
        checks += make()
    print(as_table(checks), "\n")
    failed = [check for check in checks if not check.passed]
    print(verdict(checks))
    if arguments.json:
        # JSON knows no infinity.
        rows = [
            {
                **dataclasses.asdict(check),
                "difference": check.difference if math.isfinite(check.difference) else None,
                "passed": check.passed,
            }
            for check in checks
        ]
        print_json({"healthy": not failed, "versions": versions, "devices": devices, "checks": rows})
    sys.exit(1 if failed else 0)


def version_of(package: str) -> str:
    """The installed version of a package; empty if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def as_table(checks: list[Check]) -> str:
    """One line per comparison."""
    rows = [
        (
            check.name,
            check.case,
            check.dtype,
            check.part,
            f"{check.difference:.1e}",
            f"{check.bound:.0e}",
            "ok" if check.passed else f"WRONG {check.error}".strip(),
        )
        for check in checks
    ]
    return table(("check", "size", "dtype", "of the", "difference", "bound", ""), rows)


def verdict(checks: list[Check]) -> str:
    """One line."""
    failed = [check for check in checks if not check.passed]
    if not failed:
        return f"healthy: {len(checks)} of {len(checks)} checks within their bounds"
    named = dict.fromkeys(f"{check.part} of {check.name} in {check.dtype}" for check in failed)
    return f"NOT healthy: {len(failed)} of {len(checks)} checks failed: {', '.join(named)}"


if __name__ == "__main__":
    run(main)
