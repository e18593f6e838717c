"""Erases retained messages that nobody stands for, with rights lent for the moment.

The role cleaner has no standing rights: whoever may erase everything may also command everything.
It may read while it looks, then write exactly the topics it erases, then nothing again.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from nervus.bus import PublishError, Session
from nervus.errors import NervusError
from nervus.runtime.brokers import Broker, brokers
from nervus.runtime.identity import Authority, Identity
from nervus.runtime.orphans import Judge, Orphan
from nervus.runtime.rights import ROLE, WITHIN_S, alone, put_in_force, serves, session_of
from nervus.runtime.settings import Settings
from nervus.runtime.state import StateFolder
from nervus.wire import Packet

EVERYTHING: Final = ("#",)
_LOG: Final = logging.getLogger(__name__)


class CleanError(NervusError):
    """A broker could not be looked at, or did not let its messages be erased."""


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for.

    Args:
        filters: Which topics to look at.
        only: Which brokers to look at.
        wanted: Which orphans are meant.
        disowned: Somebody alive who stands for nothing that is retained now.
    """

    filters: Sequence[str] = EVERYTHING
    only: Collection[str] = ("spinal", "core")
    wanted: Callable[[Orphan], bool] = lambda _: True
    disowned: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What a look at the brokers found: how many retained messages, and those to be erased."""

    retained: int
    orphans: tuple[Orphan, ...]


async def clean(
    state: StateFolder,
    settings: Settings,
    authority: Authority,
    identity: str,
    search: Search | None = None,
    *,
    erase: bool,
) -> Found:
    """Look at the running brokers, and erase what nobody stands for if told to.

    Args:
        state: Whose brokers.
        settings: Where they are.
        authority: Who is alive; issues `identity` when it must.
        identity: As whom to connect, in the role cleaner; nobody else may use it meanwhile.
        search: What to look for; without it everything.
        erase: Whether orphans are erased, or only told.

    Raises:
        CleanError: A broker does not run, does not answer, or denies what was lent.
        RightsError: Somebody else lends or changes rights all the time.
    """
    search = search or Search()
    who = await asyncio.to_thread(authority.ensure, identity, ROLE)
    judge = Judge(authority.identities(), search.disowned)
    retained, orphans = 0, []
    async with alone(state):
        for broker in brokers(state, settings):
            if broker.name not in search.only:
                continue
            cleaner = _Cleaner(broker, who, authority, judge)
            number, found = await cleaner.look(search)
            retained += number
            orphans += found
            if erase and found:
                await cleaner.erase(found)
    return Found(retained, tuple(orphans))


class _Cleaner:
    """One broker and the identity that cleans it."""

    def __init__(self, broker: Broker, who: Identity, authority: Authority, judge: Judge) -> None:
        self._broker = broker
        self._who = who
        self._authority = authority
        self._judge = judge

    async def look(self, search: Search) -> tuple[int, list[Orphan]]:
        """How many messages are retained, and which of them are orphans."""
        packets: dict[str, Packet] = {}
        settled = asyncio.Event()

        async def take(packet: Packet) -> None:
            if packet.retain and packet.payload:
                packets[packet.topic] = packet
            elif packet.topic == marker:
                settled.set()

        async with self._lent([f"topic read {each}" for each in search.filters]) as marker:
            seen = search.filters if "#" in search.filters else (*search.filters, marker)
            async with session_of(self._who, self._broker, seen, take) as session:
                # It comes behind what the subscription brought.
                await self._publish(session, marker, retain=False)
                await settled.wait()
        now_ms = time.time_ns() // 1_000_000
        found = [self._judge.orphan(each, now_ms) for each in packets.values()]
        return len(packets), [each for each in found if each is not None and search.wanted(each)]

    async def erase(self, orphans: Iterable[Orphan]) -> None:
        """Replace retained messages by nothing."""
        topics = [each.packet.topic for each in orphans]
        for topic in topics:
            # It becomes a line of the broker's list of rights: never two.
            if not topic.isprintable() or topic != topic.strip():
                raise CleanError(
                    "cannot be erased: its name holds what no topic of ours holds",
                    where=repr(topic),
                    hint="erase it by hand with mosquitto_pub -r -n",
                )
        lines = [f"topic write {topic}" for topic in topics]
        async with self._lent(lines), session_of(self._who, self._broker) as session:
            for topic in topics:
                try:
                    await self._publish(session, topic, retain=True)
                except PublishError as error:
                    raise CleanError(
                        f"not erased: {error.what}", where=topic, hint="try again"
                    ) from error
        _LOG.info("erased %d retained messages on %s", len(topics), self._broker.name)

    @asynccontextmanager
    async def _lent(self, lines: Sequence[str]) -> AsyncIterator[str]:
        """Lend rights while the block runs, within its deadline; gives a topic to mark time with.

        Rights are in force when it begins, and taken back when it has ended: both were tried.
        """
        async with self._deadline():
            if not await serves(self._broker):
                raise CleanError(
                    "the broker does not run",
                    where=self._broker.name,
                    hint="start the system: nervus up",
                )
        try:
            async with self._deadline():
                yield await put_in_force(self._broker, self._authority, self._who, lines)
        finally:
            async with self._deadline():
                await put_in_force(self._broker, self._authority, self._who)

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(WITHIN_S):
                yield
        except TimeoutError as error:
            raise CleanError(
                f"no answer within {WITHIN_S:g} s",
                where=self._broker.name,
                hint="look at it with `nervus status`, then try again",
            ) from error

    async def _publish(self, session: Session, topic: str, *, retain: bool) -> None:
        await session.publish(topic, b"", qos=1, retain=retain, deadline_s=WITHIN_S)
