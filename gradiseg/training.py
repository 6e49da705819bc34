"""A training: everything that changes from iteration to iteration, and the step that changes it."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from arguments import ModelParams
from gaussian_renderer import render
from gradiseg.alone import AloneLoss
from gradiseg.boundary import BoundaryLoss
from gradiseg.classifier import IdentityClassifier
from gradiseg.igd import IdentityGradientDensification
from gradiseg.objective import Losses, Objective
from gradiseg.repair.labels import TrainingLabels
from gradiseg.schedule import Schedule
from gradiseg.votes import Votes, elect, save_votes, voters
from scene import Scene
from scene.cameras import Camera
from scene.densification import DefaultDensification, DensificationStrategy
from scene.halving import halve_camera, halve_labels
from scene.ply import IDENTITY_DIM
from scene.run_folder import RunFolder
from utils.errors import UserError, some
from utils.files import atomic_write
from utils.general import random_state, restore_random_state
from utils.image import psnr

TEST_PICTURES = 3  # test views shown in TensorBoard


class Training:
    """The Gaussians of a scene, the classifier and the labels, under optimisation.

    Args:
        args: of the model; `num_classes` and `white_background` count here.
        schedule: what happens when, already scaled.
        scene: its Gaussians are trained, on their device.

    Attributes: `iteration`, the last that was completed; `camera_order`, the indices of the training views
    that the current pass has yet to show, the next one last.
    """

    def __init__(self, args: ModelParams, schedule: Schedule, scene: Scene) -> None:
        assert scene.gaussians is not None
        self.schedule, self.opt, self.scene = schedule, schedule.opt, scene
        self.model, self.cameras = scene.gaussians, scene.getTrainCameras()
        self.iteration = 0
        self.camera_order: list[int] = []
        self.model.training_setup(self.opt)
        device = self.model.device
        classifier = IdentityClassifier(scene.class_ids, args.num_classes, self.opt.ignore_label)
        self.classifier = classifier.to(device)
        self.classifier_optimizer = torch.optim.Adam(classifier.parameters(), lr=self.opt.classifier_lr)
        self.labels = TrainingLabels(classifier)
        if schedule.repair.repair_masks and schedule.repair.correct_outlines:
            self.labels.correct_outlines(self.cameras)
        self.objective = Objective(schedule, classifier)
        self.boundary, self.alone = BoundaryLoss(), AloneLoss()
        self.strategies: list[DensificationStrategy] = [
            DefaultDensification(self.opt, args.white_background),
            IdentityGradientDensification(schedule),
        ]
        self.background = torch.full((3,), float(args.white_background), device=device)

    def step(self) -> Losses:
        """One iteration, which begins with the repair and densification due after the one before.

        So a model is saved as it was optimised, not with opacities that were reset a moment ago.
        """
        self.revise()
        self.iteration += 1
        self.model.update_learning_rate(self.iteration)
        if self.iteration % self.schedule.sh_interval == 0:
            self.model.oneupSHdegree()
        camera, labels = self.next_view()
        if labels is not None and self.schedule.boundary_is_due(self.iteration):
            rendered, losses = self.boundary_step(camera, labels)
        else:
            rendered = render(
                camera,
                self.model,
                bg_color=self.background,
                identity_geometry_grad=self.opt.identity_geometry_grad,
                identity_loss=self.objective.in_tiles(labels),
            )
            losses = self.objective(self.iteration, camera, labels, rendered, self.model)
        losses.total.backward()

        package = {**rendered, "is_masked": labels is not None}
        for strategy in self.strategies:
            strategy.after_backward(self.model, package, self.iteration)
        assert self.model.optimizer is not None  # since training_setup
        self.model.optimizer.step()
        self.classifier_optimizer.step()
        for optimizer in (self.model.optimizer, self.classifier_optimizer):
            optimizer.zero_grad(set_to_none=True)
        return losses

    def boundary_step(self, camera: Camera, labels: Tensor) -> tuple[dict[str, Tensor], Losses]:
        """A view rendered with codes of the owners beside encodings, its losses and those of boundaries."""
        if self.boundary.is_due(self.iteration, self.model.num_gaussians):
            self.elect_owners()
        encodings = self.model.get_objects[:, 0]
        channels = torch.cat([self.boundary.codes, encodings], 1)  # (N, 32)
        rendered = render(camera, self.model, bg_color=self.background, override_identity=channels)
        codes, rendered["render_object"] = rendered["render_object"].split(IDENTITY_DIM)
        # codes move geometry, and what is drawn with them moves it too
        masks = labels if self.opt.identity_geometry_grad else None
        losses = self.objective(self.iteration, camera, masks, rendered, self.model)
        losses.boundary = self.boundary(codes, labels) + self.alone(self.model, camera, labels)
        alpha = self.objective.alpha(losses.rgb)
        losses.boundary = losses.boundary + self.boundary.of_encodings(encodings, self.classifier, alpha)
        return rendered, losses

    def elect_owners(self) -> None:
        """Find anew what boundary steps hold the Gaussians to, by some views spread over all with masks."""
        masked = [camera for camera in self.cameras if camera.is_masked]
        some = voters(masked)
        votes = self.votes(some)
        ids = self.classifier.class_ids
        self.boundary.renew(self.iteration, votes, ids, map(self.labels, masked))
        self.alone.renew(self.model, masked, some, self.labels, ids, self.boundary.owners)

    def revise(self) -> None:
        """Repair the labels and change the number of Gaussians, where this is due after an iteration."""
        if self.schedule.repair_is_due(self.iteration):
            margin = self.schedule.repair.repair_margin
            self.labels.repair(self.cameras, self.render_identity, margin)
        if self.iteration > 0:
            for strategy in self.strategies:
                strategy.step(self.model, self.iteration, self.scene.cameras_extent)
            if not self.model.num_gaussians:
                raise UserError(
                    f"no Gaussians are left after iteration {self.iteration}. Lower --min_opacity, or look "
                    "at the scene: python check_scene.py -s SCENE."
                )

    def next_view(self) -> tuple[Camera, Tensor | None]:
        """The view and, if it has a mask, the labels (H, W) of this iteration, at its resolution."""
        camera = self.next_camera()
        labels = self.labels(camera) if camera.is_masked else None
        for _ in range(self.schedule.halvings(self.iteration)):
            camera = halve_camera(camera)
            labels = None if labels is None else halve_labels(labels)
        return camera, labels

    def next_camera(self) -> Camera:
        """The view of this iteration: every pass shows all of them in an order of its own."""
        if not self.camera_order:
            self.camera_order = random.sample(range(len(self.cameras)), len(self.cameras))
        camera = self.cameras[self.camera_order.pop()]
        if self.camera_order:
            self.cameras[self.camera_order[-1]].prefetch()
        return camera

    def render_identity(self, camera: Camera) -> Tensor:
        """Identity map (16, H, W) of a view."""
        return render(camera, self.model, bg_color=self.background)["render_object"]

    @torch.no_grad()
    def test(self) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Scores of the test views, empty where there are none, and a few of their pictures (3, H, 2 W)."""
        scores: list[float] = []
        pictures: dict[str, Tensor] = {}
        for camera in self.scene.getTestCameras():
            image = render(camera, self.model, bg_color=self.background)["render"].clamp(0, 1)
            scores.append(float(psnr(image, camera.original_image)))
            if len(pictures) < TEST_PICTURES:
                pictures[camera.image_name] = torch.cat([camera.original_image, image], 2)
        return {"psnr": sum(scores) / len(scores)} if scores else {}, pictures

    def votes(self, cameras: Sequence[Camera] | None = None) -> Votes:
        """Whose each Gaussian is, by the labels that train in some views, by default in all."""
        with torch.no_grad():
            by_encoding = self.classifier.class_ids[self.classifier(self.model.get_objects[:, 0]).argmax(1)]
        voting = self.cameras if cameras is None else cameras
        return elect(self.model, voting, self.labels, self.classifier.class_ids, by_encoding)

    def save_model(self, folder: RunFolder) -> None:
        """The votes, the classifier and, last, the PLY of this iteration, with which the model counts."""
        save_votes(folder.votes(self.iteration), self.votes())
        state = {name: tensor.cpu() for name, tensor in self.classifier.full_state_dict().items()}
        path = folder.classifier(self.iteration)
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            torch.save(state, file)  # given a name, it would store that too
        self.model.save_ply(folder.ply(self.iteration))

    def state_dict(self) -> dict[str, Any]:
        """Everything that going on bit for bit needs, as numbers, strings and tensors (not copies).

        The model's part holds its Adam moments and per-Gaussian statistics, which is all the state that
        densification has; `rng` the generators of torch, NumPy and Python, which are the process's.
        """
        return {
            "iteration": self.iteration,
            "model": self.model.capture(),
            "classifier": self.classifier.state_dict(),
            "classifier_optimizer": self.classifier_optimizer.state_dict(),
            "labels": self.labels.state_dict(),
            "boundary": self.boundary.state_dict(),
            "alone": self.alone.state_dict(),
            "camera_order": list(self.camera_order),
            "views": [camera.image_name for camera in self.cameras],
            "rng": random_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave.

        Raises: UserError where the scene has other views or the classifier other classes, before anything has
            changed.
        """
        views = [camera.image_name for camera in self.cameras]
        stored = state.get("views", views)
        if stored != views or not set(state["camera_order"]) <= set(range(len(views))):
            gone, new = sorted(set(stored) - set(views)), sorted(set(views) - set(stored))
            raise UserError(
                f"the checkpoint is of a training with {len(stored)} views, the scene has {len(views)} now "
                f"(gone: {some(gone) or 'none'}; new: {some(new) or 'none'}). Resume with the views and the "
                "split (--train_split, --eval) of that run, or train anew."
            )
        if not torch.equal(state["classifier"]["class_ids"], self.classifier.class_ids.cpu()):
            raise UserError(
                "the checkpoint's classifier knows other ids than the scene's masks. "
                "Resume with the scene, --object_path and --ignore_label of that run."
            )
        self.classifier.load_state_dict(state["classifier"])
        self.model.restore(state["model"], self.opt)
        self.classifier_optimizer.load_state_dict(state["classifier_optimizer"])
        self.labels.load_state_dict(state["labels"])
        if "pull" in state.get("boundary", ()):  # else one of before: owners are elected anew
            self.boundary.load_state_dict(state["boundary"], self.model.device)
            self.alone.load_state_dict(state["alone"], self.model.device)
        self.iteration, self.camera_order = state["iteration"], list(state["camera_order"])
        restore_random_state(state["rng"])
