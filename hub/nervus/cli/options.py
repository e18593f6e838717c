"""Options that several commands share."""

from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated

import typer

from nervus.errors import UsageError
from nervus.runtime.files import make_private_folder
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


def output_folder(path: Path) -> Path:
    """Return the absolute path of a folder that --out names, made when missing and private then.

    Raises:
        UsageError: It is none, or nothing can be written there.
    """
    target = path.absolute()
    try:
        if not target.exists():
            make_private_folder(target)
        with TemporaryFile(dir=target):
            return target
    except OSError as error:
        raise UsageError(
            f"nothing can be written there ({error.strerror})",
            where=str(target),
            hint="name a folder of yours with --out",
        ) from error
