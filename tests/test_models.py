"Names, loading, and how a question becomes tokens."
import json
import shutil

import numpy as np
import pytest

from vsgrpo.engine import models
from vsgrpo.engine.video import VideoSpec

SPEC = VideoSpec(frames=4, min_pixels=56*56, max_pixels=56*56, factor=14)

@pytest.fixture(scope="module")
def processor(): return models.load_processor("tiny")

def frames(seed=0): return np.random.default_rng(seed).integers(0, 255, (4, 56, 56, 3), dtype=np.uint8)

def test_a_model_that_is_nowhere_names_the_places_searched():
    with pytest.raises(FileNotFoundError, match=r"nobody/nothing.*is not in the cache.*folder of a local copy"):
        models.load_model("nobody/nothing")

def test_a_half_folder_is_named(tmp_path):
    shutil.copy(models.TINY/"config.json", tmp_path/"config.json")
    with pytest.raises(ValueError, match="not a complete model folder"): models.load_model(str(tmp_path))

def test_pickled_weights_are_refused(tmp_path):
    import torch
    shutil.copy(models.TINY/"config.json", tmp_path/"config.json")
    torch.save({}, tmp_path/"pytorch_model.bin")
    with pytest.raises(ValueError, match="not a complete model folder"): models.load_model(str(tmp_path))
    (tmp_path/"adapter_model.bin").write_bytes(b"x")
    with pytest.raises(FileNotFoundError, match="no adapter_model.safetensors"): models.load_adapter(None, tmp_path)

def test_another_kind_of_model_is_refused(tmp_path):
    (tmp_path/"config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="is of type 'bert', expected 'qwen2_vl'"): models.load_model(str(tmp_path))

def test_a_hub_model_is_identified_by_its_commit(tmp_path, monkeypatch):
    import huggingface_hub.constants
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    commit, repo = "0123456789abcdef0123456789abcdef01234567", tmp_path/"models--owner--name"
    shutil.copytree(models.TINY, repo/"snapshots"/commit)
    (repo/"refs").mkdir()
    (repo/"refs"/"main").write_text(commit)
    assert models.weights_id("owner/name") == models.processing_id("owner/name") == f"owner/name@{commit}"
    with pytest.raises(FileNotFoundError, match="nobody/nothing.*not in the cache"): models.weights_id("nobody/nothing")

def test_lora_touches_the_language_layers_only():
    from peft import get_peft_model
    model = get_peft_model(models.load_model("tiny", device="cpu"), models.lora_config())
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    assert trained and all("language_model" in n and "lora_" in n for n in trained)

def test_tokens_equal_those_of_the_processor(processor):
    "Our prompt and patches are what the processor itself makes of the same chat and video."
    import torch
    reader = models.VideoReader(processor, SPEC)
    ours = models.make_prompt(processor, "How many?", reader.prepare(frames(), "a"))
    turn = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "How many?"}]}
    chat = processor.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
    theirs = processor(text=[chat], videos=[torch.from_numpy(frames()).permute(0, 3, 1, 2)], return_tensors="pt",
                       videos_kwargs=dict(do_resize=False, do_sample_frames=False, cap_pixels_per_frame=True))
    assert list(ours.ids) == theirs["input_ids"][0].tolist()
    assert torch.equal(ours.video.pixels, theirs["pixel_values_videos"])
    assert torch.equal(ours.video.grid, theirs["video_grid_thw"])
    assert ours.ids.count(processor.tokenizer.convert_tokens_to_ids(processor.video_token)) == ours.video.tokens == 32

def test_a_blank_video_is_refused_unless_asked_for(processor):
    grey = np.full((4, 56, 56, 3), 80, np.uint8)
    with pytest.raises(ValueError, match="a.mp4: blank: its pixels vary by 0 of 255 levels"):
        models.VideoReader(processor, SPEC).prepare(grey, "a.mp4")
    blank = models.VideoReader(processor, SPEC, blank=True)
    assert blank.prepare(frames(0), "a").digest == blank.prepare(frames(1), "b").digest

def test_a_spec_for_another_patch_size_is_refused(processor):
    with pytest.raises(ValueError, match="factor is 28; this model's patch × merge is 14"):
        models.VideoReader(processor, VideoSpec())

def test_the_reader_forgets_the_oldest_first(processor, tmp_path):
    from vsgrpo.engine.video import encode
    paths = [tmp_path/f"{i}.mp4" for i in range(4)]
    for i, p in enumerate(paths): encode(frames(i), p)
    reader = models.VideoReader(processor, SPEC, limit_mb=1)
    sizes = [reader(p).pixels.nbytes for p in paths]
    assert reader.size == sum(sizes[-len(reader.kept):]) <= 2**20 and list(reader.kept)[-1][0] == str(paths[-1])

def test_a_model_without_a_chat_template_is_refused(tmp_path):
    shutil.copytree(models.TINY, tmp_path/"tiny", ignore=shutil.ignore_patterns("chat_template*"))
    for f in (tmp_path/"tiny").glob("*config.json"):
        config = json.loads(f.read_text())
        if config.pop("chat_template", None): f.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="no chat template"): models.load_processor(str(tmp_path/"tiny"))

def test_texts_are_checked_against_the_tokenizer():
    "Tokens that only this tokenizer has are found too; tags of the prompt modes are text, even where they are tokens."
    processor = models.load_processor("tiny")
    processor.tokenizer.add_tokens(["<point>", "<think>", "</answer>"])
    models.check_texts(processor, [(1, "<think> </think> <answer>4</answer> a < b"), ("a", "🙂")])
    for text, words in (("at <point>2, 3", "question 7 holds '<point>'"),
                        ("x<|image_pad|>", "question 7 holds '<|image_pad|>'"),
                        ("\ud800", r"question 7 is '\\ud800', which holds half a character")):
        with pytest.raises(ValueError, match=words.replace("|", r"\|")):
            models.check_texts(processor, [(1, "fine"), (7, text)])
