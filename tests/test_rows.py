"Files of questions: round trips, refused rows, files that would fill the memory."
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_vsibench import make_question

from vsgrpo.evaluation import rows as rows_module
from vsgrpo.evaluation.rows import cell_text, read_questions, read_rows, write_questions
from vsgrpo.evaluation.vsibench import Question

MIXED = [Question(7, "scannet", "scene0011_00", "object_abs_distance", "How far?\nIn m.", "2.5", None,
                  {"objects": [1, 2], "closest_m": 2.53}),
         Question(8, "scannet", "scene0011_00", "route_planning", "“Turn”?", "B", ["A. left", "B. right"])]

@pytest.mark.parametrize("name", ["q.parquet", "q.jsonl"])
@pytest.mark.parametrize("questions", [MIXED, MIXED[:1], [], [make_question(id="a"), make_question(id="b")]])
def test_files_round_trip(tmp_path, name, questions):
    path = write_questions(questions, tmp_path/name)
    assert read_questions(path) == questions and [p.name for p in tmp_path.iterdir()] == [name]

def test_rows_that_are_none_are_named_and_counted(tmp_path):
    rows = [GOOD, GOOD | {"id": 2, "question": "<|video_pad|>"}, GOOD | {"id": 3, "ground_truth": "3 m"},
            GOOD | {"id": 4, "question_type": "route_planning", "ground_truth": float("nan")}]
    pd.DataFrame([r | {"ground_truth": str(r["ground_truth"])} for r in rows[:3]]).to_parquet(tmp_path/"q.parquet")
    (tmp_path/"q.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    good, broken = read_rows(tmp_path/"q.parquet")
    assert [q.id for q in good] == [1] and [i for i, _ in broken] == [2, 3]
    assert "row 1: question 2: question holds '<|video_pad|>'" in broken[0][1]
    with pytest.raises(ValueError, match=r"row 1: question 2: question holds '<\|video_pad\|>'"):
        read_questions(tmp_path/"q.parquet")
    broken = read_rows(tmp_path/"q.jsonl")[1]
    assert [i for i, _ in broken] == [2, 3, 4] and "ground_truth: nan, expected text" in broken[2][1]

def test_numbers_of_all_kinds_are_text(tmp_path):
    for gold in (np.int64(4), np.float32(4), 4.0, 4): assert cell_text(gold, "x") in ("4", "4.0")
    for gold in (True, np.True_, float("nan"), np.inf, None, [4]):
        with pytest.raises(ValueError, match="x: .*, expected text"): cell_text(gold, "x")

def packed(path, **columns):
    pq.write_table(pa.table(columns), path, compression="zstd", store_schema=False)
    return path

def test_packed_files_are_bounded(tmp_path, monkeypatch):
    "Few bytes on disk: too many rows, too many items of lists, one long text many times (seen while it is read)."
    for name, most in (("MOST_ROWS", 5000), ("MOST_CELLS", 20_000), ("MOST_BYTES", 10**7), ("_BATCH_BYTES", 10**6)):
        monkeypatch.setattr(rows_module, name, most)
    rows = packed(tmp_path/"rows.parquet", id=pa.array(np.zeros(6000, np.int64)))
    items = packed(tmp_path/"items.parquet",
                   options=pa.ListArray.from_arrays([0, 30_000], pa.array(np.zeros(30_000, np.int8))))
    text = packed(tmp_path/"text.parquet",
                  question=pa.DictionaryArray.from_arrays(pa.array(np.zeros(4000, np.int32)), pa.array(["x"*100_000])))
    for path, words in ((rows, "rows.parquet: 6,000 rows unpacked, expected at most 5,000"),
                        (items, "items.parquet: 30,000 cells"),
                        (text, "text.parquet: 10,[0-9,]* bytes unpacked, expected at most 10,000,000")):
        assert path.stat().st_size < 20_000
        with pytest.raises(ValueError, match=words): read_rows(path)
    with pytest.raises(ValueError, match="rows.parquet: 6,000 rows"): read_questions(rows)

def test_unknown_columns_are_left_aside(tmp_path):
    row = {"id": 1, "dataset": "d", "scene_name": "s", "question_type": "object_counting", "question": "?",
           "ground_truth": 4, "pruned": True, "options": None}
    (tmp_path/"q.jsonl").write_text(json.dumps(row) + "\n\n")
    pd.DataFrame([row | {"ground_truth": "4"}]).to_parquet(tmp_path/"q.parquet")
    wanted = [Question(1, "d", "s", "object_counting", "?", "4")]
    assert read_questions(tmp_path/"q.jsonl") == read_questions(tmp_path/"q.parquet") == wanted

GOOD = {"id": 1, "dataset": "d", "scene_name": "s", "question_type": "object_counting", "question": "?",
        "ground_truth": "4"}
@pytest.mark.parametrize("lines,words", [
    (["{"], "line 1: not JSON"), ([json.dumps(GOOD), "[1]"], "line 2: list, expected an object"),
    ([json.dumps(GOOD)]*2, "duplicate ids (1), first 1"),
    ([json.dumps(GOOD), json.dumps(GOOD | {"id": "1"})], "duplicate ids"),
    ([json.dumps({k: v for k, v in GOOD.items() if k != "question"})], "line 1: missing column question"),
    ([json.dumps(GOOD | {"ground_truth": "x"})], "line 1: question 1: ground_truth"),
    ([json.dumps(GOOD | {"options": "A. x"})], "expected a list"),
    ([json.dumps(GOOD | {"provenance": "{"})], "provenance is not JSON"),
    ([json.dumps(GOOD | {"ground_truth": None})], "ground_truth: None, expected text"), (["\xff"], "not JSON")])
def test_broken_lines(tmp_path, lines, words):
    path = tmp_path/"q.jsonl"
    path.write_bytes("\n".join(lines).encode("latin-1"))
    with pytest.raises(ValueError, match="q.jsonl") as e: read_questions(path)
    assert words in str(e.value)

def test_broken_files(tmp_path):
    (tmp_path/"q.parquet").write_text("no")
    (tmp_path/"q.csv").write_text("no")
    pd.DataFrame([GOOD]).drop(columns="dataset").to_parquet(tmp_path/"r.parquet")
    with pytest.raises(ValueError, match="not a parquet file"): read_questions(tmp_path/"q.parquet")
    with pytest.raises(ValueError, match="ending is '.csv'"): read_questions(tmp_path/"q.csv")
    with pytest.raises(ValueError, match="r.parquet, row 0: missing column dataset"):
        read_questions(tmp_path/"r.parquet")
    with pytest.raises(FileNotFoundError, match="none.parquet"): read_questions(tmp_path/"none.parquet")
    with pytest.raises(ValueError, match="one kind"):
        write_questions([make_question(id=1), make_question(id="b")], tmp_path/"w.parquet")
    with pytest.raises(ValueError, match="duplicate ids"):
        write_questions([make_question(id=1), make_question(id=1)], tmp_path/"w.parquet")
    assert not list(tmp_path.glob("w*"))
