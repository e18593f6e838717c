"""The updates core: brings versions to boards, a few first, and sees each through. No I/O."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from nervus.updates.chunks import ChunkPace, NoChunkError, chunk_of
from nervus.updates.events import Event, Ordered, Withdrawn
from nervus.updates.pack import Pack
from nervus.updates.record import (
    AT_WORK,
    OFFERED,
    OPEN,
    QUIET_ON_TRIAL,
    BoardUpdate,
    Durable,
    Forget,
    KeepBoard,
    KeepRollout,
    KeepSeen,
    Rollout,
    Seen,
    Stored,
    moved,
    open_ids,
    tried,
)
from nervus.updates.reports import Meaning, meaning
from nervus.updates.settings import UpdatesSettings
from nervus.updates.timing import Timings
from nervus.wire import Accepted, Mint, Publish, Rejected, refuse, topics
from nervus.wire.contracts import Chunk, UpdateOffer
from nervus.wire.encodings import CBOR, encode

Effect = Durable | Publish | Rejected

OFFER_EVERY_MS: Final = 1_000
"""Least time between two offers to one board, however often it is born."""

KEEP_EVERY_MS: Final = 1_000
"""Least time between two writes of how many bytes a board has."""


class Updates:
    """The state machine of all roll-outs; one open update for each board at most.

    An offer is also the question how a board is: one that is at it takes no notice, any other
    answers. So whatever was lost, and whoever was down, a silent board is simply offered again.
    """

    def __init__(self, settings: UpdatesSettings, mint: Mint) -> None:
        self._settings = settings
        self._mint = mint
        self._rollouts: dict[str, Rollout] = {}
        self._packs: dict[str, Pack] = {}
        self._boards: dict[str, list[BoardUpdate]] = {}
        self._open: dict[str, BoardUpdate] = {}
        self._timings = Timings(settings)
        self._pace = ChunkPace(settings.chunks_per_s)
        self._seen: dict[str, Seen] = {}
        self._sessions: dict[str, str] = {}
        self._settled_ms = 0
        self._look = False
        self.counters: Counter[str] = Counter()
        """Events by name, since the start."""

    @property
    def due_ms(self) -> int:
        """When something is due next, unix milliseconds; 0 while a board is at work or waits."""
        busy = self._look or len(self._timings) or self._pace.busy
        return 0 if busy else self._timings.look_ms

    def restore(self, stored: Stored, packs: Mapping[str, Pack], now_ms: int) -> list[Effect]:
        """Take up what is stored; call once, before anything else.

        packs: of the roll-outs that `open_ids` names; one that is missing is stopped.
        """
        self._settled_ms = now_ms + self._settings.settle_ms
        self._seen = {seen.device_id: seen for seen in stored.seen}
        self._rollouts = {each.update_id: each for each in stored.rollouts}
        self._boards = {update_id: [] for update_id in self._rollouts}
        self._packs = {key: packs[key] for key in packs if key in self._rollouts}
        for board in stored.boards:
            self._boards[board.update_id].append(board)
            if board.state in OPEN:
                # Of no other: it may have ended in a newer roll-out than the one it is on trial in.
                self._open[board.device_id] = board
                self._timings.follow(board, board, self._settled_ms)
        self._look = True
        effects: list[Effect] = []
        for update_id in open_ids(stored) - packs.keys():
            effects += self._stop(update_id, "its pack is lost", now_ms)
        return effects

    def step(self, event: Event, now_ms: int) -> Sequence[Effect]:
        """Take one event."""
        match event:
            case Accepted():
                return self._taken(event, now_ms)
            case Ordered():
                return self._ordered(event, now_ms)
            case Withdrawn(update_id, by) if update_id in self._rollouts:
                return self._stop(update_id, f"withdrawn by {by}" if by else "withdrawn", now_ms)
        return []

    def tick(self, now_ms: int) -> list[Effect]:
        """What time demands: offer, offer again, give up, answer what waited, forget."""
        self._settled_ms += self._timings.clock_jump_ms(now_ms)
        effects: list[Effect] = []
        for request in self._pace.due(now_ms):
            effects += self._serve(request, now_ms)
        if now_ms < self._settled_ms:
            return effects
        for device_id in self._timings.boards():
            effects += self._overdue(self._open[device_id], now_ms)
        if self._look:
            self._look = False
            effects += self._begin(now_ms)
            effects += self._forget()
        return effects

    @property
    def needed(self) -> frozenset[str]:
        """Roll-outs that a board may still need the pack of."""
        return frozenset(board.update_id for board in self._open.values())

    @property
    def known(self) -> frozenset[str]:
        """Roll-outs that were taken up, and are not forgotten."""
        return frozenset(self._rollouts)

    def _taken(self, event: Accepted, now_ms: int) -> Sequence[Effect]:
        message: Any = event.message
        device_id = event.address.levels["device_id"]
        self.counters[event.address.spec.name] += 1
        match event.address.spec.name:
            case "device_status":
                return self._status(device_id, message, now_ms)
            case "device_info":
                return self._born(device_id, message, now_ms)
            case "chunk_request":
                return self._asked(event, device_id, now_ms)
            case _:  # the fourth that it takes: update_report
                return self._reported(device_id, message, now_ms)

    # Roll-outs.

    def _ordered(self, event: Ordered, now_ms: int) -> list[Effect]:
        order, pack = event.order, event.pack
        if order.update_id in self._rollouts:
            return []
        self.counters["ordered"] += 1
        effects: list[Effect] = []
        for device_id in order.devices:
            older = self._open.get(device_id)
            if older is not None:
                effects += self._supersede(older, order.update_id, now_ms)
        rollout = Rollout(
            order.update_id,
            pack.version,
            pack.digest,
            order.canary,
            order.asked_ms,
            order.asked_by,
        )
        self._rollouts[rollout.update_id] = rollout
        self._packs[rollout.update_id] = pack
        self._boards[rollout.update_id] = []
        effects.append(KeepRollout(rollout))
        for position, device_id in enumerate(order.devices):
            board = BoardUpdate(
                order.update_id, device_id, position, "waiting", now_ms, total=pack.size
            )
            self._boards[rollout.update_id].append(board)
            effects.append(self._put(board, now_ms))
        return effects

    def _supersede(self, board: BoardUpdate, update_id: str, now_ms: int) -> list[Effect]:
        reason = f"superseded by {update_id}"
        if board.position < self._rollouts[board.update_id].canary:
            # Nobody would tell any more whether it went well.
            return [
                *self._stop(board.update_id, reason, now_ms),
                *self._hold(board.device_id, board.update_id, reason, now_ms),
            ]
        return self._hold(board.device_id, board.update_id, reason, now_ms)

    def _hold(self, device_id: str, update_id: str, reason: str, now_ms: int) -> list[Effect]:
        board = self._open.get(device_id)
        if board is None or board.update_id != update_id:
            return []
        return [self._put(moved(board, "held", now_ms, "stopped", reason), now_ms)]

    def _stop(self, update_id: str, reason: str, now_ms: int) -> list[Effect]:
        rollout = self._rollouts[update_id]
        if rollout.stopped:
            return []
        self.counters["stopped"] += 1
        self._rollouts[update_id] = rollout = replace(rollout, stopped=reason)
        effects: list[Effect] = [KeepRollout(rollout)]
        for board in list(self._boards[update_id]):
            # What is installed shows by itself whether it runs; there is no calling it back.
            if board.state in OPEN and not tried(board):
                held = moved(board, "held", now_ms, "stopped", reason)
                effects.append(self._put(held, now_ms))
        return effects

    def _begin(self, now_ms: int) -> Iterator[Effect]:
        """Offer to as many boards as may be at it, in order, canaries first."""
        room = self._settings.at_once - len(self._timings)
        for update_id, rollout in self._rollouts.items():
            if rollout.stopped or update_id not in self._packs:
                continue
            until = None if self._proven(rollout) else rollout.canary
            for board in self._boards[update_id][:until]:
                if room <= 0:
                    return
                if board.state != "waiting":
                    continue
                seen = self._seen.get(board.device_id)
                if seen is not None and not seen.online:
                    # It takes no room. Is it there after all, for a will may come late, it answers.
                    quiet = moved(board, "gone_quiet", now_ms, "quiet", _OFFLINE)
                    yield self._put(quiet, now_ms)
                    yield self._offer(quiet, now_ms)
                    continue
                room -= 1
                offered = moved(board, "offered", now_ms)
                yield self._put(offered, now_ms)
                yield self._asks(offered, now_ms)

    def _proven(self, rollout: Rollout) -> bool:
        canaries = self._boards[rollout.update_id][: rollout.canary]
        return all(board.state == "confirmed" for board in canaries)

    def _in_turn(self, board: BoardUpdate) -> bool:
        """Whether it may fetch: of one on trial only its own word may say that it was offered."""
        rollout = self._rollouts[board.update_id]
        return board.state != "trial" or board.position < rollout.canary or self._proven(rollout)

    def _forget(self) -> list[Effect]:
        needed = self.needed
        ended = [update_id for update_id in self._rollouts if update_id not in needed]
        forgotten = ended[: max(0, len(ended) - self._settings.kept_rollouts)]
        for update_id in forgotten:
            del self._rollouts[update_id], self._boards[update_id]
        for update_id in self._packs.keys() - needed:
            del self._packs[update_id]
        return [Forget(update_id) for update_id in forgotten]

    # One board.

    def _status(self, device_id: str, message: Any, now_ms: int) -> list[Effect]:
        stated = message.payload
        online = stated.status != "offline"
        if online:
            self._sessions[device_id] = stated.session
        elif self._sessions.get(device_id, stated.session) != stated.session:
            return []  # the will of a session that another has followed
        return self._saw(device_id, now_ms, online=online)

    def _born(self, device_id: str, message: Any, now_ms: int) -> list[Effect]:
        firmware = message.payload.firmware
        effects = self._saw(device_id, now_ms, firmware=firmware)
        board = self._open.get(device_id)
        if board is None or board.state == "waiting":
            return effects
        if message.meta.boot < board.boot:
            # It was flashed anew, and counts from the beginning.
            board = replace(board, boot=message.meta.boot, seq=message.meta.seq)
        runs = firmware == self._rollouts[board.update_id].version
        if runs or tried(board):
            # Whether it runs it for good, or has taken it back, it tells soon or when asked.
            wait_ms = self._settings.probe_ms if runs else self._settings.answer_ms
            if board.state != "trial":
                board = moved(board, "trial", now_ms)
            effects.append(self._put(board, now_ms))
            self._timings[device_id].next_ms = now_ms + wait_ms
        elif board.state == "gone_quiet":
            effects.append(self._put(moved(board, "waiting", now_ms), now_ms))
        else:
            effects.append(self._put(board, now_ms))
            timing = self._timings[device_id]
            timing.heard_ms, timing.pause_ms = now_ms, self._settings.answer_ms
            timing.next_ms = max(now_ms, timing.offered_ms + OFFER_EVERY_MS, self._settled_ms)
        return effects

    def _saw(
        self,
        device_id: str,
        now_ms: int,
        *,
        firmware: str | None = None,
        online: bool | None = None,
    ) -> list[Effect]:
        before = self._seen.get(device_id)
        # Who was never seen is not known to be away.
        known = before or Seen(device_id, "", online=True, since_ms=now_ms)
        now = replace(
            known,
            firmware=known.firmware if firmware is None else firmware,
            online=known.online if online is None else online,
        )
        if now == before:
            return []
        self._seen[device_id] = seen = replace(now, since_ms=now_ms)
        return [KeepSeen(seen)]

    def _reported(self, device_id: str, message: Any, now_ms: int) -> list[Effect]:
        report, at = message.payload, (message.meta.boot, message.meta.seq)
        board = self._about(device_id, report.version)
        if board is None:
            self.counters["unknown_report"] += 1
            return []
        if at <= (board.boot, board.seq):
            self.counters["old_report"] += 1
            return []
        board = replace(board, boot=at[0], seq=at[1])
        seen = self._seen.get(device_id)
        found = meaning(report, seen.firmware if seen else "", board.state)
        if board.state not in OFFERED and found.state not in _TRUTHS:
            return []
        if found.state is None:
            return self._not_now(board, found, now_ms)
        if found.state == "pulling" and self._rollouts[board.update_id].stopped:
            stopped = self._rollouts[board.update_id].stopped
            return [self._put(moved(board, "held", now_ms, "stopped", stopped), now_ms)]
        effects: list[Effect] = []
        if found.state == board.state or (found.state == "pulling" and not self._in_turn(board)):
            self._note(board)
        else:
            board = moved(board, found.state, now_ms, found.code, found.error)
            effects = self._arrived(board, now_ms)
        self._timings.heard(board, now_ms)
        return effects

    def _about(self, device_id: str, version: str) -> BoardUpdate | None:
        """The board in the newest roll-out of that version; while another is open, in that."""
        matches = (
            board
            for update_id in reversed(self._rollouts)
            if self._rollouts[update_id].version == version
            for board in self._boards[update_id]
            if board.device_id == device_id
        )
        found = next(matches, None)
        return found if self._open.get(device_id) in (None, found) else None

    def _not_now(self, board: BoardUpdate, found: Meaning, now_ms: int) -> list[Effect]:
        """It did not take the offer; it is offered again, unless it failed too often."""
        if board.state not in AT_WORK:
            return []
        timing = self._timings[board.device_id]
        timing.failures += found.counts
        timing.heard_ms = now_ms
        if timing.failures >= self._settings.tries:
            failed = moved(board, "failed", now_ms, found.code, found.error)
            return self._arrived(failed, now_ms)
        if board.state != "trial":
            board = moved(board, "offered", now_ms, found.code, found.error)
        timing.next_ms = now_ms + self._settings.answer_ms
        return [self._put(board, now_ms)]

    def _arrived(self, board: BoardUpdate, now_ms: int) -> list[Effect]:
        """A board is in another state; what that means for the others of its roll-out."""
        effects: list[Effect] = [self._put(board, now_ms)]
        rollout = self._rollouts[board.update_id]
        who = f"{board.device_id}: {board.error or board.state}"
        is_canary = board.position < rollout.canary
        if (
            board.state == "rolled_back"
            or (board.state == "gone_quiet" and tried(board))
            or (is_canary and board.state in ("refused", "failed"))
        ):
            effects += self._stop(board.update_id, who, now_ms)
        return effects

    def _put(self, board: BoardUpdate, now_ms: int) -> KeepBoard:
        """Note how far a board is, and begin or end what goes with that."""
        self.counters[board.state] += 1
        before = self._boards[board.update_id][board.position]
        self._note(board)
        self._timings.follow(before, board, now_ms)
        if board.state not in AT_WORK:
            self._pace.forget(board.device_id)
        self._look = True
        return KeepBoard(board)

    def _note(self, board: BoardUpdate) -> None:
        self._boards[board.update_id][board.position] = board
        if board.state in OPEN:
            self._open[board.device_id] = board
        else:
            self._open.pop(board.device_id, None)

    # Time.

    def _overdue(self, board: BoardUpdate, now_ms: int) -> list[Effect]:
        settings, timing = self._settings, self._timings[board.device_id]
        if board.state == "trial":
            if now_ms >= timing.ends_ms:
                text = "it did not say what became of its trial"
                quiet = moved(board, "gone_quiet", now_ms, QUIET_ON_TRIAL, text)
                return self._arrived(quiet, now_ms)
        elif now_ms >= timing.heard_ms + settings.quiet_ms:
            seen = self._seen.get(board.device_id)
            text = _OFFLINE if seen and not seen.online else "it does not answer"
            return self._arrived(moved(board, "gone_quiet", now_ms, "quiet", text), now_ms)
        elif now_ms >= timing.ends_ms:
            text = f"not fetched within {settings.whole_ms // 60_000} minutes"
            return self._arrived(moved(board, "failed", now_ms, "too_slow", text), now_ms)
        if now_ms < timing.next_ms or board.update_id not in self._packs:
            return []
        return [self._asks(board, now_ms)]

    def _asks(self, board: BoardUpdate, now_ms: int) -> Publish:
        """Offer to a board at work, and note when to do so again."""
        self._timings.offered(board, now_ms)
        return self._offer(board, now_ms)

    def _offer(self, board: BoardUpdate, now_ms: int) -> Publish:
        self.counters["offers"] += 1
        offer = self._packs[board.update_id].offer
        return self._mint.compact(UpdateOffer, topics.update_offer(board.device_id), offer, now_ms)

    # Chunks.

    def _asked(self, event: Accepted, device_id: str, now_ms: int) -> list[Effect]:
        now, too_much = self._pace.ask(device_id, event, now_ms)
        effects: list[Effect] = [] if now is None else self._serve(now, now_ms)
        if too_much is not None:
            self.counters["too_fast"] += 1
            reason = f"more than {self._settings.chunks_per_s:g} chunks a second"
            effects.append(refuse(too_much, "queue_full", "queue", reason))
        return effects

    def _serve(self, event: Accepted, now_ms: int) -> list[Effect]:
        message: Any = event.message
        asked, at = message.payload, (message.meta.boot, message.meta.seq)
        device_id = event.address.levels["device_id"]
        board = self._open.get(device_id)
        pack = None if board is None else self._packs.get(board.update_id)
        if (
            board is None
            or pack is None
            or pack.version != asked.version
            or board.state == "waiting"
            or self._rollouts[board.update_id].stopped
            or not self._in_turn(board)
        ):
            reason = f"{asked.version} is not offered to {device_id}"
            return [refuse(event, "unknown_name", "apply", reason)]
        if at <= (board.boot, board.seq):
            self.counters["old_request"] += 1
            return []
        try:
            payload = chunk_of(pack, asked)
        except NoChunkError as error:
            return [refuse(event, error.reason_code, "apply", str(error))]
        done = pack.position(asked.path, asked.offset)
        board = replace(board, boot=at[0], seq=at[1], done=done)
        effects = self._fetches(board, now_ms)
        chunk = self._mint.compact(Chunk, topics.chunk(device_id), payload, now_ms)
        self.counters["chunks"] += 1
        # In CBOR its bytes are bytes, which a board takes without a longer text on the way.
        data = encode(chunk.message, CBOR)
        return [*effects, Publish(chunk.address, chunk.message, chunk.expiry_ms, data=data)]

    def _fetches(self, board: BoardUpdate, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        if board.state != "pulling":
            board = moved(board, "pulling", now_ms)
            effects.append(self._put(board, now_ms))
        self._timings.heard(board, now_ms)
        timing = self._timings[board.device_id]
        self._note(board)
        if now_ms >= timing.kept_ms + KEEP_EVERY_MS:
            timing.kept_ms = now_ms
            effects.append(KeepBoard(board))
        return effects


_OFFLINE: Final = "it is offline"
_TRUTHS: Final = ("trial", "confirmed", "rolled_back")
"""What a board may turn out to be also where nothing is offered to it."""
