"""Run the chapters at their default scale and keep their outputs in `nbs/`.

    python docs/notebooks.py              # all chapters, a quarter of an hour on 2 cores
    python docs/notebooks.py 20 30        # some
    python docs/notebooks.py --check      # which chapters have outputs older than their code? (exit status 1 if any)

A chapter's code is the text of its code cells; `docs/outputs.json` says which text the kept outputs come from. Progress bars and warnings are left out.
"""
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
STORE = Path(__file__).with_name("outputs.json")
NOISE = re.compile(r"\d+%\||it/s|s/it|Writing model shards|Loading weights")


def chapters(): return sorted((ROOT/"nbs").glob("[0-9]0_*.ipynb"))


def code_hash(path):
    "What a chapter's outputs depend on, as far as the chapter itself says."
    cells = [c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
    return hashlib.sha256("\0".join(cells).encode()).hexdigest()[:16]


def kept(output):
    "An output as it is kept; None for noise."
    if output.output_type == "error": raise ValueError(f"{output.ename}: {output.evalue}")
    if output.get("name") == "stderr" or str(output.get("data",
                                                        {}).get("text/plain", "")).startswith("Loading weights"):
        return None
    if output.output_type == "stream":
        output.text = "".join(line for line in output.text.splitlines(True) if not NOISE.search(line))
        if not output.text.strip(): return None
    if "execution_count" in output: output.execution_count = None
    return output


def rerun(path):
    "Run a chapter and put its outputs into it."
    out = ROOT/"runs"/"notebooks"/path.name
    out.parent.mkdir(parents=True, exist_ok=True)
    env = dict(os.environ, TQDM_DISABLE="1", HF_HUB_DISABLE_PROGRESS_BARS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    subprocess.run([sys.executable, "-m", "papermill", "--kernel", "python3", "--no-progress-bar", str(path), str(out)],
                   cwd=ROOT, env=env, check=True)
    ran, own = [c for c in nbformat.read(out, 4).cells if c.cell_type == "code"], nbformat.read(path, 4)
    ran = [c for c in ran if "injected-parameters" not in c.metadata.get("tags", [])]
    for cell, fresh in zip((c for c in own.cells if c.cell_type == "code"), ran, strict=True):
        if cell.source != fresh.source: raise ValueError(f"{out}: its cells are not those of {path}")
        cell.outputs, cell.execution_count = [o for o in map(kept, fresh.outputs) if o is not None], None
    nbformat.write(own, path)


def stale():
    "Chapters whose outputs come from another text of their code."
    known = json.loads(STORE.read_text("utf-8")) if STORE.is_file() else {}
    return [p for p in chapters() if known.get(p.stem) != code_hash(p)]


def main():
    if "--check" in sys.argv:
        old = stale()
        for p in old: print(f"{p.relative_to(ROOT)}: its outputs are older than its code; `make notebooks` runs it")
        sys.exit(bool(old))
    known = json.loads(STORE.read_text("utf-8")) if STORE.is_file() else {}
    for path in (p for p in chapters() if len(sys.argv) < 2 or p.name[:2] in sys.argv[1:]):
        rerun(path)
        known[path.stem] = code_hash(path)
        STORE.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", "utf-8")
        print(f"{path.relative_to(ROOT)}: outputs kept", flush=True)


if __name__ == "__main__": main()
