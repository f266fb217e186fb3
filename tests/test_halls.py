"A hall refuses bad parameters before it does any work."
import os
import subprocess
import sys

import pytest

@pytest.mark.parametrize("given, words", [
    (("modle", "7B"), "-p modle: no such parameter, did you mean mode"),
    (("num_generations", "1"), "num_generations is 1: wanted at least 2"),
    (("data", "nbs"), "no train.parquet"),
    (("study", "kl"), "pass -p mode think"),
    (("push_to_hub", "nobody"), "push_to_hub is 'nobody', wanted owner/name"),
    (("report_to", "pigeon"), "report_to is 'pigeon': wanted one of"),
    (("rewards", "acuracy"), "'acuracy' is not a term"),
    (("num_processes", "3"), "num_processes is 3: wanted a divisor of questions_per_step 2"),
])
def test_grpo_refuses(tmp_path, root, given, words):
    env = dict(os.environ, PYTHONPATH=str(root))
    call = [sys.executable, "-m", "papermill", "--kernel", "python3", "--no-progress-bar", "nbs/20_grpo.ipynb", str(tmp_path/"out.ipynb"),
            "-p", "scale", "smoke", "-p", "out", str(tmp_path/"run"), "-p", *given]
    done = subprocess.run(call, cwd=root, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and words in done.stderr, done.stderr[-1500:]
    assert not (tmp_path/"run").exists()
