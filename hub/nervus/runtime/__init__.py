"""What runs the system: state folder, identities, brokers, supervision of services."""

from nervus.runtime.identity import Authority, Identity
from nervus.runtime.state import BROKERS, BrokerName, StateFolder

__all__ = ["BROKERS", "Authority", "BrokerName", "Identity", "StateFolder"]
