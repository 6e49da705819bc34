"""The data doctor: all that is wrong, doubtful or worth knowing about a scene, in one report.

Where the data check of a run stops at the first error, the doctor goes on. A finding is an error (training
refuses the scene), a warning (it trains, but probably not as meant) or a note. Every view is read once, into
its `ViewFacts`; then one function per subject judges them.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from arguments import MAX_CLASSES, ModelParams
from preparation.consistency import Sighting, Switch, agreement, find_switches, see, visible_points
from preparation.photos import SUFFIXES, THREADS, some, without_suffix
from scene.checks import ASPECT_TOLERANCE
from scene.dataset_readers import read_scene
from scene.masks import read_id_map
from scene.views import CameraInfo, SceneInfo
from utils.errors import UserError

LEAST_AGREEMENT = 0.5  # measured: noisy masks 0.76 to 0.85, those of other scenes 0.37 at most
FEW_POINTS = 20  # seen by a view: its pose rests on little
SMALL_CLOUD = 500  # points; densification starts from too little
WIDE_STEP = 30.0  # degrees between a view and its nearest, beyond which surfaces are seen once
OFF_CENTRE = 0.02  # of an edge: where cropped photographs have their principal point
LABELLED = 0.02  # share of labelled pixels below which a mask holds next to nothing


LEVELS = ("error", "warning", "note")
CAMERA_KEYS = ("width", "height", "fx", "fy", "cx", "cy")
CAMERAS_SHOWN = 4


@dataclass(frozen=True)
class Finding:
    """One result; `level` is error, warning or note."""

    level: str
    text: str


@dataclass(frozen=True)
class ViewFacts:
    """What the files of one view hold; a problem says why a file cannot be read."""

    points: int  # of the cloud, that the view sees
    image_size: tuple[int, int] = (0, 0)  # width, height
    image_hash: str = ""
    image_problem: str = ""
    mask_size: tuple[int, int] | None = None
    mask_problem: str = ""
    areas: dict[int, int] = field(default_factory=dict)  # id -> pixels
    sighting: Sighting | None = None  # None without a mask


@dataclass(frozen=True)
class Patient:
    """A scene that could be read: `facts` by view name."""

    params: ModelParams
    min_views: int
    info: SceneInfo
    facts: dict[str, ViewFacts]

    @property
    def views(self) -> list[CameraInfo]:
        """All views, training views first."""
        return self.info.train_cameras + self.info.test_cameras

    @property
    def mask_folder(self) -> Path:
        """Where the masks are."""
        return Path(self.params.source_path, self.params.object_path)

    @cached_property
    def areas(self) -> dict[str, dict[int, int]]:
        """Training view with a mask -> id -> pixels."""
        names = [view.image_name for view in self.info.train_cameras]
        return {name: self.facts[name].areas for name in names if self.facts[name].areas}

    @cached_property
    def sightings(self) -> dict[str, Sighting]:
        """Training view with a mask -> ids at points of the cloud."""
        return {name: found for name in self.areas if (found := self.facts[name].sighting) is not None}

    @cached_property
    def views_of_id(self) -> Counter[int]:
        """Id other than 0 -> number of training views that show it."""
        return Counter(label for areas in self.areas.values() for label in areas if label)

    @cached_property
    def agreement(self) -> float | None:
        """`consistency.agreement` of the masks; None without masks or points that several of them show."""
        return agreement(list(self.sightings.values())) if self.sightings else None

    @cached_property
    def switches(self) -> list[Switch]:
        """`consistency.find_switches` of the masks."""
        return find_switches(self.sightings, self.areas) if self.sightings else []


def examine(params: ModelParams, min_views: int, quiet: bool = False) -> tuple[Patient | None, list[Finding]]:
    """Read a scene and judge it; the patient is None where there is no scene to read.

    min_views: an id that fewer views show is reported.
    """
    try:
        info = read_scene(params)
    except UserError as error:
        return None, [Finding("error", str(error))]
    views = info.train_cameras + info.test_cameras
    with ThreadPoolExecutor(THREADS) as pool:
        read = pool.map(partial(_read_view, points=info.point_cloud.points), views)
        found = list(tqdm(read, "Reading views", len(views), leave=False, disable=quiet or None))
    patient = Patient(
        params, min_views, info, {view.image_name: facts for view, facts in zip(views, found, strict=True)}
    )
    judges = (_judge_images, _judge_masks, _judge_ids, _judge_split, _judge_cameras, _judge_points)
    return patient, [finding for judge in judges for finding in judge(patient)]


def record(patient: Patient | None, findings: Sequence[Finding]) -> dict[str, Any]:
    """The report for JSON; without a patient, the findings alone."""
    levels = Counter(finding.level for finding in findings)
    report: dict[str, Any] = {
        "errors": levels["error"],
        "warnings": levels["warning"],
        "findings": [vars(finding) for finding in findings],
    }
    if patient is None:
        return report
    info, facts = patient.info, patient.facts
    cameras = Counter((view.width, view.height, view.fx, view.fy, view.cx, view.cy) for view in patient.views)
    seen = np.array([found.points for found in facts.values()])
    angles = nearest_view_angles(patient) if len(info.train_cameras) > 1 else np.zeros(1)
    return report | {
        "views": {"train": len(info.train_cameras), "test": len(info.test_cameras)},
        "image_sizes": dict(Counter("{}x{}".format(*found.image_size) for found in facts.values())),
        "cameras": [
            dict(zip(CAMERA_KEYS, camera, strict=True), views=count) for camera, count in cameras.items()
        ],
        "points": {
            "count": len(info.point_cloud.points),
            "least": int(seen.min()),
            "median": float(np.median(seen)),
        },
        "degrees_to_nearest_view": {
            "median": float(np.median(angles)),
            "most": float(angles.max()),
        },
        "masks": {
            "count": len(patient.areas),
            "labelled": _labelled_share(patient),
            "agreement": patient.agreement,
            "per_view": patient.areas,
        },
        "ids": id_table(patient),
        "switches": [vars(switch) for switch in patient.switches],
    }


def id_table(patient: Patient) -> dict[int, dict[str, Any]]:
    """Id -> views that show it, its share of their pixels (mean), and the view where it is largest."""
    table = {}
    for label in sorted(patient.views_of_id):
        shares = {
            name: areas[label] / sum(areas.values())
            for name, areas in patient.areas.items()
            if label in areas
        }
        table[label] = {
            "views": len(shares),
            "share": float(np.mean(list(shares.values()))),
            "largest_in": max(shares, key=lambda name: shares[name]),
        }
    return table


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The report as text: what there is, then the findings, the worst first."""
    if "views" in report:
        views, points, coverage, masks = (
            report[key] for key in ("views", "points", "degrees_to_nearest_view", "masks")
        )
        sizes = ", ".join(f"{size} ({count})" for size, count in report["image_sizes"].items())
        yield f"{views['train']} training views, {views['test']} test views; images {sizes}"
        for camera in report["cameras"][:CAMERAS_SHOWN]:
            yield (
                "camera {width}x{height}, focal lengths {fx:.1f} {fy:.1f}, principal point {cx:.1f} {cy:.1f} "
                "({views} views)".format(**camera)
            )
        yield "{count:,} points; a view sees {median:.0f} (median), {least} at least".format(**points)
        yield "the nearest view is {median:.0f} degrees away (median), {most:.0f} at most".format(**coverage)
        if masks["count"]:
            kappa = "" if masks["agreement"] is None else f"; views agree on ids by {masks['agreement']:.2f}"
            yield f"{masks['count']} masks, {masks['labelled']:.0%} of their pixels labelled{kappa}"
            yield "id    views  share  largest in"
        for label, row in report["ids"].items():
            yield f"{label:<5d} {row['views']:5d} {row['share']:6.1%}  {row['largest_in']}"
    order = sorted(report["findings"], key=lambda finding: LEVELS.index(finding["level"]))
    yield from (f"{finding['level']}: {finding['text']}" for finding in order)
    yield f"{report['errors']} errors, {report['warnings']} warnings"


