"""How long do generated rooms take, and how good are their pictures?

    .venv/bin/python bench/rooms.py
    .venv/bin/python bench/rooms.py --rooms 1 --lessons 2     # that the bench itself works

One core: a walk-through room written with its film, the frames of it that a tiny model sees, and an overview lesson.
Times are seconds of the processor, so a busy machine changes them little. The functions in which writing a room spends
its time come from Python's profiler. A small frame is compared with one of five times its width and height, which has
25 rays for each of its pixels. The last line is one JSON object.
"""
import argparse
import cProfile
import json
import os
import pstats
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"    # one core

import numpy as np

from vsgrpo.data.camera_path import camera_path
from vsgrpo.data.room_rendering import render, write_room
from vsgrpo.data.rooms import make_room
from vsgrpo.teaching.lessons import make_lesson

FIRST_SEED = 1_000_000     # development rooms
FINER = 5                  # odd, so that a pixel's middle is the middle of one of the finer pixels


def seconds(f, seeds):
    "Mean seconds of the processor that `f` takes for a seed."
    f(seeds[0])     # imports and caches are no part of it
    start = time.process_time()
    for seed in seeds: f(seed)
    return (time.process_time() - start)/len(seeds)


def film(seed, folder): return write_room(make_room(seed, "walkthrough"), folder/str(seed))


def tiny_frames(seed, n=4, side=84):
    "What a lesson renders of a walk-through room: a few frames at twice the resolution that the model sees."
    room = make_room(seed, "walkthrough")
    poses, intrinsic = camera_path(room)
    some = poses[np.linspace(0, len(poses) - 1, n).round().astype(int)]
    scale = 2*side/room.preset.width
    return render(room, some, intrinsic, 2*side, round(scale*room.preset.height))


def slowest(f, n=10):
    "Seconds in the functions that take longest in themselves."
    with cProfile.Profile() as profile: f()
    own = {f"{Path(file).name}:{name}": times[2] for (file, _, name), times in pstats.Stats(profile).stats.items()}
    return {name.removeprefix("~:"): round(own[name], 2) for name in sorted(own, key=own.get, reverse=True)[:n]}


def quality(preset, width, height, seeds):
    "Compare frames with finer ones: mean difference, share of pixels that differ by more than 16, of other objects."
    found = []
    for seed in seeds:
        room = make_room(seed, preset)
        poses, intrinsic = camera_path(room)
        for pose in poses[[len(poses)//3, -1]]:
            frame, ids = render(room, pose[None], intrinsic, width, height)
            fine, fine_ids = render(room, pose[None], intrinsic, FINER*width, FINER*height, smooth=False)
            mean = fine.reshape(height, FINER, width, FINER, 3).mean((1, 3))
            difference, middle = np.abs(frame[0] - mean), slice(FINER//2, None, FINER)
            found.append((difference.mean(), (difference.max(-1) > 16).mean(),
                          (ids[0] != fine_ids[0, middle, middle]).mean()))
    mean_difference, large, other = np.mean(found, 0)
    return dict(mean_difference_of_255=round(mean_difference, 3), differ_by_16_percent=round(100*large, 2),
                other_object_percent=round(100*other, 4), frames=len(found))


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--rooms", type=int, default=3)
    p.add_argument("--lessons", type=int, default=40)
    args = p.parse_args()
    rooms, lessons = (range(FIRST_SEED, FIRST_SEED + n) for n in (args.rooms, args.lessons))
    with tempfile.TemporaryDirectory() as folder:
        film_s = seconds(lambda seed: film(seed, Path(folder)), rooms)
        own_s = slowest(lambda: film(FIRST_SEED, Path(folder)))
    record = dict(
        bench="rooms",
        walkthrough_with_film_s=round(film_s, 2),
        tiny_frames_s=round(seconds(tiny_frames, lessons), 3),
        overview_lesson_s=round(seconds(lambda seed: make_lesson(seed, "overview", 84, 4), lessons), 4),
        film_by_function_s=own_s,
        quality={"walkthrough 320×240": quality("walkthrough", 320, 240, rooms),
                 "overview 112×112": quality("overview", 112, 112, rooms)},
        rooms=args.rooms,
        lessons=args.lessons)
    print(json.dumps(record, ensure_ascii=False))


if __name__ == "__main__": sys.exit(main())
