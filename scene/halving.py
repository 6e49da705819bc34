"""Views and label maps at half their resolution, over exact blocks of 2x2 pixels, so that they stay aligned.

An odd last row or column is left out, of the camera too: pixel (x, y) of the half is the mean of the pixels
(2x, 2y) to (2x + 1, 2y + 1), and its centre theirs.
"""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from scene.cameras import Camera


def halve_camera(camera: Camera) -> Camera:
    """The view at half its width and height, with its photograph, without its id map.

    Its pixels are on the device of `camera`'s matrices. Width and height must be at least 2.
    """
    device = camera.world_view_transform.device
    photograph = camera.image_uint8
    half = None if photograph is None else halve_photograph(photograph.to(device, non_blocking=True))
    width, height = camera.image_width // 2, camera.image_height // 2
    intrinsics = (camera.fx / 2, camera.fy / 2, camera.cx / 2, camera.cy / 2)
    made = Camera(camera.uid, camera.image_name, width, height, *intrinsics, camera.R, camera.T, half)
    return made.with_matrices_on(device)


def halve_photograph(image: Tensor) -> Tensor:
    """(3, H, W) uint8 -> (3, H // 2, W // 2) uint8, means of blocks."""
    return avg_pool2d(image.float(), 2).round_().to(torch.uint8)


def halve_labels(labels: Tensor) -> Tensor:
    """(H, W) -> (H // 2, W // 2): what most pixels of a block have, of equally frequent ones the first."""
    height, width = labels.shape[0] // 2 * 2, labels.shape[1] // 2 * 2
    a, b = labels[0:height:2, 0:width:2], labels[0:height:2, 1:width:2]
    c, d = labels[1:height:2, 0:width:2], labels[1:height:2, 1:width:2]
    later = torch.where((b == c) | (b == d), b, torch.where(c == d, c, a))
    return torch.where((a == b) | (a == c) | (a == d), a, later).contiguous()
