"""What reaches this board: checked as the guard does, then done or refused with a reason."""

import gc

from spinal import topics
from spinal.contracts import MAX_BYTES, SCHEMAS, TABLE
from spinal.envelope import Recent, WireError, checked, decode, expired, produced_unix_ms
from spinal.schema import check, part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from spinal.runtime import Runtime

_ANSWERS_KEPT = 32
_FUTURE_LIMIT_MS = 60000


class Inbound:
    """Takes messages from the link to the parts of the board.

    `board` is the runtime: it owns the parts, drives outputs and stores; see `Runtime`.
    """

    def __init__(self, board: "Runtime") -> None:
        self._board = board
        self._answers: list[tuple] = []
        self._recent = Recent()

    def take(
        self, topic: bytes, data: bytes, arrived_ms: int, *, retained: bool
    ) -> "Iterator[None]":
        """Check one message and act on it; whatever is wrong with it becomes a reject.

        Reading, checking and acting are a piece of the work each, and the condition of a rule:
        reflexes come in between.
        """
        board = self._board
        name = None
        try:
            name = _text(topic)
            contract, fields = _route(name, retained=retained)
            message = decode(data, MAX_BYTES[contract])
            yield
            condition = _taken_out(message) if contract == "ReflexConfigure" else None
            meta, payload = checked(message, data, {contract: SCHEMAS[contract]})
            yield
            if condition is not None:
                _put_back(condition, meta, payload)
                yield
            self._agree(fields, meta, payload)
        except WireError as error:
            board.refuse(error, name, data)
            return
        except MemoryError:
            gc.collect()
            text = "it needs more memory than this board has"
            board.refuse(WireError("oversize", "decode", text), name)
            return
        if contract == "EfferentCommand":
            self._command(fields, meta, payload, retained=retained)
        elif contract == "ReflexConfigure":
            yield from self._configure(fields, meta, payload)
        elif contract == "ReflexTrigger":
            self._trigger(fields, meta)
        elif contract == "UpdateOffer":
            board.upkeep.updates.offer(payload)
        elif contract == "Chunk":
            board.upkeep.chunk(payload)
        else:
            self._pong(payload, arrived_ms)

    def passed_over(self, topic: bytes, text: str) -> None:
        """Refuse a message that is too large to be read; the text says how large."""
        try:
            name = _text(topic)
        except WireError:
            name = None
        self._board.refuse(WireError("oversize", "size", text), name)

    def _agree(self, fields: dict, meta: dict, payload: dict) -> None:
        """Hold a message to its topic, its age and those before it; WireError."""
        board = self._board
        contract = meta["contract"]
        # A topic without a scope has the device's own.
        fields.setdefault("scope_level", "device")
        fields.setdefault("scope", board.node["device_id"])
        for field, said in (
            ("scope_level", meta.get("scope_level")),
            ("scope", meta.get("scope")),
            ("device_id", board.node["device_id"]),
            ("action_id", meta.get("action_id")),
            ("reflex_id", payload.get("reflex_id")),
            ("actuator_type", payload.get("actuator")),
        ):
            wanted = fields.get(field)
            if wanted is not None and said is not None and said != wanted:
                raise WireError("topic_mismatch", "agreement", "%s: %s" % (field, said), meta)
        unix_ms = board.clock.unix_ms(board.ticks_ms)
        if contract == "Pong" and board.clock.awaits(payload):
            # It answers a question of this minute, so it is fresh whatever its date says: by ours a
            # hub whose clock has been set would be from the future, or late, for ever.
            unix_ms = None
        produced = produced_unix_ms(meta)
        if unix_ms is not None and produced is not None and produced > unix_ms + _FUTURE_LIMIT_MS:
            text = "made %d ms from now" % (produced - unix_ms)
            raise WireError("from_the_future", "expiry", text, meta)
        # The ledger tells an expired command from a repeated one, which is answered again.
        if contract != "EfferentCommand" and expired(meta, unix_ms):
            raise WireError("expired", "expiry", "older than its lifetime", meta)
        # … and a message that came twice from an order that is asked about again.
        if contract != "EfferentCommand" and self._recent.seen(meta):
            raise WireError("duplicate", "dedupe", "this message came before", meta)

    def _command(self, fields: dict, meta: dict, payload: dict, *, retained: bool) -> None:
        board = self._board
        ticks_ms = board.ticks_ms
        unix_ms = board.clock.unix_ms(ticks_ms)
        decision = board.ledger.command(
            meta, payload, retained, board.clock.synced, unix_ms, ticks_ms
        )
        kept = board.store_ledger() if decision.persist else True
        actuator = fields["actuator_type"]
        if decision.kind == "act" and not kept:
            # What is not on the flash could act twice.
            text = "the flash takes no record of it, so it is not done"
            board.report(board.ledger.fail(decision.action_id, "store_failed", text))
            return
        if decision.report is not None:
            board.outgoing.efferent_report(decision.action_id, actuator, decision.report, ticks_ms)
        if decision.kind == "act":
            self._act(decision.action_id)
        elif decision.kind == "reject" and decision.code in ("retained_command", "clock_unsynced"):
            board.refuse(WireError(decision.code, "apply", "not acted on", meta))

    def _act(self, action_id: str) -> None:
        board = self._board
        effects = board.ledger.start(action_id, board.ticks_ms)
        problem = board.drive(effects)
        if problem is not None:
            others = [each for each in effects if each[0] == "report" and each[1] != action_id]
            effects = others + board.ledger.fail(action_id, "output_failed", problem)
        board.report(effects)

    def _configure(self, fields: dict, meta: dict, payload: dict) -> "Iterator[None]":
        board = self._board
        reflex_id = fields["reflex_id"]
        status, rule, error = board.engine.prepare(payload)
        yield
        if status in ("applied", "removed"):
            # On the flash first: what is reported holds, whatever happens to the power.
            error = board.store_rule(reflex_id, None if rule is None else payload)
            if error is not None:
                status = "rejected"
            elif rule is not None:
                board.engine.take(rule)
            else:
                board.engine.remove(reflex_id)
        report = {"version": payload["version"], "status": status}
        kept = board.engine.hash(reflex_id)
        if kept is not None:
            report["hash"] = kept
        if error is not None:
            report["error"] = error
        board.outgoing.reflex_report(meta["action_id"], reflex_id, report, board.ticks_ms)
        if kept is not None or status == "removed":
            board.report_reflex(reflex_id)

    def _trigger(self, fields: dict, meta: dict) -> None:
        board = self._board
        reflex_id = fields["reflex_id"]
        action_id = meta["action_id"]
        for known, answer in self._answers:
            if known == action_id:
                board.outgoing.reflex_report(action_id, reflex_id, answer, board.ticks_ms)
                return
        if not board.clock.synced:
            board.refuse(WireError("clock_unsynced", "apply", "not fired", meta))
            return
        firing, error = board.engine.trigger(reflex_id, board.ticks_ms)
        state = board.engine.state(reflex_id)
        answer = {"version": state["version"] if state else 0}
        if state:
            answer["hash"] = state["hash"]
        answer["status"] = "rejected" if error else "fired"
        if error:
            answer["error"] = error
        self._answers = self._answers[-_ANSWERS_KEPT + 1 :] + [(action_id, answer)]
        if firing is not None:
            board.fire(firing, action_id)
        board.outgoing.reflex_report(action_id, reflex_id, answer, board.ticks_ms)

    def _pong(self, payload: dict, arrived_ms: int) -> None:
        board = self._board
        synced = board.clock.synced
        # Late or not, it has come the whole way.
        board.heard_hub()
        problem = board.clock.pong(payload, arrived_ms)
        if problem is not None:
            board.log("pong refused: " + problem)
            return
        if not synced:
            board.log("time from the hub")
        granted = (payload["scope_level"], payload["scope"])
        if granted != (board.node["scope_level"], board.node["scope"]):
            text = "the hub grants %s/%s, node.json says otherwise" % granted
            board.refuse(WireError("scope_not_granted", "identity", text))


