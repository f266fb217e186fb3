"VideoMME, VideoMMMU and TempCompass: scores equal to lmms-eval's, many kinds of video files, stores that resume."
import hashlib
import json
import struct
from fractions import Fraction

import av
import numpy as np
import pandas as pd
import pytest
from chapters import assert_refused, run_chapter
from general_answers import tempcompass, videomme, videommmu
from test_vsibench import slower_than_linear

from vsgrpo.evaluation import bench_folder
from vsgrpo.files import write_text
from vsgrpo.evaluation.benchmark_scores import (PARSERS, format_prompt, part_difference, part_draws, part_scores,
                                                score_items)
from vsgrpo.evaluation.benchmarks import (BENCHMARKS, TEMPCOMPASS, VIDEOMME, VIDEOMMMU, Files, Item, open_benchmark,
                                          read_benchmark, read_srt)
from vsgrpo.evaluation.generate import answer_warnings, spread_table
from vsgrpo.evaluation.answer_store import BenchmarkSuite, EvalResults, benchmark_config, run_eval
from vsgrpo.evaluation.bench_folder import unpack
from vsgrpo.general_eval import eval_spread, parser_table, part_table
from vsgrpo.training.adapters import retention
from vsgrpo.training.general_ability import (
    change_sentences, eval_table, general_agreement, general_changes, general_table, grpo_minus_sft, kept_sentence,
    plot_gain_and_loss)
from vsgrpo.engine.video import FrameCache, VideoSpec, decode, sample_indices

NOWHERE = Files("nowhere")

# Results of lmms-eval 0.6.1 (its wheel on PyPI; lmms_eval/tasks/{videomme,videommmu,tempcompass}/utils.py) for the
# 2,400 answers of each generator: sha256 of the scores, one character each ("-": left out of the mean), and sha256 of
# what was read. If no rule reads an answer to TempCompass, lmms-eval asks another model; recorded as 0.
RECORDED = {"videomme": ("655bb0856f0cb2f9f3fcc91348db7c33", "31cd64e0489ce189f6396bcfeaffb62d"),
            "videommmu": ("28446d8067096508e62e8de0201257fc", "9fce8af6c97938d3f7782fcdfcaafb01"),
            "tempcompass": ("38ae415e36f3963a9708f2764f0eea7a", None)}
# its aggregates of the same answers
OVERALL = {"videomme": 23.833333333333332, "Perception": 0.26225, "Comprehension": 0.22134, "Adaptation": 0.23413}

def digest(text): return hashlib.sha256(text.encode()).hexdigest()[:32]

@pytest.mark.parametrize("name, made", [("videomme", videomme), ("videommmu", videommmu), ("tempcompass", tempcompass)])
def test_scores_are_lmms_evals(name, made):
    bench, (rows, answers) = BENCHMARKS[name], zip(*made())
    items = [bench.item(row, NOWHERE) for row in rows]
    scores = score_items(bench, items, list(answers))
    assert len(items) >= 2000 and .15 < np.nanmean(scores) < .85
    assert digest("".join("-" if np.isnan(s) else str(int(s)) for s in scores)) == RECORDED[name][0]
    if RECORDED[name][1]:
        read = [bench.read(item, text)[0] for item, text in zip(items, answers)]
        plain = [sorted(map(str, value)) if isinstance(value, list) else value for value in read]
        assert digest(json.dumps(plain)) == RECORDED[name][1]

def test_aggregates_are_lmms_evals():
    for name, made in (("videomme", videomme), ("videommmu", videommmu)):
        bench, (rows, answers) = BENCHMARKS[name], zip(*made())
        items = [bench.item(row, NOWHERE) for row in rows]
        table = part_scores(bench, items, score_items(bench, items, list(answers)), n_boot=0)
        if name == "videomme": assert table.score[0] == pytest.approx(OVERALL[name], abs=1e-9)
        else:
            tracks = table[table.part == "track"].set_index("value").score
            for track in tracks.index: assert round(tracks[track]/100, 5) == OVERALL[track]
            assert table.score[0] == pytest.approx(tracks.mean()) and table.left_out[0] == 130

