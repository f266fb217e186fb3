"From rooms on disk to rows, and back."
import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from functools import partial

import pytest

from vsgrpo.data import scene_questions
from vsgrpo.data.dataset import RoomsSpec, build_rooms, open_dataset, push_dataset
from vsgrpo.data.dataset_writer import Job, rows_by_task, write_dataset
from vsgrpo.data.scans import bench_scenes, build_scans
from vsgrpo.data.scene_facts import meta_files
from vsgrpo.data.scene_questions import SETS, Asking, scene_rows
from vsgrpo.evaluation.rows import write_questions
from vsgrpo.evaluation.vsibench import QUESTION_TYPES
from vsgrpo.training.batches import draw_questions
from vsgrpo.training.settings import Settings
from vsgrpo.vsi100k import agreements

SPEC = RoomsSpec(3, 2, 4)

@pytest.fixture(scope="module")
def built(tmp_path_factory): return build_rooms(tmp_path_factory.mktemp("built"), SPEC, workers=1)

def questions_of(data):
    "All questions of a dataset."
    return data.train + data.train_benchmark + data.dev + data.test

def test_a_room_gives_many_relations_in_training_and_one_of_each_type_in_tests(built, tmp_path):
    data = open_dataset(built)
    unlimited = replace(SPEC, asking=replace(SPEC.asking, distances=1000, directions=1000))
    possible = open_dataset(build_rooms(tmp_path/"unlimited", unlimited, workers=1))
    def most(questions, key): return Counter((q.scene_name, key(q)) for q in questions)
    train = most(data.train, lambda q: q.task)
    there = most(possible.train, lambda q: q.task)
    rooms = {q.scene_name for q in data.train}
    for room in rooms:                                  # a small room has fewer
        assert train[room, "object_abs_distance"] == min(6, there[room, "object_abs_distance"])
        assert train[room, "object_rel_direction"] == min(20, there[room, "object_rel_direction"])
    assert max(train[room, "object_abs_distance"] for room in rooms) == 6
    assert max(train[room, "object_rel_direction"] for room in rooms) == 20
    assert len({q.question for q in data.train if "standing" in q.question}) > 10*len(rooms)
    for questions in (data.train_benchmark, data.dev, data.test):
        assert set(most(questions, lambda q: q.question_type).values()) == {1}

def test_tasks_of_rooms_are_trained_evenly(built):
    data = open_dataset(built)
    assert data.even and data.round_size == 6*SPEC.train
    s = Settings(steps=21, questions_per_step=6, micro_groups=6, questions_per_scene=3)     # seven rounds
    tasks = Counter(data.train[i].task for i in draw_questions(data.train, s, data.even))
    assert len(tasks) == 6 and set(tasks.values()) == {21}

def test_rows_videos_and_splits(built):
    data = open_dataset(built)
    scenes = [{q.scene_name for q in part} for part in (data.train, data.dev, data.test)]
    assert [len(s) for s in scenes] == [3, 2, 4] and not scenes[0] & scenes[2]
    assert {q.question_type for q in data.test} <= set(QUESTION_TYPES)
    held_out = {"route_planning", "obj_appearance_order"}
    assert not {q.task for q in data.train} & held_out, "the held-out tasks are never trained on"
    assert {q.scene_name for q in data.train_benchmark} <= scenes[0]

def test_two_builds_are_alike(built, tmp_path):
    again = build_rooms(tmp_path/"again", SPEC, workers=2)
    for name in ("train", "train_benchmark", "dev", "test"):
        assert (again/f"{name}.parquet").read_bytes() == (built/f"{name}.parquet").read_bytes()
    for video in built.glob("generated/*.mp4"):
        assert video.read_bytes() == (again/"generated"/video.name).read_bytes()

def test_the_paper_s_form_has_no_options(built, tmp_path):
    train = scene_rows(next((built/"scans").iterdir()), tmp_path, "generated", Asking("paper"))["train"]
    assert all(q.options is None for q in train)
    assert any("geometric" not in q.question and "distance between" in q.question for q in train)

