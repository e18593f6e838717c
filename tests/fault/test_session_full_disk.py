"""A broker whose disk is full: it serves on, loses what it could not save, and gets it again."""

from pathlib import Path

from fault.kept_part import QUICK, Watcher, alert, living
from hub.plain_broker import PlainBroker, running, within
from nervus.bus import Outgoing, PublishError, Session
from nervus.runtime.brokers import Broker
from nervus.runtime.settings import create_settings
from nervus.runtime.state import StateFolder

LIMIT = 1 << 20
ROOMS = [f"room-{number}" for number in range(20)]


async def test_what_a_broker_could_not_save_is_published_again_by_its_owner(
    tmp_path: Path,
) -> None:
    database = f"persistence true\npersistence_location {tmp_path}/\nautosave_on_changes true\n"
    broker = PlainBroker(tmp_path, extra=database + "autosave_interval 1")
    await broker.start()
    filler = Session("filler", "core", broker.address, limits=QUICK)
    confirmed: list[PublishError | None] = []
    async with running(filler), living(broker, tmp_path) as part:
        # More than the disk will hold: from here on no state gets into the database any more.
        for number in range(2 * LIMIT // 60_000):
            message = Outgoing(f"t/{number}", b"x" * 60_000, 1, retain=True, done=confirmed.append)
            filler.post(message)
        await within(lambda: len(confirmed) == 2 * LIMIT // 60_000)
        saved = tmp_path / "mosquitto.db"
        await within(lambda: saved.exists() and saved.stat().st_size > LIMIT)
        broker.fill_disk(LIMIT)
        for room in ROOMS:
            await part.shell.offer(alert(room))
        await within(lambda: part.session.counters.published == len(ROOMS))
        await within(lambda: "File too large" in broker.log())
        assert part.session.counters.reconnects == 0
        assert b"room-" not in saved.read_bytes()
        # The disk has room again, but what it could not save is gone with the process.
        broker.kill()
        await broker.start()
        watcher = Watcher(broker)
        async with running(watcher.session):
            await within(lambda: {p.topic.split("/")[5] for p in watcher.packets} == set(ROOMS))
        assert part.session.trouble is None
    assert confirmed == [None] * len(confirmed)
    assert part.session.counters.shed == part.session.counters.refused == 0
    broker.kill()


async def test_a_full_disk_that_costs_the_broker_its_database_costs_no_state(
    tmp_path: Path,
) -> None:
    """Mosquitto puts as much of its database as it could write in the place of the old one."""
    state = StateFolder.create(tmp_path / "state")
    kept = Broker("core", state, create_settings(state).brokers.core)
    database = f"persistence true\npersistence_location {kept.database.parent}/\n"
    broker = PlainBroker(tmp_path, extra=database + "autosave_on_changes true\nautosave_interval 1")
    await broker.start()
    watcher = Watcher(broker)
    async with running(watcher.session), living(broker, tmp_path) as part:
        # Not even a line of its log gets to the disk.
        broker.fill_disk(1)
        size = len(broker.log())
        for room in ROOMS:
            await part.shell.offer(alert(room))
        await within(lambda: len(watcher.packets) == len(ROOMS))
        assert part.session.counters.reconnects == 0
        assert len(broker.log()) == size
        await within(lambda: kept.database.exists() and kept.database.stat().st_size == 1)
        broker.kill()
        broker.launch()
        await within(lambda: broker.exit_code is not None)
        told = kept.recover(broker.exit_code or 0, broker.log().splitlines()[-5:])
        assert "the broker's database is corrupt" in (told or "")
        await broker.start()
        # Those who read live get them again, and so does who comes later.
        await within(lambda: len(watcher.packets) == 2 * len(ROOMS))
        late = Watcher(broker, "late")
        async with running(late.session):
            await within(lambda: {p.topic for p in late.packets if p.retain} == rooms(watcher))
    broker.kill()


def rooms(watcher: Watcher) -> set[str]:
    """The topics of what it saw, one for each room."""
    topics = {packet.topic for packet in watcher.packets}
    assert len(topics) == len(ROOMS)
    return topics
