"Prompt modes: a benchmark is read as it is, answers are kept once, and every table follows from the results."
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from chapters import run_chapter

from vsgrpo.engine.models import default_spec
from vsgrpo.engine.video import FrameCache, encode
from vsgrpo.evaluation.answer_pages import answer_html, browse_answers, example_question
from vsgrpo.evaluation.answer_store import EvalConfig, EvalResults, VSISuite, constants, run_eval, vsi_scores
from vsgrpo.evaluation.bench_folder import fetch_bench, find_rows, open_bench, unpack
from vsgrpo.evaluation.mode_tables import cost_sentences, mode_costs, mode_table, plot_mode_costs
from vsgrpo.evaluation.rows import read_questions, record_of
from vsgrpo.evaluation.scores import paper_table, score_table
from vsgrpo.evaluation.vsibench import PARSERS, TASK_NAMES, Question
from vsgrpo.files import commit, write_json, write_text
from vsgrpo.prompting import (
    answer_profile, at_equal_cost, by_parser, chance_scores, compare, majority, plot_lengths, side_by_side)

CONFIG = EvalConfig("tiny", "", VSISuite(("vanilla", "think"), "test", samples=2), default_spec("tiny"),
                    max_new_tokens={"vanilla": 8, "think": 12, "observe": 12}, batch=64)

@pytest.fixture(scope="module")
def rooms(built_rooms): return built_rooms(1, 1, 4)

@pytest.fixture(scope="module")
def finished(rooms, tmp_path_factory):
    "A store that is complete."
    folder = tmp_path_factory.mktemp("finished")
    run_eval(CONFIG, open_bench(rooms), folder)
    return folder

@pytest.fixture
def copy(rooms, tmp_path):
    "A benchmark to be spoilt: rows as json lines, videos beside them."
    folder = tmp_path/"bench"
    shutil.copytree(rooms, folder, ignore=lambda d, names: [n for n in names if n.endswith(".parquet") or n == "scans"])
    write(folder, [record_of(q) for q in read_questions(rooms/"test.parquet")])
    return folder

def video_of(row): return f"{row['dataset']}/{row['scene_name']}.mp4"
def rows_of(folder): return [json.loads(x) for x in (folder/"test.jsonl").read_text().splitlines()]
def write(folder, rows): (folder/"test.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))

# ---- reading a benchmark

def test_rows_that_are_no_questions_are_set_aside(copy):
    rows = rows_of(copy)
    rows[0]["question_type"], rows[1]["ground_truth"] = "object_colour", ""
    del rows[2]["question"]
    chosen = next(r for r in rows[3:] if r["options"])
    chosen["options"] = []
    write(copy, rows)
    bench = open_bench(copy, max_skipped=.5)
    assert len(bench.questions) == len(rows) - 4 and len(bench.aside) == 4
    for word, reason in zip(("object_colour", "ground_truth", "missing column question", "options"),
                            bench.aside.reason, strict=True):
        assert word in reason
    with pytest.raises(ValueError, match="4 of .* questions cannot be used, at most 1% may"):
        open_bench(copy, max_skipped=.01)

def test_videos_that_cannot_be_read_are_set_aside(copy):
    films = sorted(copy.rglob("*.mp4"))
    used = {f"{f.parent.name}/{f.name}" for f in films} & {video_of(row) for row in rows_of(copy)}
    gone, torn = sorted(used)[:2]
    (copy/gone).unlink()
    (copy/torn).write_bytes((copy/torn).read_bytes()[:300])
    black = sorted(used)[2]
    (copy/black).unlink()
    encode(np.zeros((8, 56, 56, 3), np.uint8), copy/black)
    bench = open_bench(copy, frames=(FrameCache(None), CONFIG.video), max_skipped=.9)
    reasons = bench.aside.reason.unique()
    assert {q.video for q in bench.questions} == used - {gone, torn, black}
    assert len(bench.questions) + len(bench.aside) == len(rows_of(copy))
    for start in (f"{black}: blank: its pixels", f"no video {gone}", f"{torn}: not a readable video"):
        assert any(reason.startswith(start) for reason in reasons), start
    shutil.rmtree(copy/gone.split("/")[0])
    with pytest.raises(ValueError, match="no video"): open_bench(copy)

def test_the_share_of_broken_videos_is_of_what_is_asked(copy):
    films = sorted({video_of(row) for row in rows_of(copy)})
    (copy/films[0]).unlink()        # the first of two scenes that are asked about, a quarter of all
    assert len(open_bench(copy, max_skipped=.4).aside) > 0
    with pytest.raises(ValueError, match="40% may"): open_bench(copy, limit=2, max_skipped=.4)

def test_tasks_and_limit(rooms):
    whole = open_bench(rooms)
    assert {q.task for q in open_bench(rooms, ["route_planning"]).questions} == {"route_planning"}
    few = open_bench(rooms, limit=2)
    assert len({q.video for q in few.questions}) == 2 and all(q in whole.questions for q in few.questions)
    assert len(few.questions) == sum(q.video in {x.video for x in few.questions} for q in whole.questions)
    with pytest.raises(ValueError, match="wanted some of"): open_bench(rooms, ["colour"])

def test_the_file_of_rows_is_found_or_named_as_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="there are none"): find_rows(tmp_path)
    (tmp_path/"a.parquet").touch()
    assert find_rows(tmp_path).name == "a.parquet"
    (tmp_path/"b.jsonl").touch()
    (tmp_path/"c.jsonl").touch()
    with pytest.raises(FileNotFoundError, match=r"a.parquet.*b.jsonl.*c.jsonl"): find_rows(tmp_path)
    for name in ("test.jsonl", "test-00000-of-00001.parquet", "test_pruned.parquet"): (tmp_path/name).touch()
    assert find_rows(tmp_path).name == "test-00000-of-00001.parquet"