def test_prompts_of_videomme():
    row = dict(videomme()[0][0], question="Q?", options=["A. a", "B. b", "C. c", "D. d"])
    item = VIDEOMME.item(row, NOWHERE)
    head = ("Select the best answer to the following multiple-choice question based on the video and the subtitles. "
            "Respond with only the letter (A, B, C, or D) of the correct option.\nQ?\nA. a\nB. b\nC. c\nD. d\n")
    subtitles = "This video's subtitles are listed below: \nNo subtitles available\n"
    assert format_prompt(VIDEOMME, item) == head + "\nAnswer with the option's letter from the given choices directly."
    assert format_prompt(VIDEOMME, item, subtitles=True) == subtitles + head + "The best answer is:"
    thinking = format_prompt(VIDEOMME, item, "video-r1")
    assert thinking.startswith("Q?Options:\nA. a\nB. b\nC. c\nD. d\n\nPlease think")
    assert thinking.endswith("within the <answer> </answer> tags.")

def test_prompts_of_videommmu():
    row = dict(id="dev_Math_1", question="Q?", options=["a", "b"], answer="A", question_type="multiple-choice")
    def prompt(track, **more): return format_prompt(VIDEOMMMU, VIDEOMMMU.item(row | dict(track=track) | more, NOWHERE))
    assert prompt("Perception") == "Q?\nA. a\nB. b\nPlease ignore the Quiz question in last frame of the video."
    assert prompt("Adaptation") == (
        "You should watch and learn the video content. Then apply what you learned to answer the following "
        "multi-choice question. The image for this question is at the end of the video.\nQ?\nA. a\nB. b")
    assert prompt("Adaptation", question_type="None", answer="C").endswith(
        "open-ended question. The image for this question is at the end of the video.\nQ?")
    assert prompt("Question only") == "Q?\nA. a\nB. b"

def test_intervals_are_over_videos():
    "Ten questions about one video count as one piece of evidence."
    labels = dict.fromkeys(VIDEOMME.parts, "x")
    items = [Item(f"{video}-{k}", f"{video}.mp4", "Q", "A", ("a", "b"), labels)
             for video in range(6) for k in range(10)]
    scores = np.repeat([1., 1., 1., 0., 0., 0.], 10)
    drawn = part_draws(VIDEOMME, items, scores)["overall", ""]
    assert drawn[0] == 50 and set(np.round(drawn[1:]*6/100, 6)) <= set(range(7))
    same = part_difference(VIDEOMME, items, scores, scores)
    assert not same[["difference", "ci_low", "ci_high"]].to_numpy().any()
    better = part_difference(VIDEOMME, items, np.ones(60), scores).iloc[-1]
    assert better.difference == 50 and 0 < better.ci_low < 50 < better.ci_high <= 100

# Video files of many kinds

