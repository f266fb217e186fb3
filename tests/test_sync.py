"The notebooks are the source: vsgrpo/ is what they export, no module leans on a higher floor, halls are runnable."
import ast, json, os, re, shutil, subprocess, sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT/"nbs").glob("[0-9][0-9]_*.ipynb"))
HALLS = [nb for nb in NOTEBOOKS if nb.name[1] == "0"]
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
    subprocess.run([sys.executable, "-c", "from nbdev.doclinks import nbdev_export; nbdev_export()"], cwd=tmp_path, env=env, check=True, capture_output=True)
    here, fresh = python_files(ROOT/"vsgrpo"), python_files(tmp_path/"vsgrpo")
    wrong = [f"{f} has no notebook" for f in here.keys() - fresh.keys()] + [f"{f} is missing" for f in fresh.keys() - here.keys()]
    wrong += [f"{f} differs from its notebook" for f in here.keys() & fresh.keys() if here[f] != fresh[f]]
    assert not wrong, f"run nbdev_export: {'; '.join(sorted(wrong))}"


def test_one_notebook_one_module():
    names = [module(nb) for nb in NOTEBOOKS]
    assert len(set(names)) == len(names), names
    for nb in NOTEBOOKS:
        assert nb.stem[3:].endswith(module(nb)), f"{nb.name} owns {module(nb)}"
        for src, _ in cells(nb):
            assert not re.search(r"^#\|\s*exporti?[ \t]+\S", src, re.M), f"{nb.name}: exports into another module:\n{src[:80]}"


FLOORS = ["files", "doctor vsibench video geometry scannet", "models rooms questions viewer rewards sens", "prefix_tree vsi100k rollouts tiny_base watch pairs", "checks answering budget explorer sharing", "prompting", "trainer", "runs", "studies", "grpo baselines", "benchmarks", "general_rooms", "general_eval"]


def test_imports_go_down():
    "A module stands on lower floors, or on a room of its own floor with a lower number: no circle, no arrow up."
    number = {module(nb): int(nb.name[:2]) for nb in NOTEBOOKS}
    floor = {m: k for k, names in enumerate(FLOORS) for m in names.split()}
    assert set(floor) == set(number), set(floor) ^ set(number)
    for me in number:
        tree = ast.parse((ROOT/"vsgrpo"/f"{me}.py").read_text("utf-8"))
        used = {n.module.split(".")[1] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("vsgrpo.")}
        used |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level}
        for other in used: assert (floor[other], number[other]) < (floor[me], number[me]), f"{me} imports {other}, which is not below it"


def test_no_star_imports_of_ours():
    for nb in NOTEBOOKS:
        for src, _ in cells(nb): assert not re.search(r"from vsgrpo\S* import \*", src), nb.name


@pytest.mark.parametrize("nb", HALLS, ids=name)
def test_halls_have_parameters(nb):
    tagged = [src for src, tags in cells(nb) if "parameters" in tags]
    assert len(tagged) == 1, f"{nb.name}: {len(tagged)} cells tagged 'parameters', expected 1"
    values = {}
    for node in ast.parse(tagged[0]).body:
        assert isinstance(node, (ast.Assign, ast.AnnAssign)), f"{nb.name}: only assignments in the parameters cell: {ast.unparse(node)}"
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        values[target.id] = ast.literal_eval(node.value)
    assert "scale" in values, f"{nb.name}: no parameter 'scale', which the smoke run sets"


@pytest.mark.parametrize("nb", NOTEBOOKS, ids=name)
def test_notebooks_are_clean(nb):
    text = nb.read_text("utf-8")
    for bad in ("/work/", "/home/", "/root/", "/Users/", "hf_token", "!pip", "%pip"):
        assert bad not in text, f"{nb.name}: contains {bad!r}"
    errors = [o["ename"] for c in json.loads(text)["cells"] for o in c.get("outputs", []) if o["output_type"] == "error"]
    assert not errors, f"{nb.name}: stored errors {errors}"


def test_lock_pins_everything():
    lines = [x for x in (ROOT/"requirements.lock").read_text("utf-8").splitlines() if x and not x.startswith("#")]
    loose = [x for x in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", x)]
    assert not loose, f"not pinned to a public version: {loose}"
    assert sorted(lines, key=str.lower) == lines