def test_a_benchmark_from_the_hub_is_unpacked_once(copy, tmp_path, monkeypatch):
    "What the hub holds: rows, an archive of videos for each dataset, a readme."
    import huggingface_hub
    dataset, fetched = rows_of(copy)[0]["dataset"], []
    hub = tmp_path/"hub"
    hub.mkdir()
    shutil.copy(copy/"test.jsonl", hub)
    with zipfile.ZipFile(hub/f"{dataset}.zip", "w") as z:
        for f in sorted((copy/dataset).glob("*.mp4")): z.write(f, f"{dataset}/{f.name}")
        z.writestr(f"__MACOSX/{dataset}/._x.mp4", "no")
    def list_files(name, repo_type): return ["README.md", "test.jsonl", f"{dataset}.zip"]
    def download(name, file, repo_type): return fetched.append(file) or str(hub/file)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", list_files)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    folder = fetch_bench("someone/VSI-Bench", tmp_path/"bench-of-hub")
    assert open_bench(folder).questions == open_bench(copy).questions and not list(folder.rglob("._x.mp4"))
    assert fetch_bench("someone/VSI-Bench", tmp_path/"bench-of-hub") == folder
    assert fetched == ["test.jsonl", f"{dataset}.zip"]

def test_an_archive_stays_in_its_folder(tmp_path):
    with zipfile.ZipFile(tmp_path/"bad.zip", "w") as z:
        z.writestr("scannet/a.mp4", "fine")
        z.writestr("../outside.mp4", "no")
    with pytest.raises(ValueError, match="would lie outside"): unpack(tmp_path/"bad.zip", tmp_path/"in")
    assert not (tmp_path/"outside.mp4").exists() and not (tmp_path/"in").exists()

@pytest.mark.parametrize("error", [OSError, RuntimeError])     # the second stands for what a client raises of its own
def test_a_hub_out_of_reach_is_reported(tmp_path, monkeypatch, error):
    import huggingface_hub
    def out(*a, **kw): raise error("refused")
    monkeypatch.setattr(huggingface_hub, "list_repo_files", out)
    with pytest.raises(FileNotFoundError, match="neither a local folder nor a dataset that the hub can deliver"):
        fetch_bench("no-one/nothing", tmp_path)

# ---- the store

