"""Makes a scene of photographs or a video: camera poses by COLMAP, undistorted images, sparse model."""

import utils.openmp  # noqa: F401  # isort: skip

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from arguments import parse
from preparation.conversion import ConvertParams, convert
from preparation.sfm import SfmParams
from utils.errors import run_command
from utils.json_files import write_json
from utils.log import set_up

GROUPS = (ConvertParams, SfmParams)


def main(argv: Sequence[str] | None = None) -> None:
    """Goes on where an earlier call of the same command ended, and reports what became of the photographs."""
    params, options = parse(GROUPS, argv, prog="convert.py", description=__doc__ or "")
    set_up(params.quiet)
    report = convert(params, options)
    if params.json:
        write_json(params.json, dataclasses.asdict(report))
    if not params.quiet:
        print(*report.lines(), sep="\n")
        print(f"Scene: {Path(params.source_path)}")


if __name__ == "__main__":
    run_command(main)
