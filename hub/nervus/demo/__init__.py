"""`nervus demo`: a simulated house on real brokers, services and firmware, shown live."""

import asyncio
import json
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from nervus.about import NAME
from nervus.demo.run import Demo, state_folder
from nervus.demo.view import picture, progress_line, summary
from nervus.tasks import cancel_and_wait

REFRESH_S = 0.25
LINE_EVERY_S = 2.0
LOG_WIDTH = 130
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def command(
    seconds: Annotated[
        float | None,
        typer.Option(min=1, help="End after so many seconds; without it, Ctrl-C ends the demo."),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="OUT", help="Write counts and latencies to this file."),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(help="Keep brokers, stores and boards in this folder, to look into or join."),
    ] = None,
) -> None:
    """Watch a simulated house: real firmware, real brokers, live view.

    Three boards sense, reflex, report, are gated and commanded.

    [bold]Examples[/bold]

      nervus demo

      nervus demo --seconds 20 --json out.json

      nervus demo --state /tmp/house
    """
    asyncio.run(_main(seconds, json_file, state))


async def _main(seconds: float | None, json_file: Path | None, state: Path | None) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=LOG_WIDTH)
    stop, enough = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    # Ends it as its seconds do, for whom only what happens tells when it is enough.
    loop.add_signal_handler(signal.SIGUSR1, enough.set)
    async with state_folder(state) as folder:
        console.print(f"{NAME} starts two brokers, six services and three boards in {folder}")
        demo = Demo(folder)
        # On the screen a log line would tear the picture.
        logging.basicConfig(filename=folder / "demo.log", level=logging.INFO, format=LOG_FORMAT)
        async with _drawing(demo, console, seconds):
            tally, took_s = await demo.play(seconds, stop, enough)
        console.print(summary(tally, took_s))
        if json_file is not None:
            report = json.dumps(tally.report(took_s), indent=1) + "\n"
            await asyncio.to_thread(json_file.write_text, report)
            console.print(f"counts and latencies are in {json_file}")


@asynccontextmanager
async def _drawing(demo: Demo, console: Console, seconds: float | None) -> AsyncIterator[None]:
    if not console.is_terminal:
        drawing = asyncio.create_task(_lines(demo, console), name="progress")
        live = None
    else:
        live = Live(console=console, screen=True, auto_refresh=False)
        live.start()
        drawing = asyncio.create_task(_pictures(demo, live, seconds), name="picture")
    try:
        yield
    finally:
        if live is not None:
            live.stop()
        await cancel_and_wait(drawing)


async def _pictures(demo: Demo, live: Live, seconds: float | None) -> None:
    while not demo.over:
        await demo.refresh()
        live.update(picture(demo.tally, demo.clock.seconds(), seconds), refresh=True)
        await asyncio.sleep(REFRESH_S)


async def _lines(demo: Demo, console: Console) -> None:
    while not demo.over:
        await demo.refresh()
        console.print(progress_line(demo.tally, demo.clock.seconds()), highlight=False)
        await asyncio.sleep(LINE_EVERY_S)
