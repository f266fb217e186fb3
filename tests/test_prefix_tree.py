"The tree computes what the plain model computes, and the guard notices what the tree leaves out."
import dataclasses
import os
import shutil

import numpy as np
import pytest
import torch

from vsgrpo.engine import models, vision_guard, tree_attention, sampling, prefix_tree as pt
from vsgrpo.engine.models import VideoReader, load_model, load_processor, lora_config, make_prompt
from vsgrpo.engine.video import VideoSpec

SPEC = VideoSpec(frames=4, min_pixels=56*56, max_pixels=56*56, factor=14)
QUESTIONS = ["How many chair(s) are in this room?", "What is the size of this room (in square meters)?",
             "Is there a lamp?"]

@pytest.fixture(scope="module")
def tiny():
    model, processor = load_model("tiny", device="cpu"), load_processor("tiny")
    reader, rng = VideoReader(processor, SPEC), np.random.default_rng(0)
    videos = [reader.prepare(rng.integers(0, 255, (4, 56, 56, 3), dtype=np.uint8), f"video {i}") for i in range(2)]
    return model, processor, videos

def random_answers(model, prompts, n):
    "Random answers of different lengths, one of them a single token."
    rng = np.random.default_rng(1)
    lengths = [1 if i == j == 0 else None for i in range(len(prompts)) for j in range(n)]
    return [list(rng.integers(20, 400, length or rng.integers(1, 9))) for length in lengths]

def plain_logps(model, prompt, answer):
    "The model's own forward pass on one prompt and one answer."
    ids = torch.tensor([[*prompt.ids, *answer]])
    kinds = (ids == model.config.video_token_id).int()*2
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=kinds,
                   pixel_values_videos=prompt.video.pixels,
                   video_grid_thw=prompt.video.grid).logits[0].log_softmax(-1)
    return logits[len(prompt.ids)-1:-1][torch.arange(len(answer)), torch.tensor(answer)]

def gradient(model): return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

@pytest.mark.parametrize("n_videos, n_questions, n_answers, max_tokens",
                         [(1, 1, 1, None), (1, 1, 14, None), (1, 3, 4, None), (2, 3, 5, None), (2, 3, 5, 12)])
def test_log_probabilities_and_gradients_equal_plain(tiny, monkeypatch, n_videos, n_questions, n_answers, max_tokens):
    "Questions and answers of unequal length, one and several scenes; small blocks, of which a question needs several."
    model, processor, videos = tiny
    blocks = tree_attention.attention_blocks
    monkeypatch.setattr(tree_attention, "attention_blocks", lambda p: blocks(p, max_tokens))
    prompts = [make_prompt(processor, q, v) for v in videos[:n_videos] for q in QUESTIONS[:n_questions]]
    answers = random_answers(model, prompts, n_answers)
    rows = [p for p in prompts for _ in range(n_answers)]
    shuffle = np.random.default_rng(2).permutation(len(rows))
    rows, answers = [rows[i] for i in shuffle], [answers[i] for i in shuffle]
    weights = torch.randn(len(rows), generator=torch.Generator().manual_seed(0))
    model.zero_grad()
    logps, _ = tree_attention.completion_logps(model, pt.build_prefix_trees(rows, answers, model.config.video_token_id))
    (logps.sum(1)*weights).sum().backward()
    tree_grad = gradient(model)
    model.zero_grad()
    plain = [plain_logps(model, p, a) for p, a in zip(rows, answers)]
    sum(w*x.sum() for w, x in zip(weights, plain)).backward()
    plain_grad = gradient(model)
    for got, want in zip(logps, plain): torch.testing.assert_close(got[:len(want)], want, atol=1e-5, rtol=0)
    assert (tree_grad - plain_grad).norm()/plain_grad.norm() < 1e-4

def test_greedy_answers_equal_generate(tiny):
    model, processor, videos = tiny
    prompts = [make_prompt(processor, q, v) for v in videos for q in QUESTIONS]
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    ours = sampling.sample_answers(model, prompts, 2, 8, 0, (end,))
    for p, (first, second) in zip(prompts, ours):
        ids = torch.tensor([p.ids])
        whole = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids),
                               mm_token_type_ids=(ids == model.config.video_token_id).int()*2,
                               pixel_values_videos=p.video.pixels, video_grid_thw=p.video.grid, do_sample=False,
                               max_new_tokens=8, eos_token_id=end, pad_token_id=end)
        theirs = whole[0, len(p.ids):].tolist()
        assert first == second == theirs[:theirs.index(end) + 1 if end in theirs else None]

