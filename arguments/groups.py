"""The groups of options that commands share."""
# ruff: noqa: RUF009 - `option` returns a dataclass field

from dataclasses import dataclass

from arguments.options import option

MAX_CLASSES = 65536  # ids are read from 16-bit masks


@dataclass
class ModelParams:
    """How a scene is read, and what of the model follows from it."""

    source_path: str = option("", "folder of the scene", flags=["-s"])
    model_path: str = option("", "folder of the run", flags=["-m"])
    images: str = option("images", "folder of the images inside the scene", flags=["-i"])
    resolution: int = option(
        -1,
        "1, 2, 4 or 8 divide the image size; a larger number is the width in pixels; "
        "-1 keeps it up to 1600 pixels",
        flags=["-r"],
        pattern=r"-1|[1248]|9|[1-9]\d+",
    )
    object_path: str = option("object_mask", "folder of the id masks inside the scene")
    white_background: bool = option(False, "white instead of black behind the scene", flags=["-w"])
    eval: bool = option(False, "hold out every 8th image for testing")
    train_split: bool = option(False, "train on the names in images_train/, test on the rest")
    sh_degree: int = option(3, "highest degree of the colour's spherical harmonics", low=0, high=3)
    num_classes: int = option(
        256, "number of ids, the largest id in the masks + 1 at least", low=2, high=MAX_CLASSES
    )
    data_device: str = option("cpu", "where the photographs are kept", pattern=r"cpu|cuda(:\d+)?")
    data_cache_mb: int = option(
        0,
        "MB of photographs and masks kept in memory, the rest is read when shown; 0 = half of what is free",
        low=0,
    )


@dataclass
class DeviceParams:
    """What the computation runs on."""

    device: str = option("auto", "auto takes a GPU where there is one", choices=["auto", "cpu", "cuda"])
    threads: int = option(0, "CPU threads; 0 = all cores", low=0)


@dataclass
class OptimizationParams:
    """3DGS's optimisation and Gaussian Grouping's two identity losses."""

    iterations: int = option(30_000, "training iterations", low=1)
    schedule_scale: float = option(
        1.0, "compress the whole schedule; 0.1 = a tenth of every iteration number", above=0
    )
    position_lr_init: float = option(
        1.6e-4, "learning rate of positions at the start, per scene extent", low=0
    )
    position_lr_final: float = option(
        1.6e-6, "learning rate of positions at the end, per scene extent", low=0
    )
    position_lr_delay_mult: float = option(0.01, "damping of that rate at the start", low=0, high=1)
    position_lr_max_steps: int = option(30_000, "iterations over which that rate decays", low=1)
    feature_lr: float = option(0.0025, "learning rate of colours (a twentieth of it above degree 0)", low=0)
    opacity_lr: float = option(0.05, "learning rate of opacities", low=0)
    scaling_lr: float = option(0.005, "learning rate of scales", low=0)
    rotation_lr: float = option(0.001, "learning rate of rotations", low=0)
    identity_lr: float = option(0.0025, "learning rate of identity encodings", low=0)
    classifier_lr: float = option(5e-4, "learning rate of the identity classifier", low=0)
    sh_interval: int = option(1000, "iterations per degree of spherical harmonics", low=1)
    lambda_dssim: float = option(0.2, "weight of D-SSIM beside L1; 0 = the paper's L1", low=0, high=1)
    percent_dense: float = option(
        0.01, "size, per scene extent, above which a Gaussian is split, not cloned", low=0
    )
    densification_interval: int = option(100, "iterations between densifications", low=1)
    opacity_reset_interval: int = option(3000, "iterations between opacity resets", low=1)
    densify_from_iter: int = option(500, "3DGS densification starts after this iteration", low=0)
    densify_until_iter: int = option(12_000, "3DGS densification ends at this iteration", low=0)
    densify_grad_threshold: float = option(
        2e-4, "mean screen-space gradient above which 3DGS densifies", low=0
    )
    min_opacity: float = option(0.005, "Gaussians below this opacity are pruned", low=0, high=1)
    visible_adam: bool = option(False, "Adam leaves Gaussians alone that the view does not show")
    max_gaussians: int = option(0, "densification stops at this number of Gaussians; 0 = no cap", low=0)
    identity_lambda_val: float = option(1.0, "weight of the 2D identity loss (alpha)", low=0)
    identity_lambda_by_rgb: bool = option(
        True, "alpha follows the view's colour loss L_rgb: identity_lambda_val x min(L_rgb / 0.04, 2)"
    )
    ignore_label: int = option(
        -1, "id whose pixels do not train the identity; -1 = none, 0 = unlabelled ones", low=-1
    )
    identity_geometry_grad: bool = option(True, "let the identity loss move geometry")
    reg3d_interval: int = option(5, "iterations between evaluations of the 3D loss", low=1)
    reg3d_k: int = option(5, "neighbours per sampled Gaussian (K)", low=1)
    reg3d_lambda_val: float = option(2.0, "weight of the 3D loss (beta)", low=0)
    reg3d_max_points: int = option(200_000, "Gaussians among which global neighbours are looked for", low=1)
    reg3d_sample_size: int = option(1000, "sampled Gaussians (M)", low=1)
    reg3d_normalize: bool = option(True, "divide the 3D loss by num_classes, as Gaussian Grouping does")
    reg3d_until_iter: int = option(30_000, "the 3D loss ends at this iteration", low=0)


