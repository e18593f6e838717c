"""Rights of identities on brokers that run: written, and known to be in force.

mosquitto reads its list of rights again on SIGHUP, says nothing about it, and misses a signal that
comes while it reads. So each list lets its prober write one topic that no other list knows: when
the broker takes a message there, it holds to that list.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import Final

from nervus.bus import BrokerAddress, Filter, PublishDeniedError, Session
from nervus.errors import NervusError
from nervus.runtime.brokers import Broker, brokers
from nervus.runtime.files import LockedError, locked
from nervus.runtime.identity import Authority, Identity
from nervus.runtime.listening import listens
from nervus.runtime.settings import Settings
from nervus.runtime.state import BrokerName, StateFolder
from nervus.tasks import cancel_and_wait
from nervus.wire import Packet

ROLE: Final = "cleaner"
"""Of a prober: a role without rights of its own."""

WITHIN_S: Final = 10.0
PAUSE_S: Final = 0.05
_LOOKS: Final = 4
"""Looks at the effect of one signal before the next is sent."""


class RightsError(NervusError):
    """Rights are written, but a broker that runs is not known to hold to them."""


async def refresh_rights(
    state: StateFolder,
    settings: Settings,
    authority: Authority,
    prober: str,
    *,
    within_s: float = WITHIN_S,
) -> list[BrokerName]:
    """Write everybody's rights anew and put them in force on the brokers that run.

    Args:
        state: Whose brokers.
        settings: Where they are.
        authority: Whose identities; issues `prober` when it must.
        prober: As whom to see whether they are in force; nobody else may use it meanwhile.
        within_s: How long a broker may take, in seconds.

    Returns:
        The brokers that hold to them now; one that does not run reads them when it starts.

    Raises:
        RightsError: A broker that runs does not hold to them in time, or somebody else is at it.
    """
    async with alone(state, within_s):
        both = brokers(state, settings)
        for broker in both:
            await asyncio.to_thread(broker.write_acl, authority)
        running = [broker for broker in both if broker.running_pid() is not None]
        if not running:
            return []
        who = await asyncio.to_thread(authority.ensure, prober, ROLE)

        async def refresh(broker: Broker) -> BrokerName | None:
            try:
                async with asyncio.timeout(within_s):
                    if not await serves(broker):
                        return None
                    await put_in_force(broker, authority, who)
                    return broker.name
            except TimeoutError as error:
                raise RightsError(
                    f"the rights are written, but the {broker.name} broker does not hold to them "
                    f"after {within_s:g} s",
                    where=str(broker.acl_file),
                    hint="is it stuck? look at `nervus doctor`; they hold from its next start on",
                ) from error

        told = await asyncio.gather(*(refresh(broker) for broker in running))
    return [name for name in told if name is not None]


async def put_in_force(
    broker: Broker, authority: Authority, who: Identity, lent: Sequence[str] = ()
) -> str:
    """Write the rights of all identities, and return once a broker that serves holds to them.

    Waits as long as that takes; whoever calls it is `alone` and has a deadline.

    Args:
        broker: Which serves.
        authority: Whose identities.
        who: As whom to look.
        lent: Further rights of `who`, until rights are written again.

    Returns:
        A topic that `who` alone may write and read until then.
    """
    marker = f"rights-{secrets.token_hex(8)}"
    lines = [f"user {who.name}", f"topic readwrite {marker}", *lent]
    async with session_of(who, broker) as session:
        while True:
            # Again and again: whoever revokes an identity writes them too, and waits for nobody.
            await asyncio.to_thread(broker.write_acl, authority, lines)
            broker.reload()
            for _ in range(_LOOKS):
                if await _may_write(session, marker):
                    return marker
                await asyncio.sleep(PAUSE_S)


async def serves(broker: Broker) -> bool:
    """Wait until a broker that runs listens; one that is just starting would die of a reload.

    Returns:
        False when it does not run.
    """
    while (pid := broker.running_pid()) is not None:
        if listens(pid, broker.settings.port):
            return True
        await asyncio.sleep(PAUSE_S)
    return False


@asynccontextmanager
async def session_of(
    who: Identity,
    broker: Broker,
    filters: Sequence[str] = (),
    take: Callable[[Packet], Awaitable[None]] | None = None,
) -> AsyncIterator[Session]:
    """A session on a broker while the block runs; it may connect later than the block begins."""
    listener = broker.settings
    address = BrokerAddress(listener.connect_host, listener.port, who.ssl_context())
    session = Session(
        who.name,
        broker.name,
        address,
        on_packet=take,
        filters=[Filter(each, 1) for each in filters],
    )
    task = asyncio.create_task(session.run(), name=f"{who.name} {broker.name}")
    try:
        yield session
    finally:
        await cancel_and_wait(task)


@asynccontextmanager
async def alone(state: StateFolder, within_s: float = WITHIN_S) -> AsyncIterator[None]:
    """Keep others away who put rights in force and look whether they are.

    Raises:
        RightsError: Another was at it all the time.
    """
    with ExitStack() as held:
        try:
            async with asyncio.timeout(within_s):
                while True:
                    try:
                        held.enter_context(locked(state.run / "rights.lock", wait=False))
                        break
                    except LockedError:
                        await asyncio.sleep(PAUSE_S)
        except TimeoutError as error:
            raise RightsError(
                "somebody else changes rights, or is cleaning",
                where=str(state.path),
                hint="try again",
            ) from error
        yield


async def _may_write(session: Session, topic: str) -> bool:
    try:
        # Whoever asks has a deadline of its own.
        await session.publish(topic, b"", qos=1, deadline_s=2 * WITHIN_S)
    except PublishDeniedError:
        return False
    return True
