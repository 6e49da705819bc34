"""The Python interface that Gaussian Grouping's scripts rely on, held by code that is written as they are."""

import inspect
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diff_gaussian_rasterization import GaussianRasterizationSettings, GaussianRasterizer
from simple_knn._C import distCUDA2
from torch import Tensor, nn

from arguments import ModelParams, OptimizationParams
from gaussian_renderer import render
from scene import GaussianModel, Scene
from tests.disc_scene import write_scene
from tests.submodules.rasterizer_scenes import balls, plain_camera

WIDTH, HEIGHT, CHANNELS, CLASSES = 40, 30, 16, 4


@pytest.fixture(autouse=True)
def without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`.cuda()` does nothing, as the contract has it; one thread is the fastest for scenes this small."""
    for kind in (Tensor, nn.Module):
        monkeypatch.setattr(kind, "cuda", lambda self, *arguments, **keywords: self)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# Names.


def test_settings_take_the_originals_fields_in_its_order() -> None:
    fields = GaussianRasterizationSettings._fields
    assert fields[:12] == (
        *(
            "image_height",
            "image_width",
            "tanfovx",
            "tanfovy",
            "bg",
            "scale_modifier",
            "viewmatrix",
            "projmatrix",
        ),
        *("sh_degree", "campos", "prefiltered", "debug"),
    )


def test_forward_takes_the_originals_arguments_in_its_order() -> None:
    names = list(inspect.signature(GaussianRasterizer.forward).parameters)
    assert names[:10] == [
        *("self", "means3D", "means2D", "opacities", "shs", "sh_objs", "colors_precomp"),
        *("scales", "rotations", "cov3D_precomp"),
    ]
    assert list(inspect.signature(GaussianRasterizer).parameters) == ["raster_settings"]


def test_positional_arguments_are_the_named_ones() -> None:
    camera = plain_camera(WIDTH, HEIGHT, torch.float32)
    given = balls(camera, [(20.0, 15.0, 2.0), (25.0, 15.0, 3.0)])
    named = GaussianRasterizer(raster_settings=camera)(**given)
    order = ("means3D", "means2D", "opacities", "shs", "sh_objs", "colors_precomp", "scales", "rotations")
    positional = GaussianRasterizer(camera)(*(given.get(name) for name in order))
    assert len(named) == 3
    for a, b, shape in zip(named, positional, ((3, HEIGHT, WIDTH), (2,), (2, HEIGHT, WIDTH)), strict=True):
        assert torch.equal(a, b) and a.shape == shape


def test_dist_cuda2_is_the_mean_square_distance_to_three_others() -> None:
    points = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    nearest = torch.cdist(points.double(), points.double()).sort(1).values[:, 1:4]
    torch.testing.assert_close(
        distCUDA2(points.float().cuda()).double(), nearest.square().mean(1), rtol=1e-5, atol=0
    )


# A training script on the two packages alone: bare parameters, a 1x1 convolution, two optimizers.


class Synthetic:
    """Views of a red and a blue cluster of points, their images and id maps by rendering."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        offsets = 0.25 * torch.randn(120, 3, generator=generator)
        self.ids = (torch.arange(120) % 2) + 1
        self.points = offsets + torch.tensor([[-0.5, 0.0, 0.0], [0.5, 0.0, 0.0]])[self.ids - 1]
        self.colors = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.1, 0.9]])[self.ids - 1]
        self.cameras = [self.view(angle) for angle in (-0.4, 0.0, 0.4)]

    def view(self, angle: float) -> SimpleNamespace:
        """A camera at distance 3 that looks at the origin, turned about the vertical axis."""
        view = torch.eye(4)
        view[0, 0] = view[2, 2] = math.cos(angle)
        view[0, 2], view[2, 0] = math.sin(angle), -math.sin(angle)
        view[3, 2] = 3.0
        projection = plain_camera(WIDTH, HEIGHT, torch.float32).projmatrix
        camera = SimpleNamespace(
            world_view_transform=view,
            full_proj_transform=view @ projection,
            camera_center=torch.inverse(view)[3, :3],
        )
        truth = rasterizer_for(camera, torch.zeros(3))(
            means3D=self.points,
            means2D=torch.zeros_like(self.points),
            opacities=torch.full((120, 1), 0.95),
            colors_precomp=self.colors,
            sh_objs=nn.functional.one_hot(self.ids, CLASSES)[:, None].float(),
            scales=torch.full((120, 3), 0.08),
            rotations=torch.tensor([[1.0, 0, 0, 0]]).repeat(120, 1),
        )
        camera.original_image = truth[0]
        present = truth[2].sum(0) > 0.5
        camera.objects = torch.where(present, truth[2].argmax(0), 0)
        return camera


def rasterizer_for(camera: SimpleNamespace, background: Tensor, sh_degree: int = 0) -> GaussianRasterizer:
    """As Gaussian Grouping's render() sets it up."""
    settings = GaussianRasterizationSettings(
        image_height=HEIGHT,
        image_width=WIDTH,
        tanfovx=0.5,
        tanfovy=0.5 * HEIGHT / WIDTH,
        bg=background,
        scale_modifier=1.0,
        viewmatrix=camera.world_view_transform,
        projmatrix=camera.full_proj_transform,
        sh_degree=sh_degree,
        campos=camera.camera_center,
        prefiltered=False,
        debug=False,
    )
    return GaussianRasterizer(raster_settings=settings)


