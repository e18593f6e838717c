"""Reflex rules on the flash: each in a place of its own, so that one rule is read or written.

All rules in one object would need their size several times over in a heap of 192 KiB, and each
change would wear the flash with all of them.
"""

from spinal.reflex import RULE_LIMIT
from spinal.store import Store, StoreError


class RuleBook:
    """The kept rules of one board."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._places: dict[str, int] = {}

    def load(self) -> "tuple[list[dict], list[str]]":
        """Return (the payloads, what was wrong with places that cannot be read)."""
        payloads = []
        problems = []
        for place in range(RULE_LIMIT):
            try:
                payload = self._store.read(_name(place))
            except StoreError as error:
                problems.append(str(error))
                continue
            if payload is not None:
                self._places[payload["reflex_id"]] = place
                payloads.append(payload)
        return payloads, problems

    def keep(self, reflex_id: str, payload: dict | None) -> None:
        """Store a rule in the place it has, or in a free one; None empties its place.

        Returns once it is on the flash. OSError and StoreError pass through, StoreError "full" when
        every place is taken.
        """
        place = self._places.get(reflex_id)
        if payload is None:
            if place is not None:
                # An empty object, not an erased one: that a cut leaves old or new holds here too.
                self._store.write(_name(place), None)
                del self._places[reflex_id]
            return
        if place is None:
            place = self._free()
        self._store.write(_name(place), payload)
        self._places[reflex_id] = place

    def _free(self) -> int:
        taken = self._places.values()
        for place in range(RULE_LIMIT):
            if place not in taken:
                return place
        raise StoreError("full", "all %d places for rules are taken" % RULE_LIMIT)


def _name(place: int) -> str:
    return "rule-%02d" % place
