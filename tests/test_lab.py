"The landing notebook in JupyterLab, in a real browser: open, run, click, and see the picture change."
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
    plugin.write_text('{"autosave": false}')                    # the notebook of the repository is not to be written
    env = {k: v for k, v in os.environ.items() if k not in ("JUPYTER_PATH", "MPLBACKEND")}
    env |= dict(PYTHONPATH=str(root), JUPYTER_CONFIG_DIR=str(home/"config"), JUPYTER_RUNTIME_DIR=str(home/"runtime"),
                IPYTHONDIR=str(home/"ipython"))
    quiet = re.search(r"--ServerApp.tornado_settings='(.*)'", (root/"Makefile").read_text("utf-8"))[1]
    call = [sys.executable, "-m", "jupyterlab", str(root/"nbs"), "--no-browser",
            f"--ServerApp.tornado_settings={quiet}", "--allow-root", f"--ServerApp.port={port}",
            "--ServerApp.port_retries=0", "--IdentityProvider.token=", "--ServerApp.password=",
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

@pytest.fixture
def landings(root):
    "The runs of the landing notebook that are there already; those that a test adds are removed."
    there = set((root/"runs").glob("grpo-landing-*"))
    yield there
    for folder in set((root/"runs").glob("grpo-landing-*")) - there: shutil.rmtree(folder)

def test_landing(lab, root, landings):
    before = (root/"nbs"/"index.ipynb").read_bytes()
    with Browser(1400, 6000) as b:
        b.open(f"{lab}/lab/tree/index.ipynb?reset")
        b.wait("window.jupyterapp && document.querySelectorAll('.jp-Notebook .jp-Cell').length > 5", 90)
        b.wait(IDLE, 60)
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
        changes(PLOT, "kind")
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
