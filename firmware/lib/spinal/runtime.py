"""The board's program: one loop, inputs → reflexes → outputs first, the network after them."""

import gc
import os

from spinal import compat, link, topics
from spinal.board import Board
from spinal.clock import Clock
from spinal.contracts import MAX_BYTES
from spinal.efferent import Ledger
from spinal.envelope import Envelope, WireError, mark_historical
from spinal.ids import MessageIds
from spinal.inbound import Inbound
from spinal.outbox import Outbox
from spinal.outgoing import Outgoing
from spinal.reflex import Engine
from spinal.rejects import Rejects
from spinal.rulebook import RuleBook
from spinal.sensing import Sensing
from spinal.store import Store, StoreError
from spinal.ticks import elapsed, later
from spinal.upkeep import Upkeep, forget

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from spinal.outbox import Item
    from spinal.reflex import Firing
    from spinal.spill import Spill

_OUTBOX_MESSAGES = 256
_OUTBOX_LEAST = 4096
_IN_USE = 14336
_OUTBOX_MOST = 65536
_LONGEST_WAIT_MS = 50
_SECOND_MS = 1000
_PINGS_MISSED = 3
_LONGEST_PATIENCE_MS = 300000
_STATE_SPACING_MS = 1000
_STATES_ROOM = 4
_COUNTED = 24576  # bytes of a message, as the collector counts them
_LINES_A_SECOND = 10


