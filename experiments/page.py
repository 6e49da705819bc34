"""The page of an experiment: where every run stands, its scores, and on which machine it was made."""

from collections.abc import Mapping
from html import escape
from typing import Any

from experiments.board import Board
from utils import html
from utils.files import write_text

RULE = "softmax>0.2"  # of the masks whose scores are shown
STYLE = """
:root { color-scheme: light dark }
body { margin: 2rem auto; max-width: 90rem; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif }
.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .2rem 1rem .2rem 0; text-align: left; border-bottom: 1px solid #8885; white-space: nowrap }
"""
HEAD = (
    *("run", "state", "mIoU", "mBIoU", "PSNR", "SSIM", "Gaussians", "training, s", "memory, MB", "GPU's, MB"),
    *("attempts", "machine", "commit", "started", "ended", "last line"),
)


def write_page(board: Board) -> None:
    """Write `runs.html` into the experiment's folder; one run needs no such page."""
    if len(board.runs) == 1:
        return
    title = board.out.name
    rows = []
    for run in board.runs:
        state, name, line = board.row(run)
        rows.append([name, state, *_facts(run.scores()), line])
    note = "Output of all commands of a run: run.log in its folder. All records: run.json beside it."
    body = [f"<h1>{escape(title)}</h1>", f"<p>{escape(board.summary())}. {note}</p>", html.table(HEAD, rows)]
    write_text(board.out / "runs.html", html.page(title, STYLE, "\n".join(body)))


def _facts(scores: Mapping[str, Any]) -> list[str]:
    """Scores of a run, and where and when it was made."""
    masks = scores.get("rules", {}).get(RULE, {})
    attempts = scores.get("attempts", [])
    first, last = (attempts[0], attempts[-1]) if attempts else ({}, {})
    machine = ", ".join([str(last[key]) for key in ("host", "cpu") if last.get(key)] + last.get("gpu", []))
    numbers = [
        _number(masks.get("miou"), 3),
        _number(masks.get("mbiou"), 3),
        _number(scores.get("psnr"), 2),
        _number(scores.get("ssim"), 3),
        *(
            _number(scores.get(key), 0)
            for key in ("num_gaussians", "seconds", "peak_memory_mb", "gpu_peak_memory_mb")
        ),
    ]
    times = [first.get("started", ""), last.get("ended", "")]
    return [*numbers, str(len(attempts) or ""), machine, str(last.get("commit") or ""), *times]


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