def test_a_built_dataset_is_kept_and_never_mixed(built):
    before = (built/"train.parquet").stat().st_mtime_ns
    assert build_rooms(built, SPEC) == built and (built/"train.parquet").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="was built with other settings .train was 3, is 4.: choose another folder"):
        build_rooms(built, RoomsSpec(4, 2, 4))

def test_scans_use_the_same_code(built, tmp_path):
    "The rooms' own folders, taken as a ScanNet download."
    out = build_scans(built/"scans", tmp_path/"out", leak_guard=False, workers=1)
    data = open_dataset(out)
    assert {q.dataset for q in data.train + data.test} == {"scannet"}
    assert json.loads((out/"dataset.json").read_text())["settings"]["leak_guard"] is False
    assert "its score after training on these rows is meaningless" in (out/"README.md").read_text()
    assert {q.provenance["distance"] for q in data.train if q.task == "object_abs_distance"} == {"center"}
    assert not any(q.options for q in data.train)
    files = ["scannet", "README.md", "dataset.json", "skipped.csv", *(f"{n}.parquet" for n in SETS)]
    assert sorted(p.name for p in out.iterdir()) == sorted(files)

def test_load_dataset_reads_the_folder(built):
    from datasets import load_dataset
    rows = load_dataset(str(built), cache_dir=str(built.parent/"cache"))
    data = open_dataset(built)
    assert {split: len(x) for split, x in rows.items()} == dict(train=len(data.train), validation=len(data.dev),
                                                                test=len(data.test))
    assert " ".join(rows["test"].column_names) == ("id dataset scene_name question_type question ground_truth "
                                                   "options provenance")

def test_totals_are_met_evenly_and_shortfalls_are_listed(built, tmp_path):
    asking = Asking("vsibench", totals=20/116_900)
    out = build_scans(built/"scans", tmp_path/"out", leak_guard=False, asking=asking, workers=1)
    train, wanted = open_dataset(out).train, asking.targets()
    for task, n in wanted.items():
        found = sum(q.task == task for q in train)
        assert found <= n
        if found < n: assert f"Wanted {n} training questions of {task}" in (out/"README.md").read_text()

def test_scenes_of_the_benchmark_from_the_hub(monkeypatch, tmp_path):
    import datasets
    loaded = []
    def load(name, split):
        loaded.append((name, split))
        return {"scene_name": ["scene0011_00", "scene0011_00", "41069021"],
                "dataset": ["scannet", "scannet", "arkitscenes"]}
    monkeypatch.setattr(datasets, "load_dataset", load)
    assert bench_scenes("nyu-visionx/VSI-Bench") == {"scene0011_00"}
    assert loaded == [("nyu-visionx/VSI-Bench", "test")]
    def gone(name, split): raise ConnectionError("no network")
    monkeypatch.setattr(datasets, "load_dataset", gone)
    with pytest.raises(ValueError, match="bench_rows nyu-visionx/VSI-Bench: neither .*ConnectionError: no network"):
        bench_scenes("nyu-visionx/VSI-Bench")
    with pytest.raises(FileNotFoundError, match="rows.parquet: no such file"):
        bench_scenes(tmp_path/"rows.parquet")

def test_films_of_scans_are_never_pushed(built, tmp_path, monkeypatch):
    import huggingface_hub
    sent = []
    class Api:
        def create_repo(self, repo, **kw): sent.append((repo, kw))
        def upload_folder(self, **kw):
            sent.append(kw)
            return "address"
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert push_dataset(built, "me/rooms") == "address"
    assert "generated/*.mp4" in sent[1]["allow_patterns"] and sent[0][1]["private"]
    (tmp_path/"scannet").mkdir()
    (tmp_path/"dataset.json").write_text("{}")
    push_dataset(tmp_path, "me/scans")
    assert not [x for x in sent[3]["allow_patterns"] if "mp4" in x]
    with pytest.raises(FileNotFoundError, match="no dataset.json"): push_dataset(tmp_path/"scannet", "me/scans")

