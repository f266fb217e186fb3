"JupyterLab as `make lab` starts it, in a real browser: open, save, run, click, and see the picture change."
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from browser import CHROMIUM, Browser

from vsgrpo.evaluation.records import Run
from vsgrpo.training.resume import is_running
from vsgrpo.training.run_process import finish, start
from vsgrpo.training.runs import begin, read_run

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: JupyterLab is not opened")

# JavaScript: the n-th menu with a word in its label; choose its next entry; run the cell that follows a training
MENU = ("[...document.querySelectorAll('.widget-dropdown')].filter(w => w.textContent.includes('%s'))[%d]"
        "?.querySelector('select')")
PICK = f"""(() => {{
  const menu = {MENU}
  menu.selectedIndex = (menu.selectedIndex + 1) %% menu.options.length
  menu.dispatchEvent(new Event('change', {{bubbles: true}}))
}})()"""
RUN_FOLLOW = """(() => {
  const book = jupyterapp.shell.currentWidget.content
  book.activeCellIndex = book.widgets.findIndex(c => c.model.sharedModel.getSource().includes('follow(run'))
  book.deselectAll()
  jupyterapp.commands.execute('notebook:run-cell')
})()"""
IMAGE = "document.querySelector('img.widget-image')?.src"
PLOT = "document.querySelector('.jupyter-widgets .js-plotly-plot .gtitle')?.textContent"
PAGES = "[...document.querySelectorAll('.widget-html-content')].map(w => w.innerHTML).join()"
IDLE = "jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status == 'idle'"

@pytest.fixture(scope="module")
def lab(root, tmp_path_factory):
    "A server on a free port, with its settings in a folder of its own."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    home = tmp_path_factory.mktemp("jupyter")
    plugin = home/"settings"/"@jupyterlab"/"docmanager-extension"/"plugin.jupyterlab-settings"
    plugin.parent.mkdir(parents=True)
    plugin.write_text('{"autosave": false}')    # a test that runs cells leaves the repository's notebook as it is
    env = {k: v for k, v in os.environ.items() if k not in ("JUPYTER_PATH", "MPLBACKEND")}
    env |= dict(PYTHONPATH=str(root), JUPYTER_CONFIG_DIR=str(home/"config"), JUPYTER_RUNTIME_DIR=str(home/"runtime"),
                IPYTHONDIR=str(home/"ipython"))
    config = re.search(r"-m jupyterlab nbs (--config=\S+)", (root/"Makefile").read_text("utf-8"))[1]
    call = [sys.executable, "-m", "jupyterlab", str(root/"nbs"), "--no-browser", config, "--allow-root",
            f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=",
            "--ServerApp.password=",
            "--LabApp.expose_app_in_browser=True", f"--LabApp.workspaces_dir={home/'workspaces'}",
            f"--LabApp.user_settings_dir={home/'settings'}", "--FileContentsManager.delete_to_trash=False"]
    with open(home/"log", "w") as log: server = subprocess.Popen(call, env=env, stdout=log, stderr=log, cwd=root)
    try:
        for _ in range(300):
            try: urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=2).close()
            except OSError: time.sleep(.2)
            else: break
        else: raise TimeoutError((home/"log").read_text()[-800:])
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)

def open_notebook(browser, lab, name):
    "Open a notebook and wait until its kernel is idle."
    browser.open(f"{lab}/lab/tree/{name}?reset")
    browser.wait("window.jupyterapp && document.querySelectorAll('.jp-Notebook .jp-Cell').length > 5", 90)
    browser.wait(IDLE, 90)

def test_no_question_about_news(lab):
    "The extension that asks is disabled in the served page, and no message pops up."
    page = urllib.request.urlopen(f"{lab}/lab", timeout=30).read().decode()
    settings = json.loads(re.search(r'id="jupyter-config-data" type="application/json">(.*?)</script>', page, re.S)[1])
    assert "@jupyterlab/apputils-extension:announcements" in settings["disabledExtensions"]
    assert not settings["buildCheck"] and not settings["buildAvailable"]
    with Browser(1400, 1000) as b:
        open_notebook(b, lab, "index.ipynb")
        assert b.js("document.querySelector('.Toastify__toast, .jp-Dialog')?.textContent") is None
        assert not [url for url in b.requests if re.search(r"/lab/api/(news|update)", url)]

