"""One page that shows what a run did: scores, loss curves and pictures, beside the baseline if there is one.

Everything is read from the run folders: `training_summary.json` and `training_log.json` (train.py),
`results.json` (metrics.py), `eval_lerf_mask.json` (scripts/eval_lerf_mask.py) and the pictures of
render.py, eval_lerf_mask.py and edit_object_removal.py. The page needs no other file and no network:
pictures are embedded, curves are drawn as SVG. Naming contract: `runs` are `{title: folder}` in the order
of the page; `k` is a test view's number in name order.
"""

import base64
import io
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from arguments import read_cfg_args
from gradiseg.charts import CHART_STYLE, Series, line_chart
from gradiseg.evaluation.masks import TruthMask, list_truth, read_mask, read_prediction
from utils.errors import UserError
from utils.files import write_text
from utils.image import id_palette, read_pixels
from utils.json_files import read_json, write_json

TITLES = {"gradiseg": "GradiSeg", "baseline": "Baseline"}
SUMMARY_KEYS = ("num_gaussians", "seconds_per_iteration", "iterations", "seconds", "peak_memory_mb")
SCORE_KEYS = ("miou", "mbiou", "mbiou_strict")
IMAGE_KEYS = ("psnr", "ssim")
VIEWS_SHOWN = 3
JPEG_QUALITY = 92  # no visible loss at a tenth of the PNG's size
Color = tuple[int, ...]  # red, green, blue

BACKGROUND = (36, 38, 42)  # what belongs to no prompt


@dataclass(frozen=True)
class Run:
    """A run's folder and records."""

    title: str
    folder: Path
    summary: dict[str, Any]
    log: list[dict[str, Any]]
    images: dict[str, Any]
    masks: dict[str, Any]

    @property
    def renders(self) -> Path:
        """Folder of its pictures, without `renders/`."""
        return self.folder / self.images["split"] / f"ours_{self.images['iteration']}"

    @property
    def predictions(self) -> Path:
        """Folder of its predicted masks."""
        return self.folder / "test" / f"ours_{self.masks['iteration']}_text" / "test_mask"

    @property
    def edit(self) -> tuple[Path, str] | None:
        """Its latest edit, None where there is none: the folder of the renders and what they show."""
        root = self.folder / "point_cloud_object_removal"
        found = [path.parent.name for path in root.glob("iteration_*/edit.json")]
        if not found:
            return None
        name = max(found, key=lambda name: int(name.removeprefix("iteration_")))
        record = read_json(root / name / "edit.json")
        prompts = {identity: prompt for prompt, ids in self.masks.get("ids", {}).items() for identity in ids}
        objects = ", ".join(prompts.get(identity, f"id {identity}") for identity in record["select_obj_id"])
        caption = f"without {objects}" if record["mode"] == "remove" else f"{objects} alone"
        return self.folder / self.images["split"] / "ours_object_removal" / name / "renders", caption

    def record(self) -> dict[str, Any]:
        """Its line in report.json."""
        images = {key: self.images[key] for key in IMAGE_KEYS}
        masks = {key: self.masks.get(key) for key in SCORE_KEYS}
        return images | masks | {key: self.summary.get(key) for key in SUMMARY_KEYS}


def load_run(title: str, folder: Path) -> Run:
    """Reads the records of a run; a scene without true masks needs no scores of masks.

    Raises:
        UserError: a record is missing; says which command writes it.
    """
    makers = {
        "training_summary.json": "train.py",
        "training_log.json": "train.py",
        "results.json": "render.py and metrics.py",
        "eval_lerf_mask.json": "scripts/eval_lerf_mask.py",
    }
    scores_masks = Path(str(read_cfg_args(folder).get("source_path", "")), "test_mask").is_dir()
    for name, command in makers.items():
        needed = scores_masks or name != "eval_lerf_mask.json"
        if needed and not (folder / name).is_file():
            raise UserError(f"{folder / name}: missing. Run {command} on this run first.")
    records = (read_json(folder / name) if (folder / name).is_file() else {} for name in makers)
    return Run(title, folder, *records)


