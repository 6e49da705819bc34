"""Camera matrices and rotations.

Matrices follow 3DGS: stored TRANSPOSED, for row vectors, so that
p_camera = [p_world 1] @ world_view_transform and p_clip = [p_world 1] @ full_proj_transform.
Axes are OpenCV's (x right, y down, z forward).
`R` is the camera-to-world rotation and `T` the world-to-camera translation: x_camera = R^T x_world + T.
Principal points (cx, cy) are COLMAP's: the image covers [0, W] x [0, H], pixel centres at integer + 0.5.
"""

import math

import numpy as np
import torch


def fov2focal(fov: float, pixels: float) -> float:
    """Focal length in pixels of a field of view (radians) that spans `pixels`."""
    return pixels / (2.0 * math.tan(0.5 * fov))


def focal2fov(focal: float, pixels: float) -> float:
    """Field of view in radians that spans `pixels` at focal length `focal` (pixels)."""
    return 2.0 * math.atan(pixels / (2.0 * focal))


def world_view(R: np.ndarray, T: np.ndarray) -> torch.Tensor:
    """World-to-camera matrix (4,4) float32, transposed, of `R` (3,3) camera-to-world and `T` (3,)."""
    matrix = np.eye(4)
    matrix[:3, :3] = R.T
    matrix[:3, 3] = T
    return torch.tensor(matrix.T, dtype=torch.float32).contiguous()


def projection(
    fx: float, fy: float, cx: float, cy: float, width: int, height: int, znear: float, zfar: float
) -> torch.Tensor:
    """Camera-to-clip matrix (4,4) float32, transposed, that honours the principal point.

    The rasterizer turns ndc into pixel = ((ndc + 1) S - 1) / 2, and a point must land on pixel
    fx x/z + cx - 0.5. Solving for ndc: ndc_x = (2 fx / W) x/z + (2 cx / W - 1).
    Depth maps [znear, zfar] to [0, 1].
    """
    matrix = torch.zeros(4, 4, dtype=torch.float64)
    matrix[0, 0] = 2.0 * fx / width
    matrix[1, 1] = 2.0 * fy / height
    matrix[0, 2] = 2.0 * cx / width - 1.0
    matrix[1, 2] = 2.0 * cy / height - 1.0
    matrix[2, 2] = zfar / (zfar - znear)
    matrix[2, 3] = -zfar * znear / (zfar - znear)
    matrix[3, 2] = 1.0
    return matrix.T.to(torch.float32).contiguous()


def quaternion_to_matrix(quaternion: np.ndarray) -> np.ndarray:
    """Rotation matrix (3,3) of one quaternion (4,) = (w, x, y, z), normalised first; float64.

    A quaternion of length 0 gives NaN, for the data check to find.
    """
    with np.errstate(invalid="ignore"):
        unit = np.asarray(quaternion, dtype=np.float64) / np.linalg.norm(quaternion)
    return build_rotation(torch.from_numpy(unit)[None])[0].numpy()


def build_rotation(quaternions: torch.Tensor) -> torch.Tensor:
    """Rotation matrices (N,3,3) of quaternions (N,4) = (w, x, y, z), normalised first; differentiable."""
    w, x, y, z = torch.nn.functional.normalize(quaternions, dim=-1).unbind(-1)  # each (N,)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)  # (N, 3, 3)
