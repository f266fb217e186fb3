"""Do broken files give a result or a clear error, never a crash, a hang or a flood of memory?

    .venv/bin/python bench/fuzz.py                # 200,000 mutated files: half of a scan, half of runs and caches
    .venv/bin/python bench/fuzz.py --what runs    # 100,000 of runs and caches
    .venv/bin/python bench/fuzz.py --n 2000       # that the bench itself works

A small scene is written in ScanNet's layout, with a recording, a label table and rows of questions; and a run with
its settings, metrics, rollouts, answers, scores, checkpoints and adapter, its dataset, and the caches of frames and
features. Again and again one file is taken, some of its bytes are changed, zeroed, cut, repeated, or replaced by
numbers that hurt, and its readers are called. What they may do: return, or raise a ValueError (or FileNotFoundError)
that names the file, and the line where that is what cannot be read. Of runs and caches whatever is returned must be
what was written, or have been made anew with a warning. A run of somebody else, without a manifest, is read too:
there a changed number cannot be known, but nothing may end in any other error. The last line is one JSON object.
"""
import argparse
import json
import os
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import warnings
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch

from vsgrpo import files
from vsgrpo.files import commit_folder, write_text
from vsgrpo.engine import models, video
from vsgrpo.engine.vision_guard import VisionFeatureCache
from vsgrpo.evaluation.records import Run, read_metrics, read_rollouts, read_scores
from vsgrpo.evaluation.rows import read_questions, write_questions
from vsgrpo.evaluation.vsibench import Question
from vsgrpo.data.scannet import Instance, Scene, read_label_map, read_poses, read_scene, write_label_map, write_scene
from vsgrpo.data.sens import film_frames, open_sens, read_color, read_depth, write_sens
from vsgrpo.training import explorer, run_page, runs
from vsgrpo.training.settings import default_settings

SECONDS = 5             # a call may take so long
MEMORY_BYTES = 2 << 30  # and so much memory more than at the start
HARMFUL_TEXTS = [b"-1", b"0", b"1e999", b"nan", b"-inf", b"null", b"[]", b"{}", b'""', b"true",
                 b"99999999999999999999", b"4294967295", b"\xff\xfe", b"\x00", b"\n", b"\t", b"[" * 3000]
HARMFUL_SIZES = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1]
CAMERA = np.array([[500., 0, 320], [0, 500, 240], [0, 0, 1]])


# ---- scans

def plant(folder):
    "A whole small scene and its companions; file → function that reads it."
    scans = folder/"scans"/"scene0000_00"
    rng = np.random.default_rng(0)
    plant_scene(scans, rng)
    pictures = [(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), rng.uniform(0, 5, (3, 4)), np.eye(4), 33_333*k)
                for k in range(4)]
    write_label_map(folder/"labels.tsv", {"chair": "chair", "trash can": "trash bin", "table": "table"})
    rows = [Question(0, "scannet", scans.name, "object_counting", "How many chair(s)?", "2"),
            Question(1, "scannet", scans.name, "object_rel_direction_easy", "Left or right?", "A",
                     ["A. left", "B. right"])]
    for name in ("rows.parquet", "rows.jsonl"): write_questions(rows, folder/name)
    targets = {path: lambda _: read_scene(scans) for path in scans.iterdir() if path.is_file()}
    targets |= {scans/"pose"/"1.txt": lambda path: read_poses(path.parent),
                scans/"intrinsic"/"intrinsic_color.txt": lambda _: read_scene(scans)}
    for color, depth in (("png", "zlib_ushort"), ("jpeg", "zlib_ushort"), ("raw", "raw_ushort")):
        film = write_sens(folder/f"{color}.sens", pictures, np.eye(3), color=color, depth=depth)
        targets[film] = read_recording
    return targets | {folder/"labels.tsv": lambda path: read_label_map(path, "category"),
                      folder/"rows.parquet": read_questions, folder/"rows.jsonl": read_questions}


