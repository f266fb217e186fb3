"""Does chapter 20 run as it is on a folder of the real size?

    .venv/bin/python bench/real_shape.py               # widths and vocabulary of the 2B, one layer kept, random weights
    .venv/bin/python bench/real_shape.py --shape 7B    # of the 7B

The folder is what a download would be: the real configuration (its vision tower in full size but for the layers), the
tiny model's words under the real ids, safetensors. `papermill nbs/20_grpo.ipynb -p model FOLDER -p scale smoke` then
does the whole job on generated rooms: the plan with its memory, LoRA with gradient checkpointing, reference,
evaluation. Nothing is learnt. The last line is one JSON object.
"""
import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from grpo_step import make
from vsgrpo.doctor import repo_root
from vsgrpo.evaluation.records import Run


def save_model(folder, shape, layers):
    "Write the model folder: its size in bytes and the number of its parameters."
    model, processor, _ = make(shape, "cpu", layers)
    model = model.unload() if hasattr(model, "unload") else model
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return sum(f.stat().st_size for f in folder.iterdir()), sum(x.numel() for x in model.parameters())


def run_chapter(root, tmp, frames):
    "Chapter 20 on the model folder, at smoke scale."
    parameters = dict(model=tmp/"model", scale="smoke", frames=frames, out=tmp/"run", max_new_tokens=8, test_scenes=2,
                      questions_per_scene=2)
    call = [sys.executable, "-m", "papermill", "--kernel", "python3", "--no-progress-bar",
            str(root/"nbs/20_grpo.ipynb"), str(tmp/"out.ipynb")]
    for name, value in parameters.items(): call += ["-p", name, str(value)]
    subprocess.run(call, cwd=root, check=True)


def printed_plan(notebook):
    "What the chapter printed about the memory of a step."
    for cell in json.loads(notebook.read_text())["cells"]:
        if "print(plan(" not in "".join(cell["source"]): continue
        for output in cell["outputs"]:
            text = "".join(output.get("text", ""))
            if output["output_type"] == "stream" and "memory of a step" in text: return text
    raise ValueError(f"{notebook}: the plan is not printed")


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--shape", choices=["2B", "7B"], default="2B")
    p.add_argument("--layers", type=int, default=1)
    p.add_argument("--frames", type=int, default=4)
    args = p.parse_args()
    root, tmp, start = repo_root(), Path(tempfile.mkdtemp()), time.time()
    try:
        size, parameters = save_model(tmp/"model", args.shape, args.layers)
        run_chapter(root, tmp, args.frames)
        print(printed_plan(tmp/"out.ipynb"))
        settings, metrics = Run(tmp/"run").read_settings()["settings"], Run(tmp/"run").read_metrics()
        result = dict(
            bench="real_shape",
            shape=args.shape,
            layers=args.layers,
            parameters=parameters,
            gigabytes=round(size/2**30, 2),
            lr=settings["lr"],
            gradient_checkpointing=settings["gradient_checkpointing"],
            pixels=settings["video"]["max_pixels"],
            frames=settings["video"]["frames"],
            steps=len(metrics),
            vision_tokens=int(metrics.vision_tokens.iloc[0]),
            arms=sorted(pd.read_csv(tmp/"run/scores.csv").arm.unique()),
            adapter=sorted(f.name for f in (tmp/"run/adapter").iterdir()),
            peak_gib=round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss/2**20, 1),
            seconds=round(time.time() - start))
    finally: shutil.rmtree(tmp)
    print(json.dumps(result))


if __name__ == "__main__": sys.exit(main())