@dataclass
class GradiSegParams:
    """The paper's own: identity gradient guided densification (IGD), local adaptive neighbours (LA-KNN)."""

    igd: bool = option(True, "identity gradient guided densification")
    igd_from_iter: int = option(12_000, "IGD starts after this iteration", low=0)
    igd_until_iter: int = option(15_000, "IGD ends at this iteration", low=0)
    igd_interval: int = option(100, "iterations between IGD steps", low=1)
    igd_grad_source: str = option(
        "identity",
        "loss whose gradient is monitored: the 2D identity loss or all",
        choices=["identity", "total"],
    )
    igd_rule: str = option(
        "mean_std", "how the splitting threshold is set", choices=["absolute", "mean_std", "quantile"]
    )
    igd_grad_threshold: float = option(2e-5, "threshold tau of the absolute rule", low=0)
    igd_std_factor: float = option(2.0, "k of the rule mean + k std", low=0)
    igd_quantile: float = option(0.95, "quantile of the quantile rule", low=0, high=1)
    igd_split: str = option("directional", "how a Gaussian is split", choices=["directional", "random"])
    igd_prune_large: bool = option(
        False, "IGD also prunes what 3DGS prunes for its size, as Algorithm 1 of the paper does"
    )
    la_knn: bool = option(True, "neighbours of the 3D loss along the negative position gradient")
    la_knn_from_iter: int = option(15_000, "LA-KNN replaces global neighbours after this iteration", low=0)
    la_knn_candidates: str = option(
        "50", "nearest Gaussians among which LA-KNN chooses, or 'all'", pattern=r"all|[1-9]\d*"
    )
    repair_masks: bool = option(True, "correct training masks that the rendered identities contradict")
    repair_from_iter: int = option(
        12_000, "first repair, after this iteration (not compressed, but not after IGD's start)", low=1
    )
    repair_until_iter: int = option(27_000, "no repair after this iteration", low=0)
    repair_interval: int = option(3000, "iterations between repairs", low=1)
    repair_margin: float = option(
        3.0, "how many times more probable than the mask's the new id must be", low=1
    )
    repair_lr_factor: float = option(
        1.0, "share to which the identity's learning rates fall after densify_until_iter", above=0, high=1
    )
    repair_lr_iters: int = option(4000, "iterations within which they fall there (not compressed)", low=1)
    correct_outlines: bool = option(
        True, "before repairs, move the masks' outlines to where the photographs change"
    )


@dataclass
class RunParams:
    """What one training command writes, and from where it starts."""

    config_file: str = option("", "JSON file of options; explicit flags override it")
    test_iterations: list[int] = option(
        [], "iterations at which the test views are scored, beside the last", low=1
    )
    save_iterations: list[int] = option([], "iterations at which the model is saved, beside the last", low=1)
    checkpoint_iterations: list[int] = option([], "iterations at which a checkpoint is saved", low=1)
    checkpoint_interval: int = option(0, "save a checkpoint every so many iterations; 0 = do not", low=0)
    start_checkpoint: str = option("", "checkpoint file to go on from")
    seed: int = option(0, "seed of every random choice", low=0)
    quiet: bool = option(False, "print results and errors only")
    overwrite: bool = option(False, "replace the run that the output folder holds")
    resume: bool = option(False, "go on from the newest checkpoint in the output folder")


@dataclass
class EditParams:
    """Which objects are removed (or kept), and how generously."""

    removal_thresh: float = option(
        0.3, "a Gaussian belongs to an object where the id's probability is above it", low=0, high=1
    )
    select_obj_id: list[int] = option([], "ids of the objects", flags=["--ids"], low=0, high=MAX_CLASSES - 1)
    convex_hull: bool = option(True, "also take the Gaussians inside the objects' convex hull")
    mode: str = option("remove", "remove the objects, or keep nothing else", choices=["remove", "keep"])


# Options that belong to a run rather than to the command that made it; only these come back from `cfg_args`.
RUN_GROUPS = (ModelParams, OptimizationParams, GradiSegParams)


def final_iteration(iterations: int, schedule_scale: float) -> int:
    """Last iteration of a run whose schedule is scaled."""
    return max(1, round(iterations * schedule_scale))