def nearest_view_angles(patient: Patient) -> np.ndarray:
    """Degrees (V,) from each training view to its nearest one, seen from the middle of the point cloud."""
    centres = np.stack([-view.R @ view.T for view in patient.info.train_cameras])  # (V, 3)
    rays = centres - np.median(patient.info.point_cloud.points, axis=0)
    rays = rays / np.maximum(np.linalg.norm(rays, axis=1, keepdims=True), 1e-12)
    cosines = np.clip(rays @ rays.T, -1.0, 1.0)
    np.fill_diagonal(cosines, -1.0)
    return np.degrees(np.arccos(cosines.max(axis=1)))


def _labelled_share(patient: Patient) -> float:
    total = sum(sum(areas.values()) for areas in patient.areas.values())
    bare = sum(areas.get(0, 0) for areas in patient.areas.values())
    return 1.0 - bare / total if total else 0.0


def _read_view(view: CameraInfo, points: np.ndarray) -> ViewFacts:
    seen = len(visible_points(view, points)[0])
    try:
        content = view.image_path.read_bytes()
        with Image.open(view.image_path) as file:
            file.load()
            size = file.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return ViewFacts(seen, image_problem=f"{view.image_path}: {error}")
    facts = ViewFacts(seen, size, hashlib.sha256(content).hexdigest())
    if view.mask_path is None:
        return facts
    try:
        ids = read_id_map(view.mask_path)
    except UserError as error:
        return ViewFacts(seen, size, facts.image_hash, mask_problem=str(error))
    labels, pixels = np.unique(ids, return_counts=True)
    return ViewFacts(
        seen,
        size,
        facts.image_hash,
        mask_size=(ids.shape[1], ids.shape[0]),
        areas=dict(zip(labels.tolist(), pixels.tolist(), strict=True)),
        sighting=see(view, points, ids),
    )