@pytest.mark.parametrize("change, words", [(dict(modes=("loud",)), "wanted some of"),
                                           (dict(modes=()), "at least one mode"),
                                           (dict(modes=("think", "think")), "each mode once"),
    (dict(wording="benchmark"), "no sentence for think mode"), (dict(wording="ours"), "wanted one of"),
    (dict(samples=-1), "samples is -1"), (dict(batch=0), "batch is 0")])
def test_bad_settings_are_refused(change, words):
    changed = CONFIG if "batch" in change else CONFIG.suite
    with pytest.raises(ValueError, match=words): replace(changed, **change)

def test_a_store_holds_all_answers(finished, rooms):
    results, n = EvalResults(finished), len(open_bench(rooms).questions)
    assert results.names == ["vanilla", "think", "shuffled", "blind"] and len(results.rows) == n*(2 + 1 + 1 + 2*2)
    assert not results.rows.duplicated(["arm", "mode", "id", "sample"]).any()
    manifest = json.loads((finished/"run.json").read_text())
    assert list(manifest["settings"]) == [       # as in stores that were made before, which must resume
        "model", "adapter", "modes", "wording", "video", "max_new_tokens", "samples", "batch", "seed", "device",
        "weights", "processing", "adapter_weights", "questions", "prompts", "decoding"]
    assert manifest["versions"] and manifest["video_spec"]["frames"] == 4
    scores = vsi_scores(results)
    assert set(scores.name) == {*results.names, "constant, most frequent", "constant, median", "constant, best"}
    assert scores.equals(pd.read_csv(finished/"scores.csv").astype(scores.dtypes))
    official = score_table(results.questions, results.answers("vanilla")).set_index("question_type").score
    assert scores[scores.name == "vanilla"].set_index("question_type").score.equals(official)
    assert results.summary().n.tolist() == [n]*4

def test_another_setting_does_not_resume(finished, rooms):
    before = (finished/"answers.jsonl").read_bytes()
    with pytest.raises(ValueError, match="began with other settings: samples was 2, is 3"):
        run_eval(replace(CONFIG, suite=replace(CONFIG.suite, samples=3)), open_bench(rooms), finished)
    with pytest.raises(ValueError, match="began with other settings: questions was"):
        run_eval(CONFIG, open_bench(rooms, limit=2), finished)
    assert (finished/"answers.jsonl").read_bytes() == before

def test_a_killed_evaluation_resumes(finished, rooms, tmp_path):
    code = ("import sys; sys.path.insert(0, 'tests')\n"
            "from test_prompting import CONFIG, open_bench, run_eval\n"
            "run_eval(CONFIG, open_bench(sys.argv[1]), sys.argv[2])")
    root = Path(__file__).parents[1]
    run = subprocess.Popen([sys.executable, "-c", code, str(rooms), str(tmp_path)], cwd=root,
                           env=dict(os.environ, PYTHONPATH=str(root)), start_new_session=True)
    try:
        while not (tmp_path/"answers.jsonl").is_file() and run.poll() is None: time.sleep(.01)
    finally: os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert not (tmp_path/"scores.csv").exists()
    run_eval(CONFIG, open_bench(rooms), tmp_path)
    a, b = (EvalResults(f).rows.drop(columns="seconds") for f in (finished, tmp_path))
    pd.testing.assert_frame_equal(a, b)
    assert (finished/"scores.csv").read_bytes() == (tmp_path/"scores.csv").read_bytes()

def test_an_adapter_is_named_by_its_weights(rooms, tmp_path):
    with pytest.raises(FileNotFoundError, match="no .*safetensors there"):
        replace(CONFIG, adapter=str(tmp_path)).manifest(open_bench(rooms))

# ---- tables and pages of answers

