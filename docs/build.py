"""Build the site from the committed notebooks and their kept outputs. Nothing is run, nothing is fetched.

    python docs/build.py [OUT]      # OUT: _docs

Notebooks become pages. nbdev's directives are dropped, a parameters cell gets a table, plotly's plots stay interactive,
and widgets are left out (a static picture stands beside each). The library's pages are made from its docments, one page
for each module. A page loads only files of the site. Links to a repository come from `git_url` in settings.ini; where
that is empty, the site has none.
"""
import ast
import configparser
import html
import importlib
import io
import json
import re
import shutil
import subprocess
import sys
import tokenize
from pathlib import Path

import nbformat

ROOT, HERE = Path(__file__).parents[1], Path(__file__).parent
SECTIONS = {"0": "Section 3 · Prompting", "1": "Section 4.1 · VSI-100k", "2": "Section 4.2 · GRPO",
            "3": "Section 4.3.5 · SFT and DPO", "4": "Section 4.3.5 · General ability",
            "5": "Python and the command line"} # by the notebooks' first digit
PACKAGES = {"": "Files and installation", "engine": "Engine: video, models, the prefix tree",
            "evaluation": "Evaluation: benchmarks, answers, scores", "data": "Data: scans, rooms, questions, datasets",
            "training": "Training: rewards, rollouts, runs", "teaching": "Teaching: the tiny models",
            "chapters": "Chapters"}
sys.path.insert(0, str(ROOT))


def title_of(nb):
    first = next(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    return first.splitlines()[0].removeprefix("# ").strip()


def shown_code(source):
    "Code without nbdev's directives."
    return "\n".join(line for line in source.splitlines() if not line.startswith("#|")).strip("\n")


def repository(root=ROOT):
    "Address of the repository and its branch, from settings.ini; the address is empty where there is none."
    config = configparser.ConfigParser(interpolation=None)
    config.read(root/"settings.ini", "utf-8")
    settings = config["DEFAULT"]
    return settings.get("git_url", "").rstrip("/"), settings.get("branch", "main")


def shown_text(source, url="", branch="main"):
    "Text whose links out of nbs/ lead to a page of the site or to the repository; without a repository, plain text."
    def link(match):
        text, target = match[1], match[2]
        page = re.fullmatch(r"docs/(\w+\.md)(#.*)?", target)
        if page: return f"[{text}](../{page[1]}{page[2] or ''})"
        return f"[{text}]({url}/blob/{branch}/{target})" if url else text
    return re.sub(r"(?<!!)\[([^\]]*)\]\(\.\./([^)]+)\)", link, source)


def alt_text(cell, heading):
    "Alternative text of a picture: its section, and the call that drew it."
    calls = [x for x in shown_code(cell.source).splitlines() if x.strip() and not x.startswith((" ", ")", "]"))]
    return f"{heading}: {calls[-1][:120] if calls else 'figure'}".replace("\n", " ")


def plot_html(figure, number):
    "A plotly figure as a block of HTML; it draws itself with the copy of plotly on the site."
    layout = figure.get("layout", {}) | {"modebar": {"orientation": "v"}}       # beside the title, not over it
    data = json.dumps({"data": figure["data"], "layout": layout}).replace("</", "<\\/")
    draw = f'Plotly.newPlot("plot-{number}", f.data, f.layout, {{responsive: true, displaylogo: false}})'
    return (f'<div id="plot-{number}" class="plot" role="img" aria-label="interactive 3D figure"></div>'
            f'<script src="../_static/plotly.min.js"></script><script>(f => {draw})({data})</script>')


def are_imports(source):
    "Whether a cell holds more than three lines, all of them imports."
    lines = [line for line in source.splitlines() if line.strip()]
    return len(lines) > 3 and all(line.startswith(("import ", "from ", " ", ")")) for line in lines)


def parameter_rows(source):
    "Name, default and meaning of each parameter in a parameters cell; the meaning is the comment beside or below it."
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokenize.generate_tokens(
        io.StringIO(source).readline) if token.type == tokenize.COMMENT}
    rows = []
    for node in ast.parse(source).body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)): continue
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        default = ast.get_source_segment(source, node.value) if node.value else ""
        rows.append((ast.unparse(target), default, comments_from(comments, node, source)))
    return rows


