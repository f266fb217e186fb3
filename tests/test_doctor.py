"The doctor: repository root, lock file, version differences, unreachable hubs, and unknown papermill parameters."
import dis, fnmatch, inspect, json, os, pydoc, re, subprocess, sys, tomllib

import pytest
from packaging.specifiers import SpecifierSet

from vsgrpo import doctor
from vsgrpo.doctor import (as_text, cgroup_free, hub_reachable, import_troubles, known_trouble, misfits, read_bounds,
                           read_lock, refuse_unknown, repo_root, report)
from vsgrpo.engine.video import fix_torchvision


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
    assert misfits(lock, {"torch": "2.11.0", "av": "18.1.0"}) == ["torch 2.11.0 is installed, 2.13.0 was tested",
                                                                  "trl is not installed, 1.16.0 was tested"]
    bounds = {"trl": "<1.17,>=1.16"}
    assert misfits({"trl": "1.16.0"}, {"trl": "1.16.1"}, bounds) == ["trl 1.16.1 is installed, 1.16.0 was tested"]
    for version in ("1.15.0", "1.17.0", "1.17.0rc1"):
        [line] = misfits({"trl": "1.16.0"}, {"trl": version}, bounds)
        assert line == f"trl {version} is installed, 1.16.0 was tested; pyproject.toml requires <1.17,>=1.16"
    assert misfits({"no-such-package-vsgrpo": "1.0"}) == ["no-such-package-vsgrpo is not installed, 1.0 was tested"]


def test_the_lock_is_within_the_bounds(root):
    lock, bounds = read_lock(root/"requirements.lock"), read_bounds(root/"pyproject.toml")
    assert {package for package, *_ in INTERNALS} <= set(bounds)
    above = {name: f"{int(version.split('.')[0]) + 1}.0" for name, version in lock.items()}
    assert sum("pyproject.toml requires" in line for line in misfits(lock, above, bounds)) == len(bounds)
    assert not [name for name, wanted in bounds.items() if not SpecifierSet(wanted).contains(lock[name])]


@pytest.mark.parametrize("have, n", [
    ({"torch": "2.13.0", "torchvision": "0.28.0"}, 0), ({"torch": "2.11.0+cu130", "torchvision": "0.26.0"}, 0),
    ({"torch": "2.11.0", "torchvision": "0.28.0"}, 1),
    ({"nbdev": "3.0.1"}, 1), ({"nbdev": "2.4.14", "execnb": "0.1.18", "fastcore": "1.12.47"}, 0),
    ({"execnb": "0.2.0", "fastcore": "1.13.1"}, 2), ({"torch": "2.13.0", "torchvision": None}, 0)])
def test_known_trouble(have, n): assert len(known_trouble(have)) == n


def test_old_python_is_named(monkeypatch):
    monkeypatch.setattr(doctor.sys, "version_info", (3, 10, 1))
    assert "too old" in known_trouble({})[0]


def test_modules_that_do_not_load(tmp_path, monkeypatch):
    (tmp_path/"broken_lib.py").write_text("raise OSError('libGL.so.1: cannot open shared object file')")
    (tmp_path/"broken_dep.py").write_text("import no_such_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    assert import_troubles(("broken_lib", "broken_dep", "not_installed_at_all")) == [
        "broken_lib does not load: libGL.so.1: cannot open shared object file",
        "broken_dep does not load: it needs no_such_dependency"]


def test_container_limit(tmp_path):
    assert cgroup_free(tmp_path) is None
    (tmp_path/"memory.current").write_text("30\n")
    (tmp_path/"memory.max").write_text("100\n")
    assert cgroup_free(tmp_path) == 70


def test_hub_never_raises(monkeypatch):
    for name in ("HF_HUB_OFFLINE", "HF_ENDPOINT"): monkeypatch.delenv(name, raising=False)
    for url in ("http://127.0.0.1:9", "http://[bad", "no url", "http://name.invalid"):
        assert "does not answer" in hub_reachable(url, timeout_s=1)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "127.0.0.1:9 does not answer" in hub_reachable(timeout_s=1)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub_reachable().startswith("not checked")


