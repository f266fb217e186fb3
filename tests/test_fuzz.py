"Broken files: a short form of bench/fuzz.py."
import json
import subprocess
import sys

from vsgrpo.doctor import repo_root

def test_broken_files_are_refused_by_name():
    run = subprocess.run([sys.executable, "bench/fuzz.py", "--n", "1300", "--seed", "7"], cwd=repo_root(), capture_output=True, text=True, timeout=300)
    told = json.loads(run.stdout.splitlines()[-1])
    assert run.returncode == 0 and told["wrong"] == 0, run.stdout[-2000:]
    assert told["ends"]["refused"] > 1000
