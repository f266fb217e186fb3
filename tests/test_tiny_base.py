"The base that ships with the library: what its note says of it holds."
import json

import numpy as np
import pytest

from vsgrpo.models import TINY, VideoReader, load_model, load_processor
from vsgrpo.rooms import generator_digest
from vsgrpo.tiny_base import KINDS, SURFACES, grounding, make_lesson, quiz, words_of
from vsgrpo.video import VideoSpec

SPEC = VideoSpec(frames=4, min_pixels=84*84, max_pixels=84*84, factor=14)

@pytest.fixture(scope="module")
def note(): return json.loads((TINY/"base.json").read_text())

@pytest.fixture(scope="module")
def lessons(): return [make_lesson(19_000_000 + i, "overview", 84, 4) for i in range(40)]

def test_it_is_small_plain_and_of_this_generator(note):
    files = sorted(TINY.iterdir())
    assert sum(f.stat().st_size for f in files) < 10*2**20
    assert not [f for f in files if f.suffix in (".bin", ".pt", ".py", ".pkl")]
    assert note["generator"] == generator_digest(note["preset"]), "the rooms have changed since the base was taught: make base"
    assert set(note["right"]["own film"]) == set(KINDS)

def test_it_sees(note, lessons):
    model, processor = load_model("tiny", device="cpu"), load_processor("tiny")
    reader = VideoReader(processor, SPEC)
    own, other = quiz(model, processor, reader, lessons), quiz(model, processor, reader, lessons, 7)
    for kind, least in dict(presence=25, number=25).items():
        assert own[kind] - other[kind] > least, (kind, own, other)
        assert abs(own[kind] - note["right"]["own film"][kind]) < 15, (kind, own, note["right"])

def test_words_of_a_room_are_its_presets():
    assert "piano" in words_of("overview") and "coffee table" in words_of("walkthrough") and "coffee table" not in words_of("overview")

def test_guessing_does_not_pay(lessons):
    "Of each kind with few possible answers, none is much more frequent than the others."
    rng = np.random.default_rng(0)
    said = {k: [pair[1] for x in lessons for _ in range(30) if (pair := grounding(x, k, rng))] for k in ("presence", "number", "where")}
    most = {k: max(v.count(a) for a in set(v))/len(v) for k, v in said.items()}
    assert most["presence"] < .55 and most["number"] < .45 and most["where"] < .45, most

@pytest.mark.parametrize("kind", ["longer", "left", "up"])
def test_the_answer_is_one_of_the_two(kind, lessons):
    asked = [pair for x in lessons for s in range(20) if (pair := grounding(x, kind, np.random.default_rng(s)))]
    assert len(asked) > 50
    for question, answer in asked:
        a, b = question.split(", the ")[1][:-1].split(" or the ")
        assert answer in (a, b) and a != b

def test_cover_counts_every_pixel(lessons):
    names = [*words_of("overview"), *SURFACES]
    for x in lessons:
        assert x.cover.shape == (72, len(names)) and np.allclose(x.cover.sum(1, dtype=float), 1, atol=.01)
        shown = {n for n, c in zip(names, x.cover.max(0)) if c > 0} - set(SURFACES)
        assert shown <= set(x.facts.counts)
