"""The viewer's pictures: how long a client waits for them, without the browser's own part.

    python benchmarks/bench_viewer.py -m RUN --json benchmarks/results/viewer_demo.json

Medians over cameras on the way between the scene's views, each drawn and encoded as the viewer does it: a
small picture while the camera moves, a full one at rest, the first of every kind left out. `clicks` are from
the click to the id. `seconds_to_start` is from the command to the line with its address, a start of Python
and torch included, and to the first picture in a headless Chromium that was running before and draws without
a GPU (with playwright only), the median of `--starts`; `cpu` is the CPU time of the command. `load` is the
system's load average before and after: where it is above 0, others took part of the processor, and `cpu_ms`
(CPU time, summed over threads) says more.
"""

import argparse
import importlib.util
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

import utils.openmp  # noqa: F401  # isort: skip
import torch
from PIL import Image

import view
from benchmarks.machine import environment
from gradiseg.labelled import LabelledModel
from gradiseg.progress import peak_memory_mb
from gradiseg.selection.free_view import entry_of
from gradiseg.viewer.drawing import Mode
from gradiseg.viewer.session import SMALL_WIDTH, Session
from scene.cameras import Camera
from utils.errors import run_command
from utils.json_files import write_json

FLAGS = ("--headless", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
PICTURE = b"BackgroundImageMessage"  # viser's name of what a picture comes in
ROOT = Path(__file__).resolve().parents[1]


def resized(model: LabelledModel, count: int) -> LabelledModel:
    """A model of `count` Gaussians: a random part of it, or all and copies scattered by their own size."""
    generator = torch.Generator().manual_seed(0)
    if count <= model.count:
        return model.rows(torch.randperm(model.count, generator=generator)[:count])
    more = torch.randint(model.count, (count - model.count,), generator=generator)
    grown = model.rows(torch.cat([torch.arange(model.count), more]))
    points = grown.params["xyz"].clone()
    spread = grown.params["scaling"][model.count :].exp()
    points[model.count :] += torch.randn(spread.shape, generator=generator) * spread
    return replace(grown, params={**grown.params, "xyz": points})


def walk(views: Sequence[Camera], size: tuple[int, int], steps: int) -> list[dict[str, Any]]:
    """Cameras evenly spaced over the scene's views, at the size of a client's picture."""
    width, height = size
    chosen = [views[index * (len(views) - 1) // max(1, steps - 1)] for index in range(steps)]
    entries = []
    for camera in chosen:
        focal = camera.fy * height / camera.image_height
        sized = {"width": width, "height": height, "fx": focal, "fy": focal}
        entries.append({**entry_of(camera), **sized, "cx": width / 2, "cy": height / 2})
    return entries


def median_ms(calls: Sequence[Callable[[], Any]]) -> tuple[float, float]:
    """Median milliseconds of calls, on the clock and of CPU time of all threads; one call goes before."""
    calls[0]()
    times = []
    for call in calls:
        start, start_cpu = time.perf_counter(), time.process_time()
        call()
        times.append((time.perf_counter() - start, time.process_time() - start_cpu))
    clock, cpu = (round(1e3 * statistics.median(column), 1) for column in zip(*times, strict=True))
    return clock, cpu


def measure(session: Session, cameras: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Every kind of picture."""

    def picture(camera: dict[str, Any], small: bool) -> Callable[[], Any]:
        def draw() -> None:
            session.look(camera)
            Image.fromarray(session.canvas(small)).save(io.BytesIO(), "JPEG", quality=85)

        return draw

    def click(camera: dict[str, Any]) -> Callable[[], Any]:
        def find() -> None:
            session.look(camera)
            session.id_at(camera["width"] / 2, camera["height"] / 2)

        return find

    results: dict[str, Any] = {"num_gaussians": session.model.count}
    session.select(max(session.model.counts(), key=lambda id: session.model.counts()[id]))
    for mode in Mode:
        session.show(mode=mode)
        figures: dict[str, float] = {}
        for name, small in (("moving", True), ("at_rest", False)):
            clock, cpu = median_ms([picture(camera, small) for camera in cameras])
            figures |= {f"ms_{name}": clock, f"cpu_ms_{name}": cpu}
        results[mode.value] = figures | {"frames_per_second": round(1e3 / figures["ms_moving"], 1)}
    results["ms_click"], results["cpu_ms_click"] = median_ms([click(camera) for camera in cameras])
    results["peak_mb"] = round(peak_memory_mb(), 1)
    return results


@contextmanager
def browser_page(size: Sequence[int]) -> Iterator[Any]:
    """A page of a headless Chromium that is running; None where there is none."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None or importlib.util.find_spec("playwright") is None:
        yield None
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield browser.new_page(viewport=dict(zip(("width", "height"), size, strict=True)))
        browser.close()


def wait_for_picture(page: Any, address: str) -> None:
    """Open the viewer in a page, until the page has received a picture."""
    came: list[bool] = []

    def received(frame: bytes | str) -> None:
        if isinstance(frame, bytes) and PICTURE in frame:
            came.append(True)

    page.on("websocket", lambda socket: socket.on("framereceived", received))
    page.goto(address)
    end = time.monotonic() + 300
    while not came and time.monotonic() < end:
        page.wait_for_timeout(10)


def seconds_to_start(run: str, port: int, size: Sequence[int]) -> dict[str, float] | None:
    """From the command to its address and to the first picture in a browser, on the clock; its CPU time.

    None where viser is not installed.
    """
    command = [sys.executable, "view.py", "-m", run, "--port", str(port)]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    found: dict[str, float] = {}
    with browser_page(size) as page:
        start = time.perf_counter()
        with subprocess.Popen(command, cwd=ROOT, text=True, **quiet) as made:  # type: ignore[call-overload]
            for line in made.stdout:
                if "iteration" in line:
                    found["address"] = time.perf_counter() - start
                    break
            if found and page is not None:
                wait_for_picture(page, f"http://localhost:{port}")
                found["picture"] = time.perf_counter() - start
            made.terminate()
            _, _, usage = os.wait4(made.pid, 0)
    found["cpu"] = usage.ru_utime + usage.ru_stime
    return {name: round(seconds, 2) for name, seconds in found.items()} if "address" in found else None


def medians(records: Sequence[dict[str, float]]) -> dict[str, float]:
    """The median of every figure."""
    return (
        {name: statistics.median(record[name] for record in records) for name in records[0]}
        if records
        else {}
    )


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-m", "--model_path", required=True, help="folder of the run")
    parser.add_argument("--num_gaussians", type=int, nargs="*", default=[], help="other sizes of the model")
    parser.add_argument("--size", type=int, nargs=2, default=[1280, 720], help="width and height at rest")
    parser.add_argument("--frames", type=int, default=12, help="pictures of every kind")
    parser.add_argument("--starts", type=int, default=3, help="starts of the server")
    parser.add_argument("--port", type=int, default=8099, help="for the start of the server")
    parser.add_argument("--json", type=Path, help="where the figures go; default: printed")
    arguments = parser.parse_args()
    load = [os.getloadavg()[0]]
    workspace = view.open_workspace(["-m", arguments.model_path])
    session = Session(workspace)
    width, height = arguments.size
    cameras = walk(list(workspace.views.values()), (width, height), arguments.frames)
    original = workspace.document.model
    results = []
    for count in [original.count, *arguments.num_gaussians]:
        workspace.document._states[:] = [resized(original, count)]
        results.append(measure(session, cameras))
    starts = [
        seconds_to_start(arguments.model_path, arguments.port, arguments.size)
        for _ in range(arguments.starts)
    ]
    load.append(os.getloadavg()[0])
    record = {
        "size_moving": [SMALL_WIDTH, height * SMALL_WIDTH // width],
        "size_at_rest": arguments.size,
        "frames": arguments.frames,
        "seconds_to_start": medians([start for start in starts if start]),
        "results": results,
        "load": [round(value, 1) for value in load],
        "environment": environment(),
    }
    if arguments.json:
        write_json(arguments.json, record)
    else:
        print(json.dumps(record, indent=2))


if __name__ == "__main__":
    run_command(main)
