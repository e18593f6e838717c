"""The state folder: everything an installation owns, under one path."""

import os
import pwd
import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self

from nervus.errors import UsageError
from nervus.runtime.files import make_private_folder

BrokerName = Literal["spinal", "core"]
BROKERS: Final[tuple[BrokerName, ...]] = ("spinal", "core")
_OURS: Final = frozenset({"nervus.toml", "policy.toml", "reflexes", "ca"})
"""One of them lies in each state folder: people prepare the first three, `ca` is made first."""


class StateFolderError(UsageError):
    """The state folder is missing or cannot be used."""


@dataclass(frozen=True, slots=True)
class StateFolder:
    """Paths of one installation. `create` makes it, `open` takes an existing one."""

    path: Path

    @classmethod
    def default_path(cls) -> Path:
        """`$NERVUS_STATE`, else `nervus` in the user's state folder (XDG)."""
        if named := os.environ.get("NERVUS_STATE"):
            return Path(named)
        base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        return Path(base) / "nervus"

    @classmethod
    def create(cls, path: Path) -> Self:
        """Create the folder tree with mode 0700, or complete an existing one.

        Raises:
            StateFolderError: The path is a file, another user's, the user may not write there, or
                other things lie there.
        """
        state = cls(path.absolute())
        if foreign := state.foreign():
            raise foreign
        try:
            if state._is_something_else():
                raise StateFolderError(
                    "other things lie here, and a state folder is private as a whole",
                    where=str(state.path),
                    hint=f"name a folder of its own: --state {shlex.quote(f'{state.path}/nervus')}",
                )
            for folder in state._folders():
                make_private_folder(folder)
        except (FileExistsError, NotADirectoryError) as error:
            raise StateFolderError(
                "a file stands where the state folder should be",
                where=str(error.filename),
                hint="move it away, or name another folder with --state",
            ) from error
        except OSError as error:
            raise StateFolderError(
                f"cannot create the state folder ({error.strerror})",
                where=str(error.filename or path),
                hint="name a folder you may write with --state",
            ) from error
        return state

    @classmethod
    def open(cls, path: Path) -> Self:
        """Take an existing state folder.

        Raises:
            StateFolderError: There is none at `path`, or it is not this user's.
        """
        state = cls(path.absolute())
        if foreign := state.foreign():
            raise foreign
        if not state.settings_file.is_file():
            raise StateFolderError(
                "there is no Nervus state folder here",
                where=str(state.path),
                hint="start the system once with `nervus up`, or name the folder with --state",
            )
        return state

    def foreign(self) -> StateFolderError | None:
        """Say what here is another user's, so that this one must not or cannot use it; else None.

        Root could, but what it writes its owner cannot read afterwards. So root by sudo keeps out
        of every user's place; root itself, as in a container on a folder of the machine outside,
        only out of an installation that is a user's already.
        """
        me, path = os.getuid(), str(self.path)
        around = (each for each in (self.path, *self.path.parents) if os.access(each, os.F_OK))
        first = next(around)
        owner = first.stat().st_uid
        how = ", without sudo,"
        if me == 0 and "SUDO_UID" not in os.environ:
            owner = self.settings_file.stat().st_uid if self.settings_file.exists() else 0
            how = f" (runuser -u; of a container: --user {owner}; of a unit: User=)"
        if me == 0 != owner:
            what = f"this state folder would be root's, in a place of {_user(owner)}"
            if first == self.path:
                what = f"this state folder belongs to {_user(owner)}"
            hint = f"run this as {_user(owner)}{how} or name another folder with --state"
            return StateFolderError(what, where=path, hint=hint)
        mend = f"sudo chown -R {_user(me)} {shlex.quote(path)}"
        if first == self.path and owner != me:
            return StateFolderError(
                f"this state folder belongs to {_user(owner)}",
                where=path,
                hint=f"if it is yours and sudo made it: {mend}; else run this as {_user(owner)}, "
                "or name another folder with --state",
            )
        if unreadable := self._unreadable(me):
            more = f" and {len(unreadable) - 1} more" * (len(unreadable) > 1)
            return StateFolderError(
                f"here are files of {_user(unreadable[0].lstat().st_uid)}, which you may not read",
                where=f"{unreadable[0]}{more}",
                hint=f"give them back, if sudo made them: {mend}",
            )
        return None

    def _is_something_else(self) -> bool:
        if not self.path.is_dir():
            return False
        names = {each.name for each in self.path.iterdir()} - {"lost+found"}
        return bool(names) and names.isdisjoint(_OURS)

    def _unreadable(self, me: int) -> list[Path]:
        """What lies in this folder, is another user's, and closed to this one."""
        found = []
        for folder, folders, files in os.walk(self.path):
            for name in (*folders, *files):
                path = Path(folder, name)
                # Others come and go while the system runs.
                with suppress(FileNotFoundError):
                    if path.lstat().st_uid != me and not os.access(path, os.R_OK):
                        found.append(path)
        return found

    @property
    def settings_file(self) -> Path:
        """The one configuration file, `nervus.toml`."""
        return self.path / "nervus.toml"

    @property
    def policy_file(self) -> Path:
        """What may be commanded by whom, `policy.toml`."""
        return self.path / "policy.toml"

    @property
    def ca(self) -> Path:
        """The local certificate authority: `cert.pem` and `key.pem`."""
        return self.path / "ca"

    @property
    def registry_file(self) -> Path:
        """Who exists: `identities.json`."""
        return self.path / "identities.json"

    @property
    def identities(self) -> Path:
        """One folder of key and certificates for each identity."""
        return self.path / "identities"

    @property
    def data(self) -> Path:
        """The stores, `*.db`."""
        return self.path / "data"

    @property
    def updates(self) -> Path:
        """What boards are to be updated with, and which: see `nervus.updates.Orders`."""
        return self.data / "updates"

    @property
    def update_key(self) -> Path:
        """The key that signs applications for boards, PEM; it may be kept elsewhere."""
        return self.path / "update-key.pem"

    @property
    def run(self) -> Path:
        """What lives only while the system runs: status, locks, process ids."""
        return self.path / "run"

    @property
    def status_file(self) -> Path:
        """The supervisor's account of its children, `run/status.json`."""
        return self.run / "status.json"

    @property
    def raw_file(self) -> Path:
        """Which measurements may rise, as policy has it in its audit: `run/raw.json`."""
        return self.run / "raw.json"

    @property
    def lock_file(self) -> Path:
        """Held by the one `nervus up` that runs on this folder."""
        return self.run / "up.lock"

    def identity(self, name: str) -> Path:
        """The folder of one identity's key and certificates."""
        return self.identities / name

    def broker(self, broker: BrokerName) -> Path:
        """A broker's folder: configuration, ACL, certificate and `data/`."""
        return self.path / "brokers" / broker

    def _folders(self) -> list[Path]:
        brokers = [self.broker(broker) for broker in BROKERS]
        return [
            self.path,
            self.ca,
            self.identities,
            self.data,
            self.updates,
            self.run,
            self.path / "brokers",
            *brokers,
            *(folder / "data" for folder in brokers),
        ]


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