def break_scene(scans, name): (scans/name/f"{name}.aggregation.json").write_text("{}")

@pytest.fixture
def copied(built, tmp_path):
    shutil.copytree(built/"scans", tmp_path/"scans")
    return tmp_path/"scans"

def test_a_broken_scene_is_set_aside_with_its_reason(copied, tmp_path):
    name = sorted(p.name for p in copied.iterdir())[0]
    break_scene(copied, name)
    with pytest.raises(ValueError,
                       match=rf"1 of 9 scenes failed, at most 5% may; the first, {name}: ValueError: "
                             r".*aggregation.json: has no 'segGroups'"):
        build_scans(copied, tmp_path/"out", leak_guard=False, workers=1)
    out = build_scans(copied, tmp_path/"out", leak_guard=False, max_skipped=.2, workers=1)
    assert "| ValueError | 1 | 1 |" in (out/"README.md").read_text()
    data = open_dataset(out)
    assert name not in {q.scene_name for q in questions_of(data)}
    assert f"{name},ValueError" in (out/"skipped.csv").read_text()

KILLED = """import os, sys
from vsgrpo.data.scans import build_scans
count, stop = [0], int(sys.argv[3])
def counted(f):
    def g(*a, **k):
        count[0] += 1
        if count[0] == stop: os.kill(os.getpid(), 9)
        return f(*a, **k)
    return g
for name in ("replace", "link"): setattr(os, name, counted(getattr(os, name)))
build_scans(sys.argv[1], sys.argv[2], leak_guard=False, workers=1)
"""

