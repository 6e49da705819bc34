"""The viewer's server: a client of viser gets a session, a worker that draws for it, and a panel.

viser shows our pictures as its background and tells where the client's camera stands and what was clicked.
Nothing else of the viewer knows viser.
"""

import asyncio
import functools
import importlib.util
import math
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import torch

from gradiseg.editing.placement import box_of
from gradiseg.viewer.gate import Gate
from gradiseg.viewer.panel import Panel
from gradiseg.viewer.runs import Found
from gradiseg.viewer.session import Session, motion_between
from gradiseg.viewer.worker import Worker
from gradiseg.viewer.workspace import Workspace
from scene.cameras import Camera
from utils.errors import UserError
from utils.graphics import build_rotation
from utils.image import read_pixels
from utils.log import logger

JPEG_QUALITY = 85
SMALL_QUALITY = 70
PAD = 1e4  # of the box that is drawn on, in the scene's units: around every camera
LARGEST_SIDE = 1920  # pixels of a client's picture; larger windows get it enlarged


def require_viser(what: str = "view.py") -> Any:
    """The module, which `what` needs.

    Raises: UserError where it is not installed.
    """
    if importlib.util.find_spec("viser") is None:
        raise UserError(f"{what} needs viser: pip install -e '.[viewer]'")
    import viser

    return viser


def start_server(host: str, port: int, gate: Gate) -> Any:
    """A viser server behind a gate.

    Raises: UserError where the port is taken, or viser does not ask the gate.
    """
    viser = require_viser()
    check_port(host, port)
    with asking(gate):
        server = viser.ViserServer(host=host, port=port, label="GradiSeg", verbose=False)
    # Any client could ask viser for an address on the Internet that leads here.
    server.request_share_url = lambda verbose=True: None
    server.gui.configure_theme(
        show_logo=False, show_share_button=False, control_width="large", dark_mode=True
    )
    if server.get_port() != port or not refuses(port, host):
        server.stop()
        raise UserError(
            f"viser {viser.__version__} does not keep the port, or the gate. Install another release."
        )
    return server


def check_port(host: str, port: int, flag: str = "--port") -> None:
    """Raise a UserError where a port cannot be had; viser would quietly take the next one."""
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError as error:
        raise UserError(f"{host}:{port} cannot be had ({error.strerror}). Choose another {flag}.") from error


@contextmanager
def asking(gate: Gate) -> Iterator[None]:
    """While it is entered, servers that are started ask a gate about every request first."""
    import websockets.asyncio.server as sockets
    from websockets.datastructures import Headers
    from websockets.http11 import Response

    serve = sockets.serve

    def gated(*args: Any, process_request: Callable[..., Any], **options: Any) -> Any:
        def ask(connection: Any, request: Any) -> Any:
            answer = gate.answer(request.path, dict(request.headers.raw_items()))
            if answer is None:
                return process_request(connection, request)
            return Response(
                answer.status, answer.status.phrase, Headers(answer.headers), answer.text.encode()
            )

        return serve(*args, process_request=ask, **options)

    sockets.serve = gated  # type: ignore[assignment, misc, unused-ignore]
    try:
        yield
    finally:
        sockets.serve = serve  # type: ignore[assignment, misc, unused-ignore]


def refuses(port: int, host: str) -> bool:
    """Whether a page of another site is refused: that the gate is asked."""
    address = "127.0.0.1" if host in ("0.0.0.0", "localhost", "") else host
    request = Request(f"http://{f'[{address}]' if ':' in address else address}:{port}/")
    request.add_header("Origin", "http://another.site")
    try:
        with urlopen(request, timeout=10):
            return False
    except HTTPError as error:
        return error.code == HTTPStatus.FORBIDDEN


def offer(server: Any, runs: Sequence[Found], opened: Callable[[Path], Workspace]) -> None:
    """Offer runs on the page; the one that is chosen first is opened for everybody.

    A client sends which of them, never a path.
    """
    opening = threading.Lock()

    def choose(found: Found, client: Any) -> None:
        if not opening.acquire(blocking=False):
            return
        try:
            workspace = opened(found.folder.path)
        except UserError as error:
            opening.release()
            client.add_notification("That did not work", str(error), color="red")
            return
        server.gui.reset()
        Viewer(server, workspace)

    for found in runs:
        with server.gui.add_folder(found.name):
            if found.picture is not None:
                server.gui.add_image(read_pixels(found.picture), label=found.scores or None)
            elif found.scores:
                server.gui.add_markdown(found.scores)
            button = server.gui.add_button(f"Open {found.name}")
            button.on_click(lambda event, found=found: choose(found, event.client))


