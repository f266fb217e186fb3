"The base that ships with the library: the claims in its note are true."
import json
from collections import Counter

import numpy as np
import pytest

from vsgrpo.data.geometry import Box
from vsgrpo.engine.models import TINY, VideoReader, load_model, load_processor
from vsgrpo.engine.tree_attention import batch_trees
from vsgrpo.engine.prefix_tree import pack_tree, tree_mask
from vsgrpo.data.scene_facts import SceneFacts, Thing
from vsgrpo.data.room_rendering import FLOOR, generator_digest
from vsgrpo.teaching.lessons import (KINDS, SURFACES, Lesson, _cover, _spots, grounding, lesson_prompts, make_lesson,
                                     words_of)
from vsgrpo.teaching.tiny_base import AttentionLoss, answer_loss, grounding_eval, lesson_trees
from vsgrpo.engine.video import VideoSpec
from vsgrpo.evaluation.vsibench import TASKS

SPEC = VideoSpec(frames=4, min_pixels=84*84, max_pixels=84*84, factor=14)

@pytest.fixture(scope="module")
def note(): return json.loads((TINY/"base.json").read_text())

@pytest.fixture(scope="module")
def lessons(): return [make_lesson(9_500_000 + i, "overview", 84, 4) for i in range(40)]

def test_it_is_small_plain_and_of_this_generator(note):
    files = sorted(TINY.iterdir())
    assert sum(f.stat().st_size for f in files) < 10*2**20
    assert not [f for f in files if f.suffix in (".bin", ".pt", ".py", ".pkl")]
    now = generator_digest(note["preset"])
    assert note["generator"] == now, "the rooms have changed since the base was taught: make base"
    assert set(note["right"]["own film"]) == set(KINDS)

def test_it_sees(note, lessons):
    model, processor = load_model("tiny", device="cpu"), load_processor("tiny")
    reader = VideoReader(processor, SPEC)
    own, other = grounding_eval(model, processor, reader, lessons), grounding_eval(model, processor, reader, lessons, 7)
    for kind, least in dict(presence=25, number=25).items():
        assert own[kind] - other[kind] > least, (kind, own, other)
        assert abs(own[kind] - note["right"]["own film"][kind]) < 15, (kind, own, note["right"])

def test_words_of_a_room_are_its_presets():
    overview, walkthrough = words_of("overview"), words_of("walkthrough")
    assert "piano" in overview and "coffee table" in walkthrough and "coffee table" not in overview

def test_guessing_does_not_pay(lessons):
    "Of each kind with few possible answers, none is much more frequent than the others."
    rng = np.random.default_rng(0)
    most = {}
    for kind in ("presence", "number", "where"):
        answers = [pair[1] for x in lessons for _ in range(30) if (pair := grounding(x, kind, rng))]
        most[kind] = Counter(answers).most_common(1)[0][1]/len(answers)
    assert most["presence"] < .55 and most["number"] < .45 and most["where"] < .45, most

@pytest.mark.parametrize("kind", ["longer", "left", "up"])
def test_the_answer_is_one_of_the_two(kind, lessons):
    pairs = [pair for x in lessons for s in range(20) if (pair := grounding(x, kind, np.random.default_rng(s)))]
    assert len(pairs) > 50
    for question, answer in pairs:
        a, b = question.split(", the ")[1][:-1].split(" or the ")
        assert answer in (a, b) and a != b

def test_cover_counts_every_pixel(lessons):
    names = [*words_of("overview"), *SURFACES]
    for x in lessons:
        assert x.cover.shape == (72, len(names)) and np.allclose(x.cover.sum(1, dtype=float), 1, atol=.01)
        shown = {n for n, c in zip(names, x.cover.max(0)) if c > 0} - set(SURFACES)
        assert shown <= set(x.facts.counts)

def hand_made():
    "Four frames of 84 pixels, six tokens a side: a bed fills the top left token, two boxes stand at the right."
    things = [Thing(0, "bed", None), Thing(1, "box", None), Thing(2, "box", None)]
    facts = SceneFacts("hand", "generated", things, {"bed": 1, "box": 2}, 9., None)
    ids = np.full((4, 84, 84), FLOOR)
    ids[:, :14, :14], ids[2:, 42:49, 70:77], ids[2:, 60:67, 70:84] = 0, 1, 2
    return facts, ids