def test_a_killed_build_resumes_with_identical_bytes(built, tmp_path, monkeypatch):
    "The build is killed just before a file moves into place, once per kind of file; another process resumes it."
    scans = tmp_path/"scans"
    for scene in sorted((built/"scans").iterdir())[:4]: shutil.copytree(scene, scans/scene.name)
    def build(out): build_scans(scans, tmp_path/out, leak_guard=False, workers=1)
    def read(out):
        files = sorted(p for p in (tmp_path/out).rglob("*") if p.is_file())
        return {str(p.relative_to(tmp_path/out)): p.read_bytes() for p in files}
    moved = []
    def counted(move): return lambda *a, **k: moved.append(a) or move(*a, **k)
    with monkeypatch.context() as m:
        for name in ("replace", "link"): m.setattr(os, name, counted(getattr(os, name)))
        build("whole")
    moves = len(moved)
    stops = (2, moves//2, moves - 6, moves - 1)
    call = [sys.executable, "-c", KILLED, scans]
    killed = [subprocess.Popen([*call, tmp_path/f"cut{stop}", str(stop)], stdout=subprocess.DEVNULL) for stop in stops]
    assert [process.wait(300) for process in killed] == [-9]*len(stops)
    for stop in stops:
        build(f"cut{stop}")
        assert read(f"cut{stop}") == read("whole")

def test_the_leak_guard(built, tmp_path):
    with pytest.raises(ValueError, match="leak guard needs the benchmark's rows"):
        build_scans(built/"scans", tmp_path/"out")
    banned = open_dataset(built).test
    write_questions(banned, tmp_path/"bench.jsonl")
    with pytest.raises(ValueError, match="bench.jsonl: no row of dataset 'scannet', so nothing would be excluded"):
        build_scans(built/"scans", tmp_path/"out", tmp_path/"bench.jsonl")
    assert not (tmp_path/"out").exists()
    write_questions([replace(q, dataset="scannet") for q in banned], tmp_path/"bench.jsonl")
    data = open_dataset(build_scans(built/"scans", tmp_path/"out", tmp_path/"bench.jsonl", workers=1))
    assert not {q.scene_name for q in questions_of(data)} & {q.scene_name for q in banned}

def test_scans_of_one_place_stay_together(built, tmp_path):
    "scene0000_00 and scene0000_01 show the same place, so both are kept out of training."
    for k, source in enumerate(sorted((built/"scans").iterdir())[:8]):
        name = f"scene{k//2:04d}_{k % 2:02d}"
        shutil.copytree(source, tmp_path/"scans"/name)
        for p in (tmp_path/"scans"/name).rglob(f"{source.name}*"):
            p.rename(p.with_name(p.name.replace(source.name, name)))
    write_questions([replace(open_dataset(built).test[0], dataset="scannet", scene_name="scene0002_00")],
                    tmp_path/"bench.jsonl")
    out = build_scans(tmp_path/"scans", tmp_path/"out", tmp_path/"bench.jsonl", share=(.34, .34), workers=1)
    data = open_dataset(out)
    sets = [{q.scene_name for q in part} for part in (data.train + data.train_benchmark, data.dev, data.test)]
    assert sorted(n for names in sets for n in names) == [f"scene{k:04d}_{i:02d}" for k in (0, 1, 3) for i in (0, 1)]
    assert all(len(names) == 2 and len({n[:9] for n in names}) == 1 for names in sets)
    skipped = (out/"skipped.csv").read_text()
    assert "scene0002_00,scene: in the benchmark,1" in skipped
    assert "scene0002_01,scene: another scan of a place in the benchmark,1" in skipped

def test_missing_files_are_reported_before_anything_is_built(copied, tmp_path):
    "The download is incomplete: one scene has no mesh, another no film."
    first, second, *_ = sorted(p.name for p in copied.iterdir())
    (copied/first/f"{first}_vh_clean_2.ply").unlink()
    (copied/second/f"{second}.mp4").unlink()
    with pytest.raises(ValueError,
                       match=rf"2 of 9 scenes cannot be built, at most 5% may; the first, .*no {first}_vh_clean_2.ply"):
        build_scans(copied, tmp_path/"out", leak_guard=False, workers=1)
    assert not (tmp_path/"out").exists()
    out = build_scans(copied, tmp_path/"out", leak_guard=False, max_skipped=.3, workers=1)
    lines = (out/"skipped.csv").read_text().splitlines()
    assert {line.split(",")[0] for line in lines if "FileNotFoundError" in line} == {first, second}
    build_scans(copied, tmp_path/"rows", leak_guard=False, max_skipped=.3, film=False, workers=1)
    assert not list((tmp_path/"rows").rglob("*.mp4")) and open_dataset(tmp_path/"rows", films=False).train

def test_a_failure_of_one_scene_does_not_affect_others(copied, tmp_path, monkeypatch):
    name = sorted(p.name for p in copied.iterdir())[4]
    honest = scene_questions.measure
    def failing(scene, *a):
        if scene.name == name: raise RuntimeError("something\nelse | broke")
        return honest(scene, *a)
    monkeypatch.setattr(scene_questions, "measure", failing)
    out = build_scans(copied, tmp_path/"out", leak_guard=False, max_skipped=.2, film=False, workers=1)
    assert f"{name},RuntimeError: something else | broke,1" in (out/"skipped.csv").read_text()
    assert "| RuntimeError | 1 | 1 |" in (out/"README.md").read_text()

def test_an_empty_film_is_not_readable(copied, tmp_path):
    name = sorted(p.name for p in copied.iterdir())[4]
    (copied/name/f"{name}.mp4").write_bytes(b"")
    out = build_scans(copied, tmp_path/"out", leak_guard=False, max_skipped=.2, workers=1)
    assert f"{name}.mp4: not a readable video" in (out/"skipped.csv").read_text()

def test_another_download_is_not_taken_for_the_one_that_was_built(copied, tmp_path):
    out = build_scans(copied, tmp_path/"out", leak_guard=False, film=False, workers=1)
    assert build_scans(copied, tmp_path/"out", leak_guard=False, film=False, workers=1) == out
    shutil.rmtree(sorted(copied.iterdir())[0])
    with pytest.raises(ValueError, match="was built with other settings .scans was .*'scenes': 9.*, is .*'scenes': 8"):
        build_scans(copied, tmp_path/"out", leak_guard=False, film=False, workers=1)

def test_a_folder_without_dev_and_test_loads(copied, tmp_path):
    from datasets import load_dataset
    out = build_scans(copied, tmp_path/"out", leak_guard=False, share=(0, 0), film=False, workers=1)
    assert set(load_dataset(str(out), cache_dir=str(tmp_path/"cache"))) == {"train"}
    card = (out/"README.md").read_text()
    assert "| answers of train | |" in card and "median" in card and str(tmp_path) not in card

def test_only_the_frames_a_model_gets_count(built, tmp_path):
    "An object that the film shows, but none of the sampled frames, is left out of the questions."
    source = sorted((built/"scans").iterdir())[0]
    path = next(source.glob("*.visibility.json"))
    seen = json.loads(path.read_text())
    n, folder = seen["frames"], tmp_path/"scans"/source.name
    shutil.copytree(source, folder)
    in_the_second = [.1*(t == 1) for t in range(n)]
    seen["objects"] = dict.fromkeys(seen["objects"], in_the_second)
    (folder/path.name).write_text(json.dumps(seen))
    def rows(frames): return scene_rows(folder, tmp_path/"out", "scannet", Asking(frames=frames), film=False)
    hidden, shown, reason = rows(2), rows(n), "object: shown by none of the frames"
    assert n > 3 and {q.task for q in hidden["train"]} <= {"room_size_estimation"} and hidden["skipped"][reason] > 2
    assert reason not in shown["skipped"] and len(shown["train"]) > 3

def test_a_small_selection_is_drawn_evenly():
    "Fewer questions than scenes: easy, medium and hard directions alike, and not from the first scenes by name."
    names = [f"scene{k:04d}_00" for k in range(300)]
    types = [f"object_rel_direction_{level}" for level in ("easy", "medium", "hard")]
    records = [dict(question_type=t, n=i) for t in types for i in range(4)]
    ordered = [rows_by_task(name, records)["object_rel_direction"] for name in names]
    assert all(sorted(map(str, rows)) == sorted(map(str, records)) for rows in ordered)
    first = [rows[0]["question_type"] for rows in ordered]
    assert all(70 < first.count(t) < 130 for t in types)

def test_a_scene_in_two_splits_is_refused(built, tmp_path):
    data = open_dataset(built)
    for name, rows in (("train", data.train), ("train_benchmark", data.train_benchmark), ("dev", data.dev),
                       ("test", data.test + data.train_benchmark)):
        write_questions(rows, tmp_path/f"{name}.parquet")
    (tmp_path/"generated").symlink_to(built/"generated")
    with pytest.raises(ValueError, match="is in two splits"): open_dataset(tmp_path)

def test_a_missing_video_is_named(built, tmp_path):
    data = open_dataset(built)
    for name in ("train", "train_benchmark", "dev", "test"):
        write_questions(getattr(data, name), tmp_path/f"{name}.parquet")
    with pytest.raises(FileNotFoundError, match=r"videos are missing, the first generated/room_"):
        open_dataset(tmp_path)

def test_meta_info_takes_several_files(tmp_path):
    "Lists with commas or spaces, folders and names with spaces are read; everything missing is one error."
    names = ["scannet_meta_info_val.json", "scannetpp_meta_info_val.json"]
    folder = tmp_path/"meta info"
    folder.mkdir()
    for name in names:
        for place in (folder, tmp_path): (place/name).write_text("{}")
    both = [tmp_path/name for name in names]
    for text in (f"{both[0]},{both[1]}", f"{both[0]} , {both[1]}", f"{both[0]} {both[1]}", f" {both[0]}\n{both[1]} ",
                 f"{both[0]},{both[1]}, "):
        assert meta_files(text) == both
    assert meta_files(str(folder)) == [folder/name for name in names]
    assert meta_files(str(folder/names[0])) == [folder/names[0]]
    (tmp_path/"empty").mkdir()
    with pytest.raises(FileNotFoundError,
                       match=f"meta_info: no file at {tmp_path}/a.json, {tmp_path}/empty, wanted the benchmark's"):
        meta_files(f"{tmp_path}/a.json {both[0]} {tmp_path}/empty")

def test_the_benchmark_s_datasets_stand_side_by_side(data):
    meta = data/"vsibench_meta_info"
    both = f"{meta}/scannet_meta_info_val.json,{meta}/scannetpp_meta_info_val.json"
    table = agreements(both, data/"vsibench_test.parquet").round(1)
    assert table["scannet"]["agree, %"].to_dict() == dict(
        object_counting=99.6, object_size_estimation=100, room_size_estimation=100,
        object_abs_distance=100, object_rel_distance=100, object_rel_direction=100)
    assert table["scannetpp"]["agree, %"].to_dict() == dict(
        object_counting=98.9, object_size_estimation=100, room_size_estimation=100,
        object_abs_distance=97.6, object_rel_distance=100, object_rel_direction=100)
    assert table["scannetpp"]["n"].sum() == 1204
    with pytest.raises(ValueError, match="scannet has been read from another file already"):
        agreements(f"{meta} {meta}/scannet_meta_info_val.json", data/"vsibench_test.parquet")

def files_of(out): return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}

