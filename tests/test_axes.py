"Held-out sets by axis: rooms of their own, sentences with the right answers, opened by `evaluate`."
import numpy as np
import pytest

import vsgrpo
from vsgrpo.data import axes
from vsgrpo.data.axes import AXES, axis_seeds, build_axis, in_other_words, opposite
from vsgrpo.data.dataset import FIRST_SEED
from vsgrpo.data.geometry import direction_angle, direction_word
from vsgrpo.data.questions import HELD_OUT, make_questions, names_in
from vsgrpo.data.rooms import make_room
from vsgrpo.evaluation.bench_folder import open_bench
from vsgrpo.evaluation.vsibench import LETTERS, score_answer
from vsgrpo.teaching.lessons import FIRST_ROOM, facts_of_room

ROOMS = [facts_of_room(make_room(seed, "overview")) for seed in axis_seeds("opposite", 12)]


def answer_of(q): return q.options[LETTERS.index(q.ground_truth)][3:] if q.options else q.ground_truth


def test_axes_have_rooms_of_their_own():
    first, last = axis_seeds("categories", 2)[0], axis_seeds(list(AXES)[-1], axes.AXIS_ROOMS)[-1]
    assert max(FIRST_SEED.values()) + 900_000 < first and last < FIRST_ROOM


@pytest.mark.parametrize("facts", ROOMS, ids=lambda facts: facts.name)
def test_the_opposite_is_true(facts):
    things = {o.category: o for o in facts.objects}
    for q in make_questions(facts, "vsibench", per_type=3):
        turned = opposite(q)
        if turned is None: continue
        names, answer = names_in(q), answer_of(turned)
        assert turned.question != q.question and (turned.id, turned.options) == (q.id, q.options)
        if q.task == "object_size_estimation":
            assert abs(float(answer) - 100*min(things[names[0]].box.lengths)) <= .51
        elif q.task == "object_rel_distance":
            target = facts.named[names[-1]]
            gaps = {name: facts.closest[np.ix_(target, facts.named[name])].min() for name in names[:-1]}
            assert answer == max(gaps, key=gaps.get)
        else:
            stand, facing, query = (things[name].centroid for name in names)
            angle = direction_angle(stand, 2*stand - facing, query)  # facing away
            assert answer == direction_word(angle, q.question_type.rsplit("_", 1)[1])
        assert score_answer(turned, turned.ground_truth) == 1


def test_other_words_keep_the_answer():
    questions = [q for facts in ROOMS for q in make_questions(facts, "vsibench")]
    changed = [(q, in_other_words(q)) for q in questions if q.question_type not in HELD_OUT]
    for q, new in changed:
        assert new.question != q.question and (new.ground_truth, new.options) == (q.ground_truth, q.options)
        assert all(name in new.question for name in names_in(q))
    assert not any(in_other_words(q) or opposite(q) for q in questions if q.question_type in HELD_OUT)


def test_a_set_is_built_once_and_evaluated(tmp_path, capsys):
    folders = {name: build_axis(tmp_path/name, name, 2, workers=1) for name in ("camera", "untrained", "categories")}
    types = {name: {q.question_type for q in open_bench(folder).questions} for name, folder in folders.items()}
    assert types["untrained"] <= set(HELD_OUT) and not types["camera"] & set(HELD_OUT)
    before = {p: p.stat().st_mtime_ns for p in folders["camera"].rglob("*")}
    build_axis(folders["camera"], "camera", 2)
    assert {p: p.stat().st_mtime_ns for p in folders["camera"].rglob("*")} == before
    with pytest.raises(ValueError, match="axis was camera, is large"): build_axis(folders["camera"], "large", 2)
    result = vsgrpo.evaluate(str(folders["categories"]), out=tmp_path/"answers")
    assert "counting" in str(result)
