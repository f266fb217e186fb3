"The doctor: roots, locks, misfits, unreachable hubs, and settings that papermill would let pass."
import json, re, subprocess, sys

import pytest

from vsgrpo import doctor
from vsgrpo.doctor import as_text, cgroup_free, hub_reachable, import_troubles, known_trouble, misfits, read_lock, refuse_unknown, repo_root, report


def test_root_is_found_from_below_and_not_mistaken(tmp_path, root, monkeypatch):
    assert repo_root(root/"nbs") == repo_root(root/"no"/"such"/"folder") == root
    (tmp_path/"settings.ini").write_text("[DEFAULT]\nlib_name = another\n")
    monkeypatch.chdir(tmp_path)
    assert repo_root() == tmp_path
    (tmp_path/"a"/"b").mkdir(parents=True)
    (tmp_path/"a"/"settings.ini").write_text("[DEFAULT]\nlib_name = vsgrpo\n")
    assert repo_root(tmp_path/"a"/"b") == tmp_path/"a"


def test_lock(tmp_path):
    p = tmp_path/"requirements.lock"
    p.write_text("# tested\n\ntorch==2.13.0   # first\nav==18.1.0\n")
    assert read_lock(p) == {"torch": "2.13.0", "av": "18.1.0"}
    p.write_text("torch>=2\n")
    with pytest.raises(ValueError, match=r"requirements.lock:1: 'torch>=2', expected name==version"): read_lock(p)
    with pytest.raises(FileNotFoundError, match="none.lock"): read_lock(tmp_path/"none.lock")


def test_misfits_in_words():
    lock = {"torch": "2.13.0", "av": "18.1.0", "trl": "1.16.0"}
    assert misfits(lock, {"torch": "2.13.0+cu130", "av": "18.1.0", "trl": "1.16.0"}) == []
    assert misfits(lock, {"torch": "2.11.0", "av": "18.1.0"}) == ["torch 2.11.0 is installed, 2.13.0 was tested", "trl is not installed, 1.16.0 was tested"]
    assert misfits({"no-such-package-vsgrpo": "1.0"}) == ["no-such-package-vsgrpo is not installed, 1.0 was tested"]


@pytest.mark.parametrize("have, n", [
    ({"torch": "2.13.0", "torchvision": "0.28.0"}, 0), ({"torch": "2.11.0+cu130", "torchvision": "0.26.0"}, 0), ({"torch": "2.11.0", "torchvision": "0.28.0"}, 1),
    ({"nbdev": "3.0.1"}, 1), ({"nbdev": "2.4.14", "execnb": "0.1.18", "fastcore": "1.12.47"}, 0), ({"execnb": "0.2.0", "fastcore": "1.13.1"}, 2), ({"torch": "2.13.0", "torchvision": None}, 0)])
def test_known_trouble(have, n): assert len(known_trouble(have)) == n


def test_old_python_is_named(monkeypatch):
    monkeypatch.setattr(doctor.sys, "version_info", (3, 10, 1))
    assert "too old" in known_trouble({})[0]


def test_modules_that_do_not_load(tmp_path, monkeypatch):
    (tmp_path/"broken_lib.py").write_text("raise OSError('libGL.so.1: cannot open shared object file')")
    (tmp_path/"broken_dep.py").write_text("import no_such_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    assert import_troubles(("broken_lib", "broken_dep", "not_installed_at_all")) == [
        "broken_lib does not load: libGL.so.1: cannot open shared object file", "broken_dep does not load: it needs no_such_dependency"]


def test_container_limit(tmp_path):
    assert cgroup_free(tmp_path) is None
    (tmp_path/"memory.current").write_text("30\n"); (tmp_path/"memory.max").write_text("100\n")
    assert cgroup_free(tmp_path) == 70


def test_hub_never_raises(monkeypatch):
    for name in ("HF_HUB_OFFLINE", "HF_ENDPOINT"): monkeypatch.delenv(name, raising=False)
    for url in ("http://127.0.0.1:9", "http://[bad", "no url", "http://name.invalid"): assert "does not answer" in hub_reachable(url, timeout_s=1)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "127.0.0.1:9 does not answer" in hub_reachable(timeout_s=1)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub_reachable().startswith("not asked")


def test_hub_answers(monkeypatch):
    import http.server, threading
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200 if self.path == "/" else 404); self.end_headers()
        def log_message(self, *a): pass
    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    url = f"http://127.0.0.1:{server.server_port}"
    assert hub_reachable(url+"/").endswith("answers (200)") and "404" in hub_reachable(url+"/x")
    server.shutdown()


def test_report_and_text(root):
    r = report(hub=False, root=root)
    assert r == json.loads(json.dumps(r)) and r["lock"] == len(read_lock(root/"requirements.lock"))
    text = as_text(r)
    for word in ("Python", "torch", "Against requirements.lock", "Cores", "Free memory", "Hub: not asked"): assert word in text
    assert "psutil is not installed" in as_text({**r, "free_memory_gib": None})


def test_as_a_module(root):
    run = subprocess.run([sys.executable, "-m", "vsgrpo.doctor", "--json", "--no-hub"], cwd=root, capture_output=True, text=True)
    assert run.returncode in (0, 1) and json.loads(run.stdout)["hub"] == "not asked" and not run.stderr


def test_import_is_light():
    subprocess.run([sys.executable, "-c", "import sys, vsgrpo.doctor; assert not {'torch', 'numpy', 'av'} & set(sys.modules)"], check=True)


def test_unknown_parameters_are_refused():
    names = ["model", "steps", "lr"]
    def given(text): refuse_unknown({"In": ["", "model = 'tiny'", f"# Parameters\n{text}\n"]}, names)
    given("model = 'tiny'\nlr = 1e-5")
    with pytest.raises(ValueError, match="-p stesp: no such parameter, did you mean steps.*There are: model, steps, lr"): given("stesp = 3")
    with pytest.raises(ValueError, match="-p qqq: no such parameter There are"): given("qqq = [1, 2]")


def test_unknown_parameters_are_refused_through_papermill(tmp_path):
    nbformat, pm = pytest.importorskip("nbformat"), pytest.importorskip("papermill")
    cell = nbformat.v4.new_code_cell
    nb = nbformat.v4.new_notebook(cells=[cell("steps: int = 2", metadata={"tags": ["parameters"]}), cell("from vsgrpo.doctor import refuse_unknown\nrefuse_unknown(globals(), ['steps'])")],
                                  metadata={"kernelspec": {"name": "python3", "language": "python", "display_name": "python3"}})
    nbformat.write(nb, tmp_path/"a.ipynb")
    pm.execute_notebook(tmp_path/"a.ipynb", tmp_path/"b.ipynb", {"steps": 3}, kernel_name="python3", progress_bar=False)
    with pytest.raises(pm.PapermillExecutionError, match=re.escape("-p step: no such parameter")):
        pm.execute_notebook(tmp_path/"a.ipynb", tmp_path/"b.ipynb", {"step": 3}, kernel_name="python3", progress_bar=False)