def film(path, codec="libx264", size=(96, 64), pix="yuv420p", stamps=None, fps=25, n=30, seed=0):
    "Write a film of slow noise; `stamps` are the times of its frames, in seconds."
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w", format="matroska" if path.suffix == ".mkv" else "mp4") as out:
        stream = out.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, pix
        if stamps is not None: stream.codec_context.time_base = Fraction(1, 1000)
        for k in range(n):
            frame = av.VideoFrame.from_ndarray(np.kron(rng.integers(0, 255, (size[1]//8, size[0]//8, 3)),
                                                       np.ones((8, 8, 1))).astype(np.uint8), format="rgb24")
            if stamps is not None: frame.pts, frame.time_base = round(1000*stamps[k]), stream.codec_context.time_base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path

def turn(data):
    "Set a clockwise quarter turn in the track header of an mp4."
    at = data.index(b"tkhd") + 44
    return data[:at] + struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 64 << 16, 0, 1 << 30) + data[at+36:]

@pytest.fixture(scope="module")
def download(tmp_path_factory):
    "A folder like the download of VideoMME: films of many kinds, one cut short, one missing, and a bad row."
    root = tmp_path_factory.mktemp("general")
    folder = root/"Video-MME"
    (folder/"data").mkdir(parents=True)
    (folder/"videomme").mkdir()
    (folder/"subtitle").mkdir()
    film(folder/"data"/"plain.mp4")
    film(folder/"data"/"old.mp4", "mpeg4")
    film(folder/"data"/"tall.mp4", size=(48, 112))
    film(folder/"data"/"fine.mkv", "libx264", pix="yuv444p")
    film(folder/"data"/"vp.mp4", "libvpx-vp9")
    film(folder/"data"/"LOUD.MP4", size=(64, 64))
    film(folder/"data"/"uneven.mp4", stamps=np.cumsum([.02, .02, .3]*10))
    (folder/"data"/"turned.mp4").write_bytes(turn(film(root/"lying.mp4", seed=3).read_bytes()))
    whole = film(folder/"data"/"broken.mp4", n=60).read_bytes()
    (folder/"data"/"broken.mp4").write_bytes(whole[:len(whole)//3])
    (folder/"data"/"._plain.mp4").write_bytes(b"resource fork")
    (folder/"subtitle"/"plain.srt").write_bytes("\ufeff1\r\n00:00:00,000 --> 00:00:00,500\r\n<font color=\"white\" "
                                                "size=\".72c\">¿Qué?</font>\r\n\r\n2\r\n00:00:00,900 --> "
                                                "00:00:02,000\r\nLast words\r\n".encode())
    names = ["plain", "old", "tall", "fine", "vp", "LOUD", "uneven", "turned", "broken", "gone"]
    rows = [dict(video_id=f"{i:03d}", duration="short", domain="Life Record", sub_category="Food", videoID=name,
                 question_id=f"{i:03d}-{k}", task_type="Counting Problem", question="Number of chair:",
                 options=["A. 0", "B. 1", "C. 2", "D. 3 or more"], answer="ABCD"[(i + k) % 4])
            for i, name in enumerate(names) for k in (1, 2)]
    rows.append(rows[0] | dict(question_id="x", answer="Z"))
    pd.DataFrame(rows).to_parquet(folder/"videomme"/"test-00000-of-00001.parquet")
    return root

def test_video_files_of_many_kinds_are_read(download):
    spec = VideoSpec(4, 84*84, 84*84, 14)
    bench = open_benchmark(VIDEOMME, download/"Video-MME", frames=(FrameCache(None), spec), max_skipped=.3,
                           subtitles=True)
    films = {"plain.mp4", "old.mp4", "tall.mp4", "fine.mkv", "vp.mp4", "LOUD.MP4", "uneven.mp4", "turned.mp4"}
    assert {q.video.split("/")[1] for q in bench.questions} == films
    reasons = bench.aside.reason.tolist()
    n_reasons = {words: sum(words in reason for reason in reasons)
                 for words in ("broken.mp4: not a readable video", "gone.mp4", "'Z'")}
    assert list(n_reasons.values()) == [2, 2, 1] and len(reasons) == 5
    assert {q.subtitles for q in bench.questions if "plain" in q.video} == {"¿Qué?\nLast words"}
    assert {q.subtitles for q in bench.questions if "plain" not in q.video} == {""}
    words = r"1 of 21 questions cannot be used, at most 0% may be left out \(-p max_skipped\)"
    with pytest.raises(ValueError, match=words):
        open_benchmark(VIDEOMME, download/"Video-MME", frames=(FrameCache(None), spec), max_skipped=0)

def test_a_turned_film_is_shown_upright(download):
    spec = VideoSpec(4, 96*64, 96*64, 8)
    lying = decode(download/"lying.mp4", spec)
    upright = decode(download/"Video-MME"/"data"/"turned.mp4", spec)
    assert lying.shape[1:3] == (64, 96) and upright.shape[1:3] == (96, 64)
    assert (upright == np.rot90(lying, -1, (1, 2))).all()

def test_uneven_frames_are_picked_by_number(download):
    "Frames are picked by number, not by time, as in qwen_vl_utils."
    with av.open(str(download/"Video-MME"/"data"/"uneven.mp4")) as c:
        frames = [f.to_ndarray(format="rgb24") for f in c.decode(video=0)]
    seen = decode(download/"Video-MME"/"data"/"uneven.mp4", VideoSpec(4, 96*64, 96*64, 8))
    assert (seen == np.stack([frames[i] for i in sample_indices(30, 4)])).all()

def test_chapter_40_on_a_download(download, tmp_path):
    error = run_chapter("40_general_eval", scale="smoke", methods="", benchmarks="videomme", bench=str(download),
                        out=str(tmp_path/"run"), max_skipped=.3)
    assert not error, error
    table = pd.read_csv(tmp_path/"run"/"scores.csv")
    assert table.benchmark.tolist() == ["VideoMME", "VideoMME + subtitles"] and (table.n == 16).all()
    assert len(pd.read_csv(next(tmp_path.glob("run/videomme-base*/aside.csv")))) == 5

@pytest.mark.parametrize("given, words", [
    (dict(benchmarks="mvbench"), "benchmarks is 'mvbench': wanted some of videomme videommmu tempcompass"),
    (dict(benchmarks="tempcompass"), "wanted bench, the folder of the download"),
    (dict(bench="nowhere"), "no VideoMMMU or videommmu in it"),
    (dict(protocol="mine"), "protocol 'mine': wanted one of ['lmms-eval', 'video-r1']"),
    (dict(adapters="SFT=nowhere"), "holds no adapter_model.safetensors"),
    (dict(runs="nbs"), "no finished run there"),
])
def test_general_eval_refuses(given, words, tmp_path):
    assert_refused("40_general_eval", words, tmp_path/"run", **given)

# How varied answers are, and two seeds

def made_results(answers):
    "Results without a model: 20 questions of VideoMME about 10 videos."
    items = [Item(str(i), f"data/v{i//2}.mp4", "?", "AB"[i % 2], ("A. a", "B. b"), {"duration": "short"})
             for i in range(20)]
    return results_of(BenchmarkSuite("videomme", "lmms-eval"), items, answers)

def results_of(suite, items, answers):
    "Results without a store."
    results = EvalResults.__new__(EvalResults)
    results.suite, results.questions, results.by_id = suite, items, {item.id: item for item in items}
    rows = [(arm, arm, item.id, a, 1, False) for arm in ("own", "blind") for item, a in zip(items, answers)]
    results.rows = pd.DataFrame(rows, columns=["arm", "name", "id", "prediction", "n_tokens", "truncated"])
    return results

def table_of(*rows, benchmark="VideoMME"):
    "Results as chapter 40 tabulates them; a row is arm, seed, results."
    return pd.DataFrame([(arm, seed, benchmark, results) for arm, seed, results in rows],
                        columns=["arm", "seed", "benchmark", "results"])

def test_constant_answers_to_a_benchmark_are_reported():
    evals = table_of(("base", 0, made_results("AB"*10)), ("SFT", 0, made_results("A"*19 + "B")),
                     ("mute", 0, made_results([""]*20)))
    spread = eval_spread(evals)
    assert spread_table(spread).loc["VideoMME"].tolist() == ["A: 50 % (2)", "A: 95 % (2)", "(unreadable): 100 % (1)",
                                                             "50 % (2)"]
    assert answer_warnings(spread) == [
        'SFT gives one answer to 90 % or more of the questions in VideoMME ("A" 95 %, truth 50 %).',
        "mute gives one answer to 90 % or more of the questions in VideoMME (nothing readable 100 %, truth 50 %)."]

def test_two_seeds_are_both_counted():
    right, wrong = made_results("AB"*10), made_results("BA"*10)
    evals = table_of(("base", 0, wrong), ("SFT", 0, right), ("SFT", 1, wrong))
    assert retention(evals[:2], "SFT") == (100, 100, 100) and retention(evals, "SFT") == (50, 50, 50)
    assert np.isnan(retention(evals, "SFT", part=("track", "x"))).all()
    with pytest.raises(ValueError, match="vsGRPO-V has no run of seed 0"): retention(evals, "SFT", "vsGRPO-V")

@pytest.fixture(scope="module")
def lectures():
    "`lectures(answer)`: results of two questions in each track of VideoMMMU, answered by a function of the item."
    tracks = [track for track in ("Perception", "Comprehension", "Adaptation") for _ in range(2)]
    items = [Item(f"{track}/{i}", f"v{i}.mp4", "?", "AB"[i % 2], ("left", "right"),
                  {"track": track, "discipline": "Art"}) for i, track in enumerate(tracks)]
    suite = BenchmarkSuite("videommmu", "lmms-eval")
    return lambda answer: results_of(suite, items, [answer(item) for item in items])

def test_tables_of_general_ability(lectures):
    right = lectures(lambda item: item.answer)
    wrong = lectures(lambda item: "B" if item.answer == "A" else "A")
    same = table_of(("base", 0, right), ("SFT", 0, right), benchmark="VideoMMMU")
    lost = table_of(("base", 0, right), ("SFT", 0, wrong), benchmark="VideoMMMU")
    assert retention(same, "SFT", benchmark="VideoMMMU") == (0, 0, 0)
    assert retention(lost, "SFT", benchmark="VideoMMMU") == pytest.approx((-100, -100, -100))
    titles = ["VideoMMMU", "VideoMMMU, Perception", "VideoMMMU, Comprehension"]
    assert eval_spread(same).question_type.tolist()[:3] == titles
    spatial = {"SFT": (13., 11., 15.)}
    row = general_table(same, general_changes(same, spatial)).loc[("VideoMMMU", "SFT")]
    assert row.paper == 30.7 and row["paper, minus base"] == "−1.6" and row["ours, blanked video"] == 100
    assert row.ours == 100 and row["ours, minus base"] == "+0.0 [+0.0, +0.0]"
    assert parser_table(lost).loc[("VideoMMMU", "SFT"), "lmms-eval"] == 0
    assert part_table(lost).SFT.tolist() == [0]*4 and part_table(lost).n.tolist() == [6, 2, 2, 2]   # Art holds all
    assert len(plot_gain_and_loss(general_changes(same, spatial)).axes) == 2
    assert len(plot_gain_and_loss(general_changes(same, {})).axes) == 1

def test_findings_name_the_difference_and_the_papers(lectures):
    right = lectures(lambda item: item.answer)
    wrong = lectures(lambda item: "B" if item.answer == "A" else "A")
    evals = table_of(("base", 0, right), ("SFT", 0, wrong), ("vsGRPO-V", 0, right), benchmark="VideoMMMU")
    changes = general_changes(evals, {"SFT": (13., 11., 15.)})
    assert change_sentences(changes) == [
        "Spatial questions, minus base: SFT +13.0 [+11.0, +15.0] (a gain; paper +6.3).",
        "VideoMMMU, minus base: SFT −100.0 [−100.0, −100.0] (a loss; paper −1.6); vsGRPO-V +0.0 [+0.0, +0.0] (not "
        "significant; paper −0.6)."]
    assert kept_sentence(grpo_minus_sft(evals)) == (
        "In VideoMMMU GRPO keeps more than SFT (+100.0 [+100.0, +100.0] points), as in the paper.")
    assert general_agreement(changes)[1] == (
        "Of 2 differences in general ability, 1 is a significant loss (SFT in VideoMMMU).")

# Folders, archives, stores

def test_layouts(tmp_path):
    for track in ("Perception", "Comprehension"): (tmp_path/track).mkdir()
    row = dict(id="dev_Math_1", question="Q?", options=["a", "b"], answer="A", question_type="multiple-choice")
    for track in ("Perception", "Comprehension"):
        pd.DataFrame([row]).to_parquet(tmp_path/track/"test-00000-of-00001.parquet")
    with pytest.raises(FileNotFoundError, match="wanted the rows of the track Adaptation"):
        read_benchmark(VIDEOMMMU, tmp_path)
    open_row = row | dict(options=[], answer="5", question_type="open")
    (tmp_path/"Adaptation.jsonl").write_text(json.dumps(open_row) + "\n")
    items, aside = read_benchmark(VIDEOMMMU, tmp_path)
    tracks = ("Perception", "Comprehension", "Adaptation")
    assert [item.id for item in items] == [f"{track}/dev_Math_1" for track in tracks] and not aside
    (tmp_path/"question_only").mkdir()
    (tmp_path/"question_only"/"dev_Math_1_image.mp4").touch()
    items, _ = read_benchmark(VIDEOMMMU, tmp_path)
    assert items[-1].id == "Question only/dev_Math_1" and items[-1].video == "question_only/dev_Math_1_image.mp4"
    pd.DataFrame([row, row]).to_parquet(tmp_path/"Perception"/"test-00000-of-00001.parquet")
    with pytest.raises(ValueError, match="1 ids of VideoMMMU occur twice"): read_benchmark(VIDEOMMMU, tmp_path)
    with pytest.raises(FileNotFoundError, match="wanted rows in multi-choice"): read_benchmark(TEMPCOMPASS, tmp_path)

def test_rows_that_no_model_can_read_are_set_aside(tmp_path):
    row = dict(videoID="v", question="Q?", options=["A. a", "B. b"], answer="A", duration="short", domain="d",
               sub_category="s", task_type="t")
    odd = [dict(question="<|im_end|>"), dict(options=["A. a", "B. <|video_pad|>"]), dict(question=True), {}]
    lines = [json.dumps(row | dict(question_id=str(k)) | change) + "\n" for k, change in enumerate(odd)]
    (tmp_path/"test.jsonl").write_text("".join(lines))
    items, aside = read_benchmark(VIDEOMME, tmp_path)
    assert [item.id for item in items] == ["3"]
    assert [reason for _, reason in aside] == [
        "question holds '<|im_end|>', which is a control token of the model, not text",
        "an option holds '<|video_pad|>', which is a control token of the model, not text",
        "column 'question' is True, expected text"]
    for field, value in (("subtitles", "<|im_start|>"), ("question", "\ud800"), ("answer", "<|endoftext|>")):
        with pytest.raises(ValueError, match=field):
            Item(**dict(id="1", video="v", question="?", answer="A") | {field: value})

@pytest.mark.parametrize("name", BENCHMARKS)
def test_long_answers_are_read_in_linear_time(name):
    bench, labels = BENCHMARKS[name], dict(track="Perception", form="multi-choice")
    items = [Item("i", "v", "?", "A", ("left", "right"), labels), Item("i", "v", "?", "4", (), labels)]
    for read in PARSERS.values():
        for item in items: assert slower_than_linear(lambda text, read=read, item=item: read(bench, item, text)) == []

def test_long_subtitles_are_read_in_linear_time(tmp_path):
    path = tmp_path/"a.srt"
    def read(text):
        path.write_text("1\n00:00:01,000 --> 00:00:02,500\n" + text)
        return read_srt(path)
    assert read("<i>a</i> b <c") == [(1., 2.5, "a b <c")]
    texts = ["1", "1:", "<", ">", "<a", " ", "\n", "\n ", "00:00:01,000", "00:00:01,000 --> "]
    assert slower_than_linear(read, texts) == []

def test_archives_bring_subtitles_and_stay_inside(tmp_path):
    import zipfile
    with zipfile.ZipFile(tmp_path/"a.zip", "w") as z:
        for name in ("data/a.MP4", "subtitle/a.srt", "__MACOSX/data/._a.mp4", "readme.txt"): z.writestr(name, "x")
    unpack(tmp_path/"a.zip", tmp_path/"out")
    unpacked = sorted(str(p.relative_to(tmp_path/"out")) for p in (tmp_path/"out").rglob("*.*"))
    assert unpacked == ["data/a.MP4", "subtitle/a.srt"]
    with zipfile.ZipFile(tmp_path/"b.zip", "w") as z: z.writestr("../out.srt", "x")
    with pytest.raises(ValueError, match="would lie outside"): unpack(tmp_path/"b.zip", tmp_path/"out")
    assert not (tmp_path/"out.srt").exists()

def test_packed_archives_are_bounded(tmp_path, monkeypatch):
    "A zip bomb is refused by its list of contents; films that hardly shrink, and a small archive, are accepted."
    import zipfile
    monkeypatch.setattr(bench_folder, "FREE_BYTES", 10**6)
    def archive(name, members, packing=zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path/name, "w", packing) as z:
            for member, content in members: z.writestr(member, content)
        return tmp_path/name
    film = np.random.default_rng(0).bytes(3*10**6)
    unpack(archive("films.zip", [("a.mp4", film), ("b.srt", "x"*10**6)]), tmp_path/"films")
    assert (tmp_path/"films/a.mp4").read_bytes() == film
    bomb = archive("bomb.zip", [(f"{k}.mp4", bytes(10**6)) for k in range(4)])
    words = r"bomb.zip: 4,000,000 bytes of videos and subtitles in an archive of [0-9,]+, expected at most"
    with pytest.raises(ValueError, match=words): unpack(bomb, tmp_path/"out")
    monkeypatch.setattr(bench_folder, "MOST_MEMBERS", 3)
    with pytest.raises(ValueError, match="bomb.zip: 4 members, expected at most 3"): unpack(bomb, tmp_path/"out")
    (tmp_path/"torn.zip").write_bytes(bomb.read_bytes()[:-30])
    with pytest.raises(ValueError, match="torn.zip: not a zip archive that can be read"):
        unpack(tmp_path/"torn.zip", tmp_path/"out")
    assert not (tmp_path/"out").exists()

def test_a_killed_store_resumes(download, tmp_path):
    "Complete answers of a killed run are kept; a torn line and missing answers are generated again."
    config = benchmark_config("tiny-general", "", "videomme", subtitles=True)
    bench = open_benchmark(VIDEOMME, download/"Video-MME", frames=(FrameCache(None), config.video), max_skipped=.3,
                           subtitles=True)
    run_eval(config, bench, tmp_path/"whole")
    run_eval(config, bench, tmp_path/"torn")
    lines = (tmp_path/"torn"/"answers.jsonl").read_bytes().splitlines(keepends=True)
    write_text(b"".join(lines[:9]).decode(), tmp_path/"torn"/"answers.jsonl")
    with open(tmp_path/"torn"/"answers.jsonl", "ab") as f: f.write(lines[9][:20])
    run_eval(config, bench, tmp_path/"torn")
    whole, torn = (EvalResults(tmp_path/n) for n in ("whole", "torn"))
    assert list(whole.settings) == [     # as in existing stores, which must still resume
        "model", "adapter", "benchmark", "protocol", "subtitles", "video", "max_new_tokens", "batch", "seed", "device",
        "weights", "processing", "adapter_weights", "questions", "prompts", "decoding"]
    for arm in ("own", "blind"):
        assert whole.answers(arm) == torn.answers(arm) and len(whole.answers(arm)) == 16
    evals = table_of(("base", 0, whole), ("SFT", 0, torn))
    assert retention(evals, "SFT") == (0, 0, 0) and eval_table(evals).n.tolist() == [16, 16]
    with pytest.raises(ValueError, match="began with other settings: .*subtitles was True, is False"):
        run_eval(benchmark_config("tiny-general", "", "videomme"), bench, tmp_path/"whole")

def test_settings_of_real_models(monkeypatch):
    "Frames, pixels and tokens follow the protocol."
    from types import SimpleNamespace

    from vsgrpo.evaluation import answer_store
    monkeypatch.setattr(answer_store, "model_size", lambda name: "2B")
    monkeypatch.setattr(answer_store, "load_config",
                        lambda name: SimpleNamespace(vision_config=SimpleNamespace(patch_size=14,
                                                                                   spatial_merge_size=2)))
    paper = benchmark_config("2B", "", "videommmu")
    assert (paper.suite.protocol, paper.video.frames, paper.video.max_pixels,
            paper.max_new_tokens) == ("video-r1", 16, 256*28*28, 1024)
    assert paper.video.sampling == "uniform"                       # qwen_vl_utils rounds to the nearest frame
    plain = benchmark_config("2B", "", "videomme", "lmms-eval")
    assert (plain.video.frames, plain.video.max_pixels, plain.max_new_tokens,
            plain.video.factor) == (32, 602112, 16, 28)
    assert plain.video.sampling == "uniform_floor"                 # lmms-eval rounds down