def _judge_images(patient: Patient) -> Iterator[Finding]:
    folder = Path(patient.params.source_path, patient.params.images)
    problems = [facts.image_problem for facts in patient.facts.values() if facts.image_problem]
    if problems:
        yield Finding("error", f"images that cannot be read: {some(problems)}. Copy them again.")
    odd = []
    for view in patient.views:
        width, height = patient.facts[view.image_name].image_size
        if width and abs(width / view.width * view.height - height) > ASPECT_TOLERANCE:
            odd.append(f"{view.image_name} ({width}x{height}, camera {view.width}x{view.height})")
    if odd:
        yield Finding(
            "error",
            f"images of another shape than their camera: {some(odd)}. Use those that belong to the model.",
        )
    used = {view.image_name for view in patient.views}
    if folder.is_dir():
        files = (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES)
        spare = [
            path.name for path in files if without_suffix(path.relative_to(folder).as_posix()) not in used
        ]
        if spare:
            yield Finding("note", f"{folder}: images without a pose, which are not used: {some(spare)}")


def _judge_masks(patient: Patient) -> Iterator[Finding]:
    folder, train = patient.mask_folder, [view.image_name for view in patient.info.train_cameras]
    problems = [facts.mask_problem for facts in patient.facts.values() if facts.mask_problem]
    if problems:
        yield Finding("error", f"masks that cannot be read: {some(problems)}")
    missing = [view.image_name for view in patient.info.train_cameras if view.mask_path is None]
    names = {view.image_name for view in patient.views}
    files = sorted(folder.rglob("*.png")) if folder.is_dir() else []
    strangers = [
        path.name for path in files if without_suffix(path.relative_to(folder).as_posix()) not in names
    ]
    if len(missing) == len(train):
        other = f"; its {len(files)} files carry the names of other images" if files else ""
        yield Finding("warning", f"{folder}: no masks of training views{other}. prepare_masks.py makes them.")
        return
    if missing:
        yield Finding("warning", f"training views without a mask train on colour alone: {some(missing)}")
    if strangers:
        yield Finding("warning", f"{folder}: masks that belong to no image: {some(strangers)}")
    yield from _judge_mask_shapes(patient)
    if patient.agreement is not None and patient.agreement < LEAST_AGREEMENT:
        yield Finding(
            "warning",
            f"{folder}: ids change from view to view (agreement {patient.agreement:.2f}, usual is 0.75 or "
            "more). Are these masks of another scene, or has every view its own ids? prepare_masks.py "
            "--backend associate3d joins them.",
        )


def _judge_mask_shapes(patient: Patient) -> Iterator[Finding]:
    odd: list[str] = []
    resized: list[str] = []
    for name, facts in patient.facts.items():
        if facts.mask_size is None or facts.mask_size == facts.image_size:
            continue
        (width, height), (image_width, image_height) = facts.mask_size, facts.image_size
        skewed = abs(width / image_width * image_height - height) > ASPECT_TOLERANCE
        (odd if skewed else resized).append(f"{name} ({width}x{height}, image {image_width}x{image_height})")
    if odd:
        yield Finding(
            "warning", f"masks of another shape than their image, which will be stretched: {some(odd)}"
        )
    if resized:
        yield Finding(
            "note", f"masks of another size than their image, which will be resized: {some(resized)}"
        )
    bare = [
        name
        for name, areas in patient.areas.items()
        if sum(pixels for label, pixels in areas.items() if label) < LABELLED * sum(areas.values())
    ]
    if bare:
        yield Finding("warning", f"masks with next to nothing in them: {some(bare)}")