@pytest.mark.parametrize("name", ["index.ipynb", "20_grpo.ipynb"])
def test_saving_leaves_git_clean(lab, root, name):
    "Opened and saved without a change, as autosave does it, a notebook keeps its bytes; tags and outputs stay."
    path = root/"nbs"/name
    before, written = path.read_bytes(), path.stat().st_mtime_ns
    try:
        with Browser(1400, 1000) as b:
            open_notebook(b, lab, name)
            b.js("jupyterapp.commands.execute('docmanager:save')")
            for _ in range(150):
                if path.stat().st_mtime_ns != written: break
                time.sleep(.2)
            else: raise TimeoutError("not saved")
            b.wait("!jupyterapp.shell.currentWidget.context.model.dirty")
        assert path.read_bytes() == before
    finally:
        if path.read_bytes() != before: path.write_bytes(before)

@pytest.fixture
def landings(root):
    "The runs of the landing notebook that exist already; those that a test adds are removed."
    there = set((root/"runs").glob("grpo-landing-*"))
    yield there
    for folder in set((root/"runs").glob("grpo-landing-*")) - there: shutil.rmtree(folder)

def test_landing(lab, root, landings):
    before = (root/"nbs"/"index.ipynb").read_bytes()
    with Browser(1400, 6000) as b:
        open_notebook(b, lab, "index.ipynb")
        b.js("jupyterapp.commands.execute('notebook:run-all-cells')")
        def changes(what, menu, number=0):
            "Choose the next entry of a menu once the page is at rest, and see something change."
            b.wait((MENU + "?.selectedIndex >= 0") % (menu, number), 60)      # it is drawn before its entry is set
            b.js("window.before = null")
            b.wait(f"{what} && (window.before == {what} || (window.before = {what}, false))", 60)
            b.js(PICK % (menu, number))
            b.wait(f"{what} && {what} != window.before", 60)
        b.wait(IMAGE, 180)
        b.wait(PLOT, 60)
        b.wait("/step \\d+ of 20/.test(document.body.textContent)", 120)
        b.wait("document.querySelector('.jp-RenderedImage img') != null", 60)       # curves of the training
        # menus answer when no cell is running
        b.wait("[...jupyterapp.shell.currentWidget.content.widgets].every(c => c.model.type != 'code' || "
               "c.model.executionCount)", 180)
        b.wait(IDLE, 60)
        assert b.js("document.querySelectorAll('.widget-upload').length") == 1     # ask about your own video
        changes(PLOT, "type")
        changes(IMAGE, "scene")
        changes(PAGES, "completion")
        changes(PAGES, "step", 1)                           # of the reward lab
        assert not [e for e in b.errors if "404" not in e], b.errors[:3]
        # a training that is interrupted ends, and can be resumed
        seen = set((root/"runs").glob("grpo-landing-*"))
        b.js(RUN_FOLLOW)
        for _ in range(300):
            new = set((root/"runs").glob("grpo-landing-*/metrics.jsonl")) - {p/"metrics.jsonl" for p in seen}
            if new: break
            time.sleep(.2)
        b.js("jupyterapp.commands.execute('notebook:interrupt-kernel')")
        b.wait("document.body.textContent.includes('KeyboardInterrupt')", 60)
        folder = new.pop().parent
        assert not is_running(folder) and not (folder/"scores.csv").exists()
        s, data = read_run(folder)
        begin(s, data, folder, resume=True)
        finish(start(folder), folder)
        assert (folder/"scores.csv").is_file() and len(Run(folder).read_metrics()) == 20
    assert (root/"nbs"/"index.ipynb").read_bytes() == before