def av_error(code):
    from av.error import classes
    return classes[code](code, os.strerror(code), "film.mp4")

FAULTS = dict(disk=lambda: OSError(errno.ENOSPC, "No space left on device"),
              rights=lambda: PermissionError(errno.EACCES, "Permission denied", "a.ply"),
              memory=lambda: MemoryError("Unable to allocate 9.9 TiB"),
              many=lambda: OSError(errno.EMFILE, "Too many open files"),
              film=lambda: av_error(errno.ENOSPC), shut=lambda: av_error(errno.EACCES))
DATA_FAULTS = dict(gone=lambda: FileNotFoundError(errno.ENOENT, "No such file", "a.ply"),
                   picture=lambda: OSError("image file is truncated"), value=lambda: ValueError("no mesh"),
                   torn=lambda: av_error(errno.EIO), key=lambda: KeyError("x"))

def scene_jobs(built, raised=None):
    "Five scenes with the questions of built ones; the third raises."
    data = open_dataset(built)
    def rows(name):
        if raised and name == names[2]: raised()
        return dict(train=[q for q in data.train if q.scene_name == name],
                    benchmark=[q for q in data.test if q.scene_name == name], skipped={"object: stuff": 1})
    names = sorted({q.scene_name for q in data.train + data.test})[:5]
    return [Job(name, "train" if k < 3 else "test", partial(rows, name)) for k, name in enumerate(names)]

