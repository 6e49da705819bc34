"""The groups of options that commands share."""
# ruff: noqa: RUF009 - `option` returns a dataclass field

from dataclasses import dataclass

from arguments.options import option

MAX_CLASSES = 65536  # ids are read from 16-bit masks
NEWEST = "newest"  # --resume without a file
VIEWER_PORT = 8080  # of view.py, and of --viewer without a port


@dataclass
class ModelParams:
    """How a scene is read, and what of the model follows from it."""

    source_path: str = option("", "folder of the scene", first=True, flags=["-s"])
    model_path: str = option("", "folder of the run", first=True, flags=["-m"])
    images: str = option(
        "images", "folder of the images inside the scene", why="Gaussian Grouping", flags=["-i"]
    )
    resolution: int = option(
        -1,
        "1, 2, 4 or 8 divide the image size; a larger number is the width in pixels; "
        "-1 keeps it up to 1600 pixels",
        why="3DGS",
        first=True,
        flags=["-r"],
        pattern=r"-1|[1248]|9|[1-9]\d+",
    )
    object_path: str = option(
        "object_mask", "folder of the id masks inside the scene", why="Gaussian Grouping"
    )
    cameras: str = option(
        "", "poses in place of the scene's own: 3DGS's cameras.json or a transforms.json", why="ours"
    )
    dataparser: str = option(
        "",
        "nerfstudio's dataparser_transforms.json: cameras and points are moved into the frame it trained in",
        why="ours",
    )
    white_background: bool = option(
        False, "white instead of black behind the scene", why="3DGS", flags=["-w"]
    )
    eval: bool = option(False, "hold out every 8th image for testing", why="3DGS", first=True)
    train_split: bool = option(
        False, "train on the names in images_train/, test on the rest", why="Gaussian Grouping", first=True
    )
    sh_degree: int = option(
        3, "highest degree of the colour's spherical harmonics", why="3DGS", low=0, high=3
    )
    num_classes: int = option(
        256,
        "number of ids, the largest id in the masks + 1 at least",
        why="paper",
        low=2,
        high=MAX_CLASSES,
    )
    data_device: str = option(
        "cpu",
        "where the photographs are kept",
        why="ours: GPU memory is the model's",
        pattern=r"cpu|cuda(:\d+)?",
    )
    data_cache_mb: int = option(
        0,
        "MB of photographs and masks kept in memory, the rest is read when shown; 0 = half of what is free",
        why="ours",
        low=0,
    )


@dataclass
class DeviceParams:
    """What the computation runs on."""

    device: str = option(
        "auto", "auto takes a GPU where there is one", why="ours", choices=["auto", "cpu", "cuda"]
    )
    threads: int = option(0, "CPU threads; 0 = all cores", why="ours", low=0)


