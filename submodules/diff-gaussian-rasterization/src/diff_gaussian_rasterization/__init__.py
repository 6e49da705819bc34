"""Differentiable rasterizer of 3D Gaussians: colour plus identity channels, forward and backward.

The interface is that of the original 3DGS rasterizer with Gaussian Grouping's `sh_objs`: matrices are
row-vector (transposed) 4x4, images are (channels, H, W), `means2D.grad` is the screen-space gradient in NDC
units. The principal point is honoured through `projmatrix`. `reference.rasterize` is the same function in
plain PyTorch.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from . import _core, cuda

__all__ = ["GaussianRasterizationSettings", "GaussianRasterizer", "TileEpilogue", "instruction_set"]

MAX_IDENTITY_CHANNELS = 64
INVALID_INPUTS = {
    1: "means3D",
    2: "opacities",
    4: "scales, rotations or cov3D_precomp",
    8: "shs or colors_precomp",
    16: "sh_objs",
    32: "viewmatrix",  # of tensors on the CPU, `_check_camera` reads these
    64: "projmatrix",
    128: "campos",
    256: "bg",
}


class TileEpilogue(Protocol):
    """What takes the identity channels of every tile while they are in the cache, and leaves their gradients.

    On the CPU only. It is made for one image, dtype and number of channels.
    """

    @property
    def address(self) -> int:
        """Where its struct of csrc/tile_epilogue.h lies, as long as the object lives."""


class GaussianRasterizationSettings(NamedTuple):
    """One camera and how to render it.

    `viewmatrix` and `projmatrix` (the full projection) are (4,4) with points as row vectors; `tanfovx` =
    width / (2 fx); `bg` (3,) is the background colour; `identity_geometry_grad` False stops the identity
    map's gradient at the blending weights. `prefiltered` and `debug` are accepted for compatibility and have
    no effect.
    """

    image_height: int
    image_width: int
    tanfovx: float
    tanfovy: float
    bg: Tensor
    scale_modifier: float
    viewmatrix: Tensor
    projmatrix: Tensor
    sh_degree: int
    campos: Tensor
    prefiltered: bool = False
    debug: bool = False
    identity_geometry_grad: bool = True


def instruction_set() -> str:
    """Name of the CPU core in use: the best that this processor runs, or what GS_RASTERIZER_ISA names."""
    return os.environ.get("GS_RASTERIZER_ISA") or _core.instruction_sets()[0]


class _FrameLease:
    """A frame (what forward leaves for backward) from a pool, given back when autograd lets go of it.

    Frames hold grow-only memory, so that a training loop stops allocating after its first steps.
    """

    pool: ClassVar[list[_core.Frame]] = []

    def __init__(self) -> None:
        self.frame = self.pool.pop() if self.pool else _core.Frame()

    def __del__(self) -> None:
        self.pool.append(self.frame)

    def forward(self, is_double: bool, inputs: _core.Inputs, outputs: _core.Outputs) -> int:
        """Renders; returns 0 or the bits of the inputs that hold NaN or Inf."""
        return _core.forward(instruction_set(), is_double, self.frame, inputs, outputs)

    def backward(self, is_double: bool, *structs: Any) -> None:
        """Fills the input gradients: inputs, outputs, their gradients, where the inputs' gradients go."""
        _core.backward(instruction_set(), is_double, self.frame, *structs)


def _pointer(tensor: Tensor | None) -> int:
    return 0 if tensor is None or tensor.numel() == 0 else tensor.data_ptr()


def _inputs(
    settings: GaussianRasterizationSettings, num_gaussians: int, t: dict[str, Tensor | None]
) -> _core.Inputs:
    inputs = _core.Inputs()
    inputs.num_gaussians = num_gaussians
    inputs.width, inputs.height = settings.image_width, settings.image_height
    inputs.tan_fov_x, inputs.tan_fov_y = settings.tanfovx, settings.tanfovy
    inputs.scale_modifier = settings.scale_modifier
    inputs.sh_degree = settings.sh_degree
    inputs.identity_geometry_grad = settings.identity_geometry_grad
    inputs.threads = torch.get_num_threads()
    inputs.num_identity = 0 if t["identity"] is None else t["identity"].shape[1]
    inputs.num_rest = 0 if t["sh_rest"] is None else t["sh_rest"].shape[1]
    for name, tensor in t.items():
        setattr(inputs, name, _pointer(tensor))
    if t["sh_dc"] is not None:
        inputs.sh_dc_stride = t["sh_dc"].stride(0)
    if t["sh_rest"] is not None:
        inputs.sh_rest_stride = t["sh_rest"].stride(0)
    return inputs


