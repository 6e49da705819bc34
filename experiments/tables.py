"""Tables 1 to 4 and figure 6 of the paper, our numbers beside the published ones.

Ours are read from the folders that scripts/lerf_mask.sh and scripts/mipnerf360.sh fill. A number that is
neither published nor measured stays open (-); a mean over scenes needs all of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.configurations import ROOT
from experiments.paper import LERF_SCENES, MIPNERF360_SCENES
from utils.errors import UserError
from utils.files import write_text
from utils.json_files import read_json, write_json

PUBLISHED = ROOT / "benchmarks" / "published.json"
OPEN = "-"
OURS = {  # configuration -> row
    "baseline": "Gaussian Grouping, this code",
    "no_igd": "without IGD, this code",
    "no_la_knn": "without LA-KNN, this code",
    "gradiseg": "GradiSeg, this code",
}
BOTH = ("baseline", "gradiseg")
STARTS = (3000, 6000, 9000, 12000, 15000, 18000)  # of IGD; the configuration `gradiseg` is the one at 12,000

Values = tuple[float, ...]  # of one cell: a number for each metric
Row = dict[str, Values]  # scene, or "mean" -> cell


@dataclass(frozen=True)
class Metric:
    """A column below every scene: its heading, its key in a record, and how it is printed."""

    heading: str
    key: str
    factor: float = 100.0
    digits: int = 1

    def text(self, value: float) -> str:
        """The number as it is printed."""
        return f"{value:.{self.digits}f}"


MASKS = (Metric("mIoU", "miou"), Metric("mBIoU", "mbiou"))
PICTURES = (Metric("PSNR", "psnr", 1, 2), Metric("SSIM", "ssim", 1, 3), Metric("LPIPS", "lpips", 1, 3))


@dataclass(frozen=True)
class Table:
    """One table: which records it reads, from which folder, and what is printed around it."""

    name: str
    title: str
    note: str
    scenes: tuple[str, ...]
    metrics: tuple[Metric, ...]
    record: str  # file in the folder of a run
    configs: tuple[str, ...]
    subfolder: str = ""
    mean_only: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Scenes that are shown, and the mean."""
        return ("mean",) if self.mean_only else (*self.scenes, "mean")

    def ours(self, root: Path, config: str) -> Row:
        """The row of a configuration: scenes whose record has all metrics, and their mean if all have."""
        row: Row = {}
        for scene in self.scenes:
            path = root / self.subfolder / config / scene / self.record
            record = read_json(path) if path.is_file() else {}
            if all(metric.key in record for metric in self.metrics):
                row[scene] = tuple(metric.factor * record[metric.key] for metric in self.metrics)
        return with_mean(row, self.scenes)

    def rows(self, root: Path, published: Mapping[str, Any]) -> dict[str, Row]:
        """All rows: published, then ours."""
        known = published.get(self.name, {})
        rows = {
            method: with_mean({scene: tuple(cell) for scene, cell in row.items()}, self.scenes)
            for method, row in known.items()
        }
        return rows | {OURS[config]: self.ours(root, config) for config in self.configs}


LERF_TABLES = (
    Table(
        "lerf_text",
        "Table 1: open vocabulary on LERF-Mask",
        "Ids chosen by words (Grounding DINO and SAM). Masks by softmax > 0.2.",
        LERF_SCENES,
        MASKS,
        "eval_text.json",
        BOTH,
    ),
    Table(
        "lerf_ids",
        "Table 2: multi-view segmentation on LERF-Mask",
        "Ids chosen by hand (published) or by best IoU (this code). The paper's cells for OmniSeg3D repeat "
        "Gaussian Grouping's in its table 1 and do not give the printed mean, so they are left open.",
        LERF_SCENES,
        MASKS[:1],
        "eval_lerf_mask.json",
        BOTH,
    ),
    Table(
        "ablation",
        "Table 4: modules, open vocabulary",
        "As table 1.",
        LERF_SCENES,
        MASKS,
        "eval_text.json",
        tuple(OURS),
    ),
    Table(
        "ablation_ids",
        "Table 4 with the best ids",
        "As table 4 without the detector's errors; not in the paper.",
        LERF_SCENES,
        MASKS,
        "eval_lerf_mask.json",
        tuple(OURS),
    ),
)
MIPNERF360_TABLES = tuple(
    Table(
        f"mipnerf360_{factor}",
        f"Table 3: reconstruction on Mip-NeRF 360, {size}",
        f"Mean of {len(MIPNERF360_SCENES)} scenes; every 8th view tests; LPIPS (VGG) on pictures in [0, 1].",
        MIPNERF360_SCENES,
        PICTURES,
        "results.json",
        BOTH,
        factor,
        mean_only=True,
    )
    for factor, size in (
        ("8", "images_8 (the paper's)"),
        ("published", "images_4 outdoors, images_2 indoors"),
    )
)