def test_hub_answers(monkeypatch):
    import http.server, threading
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200 if self.path == "/" else 404)
            self.end_headers()
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
    for word in ("Python", "torch", "Against requirements.lock", "Cores", "Free memory", "Hub: not checked"):
        assert word in text
    assert "psutil is not installed" in as_text({**r, "free_memory_gib": None})


def test_as_a_module(root):
    run = subprocess.run([sys.executable, "-m", "vsgrpo.doctor", "--json", "--no-hub"], cwd=root, capture_output=True,
                         text=True)
    assert run.returncode in (0, 1) and json.loads(run.stdout)["hub"] == "not checked" and not run.stderr


def test_import_is_light():
    subprocess.run([sys.executable, "-c",
                    "import sys, vsgrpo.doctor; assert not {'torch', 'numpy', 'av'} & set(sys.modules)"], check=True)


def test_unknown_parameters_are_refused():
    names = ["model", "steps", "lr"]
    def given(text): refuse_unknown({"In": ["", "model = 'tiny'", f"# Parameters\n{text}\n"]}, names)
    given("model = 'tiny'\nlr = 1e-5")
    with pytest.raises(ValueError,
                       match="-p stesp: no such parameter, did you mean steps.*There are: model, steps, lr"):
        given("stesp = 3")
    with pytest.raises(ValueError, match=r"-p qqq: no such parameter\. There are"): given("qqq = [1, 2]")


KERNEL = {"name": "python3", "language": "python", "display_name": "python3"}


def test_unknown_parameters_are_refused_through_papermill(tmp_path):
    nbformat, pm = pytest.importorskip("nbformat"), pytest.importorskip("papermill")
    cell = nbformat.v4.new_code_cell
    cells = [cell("steps: int = 2", metadata={"tags": ["parameters"]}),
             cell("from vsgrpo.doctor import refuse_unknown\nrefuse_unknown(globals(), ['steps'])")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL}), tmp_path/"a.ipynb")
    def run(**settings):
        pm.execute_notebook(tmp_path/"a.ipynb", tmp_path/"b.ipynb", settings, kernel_name="python3", progress_bar=False)
    run(steps=3)
    with pytest.raises(pm.PapermillExecutionError, match=re.escape("-p step: no such parameter")): run(step=3)


CHECK = "from vsgrpo.doctor import refuse_unknown\nrefuse_unknown(globals(), ['steps', 'data'])\n"


