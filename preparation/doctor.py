"""The data doctor: all that is wrong, doubtful or worth knowing about a scene, in one report.

Where training stops at the first error, the doctor goes on. What names, headers and cameras tell is judged by
the functions of `scene.checks`, which training uses, too; here stands what takes every pixel. Every view is
read once, into its `ViewFacts`; then one function per subject judges them.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from arguments import ModelParams
from preparation.consistency import Sighting, Switch, agreement, find_switches, see, visible_points
from preparation.photos import THREADS
from scene.checks import (
    LEVELS,
    QUICK,
    Finding,
    ViewSizes,
    judge_image_shapes,
    judge_labels,
    judge_mask_names,
    judge_mask_shapes,
    nearest_view_angles,
)
from scene.dataset_readers import read_scene
from scene.masks import read_id_map
from scene.views import CameraInfo, SceneInfo
from utils.errors import UserError, some
from utils.image import is_deep, open_image, to_rgb
from utils.log import bar

LEAST_AGREEMENT = 0.5  # measured: noisy masks 0.76 to 0.85, those of other scenes 0.37 at most
FEW_POINTS = 20  # seen by a view: its pose rests on little
CAMERA_KEYS = ("width", "height", "fx", "fy", "cx", "cy")
CAMERAS_SHOWN = 4


@dataclass(frozen=True)
class ViewFacts:
    """What the files of one view hold; a problem says why a file cannot be read."""

    points: int  # of the cloud, that the view sees
    image_size: tuple[int, int] | None = None  # width, height
    image_is_deep: bool = False  # 16 bits per channel
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


def examine(params: ModelParams, min_views: int) -> tuple[Patient | None, list[Finding]]:
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
        found = list(bar(read, "Reading views", len(views)))
    patient = Patient(
        params, min_views, info, {view.image_name: facts for view, facts in zip(views, found, strict=True)}
    )
    sizes = [
        ViewSizes(view, facts.image_size, facts.mask_size, facts.image_is_deep)
        for view, facts in zip(views, found, strict=True)
    ]
    return patient, [
        *(Finding("note", note) for note in info.notes),
        *_judge_files(patient),
        *judge_image_shapes(sizes),
        *judge_mask_shapes(sizes),
        *judge_mask_names(info, params),
        *judge_labels(patient.areas, params),
        *_judge_ids(patient),
        *_judge_leaks(patient),
        *(finding for judge in QUICK for finding in judge(info, params)),
        *_judge_sight(patient),
    ]


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
    angles = nearest_view_angles(info) if len(info.train_cameras) > 1 else np.zeros(1)
    return report | {
        "views": {"train": len(info.train_cameras), "test": len(info.test_cameras)},
        "image_sizes": dict(Counter("{}x{}".format(*found.image_size or (0, 0)) for found in facts.values())),
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


def _labelled_share(patient: Patient) -> float:
    total = sum(sum(areas.values()) for areas in patient.areas.values())
    bare = sum(areas.get(0, 0) for areas in patient.areas.values())
    return 1.0 - bare / total if total else 0.0


def _read_view(view: CameraInfo, points: np.ndarray) -> ViewFacts:
    seen = len(visible_points(view, points)[0])
    try:
        with open_image(view.image_path) as file:
            size, deep = file.size, is_deep(file)
            to_rgb(file)
        content = view.image_path.read_bytes()
    except UserError as error:
        return ViewFacts(seen, image_problem=str(error))
    facts = ViewFacts(seen, size, deep, hashlib.sha256(content).hexdigest())
    if view.mask_path is None:
        return facts
    try:
        ids = read_id_map(view.mask_path)
    except UserError as error:
        return replace(facts, mask_problem=str(error))
    labels, pixels = np.unique(ids, return_counts=True)
    return replace(
        facts,
        mask_size=(ids.shape[1], ids.shape[0]),
        areas=dict(zip(labels.tolist(), pixels.tolist(), strict=True)),
        sighting=see(view, points, ids),
    )


def _judge_files(patient: Patient) -> Iterator[Finding]:
    for facts in patient.facts.values():
        yield from (Finding("error", text) for text in (facts.image_problem, facts.mask_problem) if text)


def _judge_ids(patient: Patient) -> Iterator[Finding]:
    """Whether ids mean the same in every view."""
    if patient.agreement is not None and patient.agreement < LEAST_AGREEMENT:
        yield Finding(
            "warning",
            f"{patient.mask_folder}: ids change from view to view (agreement {patient.agreement:.2f}, usual "
            "is 0.75 or more). Are these masks of another scene, or has every view its own ids? "
            "prepare_masks.py --backend associate3d joins them.",
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


def _judge_leaks(patient: Patient) -> Iterator[Finding]:
    """Test views that are training views under another name."""
    by_hash = {
        patient.facts[view.image_name].image_hash: view.image_name for view in patient.info.train_cameras
    }
    leaks = [
        f"{view.image_name} = {by_hash[digest]}"
        for view in patient.info.test_cameras
        if (digest := patient.facts[view.image_name].image_hash) and digest in by_hash
    ]
    if leaks:
        yield Finding(
            "warning", f"test images that are also training images: {some(leaks)}. Remove one of each."
        )


def _judge_sight(patient: Patient) -> Iterator[Finding]:
    blind = [name for name, facts in patient.facts.items() if facts.points < FEW_POINTS]
    if blind:
        yield Finding(
            "warning",
            f"views that see fewer than {FEW_POINTS} points, whose poses may be wrong: {some(blind)}",
        )
