"""Writes report.html and report.json of a finished run, beside its baseline where there is one."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from gradiseg.report.page import TITLES, write_report
from utils.errors import run_command


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    for key, title in TITLES.items():
        parser.add_argument(
            f"--{key}", type=Path, required=key == "gradiseg", help=f"folder of the {title} run"
        )
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    arguments = parser.parse_args(argv)
    runs = {key: folder for key in TITLES if (folder := getattr(arguments, key)) is not None}
    print(write_report(runs, arguments.out))


if __name__ == "__main__":
    run_command(main)
