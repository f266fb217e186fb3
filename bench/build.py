"""How long does building VSI-100k take, and how much memory?

    .venv/bin/python bench/build.py                       # 1,513 scenes of ScanNet's size
    .venv/bin/python bench/build.py --scenes 12 --distinct 4 --few 6     # that the bench itself works

Furnished rooms are written in ScanNet's layout with 150,000 vertices, 30 objects or so and a camera path, without a film; 1,513 scenes
are made of some distinct ones by hard links (10 GB otherwise). First each step is timed on one core beside the bare reading of the
bytes, then the whole builder runs on all cores, twice: on a few scenes and on all, for its peak memory. The last line is one JSON object.
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

from vsgrpo.data.questions import make_questions, measure
from vsgrpo.data.room_catalogue import PRESETS
from vsgrpo.data.rooms import make_room
from vsgrpo.data.camera_path import camera_path
from vsgrpo.data.room_rendering import room_mesh, room_scene
from vsgrpo.data.scannet import read_scene, write_scene
from vsgrpo.data.sens import seen_shares
from vsgrpo.data.dataset import PAPER_TOTALS, Asking, _most
from vsgrpo.vsi100k import build_scans

VERTICES = 150_000
ASKING = Asking(labels="raw", frames=16, totals=1.)


def write_distinct(job):
    "One room with as many vertices as a scan."
    seed, folder = job
    full = replace(PRESETS["walkthrough"], singles=(16, 16), repeated=(3, 4), area_m2=(30, 70))    # as full as a scan
    room, spacing = make_room(seed, full), .05
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
    # what is imported once is not a scene's
    seen_shares(read_scene(folders[0]), 16), measure(read_scene(folders[0]))
    took, vertices, objects = Counter(), [], []
    def timed(name, f, *args, **kw):
        start = time.perf_counter()
        out = f(*args, **kw)
        took[name] += (time.perf_counter() - start)/len(folders)
        return out
    for folder in folders:
        timed("reading the bytes alone", read_all, folder)
        scene = timed("scene", read_scene, folder)
        scene = replace(scene, visibility=timed("what frames show", seen_shares, scene, 16))
        facts = timed("boxes and area", measure, scene, None, "scannet", {})
        timed("training questions", make_questions, facts, "paper", None, _most(ASKING, 1513))
        timed("benchmark's questions", make_questions, facts, "vsibench")
        vertices.append(len(scene.vertices)), objects.append(len(facts.objects))
    return dict({k: round(v, 4) for k, v in took.items()},
                all_but_bare_reading=round(sum(took.values()) - took["reading the bytes alone"], 4),
                vertices=round(np.mean(vertices)), objects=round(float(np.mean(objects)), 1))


CHILD = "import json, resource, sys; sys.path.insert(0, 'bench'); import build; print(json.dumps(build.whole(*sys.argv[1:])))"

def whole(scans, out, workers):
    "Build, and tell the peak memory of this process and of the largest of its workers."
    from joblib.externals.loky import get_reusable_executor
    start = time.time()
    build_scans(scans, out, leak_guard=False, share=(0, 0), asking=ASKING, film=False, workers=int(workers))
    seconds = time.time() - start
    get_reusable_executor().shutdown(wait=True)     # only workers that have ended are counted
    peak = [resource.getrusage(who).ru_maxrss/1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    told = json.loads((Path(out)/"dataset.json").read_text())
    counts = told["counts"]["train"]
    return dict(scenes=told["scenes"]["train"], questions=sum(counts.values()), counts=counts,
                seconds=round(seconds, 1), core_seconds_a_scene=round(seconds*int(workers)/told["scenes"]["train"], 3),
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
        made = Parallel(n_jobs=args.workers)(delayed(write_distinct)((seed, folder/"distinct"))
                                             for seed in range(args.distinct))
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
