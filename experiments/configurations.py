"""The named configurations of a training: a file of config/gradiseg/ and the flags beside it."""

import re
import shlex
from pathlib import Path

from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]  # commands run here, and paths of configurations start here

# Name -> the JSON in config/gradiseg and the flags beside it. A path to another JSON is a configuration, too.
CONFIGS: dict[str, tuple[str, str]] = {
    "baseline": ("baseline", ""),
    "baseline_exact": ("baseline", "--object_path object_mask_exact"),  # what noise in the masks costs
    "baseline_by_rgb": ("baseline", "--identity_lambda_by_rgb"),
    "no_igd": ("no_igd", ""),
    "no_la_knn": ("no_la_knn", ""),
    "gradiseg": ("train", ""),
    "no_repair": ("train", "--no_repair_masks --no_identity_lambda_by_rgb"),
    "paper": ("paper", ""),  # its formulas to the letter
    "no_outlines": ("train", "--no_correct_outlines"),
    "no_boundary": ("train", "--boundary_interval 0"),
    "boundary_2": ("train", "--boundary_interval 2"),
    "boundary_alone": ("paper", "--boundary_interval 4"),
    "constant_alpha": ("train", "--no_identity_lambda_by_rgb"),
    "early_repair": ("train", "--repair_from_iter 2000"),  # for long runs
    "fixed_geometry": ("train", "--no_identity_geometry_grad"),
    "gradiseg_exact": ("train", "--object_path object_mask_exact"),
    "la_knn_from_12000": ("train", "--la_knn_from_iter 12000"),
    "densify_to_15000": ("no_igd", "--densify_until_iter 15000"),  # 3DGS in the iterations of IGD
    "split_random": ("train", "--igd_split random"),
    "candidates_all": ("train", "--la_knn_candidates all"),
    "candidates_20": ("train", "--la_knn_candidates 20"),
    "progressive": ("train", "--quarter_resolution_until_iter 3000 --half_resolution_until_iter 12000"),
    "half_to_20000": ("train", "--half_resolution_until_iter 20000"),
    "tau_quantile": ("train", "--igd_rule quantile"),
    "tau_3_std": ("train", "--igd_std_factor 3"),
}
IGD_FROM = re.compile(r"igd_from_(\d+)")  # a point of the paper's figure 6
IGD_ITERATIONS = 3000  # that IGD takes, whenever it starts
LA_KNN_FROM = 15_000  # where LA-KNN starts, unless IGD is not over by then


def configuration(name: str) -> tuple[str, list[str]]:
    """The `--config_file`, below the repository's root or as given, and the flags of a configuration.

    name: of `CONFIGS`; `igd_from_N`, which is GradiSeg with IGD in iterations N to N + 3,000; the name of a
        file in config/gradiseg/; or a path to a JSON file.
    Raises: UserError for anything else.
    """
    if started := IGD_FROM.fullmatch(name):
        start, end = int(started[1]), int(started[1]) + IGD_ITERATIONS
        flags = ["--densify_until_iter", start, "--igd_from_iter", start, "--igd_until_iter", end]
        flags += ["--la_knn_from_iter", end] if end > LA_KNN_FROM else []
        return "config/gradiseg/train.json", list(map(str, flags))
    if name.endswith(".json"):
        if not Path(name).is_file():
            raise UserError(f"{name}: no such file, so it is no configuration. {_known()}")
        return str(Path(name).resolve()), []
    file, flags_text = CONFIGS.get(name, (name, ""))
    path = Path("config", "gradiseg", f"{file}.json")
    if not (ROOT / path).is_file():
        raise UserError(f"{name}: no such configuration. {_known()}")
    return str(path), shlex.split(flags_text)


def _known() -> str:
    return f"Name a JSON file, igd_from_N, or one of {', '.join(CONFIGS)}."
