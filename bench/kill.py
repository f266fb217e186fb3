"""Does a build that is killed go on to the same dataset?

    .venv/bin/python bench/kill.py             # 10 random moments

Rooms are generated, filmed and turned into a dataset in a process group of its own, which is killed (signal 9, all workers too) at a
random moment and started again. Every file must be, byte for byte, that of a build nobody disturbed. The last line is one JSON object.
"""
import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

BUILD = ("import sys; from vsgrpo.vsi100k import RoomsSpec, build_rooms, build_scans\n"
         "build_rooms(sys.argv[1] + '/rooms', RoomsSpec(16, 4, 4), workers=2)\n"
         "build_scans(sys.argv[1] + '/rooms/scans', sys.argv[1] + '/scans', leak_guard=False, workers=2)")


def build(out, seconds=None):
    "Run the build, killed after some seconds; whether it came to its end."
    run = subprocess.Popen([sys.executable, "-c", BUILD, out], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try: code = run.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)
        code = run.wait()
    if code not in (0, -signal.SIGKILL): raise RuntimeError(f"the build ended with {code}")
    return code == 0


def digests(out): return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(Path(out).rglob("*")) if p.is_file()}


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--n", type=int, default=10, help="random moments")
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args()
    rng, folder, begin = np.random.default_rng(args.seed), Path(tempfile.mkdtemp()), time.time()
    try:
        build(folder/"whole")
        takes, whole = time.time() - begin, digests(folder/"whole")
        killed, alike = [], 0
        for k in range(args.n):
            out, after = folder/f"cut{k}", float(rng.uniform(.15, 1)*takes)
            killed.append(not build(out, after))
            build(out)
            alike += digests(out) == whole
            print(f"killed after {after:.1f} of {takes:.1f} s: {killed[-1]}, so far alike: {alike} of {k + 1}", flush=True)
            shutil.rmtree(out)
    finally: shutil.rmtree(folder)
    print(json.dumps(dict(bench="kill", n=args.n, killed=sum(killed), alike=alike, files=len(whole), seconds=round(time.time() - begin))))
    return alike < args.n


if __name__ == "__main__": sys.exit(main())
