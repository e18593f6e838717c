"""Where a session connects, what it subscribes to, and how much it holds."""

import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from nervus.wire import TopicSpec


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """A broker's listener; `tls` carries the identity's certificate, None is plain TCP."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """One subscription."""

    topic: str
    qos: int


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a session holds and how long it waits.

    Args:
        incoming: Packets received and not yet handled; beyond it QoS 0 is dropped and counted.
        receive_maximum: QoS 1 packets the broker may send before one is acknowledged.
        outgoing: Messages waiting for the broker; beyond it the lowest priority is shed.
        in_flight: QoS 1 messages sent and not confirmed; the broker's own limit may lower it.
        unsent: Packets handed to the socket before the sender waits for it to drain.
        timeout_s: Longest wait for CONNACK, SUBACK and DISCONNECT.
        keepalive_s: Silence after which the link is probed; it counts as dead after twice that.
        backoff_base_ms: First reconnect delay, before jitter.
        backoff_cap_ms: Longest reconnect delay, before jitter.
        stable_ms: A connection that lived this long starts the delays anew.
        rest_ms: How long nothing is read after a read that took all there was: to wake up for each
            packet takes several times what many together do. For what is in no hurry.
        durable: Whether the broker keeps QoS 1 messages for us while we are away, for as long as
            that takes; otherwise each connection is a clean start.
    """

    incoming: int = 8_192
    receive_maximum: int = 1_024
    outgoing: int = 8_192
    in_flight: int = 256
    unsent: int = 512
    timeout_s: float = 5.0
    keepalive_s: int = 15
    backoff_base_ms: int = 100
    backoff_cap_ms: int = 5_000
    stable_ms: int = 10_000
    rest_ms: int = 0
    durable: bool = False


DURABLE: Final = Limits(durable=True)
"""For parts that answer for what they are sent: while they are away it waits at the broker."""


def subscriptions(specs: Iterable[TopicSpec], **levels: str) -> list[Filter]:
    """Return one filter for each topic, at the highest QoS anybody publishes it with.

    Args:
        specs: Rows of topics.json; their filters must not overlap.
        levels: Values of variable levels; a level that is not given is a wildcard.
    """
    return [Filter(spec.filter(**levels), max(spec.qos, spec.critical_qos)) for spec in specs]
