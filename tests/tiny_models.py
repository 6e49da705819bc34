"""For tests: Grounding DINO and SAM with tiny random weights, as the hub has them; a network of clicks."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from pretrained.loading import require_transformers

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?")
WORDS = (*SPECIAL, "a", "the", "green", "red", "blue", "bowl", "cup", "disc", "table")
SAM_EDGE = 64


def write_detector(folder: Path, seed: int = 0) -> None:
    """A Grounding DINO of about 100,000 random weights that knows `WORDS`."""
    transformers = require_transformers()
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizer.from_pretrained(folder).save_pretrained(folder)
    narrow = {
        f"{part}_{size}": 2 for part in ("encoder", "decoder") for size in ("layers", "attention_heads")
    }
    config = transformers.GroundingDinoConfig(
        backbone_config=transformers.SwinConfig(
            image_size=64,
            window_size=4,
            embed_dim=16,
            depths=[1, 1, 1, 1],
            num_heads=[1, 1, 2, 2],
            out_features=["stage2", "stage3", "stage4"],
        ),
        text_config=transformers.BertConfig(
            vocab_size=len(WORDS),
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
        ),
        d_model=32,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_queries=10,
        num_feature_levels=4,
        max_text_len=32,
        **narrow,
    )
    transformers.GroundingDinoForObjectDetection(config).save_pretrained(folder)
    write_preprocessor(folder, "GroundingDino", size={"shortest_edge": 64, "longest_edge": 128})


def write_segmenter(folder: Path, seed: int = 0) -> None:
    """A SAM of as many."""
    transformers = require_transformers()
    torch.manual_seed(seed)
    vision = transformers.SamVisionConfig(
        hidden_size=32,
        output_channels=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=SAM_EDGE,
        patch_size=16,
        mlp_dim=64,
        window_size=2,
        global_attn_indexes=[0],
        num_pos_feats=16,
    )
    prompts = transformers.SamPromptEncoderConfig(
        hidden_size=32, image_size=SAM_EDGE, patch_size=16, mask_input_channels=8
    )
    decoder = transformers.SamMaskDecoderConfig(
        hidden_size=32, mlp_dim=64, num_hidden_layers=1, num_attention_heads=2, iou_head_hidden_dim=32
    )
    config = transformers.SamConfig(
        vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder
    )
    transformers.SamModel(config).save_pretrained(folder)
    write_preprocessor(
        folder,
        "Sam",
        size={"longest_edge": SAM_EDGE},
        pad_size={"height": SAM_EDGE, "width": SAM_EDGE},
        mask_size={"longest_edge": SAM_EDGE // 4},
        mask_pad_size={"height": SAM_EDGE // 4, "width": SAM_EDGE // 4},
    )


def write_preprocessor(folder: Path, model: str, **sizes: object) -> None:
    """`preprocessor_config.json` as the hub's are: they name the class that needs torchvision."""
    table = {
        "image_processor_type": f"{model}ImageProcessor",
        "processor_class": f"{model}Processor",
        **sizes,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(table))


def write_tracker(folder: Path, seed: int = 0) -> None:
    """A SAM 2 with its video memory, as its checkpoints hold both."""
    transformers = require_transformers()
    torch.manual_seed(seed)
    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=12,
        num_attention_heads=1,
        image_size=[128, 128],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[12, 24, 48, 96],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[8, 4, 8, 8],
        global_attention_blocks=[3],
        window_positional_embedding_background_size=[7, 7],
    )
    vision = transformers.Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[96, 48, 24, 12],
        fpn_hidden_size=128,
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
    )
    prompts = transformers.Sam2VideoPromptEncoderConfig(
        hidden_size=128, image_size=128, patch_size=16, mask_input_channels=8
    )
    decoder = transformers.Sam2VideoMaskDecoderConfig(
        hidden_size=128, mlp_dim=64, num_hidden_layers=2, num_attention_heads=2, iou_head_hidden_dim=32
    )
    config = transformers.Sam2VideoConfig(
        vision_config=vision,
        image_size=128,
        prompt_encoder_config=prompts,
        mask_decoder_config=decoder,
        memory_attention_hidden_size=128,
        memory_attention_num_layers=1,
        memory_attention_num_attention_heads=1,
        memory_attention_feed_forward_hidden_size=64,
        memory_attention_rope_feat_sizes=[8, 8],
        memory_encoder_hidden_size=128,
        memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=128,
        memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=64,
    )
    transformers.Sam2VideoModel(config).save_pretrained(folder)


class AlikeColours(nn.Module):
    """What has the colour of a point that is labelled 1, less what has that of one labelled 0."""

    def forward(self, image: Tensor, points: Tensor, labels: Tensor) -> Tensor:
        column, row = points[:, 0].long(), points[:, 1].long()
        colors = image[:, row, column].T  # (K, 3)
        near = (image[None] - colors[:, :, None, None]).abs().sum(1) < 0.2  # (K, H, W)
        wanted = near[labels == 1].any(0)
        return torch.where(wanted & ~near[labels == 0].any(0), 3.0, -3.0)


def saved(module: nn.Module, path: Path) -> str:
    """The file of a module."""
    torch.jit.script(module).save(str(path))
    return str(path)
