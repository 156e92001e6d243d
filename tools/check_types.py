"""Run mypy on the packages under the names they install as, and on the benchmarks, which no test runs whole.

`runtime/` is `promptray.runtime` only once it is installed, and mypy does not follow the import
hook of an editable install. So the folders are linked together as they install, and mypy's
messages are given back with the real paths.
"""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAYOUT = ROOT / "build" / "types"
PARTS = ("runtime", "export", "calibrate")
BESIDE = ("benchmarks", "reference")


def main() -> int:
    shutil.rmtree(LAYOUT, ignore_errors=True)
    package = LAYOUT / "promptray"
    package.mkdir(parents=True)
    for entry in [*(ROOT / "promptray").iterdir(), *(ROOT / part for part in PARTS)]:
        (package / entry.name).symlink_to(entry)

    for part in BESIDE:
        (LAYOUT / part).symlink_to(ROOT / part)

    command = [
        sys.executable,
        "-m",
        "mypy",
        "-p",
        "promptray",
        *(word for part in BESIDE for word in ("-p", part)),
    ]
    command += ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache")]
    done = subprocess.run(command, cwd=LAYOUT, capture_output=True, text=True)
    for part in PARTS:
        done.stdout = done.stdout.replace(f"promptray/{part}/", f"{part}/")
    print(done.stdout + done.stderr, end="")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
