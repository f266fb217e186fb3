"The card holds what was recorded, its code loads the adapter, a merge answers alike, an upload is checked first."
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml

from vsgrpo.files import write_json
from vsgrpo.engine.models import (TINY, VideoReader, default_spec, load_model, load_processor, lora_config,
                                  make_prompt, save_adapter, weights_id)
from vsgrpo.engine.video import SAMPLINGS, VideoSpec, decode, encode, fix_torchvision
from vsgrpo.evaluation.generate import arm_scores, generate_answers
from vsgrpo.evaluation.records import Run
from vsgrpo.evaluation.rows import read_questions, write_questions
from vsgrpo.evaluation.vsibench import Question
from vsgrpo.training import sharing


def make_run(folder, model="tiny", **given):
    "A run folder by hand: an adapter of random numbers, settings, two steps of metrics."
    spec = default_spec(model)
    fix_torchvision()
    import torch
    from peft import get_peft_model
    torch.manual_seed(0)
    adapted = get_peft_model(load_model(model, device="cpu"), lora_config())
    for name, p in adapted.named_parameters():
        if "lora_B" in name: p.data.normal_(std=.05)
    save_adapter(adapted, folder/"adapter", model, spec)
    settings = dict(model=model, mode="think", max_new_tokens=24, steps=2, num_generations=14, beta=1e-4,
                    rewards="accuracy | format", video=spec.as_dict(), data=str(folder/"data"),
                    weights=weights_id(model))
    Run(folder).write_settings(settings | given, video_spec=spec, seed=0, dataset=[])
    for step in (1, 2): Run(folder).log_metrics(step, {"reward": .5, "probe/own": .61, "probe/other": .42})
    return folder

@pytest.fixture
def run(tmp_path): return make_run(tmp_path/"run")

def edit(path, **given): write_json(json.loads(path.read_text()) | given, path)

def scores(folder, trained, shuffled, tasks=("object_counting", "overall")):
    "Write scores.csv with an interval of four points around each score."
    rows = [(arm, task, 10, score, score - 2, score + 2)
            for arm, score in (("trained", trained), ("trained_shuffled", shuffled)) for task in tasks]
    table = pd.DataFrame(rows, columns=["arm", "question_type", "n", "score", "ci_low", "ci_high"])
    table.to_csv(folder/"scores.csv", index=False)

@pytest.mark.parametrize("trained, shuffled, words",
                         [(43, 32, "**The model uses the video**"),
                          (43, 41, "**No evidence that the model uses the video**")])
def test_the_card_states_whether_the_model_uses_the_video(run, trained, shuffled, words):
    scores(run, trained, shuffled)
    text = sharing.write_card(run, "apache-2.0").read_text()
    assert words in text and "43.0 [41.0, 45.0]" in text and "the answers were not compared one by one" in text
    assert "0.61 with the own video, 0.42 with another room's" in text
    assert "Steps: 2 of 2. " in text and "No collapse is recorded" in text
    front = yaml.safe_load(text.split("---")[1])
    # a local base is no hub id
    assert front["license"] == "apache-2.0" and front["library_name"] == "peft" and "base_model" not in front

def test_without_an_overall_score_the_card_counts_tasks(run):
    scores(run, 43, 32, ("object_counting", "room_size_estimation"))
    assert "**The model uses the video in 2 of 2 tasks**" in sharing.card_text(run)

def test_answers_are_compared_one_by_one_where_the_scored_questions_are_here(run):
    questions = [Question(i, "generated", f"room_{i}", "object_counting", "How many?", "4") for i in range(30)]
    right = {q.id: "<answer>4</answer>" for q in questions}
    other = {q.id: f"<answer>{4 if q.id < 20 else 9}</answer>" for q in questions}
    (run/"data").mkdir()
    (run/"answers").mkdir()
    write_questions(questions, run/"data/test.parquet")
    arms = {"trained": right, "trained_shuffled": other}
    for arm, answers in arms.items():
        lines = [json.dumps({"id": i, "prediction": answer}) + "\n" for i, answer in answers.items()]
        (run/f"answers/{arm}.jsonl").write_text("".join(lines))
    arm_scores(arms, questions, "tagged").to_csv(run/"scores.csv", index=False)
    assert sharing.vision_difference(run).difference.tolist() == pytest.approx([100/3])
    text = sharing.card_text(run)
    assert "the paired 95 % interval" in text and "a higher score with the right video: object_counting" in text
    assert "Keep in mind" not in text                           # the truth is constant too
    table = pd.read_csv(run/"scores.csv").assign(counted=1260, top_answer="A|<b>", top_share=.95, distinct=4,
                                                 truth_top_share=.31, truth_distinct=4)
    table.to_csv(run/"scores.csv", index=False)
    text = sharing.card_text(run)
    assert ('- trained gives one answer to 90 % or more of the questions in object_counting '
            '("A\\|&lt;b>" 95 %, truth 31 %).') in text
    assert "<b>" not in text
    scores(run, 43, 32, ["object_counting"])                                     # scores of other questions than these
    assert sharing.vision_difference(run) is None

