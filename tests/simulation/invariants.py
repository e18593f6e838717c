"""What must hold at each step, whatever goes wrong; written from the specification alone."""

from collections import Counter
from collections.abc import Mapping

from pydantic import BaseModel

from nervus.thalamus import ThalamusSettings
from nervus.wire import Accepted, Guard, Packet, Publish, Rejected, topics
from simulation.brainstem_rules import BrainstemRules
from simulation.checks import Checks, Violation
from simulation.gatekeeper_rules import GatekeeperRules
from simulation.process import Process, Step
from simulation.relay_rules import RelayRules

__all__ = ["Invariants", "Violation"]

_ON_THE_WAY = frozenset(("expired", "duplicate", "from_the_future"))
"""Why a message that was good when it was made may be refused when it comes."""


class Invariants:
    """Watches every step; raises `Violation` at the first that should not be.

    What holds of one step is checked in it; what is promised for later when it is due, or never
    comes. So a step costs what is in it, however long the house runs.

    Args:
        settings: Of the planes: what their decisions are held to.
    """

    def __init__(self, settings: Mapping[str, BaseModel]) -> None:
        thalamus = settings["relay"]
        assert isinstance(thalamus, ThalamusSettings)
        self._checks = Checks()
        self._consumer = Guard(topics.TOPICS, dedupe_limit=1 << 20)
        self._incarnations: dict[str, int] = {}
        self._brainstem = BrainstemRules(self._checks)
        self._relay = RelayRules(self._checks, thalamus)
        self._gatekeeper = GatekeeperRules(self._checks, thalamus.gates)

    @property
    def checked(self) -> Counter[str]:
        """How often each rule was held."""
        return self._checks.counts

    def __call__(self, step: Step) -> None:
        """Check one step."""
        process, verdict = step.process, step.verdict
        if self._incarnations.get(process.name) != process.incarnation:
            self._incarnations[process.name] = process.incarnation
            self._restarted(process)
        if isinstance(verdict, Rejected) and verdict.packet.broker == "core":
            # Nobody but parts of this house speaks there, and all they say is well said.
            self._checks.hold("taken", verdict.reason_code in _ON_THE_WAY, verdict)
        for publish in step.sent:
            self._is_allowed(step, publish)
        if process.plane == "brainstem":
            self._brainstem(step)
        elif process.plane == "relay":
            self._relay(step)
        else:
            self._gatekeeper(step)

    def settled(self) -> None:
        """Nothing is under way: what was taken has been told, what was promised has been kept."""
        self._brainstem.settled()
        self._relay.settled()

    def _restarted(self, process: Process) -> None:
        # A restarted plane owes nothing of what it had not yet said.
        if process.plane == "brainstem":
            self._brainstem.restart()
        elif process.plane == "relay":
            self._relay.restart()
        else:
            self._gatekeeper.restart(process.name)

    def _is_allowed(self, step: Step, publish: Publish) -> None:
        address, hold = publish.address, self._checks.hold
        spec, plane, life_ms = address.spec, step.process.plane, publish.expiry_ms
        hold("role", plane in spec.publishers(publish.on), plane, "published", address.topic)
        hold("life", life_ms is not None and life_ms > 0, address.topic, "lives", life_ms)
        packet = Packet(publish.on, address.topic, publish.data, spec.retained)  # type: ignore[arg-type]
        verdict = self._consumer.judge(packet, step.now_ms)
        # Also: no id twice, no more bytes than the topic takes, nothing beside the contract.
        hold("accepted", isinstance(verdict, Accepted), verdict)
