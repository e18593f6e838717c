"""The base of every contract model: strict, frozen, nothing beyond the contract."""

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError


class Model(BaseModel):
    """A frozen part of a contract; refuses unknown fields, coercion, NaN and infinities.

    Optional fields are absent on the wire, never null: None stands for absent, and the guard
    refuses null.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
        populate_by_name=False,
        serialize_by_alias=True,
        validate_default=False,
    )

    registered: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Fields whose value must stand in a registry, and which; the guard looks."""


class Choice(Model):
    """A part with alternatives, JSON Schema's oneOf of required: exactly one set is complete."""

    exactly_one: ClassVar[tuple[tuple[str, ...], ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _has_exactly_one(cls, value: Any) -> Any:
        if isinstance(value, dict):
            complete = sum(all(name in value for name in names) for names in cls.exactly_one)
            if complete != 1:
                options = " or ".join("+".join(names) for names in cls.exactly_one)
                raise PydanticCustomError("exactly_one", "give exactly one of " + options)
        return value


class Contract(Model):
    """One message: metadata, payload and, where there are any, errors."""

    required_meta: ClassVar[tuple[str, ...]] = ()
    forbidden_meta: ClassVar[tuple[str, ...]] = ()
    expiring: ClassVar[bool] = False

    meta: Any
    payload: Any
    errors: Any = None

    @model_validator(mode="after")
    def _meta_fits(self) -> Self:
        meta = self.meta
        if meta.contract != type(self).__name__:
            raise PydanticCustomError("contract", "meta.contract is not this contract")
        for name in self.required_meta:
            if getattr(meta, name) is None:
                raise PydanticCustomError("missing", "meta." + name + " is required")
        for name in self.forbidden_meta:
            if getattr(meta, name) is not None:
                raise PydanticCustomError("extra_forbidden", "meta." + name + " is not allowed")
        if self.expiring and meta.ttl_ms is None and meta.expires_at is None:
            raise PydanticCustomError("expiry", "meta needs ttl_ms or expires_at")
        return self
