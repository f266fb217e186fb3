"""Does work that is killed go on to the same result?

    .venv/bin/python bench/kill.py                  # a build of rooms and scans, 10 random moments
    .venv/bin/python bench/kill.py --what answers   # a study of prompt modes, with its controls and samples
    .venv/bin/python bench/kill.py --what grpo      # a training

The work is done in a process group of its own, which is killed (signal 9, all workers too) at a random moment and
started again. Every file must be, byte for byte, that of work nobody disturbed; of answers and metrics, all but the
seconds they took (and how many videos the tower had to look at anew, since features are kept on disk). Of a training
its checkpoints and the log of its processes are not compared, nor are manifests, which hold the hashes of the files.

Answers and trainings are also killed and then harmed, at `--harms` further moments for each kind of harm: all films
exchanged, the newest checkpoint damaged, entries of the caches of frames and features flipped, what was recorded
changed. Such work must end alike, or be refused by an error that names the file. The last line is one JSON object.
"""
import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

BUILD = """
import sys
from vsgrpo.data.dataset import RoomsSpec, build_rooms
from vsgrpo.data.scans import build_scans
build_rooms(sys.argv[1] + '/rooms', RoomsSpec(16, 4, 4), workers=2)
build_scans(sys.argv[1] + '/rooms/scans', sys.argv[1] + '/scans', leak_guard=False, workers=2)
"""

ANSWERS = """
import sys, torch
from pathlib import Path
from vsgrpo.evaluation.answer_store import run_eval, vsi_config
from vsgrpo.evaluation.bench_folder import open_bench
torch.set_num_threads(1)
home, config = Path(sys.argv[1]).parent, vsi_config('tiny', samples=2, batch=32)
run_eval(config, open_bench(home/'bench'), sys.argv[1], home/'frames', home/'features')
"""

GRPO = """
import sys, torch
from pathlib import Path
from vsgrpo.data.dataset import open_dataset
from vsgrpo.training import run_process, runs, trainer
from vsgrpo.training.settings import default_settings
torch.set_num_threads(1)
s = default_settings('smoke', 'tiny', steps=40, questions_per_step=4, save_every=5, probe_every=4, num_iterations=2,
                     test_scenes=4)
out, data = Path(sys.argv[1]), open_dataset(Path(sys.argv[1]).parent/'bench')
for name in ('frames', 'features'):
    for module in (runs, trainer): setattr(module, name[:-1] + '_folder', lambda name=name: out.parent/name)
runs.begin(s, data, out, (out/'run.json').is_file())
run_process.train_cli([str(out)])
"""

BENCH = """
import sys
from vsgrpo.data.dataset import RoomsSpec, build_rooms
build_rooms(sys.argv[1] + '/bench', RoomsSpec({}), workers=2)
"""

WORK = dict(build=BUILD, answers=ANSWERS, grpo=GRPO)
ROOMS = dict(answers="1, 1, 40", grpo="6, 1, 4") # scenes of BENCH: train, dev, test


def work(code, out, seconds=None):
    "Do some work, killed after some seconds: its exit status, and its last line of errors."
    with tempfile.TemporaryFile() as errors:
        run = subprocess.Popen([sys.executable, "-c", code, out], start_new_session=True, stdout=subprocess.DEVNULL,
                               stderr=errors)
        try: status = run.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            status = run.wait()
        errors.seek(0)
        return status, errors.read().decode("utf-8", "replace").strip().rpartition("\n")[2]


def whole_work(code, out):
    "Work that must come to its end."
    status, message = work(code, out)
    if status: raise RuntimeError(f"the work ended with {status}: {message}")


# ---- harm: what is done to the folders of a killed work; the names of which an error must hold one

def exchange_films(home, out, rng):
    "Each film gets the next one's bytes."
    films = sorted((home/"bench"/"generated").glob("*.mp4"))
    content = [f.read_bytes() for f in films]
    for f, c in zip(films, content[1:] + content[:1]): f.write_bytes(c)
    return [f.name for f in films]


def damage_checkpoint(home, out, rng):
    "Flip bits in one file of the newest checkpoint."
    found = sorted(out.glob("checkpoints/checkpoint-*"), key=lambda c: int(c.name.split("-")[1]))
    if not found: return []
    files = [f for f in found[-1].iterdir() if f.is_file() and f.stat().st_size > 100]
    flip(files[rng.integers(len(files))], rng)
    return [found[-1].name]


