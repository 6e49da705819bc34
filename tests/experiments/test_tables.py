"""The paper's tables: published numbers as printed, ours in their cells, open cells where there are none."""

import json
from pathlib import Path

import pytest

from experiments.paper import LERF_SCENES, MIPNERF360_SCENES
from experiments.tables import LERF_TABLES, MIPNERF360_TABLES, PUBLISHED
from scripts import make_tables
from utils.errors import UserError


def write_run(folder: Path, name: str, **record: float) -> None:
    """A record of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(record))


def tables(out: Path, *arguments: str) -> tuple[dict, list[str]]:
    """The tables as JSON, and the lines of the Markdown."""
    make_tables.main([*arguments, "--out", str(out)])
    return json.loads((out / "tables.json").read_text()), (out / "tables.md").read_text().splitlines()


def test_published_numbers_give_the_papers_margins(tmp_path: Path) -> None:
    """+5.3 mIoU and +6.3 mBIoU over Gaussian Grouping, in the words of the paper's text."""
    record, _ = tables(tmp_path, "--lerf", str(tmp_path))
    for name, baseline in (("lerf_text", "Gaussian Grouping"), ("ablation", "without both")):
        ours, theirs = record[name]["GradiSeg, paper"]["mean"], record[name][baseline]["mean"]
        assert [round(value, 1) for value in theirs] == [72.8, 67.6]
        assert [round(a - b, 1) for a, b in zip(ours, theirs, strict=True)] == [5.3, 6.3]
    shown = record["lerf_ids"]["GradiSeg, paper"]
    assert sum(shown[scene][0] for scene in LERF_SCENES) / 3 == pytest.approx(shown["mean"][0], abs=0.05)


def test_our_numbers_stand_in_their_cells_and_a_mean_needs_all_scenes(tmp_path: Path) -> None:
    for index, scene in enumerate(LERF_SCENES[:2]):
        write_run(tmp_path / "gradiseg" / scene, "eval_text.json", miou=0.5 + 0.1 * index, mbiou=0.4)
        write_run(tmp_path / "gradiseg" / scene, "eval_lerf_mask.json", miou=0.9, mbiou=0.8)
    record, lines = tables(tmp_path / "out", "--lerf", str(tmp_path))
    row = record["lerf_text"]["GradiSeg, this code"]
    assert row == {"figurines": [50.0, 40.0], "ramen": [60.0, 40.0]}
    printed = next(line for line in lines if line.startswith("| GradiSeg, this code"))
    assert printed == "| GradiSeg, this code | 50.0 | 40.0 | 60.0 | 40.0 | - | - | - | - |"
    assert record["lerf_ids"]["GradiSeg, this code"]["ramen"] == [90.0]

    write_run(tmp_path / "gradiseg" / "teatime", "eval_text.json", miou=0.7, mbiou=0.1)
    record, _ = tables(tmp_path / "out", "--lerf", str(tmp_path))
    assert record["lerf_text"]["GradiSeg, this code"]["mean"] == pytest.approx([60.0, 30.0])


def test_figure_6_takes_the_default_configuration_for_its_own_start(tmp_path: Path) -> None:
    write_run(tmp_path / "gradiseg" / "ramen", "eval_lerf_mask.json", miou=0.9, mbiou=0.8)
    write_run(tmp_path / "igd_from_9000" / "ramen", "eval_lerf_mask.json", miou=0.7, mbiou=0.8)
    record, lines = tables(tmp_path / "out", "--lerf", str(tmp_path))
    assert record["figure_6"]["12,000, best ids"] == {"ramen": [90.0]}
    assert "| 9,000, best ids | - | 70.0 | - | - |" in lines
    assert record["figure_6"]["12,000, by words"] == record["figure_6"]["18,000, best ids"] == {}


@pytest.mark.parametrize("factor", ["8", "published"])
def test_table_3_is_the_mean_of_nine_scenes(tmp_path: Path, factor: str) -> None:
    for index, scene in enumerate(MIPNERF360_SCENES):
        write_run(
            tmp_path / factor / "baseline" / scene, "results.json", psnr=20 + index, ssim=0.8, lpips=0.2
        )
        write_run(tmp_path / factor / "gradiseg" / scene, "results.json", psnr=20 + index, ssim=0.8)
    record, lines = tables(tmp_path / "out", "--mipnerf360", str(tmp_path))
    assert record[f"mipnerf360_{factor}"]["Gaussian Grouping, this code"]["mean"] == pytest.approx(
        [24, 0.8, 0.2]
    )
    assert "| Gaussian Grouping, this code | 24.00 | 0.800 | 0.200 |" in lines
    assert record[f"mipnerf360_{factor}"]["GradiSeg, this code"] == {}  # scored without LPIPS
    assert "| bonsai | 28.00 | 0.800 | 0.200 | - | - | - |" in lines


def test_names_of_tables_are_those_of_the_published_numbers() -> None:
    published = json.loads(PUBLISHED.read_text())
    known = {table.name: table for table in (*LERF_TABLES, *MIPNERF360_TABLES)}
    assert set(published) == set(known) - {"ablation_ids"}
    for name, rows in published.items():
        for row in rows.values():
            assert set(row) <= {*known[name].scenes, "mean"}
            assert {len(cell) for cell in row.values()} == {len(known[name].metrics)}


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--lerf"):
        make_tables.main(["--out", str(tmp_path)])
    with pytest.raises(UserError, match="nowhere"):
        make_tables.main(["--lerf", str(tmp_path / "nowhere"), "--out", str(tmp_path)])
