"""The base of every contract model: strict, frozen, nothing beyond the contract."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

SAFE_INTEGER = 2**53 - 1
"""No integer on the wire is larger: beyond it a double, JavaScript's only number, skips some."""


class Model(BaseModel):
    """A frozen part of a contract; refuses unknown fields, coercion, NaN and infinities.

    Optional fields are absent on the wire, never null: None stands for absent, and the guard
    refuses null. An instance's own dictionary may have such a field as None or not at all, which
    is what the guard saves most by; as an attribute it is None, and one is equal to the other.
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

    nesting: ClassVar[frozenset[str]] = frozenset()
    """Fields whose value may have keys of its own."""

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        fields = cls.model_fields.items()
        cls.nesting = frozenset(name for name, each in fields if holds_keys(each.annotation))
        for name, each in fields:
            if each.default is None:
                setattr(cls, name, None)

    def __eq__(self, other: object) -> bool:
        """Equal in kind and in every field that is not absent."""
        if type(self) is not type(other):
            return NotImplemented
        mine, theirs = self.__dict__, other.__dict__
        return mine == theirs or _present(mine) == _present(theirs)

    def __hash__(self) -> int:
        """As `__eq__`; raises TypeError where a field holds a list or a dictionary."""
        return hash(frozenset(_present(self.__dict__).items()))


def _present(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def holds_keys(annotation: Any) -> bool:
    """Whether a value of this type may have keys of its own."""
    if isinstance(annotation, type) and issubclass(annotation, Model | dict):
        return True
    return get_origin(annotation) is dict or any(map(holds_keys, get_args(annotation)))


def _no_integer(value: Any) -> Any:
    if isinstance(value, int):
        raise PydanticCustomError("unsafe_integer", "integer beyond 2^53")
    return value


LargeReal = Annotated[float, BeforeValidator(_no_integer)]
"""A real number that is not written as an integer: the last choice, for those beyond 2^53."""


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

    if TYPE_CHECKING:  # Each contract has its own; pydantic takes no field of a base's twice.
        meta: Any
        payload: Any
        errors: Any = None

    @model_validator(mode="after")
    def _meta_fits(self) -> Self:
        if fault := self.fault(self.meta):
            raise PydanticCustomError(*fault)
        return self

    @classmethod
    def fault(cls, meta: Any) -> tuple[str, str] | None:
        """What this contract asks of its metadata beyond their profile, and `meta` does not give.

        Returns:
            The kind of the error (contract, missing, extra_forbidden, expiry) and its text.
        """
        given = meta.__dict__.get  # a model answers an attribute tenfold more slowly
        if given("contract") != cls.__name__:
            return "contract", "meta.contract is not this contract"
        for name in cls.required_meta:
            if given(name) is None:
                return "missing", "meta." + name + " is required"
        for name in cls.forbidden_meta:
            if given(name) is not None:
                return "extra_forbidden", "meta." + name + " is not allowed"
        if cls.expiring and given("ttl_ms") is None and given("expires_at") is None:
            return "expiry", "meta needs ttl_ms or expires_at"
        return None
