"A chapter refuses bad parameters before it does any work."
import json
import math
import os
import shutil
import subprocess
import sys

import pytest
from chapters import assert_refused

from vsgrpo.doctor import KINDS

@pytest.mark.parametrize("given, words", [
    (dict(modle="7B"), "-p modle: no such parameter, did you mean mode"),
    (dict(num_generations=1), "num_generations is 1: wanted at least 2"),
    (dict(data="nbs"), "no train.parquet"),
    (dict(study="kl"), "pass -p mode think"),
    (dict(push_to_hub="nobody"), "push_to_hub is 'nobody', wanted owner/name"),
    (dict(report_to="pigeon"), "report_to is 'pigeon': wanted one of"),
    (dict(rewards="acuracy"), "'acuracy' is not a term"),
    (dict(mode="think"), "mode is 'think': wanted vanilla: model 'tiny' keeps no tag"),
    (dict(seed=4294967296), "-p seed is 4294967296: wanted a whole number"),
    (dict(num_processes=3), "num_processes is 3: wanted a divisor of questions_per_step 2"),
])
def test_grpo_refuses(tmp_path, given, words):
    assert_refused("20_grpo", words, tmp_path/"run", **given)

OTHER_KINDS = {"int": ["8", "[1,2]", 2.5, True, math.inf, 2**32], "float": ["0.1", [1], True, math.nan, math.inf],
               "bool": [1, "True", []], "str": [20261125, 1.5, True, ["a"]]}

@pytest.mark.parametrize("chapter", ["00_prompting", "10_build_vsi100k", "20_grpo", "30_baselines", "40_general_eval"])
def test_each_parameter_refuses_each_other_kind_by_name(root, chapter):
    "The parameters cell and the one that checks it, as papermill runs them, without a kernel."
    cells = ["".join(c["source"]) for c in json.loads((root/"nbs"/f"{chapter}.ipynb").read_text("utf-8"))["cells"]
             if c["cell_type"] == "code"]
    given = next(c for c in cells if c.startswith(("scale: str", "study: str", "methods: str")))
    check = next(c for c in cells if "refuse_unknown(globals()" in c)
    def run(**kw):
        namespace = {"In": [given, "# Parameters\n" + "".join(f"{k} = 0\n" for k in kw), check]}
        exec(given, namespace)
        namespace.update(kw)
        exec(check, namespace)
        return namespace
    values = run()
    kinds = {name: kind.__name__ for name, kind in values["__annotations__"].items()}
    assert set(kinds.values()) <= {k.__name__ for k in KINDS} and {"scale", "out", "seed"} <= set(kinds)
    for name, kind in kinds.items():
        for value in OTHER_KINDS[kind]:
            with pytest.raises(ValueError, match=f"^-p {name} is "): run(**{name: value})
    for value in (-1, 2**32):
        with pytest.raises(ValueError, match=f"-p seed is {value}: wanted"): run(seed=value)
    run(seed=2**32 - 1)

@pytest.mark.slow
def test_two_runs_begin_in_one_second(built_rooms, tmp_path, root):
    "Each has its own folder, and both succeed; the clock is fixed in the names of their folders."
    shutil.copytree(built_rooms(3, 1, 2), tmp_path/"data")
    (tmp_path/"sitecustomize.py").write_text("import time\nhonest = time.strftime\ntime.strftime = lambda form, *t: "
                                             "'20261125-101112' if form == '%Y%m%d-%H%M%S' else honest(form, *t)")
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(tmp_path), str(root)]))
    given = dict(scale="smoke", data="data", steps=1, num_generations=2, max_new_tokens=2, probe_every=0, test_scenes=2)
    runs = []
    for k in (1, 2):
        call = [sys.executable, "-m", "papermill", "--kernel", "python3", "--no-progress-bar",
                str(root/"nbs/20_grpo.ipynb"), f"out{k}.ipynb",
                *(x for p in given.items() for x in ("-p", p[0], str(p[1])))]
        runs.append(subprocess.Popen(call, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                     text=True))
    for p in runs:
        errors = p.communicate(timeout=900)[1]
        assert p.returncode == 0, errors[-1500:]
    assert sorted(f.parent.name for f in tmp_path.glob("runs/*/scores.csv")) == ["grpo-tiny-vanilla-s0-20261125-101112",
                                                                                 "grpo-tiny-vanilla-s0-20261125-101112-2"]
