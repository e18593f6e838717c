"""Decides what raw may rise: each opt-in by itself, for a while, capped, and audited. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from nervus.policy.record import AppendAudit, AuditRecord
from nervus.policy.settings import PolicySettings
from nervus.wire import Mint, timestamp
from nervus.wire.raw import ROOT, RawGrant, selected
from nervus.wire.registries import sensor_channels
from nervus.wire.times import NEVER

CAPABILITY: Final = "raw.relay"
"""What an opt-in is in the audit."""

RAW_LIMIT: Final = 32


class RawRule(BaseModel):
    """An opt-in as the policy file asks for it; see `RawGrant`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_:-]+$")]
    topic_prefix: Annotated[str, Field(min_length=1, max_length=256)]
    rate: Annotated[int, Field(ge=1, strict=True)]
    expires: AwareDatetime
    reason: Annotated[str, Field(min_length=1, max_length=200)]

    @property
    def expires_ms(self) -> int:
        """Unix milliseconds."""
        return round(self.expires.timestamp() * 1000)


@dataclass(frozen=True, slots=True)
class OpenRaw:
    """Effect: these opt-ins are in force from now on, and no others; after their audit."""

    grants: tuple[RawGrant, ...]


class RawDesk:
    """Keeps what is in force.

    An opt-in is decided when the policy file that asks for it is read. It ends when it expires, or
    when a file that is read later, or is wrong, asks for it no more.
    """

    def __init__(self, settings: PolicySettings, mint: Mint) -> None:
        self._settings = settings
        self._mint = mint
        self._regime_id = "none"
        self._grants: dict[str, RawGrant] = {}
        self._rules: dict[str, RawRule] = {}

    def decide(
        self, rules: Sequence[RawRule], regime_id: str, now_ms: int
    ) -> list[AppendAudit | OpenRaw]:
        """Take what a policy file asks for now."""
        self._regime_id = regime_id
        asked = {rule.id: rule for rule in rules}
        gone = [name for name, rule in self._rules.items() if asked.get(name) != rule]
        ended = [self._ended(name, "raw_withdrawn", now_ms) for name in gone]
        new = [rule for rule in rules if rule.id not in self._rules]
        decided = [self._decided(rule, now_ms) for rule in new]
        return [*ended, *decided, OpenRaw(tuple(self._grants.values()))]

    @property
    def due_ms(self) -> int:
        """When the first opt-in in force ends, unix milliseconds."""
        return min((grant.expires_ms for grant in self._grants.values()), default=NEVER)

    def tick(self, now_ms: int) -> list[AppendAudit | OpenRaw]:
        """End what has expired."""
        over = [name for name, grant in self._grants.items() if grant.expires_ms <= now_ms]
        if not over:
            return []
        ended = [self._ended(name, "raw_expired", now_ms) for name in over]
        return [*ended, OpenRaw(tuple(self._grants.values()))]

    def refusal(self, rule: RawRule, now_ms: int) -> str | None:
        """Why an opt-in is not granted; None if it is."""
        prefix, settings = rule.topic_prefix, self._settings
        address = selected(prefix)
        if address is None:
            return "raw_prefix_too_broad" if _is_broad(prefix) else "raw_prefix_invalid"
        faults = {
            "raw_sensor_unknown": address.levels["sensor_type"] not in sensor_channels(),
            "raw_expired": rule.expires_ms <= now_ms,
            "raw_expires_too_late": rule.expires_ms > now_ms + settings.raw_longest_ms,
            "raw_rate_too_high": rule.rate > settings.raw_rate_limit,
            # The broker would send what two subscriptions cover twice.
            "raw_overlaps": any(
                one.covers(prefix) or one.topic_prefix.startswith(f"{prefix}/")
                for one in self._grants.values()
            ),
        }
        return next((code for code, broken in faults.items() if broken), None)

    def _decided(self, rule: RawRule, now_ms: int) -> AppendAudit:
        refusal = self.refusal(rule, now_ms)
        decision_id = self._mint.id(now_ms)
        if refusal is None:
            self._rules[rule.id] = rule
            self._grants[rule.id] = RawGrant(
                id=rule.id,
                topic_prefix=rule.topic_prefix,
                rate=rule.rate,
                expires_ms=rule.expires_ms,
                decision_id=decision_id,
            )
        return self._audit(rule, decision_id, refusal or "raw_granted", now_ms)

    def _ended(self, name: str, reason: str, now_ms: int) -> AppendAudit:
        del self._grants[name]
        rule = self._rules.pop(name)
        return self._audit(rule, self._mint.id(now_ms), reason, now_ms)

    def _audit(self, rule: RawRule, decision_id: str, reason: str, now_ms: int) -> AppendAudit:
        allowed = reason == "raw_granted"
        caps = (f"rate:{rule.rate}/s", f"expires:{timestamp(rule.expires_ms)}")
        return AppendAudit(
            AuditRecord(
                recorded_ms=now_ms,
                kind="raw",
                source=self._mint.source,
                actor=self._mint.source,
                channel="file",
                policy_decision_id=decision_id,
                policy_regime_id=self._regime_id,
                allowed=allowed,
                reason_codes=(reason, f"rule:{rule.id}"),
                obligations=caps if allowed else (),
                capability_id=CAPABILITY,
                target=rule.topic_prefix,
            )
        )


def _is_broad(prefix: str) -> bool:
    """Whether a prefix is one of afferents, but of more than a scope's sensor type."""
    parts, root = prefix.rstrip("/").split("/"), ROOT.split("/")
    return parts[: len(root)] == root and len(parts) < _SELECTING


_SELECTING: Final = 8
"""Levels of /sc/aff/event/LEVEL/SCOPE/sensor/TYPE, with the empty one before the first slash."""
