"Broken files: a short form of bench/fuzz.py."
import json
import subprocess
import sys

import pytest

from vsgrpo.doctor import repo_root


@pytest.mark.parametrize("what, n, refused", [("scans", 1300, 1000), ("runs", 620, 300)])
def test_broken_files_are_refused_by_name(what, n, refused):
    run = subprocess.run([sys.executable, "bench/fuzz.py", "--what", what, "--n", str(n), "--seed", "7"],
                         cwd=repo_root(), capture_output=True, text=True, timeout=300)
    result = json.loads(run.stdout.splitlines()[-1])
    assert run.returncode == 0 and result["wrong"] == 0, run.stdout[-2000:]
    assert result["ends"]["refused"] > refused