def test_cover_and_spots_by_hand():
    facts, ids = hand_made()
    names = [*words_of("overview"), *SURFACES]
    cover = _cover(ids, facts, words_of("overview"), 84).astype(float).reshape(2, 6, 6, len(names))
    bed, box, floor = names.index("bed"), names.index("box"), names.index("floor")
    assert cover[0, 0, 0, bed] == cover[1, 0, 0, bed] == 1 and cover[..., bed].sum() == 2
    assert cover[0, ..., box].sum() == 0 and cover[1, 3, 5, box] == .25       # not in the first half of the film
    assert np.isclose(cover[1, 4, 5, box], .5, atol=1e-3) and np.isclose(cover[1, ..., box].sum(), .75, atol=1e-3)
    assert np.isclose(cover[0, ..., floor].sum(), 35)
    spots = _spots(ids[-1], facts)
    assert np.allclose(spots[0], (7/84, 7/84, np.hypot(14, 14)/84)) and np.allclose(spots[1][:2], (45.5/84, 73.5/84))

def test_left_up_and_where_by_hand():
    things = [Thing(k, category, Box(np.zeros(3), np.eye(3), np.array([length, 1, 1])))
              for k, (category, length) in enumerate((("bed", 2.), ("sofa", 1.9)))]
    facts = SceneFacts("hand", "generated", things, {"bed": 1, "sofa": 1}, 9., None)
    x = Lesson("hand", "overview", frames=np.zeros((4, 84, 84, 3), np.uint8), facts=facts,
               spots={0: (.2, .8, .1), 1: (.7, .3, .25)}, cover=np.zeros((72, 15), np.float16), forms=[])
    def pairs(kind):
        drawn = (grounding(x, kind, np.random.default_rng(s)) for s in range(40))
        return {pair for pair in drawn if pair}
    assert {a for _, a in pairs("left")} == {"sofa"} and {a for _, a in pairs("up")} == {"bed"}
    assert pairs("where") == {("Where is the bed?", "top right"), ("Where is the sofa?", "bottom left")}
    assert pairs("span") == {("How large does the bed look?", "10"), ("How large does the sofa look?", "25")}
    assert pairs("list") == {("List of things:", "bed, sofa")}

def test_every_task_lends_its_form_and_no_truth(lessons):
    assert {q.task for x in lessons for q in x.forms} == set(TASKS)
    with pytest.raises(ValueError, match="wanted a pool"): lesson_prompts(lessons[0], np.random.default_rng(0), 1, 1)

def head_weights(model, tree):
    "What the first head of the first layer looks at, (tokens, tokens), with its packed token ids."
    import torch
    packed, inputs = pack_tree(tree), batch_trees(model, [tree]).inputs
    mask = torch.from_numpy(tree_mask(packed.question, packed.answer))
    inputs["attention_mask"] = torch.zeros(1, 1, *mask.shape).masked_fill(~mask, -1e9)
    model.config._attn_implementation = model.config.text_config._attn_implementation = "eager"
    with torch.no_grad(): out = model.model(**inputs, output_attentions=True, use_cache=False)
    return out.attentions[0][0, 0].numpy(), packed.ids.tolist()

def test_attention_loss_is_the_layers_own(lessons):
    "What it compares with the cover is what the first head of the first layer looks at."
    lessons, rng = lessons[:3], np.random.default_rng(0)
    model, processor = load_model("tiny", device="cpu"), load_processor("tiny")
    attention = AttentionLoss(model, processor.tokenizer, "overview")
    trees = lesson_trees(lessons, [lesson_prompts(x, rng, 10) for x in lessons], processor,
                         VideoReader(processor, SPEC), model.config.video_token_id)
    answer_loss(model, trees)
    loss, means = attention.loss(trees, lessons).item(), []
    for tree, lesson in zip(trees, lessons):
        weights, ids = head_weights(model, tree)
        n, entropies = len(tree.trunk), []
        for place, token in enumerate(ids):
            if place < n or token not in attention.name_of: continue
            cover = lesson.cover[:, attention.name_of[token]].astype(float)
            looks = weights[place, n-72:n]
            if cover.max() > .02: entropies.append(-(cover/cover.sum()*np.log(looks/looks.sum())).sum())
        means.append(np.mean(entropies))
    assert abs(loss - np.mean(means)) < 1e-4
