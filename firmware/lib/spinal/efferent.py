"""Commands to actuators: each action_id acts once, across reboots, inside its limits.

Shapes
  actuator    {"id", "type": "bool" | "number", "boot": value, "min"?, "max"?, "max_on_ms"?,
               "on_loss"?: "hold" | {"off_after_ms": n} | {"value": v, "after_ms"?: n}}
  output      ("output", actuator id, value, why)   why: command, reflex, pulse_end, ramp, ramp_end,
              max_on, link_lost, boot
  report      ("report", action_id, actuator id, EfferentReport payload)
  effects     a list of outputs and reports, in the order in which they are to be done

Order of work for the shell, for each command message
  1. `decision = ledger.command(...)`
  2. if `decision.persist`: store `ledger.stored()` and only then go on
  3. `decision.kind == "act"`: publish `decision.report` (acknowledged), then
     `effects = ledger.start(decision.action_id, ticks_ms)`: drive the outputs, store
     `ledger.stored()`, publish the reports. An output that could not be driven:
     `effects = ledger.fail(decision.action_id, code, message)` in place of those reports.
  4. otherwise publish `decision.report`; `decision.code` is the reason of a reject.
At boot drive `ledger.boot_outputs(ticks_ms)`, store `ledger.stored()` and, once connected, publish
`ledger.interrupted()`.
"""

from spinal.actuators import Actuators, StepError, is_lasting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TERMINAL = "terminal"
_RETRIABLE = "retriable"
_CATEGORIES = {
    "busy": "conflict",
    "clock_unsynced": "dependency",
    "interrupted": "dependency",
    "store_failed": "dependency",
    "superseded": "conflict",
    "unknown_actuator": "not_found",
}
_RETRY_HELPS = ("busy", "clock_unsynced")
_STARTED = "acknowledged"


LEDGER_LIMIT = 32
"""Entries kept: the whole ledger is written with each command, and 32 reports are 4 to 8 KiB."""


class Decision:
    """What the ledger decided about one command.

    kind "act" | "repeat" | "reject"; action_id; actuator: the id it names, known or not; report: an
    EfferentReport payload; persist: store the ledger before anything else is done; code: the error
    code of a reject, else None.
    """

    def __init__(
        self,
        kind: str,
        action_id: str,
        actuator: str,
        report: "dict[str, Any]",
        persist: bool = False,  # noqa: FBT001, FBT002 - a field of the record
        code: str | None = None,
    ) -> None:
        self.kind = kind
        self.action_id = action_id
        self.actuator = actuator
        self.report = report
        self.persist = persist
        self.code = code


