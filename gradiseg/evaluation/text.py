"""Open vocabulary: words choose ids, and the ids give the masks of every view.

As in Gaussian Grouping, something marks the words in the rendered first test view (`grounded_sam`, or files
made beforehand); chosen are the ids of which over 0.7 of the predicted area lies inside the mark. From there
on the words' masks are those of any other ids.

Naming contract: a `prompt` is the words for one object and names its files; a `mark` is its mask (H, W) in
that one view.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from arguments import option
from gradiseg.classifier import identify, map_encodings
from gradiseg.evaluation.ids import Assignment, id_counts
from gradiseg.evaluation.masks import (
    DEFAULT_RULE,
    apply_rules,
    is_mask,
    read_mask,
    write_mask,
)
from gradiseg.evaluation.metrics import BoolArray
from gradiseg.evaluation.views import clear_pictures
from gradiseg.trained import TrainedRun
from pretrained.grounded_sam import DETECTOR, SEGMENTER, GroundedSam
from scene.cameras import Camera
from scene.masks import resize_id_map
from utils.errors import UserError
from utils.image import id_palette, save_png, to_uint8
from utils.json_files import read_json, write_json
from utils.log import bar, logger

SCENE_PROMPTS = "*"
LERF_PROMPTS = Path(__file__).resolve().parents[2] / "config" / "lerf_prompts.json"
AREA_INSIDE = 0.7  # Gaussian Grouping's
OVERLAY = 0.5  # opacity of the masks' colours
AROUND = 0.6  # brightness of what no mask covers

Marks = dict[str, BoolArray]
Marker = Callable[[NDArray[np.uint8], Sequence[str]], Marks]  # picture (H, W, 3), prompts


@dataclass
class TextParams:
    """Objects given in words."""

    text: str = option(
        "",
        "what to look for, separated by ';'; without a value the scene's own words: those of "
        "config/lerf_prompts.json, otherwise the names in its test_mask/",
        first=True,
        bare=SCENE_PROMPTS,
    )
    text_masks: str = option("", "folder of masks <words>.png of the first test view, instead of the models")
    detector: str = option(DETECTOR, "Grounding DINO: a folder, or a name on the Hugging Face hub")
    segmenter: str = option(SEGMENTER, "SAM: a folder, or a name on the hub")
    box_threshold: float = option(
        0.3, "score from which a box is the object; lower finds more", low=0, high=1
    )


@dataclass(frozen=True)
class TextChoice:
    """The ids that prompts have chosen, and the marks that they were chosen by."""

    ids: Assignment
    marks: Marks
    view: str
    source: str


def prompts_of(text: str, source: Path) -> list[str]:
    """The prompts of `--text`, or the scene's own for `*`.

    Raises:
        UserError: none, or one that cannot name a file.
    """
    prompts = [part.strip() for part in text.split(";") if part.strip()]
    if prompts == [SCENE_PROMPTS]:
        known = read_json(LERF_PROMPTS).get(source.name)
        prompts = known or sorted({p.stem for p in (source / "test_mask").glob("*/*") if is_mask(p)})
    if not prompts:
        raise UserError(
            f"--text: no words given, and {LERF_PROMPTS.name} and test_mask/ have none for the scene "
            f"{source.name}. Give them, separated by ';'."
        )
    for prompt in prompts:
        if any(character in prompt for character in "/\\\0"):
            raise UserError(f"--text: {prompt!r} cannot name a file. Leave out slashes.")
    return list(dict.fromkeys(prompts))


def select_ids(ids: NDArray[Any], mark: BoolArray) -> list[int]:
    """Ids, other than 0, of which over 0.7 of the area in the id map (H, W) lies inside the mark (H, W)."""
    inside, total = id_counts(ids[mark]), id_counts(ids)
    return [identity for identity in inside if identity and inside[identity] > AREA_INSIDE * total[identity]]


def marks_from_folder(folder: Path) -> Marker:
    """A marker that reads `<prompt>.png` and brings it to the picture's size."""

    def mark(picture: NDArray[np.uint8], prompts: Sequence[str]) -> Marks:
        height, width = picture.shape[:2]
        marks = {}
        for prompt in prompts:
            path = folder / f"{prompt}.png"
            if not path.is_file():
                raise UserError(f"{path}: not there. Where nothing was found, put a black picture.")
            marks[prompt] = resize_id_map(read_mask(path).astype(np.uint8), width, height) == 1
        return marks

    return mark


