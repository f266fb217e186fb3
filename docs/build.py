"""Build the site from the notebooks as they are committed, with their outputs: no network, nothing is run.

    python docs/build.py [OUT]      # OUT: _docs

Notebooks become pages: their directives are dropped, plots of plotly stay alive, widgets are left to their static twins. Modules get pages made of
their docments. Everything a page needs lies beside it.
"""
import html
import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

ROOT, HERE = Path(__file__).parents[1], Path(__file__).parent
WINGS = ("The benchmark", "The data", "The method", "The baselines", "General ability")
REPO = "https://github.com/vsgrpo/vsgrpo/blob/main/"
sys.path.insert(0, str(ROOT))


def title_of(nb):
    return next(c.source for c in nb.cells if c.cell_type == "markdown").splitlines()[0].removeprefix("# ").strip()


def code(source):
    "Code as a reader wants it: without nbdev's directives."
    return "\n".join(x for x in source.splitlines() if not x.startswith("#|")).strip("\n")


def text(source):
    "Links out of nbs/ lead to the repository."
    return re.sub(r"\]\((\.\./[^)]+)\)", lambda m: f"]({REPO}{m[1].removeprefix('../')})", source)


def alt(cell, heading):
    "What a picture shows, for those who do not see it: the call that drew it, and the section."
    last = [x for x in code(cell.source).splitlines() if x.strip() and not x.startswith((" ", ")", "]"))]
    return f"{heading}: {last[-1][:120] if last else 'figure'}".replace("\n", " ")


def plot(figure, number):
    "A plotly figure as a block that draws itself with the library beside the page."
    data = json.dumps({"data": figure["data"], "layout": figure.get("layout", {})}).replace("</", "<\\/")
    return f'<div id="plot-{number}" class="plot" role="img" aria-label="interactive 3D figure"></div><script src="../_static/plotly.min.js"></script><script>(f => Plotly.newPlot("plot-{number}", f.data, f.layout, {{responsive: true, displaylogo: false}}))({data})</script>'


def stage_notebook(path, out):
    "One notebook as Sphinx is to read it."
    nb, heading, cells, plots = nbformat.read(path, 4), "", [], 0
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            if found := re.findall(r"^#+ (.*)$", cell.source, re.M): heading = found[-1]
            cells.append(nbformat.v4.new_markdown_cell(text(cell.source)))
            continue
        if cell.source.startswith("#| default_exp"): continue
        fresh = nbformat.v4.new_code_cell(code(cell.source))
        lines = [x for x in fresh.source.splitlines() if x.strip()]
        # imports alone
        if len(lines) > 3 and all(x.startswith(("import ", "from ", " ", ")")) for x in lines):
            fresh.metadata["tags"] = ["hide-input"]
        for o in cell.get("outputs", []):
            data = o.get("data", {})
            if "application/vnd.jupyter.widget-view+json" in data: continue
            if "application/vnd.plotly.v1+json" in data:
                plots += 1
                o = nbformat.v4.new_output("display_data",
                                           {"text/html": plot(data["application/vnd.plotly.v1+json"], plots)})
            elif "image/png" in data: fresh.metadata["mystnb"] = {"image": {"alt": alt(cell, heading)}}
            elif "text/html" in data:
                data["text/html"] = re.sub(r"<img (?![^>]*alt=)",
                                           f'<img alt="{html.escape(alt(cell, heading), quote=True)}" ',
                                           data["text/html"])
            fresh.outputs.append(o)
        cells.append(fresh)
    new = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}, "language_info": {"name": "python"}})
    nbformat.write(new, out/"nbs"/path.name)
    return title_of(nb)


