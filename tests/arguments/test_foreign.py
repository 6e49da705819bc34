"""JSON files of 3DGS and Gaussian Grouping."""

import json
from pathlib import Path
from typing import Any

import pytest

import edit_object_removal
import train
from arguments import ModelParams, parse, parse_with_run, write_cfg_args
from utils.errors import UserError

# What 3DGS's own groups hold, with its defaults, as someone may have written them into a file.
OF_3DGS = {
    "sh_degree": 3,
    "source_path": "scene",
    "model_path": "out",
    "images": "images",
    "depths": "",
    "resolution": -1,
    "white_background": False,
    "train_test_exp": False,
    "data_device": "cuda",
    "eval": True,
    "iterations": 30_000,
    "position_lr_init": 0.00016,
    "position_lr_final": 0.0000016,
    "position_lr_delay_mult": 0.01,
    "position_lr_max_steps": 30_000,
    "feature_lr": 0.0025,
    "opacity_lr": 0.025,
    "scaling_lr": 0.005,
    "rotation_lr": 0.001,
    "exposure_lr_init": 0.01,
    "exposure_lr_final": 0.001,
    "exposure_lr_delay_steps": 0,
    "exposure_lr_delay_mult": 0.0,
    "percent_dense": 0.01,
    "lambda_dssim": 0.2,
    "densification_interval": 100,
    "opacity_reset_interval": 3000,
    "densify_from_iter": 500,
    "densify_until_iter": 15_000,
    "densify_grad_threshold": 0.0002,
    "depth_l1_weight_init": 1.0,
    "depth_l1_weight_final": 0.01,
    "random_background": False,
    "optimizer_type": "default",
    "convert_SHs_python": False,
    "compute_cov3D_python": False,
    "debug": False,
    "antialiasing": False,
    "start_checkpoint": "chkpnt7.pth",
}
# What Gaussian Grouping's own files hold for training, for removing and for inpainting.
TRAINING = {
    "densify_until_iter": 10_000,
    "num_classes": 256,
    "reg3d_interval": 5,
    "reg3d_k": 5,
    "reg3d_lambda_val": 2,
    "reg3d_max_points": 200_000,
    "reg3d_sample_size": 1000,
}
REMOVAL = {"num_classes": 256, "removal_thresh": 0.3, "select_obj_id": [34, 57]}
INPAINTING = REMOVAL | {
    "images": "images_inpaint_unseen",
    "object_path": "inpaint_object_mask_255",
    "resolution": 1,
    "lambda_dssim": 0.8,
    "finetune_iteration": 10_000,
}


def written(folder: Path, values: dict[str, Any]) -> list[str]:
    path = folder / "theirs.json"
    path.write_text(json.dumps(values))
    return ["--config_file", str(path)]


def test_a_file_of_3dgs_trains(tmp_path: Path) -> None:
    model, _, opt, *_, run = parse(train.GROUPS, written(tmp_path, OF_3DGS))
    assert (model.eval, opt.opacity_lr, opt.densify_until_iter) == (True, 0.025, 15_000)
    assert run.resume == "chkpnt7.pth"


def test_files_of_gaussian_grouping_are_taken(tmp_path: Path) -> None:
    opt = parse(train.GROUPS, written(tmp_path, TRAINING | {"n_views": 100, "random_init": False}))[2]
    assert (opt.densify_until_iter, opt.reg3d_max_points) == (10_000, 200_000)
    write_cfg_args(tmp_path, ModelParams())
    for values in (REMOVAL, INPAINTING):
        argv = ["-m", str(tmp_path), *written(tmp_path, values)]
        edit = parse_with_run(edit_object_removal.GROUPS, argv, without=edit_object_removal.WITHOUT)[2]
        assert (edit.removal_thresh, edit.select_obj_id) == (0.3, [34, 57])


@pytest.mark.parametrize(
    ("key", "value"),
    [("antialiasing", True), ("random_background", True), ("n_views", 10), ("optimizer_type", "sparse_adam")],
)
def test_a_value_that_would_change_the_result_there_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"theirs\.json: {key} .* Leave it out"):
        parse(train.GROUPS, written(tmp_path, OF_3DGS | {key: value}))