def marker_of(options: TextParams, device: torch.device) -> tuple[Marker, str]:
    """The marker that the options ask for, and its name in records."""
    if options.text_masks:
        return marks_from_folder(Path(options.text_masks)), f"masks in {Path(options.text_masks).name}"
    models = GroundedSam(options.detector, options.segmenter, options.box_threshold, device)
    return models.mark, f"{Path(options.detector).name} and {Path(options.segmenter).name}"


def choose_by_text(run: TrainedRun, source: Path, options: TextParams) -> TextChoice:
    """Marks the prompts in the rendered first test view (training view if none tests) and chooses their ids.

    Ids and marks are kept in `<split>/ours_N_text/`: `ids.json`, which `--ids` takes, and `marks/`,
    which `--text_masks` takes.
    """
    prompts = prompts_of(options.text, source)
    marker, name = marker_of(options, run.background.device)
    camera = (run.test_cameras or run.train_cameras)[0]
    drawn = run.draw(camera)
    picture = to_uint8(drawn["render"]).permute(1, 2, 0).cpu().numpy()
    marks = marker(picture, prompts)
    winners = identify(map_encodings(drawn["render_object"]), run.classifier).cpu().numpy()
    ids = {prompt: select_ids(winners, marks[prompt]) for prompt in prompts}
    choice = TextChoice(ids, marks, camera.image_name, f"text: {name} in view {camera.image_name}")
    split = "test" if run.test_cameras else "train"
    save_choice(run.folder.text(split, run.iteration), choice)
    for prompt in prompts:
        logger.info("%s: %s", prompt, describe(ids[prompt], marks[prompt]))
    return choice


def describe(ids: Sequence[int], mark: BoolArray) -> str:
    """What a prompt has found, for people."""
    if ids:
        return "ids " + " ".join(map(str, ids))
    if mark.any():
        return f"found in the picture, but no id lies over {AREA_INSIDE:.0%} inside it: its masks are empty"
    return "nothing found in the picture: its masks are empty"


def save_choice(folder: Path, choice: TextChoice) -> None:
    """Writes `ids.json` and `marks/<prompt>.png`."""
    write_json(folder / "ids.json", {"ids": choice.ids, "source": choice.source, "view": choice.view})
    clear_pictures((folder / "marks").glob("*.png"))
    for prompt, mark in choice.marks.items():
        write_mask(folder / "marks" / f"{prompt}.png", mark)


def write_text_views(folder: Path, cameras: Sequence[Camera], run: TrainedRun, ids: Assignment) -> None:
    """Writes masks, `test_mask/<k>/<prompt>.png`, and all of them over the render, `overlay/0000k.png`."""
    clear_pictures([*folder.glob("test_mask/*/*.png"), *folder.glob("overlay/*.png")])
    for index, camera in enumerate(bar(cameras, str(folder))):
        drawn = run.draw(camera)
        masks = apply_rules(drawn["render_object"], run.classifier, ids)[DEFAULT_RULE]
        for prompt, mask in masks.items():
            write_mask(folder / "test_mask" / str(index) / f"{prompt}.png", mask)
        save_png(folder / "overlay" / f"{index:05d}.png", overlay(drawn["render"], masks))


def overlay(picture: Tensor, masks: Mapping[str, BoolArray]) -> Tensor:
    """A picture (3, H, W) in [0, 1]: every mask (H, W) in a colour of its own, dark grey around them."""
    colors = id_palette(len(masks) + 1)[1:].float() / 255  # (P, 3)
    picture = picture.cpu()
    tinted = AROUND * picture.mean(0, keepdim=True).repeat(3, 1, 1)
    for color, mask in zip(colors, masks.values(), strict=True):
        where = torch.from_numpy(mask)
        tinted[:, where] = (1 - OVERLAY) * picture[:, where] + OVERLAY * color[:, None]
    return tinted
