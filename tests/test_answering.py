"Asking: every question gets an answer, about the video it was told to show."
from dataclasses import replace

import pandas as pd
import pytest

from vsgrpo import answering
from vsgrpo.answering import ANSWER_FIELDS, arm_scores, ask, other_videos, paired_difference
from vsgrpo.trainer import settle
from vsgrpo.models import VideoReader, load_model, load_processor
from vsgrpo.rollouts import Run
from vsgrpo.vsi100k import RoomsSpec, build_rooms, open_dataset

@pytest.fixture(scope="module")
def data(tmp_path_factory): return open_dataset(build_rooms(tmp_path_factory.mktemp("data"), RoomsSpec(1, 1, 3), workers=1))

@pytest.fixture(scope="module")
def tiny(): return load_model("tiny", device="cpu"), load_processor("tiny")

def test_batches_do_not_change_answers(data, tiny):
    model, processor = tiny
    reader = VideoReader(processor, settle("smoke", "tiny").video)
    one, many = (ask(model, processor, data.test, reader, data.folder, "vanilla", "train", 8, batch) for batch in (1, 32))
    assert one.id.tolist() == [q.id for q in data.test]
    assert one.prediction.tolist() == many.prediction.tolist() and one.n_tokens.tolist() == many.n_tokens.tolist()

def test_modes_asked_together_answer_as_apart(data, tiny):
    "One pass over a video for all its prompts; each mode has the room it has alone."
    model, processor = tiny
    reader, modes = VideoReader(processor, settle("smoke", "tiny").video), ["vanilla", "think", "observe"]
    sent = dict(reader=reader, folder=data.folder, wording="test")
    together = ask(model, processor, data.test, modes=modes, batch=1000, **sent)
    assert together["mode"].tolist() == [m for m in modes for _ in data.test]
    for mode in modes:
        apart = ask(model, processor, data.test, modes=mode, **sent)
        assert together[together["mode"] == mode].reset_index(drop=True).drop(columns="seconds").equals(apart.drop(columns="seconds"))

def test_a_store_is_filled_once(data, tiny, tmp_path, monkeypatch):
    "Stopped anywhere, also within a line, and gone on: the same lines, and nothing is asked twice."
    model, processor = tiny
    sent = dict(reader=VideoReader(processor, settle("smoke", "tiny").video), folder=data.folder, wording="test", modes=["vanilla", "think"], batch=1,
                max_new_tokens=6, samples=3, temperature=1.)
    whole = ask(model, processor, data.test, store=Run(tmp_path/"whole"), **sent)
    lines = (tmp_path/"whole/answers.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == len(whole) == 2*3*len(data.test) and list(whole) == ANSWER_FIELDS
    asked, honest = [], answering.sample_answers
    monkeypatch.setattr(answering, "sample_answers", lambda model, prompts, *a: asked.append(len(prompts)) or honest(model, prompts, *a))
    for cut in (0, 1, 7, 3*len(data.test), len(lines)):
        store = Run(tmp_path/f"cut{cut}")
        store.answers_path.write_text("".join(lines[:cut]) + (lines[cut][:30] if cut % 2 else ""))
        asked.clear()
        again = ask(model, processor, data.test, store=store, **sent)
        pd.testing.assert_frame_equal(again.drop(columns="seconds"), whole.drop(columns="seconds"))
        pd.testing.assert_frame_equal(store.read_answers().drop(columns="seconds"), Run(tmp_path/"whole").read_answers().drop(columns="seconds"))
        assert sum(asked) == 2*len(data.test) - cut//3

def test_shuffled_shows_other_videos(data, tiny):
    model, processor = tiny
    reader = VideoReader(processor, settle("smoke", "tiny").video)
    shown = ask(model, processor, data.test[:3], reader, data.folder, max_new_tokens=4, videos=other_videos(data.test))
    assert all(q.scene_name not in v for q, v in zip(data.test, shown.video))

def test_a_missing_video_is_named_before_asking(data, tiny):
    model, processor = tiny
    lost = replace(data.test[0], scene_name="room_lost")
    with pytest.raises(FileNotFoundError, match="1 videos are missing, the first .*room_lost.mp4"): ask(model, processor, [lost], None, data.folder)

def test_arms_and_pairs(data):
    right, wrong = {q.id: q.ground_truth for q in data.test}, {q.id: "" for q in data.test}
    scores = arm_scores({"right": right, "wrong": wrong}, data.test)
    assert set(scores[scores.arm == "right"].score) == {100.0} and set(scores[scores.arm == "wrong"].score) == {0.0}
    gain = paired_difference(data.test, right, wrong)
    assert (gain[["difference", "ci_low", "ci_high"]] == 100).all(axis=None)
