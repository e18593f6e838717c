"""The pure parts of both roles, built alike by the services and by a replay."""

from typing import Final

from nervus.bus import Granted, Machine, Origin, numbered
from nervus.thalamus.gatekeeper import Gatekeeper
from nervus.thalamus.lease import Leases
from nervus.thalamus.raw import RawRelay, RawSettings
from nervus.thalamus.relay import Relay
from nervus.thalamus.settings import ThalamusSettings
from nervus.wire import Guard, Mint, RejectLane, topics

IDENTITY: Final = "relay"
SHARED_OUT: Final = (topics.RELAY_BUNDLE,)
TAKES: Final = (*SHARED_OUT, topics.GATE_STATE)

RAW_IDENTITY: Final = "raw"
RAW_TAKES: Final = (topics.AFFERENT, topics.GATE_STATE)

GATEKEEPER_IDENTITY: Final = "gatekeeper"
GATEKEEPER_TAKES: Final = (topics.MODULATOR_SIGNAL, topics.MODE)


def build(settings: ThalamusSettings, origin: Origin, granted: Granted) -> Machine:
    """Return the relay's core, guard and lane of one start; no board speaks on the core broker."""
    del granted
    mint = _mint(IDENTITY, origin)
    return Machine(
        Relay(settings, mint, origin.house), Guard(TAKES), RejectLane(mint, origin.house)
    )


def build_gatekeeper(settings: ThalamusSettings, origin: Origin, granted: Granted) -> Machine:
    """Return the gatekeeper's core, guard and lane of one start, as `build`."""
    del granted
    mint = _mint(GATEKEEPER_IDENTITY, origin)
    return Machine(
        Gatekeeper(settings.gates, mint, origin.house),
        Guard(GATEKEEPER_TAKES),
        RejectLane(mint, origin.house),
        (Leases,),
    )


def build_raw(settings: RawSettings, origin: Origin, granted: Granted) -> Machine:
    """Return the core, guard and lane that let raw rise, as `build`; boards speak to it."""
    mint = _mint(RAW_IDENTITY, origin)
    return Machine(
        RawRelay(settings, mint, origin.house),
        Guard(RAW_TAKES, granted=granted),
        RejectLane(mint, origin.house),
    )


def _mint(identity: str, origin: Origin) -> Mint:
    source = numbered(identity, origin.number)
    return Mint(source, "thalamus", seed=origin.seed, boot=origin.boot)
