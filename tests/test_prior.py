"The dial `prior` says how far text alone gives the answers: a short form of bench/prior.py."
import importlib.util

import pytest

from vsgrpo.data.questions import make_questions
from vsgrpo.data.rooms import make_room
from vsgrpo.evaluation.vsibench import DIRECTION_TYPES, LETTERS, NA_TYPES
from vsgrpo.teaching.lessons import facts_of_room


@pytest.fixture(scope="module")
def bench(root):
    spec = importlib.util.spec_from_file_location("bench_prior", root/"bench"/"prior.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_text_alone_answers_at_one_and_not_at_zero(bench):
    uniform, fixed = (bench.measure(prior, rooms=20, train_rooms=40) for prior in (0, 1))
    assert uniform["gap_low"]["overall"] < 0 and uniform["gap"]["overall"] < 5
    assert fixed["gap_low"]["overall"] > 20 and fixed["score"]["room_size_estimation"] == 100
    assert bench.rank_correlations([uniform, fixed])["overall"] == 1


def test_at_one_a_question_has_one_answer():
    "Counts, sizes, distances and directions; the options of the other types vary with their order."
    answers = {}
    for seed in range(60):
        facts = facts_of_room(make_room(seed, "overview prior:deterministic"))
        for q in make_questions(facts, "vsibench", types=[*NA_TYPES, *DIRECTION_TYPES], per_type=6):
            answer = q.options[LETTERS.index(q.ground_truth)][3:] if q.options else q.ground_truth
            answers.setdefault((q.question_type, q.question), set()).add(answer)
    assert len(answers) > 150 and max(map(len, answers.values())) == 1
