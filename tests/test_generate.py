"Generated answers: one for each question, about the right video, and counts of how varied they are."
from dataclasses import replace

import pandas as pd
import pytest

from vsgrpo.evaluation import generate
from vsgrpo.evaluation.generate import (ANSWER_FIELDS, SPREAD, answer_report, answer_spread, answer_warnings,
                                        arm_scores, generate_answers, other_videos, spread_table)
from vsgrpo.training.settings import default_settings
from vsgrpo.engine.models import VideoReader, load_model, load_processor
from vsgrpo.evaluation.records import Run
from vsgrpo.data.dataset import open_dataset
from vsgrpo.evaluation.scores import paired_difference
from vsgrpo.evaluation.vsibench import Question

@pytest.fixture(scope="module")
def data(built_rooms): return open_dataset(built_rooms(1, 1, 3))

@pytest.fixture(scope="module")
def tiny(): return load_model("tiny", device="cpu"), load_processor("tiny")

def test_batches_do_not_change_answers(data, tiny):
    model, processor = tiny
    reader = VideoReader(processor, default_settings("smoke", "tiny").video)
    options = dict(reader=reader, folder=data.folder, modes="vanilla", wording="train", max_new_tokens=8)
    one, many = (generate_answers(model, processor, data.test, batch=batch, **options) for batch in (1, 32))
    assert one.id.tolist() == [q.id for q in data.test]
    assert one.prediction.tolist() == many.prediction.tolist() and one.n_tokens.tolist() == many.n_tokens.tolist()

def test_modes_in_one_call_answer_as_in_several(data, tiny):
    "All prompts share one pass over a video; each mode keeps its own token limit."
    model, processor = tiny
    reader, modes = VideoReader(processor, default_settings("smoke", "tiny").video), ["vanilla", "think", "observe"]
    options = dict(reader=reader, folder=data.folder, wording="test")
    together = generate_answers(model, processor, data.test, modes=modes, batch=1000, **options)
    assert together["mode"].tolist() == [m for m in modes for _ in data.test]
    for mode in modes:
        apart = generate_answers(model, processor, data.test, modes=mode, **options)
        same_mode = together[together["mode"] == mode].reset_index(drop=True)
        assert same_mode.drop(columns="seconds").equals(apart.drop(columns="seconds"))

