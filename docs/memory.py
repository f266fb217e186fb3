"Memory of a GRPO step of the 2B and the 7B, from shapes alone: `python docs/memory.py`."
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT/"bench")]


def memory_table()->str:
    "GiB by part, for 8 questions about a video in a pass and for one."
    from grpo_step import SHAPES

    from vsgrpo.training.budget import Pass, memory_needed
    from vsgrpo.engine.models import load_config
    from vsgrpo.engine.video import fix_torchvision
    fix_torchvision()
    from transformers import Qwen2VLConfig
    tiny, rows = load_config("tiny"), {}
    ids = {k: getattr(tiny, k)
           for k in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")}
    for name in ("2B", "7B"):
        s = SHAPES[name]
        text = dict(tiny.text_config.to_dict(), vocab_size=151_936, tie_word_embeddings=name == "2B", layer_types=None,
                    rope_parameters={"rope_type": "default", "rope_theta": 1e6,
                                     "mrope_section": s["sections"]}) | s["text"]
        config = Qwen2VLConfig(text_config=text, vision_config=tiny.vision_config.to_dict() | s["vision"],
                               tie_word_embeddings=name == "2B", **ids)
        for questions in (8, 1):
            for four_bit in (False, True)[:1 + (questions == 1)]:
                of = memory_needed(config, Pass(1024 + 20, 80, 16, 14, questions, 1, True), four_bit=four_bit)/2**30
                rows[f"{name}, {questions} question{'s' if questions > 1 else ''} a "
                     f"pass{', four bits' if four_bit else ''}"] = of
    parts = list(next(iter(rows.values())).index)
    return "\n".join(["| GiB | " + " | ".join(parts) + " |", "|---|" + "---|"*len(parts),
                      *(f"| {k} | " + " | ".join(f"{v:.1f}" for v in of) + " |" for k, of in rows.items())])


if __name__ == "__main__":
    print(memory_table())
