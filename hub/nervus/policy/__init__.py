"""The policy plane: decides and audits every invocation; nothing is allowed by default."""

from nervus.policy.audit import AuditChainError, Chain, verify_file
from nervus.policy.core import Decision, Policy, RegimeChanged
from nervus.policy.machine import CommandSettings, build
from nervus.policy.rules import TEMPLATE, PolicyFileError, Regime, load, parse
from nervus.policy.settings import PolicySettings

__all__ = [
    "TEMPLATE",
    "AuditChainError",
    "Chain",
    "CommandSettings",
    "Decision",
    "Policy",
    "PolicyFileError",
    "PolicySettings",
    "Regime",
    "RegimeChanged",
    "build",
    "load",
    "parse",
    "verify_file",
]
