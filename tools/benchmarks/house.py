"""A whole hub in a temporary folder: real brokers, real services, real certificates."""

from __future__ import annotations

import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nervus.bus import BrokerAddress
from nervus.runtime.brokers import MAX_PACKET_BYTES, Broker, brokers
from nervus.runtime.settings import Settings
from nervus.runtime.system import prepare, running_system

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from nervus.runtime.identity import Authority
    from nervus.runtime.state import BrokerName, StateFolder


_WITH_TLS: Final = (
    "cafile", "certfile", "keyfile", "crlfile", "tls_version", "require_certificate",
    "use_identity_as_username", "use_username_as_clientid", "allow_anonymous", "acl_file",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class House:
    """A running hub; `tls` says whether its brokers ask who one is."""

    state: StateFolder
    settings: Settings
    authority: Authority
    tls: bool = True

    def address(self, identity: str, broker: BrokerName) -> BrokerAddress:
        """Where and as whom to connect."""
        listener = self.settings.brokers.get(broker)
        context = self.authority.get(identity).ssl_context() if self.tls else None
        return BrokerAddress(listener.connect_host, listener.port, context)


@asynccontextmanager
async def house(
    *,
    boards: Mapping[str, str],
    parts: Mapping[str, str],
    settings: str = "",
    policy: str = "",
    services: bool = True,
    tls: bool = True,
    max_packet: int | None = None,
    separate: bool = False,
) -> AsyncIterator[House]:
    """Run brokers and the services, in processes as `nervus up` runs them, until left.

    Args:
        boards: Device id → granted scope.
        parts: Identity → role.
        settings: Tables added to nervus.toml.
        policy: What may be commanded.
        services: Whether the services run, or the brokers alone.
        tls: Whether the brokers speak TLS and ask for certificates; without, anybody may do
            anything, within the same limits.
        max_packet: Bytes of the largest packet that the brokers take, in place of their own limit.
        separate: Whether each service has a process of its own.

    Raises:
        NotReadyError: It was not ready within 30 s.
    """
    with tempfile.TemporaryDirectory(prefix="nervus-bench-") as folder:
        state, loaded, authority = prepare(Path(folder))
        with state.settings_file.open("a", encoding="utf-8") as file:
            file.write(settings)
        loaded = Settings.load(state.settings_file)
        if separate:
            loaded = loaded.model_copy(update={"processes": "separate"})
        for name, role in parts.items():
            authority.ensure(name, role)
        for name, scope in boards.items():
            authority.ensure(name, "board", scope)
        if policy:
            state.policy_file.write_text(policy, encoding="utf-8")
        for broker in brokers(state, loaded):
            broker.write_acl(authority)
            if not tls:
                _open(broker)
            if max_packet is not None:
                _widen(broker, max_packet)
        async with running_system(state, loaded, services=services):
            yield House(state, loaded, authority, tls)


def _open(broker: Broker) -> None:
    file = broker.configuration_file
    lines = file.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.split(" ")[0] not in _WITH_TLS]
    file.write_text("\n".join([*kept, "allow_anonymous true", ""]), encoding="utf-8")


def _widen(broker: Broker, max_packet: int) -> None:
    text = broker.configuration_file.read_text(encoding="utf-8")
    ours, wanted = f"max_packet_size {MAX_PACKET_BYTES}\n", f"max_packet_size {max_packet}\n"
    if ours not in text:
        raise ValueError(f"{broker.configuration_file}: no line {ours!r}")
    broker.configuration_file.write_text(text.replace(ours, wanted), encoding="utf-8")
