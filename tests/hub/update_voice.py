"""What a board says about an update, word by word."""

from collections.abc import Callable
from typing import Any

from hub.command_inputs import NOW_MS, judged
from nervus.wire import Accepted, Mint, topics
from nervus.wire.contracts import (
    ChunkRequest,
    ChunkRequestPayload,
    DeviceInfo,
    DeviceInfoPayload,
    DeviceStatus,
    DeviceStatusPayload,
    ErrorDetail,
    UpdateReport,
    UpdateReportPayload,
)


class Voice:
    """One board in one boot; each message has a higher seq than the one before."""

    def __init__(
        self, device_id: str = "b1", boot: int = 1, clock: Callable[[], int] = lambda: NOW_MS
    ) -> None:
        self.device_id = device_id
        self._clock = clock
        self.mint = Mint(f"device:{device_id}", "spinal", seed=hash((device_id, boot)), boot=boot)
        self.session = self.mint.id(NOW_MS)

    def status(self, status: Any = "online", session: str | None = None) -> Accepted:
        payload = DeviceStatusPayload(status=status, session=session or self.session)
        return self._said(DeviceStatus, topics.device_status, payload)

    def info(self, firmware: str = "0.1.0") -> Accepted:
        payload = DeviceInfoPayload(
            board="virtual", firmware=firmware, versions=["v1"], capabilities=[]
        )
        return self._said(DeviceInfo, topics.device_info, payload)

    def report(
        self,
        stage: Any,
        status: Any,
        code: str = "",
        version: str = "0.2.0",
        *,
        passes: bool = False,
    ) -> Accepted:
        error = None
        if code:
            kind: Any = "retriable" if passes else "terminal"
            error = ErrorDetail(code=code, message=f"because of {code}", kind=kind)
        payload = UpdateReportPayload(version=version, stage=stage, status=status, error=error)
        return self._said(UpdateReport, topics.update_report, payload)

    def ask(self, path: str = "app.py", offset: int = 0, version: str = "0.2.0") -> Accepted:
        payload = ChunkRequestPayload(version=version, path=path, offset=offset)
        return self._said(ChunkRequest, topics.chunk_request, payload)

    def _said(self, kind: Any, address: Any, payload: Any) -> Accepted:
        now_ms = self._clock()
        publish = self.mint.compact(kind, address(self.device_id), payload, now_ms)
        return judged(publish, now_ms)