@dataclass
class OptimizationParams:
    """3DGS's optimisation and Gaussian Grouping's two identity losses."""

    iterations: int = option(30_000, "training iterations", why="paper", low=1)
    schedule_scale: float = option(
        1.0,
        "compress the whole schedule; 0.1 = a tenth of every iteration number",
        why="ours",
        first=True,
        above=0,
    )
    position_lr_init: float = option(
        1.6e-4, "learning rate of positions at the start, per scene extent", why="3DGS", low=0
    )
    position_lr_final: float = option(
        1.6e-6, "learning rate of positions at the end, per scene extent", why="3DGS", low=0
    )
    position_lr_max_steps: int = option(
        30_000, "iterations over which that rate decays, log-linearly", why="3DGS", low=1
    )
    feature_lr: float = option(
        0.0025, "learning rate of colours (a twentieth of it above degree 0)", why="3DGS", low=0
    )
    opacity_lr: float = option(0.05, "learning rate of opacities", why="3DGS", low=0)
    scaling_lr: float = option(0.005, "learning rate of scales", why="3DGS", low=0)
    rotation_lr: float = option(0.001, "learning rate of rotations", why="3DGS", low=0)
    identity_lr: float = option(0.0025, "learning rate of identity encodings", why="Gaussian Grouping", low=0)
    classifier_lr: float = option(
        5e-4, "learning rate of the identity classifier", why="Gaussian Grouping", low=0
    )
    lambda_dssim: float = option(
        0.2,
        "weight of D-SSIM beside L1",
        why="3DGS; eq. 5 prints L1 alone, which 0 gives",
        low=0,
        high=1,
    )
    percent_dense: float = option(
        0.01, "size, per scene extent, above which a Gaussian is split, not cloned", why="3DGS", low=0
    )
    densification_interval: int = option(100, "iterations between densifications", why="3DGS", low=1)
    opacity_reset_interval: int = option(3000, "iterations between opacity resets", why="3DGS", low=1)
    densify_from_iter: int = option(500, "3DGS densification starts after this iteration", why="3DGS", low=0)
    densify_until_iter: int = option(
        12_000, "3DGS densification ends at this iteration", why="paper, supplement 6", low=0
    )
    densify_grad_threshold: float = option(
        2e-4,
        "mean screen-space gradient above which 3DGS densifies",
        why="3DGS; pictures of a few hundred pixels overgrow with it, and 6e-4 is as good",
        low=0,
    )
    min_opacity: float = option(0.005, "Gaussians below this opacity are pruned", why="3DGS", low=0, high=1)
    quarter_resolution_until_iter: int = option(
        0,
        "train on pictures and masks of a quarter of their width and height until this iteration; 0 = never",
        why="ours; saves time, see docs/performance.md",
        low=0,
    )
    half_resolution_until_iter: int = option(
        0, "... of half their width and height; 0 = never", why="ours", low=0
    )
    max_gaussians: int = option(
        0, "densification stops at this number of Gaussians; 0 = no cap", why="ours", first=True, low=0
    )
    identity_lambda_val: float = option(
        1.0, "weight of the 2D identity loss (alpha)", why="paper, supplement 6", low=0
    )
    ignore_label: int = option(
        -1,
        "id whose pixels do not train the identity; -1 = none, 0 = unlabelled ones",
        why="Gaussian Grouping: id 0 trains as a class",
        low=-1,
    )
    identity_geometry_grad: bool = option(
        True,
        "let the identity loss move geometry",
        why="Gaussian Grouping; off, boundary steps alone move it, but thin objects suffer",
    )
    reg3d_interval: int = option(
        5, "iterations between evaluations of the 3D loss", why="Gaussian Grouping", low=1
    )
    reg3d_k: int = option(
        5, "neighbours per sampled Gaussian (K)", why="paper, supplement 6", low=1, high=512
    )
    reg3d_lambda_val: float = option(2.0, "weight of the 3D loss (beta)", why="paper, supplement 6", low=0)
    reg3d_max_points: int = option(
        200_000,
        "Gaussians among which global neighbours are looked for",
        why="Gaussian Grouping, where it bounds a distance matrix; here it only saves time",
        low=1,
    )
    reg3d_sample_size: int = option(1000, "sampled Gaussians (M)", why="paper, supplement 6", low=1)
    reg3d_normalize: bool = option(
        True,
        "divide the 3D loss by num_classes",
        why="Gaussian Grouping; eq. 3 does not, but then masks collapse (0.925 to 0.709 mIoU on tabletop)",
    )


@dataclass
class GradiSegParams:
    """The paper's own: identity gradient guided densification (IGD), local adaptive neighbours (LA-KNN)."""

    igd: bool = option(True, "identity gradient guided densification", why="paper, 3.4")
    igd_from_iter: int = option(12_000, "IGD starts after this iteration", why="paper, supplement 6", low=0)
    igd_until_iter: int = option(15_000, "IGD ends at this iteration", why="paper, supplement 6", low=0)
    igd_interval: int = option(
        100, "iterations between IGD steps", why="ours: that of 3DGS densification", low=1
    )
    igd_rule: str = option(
        "mean_std",
        "how the splitting threshold is set",
        why="ours: anomalously high without a scale, which depends on resolution and scene; the paper has "
        "an absolute tau without a number",
        choices=["absolute", "mean_std", "quantile"],
    )
    igd_grad_threshold: float = option(
        2e-5,
        "threshold tau of the absolute rule",
        why="ours: the paper gives none; on the demo this splits 64% in a round",
        low=0,
    )
    igd_std_factor: float = option(
        2.0, "k of the rule mean + k std", why="ours: 3 costs 0.1 dB on tabletop", low=0
    )
    igd_quantile: float = option(0.95, "quantile of the quantile rule", why="ours", low=0, high=1)
    igd_split: str = option(
        "directional",
        "how a Gaussian is split",
        why="ours, by the text of 3.4; 3DGS's random split costs 0.1 to 0.2 dB, masks are the same",
        choices=["directional", "random"],
    )
    la_knn: bool = option(
        True, "neighbours of the 3D loss along the negative position gradient", why="paper, 3.5"
    )
    la_knn_from_iter: int = option(
        15_000,
        "LA-KNN replaces global neighbours after this iteration",
        why="paper, supplement 6; 12000 is the main text's",
        low=0,
    )
    la_knn_candidates: str = option(
        "50",
        "nearest Gaussians among which LA-KNN chooses, or 'all'",
        why="ours; eq. 4 to the letter is all, no better on tabletop",
        pattern=r"all|[1-9]\d*",
    )