def _judge_ids(patient: Patient) -> Iterator[Finding]:
    if not patient.views_of_id:
        return
    largest, classes = max(patient.views_of_id), patient.params.num_classes
    if largest >= MAX_CLASSES:
        yield Finding(
            "error",
            f"{patient.mask_folder}: ids up to {largest:,}, but {MAX_CLASSES - 1:,} is the largest possible. "
            "Are these coloured pictures? If not, prepare_masks.py --backend external numbers ids anew.",
        )
    elif largest >= classes:
        yield Finding(
            "error",
            f"{patient.mask_folder}: ids up to {largest}, but num_classes is {classes}. Train with "
            f"--num_classes {largest + 1}, or number ids anew: prepare_masks.py --backend external.",
        )
    rare = [
        f"{label} ({count})"
        for label, count in sorted(patient.views_of_id.items())
        if count < patient.min_views
    ]
    if rare:
        yield Finding("warning", f"ids in fewer than {patient.min_views} views: {some(rare)}")
    for switch in patient.switches:
        yield Finding(
            "warning",
            f"id {switch.id} lies where other views have id {switch.other}: probably one object. In "
            f"{some(switch.views)}",
        )


def _judge_split(patient: Patient) -> Iterator[Finding]:
    """Leaks from test to training views."""
    source, test = Path(patient.params.source_path), patient.info.test_cameras
    for folder in ("images_train", "test_mask"):
        if not test and (source / folder).is_dir():
            yield Finding(
                "warning",
                f"{source / folder} is there, but no view is held out: with these options test views train, "
                "too. Use --train_split, or --eval.",
            )
            return
    if not test:
        yield Finding(
            "note", "no test views: --eval holds out every 8th, --train_split those not in images_train/"
        )
    by_hash = {
        patient.facts[view.image_name].image_hash: view.image_name for view in patient.info.train_cameras
    }
    leaks = [
        f"{view.image_name} = {by_hash[digest]}"
        for view in test
        if (digest := patient.facts[view.image_name].image_hash) and digest in by_hash
    ]
    if leaks:
        yield Finding(
            "warning", f"test images that are also training images: {some(leaks)}. Remove one of each."
        )
    names = {view.image_name for view in test} | {str(index) for index in range(len(test))}
    if test and (source / "test_mask").is_dir():
        folders = sorted(path.name for path in (source / "test_mask").iterdir() if path.is_dir())
        strangers = [name for name in folders if name not in names]
        if strangers:
            yield Finding("warning", f"test_mask: folders that stand for no test view: {some(strangers)}")


def _judge_cameras(patient: Patient) -> Iterator[Finding]:
    off = {
        f"{view.cx:.1f}, {view.cy:.1f} of {view.width}x{view.height}"
        for view in patient.views
        if abs(view.cx / view.width - 0.5) > OFF_CENTRE or abs(view.cy / view.height - 0.5) > OFF_CENTRE
    }
    if off:
        yield Finding(
            "note", f"principal point away from the centre (cropped photographs?): {some(sorted(off))}"
        )
    if len(patient.info.train_cameras) > 1:
        angles = nearest_view_angles(patient)
        lonely = [
            f"{view.image_name} ({angle:.0f} degrees)"
            for view, angle in zip(patient.info.train_cameras, angles, strict=True)
            if angle > WIDE_STEP
        ]
        if lonely:
            yield Finding("warning", f"training views far from any other: {some(lonely)}")


def _judge_points(patient: Patient) -> Iterator[Finding]:
    count = len(patient.info.point_cloud.points)
    if count < SMALL_CLOUD:
        yield Finding(
            "warning", f"the point cloud has {count} points. More features or photographs give more."
        )
    blind = [name for name, facts in patient.facts.items() if facts.points < FEW_POINTS]
    if blind:
        yield Finding(
            "warning",
            f"views that see fewer than {FEW_POINTS} points, whose poses may be wrong: {some(blind)}",
        )
