"""Makes id masks of a scene that are consistent through its views."""

import utils.openmp  # noqa: F401  # isort: skip

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from arguments import parse
from gradiseg.finished.association import associate
from gradiseg.finished.clicks import cut_out
from preparation.masks import BySplat, MaskParams, prepare_masks
from utils.errors import run_command
from utils.json_files import write_json
from utils.log import set_up

GROUPS = (MaskParams,)


def main(argv: Sequence[str] | None = None) -> None:
    """Makes the masks and says how many ids they hold."""
    (params,) = parse(GROUPS, argv, prog="prepare_masks.py", description=__doc__ or "")
    set_up(params.quiet)
    by_splat = BySplat(
        partial(associate, params.ply, params.device),
        partial(cut_out, params.ply, params.device, params.clicks),
    )
    table = prepare_masks(params, by_splat)
    if params.json:
        write_json(params.json, table)
    if params.quiet:
        return
    count, dropped = len(table["ids"]), table["dropped"]["ids"]
    print(f"{Path(params.source_path, params.object_path)}: {count} ids in {table['views']} views.")
    if dropped:
        print(f"{dropped} more were seen in too few views and are unlabelled now (--min_views).")
    if table["views_without_mask"]:
        print(f"{table['views_without_mask']} views have no mask: they train on colour alone.")
    if count >= 256:
        print(f"Train with --num_classes {count + 1}: the default holds ids up to 255.")


if __name__ == "__main__":
    run_command(main)
