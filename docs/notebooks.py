"""Run the chapters at their default scale and keep their outputs in `nbs/`.

    python docs/notebooks.py              # all chapters, a quarter of an hour on 2 cores
    python docs/notebooks.py 20 30        # some
    python docs/notebooks.py --check      # list chapters whose outputs are older than their code (exit status 1 if any)

The code of a chapter is the text of its code cells; `docs/outputs.json` records from which text the kept outputs come.
Progress bars and warnings are left out.
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


def read_store(): return json.loads(STORE.read_text("utf-8")) if STORE.is_file() else {}


def code_cells(nb): return [cell for cell in nb.cells if cell.cell_type == "code"]


def code_hash(path):
    "Hash of a chapter's code cells."
    sources = [cell.source for cell in code_cells(nbformat.read(path, 4))]
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()[:16]


def kept(output):
    "An output in the form in which it is kept; None for noise."
    if output.output_type == "error": raise ValueError(f"{output.ename}: {output.evalue}")
    text = str(output.get("data", {}).get("text/plain", ""))
    if output.get("name") == "stderr" or text.startswith("Loading weights"): return None
    if output.output_type == "stream":
        output.text = "".join(line for line in output.text.splitlines(True) if not NOISE.search(line))
        if not output.text.strip(): return None
    if "execution_count" in output: output.execution_count = None
    return output


def run_chapter(path):
    "Run a chapter with papermill; return the notebook that it wrote."
    out = ROOT/"runs"/"notebooks"/path.name
    out.parent.mkdir(parents=True, exist_ok=True)
    env = dict(os.environ, TQDM_DISABLE="1", HF_HUB_DISABLE_PROGRESS_BARS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    subprocess.run([sys.executable, "-m", "papermill", "--kernel", "python3", "--no-progress-bar", str(path), str(out)],
                   cwd=ROOT, env=env, check=True)
    return out


def keep_outputs(path, out):
    "Copy the outputs of the executed notebook into the chapter."
    chapter = nbformat.read(path, 4)
    ran = [cell for cell in code_cells(nbformat.read(out, 4))
           if "injected-parameters" not in cell.metadata.get("tags", [])]
    for cell, fresh in zip(code_cells(chapter), ran, strict=True):
        if cell.source != fresh.source: raise ValueError(f"{out}: its cells are not those of {path}")
        outputs = [kept(output) for output in fresh.outputs]
        cell.outputs, cell.execution_count = [output for output in outputs if output is not None], None
    nbformat.write(chapter, path)


def stale():
    "Chapters whose outputs come from other code than they hold now."
    known = read_store()
    return [path for path in chapters() if known.get(path.stem) != code_hash(path)]


def main():
    if "--check" in sys.argv:
        old = stale()
        for path in old:
            print(f"{path.relative_to(ROOT)}: its outputs are older than its code; `make notebooks` runs it")
        sys.exit(bool(old))
    known = read_store()
    for path in chapters():
        if len(sys.argv) > 1 and path.name[:2] not in sys.argv[1:]: continue
        keep_outputs(path, run_chapter(path))
        known[path.stem] = code_hash(path)
        STORE.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", "utf-8")
        print(f"{path.relative_to(ROOT)}: outputs kept", flush=True)


if __name__ == "__main__": main()
