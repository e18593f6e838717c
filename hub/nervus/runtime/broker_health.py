"""Asks running brokers how they are: whether they let us in, and what they dropped."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from nervus.runtime.brokers import MAX_CONNECTIONS, MAX_QUEUED_MESSAGES, Broker, brokers
from nervus.runtime.finding import Finding, Verdict
from nervus.runtime.identity import Authority, Identity
from nervus.runtime.settings import Settings
from nervus.runtime.state import StateFolder

if TYPE_CHECKING:
    from nervus.wire import Packet

DOCTOR: Final = "doctor"
"""As whom it asks them."""

WITHIN_S: Final = 5.0
FIGURES_S: Final = 1.0
# As mosquitto names them; it retains each.
_DROPPED: Final = "$SYS/broker/publish/messages/dropped"
_CLIENTS: Final = "$SYS/broker/clients/connected"


def examine_brokers(state: StateFolder) -> Iterator[Finding]:
    """Look at each broker that runs, as the identity `doctor`, which `nervus up` issues."""
    who = Authority(state).find(DOCTOR)
    for broker in brokers(state, Settings.load(state.settings_file)):
        if who is not None and broker.running_pid() is not None:
            yield from asyncio.run(_ask(broker, who))


async def _ask(broker: Broker, who: Identity) -> list[Finding]:
    # A session takes half a second to load, which doctor need not wait for where no broker runs.
    from nervus.runtime.rights import session_of  # noqa: PLC0415

    figures: dict[str, int] = {}
    complete = asyncio.Event()

    async def take(packet: "Packet") -> None:
        figures[packet.topic] = int(packet.payload)
        # The last one asked for; that of what was dropped is there only once something was.
        if packet.topic == _CLIENTS:
            complete.set()

    async with session_of(who, broker, (_DROPPED, _CLIENTS), take) as session:
        with suppress(TimeoutError):
            await asyncio.wait_for(session.wait_connected(), WITHIN_S)
            # What is retained comes at once; a broker that has just started has no figures yet.
            await asyncio.wait_for(complete.wait(), FIGURES_S)
        trouble, connected = session.trouble, session.connected
    what = f"{broker.name} broker"
    if not connected:
        found, _, hint = (trouble or f"no answer within {WITHIN_S:g} s").partition("; ")
        return [Finding(Verdict.FAILURE, what, found, hint or "look at its log in `nervus up`")]
    return [judged(what, figures.get(_DROPPED, 0), figures.get(_CLIENTS, 1))]


def judged(what: str, dropped: int, clients: int) -> Finding:
    """Say how a broker is by its own figures since its start."""
    if dropped:
        found = f"dropped {dropped} messages since its start"
        hint = (
            f"a client takes longer than its queue of {MAX_QUEUED_MESSAGES} lasts: "
            "the broker's log names it (dropped for client)"
        )
        return Finding(Verdict.WARNING, what, found, hint)
    if clients > MAX_CONNECTIONS * 9 // 10:
        hint = "beyond it new clients are refused: end those that nobody needs"
        found = f"{clients} clients of {MAX_CONNECTIONS} at most"
        return Finding(Verdict.WARNING, what, found, hint)
    return Finding(Verdict.OK, what, f"{clients} clients, nothing dropped")
