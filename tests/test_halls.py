"A hall refuses bad parameters before it does any work."
import json
import math
import os
import subprocess
import sys

import pytest

from vsgrpo.doctor import KINDS

@pytest.mark.parametrize("given, words", [
    (("modle", "7B"), "-p modle: no such parameter, did you mean mode"),
    (("num_generations", "1"), "num_generations is 1: wanted at least 2"),
    (("data", "nbs"), "no train.parquet"),
    (("study", "kl"), "pass -p mode think"),
    (("push_to_hub", "nobody"), "push_to_hub is 'nobody', wanted owner/name"),
    (("report_to", "pigeon"), "report_to is 'pigeon': wanted one of"),
    (("rewards", "acuracy"), "'acuracy' is not a term"),
    (("mode", "think"), "mode is 'think': wanted vanilla: model 'tiny' keeps no tag"),
    (("seed", "4294967296"), "-p seed is 4294967296: wanted a whole number"),
    (("num_processes", "3"), "num_processes is 3: wanted a divisor of questions_per_step 2"),
])
def test_grpo_refuses(tmp_path, root, given, words):
    env = dict(os.environ, PYTHONPATH=str(root))
    call = [sys.executable, "-m", "papermill", "--kernel", "python3", "--no-progress-bar", "nbs/20_grpo.ipynb", str(tmp_path/"out.ipynb"),
            "-p", "scale", "smoke", "-p", "out", str(tmp_path/"run"), "-p", *given]
    done = subprocess.run(call, cwd=root, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and words in done.stderr, done.stderr[-1500:]
    assert not (tmp_path/"run").exists()

OTHER_KINDS = {"int": ["8", "[1,2]", 2.5, True, math.inf, 2**32], "float": ["0.1", [1], True, math.nan, math.inf], "bool": [1, "True", []], "str": [20261125, 1.5, True, ["a"]]}

@pytest.mark.parametrize("chapter", ["00_prompting", "10_build_vsi100k", "20_grpo", "30_baselines", "40_general_eval"])
def test_each_parameter_refuses_each_other_kind_by_name(root, chapter):
    "The parameters cell and the one that checks it, as papermill runs them, without a kernel."
    cells = ["".join(c["source"]) for c in json.loads((root/"nbs"/f"{chapter}.ipynb").read_text("utf-8"))["cells"] if c["cell_type"] == "code"]
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
