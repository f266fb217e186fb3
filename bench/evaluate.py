"""What does it cost to ask a model many questions about one video, in three prompt modes?

    .venv/bin/python bench/evaluate.py                  # tiny layers, 1,152 vision tokens, a minute on one core
    .venv/bin/python bench/evaluate.py --shape 2B       # the real architecture with random weights, bfloat16, on a GPU
    .venv/bin/python bench/evaluate.py --shape smoke    # that the bench itself works

One scene, 18 questions, vanilla, think and observe mode, greedy. Two arms: `plain` answers one prompt after the other
with `generate`; `tree` answers all behind one pass over the video. `answers_alike` counts the answers that are the
same, token by token. The last line is one JSON object.
"""
import argparse
import json
import os
import platform
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")

from grpo_step import SHAPES, Clock, make, middle, texts

from vsgrpo.engine.models import make_prompt, unwrap_model
from vsgrpo.engine.sampling import sample_answers
from vsgrpo.engine.vision_guard import VisionFeatureCache, VisionGuard
from vsgrpo.evaluation.generate import end_tokens, vision_tokens
from vsgrpo.evaluation.vsibench import MODES, Question, prompt

MAX_TOKENS = {"vanilla": 16, "think": 64, "observe": 64} # of an answer; real ones are longer, and share less


def plain(model, prompts, max_tokens, ends, banned, clock):
    "Every prompt by itself."
    import torch
    core, answers = unwrap_model(model), []
    for p, longest in zip(prompts, max_tokens):
        ids = torch.tensor([p.ids], device=core.device)
        with clock("prefill"), torch.no_grad():
            out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids),
                                 mm_token_type_ids=(ids == core.config.video_token_id).int()*2,
                                 pixel_values_videos=p.video.pixels.to(core.device),
                                 video_grid_thw=p.video.grid.to(core.device), do_sample=False,
                                 max_new_tokens=longest, eos_token_id=list(ends), pad_token_id=ends[0],
                                 suppress_tokens=list(banned))
        answers.append(out[0, len(p.ids):].tolist())
    return answers


def tree(model, prompts, max_tokens, ends, banned, clock):
    "All prompts behind one pass over the video, as `generate_answers` does it."
    guard = VisionGuard(model, VisionFeatureCache(model))
    with clock("prefill"): answers = sample_answers(model, prompts, 1, max_tokens, 0, ends, banned, guard=guard)
    guard.close()
    return [answer for [answer] in answers]


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--shape", choices=list(SHAPES), default="tiny")
    p.add_argument("--questions", type=int, default=18)
    p.add_argument("--layers", type=int, help="of a 2B or 7B, to try its widths without a GPU; default: all")
    p.add_argument("--repeats", type=int, default=3)
    args = p.parse_args()
    import torch
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, processor, video = make(args.shape, device, args.layers)
    questions = [Question(i, "generated", "a scene", "object_counting", text, "1")
                 for i, text in enumerate(texts(args.questions))]
    prompts = [make_prompt(processor, prompt(q, mode, "test"), video) for mode in MODES for q in questions]
    max_tokens = [MAX_TOKENS[mode] for mode in MODES for _ in questions]
    ends, banned = end_tokens(processor), vision_tokens(processor)
    tree(model, prompts[:1], max_tokens[:1], ends, banned, Clock(model))      # warm-up
    runs, answers = {"plain": [], "tree": []}, {}
    for _ in range(args.repeats):
        for name, arm in (("plain", plain), ("tree", tree)):
            clock = Clock(model)
            answers[name] = arm(model, prompts, max_tokens, ends, banned, clock)
            clock.close()
            runs[name].append(clock.result())
            print(name, json.dumps(runs[name][-1]), flush=True)
    arms = {name: middle(results) for name, results in runs.items()}
    lengths = sorted(map(len, answers["plain"]))
    tokens = {name: sum(arm["tokens"].values()) for name, arm in arms.items()}
    print(json.dumps(dict(
        bench="evaluate", shape=args.shape, layers=args.layers, machine=platform.machine(),
        device=torch.cuda.get_device_name() if device == "cuda" else "cpu, one thread",
        vision_tokens=video.tokens, questions=args.questions, modes=list(MODES),
        answer_tokens=dict(median=lengths[len(lengths)//2], longest=lengths[-1], all=sum(lengths)),
        answers=len(prompts), answers_alike=sum(a == b for a, b in zip(answers["plain"], answers["tree"])),
        arms=arms, ratio=round(arms["plain"]["seconds"]/arms["tree"]["seconds"], 1),
        bound=round(tokens["plain"]/tokens["tree"], 1))))


if __name__ == "__main__": sys.exit(main())