def test_tables(finished):
    results = EvalResults(finished)
    paper = paper_table(1)
    paper = paper[paper.model == "Qwen2-VL-2B"]
    scores = vsi_scores(results)
    table = side_by_side(scores, paper)
    assert set(table.index) <= set(TASK_NAMES.values()) and table["think mode", "paper"]["counting"] == "18.4"
    assert set(table["observe mode", "ours"]) == {"—"} and "—" not in set(table["think mode", "ours"])
    costs = mode_costs(results, paper)
    assert set(costs["mode"]) == {"think"}
    assert costs.set_index("task").paper["room_size_estimation"] == pytest.approx(-13.8)
    first = mode_table(results, scores, costs, paper)
    assert first.loc["observe mode", ["ours", "ours, minus vanilla", "n"]].tolist() == ["—"]*3
    assert first.loc["vanilla mode", "n"] == str(len(results.questions))
    assert len(cost_sentences(results, costs)) == 2 and len(plot_mode_costs(costs).axes) == 1
    parsers = by_parser(results)
    assert list(parsers.index) == [(mode, parser) for mode in ("vanilla", "think") for parser in PARSERS]
    assert parsers.index[parsers.ours].tolist() == [("vanilla", "official"), ("think", "tagged")]
    equal = at_equal_cost(results)
    best = equal["best (pass@k)"]
    assert equal.samples.tolist() == [2, 2] and (best >= equal["mean"]).all() and (best >= equal.majority).all()
    assert [label.get_text() for label in plot_lengths(results).axes[0].texts] == ["vanilla mode", "think mode"]

def test_answers_beside_the_truth(finished):
    results = EvalResults(finished)
    profile = answer_profile(results)
    assert set(profile.index) <= set(TASK_NAMES.values()) and profile.correlation.dropna().abs().max() <= 1
    assert profile["mean answer"].isna()["route planning"] and profile["most frequent answer"].str.endswith("%)").all()

def test_random_answers_by_hand():
    "2 for 4 chairs scores 0.1, 4 for 2 chairs nothing; a letter of four is right in a quarter of the cases."
    def question(number, kind, truth, options=None):
        return Question(number, "generated", "room", kind, "How many?", truth, options)
    chairs = [question(i, "object_counting", truth) for i, truth in enumerate("24")]
    routes = [question(2, "route_planning", "A", ["A. left", "B. right", "C. back", "D. on"])]
    scores = chance_scores(chairs + routes)
    assert scores["object_counting"] == pytest.approx(5) and scores["route_planning"] == 25
    assert np.isnan(scores["overall"]) and np.isnan(chance_scores(chairs[:1])["object_counting"])

def test_no_overall_where_a_task_is_missing(finished):
    results = EvalResults(finished)
    few = [q for q in results.questions if q.task != "route_planning"]
    texts = results.answers("vanilla")
    assert "overall" not in set(score_table(few, {q.id: texts[q.id] for q in few}).question_type)

def test_constants(rooms):
    questions = read_questions(rooms/"test.parquet")
    answers = constants(questions)
    sizes = [q for q in questions if q.question_type == "object_size_estimation"]
    median = float(np.median([float(q.ground_truth) for q in sizes]))
    assert {float(answers["constant, median"][q.id]) for q in sizes} == {median}
    best = {name: score_table(questions, texts, n_boot=0).score.mean() for name, texts in answers.items()}
    assert best["constant, best"] == max(best.values())

@pytest.mark.parametrize("answers, most", [([None, 2., 3., 3.], 3.), (["A", "B"], "A"), ([None], None), ([], None),
                                           ([float("nan"), "B"], "B"), (["B", "A", "A", "B"], "B")])
def test_majority(answers, most): assert majority(answers) == most

def test_two_stores_are_compared(finished, tmp_path):
    other = tmp_path/"other"
    shutil.copytree(finished, other)
    lines = [json.loads(x) for x in (other/"answers.jsonl").read_text().splitlines()]
    results = EvalResults(finished)
    rows = results.rows
    wrong = rows[(rows.name == "vanilla") & (rows.arm == "modes") & (rows.score < .5)].id.tolist()[:3]
    for x in lines:
        if x["arm"] == "modes" and x["mode"] == "vanilla" and x["id"] in wrong:
            x["prediction"] = results.by_id[x["id"]].ground_truth
    write_text("".join(json.dumps(x) + "\n" for x in lines), other/"answers.jsonl")
    settings, points, turned = compare(finished, other)
    assert settings == [] and set(turned.index) == set(wrong) and set(turned.became) == {"right"}
    assert (points.difference >= 0).all() and points.difference.max() > 0
    assert compare(finished, finished)[2].empty
    manifest = json.loads((other/"run.json").read_text())
    manifest["settings"]["wording"] = "train"
    write_json(manifest, other/"run.json")
    assert compare(finished, other)[0] == ["wording was 'test', is 'train'"]
    rows = pd.read_parquet(other/"questions.parquet")
    rows.loc[rows.question_type == "object_counting", "ground_truth"] = "77"
    rows.to_parquet(other/"questions.parquet")
    with pytest.raises(ValueError, match="questions.parquet: damaged"): compare(finished, other)
    commit(other/"questions.parquet")
    with pytest.raises(ValueError, match="are in one only or differ"): compare(finished, other)

