"""The API: what programs and people on this machine may ask of the hub, over a Unix socket."""

from typing import TYPE_CHECKING

from nervus.late import late

if TYPE_CHECKING:
    from nervus.api.client import ApiClient, ApiError
    from nervus.api.settings import ApiSettings
else:
    __getattr__ = late(
        __name__,
        {
            "client": ("ApiClient", "ApiError"),
            "settings": ("ApiSettings",),
        },
    )

__all__ = ["ApiClient", "ApiError", "ApiSettings"]