class _Rasterize(torch.autograd.Function):
    """Arguments follow NAMES; each a contiguous tensor or None (sh_* may be strided over Gaussians)."""

    NAMES = (
        "means",
        "opacities",
        "scales",
        "rotations",
        "covariances",
        "sh_dc",
        "sh_rest",
        "colors",
        "identity",
    )

    @staticmethod
    def forward(
        ctx: Any,
        settings: GaussianRasterizationSettings,
        extra: bool,
        epilogue: TileEpilogue | None,
        means2d: Tensor,
        *arguments: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        tensors = dict(zip(_Rasterize.NAMES, arguments, strict=True))
        means = tensors["means"]
        assert means is not None
        camera = {
            "view": settings.viewmatrix.to(means).contiguous(),
            "proj": settings.projmatrix.to(means).contiguous(),
            "camera_position": settings.campos.to(means).contiguous(),
            "background": settings.bg.to(means).contiguous(),
        }
        inputs = _inputs(settings, means.shape[0], {**tensors, **camera})
        size = (settings.image_height, settings.image_width)
        color = means.new_empty((3, *size))
        if epilogue is None:
            objects = means.new_empty((inputs.num_identity, *size))
        else:
            objects, inputs.epilogue = means.new_zeros(()), epilogue.address
        radii = torch.empty(means.shape[0], dtype=torch.int32, device=means.device)
        alpha, depth = (means.new_empty(size), means.new_empty(size)) if extra else (None, None)
        outputs = _core.Outputs()
        for name, tensor in (
            ("color", color),
            ("objects", None if inputs.epilogue else objects),
            ("radii", radii),
            ("alpha", alpha),
            ("depth", depth),
        ):
            setattr(outputs, name, _pointer(tensor))
        frame = cuda.frame_on(means.device) if means.is_cuda else _FrameLease()
        invalid = frame.forward(means.dtype == torch.float64, inputs, outputs)
        if invalid:
            names = "; ".join(name for bit, name in INVALID_INPUTS.items() if invalid & bit)
            raise ValueError(f"the rasterizer was given NaN or Inf in: {names}")
        # Keeps alive what the pointers in `inputs` and `outputs` refer to.
        ctx.save_for_backward(color, objects, radii, alpha, depth, *arguments, *camera.values())
        ctx.call = (frame, inputs, outputs)
        ctx.mark_non_differentiable(radii)
        ctx.set_materialize_grads(False)
        return color, radii, objects, alpha, depth

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,
        dL_dcolor: Tensor | None,
        _: None,
        dL_dobjects: Tensor | None,
        dL_dalpha: Tensor | None,
        dL_ddepth: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        arguments = dict(zip(_Rasterize.NAMES, ctx.saved_tensors[5:], strict=False))
        frame, inputs, outputs = ctx.call
        upstream = {"color": dL_dcolor, "objects": dL_dobjects, "alpha": dL_dalpha, "depth": dL_ddepth}
        upstream = {name: None if g is None else g.contiguous() for name, g in upstream.items()}
        output_gradients = _core.OutputGradients()
        if inputs.epilogue and dL_dobjects is not None:
            upstream["objects"], output_gradients.epilogue = None, dL_dobjects.item()
        for name, tensor in upstream.items():
            setattr(output_gradients, name, _pointer(tensor))
        gradients = {name: None if t is None else torch.empty_like(t) for name, t in arguments.items()}
        if inputs.sh_degree == 0:
            gradients["sh_rest"] = None  # not reached yet: no gradient rather than megabytes of zeros
        gradients["means2d"] = torch.empty_like(arguments["means"])
        input_gradients = _core.InputGradients()
        for name, tensor in gradients.items():
            setattr(input_gradients, name, _pointer(tensor))
        for name in ("sh_dc", "sh_rest"):
            if (gradient := gradients[name]) is not None:
                setattr(input_gradients, f"{name}_stride", gradient.stride(0))
        is_double = arguments["means"].dtype == torch.float64
        frame.backward(is_double, inputs, outputs, output_gradients, input_gradients)
        return None, None, None, gradients["means2d"], *(gradients[name] for name in _Rasterize.NAMES)


def _check(name: str, tensor: Tensor | None, shape: tuple[int | None, ...], like: Tensor) -> Tensor | None:
    """`tensor`, contiguous; a ValueError names the argument where its device, dtype or shape is wrong."""
    if tensor is None:
        return None
    if tensor.device != like.device or tensor.device.type not in ("cpu", "cuda"):
        expected = "a CPU or CUDA device" if tensor is like else f"{like.device} as means3D"
        raise ValueError(f"{name} is on {tensor.device}; expected {expected}")
    if tensor.dtype not in (torch.float32, torch.float64) or tensor.dtype != like.dtype:
        raise ValueError(f"{name} is {tensor.dtype}; expected {like.dtype} as means3D (float32 or float64)")
    if tensor.dim() != len(shape) or any(
        s is not None and s != t for s, t in zip(shape, tensor.shape, strict=True)
    ):
        expected = ", ".join("any" if s is None else str(s) for s in shape)
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; expected ({expected})")
    return tensor.contiguous()


def _check_camera(settings: GaussianRasterizationSettings) -> None:
    """Raises a ValueError that names the setting that has another shape or holds NaN or Inf."""
    for name, shape in (("bg", (3,)), ("viewmatrix", (4, 4)), ("projmatrix", (4, 4)), ("campos", (3,))):
        tensor = getattr(settings, name)
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}; expected {shape}")
        if not tensor.is_cuda and not tensor.isfinite().all():  # on a GPU the kernels look, without a wait
            raise ValueError(f"the rasterizer was given NaN or Inf in: {name}")