def forced_logps(monkeypatch, model, prompts, answers, end, n=1):
    "Log-probabilities that sampling computes, step by step, while it is made to give `answers` (n per prompt)."
    paths = [p.video.path for p in prompts]
    order = sorted(range(len(prompts)), key=lambda i: paths.index(paths[i]))      # of the branches: tree by tree
    forced, step, seen = [answer for i in order for answer in answers[i]], 0, {}
    def next_tokens(logits, *_):
        nonlocal step
        going = [k for k, answer in enumerate(forced) if len(answer) > step]
        token = torch.tensor([forced[k][step] for k in going])
        logp = logits.log_softmax(-1).gather(1, token[:, None])[:, 0]
        for k, value in zip(going, logp, strict=True): seen.setdefault(k, []).append(value)
        step += 1
        return token, logp
    monkeypatch.setattr(sampling, "_next_tokens", next_tokens)
    assert sampling.sample_answers(model, prompts, n, 20, end_ids=(end,)) == answers
    return {(order[k//n], k % n): torch.stack(values) for k, values in seen.items()}

def ended(model, prompts, n, end):
    "n random answers to each prompt, each with an end token."
    return [[[*map(int, a), end] for a in random_answers(model, [p]*(1 + i), n)[-n:]] for i, p in enumerate(prompts)]

def spoil_sampling(monkeypatch, part):
    "Plant an error: questions see the first one's tokens, positions one too far, branches exchanged, wrong beginnings."
    to_grid, own_prefix, keep = sampling._to_grid, sampling._own_prefix, sampling.TreeKVCache.keep
    def one_question(x, *a):
        labels = x.ndim == 1 and x.dtype == torch.long and x.max() < 4
        return to_grid(x, *a).clamp(max=1) if labels else to_grid(x, *a)
    def further(x, *a):
        positions = x.ndim == 1 and x.dtype == torch.long and 15 < x.min() and x.max() < 90
        return to_grid(x, *a) + positions
    def one_back(*a):
        places, real = own_prefix(*a)
        return places - 1*real, real
    if part == "mask": monkeypatch.setattr(sampling, "_to_grid", one_question)
    if part == "position": monkeypatch.setattr(sampling, "_to_grid", further)
    if part == "branch":
        monkeypatch.setattr(sampling.TreeKVCache, "keep", lambda self, trees, slots: keep(self, trees, slots.flip(1)))
    if part == "prefix": monkeypatch.setattr(sampling, "_own_prefix", one_back)

@pytest.mark.parametrize("spoil, n", [(None, 3), (None, 1), ("mask", 3), ("position", 3), ("branch", 3), ("prefix", 1)])
def test_each_step_of_sampling_equals_plain(tiny, monkeypatch, spoil, n):
    "Branches of unequal length, trees of unequal size, prompts out of order; and an error planted in each part shows."
    model, processor, videos = tiny
    of_videos = zip([*QUESTIONS, QUESTIONS[1]], [*videos, videos[0], videos[0]])
    prompts, end = [make_prompt(processor, q, v) for q, v in of_videos], 7
    answers = ended(model, prompts, n, end)
    spoil_sampling(monkeypatch, spoil)
    got = forced_logps(monkeypatch, model, prompts, answers, end, n)
    gaps = [(values - plain_logps(model, prompts[i], answers[i][j])).abs().max() for (i, j), values in got.items()]
    assert len(gaps) == n*len(prompts)
    gap = max(gaps)
    assert gap < 1e-5 if spoil is None else gap > 1e-3, gap

def test_decoding_in_bfloat16_scores_as_an_update_does(tiny, monkeypatch):
    "Sampling against the pass that scores its answers, both in bfloat16: as near as that pass is to the plain one."
    _, processor, videos = tiny
    half = load_model("tiny", device="cpu", dtype="bfloat16")
    prompts = [make_prompt(processor, q, videos[0]) for q in QUESTIONS]
    answers = ended(half, prompts, 3, 7)
    rows, flat = [p for p in prompts for _ in range(3)], [a for of_prompt in answers for a in of_prompt]
    trees = pt.build_prefix_trees(rows, flat, half.config.video_token_id)
    scored, _ = tree_attention.completion_logps(half, trees)
    seen = forced_logps(monkeypatch, half, prompts, answers, 7, 3)
    def gap(logps): return torch.cat([(x.float() - s[:len(x)].float()).abs() for x, s in zip(logps, scored)]).mean()
    sampled = [seen[i, j] for i in range(len(prompts)) for j in range(3)]
    assert gap(sampled) < 2*gap([plain_logps(half, p, a) for p, a in zip(rows, flat)])

def test_samples_do_not_depend_on_their_neighbours(tiny):
    "A seeded prompt has the same answers alone, beside other prompts, and with fewer samples."
    model, processor, videos = tiny
    prompts = [make_prompt(processor, q, v) for v in videos for q in QUESTIONS]
    together = sampling.sample_answers(model, prompts, 4, 8, 1., (7,), seeds=list(range(6)))
    assert len({tuple(a) for of_prompt in together for a in of_prompt}) > 12
    for i in (0, 4): assert sampling.sample_answers(model, [prompts[i]], 4, 8, 1., (7,), seeds=[i]) == [together[i]]
    short = sampling.sample_answers(model, prompts[:2], 2, [8, 3], 1., (7,), seeds=[0, 1])
    assert short == [together[0][:2], [a[:3] for a in together[1][:2]]]
    assert sampling.sample_answers(model, prompts[::-1], 4, 8, 1., (7,), seeds=list(range(6))[::-1]) == together[::-1]

@pytest.mark.parametrize("seeds", [None, [0]])
def test_samples_follow_the_distribution(tiny, seeds):
    "First tokens drawn 4,000 times against the model's own probabilities."
    model, processor, videos = tiny
    prompt = make_prompt(processor, QUESTIONS[2], videos[0])
    torch.manual_seed(0)
    drawn = sampling.sample_answers(model, [prompt], 4000, 1, 1.0, (), ban_ids=(5,), seeds=seeds)[0]
    assert 5 not in [d[0] for d in drawn]
    ids = torch.tensor([prompt.ids])
    p = model(input_ids=ids, mm_token_type_ids=(ids == model.config.video_token_id).int()*2,
              pixel_values_videos=prompt.video.pixels,
              video_grid_thw=prompt.video.grid).logits[0, -1].softmax(-1)
    seen = torch.bincount(torch.tensor([d[0] for d in drawn]), minlength=len(p))/4000
    assert (seen - p).abs().max() < 4*(p*(1-p)/4000).sqrt().max()

@pytest.mark.parametrize("spoil", ["mask", "position", "order"])
def test_an_error_planted_in_an_update_shows(tiny, monkeypatch, spoil):
    "Answers that see one another, questions one place too far on, blocks put back in the wrong order."
    model, processor, videos = tiny
    prompts = [make_prompt(processor, q, videos[0]) for q in QUESTIONS]
    answers, rows = random_answers(model, prompts, 3), [p for p in prompts for _ in range(3)]
    mask, pack, attention = pt.tree_mask, pt.pack_tree, tree_attention.TreeAttention
    def further(tree):
        packed = pack(tree)
        packed.offset[packed.question == 2] += 1
        return packed
    def turned(*a):
        out = attention(*a)
        out.order[-2:] = out.order[-2:].flip(0)
        return out
    if spoil == "mask": monkeypatch.setattr(tree_attention, "tree_mask", lambda q, a, first=0: mask(q, 0*a, first))
    if spoil == "position": monkeypatch.setattr(tree_attention, "pack_tree", further)
    if spoil == "order": monkeypatch.setattr(tree_attention, "TreeAttention", turned)
    logps, _ = tree_attention.completion_logps(model, pt.build_prefix_trees(rows, answers, model.config.video_token_id))
    assert max((got[:len(a)] - plain_logps(model, p, a)).abs().max() for got, p, a in zip(logps, rows, answers)) > 1e-3

def test_checkpointing_and_an_adapter_change_nothing(tiny):
    "What is computed again in the backward pass attends to the same tokens; only LoRA weights get a gradient."
    from peft import get_peft_model
    _, processor, videos = tiny
    prompts = [make_prompt(processor, q, v) for v in videos for q in QUESTIONS]
    torch.manual_seed(0)
    model = get_peft_model(load_model("tiny", device="cpu"), lora_config())
    for name, p in model.named_parameters():
        if "lora_B" in name: torch.nn.init.normal_(p, std=.05)
    answers, grads = random_answers(model, prompts, 3), []
    trees = pt.build_prefix_trees([p for p in prompts for _ in range(3)], answers,
                                  models.unwrap_model(model).config.video_token_id)
    for again in (False, True):
        if again: model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.train().zero_grad()
        calls, layer = [], models.unwrap_model(model).model.language_model.layers[0].self_attn
        hook = layer.register_forward_pre_hook(lambda *a: calls.append(1))
        tree_attention.completion_logps(model, trees)[0].sum().backward()
        hook.remove()
        grads.append(gradient(model))
        assert len(calls) == 1 + again
    assert grads[0].norm() > 1 and (grads[0] - grads[1]).norm()/grads[0].norm() < 1e-5

def test_bfloat16_stays_near(tiny):
    "As near to float32 as the plain model in bfloat16 is."
    model, processor, videos = tiny
    half = load_model("tiny", device="cpu", dtype="bfloat16")
    prompts = [make_prompt(processor, q, videos[0]) for q in QUESTIONS]
    answers = random_answers(model, prompts, 1)
    trees = pt.build_prefix_trees(prompts, answers, model.config.video_token_id)
    ours, exact = (tree_attention.completion_logps(m, trees)[0] for m in (half, model))
    plain = [plain_logps(half, p, a) for p, a in zip(prompts, answers)]
    def gap(logps):
        errors = [(x[:len(a)].float() - y[:len(a)]).abs() for x, y, a in zip(logps, exact, answers)]
        return torch.cat(errors).mean()
    assert 0 < gap(ours) < 1.5*gap(plain)
    with torch.autocast("cpu", torch.bfloat16): mixed = tree_attention.completion_logps(model, trees)[0]
    assert 0 < gap(mixed) < 1.5*gap(plain)

def test_guard_passes_an_honest_pass(tiny):
    model, processor, videos = tiny
    guard = vision_guard.VisionGuard(model)
    prompts = [make_prompt(processor, QUESTIONS[0], v) for v in videos]
    sampling.sample_answers(model, prompts, 2, 2, guard=guard)
    tree_attention.completion_logps(model, pt.build_prefix_trees(prompts, [[30], [31]], model.config.video_token_id),
                                    guard=guard)
    assert (guard.calls, guard.tokens) == (2, 4*videos[0].tokens)
    guard.close()

def broken(what, videos):
    "Model inputs with one thing wrong."
    def spoil(batch):
        if what == "dropped":
            for name in ("pixel_values_videos", "video_grid_thw"): batch.inputs.pop(name)
        if what == "blanked":
            batch.inputs["pixel_values_videos"] = torch.zeros_like(batch.inputs["pixel_values_videos"])
        if what == "swapped": batch.inputs["pixel_values_videos"] = torch.cat([videos[1].pixels, videos[0].pixels])
        if what == "half": batch.inputs["pixel_values_videos"] = torch.cat([videos[0].pixels]*2)
        return batch
    return spoil

@pytest.mark.parametrize("what", ["dropped", "blanked", "swapped", "half"])
def test_guard_catches_a_broken_update(tiny, monkeypatch, what):
    model, processor, videos = tiny
    guard, honest = vision_guard.VisionGuard(model), tree_attention.batch_trees
    trees = pt.build_prefix_trees([make_prompt(processor, QUESTIONS[0], v) for v in videos], [[30], [31]],
                                  model.config.video_token_id)
    for module in (tree_attention, sampling):
        monkeypatch.setattr(module, "batch_trees", lambda *a: broken(what, videos)(honest(*a)))
    with pytest.raises(vision_guard.BlindError, match="policy"):
        tree_attention.completion_logps(model, trees, guard=guard)
    guard.close()

@pytest.mark.parametrize("what", ["dropped", "blanked", "swapped", "half"])
def test_guard_catches_a_broken_rollout(tiny, monkeypatch, what):
    model, processor, videos = tiny
    guard, honest = vision_guard.VisionGuard(model), tree_attention.batch_trees
    for module in (tree_attention, sampling):
        monkeypatch.setattr(module, "batch_trees", lambda *a: broken(what, videos)(honest(*a)))
    with pytest.raises(vision_guard.BlindError, match="rollout"):
        sampling.sample_answers(model, [make_prompt(processor, QUESTIONS[0], v) for v in videos], 2, 2, guard=guard)
    guard.close()

def test_guard_catches_features_lost_on_the_way(tiny, monkeypatch):
    "The tower gets the right patches, but its features never reach the language model."
    model, processor, videos = tiny
    guard = vision_guard.VisionGuard(model)
    prompt = make_prompt(processor, QUESTIONS[0], videos[0])
    trees = pt.build_prefix_trees([prompt], [[30]], model.config.video_token_id)
    def forgetful(input_ids, inputs_embeds, **kw):
        nowhere = torch.zeros(*input_ids.shape, 1, dtype=torch.bool)
        return nowhere, nowhere
    monkeypatch.setattr(model.model, "get_placeholder_mask", forgetful)
    with pytest.raises(vision_guard.BlindError, match="0 of 32 vision tokens"):
        tree_attention.completion_logps(model, trees, guard=guard)
    guard.close()

def test_a_prompt_without_its_video_is_refused(tiny):
    model, processor, videos = tiny
    bare = dataclasses.replace(make_prompt(processor, QUESTIONS[0], videos[0]), ids=(1, 2, 3))
    with pytest.raises(ValueError, match="no video token"):
        pt.build_prefix_trees([bare], [[4]], model.config.video_token_id)

@pytest.fixture
def frozen(tiny):
    tiny[0].model.visual.requires_grad_(False)
    yield tiny
    tiny[0].model.visual.requires_grad_(True)

def test_features_of_a_tower_in_training_are_refused(tiny):
    model, processor, videos = tiny
    prompt = make_prompt(processor, QUESTIONS[0], videos[0])
    trees = pt.build_prefix_trees([prompt], [[30]], model.config.video_token_id)
    guard = vision_guard.VisionGuard(model, vision_guard.VisionFeatureCache(model))
    with pytest.raises(ValueError, match="tower is being trained"):
        tree_attention.completion_logps(model, trees, guard=guard)
    guard.close()

def test_a_video_is_looked_at_once(frozen, tmp_path):
    "Rollout, update and a second guard of the same tower, from memory and from disk: the results stay the same."
    model, processor, videos = frozen
    prompts = [make_prompt(processor, q, v) for v in videos for q in QUESTIONS]
    trees = pt.build_prefix_trees(prompts, [[30, 31]]*6, model.config.video_token_id)
    plain = tree_attention.completion_logps(model, trees)[0]
    for known, looks in ((vision_guard.VisionFeatureCache(model, tmp_path), 2),
                         (vision_guard.VisionFeatureCache(model, tmp_path), 0),
                         (vision_guard.VisionFeatureCache(model), 2)):
        guard = vision_guard.VisionGuard(model, known)
        sampling.sample_answers(model, prompts, 2, 2, guard=guard)
        for _ in range(2):
            logps = tree_attention.completion_logps(model, trees, guard=guard)[0]
            torch.testing.assert_close(logps, plain, atol=1e-5, rtol=0)
        assert (guard.looks, guard.calls) == (looks, 3)
        guard.close()
    assert "forward" not in vars(model.model.visual)

@pytest.mark.parametrize("what", ["other features", "torn", "another video's", "no sum"])
def test_a_stale_entry_is_reported_and_made_anew(frozen, tmp_path, what):
    from safetensors import safe_open
    from safetensors.torch import save_file
    model, processor, videos = frozen
    guard = vision_guard.VisionGuard(model, vision_guard.VisionFeatureCache(model, tmp_path))
    trees = pt.build_prefix_trees([make_prompt(processor, QUESTIONS[0], v) for v in videos], [[30], [31]],
                                  model.config.video_token_id)
    honest = tree_attention.completion_logps(model, trees, guard=guard)[0]
    guard.close()
    first, second = (vision_guard.VisionFeatureCache(model, tmp_path)._entry(v) for v in videos)
    with safe_open(first, "pt") as f: label, x = f.metadata(), f.get_tensor("x")
    if what == "other features": save_file({"x": x + 1}, first, label)
    if what == "torn": first.write_bytes(first.read_bytes()[:-8])
    if what == "another video's": shutil.copy(second, first)
    if what == "no sum": save_file({"x": x}, first)
    guard = vision_guard.VisionGuard(model, known := vision_guard.VisionFeatureCache(model, tmp_path))
    with pytest.warns(UserWarning, match="broken cache entry"):
        again = tree_attention.completion_logps(model, trees, guard=guard)[0]
    torch.testing.assert_close(again, honest, atol=1e-5, rtol=0)
    assert (guard.looks, known.broken) == (1, 1)
    guard.close()

@pytest.mark.parametrize("temperature", [1., .7])
def test_the_log_probabilities_kept_while_sampling_are_those_of_an_update(tiny, temperature):
    model, processor, videos = tiny
    prompts = [make_prompt(processor, q, v) for v in videos for q in QUESTIONS]
    banned, seeds = tuple(range(20, 60)), list(range(len(prompts)))
    settings = dict(n=3, max_new_tokens=9, temperature=temperature, end_ids=(7,), ban_ids=banned, seeds=seeds)
    answers, logps = sampling.sample_answers(model, prompts, **settings, logps=True)
    assert answers == sampling.sample_answers(model, prompts, **settings)
    rows, flat = [p for p in prompts for _ in range(3)], [a for of_prompt in answers for a in of_prompt]
    trees = pt.build_prefix_trees(rows, flat, model.config.video_token_id)
    scored = tree_attention.completion_logps(model, trees, temperature)[0]
    while_sampling = [torch.tensor(x) for of_prompt in logps for x in of_prompt]
    for got, want, answer in zip(while_sampling, scored, flat, strict=True):
        torch.testing.assert_close(got, want[:len(answer)], atol=1e-5, rtol=0)

def test_films_of_equal_bytes_and_other_shapes_are_two_films(frozen, tmp_path):
    "Frames (4, 84, 112, 3) and the same bytes as (4, 112, 84, 3); and the same frames under other pixel statistics."
    model, processor, _ = frozen
    reader = VideoReader(processor, VideoSpec(4, 84*112, 84*112, 14))
    frames = np.random.default_rng(0).integers(0, 255, (4, 84, 112, 3), dtype=np.uint8)
    one, other = reader.prepare(frames, "a.mp4"), reader.prepare(frames.reshape(4, 112, 84, 3), "b.mp4")
    known = vision_guard.VisionFeatureCache(model, tmp_path)
    known.put(one, torch.zeros(one.tokens, 8))
    assert one.digest != other.digest and known.get(other) is None and known.get(one) is not None
    brighter = load_processor("tiny")
    brighter.video_processor.image_mean = [.1, .1, .1]
    assert VideoReader(brighter, reader.spec).prepare(frames, "a.mp4").digest != one.digest

def test_another_tower_has_other_entries_and_the_oldest_go_first(tiny, tmp_path):
    model, processor, videos = tiny
    known = vision_guard.VisionFeatureCache(model, tmp_path)
    for v in videos: known.put(v, torch.zeros(v.tokens, 128))
    os.utime(known._entry(videos[1]), (0, 0))
    bias = model.model.visual.patch_embed.proj.weight
    with torch.no_grad(): bias += 1
    other = vision_guard.VisionFeatureCache(model, tmp_path, disk_mb=0)
    with torch.no_grad(): bias -= 1
    assert other.get(videos[0]) is None and other.tower != known.tower
    other.disk = known.used*.9
    other.put(dataclasses.replace(videos[0], digest="new"), torch.zeros(2, 128))
    assert not known._entry(videos[1]).exists() and known._entry(videos[0]).exists()

def test_blanked_patches_are_refused_though_the_video_is_known(frozen, monkeypatch):
    model, processor, videos = frozen
    guard, honest = vision_guard.VisionGuard(model, vision_guard.VisionFeatureCache(model)), tree_attention.batch_trees
    trees = pt.build_prefix_trees([make_prompt(processor, QUESTIONS[0], v) for v in videos], [[30], [31]],
                                  model.config.video_token_id)
    tree_attention.completion_logps(model, trees, guard=guard)
    for what in ("dropped", "blanked", "swapped", "half"):
        for module in (tree_attention, sampling):
            monkeypatch.setattr(module, "batch_trees", lambda *a: broken(what, videos)(honest(*a)))
        with pytest.raises(vision_guard.BlindError, match="policy"):
            tree_attention.completion_logps(model, trees, guard=guard)
    guard.close()