def plant_scene(folder, rng):
    "A scene of sixty random points in ScanNet's layout."
    vertices = rng.uniform(-2, 2, (60, 3))
    instances = [Instance(k, label, np.arange(12*k, 12*k + 12))
                 for k, label in enumerate(("chair", "Chair ", "table", "trash can"))]
    poses = np.tile(np.eye(4), (3, 1, 1))
    faces = rng.integers(0, 60, (40, 3)).astype(np.int32)
    colors = rng.integers(0, 256, (60, 3)).astype(np.uint8)
    write_scene(Scene(folder.name, vertices, colors, faces, instances, poses, np.arange(3), CAMERA,
                      visibility={0: np.array([.1, 0, .2])}), folder)


def read_recording(path):
    "Times and pictures of a .sens file."
    sens = open_sens(path)
    film_frames(sens.times[:, 0])
    for i in range(min(len(sens), 4)): read_color(sens, i), read_depth(sens, i)


def mutate(data, rng):
    "Other bytes."
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at, kind = int(rng.integers(0, len(data) + 1)), rng.integers(7)
        numbers = [m.span() for m in re.finditer(rb"-?\d+(\.\d+)?", bytes(data[:4000]))]
        if kind == 0 and rng.integers(2): data[at:at+1] = bytes([rng.integers(256)])
        elif kind == 0: data[at:at+64] = bytes(len(data[at:at+64]))
        elif kind == 1: del data[at:]
        elif kind == 2: del data[at:at + int(rng.integers(1, 40))]
        elif kind == 3: data[at:at] = data[at:at + int(rng.integers(1, 200))]
        elif kind == 4: data[at:at] = HARMFUL_TEXTS[rng.integers(len(HARMFUL_TEXTS))]
        elif kind == 5: data[at:at+8] = struct.pack("<Q", HARMFUL_SIZES[rng.integers(len(HARMFUL_SIZES))])
        elif numbers:
            start, end = numbers[rng.integers(len(numbers))]
            data[start:end] = HARMFUL_TEXTS[rng.integers(len(HARMFUL_TEXTS))]
    return bytes(data)


# ---- runs and caches

def write_run(folder, data):
    "A run as a training leaves it, with two checkpoints; only that nothing was trained."
    run, rng = Run(folder), np.random.default_rng(0)
    s = default_settings("smoke", "tiny", steps=2)
    settings = {**files.plain(s), "data": str(data), "bench": None}
    run.write_settings(settings, video_spec=s.video, seed=0, films={"generated/room.mp4": "0"*64})
    for step in (1, 2):
        run.log_rollouts([rollout(step, k) for k in range(4)])
        run.log_metrics(step, dict(reward=.375, accuracy=.375, kl=.01*step, entropy=.7))
    answers = [dict(arm="trained", mode="vanilla", id=f"q{k}", sample=0, prediction=f"{k}\u0085", n_tokens=2,
                    truncated=False, seconds=.1) for k in range(4)]
    run.log_answers(answers)
    runs.save_answers(pd.DataFrame(answers), folder/"answers", "trained")
    write_text("arm,question_type,n,score,ci_low,ci_high\ntrained,overall,4,40.0,30.0,50.0\n", folder/"scores.csv")
    for place in (folder/"checkpoints/checkpoint-1", folder/"checkpoints/checkpoint-2", folder/"adapter"):
        place.mkdir(parents=True)
        for name in ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth",
                     "trainer_state.json"):
            (place/name).write_bytes(rng.bytes(4000))
        commit_folder(place)
    return run


def rollout(step, k):
    "A completion as a training records it."
    return dict(step=step, scene_name="room", question_type="object_counting", question="How many?", ground_truth="4",
                options=None, mode="vanilla", n_tokens=3, id=f"q{k}", completion=f"about {k}\u2028 or so",
                accuracy_reward=.25*k, reward=.25*k, advantage=k - 1.5)