def raiser(fault, wrapped):
    def plain(): raise fault()
    def hidden():
        try: plain()
        except Exception as e: raise ValueError(f"a.ply: cannot be read: {e}") from None
    return hidden if wrapped else plain

@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_machine_stops_the_build_and_leaves_no_hole(built, tmp_path, fault, wrapped):
    "The error is one line; the next build tries that scene again, and the dataset is complete."
    def write(out, raised=None):
        return write_dataset(tmp_path/out, scene_jobs(built, raised), {}, max_skipped=.9, card="scannet", workers=1)
    words = ("out: stopped at room.*: the machine failed, not the scan: .*; finished scenes are kept, "
             "build again to resume")
    for _ in range(2):
        with pytest.raises(OSError, match=words) as caught: write("out", raiser(FAULTS[fault], wrapped))
        assert "\n" not in str(caught.value) and not (tmp_path/"out"/"dataset.json").exists()
        assert len(list((tmp_path/"out"/"parts").iterdir())) == 2
    assert files_of(write("out")) == files_of(write("whole"))

@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("fault", DATA_FAULTS)
def test_a_fault_of_the_data_is_set_aside(built, tmp_path, fault, wrapped):
    jobs = scene_jobs(built, raiser(DATA_FAULTS[fault], wrapped))
    out = write_dataset(tmp_path/"out", jobs, {}, max_skipped=.2, card="scannet", workers=1)
    assert json.loads((out/"dataset.json").read_text())["broken"] == 1 and not (out/"parts").exists()

