"""The report: every figure is that of its source, the page is self-contained, gaps are said."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from gradiseg.evaluation.masks import write_mask
from gradiseg.report.page import page, write_report
from gradiseg.report.records import read_run
from utils.errors import UserError
from utils.image import save_png

PROMPTS = ("red <mug>", "duck")
SCORES = {"gradiseg": 0.9375, "baseline": 0.8125}


def write_run(folder: Path, scene: Path, score: float, removal: bool = True) -> None:
    """A finished run of two test views, as the commands leave it."""
    noise = torch.Generator().manual_seed(0)
    means = {"miou": score, "mbiou": score - 0.1, "mbiou_strict": score - 0.2}
    row = {"iou": score, "biou": score, "biou_strict": score, "views": 2}
    records = {
        "training_summary.json": {
            "iterations": 300,
            "seconds": 3.0,
            "seconds_per_iteration": 0.01,
            "num_gaussians": 4321,
            "peak_memory_mb": 512.5,
        },
        "training_log.json": [
            {
                "iteration": i,
                "loss": 1.0,
                "l_rgb": 0.1,
                "l_2d": 0.5,
                "l_3d": None if i % 20 else 0.01,
                "num_gaussians": i,
            }
            for i in range(10, 310, 10)
        ],
        "results.json": {"psnr": 30 * score, "ssim": score, "split": "test", "iteration": 300, "views": 2},
        "eval_lerf_mask.json": means
        | {
            "per_prompt": dict.fromkeys(PROMPTS, row),
            "missing": [],
            "ids_source": "oracle",
            "ids": {"duck": [2]},
            "iteration": 300,
        }
        | {"rules": {"argmax": means}},
    }
    folder.mkdir(parents=True)
    for name, record in records.items():
        (folder / name).write_text(json.dumps(record))
    (folder / "cfg_args").write_text(f"Namespace(source_path={str(scene)!r})")
    for view in range(2):
        for kind in ("gt", "renders", "objects_feature16"):
            save_png(
                folder / "test/ours_300" / kind / f"{view:05d}.png", torch.rand(3, 12, 16, generator=noise)
            )
        if removal:
            path = folder / f"test/ours_object_removal/iteration_300/renders/{view:05d}.png"
            save_png(path, torch.rand(3, 12, 16, generator=noise))
            edit = folder / "point_cloud_object_removal/iteration_300/edit.json"
            edit.parent.mkdir(parents=True, exist_ok=True)
            edit.write_text(json.dumps({"select_obj_id": [2, 9], "mode": "remove"}))
        for prompt in PROMPTS:
            write_mask(
                folder / f"test/ours_300_text/test_mask/{view}/{prompt}.png", np.eye(12, 16, dtype=bool)
            )
            write_mask(scene / f"test_mask/{view}/{prompt}.png", np.eye(12, 16, dtype=bool))


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Path]:
    """Run folders of both methods; only GradiSeg has had an object removed."""
    for key, score in SCORES.items():
        write_run(tmp_path / key, tmp_path / "scene & co", score, removal=key == "gradiseg")
    return {key: tmp_path / key for key in SCORES}


class Page(HTMLParser):
    """Collects image sources and links; checks that tags close in order."""

    VOID = ("meta", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes what the tag loads."""
        self.sources += [value or "" for name, value in attrs if name == "src"]
        self.links += [value or "" for name, value in attrs if name in ("href", "data", "srcset")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A tag that closes itself holds nothing."""

    def handle_endtag(self, tag: str) -> None:
        """The last tag opened closes first."""
        assert self.open.pop() == tag


def test_report_json_holds_each_runs_own_figures(runs: dict[str, Path], tmp_path: Path) -> None:
    write_report(runs, tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert set(report) == {"gradiseg", "baseline", "environment"}
    for key, score in SCORES.items():
        assert report[key]["miou"] == score and report[key]["psnr"] == 30 * score
        expected = {
            "psnr",
            "ssim",
            "miou",
            "mbiou",
            "mbiou_strict",
            "num_gaussians",
            "seconds_per_iteration",
            "iterations",
        }
        assert expected <= set(report[key])
    assert report["environment"]["torch"] == torch.__version__


def test_the_page_is_self_contained_and_closes_its_tags(runs: dict[str, Path], tmp_path: Path) -> None:
    text = write_report(runs, tmp_path / "out").read_text()
    parsed = Page(text)
    assert parsed.open == [] and parsed.links == []
    # two views: photograph and true masks, render, masks and identity map of both runs, one run's removal
    assert len(parsed.sources) == 2 * (2 + 2 * 3 + 1)
    assert all(source.startswith("data:image/") for source in parsed.sources)
    assert "url(" not in text and "<script" not in text and "http" not in re.sub("base64,[^']*", "", text)
    assert "scene &amp; co" in text and "red &lt;mug&gt;" in text
    assert all(f"{score:.3f}" in text for score in SCORES.values())
    assert "without duck, id 9" in text


def test_edits_stand_beside_the_run_as_far_as_they_were_rendered(runs: dict[str, Path]) -> None:
    folder = runs["gradiseg"]
    assert "<h2>Edits</h2>" not in page([read_run("GradiSeg", folder)], {})
    for name in ("swap", "not rendered"):
        (folder / "edits" / name).mkdir(parents=True)
        (folder / "edits" / name / "edit.json").write_text("{}")
    save_png(folder / "edits/swap/test/ours_300/renders/00000.png", torch.zeros(3, 8, 8))
    text = page([read_run("GradiSeg", folder)], {})
    assert "<h2>Edits</h2>" in text and "<figcaption>swap</figcaption>" in text and "not rendered" not in text


def test_objects_cut_out_stand_there_once_scored_the_worst_first(runs: dict[str, Path]) -> None:
    folder = runs["gradiseg"]
    assert "Objects cut out" not in page([read_run("GradiSeg", folder)], {})
    means = {"iou": 0.625, "biou": 0.5, "biou_strict": 0.375, "spill": 0.125}
    rows = {prompt: {"votes": {"iou": iou}} for prompt, iou in zip(PROMPTS, (0.75, 0.5), strict=True)}
    record = {"iteration": 300, "selections": {"votes": means}, "per_prompt": rows}
    (folder / "eval_extracted.json").write_text(json.dumps(record))
    for view, prompt in ((10, PROMPTS[0]), (2, PROMPTS[0]), (2, PROMPTS[1])):
        save_png(folder / f"test/ours_300_extracted/{view}/{prompt}.png", torch.full((3, 4, 8), view / 20))
    text = page([read_run("GradiSeg", folder), read_run("Baseline", runs["baseline"])], {})
    assert Page(text).open == [] and "GradiSeg, votes" in text and "0.625" in text
    assert 0 < text.index("duck, IoU 0.50") < text.index("red &lt;mug&gt;, IoU 0.75")
    assert text.count("IoU 0.75</figcaption>") == 1  # one view of it: the first by number


def test_a_run_without_test_views_has_no_masks_in_its_pictures(runs: dict[str, Path]) -> None:
    folder = runs["gradiseg"]
    (folder / "test").rename(folder / "train")
    record = json.loads((folder / "results.json").read_text()) | {"split": "train"}
    (folder / "results.json").write_text(json.dumps(record))
    text = page([read_run("GradiSeg", folder)], {})
    assert "training views" in text and "ground-truth masks" not in text


def test_a_run_alone_on_a_scene_without_true_masks(runs: dict[str, Path], tmp_path: Path) -> None:
    folder = runs["gradiseg"]
    (folder / "cfg_args").write_text(f"Namespace(source_path={str(tmp_path)!r})")
    (folder / "eval_lerf_mask.json").unlink()
    for name in ("00000", "00001"):
        save_png(folder / "test" / "ours_300" / "objects_pred" / f"{name}.png", torch.zeros(3, 8, 8))
    text = write_report({"gradiseg": folder}, tmp_path / "out").read_text()
    assert "no true masks" in text and "predicted ids" in text and "Masks in detail" not in text
    assert Page(text).open == []
    assert json.loads((tmp_path / "out" / "report.json").read_text())["gradiseg"]["miou"] is None


def test_a_missing_record_names_the_command_that_writes_it(runs: dict[str, Path], tmp_path: Path) -> None:
    (runs["baseline"] / "eval_lerf_mask.json").unlink()
    with pytest.raises(UserError, match=r"baseline.*eval_lerf_mask\.py"):
        write_report(runs, tmp_path / "out")


def test_true_masks_named_after_views_stand_under_their_own(runs: dict[str, Path], tmp_path: Path) -> None:
    truth = tmp_path / "scene & co" / "test_mask"
    (truth / "1").rename(truth / "view b")
    shutil.rmtree(truth / "0")  # of a view without masks
    path = runs["gradiseg"] / "eval_lerf_mask.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"views": ["view a", "view b"]}))
    assert {mask.view for mask in read_run("run", runs["gradiseg"]).truth()} == {1}
