"""What does one GRPO step cost, and what of it is repeated?

    .venv/bin/python bench/grpo_step.py                  # tiny layers, 1,152 vision tokens, a minute or two on one core
    .venv/bin/python bench/grpo_step.py --shape 2B       # the real architecture with random weights, bfloat16, on a GPU
    .venv/bin/python bench/grpo_step.py --shape thoughts --arms tree   # answers of 40 tokens about a short film
    .venv/bin/python bench/grpo_step.py --shape smoke    # that the bench itself works

One scene, `--questions` questions about it, 14 rollouts of each, all of the same length. Three arms do the same work:

plain   every rollout a row of its own, as open trainers do: `generate` on repeated prompts, then reference and policy
        on whole rows
group   one question at a time, its rollouts sharing the prompt
tree    all questions of the scene sharing the video, whose features are computed once

Seconds are reported by phase: vision (wherever it is called), prefill and decode of the rollout, reference, policy,
backward, rest. An arm is measured `--repeats` times, the arms taking turns, and the median of each phase is kept.
Log-probabilities and gradients of the same answers must agree between the arms. A ratio stands beside its `bound`,
the ratio of the tokens that go through the language layers, and for a training pass beside `pairs`, the ratio of the
pairs of tokens that attention computes: the more of the time is attention, the nearer the ratio is to `pairs`.
`utilisation` is how much of the machine the update uses: two operations a token and weight of the language layers
forward and two back (weights are frozen), attention not counted, over what a large matrix product reaches in the same
run. The last line is one JSON object.
"""
import argparse
import json
import os
import platform
import sys
import time
from collections import defaultdict
from contextlib import contextmanager

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from vsgrpo.engine.models import VideoReader, load_model, load_processor, lora_config, make_prompt, unwrap_model
from vsgrpo.engine.prefix_tree import build_prefix_trees, pack_tree
from vsgrpo.engine.sampling import sample_answers
from vsgrpo.engine.tree_attention import attention_blocks, completion_logps, trunk_positions
from vsgrpo.engine.video import VideoSpec, fix_torchvision
from vsgrpo.engine.vision_guard import VisionFeatureCache, VisionGuard

# Qwen2-VL's vision tower but for the width of its output
TOWER = dict(depth=32, embed_dim=1280, num_heads=16, mlp_ratio=4, patch_size=14)
LARGE = dict(size=(224, 448), frames=16, answer=12, questions=8, sections=[16, 24, 24])
# height and width of a frame, frames, answer tokens, questions; widths and layers of the language and the vision part
SHAPES = {
    "smoke": dict(size=(56, 56), frames=4, answer=4, questions=2),
    "tiny": dict(size=(168, 168), frames=16, answer=12, questions=8),
    "thoughts": dict(size=(84, 84), frames=4, answer=40, questions=8),
    "2B": LARGE | dict(vision=TOWER | dict(hidden_size=1536),
                       text=dict(hidden_size=1536, intermediate_size=8960, num_hidden_layers=28,
                                 num_attention_heads=12, num_key_value_heads=2)),
    "7B": LARGE | dict(vision=TOWER | dict(hidden_size=3584),
                       text=dict(hidden_size=3584, intermediate_size=18944, num_hidden_layers=28,
                                 num_attention_heads=28, num_key_value_heads=4)),
}
QUESTIONS = [
    "How many {}(s) are in this room?",
    "What is the length of the longest dimension (length, width, or height) of the {}, measured in centimeters?",
    "Measuring from the closest point of each object, what is the distance between the {} and the door (in meters)?",
    "If I am standing by the {} and facing the door, is the table to the left or the right of the door?"]
THINGS = ["chair", "table", "sofa", "lamp", "bed", "shelf", "desk", "plant"]


