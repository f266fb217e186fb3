"""Do broken files give a result or a clear error, never a crash, a hang or a flood of memory?

    .venv/bin/python bench/fuzz.py              # 200,000 mutated files
    .venv/bin/python bench/fuzz.py --n 2000     # that the bench itself works

A small scene is written in ScanNet's layout, with a recording, a label table and rows of questions. Again and again one file is taken,
some of its bytes are changed, cut, repeated, or replaced by numbers that hurt, and the readers are called. What they may do: return, or
raise a ValueError (or FileNotFoundError) that names the file. The last line is one JSON object.
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
from collections import Counter
from pathlib import Path

import numpy as np

from vsgrpo.scannet import Instance, Scene, read_label_map, read_poses, read_scene, write_label_map, write_scene
from vsgrpo.sens import film_frames, open_sens, read_color, read_depth, write_sens
from vsgrpo.vsibench import Question, read_questions, write_questions

SECONDS, ROOM = 5, 2 << 30   # a call may take so long, and so many bytes more than at the start
HURT = [b"-1", b"0", b"1e999", b"nan", b"-inf", b"null", b"[]", b"{}", b'""', b"true", b"99999999999999999999", b"4294967295", b"\xff\xfe", b"\x00", b"\n", b"\t", b"[" * 3000]
SIZES = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1]


def plant(folder):
    "A whole small scene and its companions; file → function that reads it."
    rng, name = np.random.default_rng(0), "scene0000_00"
    scans = folder/"scans"/name
    vertices = rng.uniform(-2, 2, (60, 3))
    things = [Instance(k, label, np.arange(12*k, 12*k + 12)) for k, label in enumerate(("chair", "Chair ", "table", "trash can"))]
    poses = np.tile(np.eye(4), (3, 1, 1))
    faces = rng.integers(0, 60, (40, 3)).astype(np.int32)
    write_scene(Scene(name, vertices, rng.integers(0, 256, (60, 3)).astype(np.uint8), faces, things, poses, np.arange(3), np.eye(3),
                      visibility={0: np.array([.1, 0, .2])}), scans)
    pictures = [(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), rng.uniform(0, 5, (3, 4)), np.eye(4), 33_333*k) for k in range(4)]
    write_label_map(folder/"labels.tsv", {"chair": "chair", "trash can": "trash bin", "table": "table"})
    rows = [Question(0, "scannet", name, "object_counting", "How many chair(s)?", "2"),
            Question(1, "scannet", name, "object_rel_direction_easy", "Left or right?", "A", ["A. left", "B. right"])]
    for file in ("rows.parquet", "rows.jsonl"): write_questions(rows, folder/file)
    def recording(path):
        sens = open_sens(path)
        film_frames(sens.times[:, 0])
        for i in range(min(len(sens), 4)): read_color(sens, i), read_depth(sens, i)
    targets = {p: lambda _: read_scene(scans) for p in scans.iterdir() if p.is_file()}
    targets |= {scans/"pose"/"1.txt": lambda p: read_poses(p.parent), scans/"intrinsic"/"intrinsic_color.txt": lambda _: read_scene(scans)}
    for color in ("png", "jpeg", "raw"):
        targets[write_sens(folder/f"{color}.sens", pictures, np.eye(3), color=color, depth="raw_ushort" if color == "raw" else "zlib_ushort")] = recording
    return targets | {folder/"labels.tsv": lambda p: read_label_map(p, "category"), folder/"rows.parquet": read_questions, folder/"rows.jsonl": read_questions}


def mutate(data, rng):
    "Other bytes."
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at, kind = int(rng.integers(0, len(data) + 1)), rng.integers(7)
        numbers = [m.span() for m in re.finditer(rb"-?\d+(\.\d+)?", bytes(data[:4000]))]
        if kind == 0: data[at:at+1] = bytes([rng.integers(256)])
        elif kind == 1: del data[at:]
        elif kind == 2: del data[at:at + int(rng.integers(1, 40))]
        elif kind == 3: data[at:at] = data[at:at + int(rng.integers(1, 200))]
        elif kind == 4: data[at:at] = HURT[rng.integers(len(HURT))]
        elif kind == 5: data[at:at+8] = struct.pack("<Q", SIZES[rng.integers(len(SIZES))])
        elif numbers:
            a, b = numbers[rng.integers(len(numbers))]
            data[a:b] = HURT[rng.integers(len(HURT))]
    return bytes(data)


def too_long(*_): raise TimeoutError(f"more than {SECONDS} s")


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--n", type=int, default=200_000, help="mutated files")
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args()
    signal.signal(signal.SIGALRM, too_long)
    rng, ends, wrong, start = np.random.default_rng(args.seed), Counter(), [], time.time()
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    try:
        targets = plant(folder)
        whole = {p: p.read_bytes() for p in targets}
        for path, read in targets.items(): read(path)     # unharmed, all of them read
        held = int(Path("/proc/self/statm").read_text().split()[0])*os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (held + ROOM, held + ROOM))
        for k in range(args.n):
            path = list(targets)[k % len(targets)]
            data = mutate(whole[path], rng)
            path.write_bytes(data)
            signal.alarm(SECONDS)
            try:
                targets[path](path)
                ends["read"] += 1
            except (ValueError, FileNotFoundError) as e:
                named = path.name in str(e) or path.stem in str(e)
                ends["refused" if named else "refused without a name"] += 1
                if not named: wrong.append((path.name, repr(e)[:200]))
            except Exception as e:
                ends[type(e).__name__] += 1
                wrong.append((path.name, repr(e)[:200]))
            finally: signal.alarm(0)
            path.write_bytes(whole[path])
    finally: shutil.rmtree(folder)
    for name, what in dict.fromkeys(wrong[:200]): print(name, what)
    print(json.dumps(dict(bench="fuzz", n=args.n, seed=args.seed, files=len(targets), ends=dict(ends), wrong=len(wrong), seconds=round(time.time() - start))))
    return bool(wrong)


if __name__ == "__main__": sys.exit(main())