@dataclass
class RepairParams:
    """Ours, against errors in the masks: labels repaired while training, alpha by the colour loss."""

    identity_lambda_by_rgb: bool = option(
        True,
        "alpha follows the view's colour loss L_rgb: identity_lambda_val x min(L_rgb / 0.04, 2)",
        why="ours: better masks on all scenes; off is the paper's constant",
    )
    repair_masks: bool = option(
        True, "correct training masks that the rendered identities contradict", why="ours"
    )
    repair_from_iter: int = option(
        12_000,
        "first repair, after this iteration (not compressed, but not after IGD's start)",
        why="ours: just before IGD first looks",
        low=1,
    )
    repair_interval: int = option(3000, "iterations between repairs", why="ours", low=1)
    repair_margin: float = option(
        3.0,
        "how many times more probable than the mask's the new id must be",
        why="ours: at 1 a spoon was lost, at 9 most outlines stay as they are",
        low=1,
    )
    correct_outlines: bool = option(
        True,
        "before repairs, move the masks' outlines to where the photographs change",
        why="ours; needs repair_masks",
    )
    boundary_interval: int = option(
        4,
        "after IGD, every so many iterations hold Gaussians to their owners' pixels; 0 = none",
        why="ours: objects cut out are cleaner on all scenes, masks the same within what seeds differ by",
        low=0,
    )


@dataclass
class RunParams:
    """What one training command writes, and from where it starts."""

    config_file: str = option("", "JSON file of options; explicit flags override it", first=True)
    overwrite: bool = option(False, "replace the run that the output folder holds", first=True)
    resume: str = option(
        "",
        "go on from this checkpoint; without a value from the newest in -m",
        first=True,
        flags=["--start_checkpoint"],
        bare=NEWEST,
        metavar="FILE",
    )
    test_iterations: list[int] = option(
        [], "iterations at which the test views are scored, beside the last", low=1
    )
    save_iterations: list[int] = option([], "iterations at which the model is saved, beside the last", low=1)
    checkpoint_iterations: list[int] = option([], "iterations at which a checkpoint is saved", low=1)
    checkpoint_interval: int = option(0, "save a checkpoint every so many iterations; 0 = do not", low=0)
    viewer: int = option(
        0,
        "show the training in a browser, at this port of this machine; 0 = do not",
        bare=VIEWER_PORT,
        metavar="PORT",
        low=0,
        high=65535,
    )
    seed: int = option(0, "seed of every random choice", low=0)
    quiet: bool = option(False, "print results and errors only")


@dataclass
class EditParams:
    """Which objects are removed (or kept), and how generously."""

    select_obj_id: list[int] = option(
        [], "ids of the objects", first=True, flags=["--ids"], low=0, high=MAX_CLASSES - 1
    )
    mode: str = option(
        "remove", "remove the objects, or keep nothing else", first=True, choices=["remove", "keep"]
    )
    removal_thresh: float = option(
        0.3,
        "a Gaussian belongs to an object where the id's probability is above it",
        why="Gaussian Grouping",
        low=0,
        high=1,
    )
    hull: str = option(
        "spare",
        "what the objects' convex hulls add: nothing, what no other object holds, or all that lies inside",
        why="ours: a cup does not take the book that it stands on; all is Gaussian Grouping's rule",
        choices=["none", "spare", "all"],
    )


# What commands that load a run read from its saved files, whatever `cfg_args` and flags say.
OF_SAVED_MODEL = ("num_classes", "sh_degree")

# Options that belong to a run rather than to the command that made it; only these come back from `cfg_args`.
RUN_GROUPS = (ModelParams, OptimizationParams, GradiSegParams, RepairParams)


def final_iteration(iterations: int, schedule_scale: float) -> int:
    """Last iteration of a run whose schedule is scaled."""
    return max(1, round(iterations * schedule_scale))