def _split_sh(
    shs: Tensor | tuple[Tensor, Tensor], degree: int, means: Tensor
) -> tuple[Tensor, Tensor | None]:
    """SH coefficients (N,K,3), or the pair ((N,1,3), (N,K-1,3)), as that pair; enough for `degree`."""
    n = means.shape[0]
    if isinstance(shs, tuple):
        dc, rest = (_check("shs", part, (n, None, 3), means) for part in shs)
    else:
        whole = _check("shs", shs, (n, None, 3), means)
        assert whole is not None
        dc, rest = whole[:, :1], whole[:, 1:]  # views: the core takes the stride over Gaussians
    assert dc is not None and rest is not None
    count = dc.shape[1] + rest.shape[1]
    if not 0 <= degree <= 3 or dc.shape[1] != 1 or count < (degree + 1) ** 2:
        raise ValueError(
            f"shs holds {count} coefficients; sh_degree {degree} (0 to 3) needs {(degree + 1) ** 2}"
        )
    return dc, rest if rest.shape[1] else None


class GaussianRasterizer(nn.Module):
    """The original's module interface: construct with the settings of one camera, call with the Gaussians."""

    def __init__(self, raster_settings: GaussianRasterizationSettings) -> None:
        super().__init__()
        self.raster_settings = raster_settings

    def markVisible(self, positions: Tensor) -> Tensor:
        """(N,) bool: in front of the near plane (0.2), which is the original's test."""
        view = self.raster_settings.viewmatrix
        return positions @ view[:3, 2] + view[3, 2] > 0.2

    def forward(
        self,
        means3D: Tensor,
        means2D: Tensor,
        opacities: Tensor,
        shs: Tensor | tuple[Tensor, Tensor] | None = None,
        sh_objs: Tensor | None = None,
        colors_precomp: Tensor | None = None,
        scales: Tensor | None = None,
        rotations: Tensor | None = None,
        cov3D_precomp: Tensor | None = None,
        extra: bool = False,
        epilogue: TileEpilogue | None = None,
    ) -> tuple[Tensor, ...]:
        """Renders N Gaussians.

        Args:
            means3D: (N,3) centres, scene units.
            means2D: (N,3) zeros whose gradient receives dL/d(screen position), NDC.
            opacities: (N,1) in [0,1]. shs: (N,K,3) SH coefficients, or the pair ((N,1,3), (N,K-1,3)).
            sh_objs: (N,1,D) or (N,D) identity encodings, D <= 64. colors_precomp: (N,3) instead of shs.
            scales: (N,3), rotations: (N,4) quaternions w x y z of any length;
            or cov3D_precomp: (N,6) xx xy xz yy yz zz.
            extra: also return the accumulated alpha (H,W) and the alpha-weighted depth (H,W), undivided.
            epilogue: takes the identity channels in place of an image. `objects` is then a scalar, 0, whose
                gradient is the factor of those that the epilogue leaves.

        Returns:
            color (3,H,W), radii (N,) int32 in pixels (0: not in the image), objects (D,H,W)[, alpha, depth].

        Raises:
            ValueError: shape, dtype or device of an argument, or NaN or Inf in it, or an epilogue that was
                made for something else; the message names it.
        """
        settings = self.raster_settings
        means = _check("means3D", means3D, (None, 3), means3D)
        n = means3D.shape[0]
        if (shs is None) == (colors_precomp is None):
            raise ValueError("give exactly one of shs and colors_precomp")
        if (cov3D_precomp is None) == (scales is None or rotations is None):
            raise ValueError("give exactly one of the pair scales, rotations and cov3D_precomp")
        if settings.image_width < 1 or settings.image_height < 1:
            raise ValueError(
                f"image size {settings.image_width}x{settings.image_height}: both must be at least 1"
            )
        _check("means2D", means2D, (n, 3), means3D)
        _check_camera(settings)
        identity = None
        if sh_objs is not None:
            identity = _check(
                "sh_objs", sh_objs.flatten(1) if sh_objs.dim() > 2 else sh_objs, (n, None), means3D
            )
            assert identity is not None
            if identity.shape[1] > MAX_IDENTITY_CHANNELS:
                raise ValueError(f"sh_objs has {identity.shape[1]} channels; at most {MAX_IDENTITY_CHANNELS}")
        if epilogue is not None and (identity is None or means3D.is_cuda):
            raise ValueError("epilogue: needs sh_objs, on the CPU")
        dc, rest = (None, None) if shs is None else _split_sh(shs, settings.sh_degree, means3D)
        color, radii, objects, alpha, depth = _Rasterize.apply(
            settings,
            extra,
            epilogue,
            means2D,
            means,
            _check("opacities", opacities.reshape(-1), (n,), means3D),
            _check("scales", scales, (n, 3), means3D),
            _check("rotations", rotations, (n, 4), means3D),
            _check("cov3D_precomp", cov3D_precomp, (n, 6), means3D),
            dc,
            rest,
            _check("colors_precomp", colors_precomp, (n, 3), means3D),
            identity,
        )
        return (color, radii, objects, alpha, depth) if extra else (color, radii, objects)