def flip_caches(home, out, rng):
    "Flip bits in half of the cached frames and features."
    entries = sorted((*(home/"frames").glob("*.safetensors"), *(home/"features").rglob("*.safetensors")))
    for k in rng.permutation(len(entries))[:max(1, len(entries)//2)]: flip(entries[k], rng)
    return [e.name for e in entries]


def change_records(home, out, rng):
    "Change a digit in a line that was written whole."
    files = [f for f in (out/"metrics.jsonl", out/"rollouts.jsonl", out/"answers.jsonl", out/"run.json") if f.is_file()]
    if not files: return []
    data = bytearray((path := files[rng.integers(len(files))]).read_bytes())
    digits = [m.start() for m in re.finditer(rb"\d", bytes(data[:data.rfind(b"\n") + 1]))]
    if not digits: return []
    place = digits[rng.integers(len(digits))]
    data[place] = ord("7") if data[place] != ord("7") else ord("3")
    path.write_bytes(data)
    return [path.name]


def flip(path, rng):
    data = bytearray(path.read_bytes())
    for place in rng.integers(0, len(data), 3): data[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


HARMS = dict(build=(), answers=(exchange_films, flip_caches, change_records),
             grpo=(exchange_films, damage_checkpoint, flip_caches, change_records))


def digests(out):
    "Path → hash of what a work left, but for what may differ."
    files = [p for p in sorted(Path(out).rglob("*")) if p.is_file() and "checkpoints" not in p.parts]
    return {str(p.relative_to(out)): hashlib.sha256(content(p)).hexdigest() for p in files
            if p.name not in ("train.log", ".lock", "manifest.json")}


def content(path):
    "Bytes of a file; of answers and metrics, without the seconds they took."
    if path.name == "metrics.jsonl" or path.parent.name == "answers" or path.name == "answers.jsonl":
        return re.sub(rb'"(seconds[a-z/]*|videos_encoded)": ?[0-9.e-]+', b"", path.read_bytes())
    return path.read_bytes()


KEPT = ("frames", "features", "bench") # folders beside a work that a harm may change


def killed_runs(code, home, whole, takes, n, rng):
    "Work that is killed and started again: how often it was killed, and how often it ended alike."
    killed = alike = 0
    for k in range(n):
        out, after = home/f"cut{k}", float(rng.uniform(.15, 1)*takes)
        was_killed = work(code, out, after)[0] != 0
        whole_work(code, out)
        killed += was_killed
        alike += digests(out) == whole
        print(f"killed after {after:.1f} of {takes:.1f} s: {was_killed}, so far alike: {alike} of {k + 1}", flush=True)
        shutil.rmtree(out)
    return killed, alike


def harmed_run(code, home, out, whole, after, harm, rng):
    "Kill, harm and start again: does it end alike, is it refused by the name of what was harmed, or wrong? Its error."
    for name in KEPT: shutil.copytree(home/name, home/f"{name}.kept", dirs_exist_ok=True)
    work(code, out, after)
    names = harm(home, out, rng)
    status, message = work(code, out)
    if status: outcome = "refused" if any(name in message for name in names) else "wrong"
    else: outcome = "alike" if digests(out) == whole else "wrong"
    for name in KEPT:
        shutil.rmtree(home/name)
        os.replace(home/f"{name}.kept", home/name)
    shutil.rmtree(out)
    return outcome, message if status else ""


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--what", choices=list(WORK), default="build")
    p.add_argument("--n", type=int, default=10, help="random moments")
    p.add_argument("--harms", type=int, default=3, help="random moments for each kind of harm")
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args()
    rng, home, code = np.random.default_rng(args.seed), Path(tempfile.mkdtemp()), WORK[args.what]
    try:
        if args.what in ROOMS: whole_work(BENCH.format(ROOMS[args.what]), home)
        begin = time.time()
        whole_work(code, home/"whole")
        takes, whole = time.time() - begin, digests(home/"whole")
        killed, alike = killed_runs(code, home, whole, takes, args.n, rng)
        outcomes = []
        for harm in HARMS[args.what]:
            for k in range(args.harms):
                out, after = home/f"{harm.__name__}{k}", float(rng.uniform(.3, 1)*takes)
                outcome, message = harmed_run(code, home, out, whole, after, harm, rng)
                outcomes.append((harm.__name__, outcome))
                ending = f", {message[:200]}" if message else ""
                print(f"{harm.__name__} after {after:.1f} of {takes:.1f} s: {outcome}{ending}", flush=True)
    finally: shutil.rmtree(home)
    harmed = {f"{harm}, {outcome}": outcomes.count((harm, outcome)) for harm, outcome in dict.fromkeys(outcomes)}
    wrong = sum(outcome == "wrong" for _, outcome in outcomes)
    print(json.dumps(dict(bench="kill", what=args.what, n=args.n, killed=killed, alike=alike, harmed=harmed,
                          wrong=wrong, files=len(whole), seconds=round(time.time() - begin))))
    return alike < args.n or wrong > 0


if __name__ == "__main__": sys.exit(main())