class Ledger:
    """Idempotent commands over a bounded ledger, and the timers of the outputs.

    actuators: their declarations (ValueError when one is wrong). stored: what `stored()` returned
    before the reboot, None at the first boot. limit: entries kept; the oldest finished one is
    forgotten first, one that is still running never.
    """

    def __init__(
        self, actuators: "list[dict[str, Any]]", stored: "Any" = None, limit: int = LEDGER_LIMIT
    ) -> None:
        self._limit = limit
        self.outputs = Actuators(actuators)
        """The actuators themselves."""
        # [action_id, actuator, report payload, deadline in Unix ms] by age.
        self._entries: list[list[Any]] = [list(each) for each in stored or ()]
        self._steps: dict[str, dict[str, Any]] = {}
        self._lasting: dict[str, str] = {}  # actuator: action_id of a pulse or ramp
        self._interrupted: list[tuple[Any, ...]] = []
        for entry in self._entries:
            if entry[2]["status"] == _STARTED:
                text = "the board restarted before it was done; it will not be repeated"
                entry[2] = _report("failed", _error("interrupted", text))
                self._interrupted.append(("report", entry[0], entry[1], entry[2]))

    def command(
        self,
        meta: "dict[str, Any]",
        payload: "dict[str, Any]",
        retained: bool,  # noqa: FBT001 - positional by agreement with the shell
        synced: bool,  # noqa: FBT001 - as above
        now_ms: int | None,
        ticks_ms: int,  # noqa: ARG002 - every event of a core comes with its tick
    ) -> Decision:
        """Decide about one EfferentCommand; now_ms is Unix time, None while unknown.

        ticks_ms is when it came. A repeat is answered with the last report and never acts.
        """
        action_id: str = meta["action_id"]
        entry = self._find(action_id)
        if entry is not None:
            return Decision("repeat", action_id, entry[1], entry[2])
        refusal = self._refusal(meta, payload, retained, synced, now_ms)
        if refusal is None:
            report = {"status": _STARTED, "acted_at": now_ms}
            if self._keep(meta, payload["actuator"], report, now_ms):
                self._steps[action_id] = payload
                return Decision("act", action_id, payload["actuator"], report, persist=True)
            refusal = "busy", f"{self._limit} commands are still running"
        code, text = refusal
        report = _report("expired" if code == "expired" else "rejected", _error(code, text))
        # A retriable refusal is not kept: the same action_id may act once the reason is gone. The
        # others are, so that no repeat can act after the hub has been told that it did not.
        kept = code not in _RETRY_HELPS and self._keep(meta, payload["actuator"], report, now_ms)
        return Decision("reject", action_id, payload["actuator"], report, persist=kept, code=code)

    def start(self, action_id: str, ticks_ms: int) -> "list[tuple[Any, ...]]":
        """Act: effects of a command that was decided "act" and has been stored.

        A set succeeds at once; a pulse or ramp is reported when it has ended. KeyError for any
        other id.
        """
        step = self._steps.pop(action_id)
        entry = self._entry(action_id)
        actuator = entry[1]
        effects = self._supersede(actuator)
        effects.extend(self.outputs.act(step, ticks_ms, "command"))
        if is_lasting(step):
            self._lasting[actuator] = action_id
        else:
            value = self.outputs.value(actuator)
            effects.append(self._finish(entry, "succeeded", result=value))
        return effects

    def fail(self, action_id: str, code: str, message: str) -> "list[tuple[Any, ...]]":
        """The output could not be driven: effects with the failed report. KeyError if unknown."""
        entry = self._entry(action_id)
        self._steps.pop(action_id, None)
        if self._lasting.get(entry[1]) == action_id:
            del self._lasting[entry[1]]
        return [self._finish(entry, "failed", _error(code, message))]

    def act(self, step: "dict[str, Any]", ticks_ms: int) -> "list[tuple[Any, ...]]":
        """Effects of one reflex step {actuator, set | pulse_ms | ramp, …}; StepError if bad."""
        outputs = self.outputs.act(step, ticks_ms, "reflex")
        return self._supersede(step["actuator"]) + outputs

    def tick(self, ticks_ms: int) -> "list[tuple[Any, ...]]":
        """Effects that are due: pulses, ramps, maximum on-time, link-loss policies."""
        effects = self.outputs.tick(ticks_ms)
        if self._lasting:
            for _, actuator, value, why in list(effects):
                action_id = None if why == "ramp" else self._lasting.pop(actuator, None)
                if action_id is not None:
                    entry = self._entry(action_id)
                    if why in ("pulse_end", "ramp_end"):
                        effects.append(self._finish(entry, "succeeded", result=value))
                    else:
                        error = _error("superseded", f"{actuator} was switched off: {why}")
                        effects.append(self._finish(entry, "failed", error))
        return effects

    def wait_ms(self, ticks_ms: int) -> int:
        """Milliseconds until `tick` may have something to do, at most `actuators.NEVER_MS`."""
        return self.outputs.wait_ms(ticks_ms)

    def link_lost(self, ticks_ms: int) -> None:
        """Start the link-loss policies; calling again while it is lost changes nothing."""
        self.outputs.link_lost(ticks_ms)

    def link_up(self) -> None:
        """Call off the link-loss policies that are not yet due."""
        self.outputs.link_up()

    def boot_outputs(self, ticks_ms: int) -> "list[tuple[Any, ...]]":
        """Outputs that bring every actuator into its declared boot state."""
        return self.outputs.boot_outputs(ticks_ms)

    def interrupted(self) -> "list[tuple[Any, ...]]":
        """Reports of commands that a reboot caught between start and end; given once."""
        reports = self._interrupted
        self._interrupted = []
        return reports

    def stored(self) -> "list[list[Any]]":
        """The ledger as a JSON value, for the store."""
        return self._entries

    def value(self, actuator: str) -> object:
        """The value last driven; StepError "unknown_actuator"."""
        return self.outputs.value(actuator)

    def _refusal(
        self,
        meta: "dict[str, Any]",
        payload: "dict[str, Any]",
        retained: bool,  # noqa: FBT001 - as in command
        synced: bool,  # noqa: FBT001 - as in command
        now_ms: int | None,
    ) -> "tuple[str, str] | None":
        """Why a command is not acted on, None when it is."""
        if retained:
            return "retained_command", "a retained command is old by nature; send it unretained"
        if not synced or now_ms is None:
            return "clock_unsynced", "no time from the hub in this session yet; repeat later"
        if meta["clk"] == "none":
            return "expired", "the sender had no clock, so the deadline cannot be told"
        if now_ms >= meta["t_ms"] + meta["deadline_ms"]:
            late = now_ms - meta["t_ms"] - meta["deadline_ms"]
            return "expired", f"its deadline passed {late} ms ago"
        try:
            self.outputs.check(payload)
        except StepError as error:
            return error.code, error.text
        return None

    def _keep(
        self,
        meta: "dict[str, Any]",
        actuator: str,
        report: "dict[str, Any]",
        now_ms: int | None,
    ) -> bool:
        """Add an entry; False when every place is taken by a running command."""
        if len(self._entries) >= self._limit:
            forgotten = None
            for entry in self._entries:
                if entry[2]["status"] == _STARTED:
                    continue
                if now_ms is not None and entry[3] <= now_ms:
                    forgotten = entry  # a repeat of it would be refused as expired anyway
                    break
                if forgotten is None:
                    forgotten = entry
            if forgotten is None:
                return False
            self._entries.remove(forgotten)
        deadline = meta["t_ms"] + meta["deadline_ms"]
        self._entries.append([meta["action_id"], actuator, report, deadline])
        return True

    def _supersede(self, actuator: str) -> "list[tuple[Any, ...]]":
        """The report of the pulse or ramp that something newer cuts short, if there is one."""
        action_id = self._lasting.pop(actuator, None)
        if action_id is None:
            return []
        error = _error("superseded", f"something newer took over {actuator} before it had ended")
        return [self._finish(self._entry(action_id), "failed", error)]

    def _finish(
        self,
        entry: "list[Any]",
        status: str,
        error: "dict[str, Any] | None" = None,
        result: object = None,
    ) -> "tuple[Any, ...]":
        report = _report(status, error)
        if result is not None:
            report["result"] = result
        report["acted_at"] = entry[2]["acted_at"]
        entry[2] = report
        return "report", entry[0], entry[1], report

    def _find(self, action_id: str) -> "list[Any] | None":
        for entry in self._entries:
            if entry[0] == action_id:
                return entry
        return None

    def _entry(self, action_id: str) -> "list[Any]":
        entry = self._find(action_id)
        if entry is None:
            raise KeyError(action_id)
        return entry


def _report(status: str, error: "dict[str, Any] | None") -> "dict[str, Any]":
    report: dict[str, Any] = {"status": status}
    if error is not None:
        report["error"] = error
    return report


def _error(code: str, message: str) -> "dict[str, Any]":
    return {
        "code": code,
        "message": message[:256],
        "kind": _RETRIABLE if code in _RETRY_HELPS else _TERMINAL,
        "category": _CATEGORIES.get(code, "validation"),
    }