def comments_from(comments, node, source):
    "The comments on an assignment's lines and those that continue the last one, deeper than the code."
    found = [comments[line] for line in range(node.lineno, node.end_lineno + 1) if line in comments]
    lines, line = source.splitlines(), node.end_lineno + 1
    while line <= len(lines) and re.match(r"\s+#", lines[line - 1]):
        found.append(comments[line])
        line += 1
    return " ".join(found)


def parameters_table(source):
    "A parameters cell as a table in HTML."
    def code(text): return f"<code{' class=long' if len(text) > 24 else ''}>{html.escape(text)}</code>"
    def prose(text): return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))
    rows = "".join(f"<tr><td>{code(name)}</td><td>{code(default)}</td><td>{prose(meaning)}</td></tr>\n"
                   for name, default, meaning in parameter_rows(source))
    return (f"<details class=parameters><summary>Parameters ({len(parameter_rows(source))})</summary>\n"
            '<div class="wide"><table class="parameters">\n<thead><tr><th>parameter</th><th>default</th>'
            f"<th>meaning</th></tr></thead>\n<tbody>\n{rows}</tbody></table></div></details>")


def stage_output(output, fresh, cell, heading, number):
    "An output as the page shows it, None for a widget; a picture gets an alternative text."
    data = output.get("data", {})
    if "application/vnd.jupyter.widget-view+json" in data: return None
    if "application/vnd.plotly.v1+json" in data:
        plot = plot_html(data["application/vnd.plotly.v1+json"], number)
        return nbformat.v4.new_output("display_data", {"text/html": plot})
    if "image/png" in data: fresh.metadata["mystnb"] = {"image": {"alt": alt_text(cell, heading)}}
    elif "text/html" in data:
        alt = html.escape(alt_text(cell, heading), quote=True)
        data["text/html"] = re.sub(r"<img (?![^>]*alt=)", f'<img alt="{alt}" ', data["text/html"])
    return output


def is_silent(cell):
    "Whether a staged cell is collapsed and shows nothing."
    return cell.cell_type == "code" and cell.metadata.get("tags") == ["hide-input"] and not cell.outputs


