"""What can go wrong between a part and its broker."""

from nervus.errors import NervusError


class ClientShapeError(NervusError):
    """The MQTT library is not built the way the session relies on."""


class MalformedPacketError(NervusError):
    """The broker sent what is not MQTT 5, or more than a packet may have."""


class ClockSetBackError(NervusError):
    """The wall clock went back further than a part waits for it."""


class SubscriptionRefusedError(NervusError):
    """The broker refused a subscription the part cannot work without."""


class PublishError(NervusError):
    """A message did not reach the broker."""


class PublishDeniedError(PublishError):
    """The broker's permissions forbid this identity to publish there (reason 0x87)."""


class PublishTimeoutError(PublishError):
    """The broker did not confirm in time."""


class UnheardError(PublishError):
    """The broker took it, and has nobody to give it to (reason 0x10)."""


class MessageExpiredError(PublishError):
    """The message's life ended before it could be sent."""


class MessageShedError(PublishError):
    """The outbox was full and this was the oldest message of the lowest priority."""


class OfferTimeoutError(NervusError):
    """The core did not take an offered event in time."""