def make(shape, device, layers=None):
    "Model with a LoRA adapter that is not zero, processor, video of one scene."
    import torch
    fix_torchvision()
    from peft import get_peft_model
    s, processor = SHAPES[shape], load_processor("tiny")
    model = random_model(s, device, layers) if "text" in s else load_model("tiny", device=device)
    torch.manual_seed(0)
    model = get_peft_model(model, lora_config()).to(device).eval()
    for name, p in model.named_parameters():
        if "lora_B" in name: torch.nn.init.normal_(p, std=.02)
    vision, (height, width) = model.config.vision_config, s["size"]
    processor.video_processor.patch_size = vision.patch_size
    spec = VideoSpec(frames=s["frames"], min_pixels=height*width, max_pixels=height*width,
                     factor=vision.patch_size*vision.spatial_merge_size)
    frames = np.random.default_rng(0).integers(0, 255, (s["frames"], height, width, 3), dtype=np.uint8)
    return model, processor, VideoReader(processor, spec).prepare(frames, "a scene")


def random_model(s, device, layers):
    "A Qwen2-VL of a shape with random weights; `layers` of each part, None: all."
    import torch
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration
    small = load_model("tiny", device="cpu").config
    vision = small.vision_config.to_dict() | s["vision"]
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": s["sections"]}
    text = small.text_config.to_dict() | dict(vocab_size=151_936, rope_parameters=rope, layer_types=None) | s["text"]
    if layers: vision["depth"] = text["num_hidden_layers"] = layers
    ids = {name: getattr(small, name)
           for name in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")}
    torch.manual_seed(0)
    config = Qwen2VLConfig(text_config=text, vision_config=vision, **ids)
    dtype = torch.bfloat16 if device != "cpu" else torch.float32
    with torch.device(device): return Qwen2VLForConditionalGeneration._from_config(config, dtype=dtype)


def texts(n): return [QUESTIONS[i % len(QUESTIONS)].format(THINGS[i // len(QUESTIONS) % len(THINGS)]) for i in range(n)]


class Clock:
    "Seconds by phase, and tokens through the language layers by phase."
    def __init__(self, model):
        import torch
        core = unwrap_model(model)
        self.seconds, self.tokens = defaultdict(float), defaultdict(int)
        self.sync = torch.cuda.synchronize if core.device.type == "cuda" else lambda: None
        tower, language = core.model.visual, core.model.language_model
        self.hooks = [tower.register_forward_pre_hook(self._enter_vision),
                      tower.register_forward_hook(lambda *_: self.switch(self.before_vision)),
                      language.register_forward_pre_hook(self._count, with_kwargs=True),
                      language.register_forward_hook(self._decode)]
        self.sync()
        self.phase, self.since = "rest", time.perf_counter()
    def switch(self, phase):
        self.sync()
        now = time.perf_counter()
        self.seconds[self.phase] += now - self.since
        self.phase, self.since = phase, now
    def _enter_vision(self, *_):
        self.before_vision = self.phase
        self.switch("vision")
    def _count(self, module, args, kw): self.tokens[self.phase] += int(np.prod(kw["inputs_embeds"].shape[:2]))
    def _decode(self, *_):
        if self.phase == "prefill": self.switch("decode")
    def result(self):
        by_phase = {phase: round(s, 3) for phase, s in self.seconds.items()}
        return dict(seconds=round(sum(self.seconds.values()), 3), by_phase=by_phase, tokens=dict(self.tokens))
    @contextmanager
    def __call__(self, phase):
        "A phase; `prefill` becomes `decode` after the first pass."
        self.switch(phase)
        yield
        self.switch("rest")
    def close(self):
        self.switch("rest")
        for h in self.hooks: h.remove()


def plain_inputs(model, prompt, answers):
    "Whole rows of one question's rollouts, its video repeated."
    import torch
    core, G = unwrap_model(model), len(answers)
    ids = torch.tensor([[*prompt.ids, *a] for a in answers], device=core.device)
    trunk = trunk_positions(model, prompt.ids, prompt.video)
    rest = trunk.max() + 1 + torch.arange(len(answers[0]))
    positions = torch.cat([trunk, rest.expand(3, -1)], 1)[:, None].expand(3, G, -1).to(core.device)
    return dict(input_ids=ids, attention_mask=torch.ones_like(ids), position_ids=positions,
                pixel_values_videos=prompt.video.pixels.repeat(G, 1).to(core.device),
                video_grid_thw=prompt.video.grid.repeat(G, 1).to(core.device))


def plain_logps(model, prompt, answers):
    "Log-probabilities (G, T) from whole rows; logits at the answers alone, as TRL asks for them."
    import torch
    T = len(answers[0])
    logits = model(**plain_inputs(model, prompt, answers), logits_to_keep=T + 1, use_cache=False).logits[:, :-1].float()
    return logits.log_softmax(-1).gather(-1, torch.tensor(answers, device=logits.device)[:, :, None])[..., 0]


def plain(model, prompts, answers, G, T, clock):
    "One question after the other, every rollout a row."
    import torch
    core, out = unwrap_model(model), []
    for prompt, group in zip(prompts, answers):
        with clock("prefill"), torch.no_grad():
            ids = torch.tensor([prompt.ids]*G, device=core.device)
            model.generate(input_ids=ids, attention_mask=torch.ones_like(ids),
                           mm_token_type_ids=(ids == core.config.video_token_id).int()*2,
                           pixel_values_videos=prompt.video.pixels.repeat(G, 1).to(core.device),
                           video_grid_thw=prompt.video.grid.repeat(G, 1).to(core.device),
                           do_sample=True, temperature=1., top_k=0, min_new_tokens=T, max_new_tokens=T,
                           eos_token_id=None, pad_token_id=0)
        with clock("reference"), torch.no_grad(), model.disable_adapter(): plain_logps(model, prompt, group)
        with clock("policy"): logps = plain_logps(model, prompt, group)
        with clock("backward"): logps.mean(1).sum().backward()
        out.append(logps.detach())
    return torch.cat(out)


def shared(model, prompts, answers, G, T, clock, whole):
    "Trees: of one question each, or of all questions."
    import torch
    guard, out = VisionGuard(model, VisionFeatureCache(model) if whole else None), []
    parts = [range(len(prompts))] if whole else [[i] for i in range(len(prompts))]
    for part in parts:
        with clock("prefill"): sample_answers(model, [prompts[i] for i in part], G, T, guard=guard)
        rows, flat = [prompts[i] for i in part for _ in range(G)], [answer for i in part for answer in answers[i]]
        trees = build_prefix_trees(rows, flat, guard.video_id)
        with clock("reference"), torch.no_grad(), model.disable_adapter(): completion_logps(model, trees, guard=guard)
        with clock("policy"): logps = completion_logps(model, trees, guard=guard)[0]
        with clock("backward"): logps.mean(1).sum().backward()
        out.append(logps.detach())
    guard.close()
    return torch.cat(out)


ARMS = dict(plain=plain, group=lambda *a: shared(*a, whole=False), tree=lambda *a: shared(*a, whole=True))


def measure(arm, model, *work):
    "An arm's seconds by phase, tokens, peak memory, log-probabilities and gradient."
    import torch
    cuda = unwrap_model(model).device.type == "cuda"
    model.zero_grad()
    if cuda: torch.cuda.reset_peak_memory_stats()
    clock = Clock(model)
    logps = ARMS[arm](model, *work, clock)
    clock.close()
    grad = torch.cat([p.grad.flatten().float().cpu() for p in model.parameters() if p.grad is not None])
    result = clock.result()
    if cuda: result["peak_gib"] = round(torch.cuda.max_memory_allocated()/2**30, 2)
    return result, logps.float().cpu(), grad


def count_pairs(arm, prompts, answers, video_id):
    "Pairs of tokens that attention computes in a training pass; of a causal block half."
    half = lambda n: n*(n + 1)//2
    rows = [(prompt, answer) for prompt, group in zip(prompts, answers) for answer in group]
    if arm == "plain": return sum(half(len(prompt.ids) + len(answer)) for prompt, answer in rows)
    size = len(rows) if arm == "tree" else len(answers[0])
    total = 0
    for i in range(0, len(rows), size):
        part_prompts, part_answers = map(list, zip(*rows[i:i+size]))
        [tree] = build_prefix_trees(part_prompts, part_answers, video_id)
        for prefix, queries in attention_blocks(pack_tree(tree)):
            total += len(queries)*(len(prefix) + len(queries)) if len(prefix) else half(len(queries))
    return total


def matmul_flops(device):
    "Operations a second of a large matrix product: what this machine can reach."
    import torch
    n, dtype = (8192, torch.bfloat16) if device == "cuda" else (1024, torch.float32)
    x, best = torch.ones(n, n, device=device, dtype=dtype), float("inf")
    for _ in range(5):
        if device == "cuda": torch.cuda.synchronize()
        begin = time.perf_counter()
        x @ x
        if device == "cuda": torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begin)
    return 2*n**3/best


def middle(runs):
    "Median of each phase over the runs of an arm."
    phases = {k: round(float(np.median([r["by_phase"].get(k, 0) for r in runs])), 3) for k in runs[0]["by_phase"]}
    return runs[0] | dict(seconds=round(sum(phases.values()), 3), by_phase=phases,
                          all_seconds=sorted(r["seconds"] for r in runs))


def compare(first, other):
    "Ratios of two arms with their bounds, phase by phase."
    phases = dict(step=list(first["by_phase"]), training_passes=["reference", "policy", "backward"],
                  rollout=["prefill", "decode"], vision=["vision"],
                  **{k: [k] for k in ("prefill", "decode", "reference", "policy", "backward")})
    seconds = lambda arm, names: sum(arm["by_phase"].get(n, 0) for n in names)
    tokens = lambda arm, names: sum(arm["tokens"].get("policy" if n == "backward" else n, 0) for n in names)
    ratios = {}
    for name, parts in phases.items():
        if not seconds(other, parts): continue
        ratios[name] = dict(ratio=round(seconds(first, parts)/seconds(other, parts), 1))
        if tokens(other, parts): ratios[name]["bound"] = round(tokens(first, parts)/tokens(other, parts), 1)
    ratios["training_passes"]["pairs"] = round(first["pairs"]/other["pairs"], 1)
    return ratios


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--shape", choices=list(SHAPES), default="tiny")
    p.add_argument("--questions", type=int, help="about the scene; default: the shape's")
    p.add_argument("--rollouts", type=int, default=14)
    p.add_argument("--layers", type=int, help="of a 2B or 7B, to try its widths without a GPU; default: all")
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    args = p.parse_args()
    import torch
    torch.set_num_threads(1)
    device, s = "cuda" if torch.cuda.is_available() else "cpu", SHAPES[args.shape]
    model, processor, video = make(args.shape, device, args.layers)
    prompts = [make_prompt(processor, t, video) for t in texts(args.questions or s["questions"])]
    Q, G, T = len(prompts), args.rollouts, s["answer"]
    rng = np.random.default_rng(0)
    answers = [[rng.integers(300, 700, T).tolist() for _ in range(G)] for _ in range(Q)]
    measure(args.arms[-1], model, prompts[:1], answers[:1], G, T)      # warm-up
    runs, values = defaultdict(list), {}
    for _ in range(args.repeats):
        for arm in args.arms:
            result, *values[arm] = measure(arm, model, prompts, answers, G, T)
            runs[arm].append(result)
            print(arm, json.dumps(result), flush=True)
    core = unwrap_model(model)
    layers = core.model.language_model.layers.named_parameters()
    weights, peak = sum(p.numel() for name, p in layers if "lora" not in name), matmul_flops(device)
    arms = {}
    for arm, results in runs.items():
        arms[arm] = middle(results) | dict(pairs=count_pairs(arm, prompts, answers, core.config.video_token_id))
        phases = arms[arm]["by_phase"]
        flops = 4*weights*arms[arm]["tokens"]["policy"]/(phases["policy"] + phases["backward"])
        arms[arm]["utilisation"] = round(flops/peak, 3)
    first, ratios = args.arms[0], {}
    logps, grads = values[first]
    for arm in args.arms[1:]:
        its_logps, its_grads = values[arm]
        ratios[arm] = compare(arms[first], arms[arm]) | dict(
            logps_differ=float((logps - its_logps).abs().max()),
            gradients_differ=float((grads - its_grads).norm()/grads.norm()))
    print(json.dumps(dict(
        bench="grpo_step", shape=args.shape, layers=args.layers, machine=platform.machine(),
        device=torch.cuda.get_device_name() if device == "cuda" else "cpu, one thread",
        vision_tokens=video.tokens, question_tokens=[len(p.ids) - video.tokens for p in prompts],
        questions=Q, rollouts=G, answer_tokens=T, parameters=sum(p.numel() for p in model.parameters()),
        matmul_tflops=round(peak/1e12, 3), arms=arms, over=first, ratios=ratios)))


if __name__ == "__main__": sys.exit(main())
