"""Examines a scene before hours of training: files, masks, ids, split, cameras, points.

Exit status: 0 = it trains, 1 = errors (with --strict: or warnings), 2 = the command itself failed.
"""

import utils.openmp  # noqa: F401  # isort: skip

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from arguments import ModelParams, option, parse
from preparation.contact_sheet import write_sheet
from preparation.doctor import examine, lines, record
from utils.errors import UserError, run_command
from utils.json_files import write_json
from utils.log import set_up


@dataclass
class CheckParams:
    """What is reported, and where."""

    min_views: int = option(3, "report ids that fewer training views show", first=True, low=1)
    json: str = option("", "also write the report here")
    sheet: str = option("", "contact sheet of objects and views with their ids: a .png, .jpg or .html file")
    sheet_views: int = option(12, "views on the contact sheet", low=1)
    strict: bool = option(False, "warnings count as errors in the exit status")
    quiet: bool = option(False, "print errors only")


GROUPS = (ModelParams, CheckParams)
# Of files as they are: no run, no model, and pictures in their own size.
WITHOUT = ("model_path", "resolution", "white_background", "sh_degree", "data_device", "data_cache_mb")


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the report; the status tells scripts whether to go on."""
    params, options = parse(GROUPS, argv, prog="check_scene.py", description=__doc__ or "", without=WITHOUT)
    set_up(options.quiet)
    if not params.source_path:
        raise UserError("-s (--source_path) is required: the folder of the scene.")
    patient, findings = examine(params, options.min_views)
    report = record(patient, findings)
    if options.json:
        write_json(options.json, report)
    if options.sheet and patient is not None:
        write_sheet(options.sheet, patient, options.sheet_views)
    for line in lines(report) if not options.quiet else (f.text for f in findings if f.level == "error"):
        print(line)
    sys.exit(bool(report["errors"] or (options.strict and report["warnings"])))


if __name__ == "__main__":
    run_command(main)
