"""Makes messages for one source, deterministically: ids from (now, seed, counter)."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from nervus.wire.contracts import CompactMeta, FullMeta
from nervus.wire.effects import Priority, Publish
from nervus.wire.ids import MessageIds
from nervus.wire.model import Contract, Model
from nervus.wire.times import timestamp, unix_ms
from nervus.wire.topic import Address

_FORM_LIMIT: Final = 4_096
"""Topics for which a form is kept; beyond it they are made anew."""


class Mint:
    """The one place where a hub part builds an envelope.

    `source` is the part's identity, `plane` its origin_plane, `boot` a number that rises with each
    start (unix seconds), `seed` what its ids are drawn from.
    """

    def __init__(self, source: str, plane: str, *, seed: int, boot: int) -> None:
        self.source = source
        self._plane = plane
        self._boot = boot
        self._seq = 0
        self._ids = MessageIds(seed)
        self._quoted = quoted(source)
        self._forms: dict[str, list[str]] = {}

    def id(self, now_ms: int) -> str:
        """A fresh ULID for an action, a trace or a decision."""
        return self._ids.next(now_ms)

    def full(
        self,
        kind: type[Contract],
        address: Address,
        payload: Model,
        now_ms: int,
        *,
        cause: Contract | None = None,
        **meta: Any,
    ) -> Publish:
        """A message of the full profile, for the core broker.

        `cause` is the message this one follows from: its trace and principal go on, its id becomes
        parent_id. `meta` overrides single fields: priority, action_id, deadline_ms, expires_at …
        """
        before = cause.meta if cause else None
        trace = before.trace_id if before and before.trace_id else None
        fields: dict[str, Any] = {
            "produced_at": timestamp(now_ms),
            "origin_plane": self._plane,
            # A topic without a scope has the device's own.
            "scope_level": address.levels.get("scope_level", "device"),
            "scope": address.levels.get("scope") or address.levels["device_id"],
            "content_type": "application/json",
            "content_encoding": "identity",
            "priority": before.priority if before and before.priority else "normal",
            "trace_id": trace or self._ids.next(now_ms),
            "span_id": self._ids.span(),
            "principal": before.principal if before and before.principal else self.source,
        }
        if before:
            fields |= {"parent_id": before.message_id, "parent_span_id": before.span_id}
        return self._publish(kind, FullMeta, address, payload, now_ms, fields | meta)

    def around(
        self,
        payload: bytes,
        address: Address,
        now_ms: int,
        *,
        ttl_ms: int,
        priority: Priority,
        cause: FullMeta | None = None,
        trace_id: str | None = None,
        historical: bool | None = None,
    ) -> Publish:
        """A message of the full profile around a payload that is JSON already.

        As `full`, ten times as fast: nothing is validated, so the payload has to be one that a
        guard let through, or written by somebody who knows its contract.
        """
        tail = ""
        if historical is not None:
            tail = f',"historical":{"true" if historical else "false"}'
        trace, principal = trace_id, self._quoted
        if cause is not None:
            trace, principal = cause.trace_id, quoted(cause.principal)
            tail += f',"parent_span_id":"{cause.span_id}","parent_id":"{cause.message_id}"'
        ids, form = self._ids, self._forms.get(address.topic) or self._form(address)
        # In half the time of `%`; ids are drawn in this order.
        head = (
            f"{form[0]}{ids.next(now_ms)}{form[1]}{timestamp(now_ms)}{form[2]}{priority}{form[3]}"
            f"{trace or ids.next(now_ms)}{form[4]}{ids.span()}{form[5]}{principal}{form[6]}"
            f'{ttl_ms}{tail}}},"payload":'
        )
        return Publish(
            address, None, ttl_ms, data=head.encode() + payload + b"}", priority=priority
        )

    def _form(self, address: Address) -> list[str]:
        """What stands around a payload on one topic, in the order of the contract's fields.

        Returns:
            What comes before each value; `ttl_ms` is the last.
        """
        spec, levels = address.spec, address.levels
        level = levels.get("scope_level", "device")
        scope = levels.get("scope") or levels["device_id"]
        form = [
            '{"meta":{"message_id":"',
            (
                f'","schema_version":"v1","contract":"{spec.contract}",'
                f'"message_type":"{spec.contract}","source":{self._quoted},"produced_at":"'
            ),
            (
                f'","origin_plane":"{self._plane}","scope_level":"{level}","scope":{quoted(scope)},'
                '"content_type":"application/json","content_encoding":"identity","priority":"'
            ),
            '","trace_id":"',
            '","span_id":"',
            '","principal":',
            ',"ttl_ms":',
        ]
        if len(self._forms) >= _FORM_LIMIT:
            self._forms.clear()
        self._forms[address.topic] = form
        return form

    def compact(
        self, kind: type[Contract], address: Address, payload: Model, now_ms: int, **meta: Any
    ) -> Publish:
        """A message of the compact profile, for the spinal broker.

        `meta` overrides single fields: a copy of another message has that one's message_id.
        """
        fields = {"boot": self._boot, "seq": self._seq, "t_ms": now_ms, "clk": "hub"}
        self._seq += 1
        return self._publish(kind, CompactMeta, address, payload, now_ms, fields | meta)

    def _publish(
        self,
        kind: type[Contract],
        profile: type[CompactMeta | FullMeta],
        address: Address,
        payload: Model,
        now_ms: int,
        meta: dict[str, Any],
    ) -> Publish:
        if "expires_at" not in meta and address.spec.ttl_ms is not None:
            meta.setdefault("ttl_ms", address.spec.ttl_ms)
        head = profile(
            message_id=meta.pop("message_id", None) or self._ids.next(now_ms),
            schema_version="v1",
            contract=kind.__name__,
            message_type=kind.__name__,
            source=self.source,
            **meta,
        )
        return Publish(address, kind(meta=head, payload=payload), expiry_ms(head, now_ms))


# Identities and topics come again and again.
@lru_cache(maxsize=4_096)
def quoted(text: str) -> str:
    """A text as JSON."""
    return json.dumps(text, ensure_ascii=False)


def expiry_ms(meta: CompactMeta | FullMeta, now_ms: int) -> int | None:
    """What is left of a message's life at `now_ms` in milliseconds; None when it has no end."""
    return lifetime(meta.__dict__, now_ms)[1]


def lifetime(meta: Mapping[str, Any], now_ms: int) -> tuple[int, int | None]:
    """When a message was made, and what is left of its life at `now_ms`.

    Args:
        meta: Its metadata; an absent field is None or left out.
        now_ms: Unix milliseconds.

    Returns:
        Unix milliseconds, `now_ms` when the sender had no clock; and milliseconds, None when it
        has no end. ttl_ms counts from production (K-8), or from receipt without a clock.

    Raises:
        ValueError: A date that does not exist.
    """
    if (produced_at := meta.get("produced_at")) is not None:
        produced_ms = unix_ms(produced_at)
    elif (t_ms := meta.get("t_ms")) is not None and meta.get("clk") != "none":
        produced_ms = t_ms
    else:
        produced_ms = now_ms
    if (expires_at := meta.get("expires_at")) is not None:
        return produced_ms, unix_ms(expires_at) - now_ms
    if (ttl_ms := meta.get("ttl_ms")) is None:
        return produced_ms, None
    return produced_ms, produced_ms + ttl_ms - now_ms
