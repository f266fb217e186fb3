"Run the cells of a chapter in this process, as papermill would with these parameters."
import json
import os
from pathlib import Path

from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

ROOT = Path(__file__).resolve().parents[1]


def run_chapter(
    chapter, # name of a notebook in nbs/
    skip_tests=False, # leave out cells without a directive behind the check of the parameters: they are examples
    **parameters, # what `papermill -p` would give
): # the error at which it ends, or None
    "Run a chapter's cells."
    cells = json.loads((ROOT/"nbs"/f"{chapter}.ipynb").read_text("utf-8"))["cells"]
    shell, folder, checked = InteractiveShell(), os.getcwd(), False
    os.chdir(ROOT)
    try:
        for cell in cells:
            if cell["cell_type"] != "code": continue
            sources = ["".join(cell["source"])]
            if skip_tests and checked and not sources[0].startswith("#|"): continue
            checked |= "refuse_unknown(" in sources[0]
            if "parameters" in cell["metadata"].get("tags", []):
                sources += ["# Parameters\n" + "".join(f"{name} = {value!r}\n" for name, value in parameters.items())]
            for source in sources:
                with capture_output(): result = shell.run_cell(source, store_history=True)
                error = result.error_before_exec or result.error_in_exec
                if error: return error
    finally: os.chdir(folder)


def assert_refused(chapter, words, folder, **parameters):
    "A chapter at smoke scale ends with an error of these words, before it makes its run folder."
    error = run_chapter(chapter, skip_tests=True, scale="smoke", out=str(folder), **parameters)
    assert error, f"{chapter} ran to its end with {parameters}"
    assert words in f"{type(error).__name__}: {error}", error
    assert not folder.exists()
