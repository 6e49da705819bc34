"""The runs behind the paper's tables: LERF-Mask (tables 1, 2, 4, figure 6) and Mip-NeRF 360 (table 3)."""

from collections.abc import Sequence
from pathlib import Path

from experiments.run import Run, training

LERF_SCENES = ("figurines", "ramen", "teatime")
OUTDOORS, INDOORS = (
    ("bicycle", "flowers", "garden", "stump", "treehill"),
    ("room", "counter", "kitchen", "bonsai"),
)
MIPNERF360_SCENES = (*OUTDOORS, *INDOORS)
LERF_CONFIGS = ("baseline", "no_igd", "no_la_knn", "gradiseg")
MIPNERF360_CONFIGS = ("baseline", "gradiseg")
FACTORS = ("8", "published")  # 8 is the paper's; published is 3DGS's
LPIPS_FROM_ZERO = ("--lpips_from_zero",)  # as in all published tables of this kind


def lerf_mask_runs(
    data: Path,
    out: Path,
    flags: Sequence[str],
    *,
    scenes: Sequence[str] = LERF_SCENES,
    configs: Sequence[str] = LERF_CONFIGS,
    text: Sequence[str] | None = None,
    text_masks: Path | None = None,
    metrics: Sequence[str] = (),
) -> list[Run]:
    """Runs in `out/CONFIG/SCENE`; `text_masks/SCENE` stands for both models of the choice by words."""

    def words(scene: str) -> list[str] | None:
        folder = ["--text_masks", str(text_masks / scene)] if text_masks else []
        return [*(text or ()), *folder] if text or folder else None

    return [
        training(
            data / scene,
            out / Path(config).stem / scene,
            config,
            ("-r", "1", "--train_split", *flags),
            metrics=metrics,
            text=words(scene),
        )
        for scene in scenes
        for config in configs
    ]


def mipnerf360_runs(
    data: Path,
    out: Path,
    flags: Sequence[str],
    *,
    scenes: Sequence[str] = MIPNERF360_SCENES,
    configs: Sequence[str] = MIPNERF360_CONFIGS,
    factors: Sequence[str] = FACTORS,
) -> list[Run]:
    """Runs in `out/FACTOR/CONFIG/SCENE`."""
    return [
        training(
            data / scene,
            out / factor / Path(config).stem / scene,
            config,
            ("-i", images_of(factor, scene), "--eval", *flags),
            metrics=LPIPS_FROM_ZERO,
        )
        for factor in factors
        for scene in scenes
        for config in configs
    ]


def images_of(factor: str, scene: str) -> str:
    """The folder of a scene's pictures: 3DGS takes images_2 indoors and images_4 outdoors."""
    if factor == "published":
        return "images_2" if scene in INDOORS else "images_4"
    return f"images_{factor}"
