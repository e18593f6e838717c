"""Checks the firmware's types against the stubs of each port that it runs on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).resolve().parents[2]
_TOOLS: Final = _ROOT / ".tools"
_CONFIG: Final = Path(__file__).with_name("firmware_types.ini")


def main() -> int:
    """Run mypy once for each port; returns the first exit status that is not 0."""
    firmware = _ROOT / "firmware"
    ports = sorted(folder.name for folder in (_TOOLS / "stubs").iterdir())
    if not ports:
        print("there are no stubs; run: tools/setup --test", file=sys.stderr)
        return 1
    for port in ports:
        stubs = _TOOLS / "stubs" / port
        folders = (_TOOLS / "umqtt", stubs, firmware / "lib")
        command = [
            *(sys.executable, "-m", "mypy", "--config-file", str(_CONFIG)),
            *("--custom-typeshed-dir", str(stubs), "--cache-dir", str(_TOOLS / "mypy" / port)),
            *map(str, (firmware / "lib" / "spinal", firmware / "boot.py", firmware / "main.py")),
        ]
        print(f"{port}: ", end="", flush=True)
        environment = {**os.environ, "MYPYPATH": os.pathsep.join(map(str, folders))}
        status = subprocess.run(command, env=environment, cwd=_ROOT, check=False).returncode  # noqa: S603 - mypy on our own files
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