class Unchanged:
    "What each file gave when it was whole: a reader may give the same, or nothing."
    def __init__(self): self.whole = {}

    def __call__(self, path, value, equal=lambda a, b: a == b):
        if not equal(self.whole.setdefault(path, value), value): raise AssertionError("served wrong")


def plant_caches(folder, same, rng):
    "Entries of the caches of frames and of vision features; file → function that reads it."
    frames, spec = rng.integers(0, 256, (4, 28, 42, 3), dtype=np.uint8), video.VideoSpec(4, 28*42, 28*42, 14)
    film = video.encode(frames.repeat(2, 1).repeat(2, 2), folder/"film.mp4")
    cache = video.FrameCache(folder/"frames")
    cache(film, spec)
    decoded = frames + 1      # what decoding would give; another value, so that it can be told from what was kept
    def read_frames(path):
        with patch.object(video, "decode", lambda *a: decoded), warnings_of(path) as warned:
            seen = video.FrameCache(folder/"frames")(film, spec)
        same.whole.setdefault(path, seen)
        if warned and np.array_equal(seen, decoded): return "made anew"
        return same(path, seen, np.array_equal)
    known = VisionFeatureCache(models.load_model("tiny"), folder/"features")
    item = models.VideoInputs(str(film), None, torch.tensor([[2, 2, 3]]), 6, "d"*16)
    known.put(item, torch.arange(600.).view(6, 100))
    def read_features(path):
        known.kept.clear()
        with warnings_of(path) as warned: features = known.get(item)
        if features is None and warned: return "made anew"
        return same(path, features, lambda a, b: b is not None and torch.equal(a, b))
    return {cache.entry(film, spec): read_frames, known._entry(item): read_features}


def plant_weights(run, same):
    "A checkpoint and an adapter; file → function that reads it."
    def read_checkpoint(path):
        with warnings_of(path.parent) as warned: found = runs.last_checkpoint(run)
        if found[1] == 1 and warned: return "the older one taken"
        return same(path, found)
    targets = {path: read_checkpoint for path in (run/"checkpoints/checkpoint-2").iterdir()}
    for path in (run/"adapter").iterdir(): targets[path] = lambda path: same(path, adapter(path.parent))
    return targets


def as_text(table): return table.to_json()


def record_readers(run, check):
    "The records of a run; file → function that reads it and hands what it read to `check`."
    return {run/"metrics.jsonl": lambda path: check(path, as_text(read_metrics(path.parent))),
            run/"rollouts.jsonl": lambda path: check(path, as_text(read_rollouts(path.parent))),
            run/"answers.jsonl": lambda path: check(path, as_text(Run(path.parent).read_answers())),
            run/"answers/trained.jsonl": lambda path: check(path, predictions(path.parents[1])),
            run/"scores.csv": lambda path: check(path, as_text(read_scores(path.parent))),
            run/"run.json": lambda path: check(path, settings(path.parent))}


def plant_runs(folder):
    "A run, the same without a manifest, and the caches; file → function that reads it and knows what was written."
    same = Unchanged()
    targets = plant_caches(folder, same, np.random.default_rng(0))
    mine, theirs, data = folder/"run", folder/"theirs", folder/"data"
    data.mkdir()
    write_run(mine, data)
    shutil.copytree(mine, theirs)
    for manifest in theirs.rglob("manifest.json"): manifest.unlink()
    targets |= plant_weights(mine, same)
    targets |= record_readers(mine, same) | record_readers(theirs, lambda path, value: None)
    def read_all(path):
        tables = [as_text(read(mine)) for read in (read_metrics, read_rollouts, read_scores)]
        return same(path, (*tables, settings(mine)))
    targets[mine/"manifest.json"] = read_all
    for name in ("run.json", "rollouts.jsonl", "metrics.jsonl", "scores.csv"):
        targets[ExplorerView(theirs/name)] = explore
    return targets


