"A hall refuses bad parameters before it does any work."
import os
import subprocess
import sys

import pytest

from vsgrpo.vsi100k import RoomsSpec, build_rooms

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

def test_two_runs_begin_in_one_second(tmp_path, root):
    "Each has its folder, and both end well; the clock stands still for the names of their folders."
    build_rooms(tmp_path/"data", RoomsSpec(3, 1, 2), workers=1)
    (tmp_path/"sitecustomize.py").write_text("import time\nhonest = time.strftime\ntime.strftime = lambda form, *t: '20261125-101112' if form == '%Y%m%d-%H%M%S' else honest(form, *t)")
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(tmp_path), str(root)]))
    given = dict(scale="smoke", data="data", steps=1, num_generations=2, max_new_tokens=2, probe_every=0, test_scenes=2)
    runs = []
    for k in (1, 2):
        call = [sys.executable, "-m", "papermill", "--kernel", "python3", "--no-progress-bar", str(root/"nbs/20_grpo.ipynb"), f"out{k}.ipynb", *(x for p in given.items() for x in ("-p", p[0], str(p[1])))]
        runs.append(subprocess.Popen(call, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))
    for p in runs:
        said = p.communicate(timeout=900)[1]
        assert p.returncode == 0, said[-1500:]
    assert sorted(f.parent.name for f in tmp_path.glob("runs/*/scores.csv")) == ["grpo-tiny-vanilla-s0-20261125-101112", "grpo-tiny-vanilla-s0-20261125-101112-2"]
