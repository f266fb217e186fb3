"The notebooks are the source: vsgrpo/ is what they export, imports go down, chapters are runnable."
import ast, json, os, re, shutil, subprocess, sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT/"nbs").glob("[0-9][0-9]*_*.ipynb"))
CHAPTER_NOTEBOOKS = [nb for nb in NOTEBOOKS if nb.name[1:3] == "0_"]
name = lambda p: p.name


def cells(nb, kind="code"):
    "Sources of a notebook's cells with their tags."
    for c in json.loads(nb.read_text("utf-8"))["cells"]:
        if c["cell_type"] == kind: yield "".join(c["source"]), c["metadata"].get("tags", [])


def module(nb):
    "The module that a notebook owns."
    found = [m for src, _ in cells(nb) for m in re.findall(r"^#\|\s*default_exp\s+(\S+)", src, re.M)]
    assert len(found) == 1, f"{nb.name}: default_exp {found}, expected exactly one"
    return found[0]


def python_files(folder):
    return {p.relative_to(folder).as_posix(): p.read_text("utf-8") for p in sorted(folder.rglob("*.py"))}


def test_exported_modules_are_current(tmp_path):
    shutil.copytree(ROOT/"nbs", tmp_path/"nbs", ignore=shutil.ignore_patterns(".*"))
    for f in ("settings.ini", "pyproject.toml", "README.md"): shutil.copy(ROOT/f, tmp_path)
    (tmp_path/"vsgrpo").mkdir()
    shutil.copy(ROOT/"vsgrpo"/"__init__.py", tmp_path/"vsgrpo")
    env = {k: v for k, v in os.environ.items() if k != "IN_TEST"}
    subprocess.run([sys.executable, "-c", "from nbdev.doclinks import nbdev_export; nbdev_export()"], cwd=tmp_path,
                   env=env, check=True, capture_output=True)
    here, fresh = python_files(ROOT/"vsgrpo"), python_files(tmp_path/"vsgrpo")
    wrong = [f"{f} has no notebook" for f in here.keys() - fresh.keys()]
    wrong += [f"{f} is missing" for f in fresh.keys() - here.keys()]
    wrong += [f"{f} differs from its notebook" for f in here.keys() & fresh.keys() if here[f] != fresh[f]]
    assert not wrong, f"run nbdev_export: {'; '.join(sorted(wrong))}"


def test_one_notebook_one_module():
    names = [module(nb) for nb in NOTEBOOKS]
    assert len(set(names)) == len(names), names
    for nb in NOTEBOOKS:
        assert nb.stem.endswith("_" + module(nb).split(".")[-1]), f"{nb.name} owns {module(nb)}"
        for src, _ in cells(nb):
            elsewhere = re.search(r"^#\|\s*exporti?[ \t]+\S", src, re.M)
            assert not elsewhere, f"{nb.name}: exports into another module:\n{src[:80]}"


PACKAGES = ("engine", "evaluation", "data", "training", "teaching")
CHAPTERS = {module(nb) for nb in CHAPTER_NOTEBOOKS}
DOORS = {"api", "cli"}      # functions and command of the whole library


def rank(module):
    "Packages stand above what is imported by all, chapters and the library's front door above the packages."
    package = module.split(".")[0] if "." in module else None
    if module in CHAPTERS | DOORS: return len(PACKAGES) + 1
    return PACKAGES.index(package) + 1 if package else 0


def source_of(module): return ROOT/"vsgrpo"/f"{module.replace('.', '/')}.py"


def imports(module):
    "Modules of ours that a module imports, in functions too."
    package = module.split(".")[:-1]
    for node in ast.walk(ast.parse(source_of(module).read_text("utf-8"))):
        if isinstance(node, ast.Import): found = [a.name for a in node.names if a.name.startswith("vsgrpo.")]
        elif not isinstance(node, ast.ImportFrom): continue
        elif node.level: found = [".".join(["vsgrpo", *package[:len(package) + 1 - node.level], node.module or ""])]
        else: found = [node.module] if (node.module or "").split(".")[0] == "vsgrpo" else []
        for target in found:
            target = target.removeprefix("vsgrpo").strip(".")
            if target and source_of(target).is_file(): yield target
            else: yield from (f"{target}.{a.name}".strip(".") for a in node.names)      # modules of a package


