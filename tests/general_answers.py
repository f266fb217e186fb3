"Made answers to made rows of the general benchmarks, the same on every machine: likely ones, and ones no model gives."
import random

SUBJECTS = ("Math", "Art_Theory", "Basic_Medical_Science", "Manage", "Electronics", "Psychology")
WORDS = ("the answer is red green blue so total Clearly 12 3.5 1,200 -4 2e3 .5 sofa I think because A B C D a b (A) "
         "(C) B. C: D, 7 ; ' = has are it was not").split()
FRAMES = ("{}", "{}.", "({})", "{})", "{}: yes", "The answer is {}", "The best answer is: {}", "<answer>{}</answer>",
          "<think>A or B</think><answer> {} </answer>", "I choose {} because A is wrong", "{}\n", " {}", "'{}'",
          "The correct answer is {}.", "so {} it is", "x = {}", "In total {} things\nso the result is {}", "", "A {} B",
          "{} and then (C)", "Best answer: {}", "It could be {} or {}, therefore {}")

def choice_row(rng):
    n = rng.choice([2, 4, 4, 6, 10])
    pool = ["red sofa", "a chair", "green", "12", "3.5 m", "blue", "no", "yes, it is", "A and B", "none of these"]
    rng.shuffle(pool)
    options = pool[:n]
    if rng.random() < .5: options = [f"{chr(65 + i)}. {o}" for i, o in enumerate(options)]
    return dict(options=options, answer=chr(65 + rng.randrange(n)), question_type="multiple-choice")

def open_row(rng):
    answers = ["12", "3.5", "1,200", "1200", "sofa", "a", "-4", "0.5", "2000", "red sofa", "['24/7', '3.429', '3.43]",
               "50%", "x"]
    return dict(options=[], answer=rng.choice(answers), question_type=rng.choice(["open", "open", "None"]))

def say(rng, row):
    if rng.random() < .3: return " ".join(rng.choices(WORDS, k=rng.randrange(0, 14)))
    words = [row["answer"], rng.choice("ABCDEFGHIJ"), rng.choice(WORDS), *row["options"][:3]]
    frame = rng.choice(FRAMES)
    return frame.format(*(rng.choice(words) for _ in range(frame.count("{}"))))

def videomme(n=2400, seed=0):
    "Rows and answers."
    rng, rows = random.Random(seed), []
    for k in range(n):
        row = choice_row(rng)
        row |= dict(
            options=(row["options"] + ["x", "y"])[:4],
            answer=rng.choice("ABCD"),
            video_id=f"{k//3:03d}",
            videoID=f"v{k//3}",
            question_id=f"{k//3:03d}-{k%3 + 1}",
            question=f"Question {k}?",
            duration=("short", "medium", "long")[k//3 % 3],
            domain=rng.choice(["Knowledge", "Life Record", "Multilingual"]),
            sub_category=rng.choice(["Geography", "Food", "Law"]),
            task_type=rng.choice(["Counting Problem", "OCR Problems"]))
        rows.append((row, say(rng, row)))
    return rows

def videommmu(n=2400, seed=1):
    "Rows (with their track) and answers."
    rng, rows = random.Random(seed), []
    for k in range(n):
        row = open_row(rng) if rng.random() < .4 else choice_row(rng)
        row |= dict(id=f"validation_{rng.choice(SUBJECTS)}_{k//3}", question=f"Question {k}?",
                    track=("Perception", "Comprehension", "Adaptation")[k % 3])
        rows.append((row, say(rng, row)))
    return rows

def tempcompass(n=2400, seed=2):
    "Rows (with their form) and answers."
    rng, rows = random.Random(seed), []
    for k in range(n):
        form = rng.choice(["multi-choice", "yes_no"])
        answer = rng.choice(["yes", "no"] if form == "yes_no" else ["A. up", "B. down", "C. left", "D. faster"])
        text = rng.choice([answer, "Yes, it does", "no", "No.", "not at all", "Yesterday", answer[0],
                           f"{answer[0]}) so", f"{answer[0]}. other", "B", "C.", "Bread", "", "A) up", "the first",
                           " B"])
        rows.append((dict(video_id=f"t{k//4}", question=f"Question {k}?", answer=answer,
                          dim=rng.choice(["speed", "order"]), form=form, number=k), text))
    return rows
