"""What does one GRPO step cost, and what of it is repeated?

    .venv/bin/python bench/grpo_step.py                  # tiny layers, 1,152 vision tokens, a minute or two on one core
    .venv/bin/python bench/grpo_step.py --shape 2B       # the real architecture with random weights, bfloat16, on a GPU
    .venv/bin/python bench/grpo_step.py --shape smoke    # that the bench itself works

One scene, `--questions` questions about it, 14 rollouts of each, all of the same length. Three arms do the same work:

plain   every rollout a row of its own, as open trainers do: `generate` on repeated prompts, then reference and policy on whole rows
group   one question at a time, its rollouts sharing the prompt
tree    all questions of the scene sharing the video, whose features are computed once

Seconds are told by phase: vision (wherever it is called), prefill and decode of the rollout, reference, policy, backward, rest. An arm is
measured `--repeats` times, the arms taking turns, and the median of each phase is kept. Log-probabilities and gradients of the same
answers must agree between the arms. A ratio stands beside its `bound`, the ratio of the tokens that go through the language layers, and for
a training pass beside `pairs`, the ratio of the pairs of tokens that attention computes: the more of the time is attention, the nearer to it.
`utilisation` is what the update makes of the machine: two operations a token and weight of the language layers forward and two back
(weights are frozen), attention not counted, over what a large matrix product reaches in the same run. The last line is one JSON object.
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

from vsgrpo.engine.models import VideoReader, load_model, load_processor, lora_config, make_prompt
from vsgrpo.engine.vision_guard import VisionFeatureCache, VisionGuard
from vsgrpo.engine.tree_attention import completion_logps, attention_blocks, trunk_positions
from vsgrpo.engine.models import unwrap_model
from vsgrpo.engine.prefix_tree import build_prefix_trees, pack_tree
from vsgrpo.engine.sampling import sample_answers
from vsgrpo.engine.video import VideoSpec

SHAPES = { # height and width of a frame, frames, answer tokens, questions, hidden size and layers of the language and of the vision part
    "smoke": dict(size=(56, 56), frames=4, answer=4, questions=2),
    "tiny": dict(size=(168, 168), frames=16, answer=12, questions=8),
    "2B": dict(size=(224, 448), frames=16, answer=12, questions=8, text=dict(hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2),
               vision=dict(depth=32, embed_dim=1280, num_heads=16, mlp_ratio=4, hidden_size=1536, patch_size=14), sections=[16, 24, 24]),
    "7B": dict(size=(224, 448), frames=16, answer=12, questions=8, text=dict(hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4),
               vision=dict(depth=32, embed_dim=1280, num_heads=16, mlp_ratio=4, hidden_size=3584, patch_size=14), sections=[16, 24, 24]),
}
ASKED = ["How many {}(s) are in this room?",
         "What is the length of the longest dimension (length, width, or height) of the {}, measured in centimeters?",
         "Measuring from the closest point of each object, what is the distance between the {} and the door (in "
         "meters)?",
         "If I am standing by the {} and facing the door, is the table to the left or the right of the door?"]
THINGS = ["chair", "table", "sofa", "lamp", "bed", "shelf", "desk", "plant"]


def make(shape, device, layers=None):
    "Model with a LoRA adapter that is not zero, processor, video of one scene."
    import torch
    from vsgrpo.engine.video import fix_torchvision
    fix_torchvision()
    from peft import get_peft_model
    s, processor = SHAPES[shape], load_processor("tiny")
    if "text" in s:
        from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration
        small = load_model("tiny", device="cpu").config
        eyes = small.vision_config.to_dict() | s["vision"] | ({"depth": layers} if layers else {})
        text = dict(small.text_config.to_dict(), vocab_size=151_936,
                    rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": s["sections"]},
                    layer_types=None) | s["text"] | ({"num_hidden_layers": layers} if layers else {})
        ids = {k: getattr(small, k)
               for k in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")}
        torch.manual_seed(0)
        with torch.device(device):
            model = Qwen2VLForConditionalGeneration._from_config(Qwen2VLConfig(text_config=text, vision_config=eyes,
                                                                               **ids),
                                                                 dtype=torch.bfloat16 if device != "cpu"
                                                                 else torch.float32)
    else: model = load_model("tiny", device=device)
    torch.manual_seed(0)
    model = get_peft_model(model, lora_config()).to(device).eval()
    for name, p in model.named_parameters():
        if "lora_B" in name: torch.nn.init.normal_(p, std=.02)
    eyes, (height, width) = model.config.vision_config, s["size"]
    processor.video_processor.patch_size = eyes.patch_size
    reader = VideoReader(processor, VideoSpec(frames=s["frames"], min_pixels=height*width, max_pixels=height*width,
                                              factor=eyes.patch_size*eyes.spatial_merge_size))
    return model, processor, reader.prepare(np.random.default_rng(0).integers(0, 255, (s["frames"], height, width, 3),
                                                                              dtype=np.uint8), "a scene")


def texts(n): return [ASKED[i % len(ASKED)].format(THINGS[i // len(ASKED) % len(THINGS)]) for i in range(n)]


class Clock:
    "Seconds by phase, and tokens through the language layers by phase."
    def __init__(self, model):
        import torch
        self.took, self.tokens = defaultdict(float), defaultdict(int)
        self.sync = torch.cuda.synchronize if unwrap_model(model).device.type == "cuda" else lambda: None
        tower, words = unwrap_model(model).model.visual, unwrap_model(model).model.language_model
        self.hooks = [tower.register_forward_pre_hook(self._look),
                      tower.register_forward_hook(lambda *_: self.switch(self.back)),
                      words.register_forward_pre_hook(self._count, with_kwargs=True),
                      words.register_forward_hook(self._decode)]
        self.sync()
        self.at, self.since = "rest", time.perf_counter()
    def switch(self, phase):
        self.sync()
        self.took[self.at] += (now := time.perf_counter()) - self.since
        self.at, self.since = phase, now
    def _look(self, *_):
        self.back = self.at
        self.switch("vision")
    def _count(self, module, args, kw): self.tokens[self.at] += int(np.prod(kw["inputs_embeds"].shape[:2]))
    def _decode(self, *_):
        if self.at == "prefill": self.switch("decode")
    @contextmanager
    def __call__(self, phase):
        "A phase; `prefill` becomes `decode` after the first pass."
        self.switch(phase)
        yield
        self.switch("rest")
    def close(self):
        self.switch("rest")
        for h in self.hooks: h.remove()


def plain_inputs(model, prompts, answers):
    "Whole rows of one question's rollouts, its video repeated."
    import torch
    core, G = unwrap_model(model), len(answers)
    ids = torch.tensor([[*prompts.ids, *a] for a in answers], device=core.device)
    trunk = trunk_positions(model, prompts.ids, prompts.video)
    rest = trunk.max() + 1 + torch.arange(len(answers[0]))
    positions = torch.cat([trunk, rest.expand(3, -1)], 1)[:, None].expand(3, G, -1).to(core.device)
    return dict(input_ids=ids, attention_mask=torch.ones_like(ids), position_ids=positions,
                pixel_values_videos=prompts.video.pixels.repeat(G, 1).to(core.device),
                video_grid_thw=prompts.video.grid.repeat(G, 1).to(core.device))


def plain_logps(model, prompt, answers):
    "Log-probabilities (G, T) from whole rows; logits at the answers alone, as TRL asks for them."
    import torch
    T = len(answers[0])
    logits = model(**plain_inputs(model, prompt, answers), logits_to_keep=T + 1, use_cache=False).logits[:, :-1].float()
    return logits.log_softmax(-1).gather(-1, torch.tensor(answers, device=logits.device)[:, :, None])[..., 0]


def plain(model, processor, prompts, said, G, T, clock):
    "One question after the other, every rollout a row."
    import torch
    core, out = unwrap_model(model), []
    for prompt, answers in zip(prompts, said):
        with clock("prefill"), torch.no_grad():
            ids = torch.tensor([prompt.ids]*G, device=core.device)
            model.generate(input_ids=ids, attention_mask=torch.ones_like(ids),
                           mm_token_type_ids=(ids == core.config.video_token_id).int()*2,
                           pixel_values_videos=prompt.video.pixels.repeat(G, 1).to(core.device),
                           video_grid_thw=prompt.video.grid.repeat(G, 1).to(core.device),
                           do_sample=True, temperature=1., top_k=0, min_new_tokens=T, max_new_tokens=T,
                           eos_token_id=None, pad_token_id=0)
        with clock("reference"), torch.no_grad(), model.disable_adapter(): plain_logps(model, prompt, answers)
        with clock("policy"): logps = plain_logps(model, prompt, answers)
        with clock("backward"): logps.mean(1).sum().backward()
        out.append(logps.detach())
    return torch.cat(out)


def shared(model, processor, prompts, said, G, T, clock, whole):
    "Trees: of one question each, or of all questions."
    import torch
    guard, out = VisionGuard(model, VisionFeatureCache(model) if whole else None), []
    for part in ([range(len(prompts))] if whole else [[i] for i in range(len(prompts))]):
        some = [prompts[i] for i in part]
        with clock("prefill"): sample_answers(model, some, G, T, 1., (), guard=guard)
        trees = build_prefix_trees([p for p in some for _ in range(G)], [a for i in part for a in said[i]],
                                   guard.video_id)
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
    told = dict(seconds=round(sum(clock.took.values()), 3), by_phase={k: round(v, 3) for k, v in clock.took.items()},
                tokens=dict(clock.tokens))
    if cuda: told["peak_gib"] = round(torch.cuda.max_memory_allocated()/2**30, 2)
    return told, logps.float().cpu(), grad


def pairs(arm, prompts, said, video_id):
    "Pairs of tokens that attention computes in a training pass; of a causal block half."
    half = lambda n: n*(n + 1)//2
    if arm == "plain": return sum(half(len(p.ids) + len(a)) for p, answers in zip(prompts, said) for a in answers)
    rows = [(p, a) for p, answers in zip(prompts, said) for a in answers]
    parts = [rows] if arm == "tree" else [rows[i:i+len(said[0])] for i in range(0, len(rows), len(said[0]))]
    blocks = [b for part in parts for b in attention_blocks(pack_tree(build_prefix_trees(*map(list, zip(*part)), video_id)[0]))]
    return sum(len(own)*(len(path) + len(own)) if len(path) else half(len(own)) for path, own in blocks)


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
    tokens = lambda x, names: sum(x["tokens"].get("policy" if n == "backward" else n, 0) for n in names)
    seconds = lambda x, names: sum(x["by_phase"].get(n, 0) for n in names)
    told = {k: dict(ratio=round(seconds(first, names)/seconds(other, names), 1))for k, names in phases.items()
            if seconds(other, names)}
    for k in told:
        if tokens(other, phases[k]): told[k]["bound"] = round(tokens(first, phases[k])/tokens(other, phases[k]), 1)
    told["training_passes"]["pairs"] = round(first["pairs"]/other["pairs"], 1)
    return told


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
    said = [[rng.integers(300, 700, T).tolist() for _ in range(G)] for _ in range(Q)]
    work = (processor, prompts, said, G, T)
    measure(args.arms[-1], model, processor, prompts[:1], said[:1], G, T)      # warm-up
    runs, values = defaultdict(list), {}
    for _ in range(args.repeats):
        for arm in args.arms:
            told, *values[arm] = measure(arm, model, *work)
            runs[arm].append(told)
            print(arm, json.dumps(told), flush=True)
    told = {arm: middle(of) | dict(pairs=pairs(arm, prompts, said, unwrap_model(model).config.video_token_id))
            for arm, of in runs.items()}
    weights = sum(p.numel()for name, p in unwrap_model(model).model.language_model.layers.named_parameters()
                  if "lora" not in name)
    peak = matmul_flops(device)
    for x in told.values():
        x["utilisation"] = round(4*weights*x["tokens"]["policy"]/(x["by_phase"]["policy"] + x["by_phase"]["backward"])/peak,
                                 3)
    first, ratios = args.arms[0], {}
    for arm in args.arms[1:]:
        (logps, grads), (mine, my_grads) = values[first], values[arm]
        ratios[arm] = compare(told[first], told[arm]) | dict(logps_differ=float((logps - mine).abs().max()),
                                                             gradients_differ=float((grads - my_grads).norm()/grads.norm()))
    print(json.dumps(dict(bench="grpo_step", shape=args.shape, layers=args.layers, machine=platform.machine(),
                          device=torch.cuda.get_device_name() if device == "cuda" else "cpu, one thread",
                          vision_tokens=video.tokens, question_tokens=[len(p.ids) - video.tokens for p in prompts],
                          questions=Q, rollouts=G, answer_tokens=T,
                          parameters=sum(p.numel()
                                         for p in model.parameters()), matmul_tflops=round(peak/1e12, 3), arms=told, over=first, ratios=ratios)))


if __name__ == "__main__": sys.exit(main())
