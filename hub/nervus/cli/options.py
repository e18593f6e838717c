"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from nervus.runtime.state import StateFolder

State = Annotated[
    Path,
    typer.Option(
        "--state",
        readable=False,  # StateFolder says more of one that is not
        metavar="DIR",
        help="The state folder: settings, keys, stores. Also $NERVUS_STATE.",
        default_factory=StateFolder.default_path,
        show_default=str(Path("~/.local/state/nervus")),
    ),
]

AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