class Runtime:
    """Everything a board is, assembled from its node file; `run` never returns.

    The node is the runtime's from then on: it lets go of what it has no more use for.
    NodeError when a part cannot be on its pin.
    """

    def __init__(self, node: dict) -> None:
        from spinal import wiring  # noqa: PLC0415 - let go of below

        self.node = node
        # Outputs take their boot state before anything else can fail.
        self.board = Board(node)
        self.ticks_ms = compat.ticks()
        self.values: dict = {}
        self._lines = 0
        self.store = Store(".", compat.fsync)
        self.upkeep: Any = None  # while it is made, there is only the console to tell
        self.boot = self._count_boot()
        self.rejects = Rejects()
        self.upkeep = Upkeep(self)
        self.clock = Clock()
        self._ids = MessageIds(os.urandom(10))
        self._envelope = Envelope(
            node["device_id"], self.boot, self._ids, self.clock, node["encoding"]
        )
        self.outbox = Outbox(
            _OUTBOX_MESSAGES, _OUTBOX_LEAST, mark=mark_historical, spill=_spill(node)
        )
        self._flush_at = self.ticks_ms
        self.outgoing = Outgoing(node, self._envelope, self.outbox)
        actuators = [wiring.declaration(actuator) for actuator in node["actuators"]]
        self.ledger = Ledger(actuators, self.stored("ledger"))
        limits = {"sensors": [s["id"] for s in node["sensors"]], "actuators": self.ledger.outputs}
        self.engine = Engine(limits, self.clock)
        self._rulebook = RuleBook(self.store)
        self._restore_rules()
        self._inbound = Inbound(self)
        self._sensors = [
            Sensing(sensor, config)
            for sensor, config in zip(self.board.sensors, node["sensors"])  # noqa: B905 - no strict here
        ]
        self.link = link.Link(
            _link_settings(node), self, self._dialler(), self.board.network_up, compat.random_below
        )
        self._session = ""
        self._ping_at = self.ticks_ms
        self._heard_at = self.ticks_ms
        self._patience_ms = self._first_patience()
        self._second_at = self.ticks_ms
        self._states_due: dict = {}
        self._birth = wiring.birth(node, self.upkeep.version)
        # Their parts know what they need; as the node file has them they take 2 KiB more.
        del node["sensors"], node["actuators"], wiring
        forget("wiring")
        self._shed = 0
        self._collected_at = 0
        gc.collect()
        # The loop collects before the interpreter does; what stays must not be scattered before.
        # What it counts is three parts of four given back at once: the frames of calls. With all
        # that is free, in some sizes of heap a message of 1,280 bytes found no place in the end.
        free = gc.mem_free()
        gc.threshold(3 * free // 4)
        self._interval = max(1, 3 * free // 4 // _COUNTED)  # in messages
        # A third of what TLS, the rules to come and the messages at hand do not need may wait.
        self._room = max(_OUTBOX_LEAST, min((free - _IN_USE) // 3, _OUTBOX_MOST))
        self.outbox.allow(self._room)
        self.log(
            "boot %d of %s, %d bytes of heap free" % (self.boot, self.upkeep.version, gc.mem_free())
        )

    def run(self) -> None:
        """Sense, react, talk, for ever."""
        self.drive(self.ledger.boot_outputs(self.ticks_ms))
        self.store_ledger()
        # Until the first connection the link counts as lost: a boot state may not be for ever.
        self.ledger.link_lost(self.ticks_ms)
        self.upkeep.start()
        while True:
            self.turn()

    def turn(self) -> None:
        """A step, then a rest until something wants another one."""
        began = compat.microseconds()
        self.step()
        if self.upkeep.turn(compat.microseconds(began)) or self.outbox.spill_step():
            return
        item = self.outbox.next()
        wait = 0
        if item is None or not self.link.can_take(item.qos):
            wait = self.link.wait_ms(self.ticks_ms)
        if wait:
            wait = min(wait, self.ledger.wait_ms(self.ticks_ms), self._sensor_wait())
        messages = self._envelope.last_seq + self.link.counters["received"]
        if messages - self._collected_at >= self._interval:
            # Here no input waits for it; the interpreter would do it in the midst of a reflex.
            if self._rest(0):
                return
            gc.collect()
            self._collected_at = messages
        self._rest(wait)

    def step(self) -> None:
        """One turn of the loop."""
        self.ticks_ms = compat.ticks()
        self._sense()
        due = self.ledger.tick(self.ticks_ms)
        if due:
            self.drive(due)
            self.report(due)
        if elapsed(self.ticks_ms, self._second_at) >= 0:
            self._each_second()
        try:
            self._talk()
        except MemoryError:
            # Better to lose what waits, and to say so, than to begin anew with outputs held.
            self.outbox.shrink()
            gc.collect()

    def log(self, text: str, level: str = "info") -> None:
        """One line on the console; a warning or an error goes to the hub as well.

        A serial console holds the loop up: of a flood of notes ten a second are told, and counted.
        """
        if level == "info":
            self._lines += 1
            if self._lines > _LINES_A_SECOND:
                return
        line = "[%d] %s" % (self.ticks_ms, text)
        print(line)  # noqa: T201 - the console is a board's log
        if self.upkeep is not None:
            self.upkeep.log(level, line)

    # Called by the parts.

    def drive(self, effects: list) -> str | None:
        """Drive the outputs among the effects; what went wrong with one, or None."""
        problem = None
        for effect in effects:
            if effect[0] == "output":
                try:
                    self.board.actuators[effect[1]].set(effect[2])
                except OSError as error:
                    problem = "%s cannot be driven: %s" % (effect[1], error)
                    self.log(problem, "error")
        return problem

    def report(self, effects: list) -> None:
        """Store what the reports among the effects say, then queue them."""
        reports = [effect for effect in effects if effect[0] == "report"]
        if not reports:
            return
        self.store_ledger()
        for _, action_id, actuator, payload in reports:
            self.outgoing.efferent_report(action_id, actuator, payload, self.ticks_ms)

    def fire(self, firing: "Firing", action_id: str | None = None) -> None:
        """Do what a reflex wants, then queue the report of it."""
        done = []
        publications = []
        if not firing.dry_run:
            for step in firing.actions:
                if "publish" in step:
                    publications.append(step["publish"])
                else:
                    effects = self.ledger.act(step, self.ticks_ms)
                    problem = self.drive(effects)
                    if problem:
                        self.engine.failed(firing.reflex_id, "output_failed", problem)
                    done.extend(effects)
        self.report(done)
        for signal in publications:
            self.outgoing.afferent(
                signal["sensor_type"], signal["value"], self.ticks_ms, unit=signal.get("unit")
            )
        action_id = action_id or self._ids.next()
        self.outgoing.reflex_fire(action_id, firing.reflex_id, firing.payload(), self.ticks_ms)
        if self.engine.hash(firing.reflex_id) is not None:
            self._states_due.setdefault(firing.reflex_id, later(self.ticks_ms, _STATE_SPACING_MS))

    def refuse(self, error: WireError, topic: str | None = None, data: bytes = b"") -> None:
        """Count and report something refused."""
        self.log("refused %s: %s" % (error.code, error.text))
        payload = self.rejects.add(
            error.code,
            error.stage,
            t_ms=self.clock.now(self.ticks_ms)[0],
            ticks_ms=self.ticks_ms,
            text=error.text,
            topic=topic,
            meta=error.meta,
            data=data,
        )
        if payload is not None:
            self.outgoing.reject(payload, self.ticks_ms)

    def stored(self, name: str) -> "Any":
        """What the flash has under a name, None when nothing can be read."""
        try:
            return self.store.read(name)
        except StoreError as error:
            self.log("%s is lost: %s" % (name, error), "error")
            return None

    def keep(self, name: str, value: object) -> bool:
        """Keep a value; returns once it is on the flash, False when that takes no more."""
        try:
            self.store.write(name, value)
        except (OSError, StoreError) as error:
            self.log("%s is not kept: %r" % (name, error), "error")
            return False
        return True

    def store_ledger(self) -> bool:
        """Keep the ledger; whether it is on the flash."""
        return self.keep("ledger", self.ledger.stored())

    def store_rule(self, reflex_id: str, payload: dict | None) -> dict | None:
        """Keep a rule on the flash, None forgets it; the error when that fails, else None."""
        try:
            self._rulebook.keep(reflex_id, payload)
        except (OSError, StoreError) as error:
            text = "the rule cannot be stored: %s" % error
            return {"code": "store_failed", "message": text[:256], "kind": "retriable"}
        return None

    def report_reflex(self, reflex_id: str) -> None:
        """Publish the retained state of a reflex, or that there is none any more."""
        state = self.engine.state(reflex_id)
        self.outgoing.reflex_state(reflex_id, state, self.ticks_ms)

    def heard_hub(self) -> None:
        """The hub answered: the whole way is alive."""
        if elapsed(self.ticks_ms, self._heard_at) > 0:
            self._heard_at = self.ticks_ms
        self._patience_ms = self._first_patience()

    @property
    def linked(self) -> bool:
        """Whether the broker can be talked to now."""
        return self.link.state == link.UP

    # Called by the link.

    def link_will(self) -> tuple[str, bytes]:
        """A new session begins with the attempt to connect."""
        self._session = self._ids.next()
        return self.outgoing.will(self._session, self.ticks_ms)

    def link_filters(self) -> list:
        """What a board subscribes to."""
        node = self.node
        return topics.filters(node["scope_level"], node["scope"], node["device_id"])

    def link_up(self) -> None:
        """Say who is here, what it keeps, and what a reboot cut off."""
        self.log("link up, session " + self._session)
        self.clock.new_session()
        self.outbox.link_up()
        self.outbox.allow(self._room)
        self.ledger.link_up()
        self._heard_at = self.ticks_ms
        self._ping_at = self.ticks_ms
        self.outgoing.status("online", self._session, self.ticks_ms)
        self.outgoing.info(self._birth, self.ticks_ms)
        self.upkeep.link_up()
        for reflex_id in self.engine.names():
            self._states_due[reflex_id] = self.ticks_ms
        self.report(self.ledger.interrupted())

    def link_down(self, reason: str, _tickets: list) -> None:
        """Nothing the hub said about time holds any more; what was in flight goes again."""
        self.log("link down: %s (%s)" % (reason, self.link.last_error[1]))
        self.clock.new_session()
        self.outbox.link_lost()
        self.ledger.link_lost(self.ticks_ms)
        if reason == "oversize":
            self.refuse(WireError("oversize", "size", self.link.last_error[1]))
        elif reason == "tls":
            self.upkeep.refuse(self.link.last_error[1])
        elif reason == "no_memory":
            self.outbox.shrink()  # or it might stay so for ever

    def link_message(self, topic: bytes, payload: bytes, *, retained: bool) -> "Iterator[None]":
        """A message for this board, and the work on it."""
        return self._inbound.take(topic, payload, self.ticks_ms, retained=retained)

    def link_oversize(self, topic: bytes, text: str) -> None:
        """A message for this board that is larger than any it takes."""
        self._inbound.passed_over(topic, text)

    def link_acked(self, ticket: "Item") -> None:
        """The broker has the message."""
        self.outbox.acked(ticket)
        self.upkeep.acked(ticket.topic)

    def _sense(self) -> None:
        due = False
        for sensor in self._sensors:
            if sensor.read(self.ticks_ms):
                self.values[sensor.id] = sensor.value
                due = True
                if sensor.news is not None:
                    self.log(sensor.news, "warning")
                    sensor.news = None
        for firing in self.engine.evaluate(self.values, self.ticks_ms):
            self.fire(firing)
        if not due:
            return
        for sensor in self._sensors:
            kind = sensor.take_report(self.ticks_ms)
            if kind is not None:
                self.outgoing.afferent(
                    sensor.id,
                    sensor.settled,
                    self.ticks_ms,
                    unit=sensor.unit,
                    ttl_ms=sensor.ttl_ms,
                    critical=kind == "critical",
                )

    def _talk(self) -> None:
        if self.link.state == link.UP:
            self._ask_hub()
            self._report_state()
        item = self.outbox.next()
        while item is not None and self.link.can_take(item.qos):
            if not self.link.publish(
                item.topic, item.data, item.qos, retain=item.retain, ticket=item
            ):
                return
            self.outbox.sent(item)
            item = self.outbox.next()
        self.link.poll(self.ticks_ms)

    def _report_state(self) -> None:
        # One at a time, while there is room: the states of 32 rules at once would fill the heap.
        if len(self.outbox) >= _STATES_ROOM:
            return
        for reflex_id, due in self._states_due.items():
            if elapsed(self.ticks_ms, due) >= 0:
                del self._states_due[reflex_id]
                self.report_reflex(reflex_id)
                return

    def _rest(self, ms: int) -> bool:
        return self.board.wait(ms, self.link.sock, wants_write=self.link.wants_write)

    def _sensor_wait(self) -> int:
        wait = _LONGEST_WAIT_MS
        for sensor in self._sensors:
            wait = min(wait, max(0, -elapsed(self.ticks_ms, sensor.due)))
        return wait

    def _each_second(self) -> None:
        self._second_at = later(self.ticks_ms, _SECOND_MS)
        unix_ms = self.clock.unix_ms(self.ticks_ms)
        if unix_ms is not None:
            for reflex_id in self.engine.expire(unix_ms):
                self.report_reflex(reflex_id)
        # Collecting here, with nothing to do, keeps it out of the way of a reflex.
        gc.collect()
        untold, self._lines = self._lines - _LINES_A_SECOND, 0
        if untold > 0:
            self.log("%d more notes in this second" % untold)
        for payload in self.rejects.tick(self.clock.now(self.ticks_ms)[0], self.ticks_ms):
            self.outgoing.reject(payload, self.ticks_ms)
        self.upkeep.each_second()
        # Here, with the watchdog running: radios hang.
        news = self.board.radio and self.board.radio.keep(self.ticks_ms, linked=self.linked)
        if news:
            self.log(news)
        gone = self.outbox.take_drops()
        self.upkeep.dropped(gone)
        if self.outbox.dropped != self._shed:
            self._shed = self.outbox.dropped
            text = "will never come: sequence numbers " + str(gone)
            self.refuse(WireError("queue_full", "queue", text))
        self._flush()

    def _flush(self) -> None:
        """Bring to the flash what has waited for long; so much of an outage a power cut costs."""
        if self.linked:
            self._flush_at = later(self.ticks_ms, self.node["outbox_flush_s"] * _SECOND_MS)
        elif elapsed(self.ticks_ms, self._flush_at) >= 0:
            self._flush_at = later(self.ticks_ms, self.node["outbox_flush_s"] * _SECOND_MS)
            self.outbox.begin_spill()
        if self.outbox.spill_error is not None:
            self.log("the flash keeps no messages: " + self.outbox.spill_error, "error")
            self.outbox.spill_error = None

    def _ask_hub(self) -> None:
        # More may come than a board can read: a pong behind it is not missing.
        if elapsed(self.link.caught_up_at, self._heard_at) > self._patience_ms:
            # The broker answers and the hub does not: a new connection is worth a try, ever more
            # rarely, since it cannot mend a hub that is down.
            self._patience_ms = min(2 * self._patience_ms, _LONGEST_PATIENCE_MS)
            self.link.close("no_pong")
        elif elapsed(self.ticks_ms, self._ping_at) >= 0:
            self._ping_at = later(self.ticks_ms, self.node["ping_s"] * _SECOND_MS)
            self.outgoing.ping(self.clock.ping(self.ticks_ms), self.ticks_ms)

    def _first_patience(self) -> int:
        return _PINGS_MISSED * self.node["ping_s"] * _SECOND_MS

    def _count_boot(self) -> int:
        stored = self.stored("boot")
        boot = (stored["boot"] if stored else 0) + 1
        self.keep("boot", {"boot": boot})
        return boot

    def _restore_rules(self) -> None:
        rules, problems = self._rulebook.load()
        for reflex_id, error in self.engine.restore(rules):
            problems.append("%s: %s" % (reflex_id, error))
        for problem in problems:
            self.log("a reflex is not restored: " + problem, "error")
        if self.upkeep.safe:
            # One of them may be what the board does not get over; which one, nobody can tell.
            suspended = {rule["reflex_id"]: rule["version"] for rule in rules}
            self.keep("suspended", suspended)
            self.log("safe mode: %d reflexes are off" % len(suspended), "error")
        for reflex_id, version in (self.stored("suspended") or {}).items():
            self.engine.suspend(reflex_id, version)

    def _dialler(self) -> object:
        identity = self.node["identity"]
        if identity is None:
            return compat.Dialler()
        try:
            context = compat.tls_context(identity["cert"], identity["key"], identity["ca"])
            self.upkeep.begin()
        except (OSError, ValueError) as error:
            self.log("no link without an identity: %s" % error, "error")
            context = error  # and the reflexes run all the same
        return compat.Dialler(context, self.node["broker"]["server_name"])


def _spill(node: dict) -> "Spill | None":
    if not node["outbox_flash_kb"]:
        return None
    from spinal.spill import Spill  # noqa: PLC0415 - a board without it keeps the heap it takes

    return Spill(".", node["outbox_flash_kb"] * 1024, compat.fsync)


def _link_settings(node: dict) -> link.Settings:
    return link.Settings(
        node["device_id"],
        node["broker"]["host"],
        node["broker"]["port"],
        keepalive_s=node["keepalive_s"],
        max_packet=max(MAX_BYTES.values()) + 512,  # topic and lengths come on top of a message
    )