class Viewer:
    """A workspace on a server: one session, worker and panel for every client."""

    def __init__(self, server: Any, workspace: Workspace) -> None:
        self.server, self.workspace = server, workspace
        self.clients: dict[int, Client] = {}
        server.gui.main_panel.dock_right()  # beside the picture, not over it
        server.scene.world_axes.visible = False
        server.scene.set_up_direction(tuple(workspace.up.tolist()))
        self._stand_at_first_view()
        server.on_client_connect(self._connect)
        server.on_client_disconnect(self._disconnect)

    def _stand_at_first_view(self) -> None:
        """Where clients begin: at the scene's first view, and turning about the middle of the scene."""
        camera = next(iter(self.workspace.views.values()), None)
        if camera is not None:
            start = self.server.initial_camera
            start.position, start.look_at = position_of(camera), look_at_of(camera, self.workspace)
            start.fov = camera.FoVy

    def _connect(self, handle: Any) -> None:
        self.clients[handle.client_id] = Client(handle, self)

    def _disconnect(self, handle: Any) -> None:
        client = self.clients.pop(handle.client_id, None)
        if client is not None:
            client.close()


class Client:
    """One browser: what it does goes to its session, what its session shows goes to it."""

    def __init__(self, handle: Any, viewer: Viewer) -> None:
        self.handle, self.viewer = handle, viewer
        self.session = Session(viewer.workspace)
        self.worker = Worker(self._draw, self._failed)
        self.panel = Panel(self)
        self.pad: Any = None
        self.gizmo: Any = None
        self._gizmo_pivot: list[float] = [0.0, 0.0, 0.0]
        viewer.workspace.tell(self)
        handle.camera.on_update(self._camera_moved)
        for modifier in (None, "shift"):
            handle.scene.on_click(modifier=modifier)(self._clicked)
        for modifier in ("cmd/ctrl", "cmd/ctrl+shift"):
            handle.scene.on_rect_select(modifier=modifier)(self._boxed)
        self._camera_moved(handle.camera)

    def close(self) -> None:
        """Forget it."""
        self.viewer.workspace.forget(self)
        self.worker.stop()

    # From the session to the browser.

    def _draw(self, small: bool) -> None:
        if self.session.camera is None:
            return
        canvas = self.session.canvas(small)
        quality = SMALL_QUALITY if small else JPEG_QUALITY
        self.handle.scene.set_background_image(canvas, format="jpeg", jpeg_quality=quality)
        self.handle.flush()

    def _failed(self, error: Exception) -> None:
        logger.error("viewer: a picture failed", exc_info=error)
        self.say(f"The picture could not be drawn ({error}).")

    def say(self, text: str, is_error: bool = True) -> None:
        """One sentence to the client."""
        title, color = ("That did not work", "red") if is_error else ("Done", "green")
        self.handle.add_notification(title, text, auto_close_seconds=8.0, color=color)

    def do(self, action: Callable[[], None]) -> None:
        """An action of the client: what it raises for people is said to it."""
        try:
            action()
        except UserError as error:
            self.say(str(error))
        except Exception as error:  # a fault of ours: the client must not wait for what never comes
            logger.exception("viewer: an action failed")
            self.say(f"{type(error).__name__}: {error}. The server's output has more.")
        else:
            self.changed()

    def changed(self) -> None:
        """The selection or what is shown has changed."""
        self.panel.refresh()
        self.place_pad()
        self.place_gizmo()
        self.worker.changed()

    def redraw(self) -> None:
        """What is tried out has changed, and may go on changing."""
        self.worker.moved()

    def document_changed(self) -> None:
        """The document has changed, by this client or another."""
        self.session.try_out(None)
        self.session.paint()
        self.changed()

    def progressed(self, share: float) -> None:
        """A slow operation goes on, this client's or another's."""
        self.panel.show_progress(share)

    # The camera.

    def _camera_moved(self, camera: Any) -> None:
        width, height = int(camera.image_width), int(camera.image_height)
        if not width or not height:
            return
        scale = min(1.0, LARGEST_SIDE / max(width, height))
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        focal = height / (2 * math.tan(camera.fov / 2))
        rotation = build_rotation_of(camera.wxyz)
        entry = {"position": [float(x) for x in camera.position], "rotation": rotation}
        self.session.look({**entry, "width": width, "height": height, "fx": focal, "fy": focal})
        self.worker.moved()

    def stand_at(self, camera: Camera) -> None:
        """Stand where a view was taken."""
        with self.handle.atomic():
            self.handle.camera.fov = camera.FoVy
            self.handle.camera.position = position_of(camera)
            self.handle.camera.look_at = look_at_of(camera, self.viewer.workspace)

    def fly_to(self, id: int) -> None:
        """Look at an object from the side on which the camera is, near enough to fill half of the picture."""
        model = self.session.model
        chosen = model.ids == id
        if not bool(chosen.any()):
            raise UserError(f"Object {id} is not there any more.")
        box = box_of(model.params["xyz"][chosen].cpu())
        size = model.params["scaling"][chosen].exp().max(1).values.median()  # one Gaussian has a flat box
        centre, radius = box.centre.numpy(), max(float(box.size.norm()) / 2, float(size))
        away = np.asarray(self.handle.camera.position) - centre
        distance = 2 * radius / math.tan(self.handle.camera.fov / 2)
        with self.handle.atomic():
            self.handle.camera.look_at = centre
            self.handle.camera.position = centre + away / np.linalg.norm(away) * distance

    # Selecting.

    def _point(self, screen: Any) -> tuple[float, float]:
        camera = self.session.camera
        assert camera is not None
        return float(screen[0]) * camera.image_width, float(screen[1]) * camera.image_height

    def _clicked(self, event: Any) -> None:
        x, y = self._point(event.screen_pos)
        add = event.modifier == "shift"
        if self.panel.draws_lasso:
            self.do(lambda: self.panel.lasso_click(x, y))
        elif self.panel.clicks_object:
            self.do(lambda: self.session.click_object(x, y, is_on=not add))
        else:
            self.do(lambda: self.session.click(x, y, add))

    def _boxed(self, event: Any) -> None:
        corners = self._point(event.screen_min), self._point(event.screen_max)
        self.do(lambda: self.session.box(*corners, add=event.modifier.endswith("shift")))

    def place_pad(self) -> None:
        """While a lasso is drawn, drags go to an invisible box around everything, not to the camera."""
        if self.panel.draws_lasso == (self.pad is not None):
            return
        if self.pad is not None:
            self.pad.remove()
            self.pad = None
            return
        middle = tuple(self.viewer.workspace.middle.tolist())
        self.pad = self.handle.scene.add_box(
            "/lasso", dimensions=(PAD,) * 3, position=middle, opacity=0.0, side="back", cast_shadow=False
        )
        for modifier in (None, "shift"):
            self.pad.on_drag("left", modifier=modifier)(self._drawn)

    async def _drawn(self, event: Any) -> None:  # async, see _dragged
        if event.phase == "start":
            self.session.lasso[:] = [self._point(event.start_screen_pos)]
        self.session.lasso.append(self._point(event.end_screen_pos))
        if event.phase == "end":
            add = event.modifier == "shift"
            close = functools.partial(self.panel.close_lasso, add)
            asyncio.get_running_loop().run_in_executor(None, self.do, close)
        else:
            self.worker.moved()

    # Moving.

    def place_gizmo(self) -> None:
        """Put the handle at the middle of the selection where the panel asks for it, or take it away."""
        box = self.session.box_of_selection() if self.panel.wants_gizmo else None
        if box is None:
            if self.gizmo is not None:
                self.gizmo.remove()
                self.gizmo = None
            return
        self._gizmo_pivot = [float(x) for x in box.centre]
        if self.gizmo is None:
            self.gizmo = self.handle.scene.add_transform_controls(
                "/move", scale=float(box.size.max()), line_width=4.0, depth_test=False
            )
            self.gizmo.on_update(self._dragged)
        self.gizmo.position, self.gizmo.wxyz = self._gizmo_pivot, (1.0, 0.0, 0.0, 0.0)

    async def _dragged(self, event: Any) -> None:  # async: viser then keeps the order of events
        handle = event.target
        self.session.try_out(motion_between(self._gizmo_pivot, handle.position, handle.wxyz))
        if event.phase == "end":
            asyncio.get_running_loop().run_in_executor(None, self.do, self.session.move)
        else:
            self.worker.moved()


def build_rotation_of(wxyz: Any) -> list[list[float]]:
    """Rotation (3, 3) as lists, of a quaternion w x y z."""
    quaternion = torch.tensor([[float(value) for value in wxyz]], dtype=torch.float64)
    rows: list[list[float]] = build_rotation(quaternion)[0].tolist()
    return rows


def position_of(camera: Camera) -> np.ndarray:
    """Where a camera stands (3,)."""
    return -camera.R @ camera.T


def look_at_of(camera: Camera, workspace: Workspace) -> np.ndarray:
    """The point (3,) on a camera's axis beside the middle of the scene: what a client turns about."""
    position, forward = position_of(camera), camera.R[:, 2]
    depth = float((workspace.middle - position) @ forward)
    return position + max(depth, 0.1) * forward