def stage_notebook(path, out, url="", branch="main"):
    "Write a notebook as Sphinx reads it; return its title. Cells of parameters, imports and hide-input collapse."
    nb, heading, cells, n_plots = nbformat.read(path, 4), "", [], 0
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            headings = re.findall(r"^#+ (.*)$", cell.source, re.M)
            if headings: heading = headings[-1]
            cells.append(nbformat.v4.new_markdown_cell(shown_text(cell.source, url, branch)))
            continue
        if cell.source.startswith("#| default_exp"): continue
        fresh, tags = nbformat.v4.new_code_cell(shown_code(cell.source)), cell.metadata.get("tags", [])
        if "parameters" in tags:        # the table says what the code does
            cells.append(nbformat.v4.new_markdown_cell(parameters_table(fresh.source)))
            continue
        if "hide-input" in tags or are_imports(fresh.source): fresh.metadata["tags"] = ["hide-input"]
        for output in cell.get("outputs", []):
            n_plots += "application/vnd.plotly.v1+json" in output.get("data", {})
            staged = stage_output(output, fresh, cell, heading, n_plots)
            if staged is not None: fresh.outputs.append(staged)
        if cells and is_silent(cells[-1]) and fresh.metadata.get("tags"):      # one fold for a run of them
            fresh.source = f"{cells.pop().source}\n\n{fresh.source}"
        cells.append(fresh)
    kernel = {"display_name": "python3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), out/"nbs"/path.name)
    return title_of(nb)


def stage_module(module, out):
    "Write a page of a module's functions and classes, from their docments."
    from nbdev.showdoc import BasicMarkdownRenderer, show_doc
    loaded = importlib.import_module(f"vsgrpo.{module}")
    parts = [f"# vsgrpo.{module}", (loaded.__doc__ or "").strip()]
    for name in loaded.__all__:
        thing = getattr(loaded, name)
        if not (callable(thing) and getattr(thing, "__module__", "").startswith("vsgrpo")): continue
        shown = show_doc(thing, renderer=BasicMarkdownRenderer)._repr_markdown_()
        signature = re.search(r"```python\n(.*?)```", shown, re.S)[1].strip("\n")
        docs = re.findall(r"^\*(.*)\*$", shown, re.M | re.S)
        parts += [f"## {name}", html.escape(docs[-1], quote=False) if docs else "", f"```python\n{signature}\n```"]
    (out/"api"/f"{module}.md").write_text("\n\n".join(parts) + "\n", "utf-8")


def toc(entries, caption=None, depth=1):
    "A toctree of Sphinx."
    lines = ["```{toctree}", *([f":caption: {caption}"] if caption else []), f":maxdepth: {depth}", ":hidden:", "",
             *entries, "```"]
    return "\n".join(lines)


def package_of(module, chapters):
    "The package of a module, a key of PACKAGES."
    if module in chapters: return "chapters"
    return module.split(".")[0] if "." in module else ""


def stage_api(modules, titles, out):
    "Write the pages of the modules and their index, by package; `modules` and `titles` have notebook stems as keys."
    chapters = {module for stem, module in modules.items() if stem[1:3] == "0_"}
    parts = ["# The library", "Each module is exported from the notebook beside it. Packages import those above them."]
    for package, title in PACKAGES.items():
        stems = [stem for stem, module in modules.items() if package_of(module, chapters) == package]
        lines = [f"- [vsgrpo.{modules[s]}]({modules[s]}.md), from [{titles[s]}](../nbs/{s}.ipynb)" for s in stems]
        parts += [f"## {title}", "\n".join(lines), toc([modules[s] for s in stems])]
    for module in modules.values(): stage_module(module, out)
    (out/"api"/"index.md").write_text("\n\n".join(parts) + "\n", "utf-8")


def stage_files(out):
    "Copy pages, pictures, style and scripts, and write the ledger."
    import plotly
    from ledger import ledger_page
    for folder in ("nbs", "api", "_static"): (out/folder).mkdir(parents=True)
    shutil.copy(HERE/"conf.py", out)
    shutil.copy(HERE/"pages.css", out/"_static")
    for file in (*HERE.glob("*.md"), *HERE.glob("*.png")): shutil.copy(file, out)
    shutil.copy(Path(plotly.__file__).parent/"package_data"/"plotly.min.js", out/"_static")
    (out/"ledger.md").write_text(ledger_page(ROOT), "utf-8")


def stage(out):
    "Write everything that Sphinx reads."
    stage_files(out)
    paths = sorted((ROOT/"nbs").glob("[0-9][0-9]*_*.ipynb"))
    url, branch = repository()
    titles = {p.stem: stage_notebook(p, out, url, branch) for p in paths}
    modules = {p.stem: re.search(r"#\| default_exp ([\w.]+)", p.read_text("utf-8"))[1] for p in paths}
    stage_api(modules, titles, out)
    tocs, chapters = [toc(["results", "ledger", "rows", "data", "gpus", "runs", "trouble"], "Use it")], []
    for digit, section in SECTIONS.items():
        chapter, *notebooks = [stem for stem in titles if stem.startswith(digit)]
        tocs.append(toc([f"nbs/{stem}" for stem in (chapter, *notebooks)], section))
        links = " · ".join(f"[{titles[stem]}](nbs/{stem}.ipynb)" for stem in notebooks)
        chapters.append(f"**{section}.** [{titles[chapter]}](nbs/{chapter}.ipynb)"
                        + (f"<br><small>{links}</small>" if links else ""))
    tocs.append(toc(["api/index"], "The library"))
    front = (HERE/"index.md").read_text("utf-8").replace("{{chapters}}", "\n\n".join(chapters))
    (out/"index.md").write_text("\n\n".join([front, *tocs]) + "\n", "utf-8")


def main():
    site = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT/"_docs").resolve()
    staged = site.with_name(site.name + ".stage")
    for old in (staged, site): shutil.rmtree(old, ignore_errors=True)
    stage(staged)
    pages, url = staged/"_build"/"html", repository()[0]
    button = ["-D", f"html_theme_options.repository_url={url}", "-D", "html_theme_options.use_repository_button=1"]
    subprocess.run([sys.executable, "-m", "sphinx", "-b", "html", "-q", "-j", "2", "-W", "--keep-going", "-d",
                    str(staged/"_build"/"doctrees"), *(button if url else []), str(staged), str(pages)], check=True)
    shutil.move(pages, site)
    shutil.rmtree(staged)
    print(f"{site/'index.html'}: {sum(1 for _ in site.rglob('*.html'))} pages")


if __name__ == "__main__":
    main()
