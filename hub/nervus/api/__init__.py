"""The API: what programs and people on this machine may ask of the hub, over a Unix socket."""

from nervus.api.client import ApiClient, ApiError
from nervus.api.settings import ApiSettings

__all__ = ["ApiClient", "ApiError", "ApiSettings"]
