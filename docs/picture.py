"""The picture of the landing page: a walk-through room in a frame of its film, and from above with a question.

    python docs/picture.py [OUT]        # OUT: docs/room.png; no run and no GPU needed
    python docs/picture.py --choose     # which room and which frame the rule picks, and how the next ones score

The rule: of the rooms with seeds 0 to 23, the frame that shows most kinds of objects, each on half a percent of its
pixels or more; no object may cover more than an eighth of it, so that nothing stands in front of the camera. Of
equal rooms the first is taken. The question is drawn by seed from those about this room.
"""
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT, HERE = Path(__file__).parents[1], Path(__file__).parent
sys.path.insert(0, str(ROOT))
SEEDS, STEP = range(24), 5            # rooms, and frames between two that are looked at
LEAST, MOST = .005, .125              # share of a frame's pixels
SEED, FRAME = 4, 110                  # the first line of `--choose`
QUESTION_SEED = 0
KINDS = ("object_abs_distance", "object_rel_distance", "object_rel_direction_easy", "object_rel_direction_medium")
HEIGHT = 660                          # of both halves, pixels


def kinds_in(ids, room):
    "How many kinds of objects a frame shows; 0 if one of them covers too much of it."
    shares = np.bincount(ids[ids >= 0], minlength=len(room.items))/ids.size
    if shares.max() > MOST: return 0
    return len({item.category for item, share in zip(room.items, shares) if share >= LEAST})


def ranked():
    "Kinds, seed and frame of each room's best frame, the best room first."
    from vsgrpo.data.camera_path import camera_path
    from vsgrpo.data.room_rendering import render
    from vsgrpo.data.rooms import make_room
    found = []
    for seed in SEEDS:
        room = make_room(seed, "walkthrough")
        poses, intrinsic = camera_path(room)
        _, ids = render(room, poses[::STEP], intrinsic, 160, 120, shadows=False, smooth=False)
        kinds = [kinds_in(frame, room) for frame in ids]
        found.append((max(kinds), -seed, STEP*int(np.argmax(kinds))))
    return [(kinds, -seed, frame) for kinds, seed, frame in sorted(found, reverse=True)]


def from_above(room, width, height, fov_deg=42.):
    "The room without its ceiling: the picture, the pose and the intrinsics of a camera that sees all of it."
    from vsgrpo.data.camera_path import look_at
    from vsgrpo.data.room_rendering import render
    open_room = replace(room, preset=replace(room.preset, ceiling=False, width=width, height=height))
    focal = width/2/np.tan(np.deg2rad(fov_deg)/2)
    intrinsic = np.array([[focal, 0, width/2], [0, focal, height/2], [0, 0, 1]])
    low, high = room.outline.min(0), room.outline.max(0)
    middle = np.r_[(low + high)/2, room.height_m/3]
    corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (0, room.height_m)])
    for distance in np.arange(3, 40, .25):
        pose = look_at(middle + distance*np.array([0, -np.sin(.3), np.cos(.3)]), middle)
        xy, depth = project(corners, pose, intrinsic)
        margin = .03*width
        if (depth > .1).all() and (xy > margin).all() and (xy < np.array([width, height]) - margin).all(): break
    frames, _ = render(open_room, pose[None], intrinsic, width, height)
    return frames[0], pose, intrinsic


def project(points, pose, intrinsic):
    "Pixels (n, 2) and depths (n,) of points."
    there = (points - pose[:3, 3]) @ pose[:3, :3]
    pixels = there @ intrinsic.T
    return pixels[:, :2]/pixels[:, 2:], there[:, 2]