def with_mean(row: Row, scenes: Sequence[str]) -> Row:
    """The row with the mean over all scenes, unless it has one or lacks a scene."""
    if "mean" in row or not all(scene in row for scene in scenes):
        return row
    return row | {"mean": tuple(map(fmean, zip(*(row[scene] for scene in scenes), strict=True)))}


def markdown(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (heading, ["---"] * len(heading), *rows)]


def table_text(table: Table, rows: Mapping[str, Row]) -> list[str]:
    """A table with its title and note."""
    heading = [f"{scene} {metric.heading}" for scene in table.columns for metric in table.metrics]
    body = [
        [method, *(cell for scene in table.columns for cell in cells(row.get(scene), table.metrics))]
        for method, row in rows.items()
    ]
    return [f"## {table.title}", "", table.note, "", *markdown(["", *heading], body), ""]


def cells(values: Values | None, metrics: Sequence[Metric]) -> list[str]:
    """Printed numbers, or open cells."""
    if values is None:
        return [OPEN] * len(metrics)
    return [metric.text(value) for metric, value in zip(metrics, values, strict=True)]


def per_scene_text(table: Table, rows: Mapping[str, Row]) -> list[str]:
    """Our numbers of a table of means, scene by scene."""
    ours = {OURS[config]: rows[OURS[config]] for config in table.configs}
    heading = [f"{method}: {metric.heading}" for method in ours for metric in table.metrics]
    body = [
        [scene, *(cell for row in ours.values() for cell in cells(row.get(scene), table.metrics))]
        for scene in table.scenes
    ]
    return [*markdown(["scene", *heading], body), ""]


def figure_rows(root: Path) -> dict[str, Row]:
    """Figure 6 from our runs: mIoU over the iteration at which IGD starts, by words and with the best ids."""
    rows = {}
    for start in STARTS:
        for table in (LERF_TABLES[0], LERF_TABLES[3]):
            row = table.ours(root, f"igd_from_{start}") or (
                table.ours(root, "gradiseg") if start == 12000 else {}
            )
            how = "by words" if table is LERF_TABLES[0] else "best ids"
            rows[f"{start:,}, {how}"] = {scene: values[:1] for scene, values in row.items()}
    return rows


def figure_text(rows: Mapping[str, Row]) -> list[str]:
    """Figure 6 as a table."""
    columns = (*LERF_SCENES, "mean")
    body = [
        [name, *(cell for scene in columns for cell in cells(row.get(scene), MASKS[:1]))]
        for name, row in rows.items()
    ]
    note = "The paper prints no numbers: its curves peak around 12,000 in all three scenes."
    return [
        "## Figure 6: mIoU by the iteration at which IGD starts",
        "",
        note,
        "",
        *markdown(["start", *columns], body),
        "",
    ]


def build(lerf: Path | None, mipnerf360: Path | None) -> Iterator[tuple[str, dict[str, Row], list[str]]]:
    """Name, rows and text of everything that can be made from the folders given."""
    published = read_json(PUBLISHED)
    if lerf:
        for table in LERF_TABLES:
            rows = table.rows(lerf, published)
            yield table.name, rows, table_text(table, rows)
        rows = figure_rows(lerf)
        yield "figure_6", rows, figure_text(rows)
    if mipnerf360:
        for table in MIPNERF360_TABLES:
            rows = table.rows(mipnerf360, published)
            yield table.name, rows, table_text(table, rows) + per_scene_text(table, rows)


def write_tables(out: Path, lerf: Path | None = None, mipnerf360: Path | None = None) -> str:
    """Writes `out/tables.md` and `out/tables.json` from the folders that the scripts fill; returns the text.

    Raises:
        UserError: there is no folder, or none is given.
    """
    for folder in (lerf, mipnerf360):
        if folder and not folder.is_dir():
            raise UserError(f"{folder}: no such folder. Give the OUT of the script that fills it.")
    if not (lerf or mipnerf360):
        raise UserError("Nothing to tabulate: give --lerf, --mipnerf360 or both.")
    tables = list(build(lerf, mipnerf360))
    text = "\n".join(line for _, _, lines in tables for line in lines)
    write_text(out / "tables.md", text)
    write_json(out / "tables.json", {name: rows for name, rows, _ in tables})
    return text
