"Memory of a GRPO step of the 2B and the 7B, from shapes alone: `python docs/memory.py`."
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT/"bench")]
TOKEN_IDS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
VARIANTS = ((8, False), (1, False), (1, True)) # questions about a video in a pass, whether the base is in four bits


def full_config(name):
    "The configuration of the 2B or the 7B, made from the tiny one's."
    from grpo_step import SHAPES

    from vsgrpo.engine.models import load_config
    from vsgrpo.engine.video import fix_torchvision
    fix_torchvision()
    from transformers import Qwen2VLConfig
    tiny, shape, tied = load_config("tiny"), SHAPES[name], name == "2B"
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": shape["sections"]}
    text = dict(tiny.text_config.to_dict(), vocab_size=151_936, tie_word_embeddings=tied, layer_types=None,
                rope_parameters=rope)
    return Qwen2VLConfig(text_config=text | shape["text"],
                         vision_config=tiny.vision_config.to_dict() | shape["vision"], tie_word_embeddings=tied,
                         **{k: getattr(tiny, k) for k in TOKEN_IDS})


def memory_table()->str:
    "GiB by part, for 8 questions about a video in a pass and for one, as Markdown."
    from vsgrpo.training.budget import Pass, memory_needed
    lines = []
    for name in ("2B", "7B"):
        config = full_config(name)
        for questions, four_bit in VARIANTS:
            parts = memory_needed(config, Pass(1024 + 20, 80, 16, 14, questions, 1, True), four_bit=four_bit)/2**30
            plural, bits = "s" if questions > 1 else "", ", four bits" if four_bit else ""
            cells = " | ".join(f"{gib:.1f}" for gib in parts)
            lines.append(f"| {name}, {questions} question{plural} a pass{bits} | {cells} |")
    heads = list(parts.index)
    return "\n".join(["| GiB | " + " | ".join(heads) + " |", "|---|" + "---|"*len(heads), *lines])


if __name__ == "__main__":
    print(memory_table())
