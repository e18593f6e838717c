"""One seed: run, settle, check, and run its journals again."""

from collections import Counter
from dataclasses import dataclass
from hashlib import blake2b

from nervus.bus import output_line
from nervus.bus.journal_file import Answered
from nervus.runtime.replay import replay_of
from simulation.invariants import Invariants, Violation
from simulation.process import Step
from simulation.world import LIVELY, Faults, World, scope_of

ROUGH = Faults(
    late=0.03,
    crash_every_s=10,
    break_every_s=20,
    clock_jump_every_s=20,
    gate_every_s=1,
    flood_every_s=15,
)


@dataclass(frozen=True)
class Report:
    """What one seed went through; `digest` is that of everything every plane has sent."""

    seed: int
    samples: int
    crashes: int
    checked: Counter[str]
    digest: str


def run_seed(seed: int, seconds: float, faults: Faults = ROUGH) -> Report:
    """Simulate one seed.

    Raises:
        Violation: An invariant does not hold; the message says where and how to see it again.
    """
    digest = blake2b(digest_size=16)
    invariants = Invariants(LIVELY)

    def watch(step: Step) -> None:
        for publish in step.sent:
            digest.update(output_line(publish))
        invariants(step)

    world = World(seed, faults, watch)
    try:
        world.run(seconds)
        world.settle()
        invariants.settled()
        _replays(world)
    except Violation as violation:
        raise Violation(
            f"seed {seed} at {world.true_ms} ms: {violation}\n"
            f"again: tools/soak simulation --from {seed} --seeds 1 --seconds {seconds:g}"
        ) from violation
    return Report(seed, world.samples, world.crashes, invariants.checked, digest.hexdigest())


def _replays(world: World) -> None:
    """What each plane took since its last start makes it say the same again."""
    for process in world.processes:
        settings = LIVELY[process.plane].model_dump(mode="json")
        replay = replay_of(process.start_record(settings))
        granted = [Answered(board, scope_of(board)) for board in world.known]
        records = [*granted, *process.journal]
        said = [effect for one in replay.run(records) for effect in one.effects]
        if [*map(output_line, said)] != [*map(output_line, process.log)]:
            raise Violation(f"{process.name}: its journal says something else")
