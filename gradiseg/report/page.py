"""One page that shows what a run did: scores, loss curves and pictures, beside the baseline if there is one.

Naming contract: `runs` are `{title: folder}` in the order of the page.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from gradiseg.report.charts import CHART_STYLE
from gradiseg.report.pictures import edit_section, object_section, picture_section
from gradiseg.report.records import Run, read_run
from gradiseg.report.sections import curve_section, object_table, prompt_table, rule_table, score_table
from utils import html
from utils.files import write_text
from utils.json_files import write_json
from utils.machine import environment

TITLES = {"gradiseg": "GradiSeg", "baseline": "Baseline"}


def write_report(runs: Mapping[str, Path], out: Path) -> Path:
    """Writes `out/report.json` and `out/report.html`; returns the page's path.

    Args:
        runs: run folders by their key in the JSON (`gradiseg`, `baseline`).
    """
    loaded = {key: read_run(TITLES.get(key, key), folder) for key, folder in runs.items()}
    facts = environment()
    write_json(
        out / "report.json", {key: run.record() for key, run in loaded.items()} | {"environment": facts}
    )
    write_text(out / "report.html", page(list(loaded.values()), facts))
    return out / "report.html"


def page(runs: Sequence[Run], facts: Mapping[str, Any]) -> str:
    """The whole page."""
    scene = runs[0].scene.name
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
        edit_section(runs),
        *_objects(runs),
        "<h2>Training</h2>",
        curve_section(runs),
        *(["<h2>Masks in detail</h2>", rule_table(runs), prompt_table(runs)] if runs[0].masks else []),
        "<h2>Environment</h2>",
        html.definition_list(facts),
    ]
    return html.page(f"GradiSeg on {scene}", STYLE + CHART_STYLE, "\n".join(sections))


def _objects(runs: Sequence[Run]) -> list[str]:
    if not any(run.objects for run in runs):
        return []
    about = (
        "The Gaussians of one id, rendered alone, beside its silhouette (grey: no training view shows it). "
        "Spill is the mass outside of the silhouette over that inside. Shown: the lowest IoU."
    )
    return ["<h2>Objects cut out</h2>", f"<p>{about}</p>", object_table(runs), object_section(runs)]


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
.edits { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .6rem }
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
