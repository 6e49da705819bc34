"""For tests: Grounding DINO and SAM with tiny random weights, saved as the hub's folders are."""

import json
from pathlib import Path

import torch

from utils.pretrained import require_transformers

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