@pytest.fixture
def papermill_with(root, tmp_path):
    """`papermill_with(code, *arguments)`: papermill's command runs a notebook of a parameters cell and this code.

    The entry point of pyproject.toml is found as in an installed package, whatever is installed here. Its exit status,
    what it printed after its own log, and the errors in the notebook it wrote."""
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("papermill")
    declared = tomllib.loads((root/"pyproject.toml").read_text("utf-8"))["project"]["entry-points"]["papermill.engine"]
    info = tmp_path/"path"/"short_errors-1.dist-info"
    info.mkdir(parents=True)
    lines = [f"{name} = {target}" for name, target in declared.items()]
    (info/"entry_points.txt").write_text("\n".join(["[papermill.engine]", *lines]) + "\n")
    env = dict(os.environ, PYTHONPATH=f"{tmp_path/'path'}{os.pathsep}{root}")

    def run(code, *arguments):
        cell = nbformat.v4.new_code_cell
        cells = [cell('steps: int = 2\ndata: str = ""', metadata={"tags": ["parameters"]}), cell(code)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL}), tmp_path/"a.ipynb")
        call = [sys.executable, "-m", "papermill", "--kernel", "python3", "--no-progress-bar", "--log-level", "ERROR",
                str(tmp_path/"a.ipynb"), str(tmp_path/"b.ipynb"), *arguments]
        done = subprocess.run(call, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        written = nbformat.read(tmp_path/"b.ipynb", 4)
        errors = [o for c in written.cells for o in c.get("outputs", []) if o.output_type == "error"]
        printed = [line for line in (done.stdout + done.stderr).splitlines() if "IPKernelApp" not in line]
        return done.returncode, printed, errors
    return run


@pytest.mark.parametrize("code, arguments, line", [
    (CHECK, ["-p", "stpes", "3"],
     "ValueError: -p stpes: no such parameter, did you mean steps? There are: steps, data"),
    (CHECK, ["-p", "steps", "many"], "ValueError: -p steps is 'many': wanted a whole number"),
    (CHECK + "from vsgrpo.data.dataset import open_dataset\nopen_dataset(data)", ["-p", "data", "nowhere"],
     "FileNotFoundError: data nowhere: no train.parquet")], ids=["name", "kind", "folder"])
def test_a_mistake_ends_papermill_in_one_line(papermill_with, code, arguments, line):
    "In the terminal and in the notebook."
    status, printed, errors = papermill_with(code, *arguments)
    assert status == 1 and len(printed) == 1 and printed[0].startswith(line), printed
    assert [error.traceback for error in errors] == [printed]


@pytest.mark.parametrize("bug", ["int('x')", "{}['x']", "import json; json.loads('{')"])
def test_a_bug_keeps_its_traceback(papermill_with, bug):
    status, printed, errors = papermill_with(CHECK + f"def f(): {bug}\nf()")
    assert status == 1 and any("papermill" in line and "File" in line for line in printed)
    assert len(errors[0].traceback) > 1 and sum("f()" in line for line in printed) >= 1


def test_errors_import_is_light():
    code = ("import sys, time; before = set(sys.modules); start = time.process_time(); import vsgrpo.errors; "
            "print(time.process_time() - start, len(set(sys.modules) - before), 'papermill' in sys.modules)")
    times = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        seconds, modules, papermill = done.stdout.split()
        assert int(modules) < 40 and papermill == "False"
        times.append(float(seconds))
    assert min(times) < .05, times


# Names of other packages that this code overrides or calls beyond their documented interface: package, name, parameters
# ("*": whatever stands there; None: an attribute). An overridden method may get no parameter that ours does not take.
INTERNALS = [
    ("trl", "GRPOTrainer._prepare_inputs", "self generation_batch"),
    ("trl", "GRPOTrainer._generate_and_score_completions", "self inputs"),
    ("trl", "GRPOTrainer._tokenize_prompts", "self prompts"),
    ("trl", "GRPOTrainer._generate_single_turn",
     "self prompt_ids images multimodal_fields num_generations has_tool_images"),
    ("trl", "GRPOTrainer._get_per_token_logps_and_entropies",
     "self model input_ids attention_mask logits_to_keep batch_size compute_entropy *"),
    ("trl", "GRPOTrainer._compute_loss", "self model inputs"),
    ("trl", "GRPOTrainer.log", "self logs start_time"),
    *[("trl", f"GRPOTrainer.{name}", None) for name in (
        "_step", "_buffered_inputs", "_metrics", "_logs", "num_generations", "num_iterations", "beta", "temperature",
        "epsilon_low", "max_completion_length", "reward_weights", "reward_func_names")],
    ("trl", "SFTTrainer._prepare_dataset", "self dataset *"),
    ("trl", "SFTTrainer._get_train_sampler", "self train_dataset"),
    ("trl", "SFTTrainer.compute_loss", "self model inputs return_outputs num_items_in_batch"),
    ("trl", "DPOTrainer._prepare_dataset", "self dataset *"),
    ("trl", "DPOTrainer._get_train_sampler", "self train_dataset"),
    ("trl", "DPOTrainer._compute_loss", "self model inputs return_outputs"),
    ("trl", "DPOTrainer.precompute_ref_logps", None),
    ("transformers", "Trainer._load_from_checkpoint", "self resume_from_checkpoint *"),
    ("transformers", "Trainer.current_gradient_accumulation_steps", None),
    ("transformers", "AttentionInterface.register", "key value"),
    ("transformers", "AttentionMaskInterface.register", "key value"),
    ("transformers", "PreTrainedConfig._attn_implementation", None),
    ("transformers", "Qwen2VLForConditionalGeneration._from_config", "config *"),
    ("transformers", "Qwen2VLModel.get_rope_index", "self input_ids mm_token_type_ids * video_grid_thw *"),
    *[("transformers", f"Qwen2VLModel.{name}", None) for name in ("visual", "language_model", "rope_deltas")],
    ("transformers", "Qwen2VLProcessor.video_token", None),
    ("transformers", "integrations.sdpa_attention.sdpa_attention_forward",
     "module query key value attention_mask * scaling *"),
    ("transformers", "masking_utils.sdpa_mask", "*"),
    ("transformers", "models.qwen2_vl.image_processing_qwen2_vl.smart_resize",
     "height width factor min_pixels max_pixels *"),
    ("transformers", "models.qwen2_vl.modeling_qwen2_vl.Qwen2VisionTransformerPretrainedModel.forward",
     "self hidden_states grid_thw *"),
    ("transformers", "models.qwen2_vl.modeling_qwen2_vl.Qwen2VLAttention.layer_idx", None),
    ("transformers", "models.qwen2_vl.modeling_qwen2_vl.Qwen2VLAttention.num_key_value_groups", None),
    ("transformers", "models.qwen2_vl.modeling_qwen2_vl.repeat_kv", "hidden_states n_rep"),
    ("transformers", "models.qwen2_vl.modeling_qwen2_vl.apply_rotary_pos_emb", "q k cos sin *"),
    ("torch", "UntypedStorage._cdata", None),
    ("torch", "_foreach_norm", None),
    ("peft", "PeftModel.get_base_model", "self"),
    ("peft", "PeftModel.disable_adapter", "self"),
]


def sets_attribute(owner, name):
    "Whether a method of a class or of one of its bases sets an attribute."
    methods = [inspect.unwrap(f) for base in owner.__mro__ for f in vars(base).values() if inspect.isfunction(f)]
    return any(i.opname == "STORE_ATTR" and i.argval == name for f in methods for i in dis.get_instructions(f))


def fault_of(package, name, parameters):
    "What is wrong with one line of the table, None if nothing is."
    outer, _, last = f"{package}.{name}".rpartition(".")
    try: owner = pydoc.locate(outer)
    except pydoc.ErrorDuringImport as e: return f"does not load: {e.value}"
    if parameters is None:
        found = hasattr(owner, last) or inspect.isclass(owner) and sets_attribute(owner, last)
        return None if found else "is gone"
    if not hasattr(owner, last): return "is gone"
    has = " ".join(inspect.signature(getattr(owner, last)).parameters)
    if fnmatch.fnmatchcase(f"{has} ", f"{parameters} ".replace(" * ", " *")): return None
    return f"takes ({has}), wanted ({parameters})"


def internals_that_differ():
    "One line for each name of INTERNALS that the installed version does not have as we use it."
    fix_torchvision()
    faults = [(package, name, fault_of(package, name, parameters)) for package, name, parameters in INTERNALS]
    return [f"{package} {doctor.installed(package)}: {name} {fault}" for package, name, fault in faults if fault]


def test_installed_packages_have_what_we_override_and_call():
    faults = internals_that_differ()
    assert not faults, "not as this code uses it:\n" + "\n".join(faults)


def test_a_missing_or_changed_method_is_named(monkeypatch):
    import trl
    monkeypatch.delattr(trl.GRPOTrainer, "_tokenize_prompts")
    monkeypatch.setattr(trl.DPOTrainer, "_compute_loss", lambda self, model, inputs: None)
    monkeypatch.setattr(trl.GRPOTrainer, "__init__", lambda self, beta: setattr(self, "beta", beta))
    words = internals_that_differ()
    at = f"trl {doctor.installed('trl')}: "
    assert at + "GRPOTrainer._tokenize_prompts is gone" in words and at + "GRPOTrainer.epsilon_low is gone" in words
    assert at + "DPOTrainer._compute_loss takes (self model inputs), wanted (self model inputs return_outputs)" in words


def test_the_table_holds_every_method_that_the_trainers_override():
    from vsgrpo.training.trainer import VideoDPOTrainer, VideoGRPOTrainer, VideoSFTTrainer
    known = {name for _, name, _ in INTERNALS}
    for ours in (VideoGRPOTrainer, VideoSFTTrainer, VideoDPOTrainer):
        theirs = next(base for base in ours.__mro__ if base.__module__.startswith("trl."))
        bases = [base for base in ours.__mro__ if base.__module__ == "vsgrpo.training.trainer"]
        methods = {name for base in bases for name, x in vars(base).items() if inspect.isfunction(x)}
        overridden = {name for name in methods if hasattr(theirs, name)} - {"__init__"}
        assert overridden and {f"{theirs.__name__}.{name}" for name in overridden} <= known, overridden