def _taken_out(message: "Any") -> dict | None:
    """A rule's condition, out of its message: it takes as long to check as all the rest."""
    payload = message.get("payload") if isinstance(message, dict) else None
    if not isinstance(payload, dict) or not isinstance(payload.get("when"), dict):
        return None
    condition: dict = payload["when"]
    payload["when"] = {"sensor": "any", "op": "changed"}
    return condition


def _put_back(condition: dict, meta: dict, payload: dict) -> None:
    """Check the condition that was taken out of the payload, and put it back; WireError."""
    contract = part(TABLE, SCHEMAS["ReflexConfigure"], "payload")
    breach = check(TABLE, part(TABLE, contract, "when"), condition)
    if breach:
        text = "/payload/when%s: %s" % breach
        raise WireError("schema_invalid", "schema", text, meta)
    payload["when"] = condition


def _text(topic: bytes) -> str:
    try:
        return str(topic, "utf-8")
    except UnicodeError:
        raise WireError("unknown_topic", "topic", "the topic is no UTF-8") from None


def _route(topic: str, *, retained: bool) -> tuple:
    """The contract and the fields of a topic; WireError when a board takes nothing there."""
    try:
        parsed = topics.parse(topic)
    except ValueError as error:
        raise WireError("unknown_topic", "topic", str(error)) from None
    if parsed is None:
        raise WireError("unknown_topic", "topic", "a board takes nothing there")
    name, contract, fields = parsed
    # A retained command is answered too, so it has to be read first.
    if retained and name != "efferent_command":
        raise WireError("retained_event", "topic", "an event is never retained")
    return contract, fields
