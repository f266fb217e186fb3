"""How long does building VSI-100k take, and how much memory?

    .venv/bin/python bench/build.py                       # 1,513 scenes of ScanNet's size
    .venv/bin/python bench/build.py --scenes 12 --distinct 4 --few 6     # that the bench itself works

Furnished rooms are written in ScanNet's layout with 150,000 vertices, about 30 objects and a camera path, without a
film; 1,513 scenes are made of some distinct ones by hard links (10 GB otherwise). First each step is timed on one core
beside the bare reading of the bytes, then the whole builder runs on all cores, twice: on a few scenes and on all, for
its peak memory. The last line is one JSON object.
"""
import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"    # a core a scene

import numpy as np

from vsgrpo.data.camera_path import camera_path
from vsgrpo.data.questions import make_questions
from vsgrpo.data.room_catalogue import PRESETS
from vsgrpo.data.room_rendering import room_mesh, room_scene
from vsgrpo.data.rooms import make_room
from vsgrpo.data.scannet import read_scene, write_scene
from vsgrpo.data.scans import PAPER_ASKING, build_scans
from vsgrpo.data.scene_facts import measure
from vsgrpo.data.scene_questions import PAPER_TOTALS
from vsgrpo.data.sens import seen_shares

VERTICES = 150_000


def write_distinct(job):
    "One room with as many vertices as a scan."
    seed, folder = job
    as_full_as_a_scan = replace(PRESETS["walkthrough"], singles=(16, 16), repeated=(3, 4), area_m2=(30, 70))
    room, spacing = make_room(seed, as_full_as_a_scan), .05
    for _ in range(4): spacing *= (len(room_mesh(room, spacing)[0])/VERTICES)**.5
    room = replace(room, name=f"scene{seed:04d}_00", preset=replace(room.preset, spacing_m=spacing))
    poses, intrinsic = camera_path(room)
    return write_scene(room_scene(room, poses, intrinsic), folder/room.name)


def plant(scans, made, n):
    "`n` scene folders, linked to those that were made."
    for k in range(n):
        source, name = made[k % len(made)], f"scene{k:04d}_01"
        for path in (p for p in source.rglob("*") if p.is_file()):
            target = scans/name/str(path.relative_to(source)).replace(source.name, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, target)
    return scans


def read_all(folder): return [p.read_bytes() for p in folder.rglob("*") if p.is_file()]


def phases(folders):
    "Mean seconds of each step, one scene after the other on one core."
    first = read_scene(folders[0])
    seen_shares(first, 16)      # imports are no scene's
    measure(first)
    took, vertices, objects = Counter(), [], []
    def timed(name, f, *args, **kw):
        start = time.perf_counter()
        result = f(*args, **kw)
        took[name] += (time.perf_counter() - start)/len(folders)
        return result
    for folder in folders:
        timed("reading the bytes alone", read_all, folder)
        scene = timed("scene", read_scene, folder)
        scene = replace(scene, visibility=timed("what frames show", seen_shares, scene, 16))
        facts = timed("boxes and area", measure, scene, None, "scannet", {})
        timed("training questions", make_questions, facts, "paper", None, PAPER_ASKING.candidates(1513))
        timed("benchmark's questions", make_questions, facts, "vsibench")
        vertices.append(len(scene.vertices))
        objects.append(len(facts.objects))
    return dict({k: round(v, 4) for k, v in took.items()},
                all_but_bare_reading=round(sum(took.values()) - took["reading the bytes alone"], 4),
                vertices=round(np.mean(vertices)), objects=round(float(np.mean(objects)), 1))


CHILD = ("import json, sys; sys.path.insert(0, 'bench'); import build; "
         "print(json.dumps(build.whole(*sys.argv[1:])))")

def whole(scans, out, workers):
    "Build; seconds, and the peak memory of this process and of the largest of its workers."
    from joblib.externals.loky import get_reusable_executor
    start = time.time()
    build_scans(scans, out, leak_guard=False, share=(0, 0), asking=PAPER_ASKING, film=False, workers=int(workers))
    seconds = time.time() - start
    get_reusable_executor().shutdown(wait=True)     # only workers that have ended are counted
    peak = [resource.getrusage(who).ru_maxrss/1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    record = json.loads((Path(out)/"dataset.json").read_text())
    counts, n_scenes = record["counts"]["train"], record["scenes"]["train"]
    return dict(scenes=n_scenes, questions=sum(counts.values()), counts=counts, seconds=round(seconds, 1),
                core_seconds_a_scene=round(seconds*int(workers)/n_scenes, 3),
                peak_mib=round(peak[0]), peak_worker_mib=round(peak[1]))


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--scenes", type=int, default=1513)
    p.add_argument("--distinct", type=int, default=60, help="scenes that differ")
    p.add_argument("--few", type=int, default=100, help="scenes of the smaller build")
    p.add_argument("--workers", type=int, default=os.cpu_count())
    args = p.parse_args()
    from joblib import Parallel, delayed
    folder = Path(tempfile.mkdtemp())
    try:
        jobs = [(seed, folder/"distinct") for seed in range(args.distinct)]
        made = Parallel(n_jobs=args.workers)(delayed(write_distinct)(job) for job in jobs)
        steps = phases(made[:20])
        print(json.dumps(steps, indent=1), flush=True)
        builds = []
        for n in (args.few, args.scenes):
            scans = plant(folder/f"scans{n}", made, n)
            run = subprocess.run([sys.executable, "-c", CHILD, scans, folder/f"out{n}", str(args.workers)],
                                 capture_output=True, text=True, check=True)
            builds.append(json.loads(run.stdout.splitlines()[-1]))
            print(json.dumps(builds[-1], indent=1), flush=True)
    finally: shutil.rmtree(folder)
    print(json.dumps(dict(bench="build", seconds_by_step=steps, builds=builds, paper=PAPER_TOTALS,
                          workers=args.workers)))


if __name__ == "__main__": sys.exit(main())