def test_imports_go_down():
    "engine → evaluation → data → training → teaching → chapters, which nobody imports."
    for me in map(module, NOTEBOOKS):
        for other in imports(me):
            assert source_of(other).is_file(), f"{me} imports {other}, which is no module of ours"
            assert other not in CHAPTERS, f"{me} imports the chapter {other}"
            assert rank(other) <= rank(me), f"{me} imports {other}, which stands above it"


def test_no_circle():
    "Within a package too."
    graph = {me: set(imports(me)) for me in map(module, NOTEBOOKS)}
    try: list(TopologicalSorter(graph).static_order())
    except CycleError as e: pytest.fail(f"modules import each other: {' → '.join(e.args[1])}")


def test_no_star_imports_of_ours():
    for nb in NOTEBOOKS:
        for src, _ in cells(nb): assert not re.search(r"from vsgrpo\S* import \*", src), nb.name


@pytest.mark.parametrize("nb", CHAPTER_NOTEBOOKS, ids=name)
def test_chapters_have_parameters(nb):
    tagged = [src for src, tags in cells(nb) if "parameters" in tags]
    assert len(tagged) == 1, f"{nb.name}: {len(tagged)} cells tagged 'parameters', expected 1"
    values = {}
    for node in ast.parse(tagged[0]).body:
        assert isinstance(node,
                          (ast.Assign,
                           ast.AnnAssign)), f"{nb.name}: only assignments in the parameters cell: {ast.unparse(node)}"
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        values[target.id] = ast.literal_eval(node.value)
    assert "scale" in values, f"{nb.name}: no parameter 'scale', which the smoke run sets"


@pytest.mark.parametrize("nb", NOTEBOOKS, ids=name)
def test_notebooks_are_clean(nb):
    text = nb.read_text("utf-8")
    for bad in ("/work/", "/home/", "/root/", "/Users/", "hf_token", "!pip", "%pip"):
        assert bad not in text, f"{nb.name}: contains {bad!r}"
    errors = [o["ename"] for c in json.loads(text)["cells"] for o in c.get("outputs",
                                                                           []) if o["output_type"] == "error"]
    assert not errors, f"{nb.name}: stored errors {errors}"


def test_lock_pins_everything():
    lines = [x for x in (ROOT/"requirements.lock").read_text("utf-8").splitlines() if x and not x.startswith("#")]
    loose = [x for x in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", x)]
    assert not loose, f"not pinned to a public version: {loose}"
    assert sorted(lines, key=str.lower) == lines


def public_functions(path):
    "Public functions and methods of a module, each with its name; constructors are public."
    def visit(node, prefix):
        for child in node.body:
            if isinstance(child, ast.ClassDef) and child.name[0] != "_": yield from visit(child, f"{child.name}.")
            if not isinstance(child, ast.FunctionDef): continue
            if child.name[0] != "_" or child.name == "__init__": yield f"{prefix}{child.name}", child
    yield from visit(ast.parse(path.read_text("utf-8")), "")


@pytest.mark.parametrize("path", [p for p in python_files(ROOT/"vsgrpo") if p != "_modidx.py"])
def test_public_signatures_have_type_hints(path):
    for name, function in public_functions(ROOT/"vsgrpo"/path):
        a = function.args
        given = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
        bare = [arg.arg for arg in given if arg.annotation is None and arg.arg not in ("self", "cls")]
        assert not bare, f"{path}: {name} has no type hint for {', '.join(bare)}"
        assert function.returns or name.endswith("__init__"), f"{path}: {name} has no type hint for what it returns"


def test_modules_and_functions_are_short():
    for path, text in python_files(ROOT/"vsgrpo").items():
        if path == "_modidx.py": continue
        assert text.count("\n") <= 500, f"{path} has {text.count(chr(10))} lines"
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef): continue
            length = node.end_lineno - node.lineno + 1
            assert length <= 60, f"{path}: {node.name} has {length} lines"


@pytest.mark.parametrize("nb", NOTEBOOKS, ids=lambda p: p.stem)
def test_docments_name_the_thing(nb):
    for source, _ in cells(nb):
        vague = re.search(r"^.*\S.*#\s+of\s.*$", source, re.M)
        assert not vague, f"{nb.name}: a comment that begins with 'of' does not say what it means: {vague[0].strip()}"
