"""`tools/generate [--check]`: write the generated files, or fail when one is out of date."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from generator import asyncapi, cbor, firmware, hostile, models, proto, topics
from generator.schemas import Schemas

ROOT = Path(__file__).resolve().parents[2]

TARGETS: dict[str, Callable[[Schemas], str | bytes]] = {
    "hub/nervus/wire/contracts.py": models.generate,
    "hub/nervus/wire/topics.py": topics.generate,
    "hub/nervus/wire/cbor_tables.py": lambda schemas: cbor.tables(schemas, list(schemas.contracts)),
    "schemas/numbers.json": lambda schemas: cbor.record(schemas, ROOT / "schemas"),
    "schemas/asyncapi.yaml": asyncapi.generate,
    "schemas/vectors/hostile.json": lambda s: hostile.generate(s, ROOT / "schemas/vectors"),
    "schemas/nervus.proto": proto.generate,
    "schemas/nervus.binpb": proto.descriptors,
    "firmware/lib/spinal/contracts.py": firmware.contracts,
    "firmware/lib/spinal/cbor_tables.py": firmware.cbor_tables,
    "firmware/lib/spinal/topics.py": firmware.topics,
}


def main() -> int:
    """Generate every target; with --check write nothing and return 1 when one differs."""
    parser = argparse.ArgumentParser(prog="tools/generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    check = parser.parse_args().check
    schemas = Schemas(ROOT / "schemas")
    stale = []
    for name, generate in TARGETS.items():
        path, made = ROOT / name, generate(schemas)
        data = made.encode() if isinstance(made, str) else made
        if path.is_file() and path.read_bytes() == data:
            continue
        stale.append(name)
        if not check:
            path.write_bytes(data)
            print(f"wrote {name}")
    if check and stale:
        print(f"out of date: {', '.join(stale)}: run tools/generate and commit", file=sys.stderr)
        return 1
    print(f"{len(TARGETS)} generated files are up to date")
    return 0


sys.exit(main())