def write_report(runs: Mapping[str, Path], out: Path) -> Path:
    """Writes `out/report.json` and `out/report.html`; returns the page's path.

    Args:
        runs: run folders by their key in the JSON (`gradiseg`, `baseline`).
    """
    loaded = {key: load_run(TITLES.get(key, key), folder) for key, folder in runs.items()}
    facts = environment()
    write_json(
        out / "report.json", {key: run.record() for key, run in loaded.items()} | {"environment": facts}
    )
    write_text(out / "report.html", page(list(loaded.values()), facts))
    return out / "report.html"


def environment() -> dict[str, Any]:
    """What the figures depend on: versions, processor, threads, commit."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "commit": commit(),
    }


def cpu_name() -> str:
    """The processor's model name, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def commit() -> str | None:
    """The commit of this code, None outside a repository or without git."""
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


def page(runs: Sequence[Run], facts: Mapping[str, Any]) -> str:
    """The whole page."""
    scene = Path(str(read_cfg_args(runs[0].folder).get("source_path", ""))).name
    split = "test" if runs[0].images["split"] == "test" else "training"
    about_masks = (
        "A mask is where the softmax of the prompt's ids exceeds 0.2. mBIoU compares the bands along "
        "the edges of the masks (2% of the image diagonal wide; strict: 0.5%). "
        f"Ids: {escape(str(runs[0].masks.get('ids_source', '')))}."
        if runs[0].masks
        else "The scene has no true masks (test_mask/) to score the predicted ones against."
    )
    sections = [
        f"<h1>GradiSeg on <em>{escape(scene)}</em></h1>",
        f"<p>Scores of {runs[0].images['views']} {split} views. {about_masks}</p>",
        score_table(runs),
        "<h2>Pictures</h2>",
        picture_section(runs),
        "<h2>Training</h2>",
        curve_section(runs),
        *(["<h2>Masks in detail</h2>", rule_table(runs), prompt_table(runs)] if runs[0].masks else []),
        "<h2>Environment</h2>",
        fact_list(facts),
    ]
    return PAGE.format(
        title=escape(f"GradiSeg on {scene}"), style=STYLE + CHART_STYLE, body="\n".join(sections)
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table; the first column is the row's heading."""
    header = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr><th>{escape(row[0])}</th>" + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    return f"<div class=wide><table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table></div>"


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


def fact_list(facts: Mapping[str, Any]) -> str:
    """Name and value of every fact that is known."""
    items = (
        f"<dt>{escape(name)}</dt><dd>{escape(str(fact))}</dd>"
        for name, fact in facts.items()
        if fact is not None
    )
    return f"<dl>{''.join(items)}</dl>"


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


def picture_section(runs: Sequence[Run]) -> str:
    """A block of pictures for a few test views: truth, then a row for each run."""
    truth = truth_masks(runs[0])
    prompts = sorted({mask.prompt for mask in truth})
    palette = id_palette(len(prompts) + 1).tolist()
    colors = {prompt: tuple(palette[number]) for number, prompt in enumerate(prompts, start=1)}
    names = sorted(path.stem for path in (runs[0].renders / "renders").glob("*.png"))
    chosen = [
        names[i] for i in np.linspace(0, len(names) - 1, min(VIEWS_SHOWN, len(names))).round().astype(int)
    ]
    blocks = [
        view_block(runs, name, [mask for mask in truth if mask.view == int(name)], colors) for name in chosen
    ]
    return "\n".join(blocks)


def truth_masks(run: Run) -> list[TruthMask]:
    """The ground truth of the scene that the run was trained on; none for a run without test views."""
    if run.images["split"] != "test" or not run.masks:
        return []
    source = Path(str(read_cfg_args(run.folder)["source_path"]))
    count = len(list((run.renders / "renders").glob("*.png")))
    return [mask for mask in list_truth(source / "test_mask") if mask.view < count]


def view_block(
    runs: Sequence[Run], name: str, truth: Sequence[TruthMask], colors: Mapping[str, Color]
) -> str:
    """Pictures of one view: a row for the truth and one for each run."""
    keys = "".join(
        f"<li><i style='background:rgb{colors[mask.prompt]}'></i>{escape(mask.prompt)}</li>" for mask in truth
    )
    cells = [
        "<div class=label>Truth</div>",
        picture(runs[0].renders / "gt" / f"{name}.png", "photograph"),
        painted({mask.prompt: read_mask(mask.path) for mask in truth}, colors, "ground-truth masks")
        if truth
        else picture(runs[0].renders / "gt_objects_color" / f"{name}.png", "ids given"),
        f"<ul class=key-list>{keys}</ul>",
        "<div></div>",
    ]
    for run in runs:
        predicted = {mask.prompt: read_prediction(run.predictions, mask) for mask in truth}
        present = {prompt: mask for prompt, mask in predicted.items() if mask is not None}
        cells += [
            f"<div class=label>{escape(run.title)}</div>",
            picture(run.renders / "renders" / f"{name}.png", "render"),
            painted(present, colors, "predicted masks")
            if truth
            else picture(run.renders / "objects_pred" / f"{name}.png", "predicted ids"),
            picture(run.renders / "objects_feature16" / f"{name}.png", "identity map"),
            picture(edit[0] / f"{name}.png", edit[1]) if (edit := run.edit) else "<div></div>",
        ]
    return f"<h3>View {int(name)}</h3><div class=views>{''.join(cells)}</div>"


def painted(masks: Mapping[str, np.ndarray[Any, Any]], colors: Mapping[str, Color], caption: str) -> str:
    """Masks (H, W) of several prompts in one picture, small ones on top."""
    if not masks:
        return "<div></div>"
    canvas = np.full((*next(iter(masks.values())).shape, 3), BACKGROUND, np.uint8)
    for prompt, mask in sorted(masks.items(), key=lambda item: -int(item[1].sum())):
        canvas[mask] = colors[prompt]
    return figure(Image.fromarray(canvas), caption, "PNG")


def picture(path: Path, caption: str) -> str:
    """A picture file as a figure; an empty cell where it does not exist."""
    if not path.is_file():
        return "<div></div>"
    return figure(Image.fromarray(read_pixels(path)), caption, "JPEG")


def figure(image: Image.Image, caption: str, file_format: str) -> str:
    """An embedded picture with its caption."""
    buffer = io.BytesIO()
    image.save(buffer, format=file_format, quality=JPEG_QUALITY, optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    source = f"data:image/{file_format.lower()};base64,{data}"
    text = escape(caption)
    return f"<figure><img alt='{text}' src='{source}'><figcaption>{text}</figcaption></figure>"


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""

STYLE = """
:root { color-scheme: light dark; --ink: #1d2026; --soft: #636a76; --line: #d9dce2; --page: #fff;
  --s0: #0b66c3; --s1: #c2570c }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ec; --soft: #9aa2af; --line: #3a3f48; --page: #16181c;
    --s0: #6db3ff; --s1: #ffa163 } }
body { margin: 2rem auto; max-width: 68rem; padding: 0 1rem; color: var(--ink); background: var(--page);
  font: 16px/1.5 system-ui, sans-serif }
h1, h2, h3 { line-height: 1.2; margin: 2rem 0 .6rem } h1 { margin-top: 0 } h3 { font-size: 1rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0 }
th, td { padding: .3rem .8rem .3rem 0; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap }
thead th { color: var(--soft); font-weight: 500 } tbody th, thead th:first-child { text-align: left }
.views { display: grid; grid-template-columns: 5.5rem repeat(4, 1fr); gap: .6rem; align-items: start }
.label { font-weight: 600 } figure { margin: 0 } img { width: 100%; display: block; border-radius: 3px }
figcaption { color: var(--soft); font-size: .8rem }
.key-list { list-style: none; margin: 0; padding: 0; font-size: .85rem }
.key-list i { display: inline-block; width: .8em; height: .8em; margin-right: .5em; border-radius: 2px }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1rem }
.legend .key { margin-right: 1.5rem } .legend .key::before { content: ""; display: inline-block; width: 1.4em;
  height: 3px; margin-right: .5em; vertical-align: middle; background: currentColor }
.key.s0 { color: var(--s0) } .key.s1 { color: var(--s1) }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem }
dt { color: var(--soft) } dd { margin: 0 }
"""
