"""The reliable plane: takes allowed commands to devices, exactly one outcome for each."""

from nervus.reliable import schema
from nervus.reliable.action import Action, Request
from nervus.reliable.core import (
    Committed,
    Desired,
    Effect,
    Grants,
    Published,
    Reliable,
    Restored,
    Standing,
)
from nervus.reliable.effects import Durable, ForgetAction, InsertAction, UpdateAction
from nervus.reliable.machine import EVENTS, build
from nervus.reliable.reflex_files import ReflexFolder, rule_hash
from nervus.reliable.reflex_files import load as load_reflexes
from nervus.reliable.service import ReliableService
from nervus.reliable.settings import ReliableSettings

__all__ = [
    "EVENTS",
    "Action",
    "Committed",
    "Desired",
    "Durable",
    "Effect",
    "ForgetAction",
    "Grants",
    "InsertAction",
    "Published",
    "ReflexFolder",
    "Reliable",
    "ReliableService",
    "ReliableSettings",
    "Request",
    "Restored",
    "Standing",
    "UpdateAction",
    "build",
    "load_reflexes",
    "rule_hash",
    "schema",
]
