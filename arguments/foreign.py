"""Keys of 3DGS's and Gaussian Grouping's files that have no meaning here, and are passed over in silence.

Where a value of such a key would change the result there, only the one that changes nothing is passed over.
"""

from typing import Any

from utils.errors import UserError

ANY = object()  # no value of the key changes anything

KEYS: dict[str, Any] = {
    # 3DGS damps the start by it over 0 steps, so that it has no effect there either.
    "position_lr_delay_mult": ANY,
    # Viewers, debugging, logging; where covariances and colours are computed.
    **dict.fromkeys(("ip", "port", "disable_viewer", "debug", "debug_from", "detect_anomaly"), ANY),
    **dict.fromkeys(("use_wandb", "convert_SHs_python", "compute_cov3D_python"), ANY),
    # Gaussian Grouping's few views and random points, unused in its own configurations ...
    "n_views": 100,
    "random_init": False,
    # ... and what its inpainting takes beside the objects.
    **dict.fromkeys(("finetune_iteration", "lambda_dlpips", "lambda_dssim"), ANY),
    # 3DGS's later additions, off by default; their rates count only where they are on.
    "antialiasing": False,
    "depths": "",
    "optimizer_type": "default",
    "random_background": False,
    "train_test_exp": False,
    **{f"depth_l1_weight_{end}": ANY for end in ("init", "final")},
    **{f"exposure_lr_{part}": ANY for part in ("init", "final", "delay_steps", "delay_mult")},
}


def check(key: str, value: Any, where: str) -> None:
    """Raise UserError, naming the file `where`, for a value that would change the result there."""
    if KEYS[key] is not ANY and KEYS[key] != value:
        raise UserError(
            f"{where}: {key} {value!r} is nothing that this program does. Leave it out, or set {KEYS[key]!r}."
        )
