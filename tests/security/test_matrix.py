"""Every role at every topic of both brokers: real mosquitto, each denial beside a delivery."""

import pytest

from nervus.runtime.state import BrokerName
from security.matrix import REPOSITORY, Cell, measure, render, roles, topics
from support import broker_processes, prepared_house

# Identities and rights count once they are on the disk: a slow one takes its time for each.
pytestmark = pytest.mark.timeout(60)

REPORT = REPOSITORY / ".tools" / "acl-matrix.txt"


class Matrix:
    """What was measured, asked by topic prefix."""

    def __init__(self, cells: list[Cell]) -> None:
        self.cells = cells

    def publishers(self, broker: BrokerName, prefix: str) -> set[str]:
        return {cell.role for cell in self._at(broker, prefix) if cell.publishes}

    def readers(self, broker: BrokerName, prefix: str) -> set[str]:
        return {cell.role for cell in self._at(broker, prefix) if cell.reads}

    def _at(self, broker: BrokerName, prefix: str) -> list[Cell]:
        names = {topic.name for topic in topics() if topic.row["template"].startswith(prefix)}
        found = [cell for cell in self.cells if cell.broker == broker and cell.topic in names]
        assert found, f"no topic begins with {prefix}"
        return found


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    house = prepared_house(tmp_path_factory.mktemp("matrix") / "state")
    with broker_processes(house):
        cells = measure(house)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(render(cells))
    return Matrix(cells)


def test_every_cell_is_as_topics_json_says(matrix: Matrix) -> None:
    measured = {(cell.broker, cell.topic, cell.role) for cell in matrix.cells}
    assert len(measured) == len(matrix.cells) == 2 * len(topics()) * len(roles())
    assert all(cell.holds for cell in matrix.cells), render(matrix.cells)


def test_the_report_shows_every_cell_and_marks_one_that_is_wrong(matrix: Matrix) -> None:
    lines = REPORT.read_text().splitlines()
    for topic in topics():
        shown = [line.split() for line in lines if line.split()[:1] == [topic.name]]
        assert [len(words) for words in shown] == [1 + len(roles())] * 2
    cell = matrix.cells[0]
    bad = Cell(cell.broker, cell.topic, cell.role, (True, True), False, False, ())  # noqa: FBT003  the tuple's own order
    assert "--!" not in render(matrix.cells)
    assert "--!" in render([bad, *matrix.cells[1:]])


def test_a_board_has_no_rights_at_all_on_the_core_broker(matrix: Matrix) -> None:
    assert "board" not in matrix.publishers("core", "/") | matrix.readers("core", "/")
    assert "board" in matrix.publishers("spinal", "/") & matrix.readers("spinal", "/")


@pytest.mark.req("S0-13", "S1-66")
def test_raw_signals_are_read_by_brainstem_alone_and_never_on_the_core_broker(
    matrix: Matrix,
) -> None:
    assert matrix.readers("spinal", "/sc/aff/") == {"brainstem"}
    assert matrix.readers("core", "/sc/aff/") == matrix.publishers("core", "/sc/aff/") == set()


@pytest.mark.req("S1-20")
def test_brainstem_may_not_write_where_raw_signals_are(matrix: Matrix) -> None:
    assert matrix.publishers("spinal", "/sc/aff/") == {"board"}


@pytest.mark.req("S1-10", "S1-73")
def test_reliable_alone_actuates(matrix: Matrix) -> None:
    orders = "/sc/eff/event/{scope_level}/{scope}/act/{actuator_type}/device/{device_id}/cmd/"
    assert matrix.publishers("spinal", orders) == {"reliable"}
    assert matrix.publishers("spinal", "/sc/eff/") == {"reliable", "board"}
    assert matrix.publishers("core", "/sc/eff/") == set()


def test_the_updater_alone_brings_applications_to_boards_and_can_do_nothing_else(
    matrix: Matrix,
) -> None:
    about_boards = "/sc/dev/event/device/{device_id}/"
    for offered in (f"{about_boards}update", f"{about_boards}chunk"):
        assert matrix.publishers("spinal", offered) == {"updater", "board"}
    rights = {
        (cell.broker, cell.topic, cell.publishes, cell.reads)
        for cell in matrix.cells
        if cell.role == "updater" and (cell.publishes or cell.reads)
    }
    assert rights == {
        ("spinal", "update_offer", True, False),
        ("spinal", "chunk", True, False),
        ("spinal", "chunk_request", False, True),
        ("spinal", "update_report", False, True),
        ("spinal", "device_status", False, True),
        ("spinal", "device_info", False, True),
        ("spinal", "reject", True, False),
        ("core", "reject", True, False),
    }


@pytest.mark.req("S1-8", "S2-10", "S2-73", "S2-74")
@pytest.mark.parametrize(("broker", "publishers"), [("core", {"gatekeeper"}), ("spinal", set())])
def test_the_gatekeeper_alone_sets_gates(
    matrix: Matrix, broker: BrokerName, publishers: set[str]
) -> None:
    assert matrix.publishers(broker, "/th/gate/state/") == publishers


@pytest.mark.req("S4-52")
def test_nobody_but_the_controller_broadcasts_parameters(matrix: Matrix) -> None:
    parameters = "/bs/global/state/{scope_level}/{scope}/parameters"
    assert matrix.publishers("core", parameters) == {"controller"}
    # The controller's broadcast is copied to the boards by brainstem, one way.
    assert matrix.publishers("spinal", parameters) == {"brainstem"}


def test_trigger_sources_alone_trigger_patterns(matrix: Matrix) -> None:
    triggers = "/bs/pattern/event/{scope_level}/{scope}/{pattern_type}/trigger"
    assert matrix.publishers("core", triggers) == {"trigger-source"}
    assert matrix.publishers("spinal", triggers) == set()