def stage_api(module, out):
    "A page of a module's functions, from their docments."
    from nbdev.showdoc import BasicMarkdownRenderer, show_doc
    m = importlib.import_module(f"vsgrpo.{module}")
    parts = [f"# vsgrpo.{module}", (m.__doc__ or "").strip()]
    for name in m.__all__:
        thing = getattr(m, name)
        if not (callable(thing) and getattr(thing, "__module__", "").startswith("vsgrpo")): continue
        shown = show_doc(thing, renderer=BasicMarkdownRenderer)._repr_markdown_()
        signature = re.search(r"```python\n(.*?)```", shown, re.S)[1].strip("\n")
        doc = re.findall(r"^\*(.*)\*$", shown, re.M | re.S)
        parts += [f"## {name}", html.escape(doc[-1], quote=False) if doc else "", f"```python\n{signature}\n```"]
    (out/"api"/f"{module}.md").write_text("\n\n".join(parts) + "\n", "utf-8")


def toc(entries, caption=None, depth=1):
    lines = ["```{toctree}", *([f":caption: {caption}"] if caption else []), f":maxdepth: {depth}", ":hidden:", "",
             *entries, "```"]
    return "\n".join(lines)


def stage(out):
    "Everything that Sphinx reads."
    for place in ("nbs", "api", "_static"): (out/place).mkdir(parents=True)
    shutil.copy(HERE/"conf.py", out)
    shutil.copy(HERE/"pages.css", out/"_static")
    for page in HERE.glob("*.md"): shutil.copy(page, out)
    for picture in HERE.glob("*.png"): shutil.copy(picture, out)
    import plotly
    shutil.copy(Path(plotly.__file__).parent/"package_data"/"plotly.min.js", out/"_static")
    from ledger import ledger_page
    (out/"ledger.md").write_text(ledger_page(ROOT), "utf-8")
    paths = sorted((ROOT/"nbs").glob("[0-9][0-9]*_*.ipynb"))
    titles = {p.stem: stage_notebook(p, out) for p in paths}
    modules = {p.stem: re.search(r"#\| default_exp ([\w.]+)", p.read_text("utf-8"))[1] for p in paths}
    for module in modules.values(): stage_api(module, out)
    tocs = [toc(["ledger", "gpus", "data", "trouble"], "Use it")]
    chapters = []
    for k, wing in enumerate(WINGS):
        stems = [s for s in titles if s.startswith(str(k))]
        tocs.append(toc([f"nbs/{s}" for s in stems], f"{k} · {wing}"))
        rooms = " · ".join(f"[{titles[s]}](nbs/{s}.ipynb)" for s in stems[1:])
        chapters.append(f"**{wing}.** [{titles[stems[0]]}](nbs/{stems[0]}.ipynb)"
                        + (f"<br><small>{rooms}</small>" if rooms else ""))
    (out/"api"/"index.md").write_text("# The library\n\nEvery module is exported from the notebook of its name.\n\n" + "\n".join(f"- [vsgrpo.{m}]({m}.md), from [{titles[s]}](../nbs/{s}.ipynb)" for s, m in modules.items()) + "\n\n" + toc(list(modules.values())) + "\n", "utf-8")
    tocs.append(toc(["api/index"], "The library"))
    front = (HERE/"index.md").read_text("utf-8").replace("{{chapters}}", "\n\n".join(chapters))
    (out/"index.md").write_text(front + "\n\n" + "\n\n".join(tocs) + "\n", "utf-8")


def main():
    site = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT/"_docs").resolve()
    staged = site.with_name(site.name + ".stage")
    for old in (staged, site): shutil.rmtree(old, ignore_errors=True)
    stage(staged)
    pages = staged/"_build"/"html"        # what is written beside the pages goes with the stage
    subprocess.run([sys.executable, "-m", "sphinx", "-b", "html", "-q", "-j", "2", "-W", "--keep-going", "-d",
                    str(staged/"_build"/"doctrees"), str(staged), str(pages)], check=True)
    shutil.move(pages, site)
    shutil.rmtree(staged)
    print(f"{site/'index.html'}: {sum(1 for _ in site.rglob('*.html'))} pages")


if __name__ == "__main__":
    main()
