"A chapter refuses bad parameters before it does any work."
import json
import math

import pytest
from chapters import first_error

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
    assert words in first_error("20_grpo", scale="smoke", out=str(tmp_path/"run"), **given)
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
