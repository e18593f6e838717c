"""The link on sockets with the manners of each port; prints what becomes of it.

Runs on CPython and on MicroPython: `run` puts the sockets of `port_sockets` under `spinal.compat`.
"""

from port_sockets import PORTS, Net, Port

from spinal import compat
from spinal.link import DOWN, SUBSCRIBING, UP, Link, Settings
from spinal.ticks import elapsed, later

MESSAGE = bytes(range(256)) * 8
PATIENCE_MS = 60_000


class Board:
    """A link whose network is a `Net` and whose time is what it says."""

    def __init__(self, port: Port, *, tls: bool) -> None:
        self.net = Net(port)
        self.now = (1 << 30) - 2_000  # the tick counter wraps in the middle of it
        self.downs: list = []
        self.lost: list = []
        self.acked: list = []
        compat.socket = compat.select = self.net
        compat.MICROPYTHON = True
        # What the port's own `errno` would say.
        compat._WOULD_WAIT = (11, abs(port.in_progress))
        config = Settings("m1", "hub.local", 8883, keepalive_s=20)
        dial = compat.Dialler(self.net if tls else None, config.host)
        self.link = Link(config, self, dial, lambda: True, lambda _limit: 10)

    def run(self, ms: int) -> None:
        """Let so much time pass, 5 ms to a turn."""
        end = later(self.now, ms)
        while elapsed(self.now, end) < 0:
            self.link.poll(self.now)
            self.now = later(self.now, 5)

    def until(self, reached: object) -> int:
        """Turns of 5 ms until so; how many ms that took."""
        began = self.now
        while not reached():
            if elapsed(self.now, began) > PATIENCE_MS:
                raise AssertionError(f"{self.net.port.name}: {self.link.last_error}")
            self.run(5)
        return elapsed(self.now, began)

    def up(self) -> None:
        self.until(lambda: self.link.state == UP)

    def link_will(self) -> tuple:
        return "/will", b"offline"

    def link_filters(self) -> list:
        return [("/to/m1/#", 1)]

    def link_up(self) -> None:
        """Told by its state."""

    def link_down(self, reason: str, tickets: list) -> None:
        self.downs.append(reason)
        self.lost += tickets

    def link_message(self, topic: bytes, payload: bytes, *, retained: bool) -> None:
        raise AssertionError(f"nothing is sent to this board: {topic} {payload} {retained}")

    def link_acked(self, ticket: object) -> None:
        self.acked.append(ticket)


def whole_message_through_partial_writes(board: Board) -> object:
    board.up()
    board.link.publish("/from/m1", MESSAGE, 1, ticket="big")
    board.until(lambda: board.acked)
    return board.acked, board.net.published == [MESSAGE], board.downs


def black_hole(board: Board) -> object:
    board.up()
    board.net.alive = False
    took = board.until(lambda: board.downs)
    return took <= 30_000, board.downs


def unacknowledged_message_comes_back(board: Board) -> object:
    board.up()
    board.net.alive = False
    board.link.publish("/from/m1", b"x", 1, ticket="kept")
    board.until(lambda: board.downs)
    return board.lost, board.downs


def timeout_error_from_below(board: Board) -> object:
    board.up()
    board.net.fails = board.net.port.timed_out
    board.until(lambda: board.downs)
    board.up()
    return board.downs, board.net.open_sockets


def reset(board: Board) -> object:
    board.up()
    board.net.fails = board.net.port.reset
    board.until(lambda: board.downs)
    board.up()
    return board.downs, board.net.open_sockets


def end_of_stream(board: Board) -> object:
    board.up()
    board.net.ends = True
    board.until(lambda: board.downs)
    board.net.ends = False
    board.up()
    return board.downs[0], board.net.open_sockets


def refused(board: Board) -> object:
    board.net.refuses = True
    board.until(lambda: len(board.downs) > 20)
    board.net.refuses = False
    board.up()
    return sorted(set(board.downs)), board.net.open_sockets


def never_connects(board: Board) -> object:
    board.net.connects_after = 1 << 20
    took = board.until(lambda: board.downs)
    return took <= 10_010, board.downs, board.net.open_sockets


def name_is_not_found(board: Board) -> object:
    board.net.resolves = False
    board.until(lambda: len(board.downs) > 60)
    left, asked = board.net.open_sockets, board.net.look_ups
    board.net.resolves = True
    board.up()
    return sorted(set(board.downs)), left, asked, len(board.downs) <= 80


def name_is_seldom_looked_up(board: Board) -> object:
    board.up()
    board.net.refuses = True
    board.net.resolves = False
    board.link.close()
    board.until(lambda: len(board.downs) > 80)
    asked = board.net.look_ups
    # The hub comes back, and elsewhere.
    board.net.refuses, board.net.resolves = False, True
    board.net.lives_at = "10.0.0.2"
    board.up()
    return asked, len(board.downs) <= 120


def handshake_in_slices(board: Board) -> object:
    board.until(lambda: board.link.state == SUBSCRIBING)
    return board.net.steps, board.net.most_steps


def no_room_for_tls(board: Board) -> object:
    board.net.room = False
    board.run(3_000)
    state, left = board.link.state == DOWN or bool(board.downs), board.net.open_sockets
    board.net.room = True
    board.up()
    return state, left <= 1, sorted(set(board.downs))


SCENARIOS = (
    whole_message_through_partial_writes,
    black_hole,
    unacknowledged_message_comes_back,
    timeout_error_from_below,
    reset,
    end_of_stream,
    refused,
    never_connects,
    name_is_not_found,
    name_is_seldom_looked_up,
    handshake_in_slices,
    no_room_for_tls,
)


def run() -> "dict[str, str]":
    """What became of each scenario: {"port tls scenario": result}."""
    seen = {}
    for port in PORTS:
        for tls in (False, True):
            for scenario in SCENARIOS:
                board = Board(port, tls=tls)
                name = f"{port.name} {'tls' if tls else 'plain'} {scenario.__name__}"
                seen[name] = str(scenario(board))
                board.link.close()
                seen[name] += f" open {board.net.open_sockets}"
    return seen


if __name__ == "__main__":
    for name, result in sorted(run().items()):
        print(name + ": " + result)  # noqa: T201 - the printed lines are the result