def test_missing_records_are_named(run):
    (run/"metrics.jsonl").unlink()
    write_json({"settings": {"model": "tiny"}}, run/"run.json")
    text = sharing.write_card(run).read_text()
    for words in ("No held-out scores are recorded", "Steps: not recorded", "Commit not recorded, seed not recorded",
                  "sha256 `not recorded`", "The source of the recordings is not recorded"):
        assert words in text
    edit(run/"run.json", dataset=None, versions=None)
    (run/"collapse.json").write_text(json.dumps(dict(step=9, reason="KL is 7 nats", action="rollback", good=5)))
    text = sharing.write_card(run).read_text()
    assert "collapsed**, noticed in step 9 (KL is 7 nats; rollback, the adapter is from step 5)" in text
    edit(run/"collapse.json", good=0)
    assert "rollback, the adapter was reset to the base)" in sharing.card_text(run)
    (run/"adapter/adapter_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="trained to its end"): sharing.write_card(run)

def test_the_terms_of_the_recordings_are_on_the_card(run):
    (run/"data/generated").mkdir(parents=True)
    assert "Rooms that vsGRPO generated" in sharing.card_text(run) and "ScanNet" not in sharing.card_text(run)
    (run/"data/scannet").mkdir()
    assert "accepted the ScanNet Terms of Use" in sharing.card_text(run)

def test_text_from_files_stays_text(tmp_path):
    nasty = "a | b\n---\nlicense: mit\n# <b>`x`"
    run = make_run(tmp_path/"run", mode=nasty, rewards=nasty, data=f"/d/{nasty}")
    scores(run, 43, 32, ("object_counting", nasty))
    text = sharing.card_text(run)
    assert "\nlicense: mit" not in text and "\n# <" not in text and "<b>" not in text
    assert "a \\| b --- license: mit" in text
    table = text.split("## Settings")[1].split("##")[0].strip().splitlines()
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert yaml.safe_load(text.split("\n---\n")[0].removeprefix("---"))["license"] == "other"
    for licence in ("mit\ntags: []", "", "-", "a: b"):
        with pytest.raises(ValueError, match="wanted a name as the hub spells it"): sharing.write_card(run, licence)

def test_a_base_from_the_hub_is_named(run, monkeypatch):
    monkeypatch.setattr(sharing, "resolve_model", lambda name: "Qwen/Qwen2-VL-2B-Instruct")
    assert yaml.safe_load(sharing.card_text(run).split("---")[1])["base_model"] == "Qwen/Qwen2-VL-2B-Instruct"

def card_code(card): return card.read_text("utf-8").split("```python\n")[1].split("\n```")[0]

def card_lines(card, folder, base):
    "Model and processor that the code of a card loads from these folders; and our own reader."
    names, code = {}, card_code(card).split("\n\n\n")[0]
    for name, place in (("BASE, ADAPTER", (str(base), str(folder))), ("MODEL", str(folder))):
        code = re.sub(rf"^{name} = .*$", f"{name} = {place!r}", code, flags=re.M)
    exec(code, names)
    return names["model"], names["processor"], VideoReader(names["processor"], default_spec("tiny"))

def film(folder):
    encode(np.random.default_rng(0).integers(0, 255, (4, 84, 84, 3), dtype=np.uint8), folder/"film.mp4")
    return folder/"film.mp4"

def logits(model, processor, reader, path):
    "Logits at every position of a prompt, in float64: in float32 the rounding of one model is 2e-5."
    import torch
    model.double()
    p = make_prompt(processor, "How many chair(s) are in this room?", reader(path))
    kinds = torch.tensor([[2*(i == model.config.video_token_id) for i in p.ids]])       # 2: position of a video token
    with torch.no_grad():
        return model(input_ids=torch.tensor([p.ids]), pixel_values_videos=p.video.pixels.double(),
                     video_grid_thw=p.video.grid, mm_token_type_ids=kinds).logits

@pytest.mark.parametrize("given", ["run", "adapter"])
def test_a_merged_model_answers_as_its_adapter(tmp_path, given, monkeypatch):
    "Base and reader are loaded by the code of the two cards; the base's generation settings sample, as Qwen's do."
    base = tmp_path/"base"
    # with a GPU, the code of a card would use it in half precision
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    shutil.copytree(TINY, base)
    edit(base/"generation_config.json", do_sample=True, temperature=.01, top_p=.001, top_k=1)
    run, out, path = make_run(tmp_path/"run", str(base)), tmp_path/"merged", film(tmp_path)
    assert sharing.merge_adapter(run if given == "run" else run/"adapter", out) == out
    adapted, merged = card_lines(sharing.write_card(run), run/"adapter", base), card_lines(out/"README.md", out, base)
    assert merged[0].generation_config.do_sample is False and not hasattr(merged[0], "peft_config")
    merged[0].generate(**merged[1].tokenizer("a", return_tensors="pt"), max_new_tokens=2)
    ours, theirs, plain = (logits(*m, path) for m in (merged, adapted, (load_model(str(base)), *adapted[1:])))
    assert (ours - theirs).abs().max() < 1e-5 < .01 < (theirs - plain).abs().max()
    assert yaml.safe_load((out/"README.md").read_text().split("---")[1])["library_name"] == "transformers"
    assert {p.suffix for p in out.iterdir()} <= {".json", ".jinja", ".md", ".safetensors", ".txt"}
    assert not list(tmp_path.glob("*.tmp"))
    with pytest.raises(ValueError, match="exists already"): sharing.merge_adapter(run, out)

def test_a_merge_takes_a_dtype(run, tmp_path):
    from safetensors import safe_open
    with safe_open(sharing.merge_adapter(run, tmp_path/"m", "bfloat16")/"model.safetensors", "pt") as f:
        assert {f.get_slice(k).get_dtype() for k in f.keys()} == {"BF16"}
    assert load_processor(str(tmp_path/"m")).chat_template

def test_a_merge_is_refused_where_the_base_is_another(run, tmp_path):
    edit(run/"adapter/adapter_config.json", base_model_name_or_path="Qwen/Qwen2-VL-2B-Instruct")
    with pytest.raises(ValueError, match="an adapter for 'Qwen/Qwen2-VL-2B-Instruct', but the run trained 'tiny'"):
        sharing.merge_adapter(run, tmp_path/"m")
    record = json.loads((run/"run.json").read_text())
    record["settings"]["weights"] = "0"*64
    write_json(record, run/"run.json")
    with pytest.raises(ValueError, match="trained on other weights"): sharing.merge_adapter(run, tmp_path/"m")
    del record["settings"]["weights"]
    write_json(record, run/"run.json")
    with pytest.raises(ValueError, match="does not record the weights of 'tiny'"):
        sharing.merge_adapter(run, tmp_path/"m")
    assert not list(tmp_path.glob("m*"))

def test_an_upload_takes_only_safe_files_and_names_what_went_wrong(run, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError
    sent = {}
    class Api:
        def create_repo(self, repo_id, **kw): sent.update(repo=repo_id, **kw)
        def upload_folder(self, **kw):
            sent.update(kw)
            return "https://hub/x"
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    def refused(words, error=ValueError):
        with pytest.raises(error, match=words): sharing.push_adapter(run, "me/x")
        assert not sent
    refused("no README.md", FileNotFoundError)
    (run/"adapter/README.md").write_text("- **Developed by:** [More Information Needed]")
    refused("is peft's unfilled template")
    sharing.write_card(run)
    (run/"adapter/optimizer.pt").write_bytes(b"x")
    refused("pickled files.*optimizer.pt")
    (run/"adapter/optimizer.pt").unlink()
    settings = json.loads((run/"run.json").read_text())["settings"]
    edit(run/"run.json", settings=settings | {"steps": 3})
    refused("trained 2 of 3 steps, wanted a finished run")
    (run/"collapse.json").write_text('{"step": 2, "reason": "KL", "action": "stop"}')
    for name in ("../x", "x", "a/b/c", "a b/c", "é/x"):
        with pytest.raises(ValueError, match="wanted owner/name"): sharing.push_adapter(run, name)
    assert not sent
    assert sharing.push_adapter(run, "me/x") == "https://hub/x" and sent["folder_path"] == str(run/"adapter")
    assert sent["repo"] == sent["repo_id"] == "me/x" and sent["private"] and sent["exist_ok"]
    patterns = sent["allow_patterns"]
    assert set(patterns) == {"*.safetensors", "*.json", "*.jinja", "*.txt", "*.md"}
    assert [p.name for p in (run/"adapter").iterdir() if not any(p.match(pattern) for pattern in patterns)] == []
    for broken in (OSError("no route"), HfHubHTTPError.__bases__[0]("no route")):
        def down(self, *a, **k): raise broken
        monkeypatch.setattr(Api, "create_repo", down)
        with pytest.raises(RuntimeError, match="push_to_hub me/x: the upload failed .*no route") as e:
            sharing.push_adapter(run, "me/x")
        assert e.value.__cause__ is broken
    sent.clear()
    (run/"adapter/README.md").unlink()
    refused("no README.md", FileNotFoundError)


WITHOUT_US = """
import sys
sys.modules["vsgrpo"] = None                       # importing it raises ImportError
import torch
from importlib.util import find_spec
if torch.version.cuda is None and find_spec("torchvision"):
    for op in ("nms", "qnms"):
        torch.library.define(f"torchvision::{op}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""

@pytest.fixture(scope="module")
def rooms(built_rooms):
    "Held-out questions about two rooms, whose films have other sizes and more frames than the model sees."
    folder = built_rooms(3, 1, 2)
    return folder, read_questions(folder/"test.parquet")

def in_plain_transformers(code, home, questions, films):
    "Answers of a card's code, in a process that cannot import this library."
    shutil.copy(films/questions[0].video, home/"film.mp4")
    rows = [[str(films/q.video), q.question, q.options or []] for q in questions]
    (home/"questions.json").write_text(json.dumps(rows))
    rest = "import json\njson.dump([ask(*q) for q in json.load(open('questions.json'))], open('answers.json', 'w'))"
    (home/"run.py").write_text(f"{WITHOUT_US}\n{code}\n{rest}")
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    env |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "run.py"], cwd=home, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((home/"answers.json").read_text())

@pytest.mark.parametrize("merged", [False, True])
def test_the_code_of_a_card_gives_our_answers_without_our_library(tmp_path, rooms, merged, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    folder, questions = rooms
    run = make_run(tmp_path/"run", mode="vanilla", max_new_tokens=16)
    model, processor = load_model("tiny", run/"adapter"), load_processor("tiny")
    reader = VideoReader(processor, default_spec("tiny"))
    table = generate_answers(model, processor, questions, reader, folder, "vanilla", "train", 16)
    ours = table.prediction.tolist()
    assert len(questions) > 15 and len(set(ours)) > 3
    if merged: home = sharing.merge_adapter(run, tmp_path/"merged")
    else:
        home = sharing.write_card(run).parent
        (home/"tiny").symlink_to(TINY)
    code = card_code(home/"README.md")
    assert in_plain_transformers(code, home, questions, folder) == ours
    if merged:        # the control: a processor that was not set to the run's frames and pixels
        load_processor("tiny").save_pretrained(home)
        assert in_plain_transformers(code, home, questions, folder) != ours

@pytest.mark.parametrize("sampling", list(SAMPLINGS))
@pytest.mark.parametrize("total", [3, 24, 37])
def test_the_code_of_a_card_picks_the_frames_of_the_run(tmp_path, sampling, total):
    noise = np.random.default_rng(0).integers(0, 255, (total, 56, 56, 3), dtype=np.uint8)
    film = encode(noise, tmp_path/"film.mp4", crf=0)
    spec = VideoSpec(frames=6, min_pixels=56*56, max_pixels=56*56, factor=14, sampling=sampling)
    code, names = sharing.answer_code(dict(model="tiny", mode="vanilla", max_new_tokens=16, video=spec.as_dict())), {}
    exec("import av\nimport numpy as np\n" + code[code.index("def look"):code.index("def ask")], names)
    assert (names["look"](str(film)) == decode(film, spec)).all()

def test_without_recorded_prompt_settings_the_card_has_no_code(run):
    edit(run/"run.json", settings={"model": "tiny"})
    text = sharing.write_card(run).read_text("utf-8")
    assert "```" not in text and "The prompt settings are not recorded" in text

def test_what_is_passed_on_names_no_folder_of_this_machine(tmp_path):
    "Base, data and rewards are in somebody's home folder; no uploaded file names it."
    base = tmp_path/"somebody"/"base"
    shutil.copytree(TINY, base)
    run = make_run(tmp_path/"run", str(base), rewards=f"accuracy {tmp_path}/own.py:paid", data=str(tmp_path/"data"),
                   own_rewards={f"{tmp_path}/own.py": "0"*64})
    (run/"collapse.json").write_text(json.dumps(dict(step=2, reason=f"{tmp_path}/own.py is gone", action="stop")))
    sharing.write_card(run)
    sharing.check_shareable(run)
    out = sharing.merge_adapter(run, tmp_path/"merged")
    for path in (*(run/"adapter").iterdir(), *out.iterdir()):
        for place in (tmp_path, TINY.parent): assert str(place).encode() not in path.read_bytes(), path
    card = (run/"adapter/README.md").read_text("utf-8")
    assert json.loads((run/"adapter/adapter_config.json").read_text())["base_model_name_or_path"] == "base"
    assert "`BASE` is the folder of the base model, `base`." in card and "accuracy own.py:paid" in card
    load_model(str(base), run/"adapter")
    edit(run/"adapter/adapter_config.json", base_model_name_or_path=str(base))
    with pytest.raises(ValueError, match="names its base by a folder of this machine"): sharing.check_shareable(run)
