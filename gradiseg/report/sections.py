"""The report's tables and curves, as HTML; all runs beside each other."""

from collections.abc import Sequence
from html import escape

from gradiseg.evaluation.extracted import KEYS as OBJECT_KEYS
from gradiseg.report.charts import Series, line_chart
from gradiseg.report.records import SCORE_KEYS, Run
from utils.html import table


def score_table(runs: Sequence[Run]) -> str:
    """The main scores of every run."""
    head = [
        "",
        "PSNR",
        "SSIM",
        "mIoU",
        "mBIoU",
        "mBIoU strict",
        "Gaussians",
        "iterations",
        "ms per iteration",
        "memory",
    ]
    rows = []
    for run in runs:
        record = run.record()
        rows.append(
            [
                run.title,
                f"{record['psnr']:.2f}",
                *("" if record[key] is None else f"{record[key]:.3f}" for key in ("ssim", *SCORE_KEYS)),
                f"{record['num_gaussians']:,}",
                f"{record['iterations']:,}",
                f"{1000 * record['seconds_per_iteration']:.1f}",
                f"{record['peak_memory_mb']:,.0f} MB" if record["peak_memory_mb"] else "",
            ]
        )
    return table(head, rows)


def rule_table(runs: Sequence[Run]) -> str:
    """Mean scores by mask rule."""
    rows = [
        [f"{run.title}, {rule}", *(f"{means[key]:.3f}" for key in SCORE_KEYS)]
        for run in runs
        for rule, means in run.masks.get("rules", {}).items()
    ]
    return table(["mask rule", "mIoU", "mBIoU", "mBIoU strict"], rows)


def prompt_table(runs: Sequence[Run]) -> str:
    """Scores of every prompt."""
    keys = ("iou", "biou", "biou_strict")
    head = ["prompt", "views"] + [f"{run.title} {name}" for name in ("IoU", "BIoU", "strict") for run in runs]
    rows = []
    for prompt, first in runs[0].masks["per_prompt"].items():
        scores = [run.masks["per_prompt"].get(prompt, {}) for run in runs]
        cells = [f"{score[key]:.3f}" if key in score else "" for key in keys for score in scores]
        rows.append([prompt, str(first["views"]), *cells])
    return table(head, rows)


def object_table(runs: Sequence[Run]) -> str:
    """Mean scores of the objects cut out, by how their Gaussians are selected."""
    rows = [
        [f"{run.title}, {name}", *(f"{means[key]:.3f}" for key in OBJECT_KEYS)]
        for run in runs
        for name, means in run.objects.get("selections", {}).items()
    ]
    return table(["Gaussians by", "IoU", "boundary IoU", "strict", "spill"], rows)


def curve_section(runs: Sequence[Run]) -> str:
    """Loss curves and number of Gaussians over the iterations, all runs in each chart."""
    charts = {
        "l_rgb": "Colour loss",
        "l_2d": "Identity loss (2D)",
        "l_3d": "Neighbour loss (3D)",
        "num_gaussians": "Gaussians",
    }
    figures = []
    for key, title in charts.items():
        series = []
        for run in runs:
            points = [(row["iteration"], row[key]) for row in run.log if row.get(key) is not None]
            series.append(Series(run.title, points))
        figures.append(f"<figure>{line_chart(title, series, smooth=key != 'num_gaussians')}</figure>")
    keys = "".join(f"<span class='key s{index}'>{escape(run.title)}</span>" for index, run in enumerate(runs))
    return f"<p class=legend>{keys}</p><div class=charts>{''.join(figures)}</div>"
