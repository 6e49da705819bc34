"""The report's pictures: a few test views, the truth in one row and a row for each run.

Naming contract: `name` is a view's file name without suffix, its number in name order.
"""

from collections.abc import Mapping, Sequence
from glob import escape as glob_escape
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gradiseg.evaluation.masks import TruthMask, read_mask, read_prediction
from gradiseg.report.records import Run
from utils.html import figure
from utils.image import id_palette, read_pixels

VIEWS_SHOWN = 3
OBJECTS_SHOWN = 4
BACKGROUND = (36, 38, 42)  # what belongs to no prompt

Color = tuple[int, ...]  # red, green, blue


def picture_section(runs: Sequence[Run]) -> str:
    """A block of pictures for a few test views: truth, then a row for each run."""
    truth = runs[0].truth()
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


def edit_section(runs: Sequence[Run]) -> str:
    """The first view of every run before its edits and after each, as far as they were rendered."""
    rows = []
    for run in runs:
        before = min((run.renders / "renders").glob("*.png"))
        split, iteration = run.images["split"], run.images["iteration"]
        after = {
            name: edit.renders(split, iteration) / "renders" / before.name
            for name, edit in run.folder.edits().items()
        }
        cells = [picture(path, name) for name, path in after.items() if path.is_file()]
        if cells:
            label = f"<div class=label>{escape(run.title)}</div>"
            rows.append(f"{label}<div class=edits>{picture(before, 'before')}{''.join(cells)}</div>")
    return "\n".join(["<h2>Edits</h2>", *rows]) if rows else ""


def object_section(runs: Sequence[Run]) -> str:
    """The worst objects of the first run, cut out by votes in their first view, in every run."""
    scores = runs[0].objects.get("per_prompt", {})
    worst = sorted(scores, key=lambda prompt: float(scores[prompt]["votes"]["iou"]))[:OBJECTS_SHOWN]
    rows = []
    for run in runs:
        cells = []
        for prompt in worst if run.objects else ():
            views = sorted(run.objects_alone.glob(f"*/{glob_escape(prompt)}.png"), key=_view)
            score = run.objects["per_prompt"].get(prompt, {}).get("votes", {}).get("iou", 0.0)
            cells += [picture(view, f"{prompt}, IoU {score:.2f}") for view in views[:1]]
        if cells:
            rows.append(f"<div class=label>{escape(run.title)}</div><div class=edits>{''.join(cells)}</div>")
    return "\n".join(rows)


def _view(path: Path) -> int:
    return int(path.parent.name)


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
    return figure(Image.fromarray(read_pixels(path)), caption)
