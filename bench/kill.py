"""Does work that is killed go on to the same result?

    .venv/bin/python bench/kill.py                  # a build of rooms and scans, 10 random moments
    .venv/bin/python bench/kill.py --what answers   # a study of prompt modes, with its controls and samples
    .venv/bin/python bench/kill.py --what grpo      # a training

The work is done in a process group of its own, which is killed (signal 9, all workers too) at a random moment and started again. Every
file must be, byte for byte, that of work nobody disturbed; of answers and metrics, all but the seconds they took (and how many videos the
tower had to look at anew, since features are kept on disk). Of a training its checkpoints and the log of its processes are not compared. The
last line is one JSON object.
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

WORK = dict(build=("import sys; from vsgrpo.vsi100k import RoomsSpec, build_rooms, build_scans\n"
         "build_rooms(sys.argv[1] + '/rooms', RoomsSpec(16, 4, 4), workers=2)\n"
         "build_scans(sys.argv[1] + '/rooms/scans', sys.argv[1] + '/scans', leak_guard=False, workers=2)"), answers=(
         "import sys, torch; from pathlib import Path; from vsgrpo.models import default_spec; from vsgrpo.prompting import Study, open_bench, run_study; torch.set_num_threads(1)\n"
         "s = Study('tiny', '', ('vanilla', 'think', 'observe'), 'test', default_spec('tiny'), dict(vanilla=16, think=48, observe=48), 2, 32, 0)\n"
         "run_study(s, open_bench(Path(sys.argv[1]).parent/'bench'), sys.argv[1])"), grpo=(
         "import sys, torch; from pathlib import Path; from vsgrpo import runs, trainer; from vsgrpo.vsi100k import open_dataset; torch.set_num_threads(1)\n"
         "s = trainer.settle('smoke', 'tiny', steps=40, questions_per_step=4, save_every=5, probe_every=4, num_iterations=2, test_scenes=4)\n"
         "out, data = Path(sys.argv[1]), open_dataset(Path(sys.argv[1]).parent/'bench')\n"
         "runs.begin(s, data, out, (out/'run.json').is_file())\n"
         "runs.train_cli([str(out)])"))
BENCH = "import sys; from vsgrpo.vsi100k import RoomsSpec, build_rooms; build_rooms(sys.argv[1] + '/bench', RoomsSpec({}), workers=2)"
ROOMS = dict(answers="1, 1, 40", grpo="6, 1, 4")


def work(code, out, seconds=None):
    "Do some work, killed after some seconds; whether it came to its end."
    run = subprocess.Popen([sys.executable, "-c", code, out], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try: code = run.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)
        code = run.wait()
    if code not in (0, -signal.SIGKILL): raise RuntimeError(f"the work ended with {code}")
    return code == 0


def digests(out): return {str(p.relative_to(out)): hashlib.sha256(content(p)).hexdigest() for p in sorted(Path(out).rglob("*"))
                          if p.is_file() and "checkpoints" not in p.parts and p.name not in ("train.log", ".lock")}


def content(path):
    "Bytes of a file; of answers and metrics, without the seconds they took."
    if path.name == "metrics.jsonl" or path.parent.name == "answers" or path.name == "answers.jsonl": return re.sub(rb'"(seconds[a-z/]*|videos_encoded)": ?[0-9.e-]+', b"", path.read_bytes())
    return path.read_bytes()


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--what", choices=list(WORK), default="build")
    p.add_argument("--n", type=int, default=10, help="random moments")
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args()
    rng, folder, code = np.random.default_rng(args.seed), Path(tempfile.mkdtemp()), WORK[args.what]
    try:
        if args.what in ROOMS: work(BENCH.format(ROOMS[args.what]), folder)
        begin = time.time()
        work(code, folder/"whole")
        takes, whole = time.time() - begin, digests(folder/"whole")
        killed, alike = [], 0
        for k in range(args.n):
            out, after = folder/f"cut{k}", float(rng.uniform(.15, 1)*takes)
            killed.append(not work(code, out, after))
            work(code, out)
            alike += digests(out) == whole
            print(f"killed after {after:.1f} of {takes:.1f} s: {killed[-1]}, so far alike: {alike} of {k + 1}", flush=True)
            shutil.rmtree(out)
    finally: shutil.rmtree(folder)
    print(json.dumps(dict(bench="kill", what=args.what, n=args.n, killed=sum(killed), alike=alike, files=len(whole), seconds=round(time.time() - begin))))
    return alike < args.n


if __name__ == "__main__": sys.exit(main())