def test_a_store_is_filled_once(data, tiny, tmp_path, monkeypatch):
    "A run that is stopped anywhere, even within a line, resumes to the same lines and generates no answer twice."
    model, processor = tiny
    reader = VideoReader(processor, default_settings("smoke", "tiny").video)
    options = dict(reader=reader, folder=data.folder, wording="test", modes=["vanilla", "think"], batch=1,
                   max_new_tokens=6, samples=3, temperature=1.)
    whole = generate_answers(model, processor, data.test, store=Run(tmp_path/"whole"), **options)
    lines = (tmp_path/"whole/answers.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == len(whole) == 2*3*len(data.test) and list(whole) == ANSWER_FIELDS
    n_prompts, sample_answers = [], generate.sample_answers
    def counted(model, prompts, *args, **kwargs):
        n_prompts.append(len(prompts))
        return sample_answers(model, prompts, *args, **kwargs)
    monkeypatch.setattr(generate, "sample_answers", counted)
    for cut in (0, 1, 7, 3*len(data.test), len(lines)):
        store = Run(tmp_path/f"cut{cut}")
        store.answers_path.write_text("".join(lines[:cut]) + (lines[cut][:30] if cut % 2 else ""))
        n_prompts.clear()
        again = generate_answers(model, processor, data.test, store=store, **options)
        pd.testing.assert_frame_equal(again.drop(columns="seconds"), whole.drop(columns="seconds"))
        pd.testing.assert_frame_equal(store.read_answers().drop(columns="seconds"),
                                      Run(tmp_path/"whole").read_answers().drop(columns="seconds"))
        assert sum(n_prompts) == 2*len(data.test) - cut//3

@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_a_resumed_store_keeps_the_order(batch):
    "Wherever a run with two modes and three videos stops, the rest comes in the order of an undisturbed run."
    videos = ["a", "b", "a", "c", "b"]*2
    whole = [i for idxs in generate._batches(videos, batch, {}) for i in idxs]
    assert sorted(whole) == list(range(10))
    for stop in range(11):
        left = [i for idxs in generate._batches(videos, batch, set(whole[:stop])) for i in idxs]
        assert left == whole[stop:]

def test_shuffled_shows_other_videos(data, tiny):
    model, processor = tiny
    reader = VideoReader(processor, default_settings("smoke", "tiny").video)
    shown = generate_answers(model, processor, data.test[:3], reader, data.folder, max_new_tokens=4,
                             videos=other_videos(data.test))
    assert all(q.scene_name not in v for q, v in zip(data.test, shown.video))

def test_a_missing_video_is_named_before_any_answer(data, tiny):
    model, processor = tiny
    lost = replace(data.test[0], scene_name="room_lost")
    with pytest.raises(FileNotFoundError, match="1 videos are missing, the first .*room_lost.mp4"):
        generate_answers(model, processor, [lost], None, data.folder)

def test_arms_and_pairs(data):
    right, wrong = {q.id: q.ground_truth for q in data.test}, {q.id: "" for q in data.test}
    scores = arm_scores({"right": right, "wrong": wrong}, data.test)
    assert set(scores[scores.arm == "right"].score) == {100.0} and set(scores[scores.arm == "wrong"].score) == {0.0}
    gain = paired_difference(data.test, right, wrong)
    assert (gain[["difference", "ci_low", "ci_high"]] == 100).all(axis=None)

# ---- how varied the answers are

def made_questions():
    "30 scenes with 30 different sizes; 20 of them also have two choice questions and one answered in words."
    def question(i, question_type, truth, options=None):
        return Question(f"{question_type}-{i}", "d", f"s{i}", question_type, "?", truth, options)
    options = ["A. left", "B. right", "C. back"]
    return [
        *(question(i, "room_size_estimation", f"{10 + i}.50") for i in range(30)),
        *(question(i, "object_rel_direction_easy", "ABC"[i % 3], options) for i in range(20)),
        *(question(i, "object_rel_direction_hard", "ABC"[i % 3], options) for i in range(20)),
        *(question(i, "route_planning", "turn left" if i % 2 else "Turn right") for i in range(20))]

def answers_to(questions, size="30.0", letter="A", word="Turn Left."):
    return {q.id: size if not q.is_mca else letter if q.options else word for q in questions}

def test_answers_are_counted_as_the_parser_reads_them():
    questions = made_questions()
    sizes = {"room_size_estimation-0": "30 m", "room_size_estimation-1": "large", "room_size_estimation-2": "huge"}
    letters = {"object_rel_direction_easy-0": "B. right", "object_rel_direction_hard-0": "Z"}
    answers = answers_to(questions) | sizes | letters
    table = answer_spread(questions, answers).set_index("question_type")
    assert table.index.tolist() == ["room_size_estimation", "object_rel_direction", "route_planning", "overall"]
    size, turn, route, overall = (table.loc[t] for t in table.index)
    # two texts without a number are one answer
    assert (size.top_answer, size.top_share, size.distinct) == ("30", 28/30, 2)
    assert (size.truth_top_share, size.truth_distinct) == (1/30, 30)
    assert (turn.counted, turn.top_answer, turn.top_share, turn.distinct) == (40, "A", 38/40, 3)
    assert (turn.truth_top_share, turn.truth_distinct) == (14/40, 3)
    assert (route.top_answer, route.top_share, route.distinct, route.truth_top_share) == ("turn left", 1, 1, .5)
    assert (overall.counted, overall.top_answer, overall.top_share) == (40, "A", 38/40)  # questions with options
    assert answer_spread(questions, answers_to(questions, "no", "", ""))["top_answer"].tolist() == ["(unreadable)"]*4
    tagged = answer_spread(questions, answers_to(questions, "5 is <answer>7</answer>"), "tagged")
    assert tagged.set_index("question_type").top_answer["room_size_estimation"] == "7"

def test_an_overall_count_needs_questions_with_options():
    numbers = [q for q in made_questions() if not q.is_mca]
    overall = answer_spread(numbers, answers_to(numbers)).set_index("question_type").loc["overall"]
    assert overall.counted == 0 and pd.isna(overall.top_answer) and pd.isna(overall.top_share)
    with pytest.raises(ValueError, match="29 answers, expected 30"): answer_spread(numbers, ["1"]*29)

def test_constant_answers_get_one_warning_each():
    questions = made_questions()
    varied = {q.id: q.ground_truth for q in questions}
    few = varied | {q.id: "12" for q in questions[:15]} | {q.id: "14" for q in questions[15:30]}
    scores = arm_scores({"base": varied, "trained": answers_to(questions), "few": few,
                         "constant": answers_to(questions)}, questions)
    overall = scores[scores.question_type == "route_planning"].assign(question_type="overall", counted=1260,
                                                                      top_answer="A")
    scores = pd.concat([scores, overall.assign(top_share=[.3, .95, .3, 1.], truth_top_share=.31, truth_distinct=4)])
    lines = answer_warnings(scores)
    # neither the varied arm nor the control
    assert [x.split()[0] for x in lines] == ["trained", "trained", "few"]
    assert lines[0] == ('trained answers "A" to 1,197 of 1,260 choice questions '
                        "(the truth's most frequent answer: 31 %).")
    for cell in ('object_rel_direction ("A" 100 %, truth 35 %)', 'room_size_estimation ("30" 100 %, truth 3 %)',
                 'route_planning ("turn left" 100 %'):
        assert cell in lines[1]
    assert lines[2] == "few uses few different numbers in room_size_estimation (2, the truth has 30)."
    assert answer_warnings(scores.drop(columns=SPREAD)) == []                       # a table of an earlier version
    assert answer_report(scores) == "\n".join(lines)
    assert answer_report(scores.drop(columns=SPREAD)) == "how varied the answers are was not recorded"

def test_few_questions_and_constant_truths_get_no_warning():
    questions = [q for q in made_questions() if q.question_type == "object_rel_direction_easy"]
    assert answer_warnings(arm_scores({"x": answers_to(questions)}, questions))
    few = arm_scores({"x": answers_to(questions[:4])}, questions[:4])
    assert not answer_warnings(few) and "is not judged: no task has 5 questions" in answer_report(few)
    same = [replace(q, ground_truth="A") for q in questions]
    assert not answer_warnings(arm_scores({"x": answers_to(same)}, same))

def test_seeds_of_an_arm_are_summed_up():
    questions = [q for q in made_questions() if q.options]
    one, other = answers_to(questions), answers_to(questions) | {q.id: "B" for q in questions[::20]}
    varied = {q.id: q.ground_truth for q in questions}
    scores = pd.concat([arm_scores({"SFT": a}, questions).assign(seed=k) for k, a in enumerate((one, other, varied))])
    line = ('SFT gives one answer to 90 % or more of the questions in object_rel_direction '
            '("A" 95–100 %, truth 35 %, in 2 of 3 seeds).')
    assert answer_warnings(scores) == [line]
    table = spread_table(scores)
    assert table.loc["object_rel_direction"].tolist() == ["A: 35–100 % (1–3)", "35 % (3)"]
    assert set(spread_table(scores.drop(columns=SPREAD)).values.ravel()) == {"—"}
