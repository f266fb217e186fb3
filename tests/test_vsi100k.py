"From rooms on disk to rows, and back."
import json

import pytest

from vsgrpo import vsi100k
from vsgrpo.vsibench import QUESTION_TYPES, write_questions

SPEC = vsi100k.RoomsSpec(3, 2, 4)

@pytest.fixture(scope="module")
def built(tmp_path_factory): return vsi100k.build_rooms(tmp_path_factory.mktemp("built"), SPEC, workers=1)

def test_rows_videos_and_splits(built):
    data = vsi100k.open_dataset(built)
    scenes = [{q.scene_name for q in part} for part in (data.train, data.dev, data.test)]
    assert [len(s) for s in scenes] == [3, 2, 4] and not scenes[0] & scenes[2]
    assert {q.question_type for q in data.test} <= set(QUESTION_TYPES)
    assert not {q.task for q in data.train} & {"route_planning", "obj_appearance_order"}, "the held-out tasks are never trained on"
    assert {q.scene_name for q in data.train_benchmark} <= scenes[0]

def test_two_builds_are_alike(built, tmp_path):
    again = vsi100k.build_rooms(tmp_path/"again", SPEC, workers=2)
    for name in ("train", "train_benchmark", "dev", "test"):
        assert (again/f"{name}.parquet").read_bytes() == (built/f"{name}.parquet").read_bytes()
    for video in built.glob("generated/*.mp4"): assert video.read_bytes() == (again/"generated"/video.name).read_bytes()

def test_the_paper_s_form_has_no_options(built, tmp_path):
    rows = vsi100k.scene_rows(next((built/"scans").iterdir()), tmp_path, "generated", "paper")
    assert all(q.options is None for q in rows["train"]) and any("geometric" not in q.question and "distance between" in q.question for q in rows["train"])
    with pytest.raises(ValueError, match="wording 'mine': wanted paper or vsibench"): vsi100k.RoomsSpec(wording="mine")

def test_what_is_built_is_kept_and_never_mixed(built):
    before = (built/"train.parquet").stat().st_mtime_ns
    assert vsi100k.build_rooms(built, SPEC) == built and (built/"train.parquet").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="was built with"): vsi100k.build_rooms(built, vsi100k.RoomsSpec(4, 2, 4))

def test_scans_go_the_same_way(built, tmp_path):
    "The rooms' own folders, taken as a ScanNet download."
    out = vsi100k.build_scans(built/"scans", tmp_path/"out", leak_guard=False, workers=1)
    data = vsi100k.open_dataset(out)
    assert {q.dataset for q in data.train + data.test} == {"scannet"}
    assert json.loads((out/"dataset.json").read_text())["settings"]["leak_guard"] is False

def test_the_leak_guard(built, tmp_path):
    with pytest.raises(ValueError, match="leak guard needs the benchmark's rows"): vsi100k.build_scans(built/"scans", tmp_path/"out")
    banned = vsi100k.open_dataset(built).test
    write_questions(banned, tmp_path/"bench.jsonl")
    data = vsi100k.open_dataset(vsi100k.build_scans(built/"scans", tmp_path/"out", tmp_path/"bench.jsonl", workers=1))
    assert not {q.scene_name for q in data.train + data.train_benchmark + data.dev + data.test} & {q.scene_name for q in banned}

def test_a_scene_in_two_splits_is_refused(built, tmp_path):
    data = vsi100k.open_dataset(built)
    for name, rows in (("train", data.train), ("train_benchmark", data.train_benchmark), ("dev", data.dev), ("test", data.test + data.train_benchmark)):
        write_questions(rows, tmp_path/f"{name}.parquet")
    (tmp_path/"generated").symlink_to(built/"generated")
    with pytest.raises(ValueError, match="stands in two splits"): vsi100k.open_dataset(tmp_path)

def test_a_missing_video_is_named(built, tmp_path):
    data = vsi100k.open_dataset(built)
    for name in ("train", "train_benchmark", "dev", "test"): write_questions(getattr(data, name), tmp_path/f"{name}.parquet")
    with pytest.raises(FileNotFoundError, match=r"videos are missing, the first generated/room_"): vsi100k.open_dataset(tmp_path)
