"A card that tells what was recorded, an adapter that loads by its own lines, an upload that is checked first."
import json

import pandas as pd
import pytest
import yaml
from vsgrpo import sharing
from vsgrpo.models import default_spec, load_model, lora_config, weights_id
from vsgrpo.rollouts import Run
from vsgrpo.video import fix_torchvision


@pytest.fixture
def run(tmp_path):
    folder, spec = tmp_path/"run", default_spec("tiny")
    fix_torchvision()
    from peft import get_peft_model
    get_peft_model(load_model("tiny", device="cpu"), lora_config()).save_pretrained(folder/"adapter")
    Run(folder).write_settings(dict(model="tiny", mode="think", steps=2, num_generations=14, beta=1e-4, rewards="accuracy | format", video=spec.as_dict(), data="/d/rooms", weights=weights_id("tiny")),
                               video_spec=spec, seed=0, dataset=[])
    return folder

def scores(folder, trained, shuffled):
    pd.DataFrame([(a, t, 10, x, x - 2, x + 2) for a, x in (("trained", trained), ("trained_shuffled", shuffled)) for t in ("object_counting", "overall")],
                 columns=["arm", "question_type", "n", "score", "ci_low", "ci_high"]).to_csv(folder/"scores.csv", index=False)

@pytest.mark.parametrize("trained, shuffled, words", [(43, 32, "**It looks**"), (43, 41, "**That it looks is not shown**")])
def test_the_card_tells_whether_it_looks(run, trained, shuffled, words):
    scores(run, trained, shuffled)
    text = sharing.write_card(run, "apache-2.0").read_text()
    assert words in text and "43.0 [41.0, 45.0]" in text and "sha256" in text
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "apache-2.0" and "base_model" not in front       # a local base is no hub id
    assert "accuracy \\| format" in text.split("## Settings")[1]

def test_what_was_not_recorded_is_said(run):
    text = sharing.write_card(run).read_text()
    assert "No held-out scores are recorded" in text and "steps not recorded" in text
    (run/"collapse.json").write_text(json.dumps(dict(step=9, reason="KL is 7 nats", action="rollback", good=5)))
    assert "collapsed** in step 9 (KL is 7 nats; rollback, the adapter is that of step 5)" in sharing.write_card(run).read_text()
    (run/"adapter/adapter_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="trained to its end"): sharing.write_card(run)

def test_the_lines_of_the_card_load_the_adapter(run):
    names = {}
    exec("\n".join(sharing.load_lines(Run(run).read_settings()["settings"], str(run/"adapter"))), names)
    assert names["model"].peft_config and names["processor"].chat_template and names["shown"]["frames"] == 4

def test_a_merge_is_refused_where_the_base_is_another(run, tmp_path):
    told = json.loads((run/"run.json").read_text())
    told["settings"]["weights"] = "0"*64
    (run/"run.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match="trained on other weights"): sharing.merge_adapter(run, tmp_path/"m")
    assert not (tmp_path/"m").exists()

def test_an_upload_takes_what_is_safe_and_tells_what_went_wrong(run, monkeypatch):
    import huggingface_hub
    sent = {}
    class Api:
        def create_repo(self, repo_id, **kw): sent.update(repo=repo_id, **kw)
        def upload_folder(self, **kw): sent.update(kw); return "https://hub/x"
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    (run/"adapter/README.md").unlink()
    with pytest.raises(FileNotFoundError, match="no README.md"): sharing.push_adapter(run, "me/x")
    sharing.write_card(run)
    assert sharing.push_adapter(run, "me/x") == "https://hub/x" and sent["repo"] == "me/x" and sent["private"] and set(sent["allow_patterns"]) == {"*.safetensors", "*.json", "*.md"}
    def down(self, *a, **k): raise OSError("no route")
    monkeypatch.setattr(Api, "create_repo", down)
    with pytest.raises(RuntimeError, match="push_to_hub me/x: the hub did not take it .*no route"): sharing.push_adapter(run, "me/x")
    with pytest.raises(ValueError, match="wanted owner/name"): sharing.push_adapter(run, "../x")