def test_a_full_disk_in_one_scan(built, tmp_path, monkeypatch):
    "The disk is full when `build_scans` writes a film."
    name, honest = sorted(p.name for p in (built/"scans").iterdir())[4], scene_questions.write_film
    def full(folder, path):
        if folder.name == name: raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return honest(folder, path)
    monkeypatch.setattr(scene_questions, "write_film", full)
    def build(): return build_scans(built/"scans", tmp_path/"out", leak_guard=False, max_skipped=.5, workers=1)
    with pytest.raises(OSError, match=f"stopped at {name}: .*No space left on device"): build()
    monkeypatch.setattr(scene_questions, "write_film", honest)
    data = open_dataset(build())
    assert name in {q.scene_name for q in questions_of(data)}
    assert json.loads((tmp_path/"out"/"dataset.json").read_text())["broken"] == 0

def test_a_worker_that_dies_stops_the_build(built, tmp_path):
    def die():
        import os
        os.kill(os.getpid(), 9)
    def write(raised, workers):
        return write_dataset(tmp_path/"out", scene_jobs(built, raised), {}, max_skipped=.9, card="scannet",
                             workers=workers)
    words = "out: a worker process was killed, .*finished scenes are kept, build again to resume"
    with pytest.raises(OSError, match=words) as caught: write(die, 2)
    assert "\n" not in str(caught.value) and not (tmp_path/"out"/"dataset.json").exists()
    assert json.loads((write(None, 1)/"dataset.json").read_text())["scenes"] == {"train": 3, "test": 2}

BUILDER = """import sys, time
from pathlib import Path
from vsgrpo.data import dataset
out, hold = Path(sys.argv[1]), sys.argv[2:]
make = dataset.make_room
def slow(*a):
    while hold and not Path(hold[0]).exists(): time.sleep(.02)
    return make(*a)
dataset.make_room = slow
dataset.build_rooms(out, dataset.RoomsSpec(1, 1, 1), workers=1)
# the other builder may hold the lock by now
print(sorted((p.name, p.stat().st_mtime_ns) for p in out.rglob('*') if p.suffix != '.lock' and p.is_file()))
"""

def test_two_builders_in_one_folder(tmp_path):
    "The second starts while the first builds: it reports that it waits, and the dataset is written once."
    out = tmp_path/"out"
    def start(*args):
        call = [sys.executable, "-c", BUILDER, *map(str, args)]
        return subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with start(out, tmp_path/"continue") as first:
        for _ in range(6000):
            if (out/"parts").is_dir(): break
            time.sleep(.02)
        with start(out) as second:
            line = second.stdout.readline()
            (tmp_path/"continue").touch()
            ends = [p.communicate(timeout=300) for p in (first, second)]
    assert line == f"{out}: another process is building here; waiting for its result\n"
    assert first.returncode == second.returncode == 0, ends
    assert ends[0][0].splitlines()[-1] == ends[1][0].splitlines()[-1] and len(ends[1][0].splitlines()) == 1
    assert len(open_dataset(out).test) > 3 and not list(out.rglob("*.tmp")) and not list(out.glob("building*"))

WATCHED = """import os, sys
from pathlib import Path
from vsgrpo.data import dataset
from vsgrpo.data.room_catalogue import PRESETS
from vsgrpo.data.room_rendering import write_rooms
out, touched = Path(sys.argv[1]), []
def watch(event, args):
    writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    changes = event in ("os.remove", "os.mkdir", "os.rmdir", "os.rename", "os.link", "shutil.rmtree")
    if (writes or changes) and str(args[0]).startswith(str(out)): touched.append((event, str(args[0])))
sys.addaudithook(watch)
dataset.build_rooms(out, dataset.RoomsSpec(3, 2, 4))
write_rooms([0, 1, 2], PRESETS["overview"], out/"scans")
print(touched)
(out/"probe").touch()
(out/"probe").unlink()
print(len(touched))
"""

def test_nothing_is_written_where_all_is_built(built):
    "A read-only folder is therefore enough; the last line shows that the watch works."
    done = subprocess.run([sys.executable, "-c", WATCHED, built], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["[]", "2"], done.stderr
