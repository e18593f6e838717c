"""Taking an identity back: its certificates, its rights, and the sessions it still holds."""

import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from nervus.errors import NervusError
from nervus.runtime.brokers import Broker, brokers
from nervus.runtime.identity import Authority, RevokedCertificate
from nervus.runtime.settings import Settings
from nervus.runtime.state import BrokerName, StateFolder
from nervus.runtime.status import read_status

# Sessions are cut after START_S + 2 * END_S at the latest, half of the 60 s promised.
END_S: Final = 5.0
START_S: Final = 20.0
_PAUSE_S: Final = 0.02


class RevocationError(NervusError):
    """A revocation is written, but a running broker is not known to hold to it."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """What was taken back, and which brokers ended every session to have it in force."""

    certificates: tuple[RevokedCertificate, ...]
    restarted: tuple[BrokerName, ...]


def revoke(
    state: StateFolder,
    settings: Settings,
    authority: Authority,
    name: str,
    *,
    end_s: float = END_S,
    start_s: float = START_S,
) -> Revocation:
    """Take an identity back; on return it is out of every broker that runs, and stays out.

    Running brokers are ended, and their supervisor starts them again: every session is cut for a
    moment, those of the revoked identity for good.

    Args:
        state: Whose identity.
        settings: Where the brokers are.
        authority: Who issued it.
        name: The identity.
        end_s: How long a broker may take to end before it is killed, in seconds.
        start_s: How long a broker may take to come back, in seconds.

    Raises:
        IdentityError: There is no such identity, or it is a broker.
        RevocationError: A broker did not come back; the revocation holds from its next start.
    """
    certificates = authority.revoke(name)
    both = brokers(state, settings)
    for broker in both:
        broker.write_acl(authority)
    if read_status(state) is not None:
        # One that is just starting may have read its files before they were written.
        _wait(lambda: all(broker.running_pid() for broker in both), start_s)
    running = {broker: pid for broker in both if (pid := broker.running_pid()) is not None}
    _end(running, end_s)
    gone = [broker for broker, old in running.items() if not _is_back(broker, old, start_s)]
    if gone:
        raise RevocationError(
            f"{' and '.join(f'the {broker.name} broker' for broker in gone)} ended to cut the "
            f"sessions of {name!r} and did not come back",
            where=str(state.path),
            hint="start it again: the revocation holds from then on",
        )
    return Revocation(tuple(certificates), tuple(broker.name for broker in running))


def _end(running: Mapping[Broker, int], within_s: float) -> None:
    """Make broker processes end, by force where asking does not help."""

    def left() -> list[int]:
        return [pid for broker, pid in running.items() if broker.runs_as(pid)]

    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in left():
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        if _wait(lambda: not left(), within_s):
            return


def _is_back(broker: Broker, old: int, within_s: float) -> bool:
    return _wait(lambda: broker.running_pid() not in {None, old}, within_s)


def _wait(condition: Callable[[], bool], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_S)
    return True