def test_answers_are_escaped(finished, tmp_path):
    other = tmp_path/"other"
    shutil.copytree(finished, other)
    lines = [json.loads(x) for x in (other/"answers.jsonl").read_text().splitlines()]
    lines[0]["prediction"] = "<script>alert(1)</script>"
    write_text("".join(json.dumps(x) + "\n" for x in lines), other/"answers.jsonl")
    results = EvalResults(other)
    page = answer_html(results, lines[0]["id"])
    assert "<script>" not in page and "&lt;script&gt;" in page
    widget = browse_answers(results, lambda q: b"")
    task, way = widget.children[0].children
    for option in way.options: way.value = option
    assert "<script>" not in widget.children[2].value

def test_an_example_is_drawn_and_a_chosen_one_is_called_so(finished):
    results = EvalResults(finished)
    n = len(results.questions)
    drawn = {example_question(results, seed) for seed in range(8)}
    assert len({i for i, _ in drawn}) > 1 and example_question(results, 3) == example_question(results, 3)
    i, caption = example_question(results)
    assert caption == f"Drawn by seed 0 from {n} questions." and caption in answer_html(results, i, caption=caption)
    assert "&lt;b&gt;" in answer_html(results, i, caption="<b>")
    rows = results.rows
    one = results.questions[-1].id
    rows.loc[rows.arm == "modes", "score"] = 0.
    none = "No question is answered right in vanilla mode and wrong in the others. Drawn"
    assert example_question(results, contrast=True)[1].startswith(none)
    rows.loc[(rows.id == one) & (rows["mode"] == "vanilla"), "score"] = 1.
    caption = (f"Chosen: vanilla mode is right and think mode wrong, as in 1 of {n} questions; "
               "of these drawn by seed 0.")
    assert example_question(results, contrast=True) == (one, caption)

def test_scores_say_how_varied_the_answers_are(finished):
    from vsgrpo.evaluation.generate import SPREAD, answer_warnings
    scores = vsi_scores(EvalResults(finished))
    assert set(SPREAD) <= set(scores) and (scores[scores.name == "constant, best"].distinct.dropna() <= 3).all()
    assert not [w for w in answer_warnings(scores, "name") if w.startswith("constant")]

# ---- the released rows, behind generated films

def test_a_real_download_runs(data, rooms, tmp_path):
    "The benchmark's own rows and one film in place of each of its videos, through the notebook."
    rows = pd.read_parquet(data/"vsibench_test.parquet")
    folder, film = tmp_path/"VSI-Bench", sorted(rooms.rglob("*.mp4"))[0]
    folder.mkdir()
    shutil.copy(data/"vsibench_test.parquet", folder/"test-00000-of-00001.parquet")
    for dataset, scene in {(r.dataset, r.scene_name) for r in rows.itertuples()}:
        (folder/dataset).mkdir(exist_ok=True)
        os.link(film, folder/dataset/f"{scene}.mp4")
    error = run_chapter("00_prompting", scale="smoke", bench=str(folder), limit=4, samples=1, out=str(tmp_path/"run"))
    assert not error, error
    results = EvalResults(tmp_path/"run")
    assert len({q.video for q in results.questions}) == 4 and all(isinstance(i, int) for i in results.by_id)
    assert set(results.names) == {"vanilla", "think", "observe", "shuffled", "blind"}
    assert results.settings["video"]["sampling"] == "uniform_floor"      # as the benchmark's own pipeline