class ExplorerView(type(Path())):
    "The same file, read by the explorer."
    def __hash__(self): return hash((str(self), "explorer"))
    def __eq__(self, other): return isinstance(other, ExplorerView) and str(self) == str(other)


def explore(path):
    "The explorer shows what can be read, and names what cannot."
    run = explorer.open_run(path.parent)
    for step, question in list(zip(run.groups.step, run.groups.id))[:2]:
        explorer.group_html(run.questions[question], explorer.group_rows(run, step, question))
    if run.scores is not None: run_page.score_html(run.scores)


def adapter(folder):
    "An adapter that is not as it was written is refused."
    if fault := files.damage(folder): raise ValueError(fault)
    return True


def settings(folder):
    with patch.object(runs, "open_dataset", lambda data: str(data)): return repr(runs.read_run(folder))


def predictions(folder):
    with patch.multiple(runs, constant_answers=lambda *a: {}, held_out=lambda *a: [], _constants=lambda *a: {}):
        return runs.read_predictions(None, None, folder)


@contextmanager
def warnings_of(path):
    "Collect warnings that name a file, or one in a folder; another is an error."
    collected = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield collected
    collected += [str(w.message) for w in caught if str(path) in str(w.message)]
    other = [str(w.message) for w in caught if str(path) not in str(w.message)]
    if other: raise AssertionError(f"warned without the name: {other[0][:200]}")


# ---- the bench

def stop_at_alarm(*_): raise TimeoutError(f"more than {SECONDS} s")


def outcome(path, read):
    "How reading a file ends, and what is wrong with that, or None."
    signal.alarm(SECONDS)
    try:
        result = read(path)
        return result if isinstance(result, str) else "read", None
    except (ValueError, FileNotFoundError) as e:
        if path.name in str(e) or path.stem in str(e): return "refused", None
        return "refused without a name", (path.name, repr(e)[:200])
    except AssertionError as e: return str(e)[:30], (f"{path.parent.name}/{path.name}", str(e)[:200])
    except Exception as e: return type(e).__name__, (path.name, repr(e)[:200])
    finally: signal.alarm(0)


def limit_memory():
    "From here on this process may take MEMORY_BYTES more than it has."
    held = int(Path("/proc/self/statm").read_text().split()[0])*os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY_BYTES, held + MEMORY_BYTES))


def fuzz(folder, what, n, rng):
    "Mutate and read n files: number of files, how often each outcome, what is wrong."
    outcomes, wrong = Counter(), []
    kinds = [make(folder) for name, make in (("scans", plant), ("runs", plant_runs)) if what in ("all", name)]
    whole = {path: path.read_bytes() for targets in kinds for path in targets}
    for targets in kinds:
        for path, read in targets.items(): read(path)     # unharmed, all of them read
    limit_memory()
    for k in range(n):
        targets = kinds[k % len(kinds)]
        path = list(targets)[k//len(kinds) % len(targets)]
        path.write_bytes(mutate(whole[path], rng))
        how, fault = outcome(path, targets[path])
        outcomes[how] += 1
        if fault: wrong.append(fault)
        path.write_bytes(whole[path])
    return len(whole), outcomes, wrong


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--n", type=int, help="mutated files; default: 200,000, or 100,000 of one kind")
    p.add_argument("--what", choices=["all", "scans", "runs"], default="all")
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args()
    signal.signal(signal.SIGALRM, stop_at_alarm)
    n, start = args.n or (200_000 if args.what == "all" else 100_000), time.time()
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    try: n_files, outcomes, wrong = fuzz(folder, args.what, n, np.random.default_rng(args.seed))
    finally: shutil.rmtree(folder)
    for name, fault in dict.fromkeys(wrong[:200]): print(name, fault)
    print(json.dumps(dict(bench="fuzz", what=args.what, n=n, seed=args.seed, files=n_files, ends=dict(outcomes),
                          wrong=len(wrong), seconds=round(time.time() - start))))
    return bool(wrong)


if __name__ == "__main__": sys.exit(main())
