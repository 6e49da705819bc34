"""Tables 1 to 4 and figure 6 of the paper, our numbers beside the published ones: tables.md and tables.json.

Ours are read from the folders that scripts/lerf_mask.sh and scripts/mipnerf360.sh fill.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from anywhere, installed or not

from experiments.tables import write_tables
from utils.errors import run_command


def main(argv: Sequence[str] | None = None) -> None:
    """Writes both files and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lerf", type=Path, help="OUT of scripts/lerf_mask.sh")
    parser.add_argument("--mipnerf360", type=Path, help="OUT of scripts/mipnerf360.sh")
    parser.add_argument("--out", type=Path, required=True, help="folder of tables.md and tables.json")
    arguments = parser.parse_args(argv)
    print(write_tables(arguments.out, arguments.lerf, arguments.mipnerf360))


if __name__ == "__main__":
    run_command(main)