def ask(room):
    "A question about the room, drawn by seed, and what to draw of it."
    from vsgrpo.data.camera_path import camera_path
    from vsgrpo.data.geometry import room_outline
    from vsgrpo.data.question_marks import question_marks
    from vsgrpo.data.questions import make_questions
    from vsgrpo.data.room_rendering import render, room_scene, visibility
    from vsgrpo.data.scene_facts import measure
    poses, intrinsic = camera_path(room)
    _, ids = render(room, poses[::STEP], intrinsic, 160, 120, shadows=False, smooth=False)
    scene = room_scene(room, poses[::STEP], intrinsic, visibility=visibility(ids, len(room.items)))
    facts = measure(scene)
    questions = [q for q in make_questions(facts, "vsibench") if q.question_type in KINDS]
    question = questions[np.random.default_rng(QUESTION_SEED).integers(len(questions))]
    return question, question_marks(question, facts, room_outline(scene.vertices).simplify(.02))


def draw_marks(ax, marks, pose, intrinsic):
    "Lines, arrows and labels of a question over the picture from above."
    import matplotlib.patheffects as effects
    halo = [effects.withStroke(linewidth=4.5, foreground="white")]
    for mark in marks:
        xy, _ = project(mark.points, pose, intrinsic)
        if mark.arrow:
            style = dict(arrowstyle="-|>", color=mark.color, lw=3, shrinkA=0, shrinkB=0, path_effects=halo)
            ax.annotate("", xy[-1], xy[0], arrowprops=style)
        elif len(xy) > 1:
            ax.plot(*xy.T, color=mark.color, lw=2 if mark.dash else 3, ls="--" if mark.dash else "-",
                    path_effects=halo)
    for mark in marks:
        if not mark.label: continue
        (x, y), = project(mark.spot[None], pose, intrinsic)[0]
        ax.text(x, y, mark.label, color=mark.color, fontsize=13, ha="center", va="center", weight="bold",
                bbox=dict(fc="white", ec="none", alpha=.9, boxstyle="round,pad=.2"))


def compose(room, frame, out):
    "Write the picture: the frame, the room from above, the question below."
    import matplotlib.pyplot as plt

    from vsgrpo.data.camera_path import camera_path
    from vsgrpo.data.question_marks import answer_text
    from vsgrpo.data.room_rendering import render
    wide = HEIGHT*4//3
    poses, intrinsic = camera_path(room)
    film, _ = render(room, poses[[frame]], intrinsic, wide, HEIGHT)
    above, pose, above_intrinsic = from_above(room, HEIGHT, HEIGHT)
    question, marks = ask(room)
    gap, below = 12, 96
    width, height = wide + gap + HEIGHT, HEIGHT + below
    figure = plt.figure(figsize=(width/100, height/100), dpi=100, facecolor="white")
    for left, size, picture in ((0, wide, film[0]), (wide + gap, HEIGHT, above)):
        ax = figure.add_axes([left/width, below/height, size/width, HEIGHT/height])
        ax.imshow(picture, interpolation="none")
        ax.axis("off")
    ax.set(xlim=(-.5, HEIGHT - .5), ylim=(HEIGHT - .5, -.5))
    draw_marks(ax, marks, pose, above_intrinsic)
    options = "   ".join(question.options or ())
    figure.text(.008, .5*below/height + .022, question.question, fontsize=15, va="center", wrap=True)
    figure.text(.008, .022, options, fontsize=14, va="center", color="#555")
    figure.text(.992, .022, f"answer: {answer_text(question)}", fontsize=15, va="center", ha="right", color="#2ca02c",
                weight="bold")
    figure.savefig(out, dpi=100)
    plt.close(figure)
    shrink(out)
    return question


def shrink(path):
    "At most 1600 pixels wide, in 256 colours."
    from PIL import Image
    image = Image.open(path).convert("RGB")
    image.thumbnail((1600, 1600))
    image.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def main():
    if "--choose" in sys.argv:
        for kinds, seed, frame in ranked(): print(f"seed {seed:2}, frame {frame:3}: {kinds} kinds of objects")
        return
    from vsgrpo.data.rooms import make_room
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE/"room.png"
    question = compose(make_room(SEED, "walkthrough"), FRAME, out)
    print(f"{out}: {out.stat().st_size/1000:.0f} kB; {question.question}")


if __name__ == "__main__": main()