def test_a_training_script_runs_on_the_two_packages() -> None:
    torch.manual_seed(0)
    data = Synthetic()
    xyz = nn.Parameter((data.points + 0.03 * torch.randn(120, 3)).cuda())
    features = nn.Parameter(torch.zeros(120, 16, 3).cuda())
    distance = torch.clamp_min(distCUDA2(xyz.detach().float().cuda()), 1e-7)
    scaling = nn.Parameter(torch.log(torch.sqrt(distance))[..., None].repeat(1, 3))
    rotation = nn.Parameter(torch.tensor([[1.0, 0, 0, 0]]).repeat(120, 1).cuda())
    opacity = nn.Parameter(torch.full((120, 1), -1.0).cuda())
    encodings = nn.Parameter(torch.rand(120, 1, CHANNELS).cuda())
    parameters = {
        "xyz": (xyz, 1e-3),
        "features": (features, 2e-2),
        "scaling": (scaling, 5e-3),
        "rotation": (rotation, 1e-3),
        "opacity": (opacity, 5e-2),
        "obj_dc": (encodings, 2e-2),
    }
    groups: list[dict[str, Any]] = [
        {"params": [value], "lr": rate, "name": name} for name, (value, rate) in parameters.items()
    ]
    optimizer = torch.optim.Adam(groups, lr=0.0, eps=1e-15)
    classifier = nn.Conv2d(CHANNELS, CLASSES, kernel_size=1)
    classifier.cuda()
    cls_optimizer = torch.optim.Adam(classifier.parameters(), lr=5e-3)
    cls_criterion = nn.CrossEntropyLoss(reduction="none")
    background = torch.tensor([0.0, 0.0, 0.0], dtype=torch.float32).cuda()
    gradient_sum, losses = torch.zeros(120, 1), []

    for iteration in range(1, 21):
        viewpoint = data.cameras[iteration % len(data.cameras)]
        screenspace_points = torch.zeros_like(xyz, dtype=xyz.dtype, requires_grad=True) + 0
        screenspace_points.retain_grad()
        image, radii, objects = rasterizer_for(viewpoint, background, sh_degree=1)(
            means3D=xyz,
            means2D=screenspace_points,
            shs=features,
            sh_objs=encodings,
            colors_precomp=None,
            opacities=torch.sigmoid(opacity),
            scales=torch.exp(scaling),
            rotations=nn.functional.normalize(rotation),
            cov3D_precomp=None,
        )
        logits = classifier(objects)
        loss_obj = (
            cls_criterion(logits.unsqueeze(0), viewpoint.objects.cuda().long().unsqueeze(0)).squeeze().mean()
        )
        loss = (image - viewpoint.original_image.cuda()).abs().mean() + loss_obj / math.log(CLASSES)
        if iteration % 5 == 0:
            probabilities = (
                torch.softmax(classifier(encodings.permute(2, 0, 1)), dim=0).squeeze().permute(1, 0)
            )
            sample = torch.randperm(120)[:20]
            _, neighbours = torch.cdist(xyz[sample].detach(), xyz.detach()).topk(5, largest=False)
            log_ratio = torch.log(probabilities[sample][:, None] + 1e-10) - torch.log(
                probabilities[neighbours] + 1e-10
            )
            loss = loss + 2.0 * (probabilities[sample][:, None] * log_ratio).sum(-1).mean() / CLASSES
        loss.backward()
        losses.append(loss.item())
        with torch.no_grad():
            visible = radii > 0
            assert visible.any() and screenspace_points.grad is not None
            gradient_sum[visible] += torch.norm(screenspace_points.grad[visible, :2], dim=-1, keepdim=True)
        for each in (optimizer, cls_optimizer):
            each.step()
            each.zero_grad(set_to_none=True)

    assert all(math.isfinite(loss) for loss in losses)
    assert sum(losses[-3:]) < 0.75 * sum(losses[:3]), losses
    assert (gradient_sum > 0).any()


# Our own modules under Gaussian Grouping's names.


def test_scene_model_and_render_go_together(tmp_path: Path) -> None:
    write_scene(tmp_path / "scene")
    dataset = ModelParams(
        source_path=str(tmp_path / "scene"), model_path=str(tmp_path / "run"), train_split=True
    )
    torch.manual_seed(0)
    gaussians = GaussianModel(dataset.sh_degree)
    scene = Scene(dataset, gaussians)
    gaussians.training_setup(OptimizationParams(feature_lr=0.05, opacity_lr=0.1))
    pipe, background, losses = SimpleNamespace(), torch.zeros(3), []
    viewpoint = scene.getTrainCameras()[0]
    count = gaussians.get_xyz.shape[0]
    for iteration in range(1, 21):
        gaussians.update_learning_rate(iteration)
        package = render(viewpoint, gaussians, pipe, background)
        loss = (package["render"] - viewpoint.original_image.cuda()).abs().mean()
        loss.backward()
        losses.append(loss.item())
        gradient = package["viewspace_points"].grad
        assert gradient is not None and gradient[package["visibility_filter"], :2].any()
        gaussians.optimizer.step()  # type: ignore[union-attr]
        gaussians.optimizer.zero_grad(set_to_none=True)  # type: ignore[union-attr]
    height, width = viewpoint.image_height, viewpoint.image_width
    assert package["render"].shape == (3, height, width)
    assert package["render_object"].shape == (16, height, width)
    assert package["viewspace_points"].shape == (count, 3)
    assert package["visibility_filter"].shape == package["radii"].shape == (count,)
    assert package["visibility_filter"].dtype == torch.bool
    assert losses[-1] < 0.9 * losses[0]
    assert len(scene.getTestCameras()) == 2
