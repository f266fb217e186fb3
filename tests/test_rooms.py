"Generated rooms: exact, without overlaps, filmed as promised, and written so that they read back."
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import shapely

from vsgrpo.data.camera_path import camera_path, look_at
from vsgrpo.data.dataset import RoomsSpec
from vsgrpo.data.room_catalogue import CATEGORIES, PRESETS, SHAPES, find_preset
from vsgrpo.data.room_rendering import FLOOR, VOID, render, room_mesh, room_scene, visibility, write_room, write_rooms
from vsgrpo.data.rooms import draw_outline, item_boxes, make_room, polygon_area
from vsgrpo.data.scannet import list_scenes, read_label_map, read_scene

BOTH = sorted(PRESETS)

def drawn(room):
    "Everything that must be the same when a room is drawn again."
    return room.items, room.name, room.theme, room.area_m2, room.outline.tolist()

@pytest.fixture(scope="module", params=BOTH)
def rooms(request): return [make_room(s, request.param) for s in range(60)]

def test_same_seed_same_room(rooms):
    preset = rooms[0].preset.name
    assert all(drawn(r) == drawn(make_room(r.seed, preset)) for r in rooms[:10])
    assert drawn(rooms[0]) != drawn(rooms[1])
    assert rooms[7].name == f"room_{preset}_000007"

def test_seed_gives_other_rooms_in_the_other_preset():
    assert make_room(3, "overview").area_m2 != make_room(3, "walkthrough").area_m2

def test_no_two_things_overlap(rooms):
    for room in rooms:
        boxes = item_boxes(room.items)
        low, high = boxes[:, :3], boxes[:, 3:]
        shared = np.minimum(high[:, None], high[None]) - np.maximum(low[:, None], low[None])
        pairs = {tuple(sorted(p)) for p in np.argwhere((shared > 2e-3).all(-1)).tolist() if p[0] != p[1]}
        # only what lies on a sofa or bed may reach into the box of its carrier
        for i, j in pairs:
            one, other = room.items[i], room.items[j]
            assert j == one.on or i == other.on, (room.name, one.category, other.category)

def test_things_lie_in_the_room(rooms):
    for room in rooms:
        floor = shapely.Polygon(room.outline).buffer(2e-3)
        for item, (x0, y0, z0, x1, y1, z1) in zip(room.items, item_boxes(room.items)):
            assert floor.contains(shapely.box(x0, y0, x1, y1)), (room.name, item.category)
            assert z0 > 0 and (z1 <= room.height_m or not room.preset.ceiling), (room.name, item.category)

def test_carried_things_stand_on_their_carrier(rooms):
    for room in rooms:
        for item in room.items:
            if item.on is None: continue
            carrier = room.items[item.on]
            x, y, z, w, d = CATEGORIES[carrier.category].top
            top = carrier.centre[2] + (z - .5)*carrier.size[2]
            assert carrier.category in CATEGORIES[item.category].on
            assert abs(item.centre[2] - item.size[2]/2 - top) < 5e-3

def test_area_is_the_outlines(rooms):
    for room in rooms:
        assert abs(polygon_area(room.outline) - room.area_m2) < 1e-9
        assert 6 <= room.area_m2 <= 60
        assert ((np.roll(room.outline, -1, 0) == room.outline).sum(1) == 1).all()  # walls run along x or y

def test_areas_are_log_uniform():
    low, high = np.log(PRESETS["overview"].area_m2)
    sparse = replace(PRESETS["overview"], singles=(1, 1), repeated=(1, 1))
    logs = np.log([make_room(seed, sparse).area_m2 for seed in range(300)])
    share = (logs - low)/(high - low)
    assert np.abs(np.sort(share) - np.linspace(0, 1, 300)).max() < .09  # Kolmogorov–Smirnov, 1 % level

def test_rooms_suit_the_questions(rooms):
    counts = [Counter(i.category for i in r.items) for r in rooms]
    assert np.mean([sum(v == 1 for v in c.values()) >= 3 for c in counts]) > .8  # direction takes three
    assert max(max(c.values()) for c in counts) <= 9
    assert {2, 3, 4, 5, 6} <= {v for c in counts for v in c.values()}
    sizes = {}
    for r in rooms:
        for i in r.items: sizes.setdefault(i.category, []).append(max(i.size))
    assert max(max(v)/min(v) for v in sizes.values()) > 1.8

def test_three_shapes_and_every_category_appear():
    assert {len(make_room(s, "overview").outline) for s in range(30)} == {4, 6, 8}
    seen = {i.category for s in range(250) for i in make_room(s, "walkthrough").items}
    assert len(CATEGORIES) >= 25 and seen == set(CATEGORIES)
    assert set(SHAPES) == set(CATEGORIES)

def test_outlines_by_hand():
    assert polygon_area(np.array([(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)])) == 3
    outline, cuts = draw_outline(np.random.default_rng(0), 12., "L", 1.2)
    bounds = np.ptp(outline, axis=0)
    assert abs(bounds.prod() - np.prod(cuts[0, 2:] - cuts[0, :2]) - 12) < 1e-9
    assert abs(bounds[0]/bounds[1] - 1.2) < 1e-9
    with pytest.raises(ValueError, match="unknown room shape 'round'"):
        draw_outline(np.random.default_rng(0), 12., "round", 1.)

@pytest.mark.parametrize("change, words", [
    (dict(area_m2=(0., 5.)), "area_m2"), (dict(area_m2=(9., 5.)), "low <= high"),
    (dict(camera="drone"), "unknown camera 'drone'"),
    (dict(width=111), "even sides"), (dict(n_frames=0), "at least 1")])
def test_bad_preset_is_refused(change, words):
    with pytest.raises(ValueError, match=words): replace(PRESETS["overview"], **change)

def test_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="unknown preset 'palace'"): make_room(0, "palace")

# worlds

def test_a_line_without_dials_is_the_preset():
    for preset in BOTH: assert find_preset(preset) is PRESETS[preset]
    assert find_preset("overview area:20-40 prior:0") == find_preset("overview  prior:uniform area:20.0-40")

@pytest.mark.parametrize("line, words", [
    ("overview light:3", "not a dial"), ("overview area:40-20", "the lower end first"), ("overview area:x", "low-high"),
    ("overview categories:dragon", "without 'dragon'"), ("overview prior:1.5", "from 0 to 1"),
    ("walkthrough height:4", "expected camera:hover"), ("overview area:20 area:30", "set twice")])
def test_bad_line_is_refused_before_any_work(line, words):
    for use in (lambda: make_room(0, line), lambda: RoomsSpec(preset=line)):
        with pytest.raises(ValueError, match=words): use()

def test_dials_reach_the_rooms():
    line = "overview shapes:L area:30-60 categories:-bed,-piano objects:4 copies:3 sizes:1 fov:55-70"
    rooms = [make_room(seed, line) for seed in range(30)]
    assert {len(r.outline) for r in rooms} == {6} and {r.name[:13] for r in rooms} == {"room_overview"}
    assert 30 <= min(r.area_m2 for r in rooms) and max(r.area_m2 for r in rooms) <= 60
    counts = [Counter(i.category for i in r.items) for r in rooms]
    assert not {"bed", "piano"} & set().union(*counts) and max(max(c.values()) for c in counts) == 3
    assert max(sum(v == 1 for v in c.values()) for c in counts) <= 6    # four, and copies that found no place
    focal = {camera_path(r, 2)[1][0, 0] for r in rooms}
    assert len(focal) == 30 and 79 < min(focal) and max(focal) < 108    # 56 pixels/tan(35°) and /tan(27.5°)

def test_a_higher_camera_sees_the_room_smaller():
    shares = []
    for height in (6, 9):
        room = make_room(3, f"overview height:{height} prior:1")
        poses, intrinsic = camera_path(room, 2)
        shares.append((render(room, poses[1:], intrinsic, 56, 56)[1] != VOID).mean())
    assert shares[1] < .6*shares[0]

@pytest.mark.parametrize("base", BOTH)
def test_rooms_with_a_prior_are_sound(base):
    for prior in (0, .5, 1):
        rooms = [make_room(seed, f"{base} prior:{prior}") for seed in range(20)]
        test_no_two_things_overlap(rooms)
        test_things_lie_in_the_room(rooms)
        counts = [Counter(i.category for i in r.items) for r in rooms]
        assert min(max(c.values()) for c in counts) > 1 and min(sum(v == 1 for v in c.values()) for c in counts) > 2

def test_no_prior_says_nothing_about_sizes_and_counts():
    rooms = [make_room(seed, "overview prior:uniform") for seed in range(300)]
    usual = [max(CATEGORIES[i.category].size) for r in rooms for i in r.items]
    drawn = [max(i.size) for r in rooms for i in r.items]
    assert abs(np.corrcoef(usual, drawn)[0, 1]) < .06       # about 3,800 things: four standard errors
    held = [(max(CATEGORIES[c].size), n) for r in rooms for c, n in Counter(i.category for i in r.items).items()]
    assert abs(np.corrcoef(*zip(*held))[0, 1]) < .08

# mesh

def test_mesh_is_the_room(rooms):
    for room in rooms[:6]:
        vertices, faces, colours, ids = room_mesh(room, .08)
        assert vertices.dtype == np.float64 and faces.dtype == np.int32 and colours.dtype == np.uint8
        assert len(vertices) == len(colours) == len(ids) and 0 <= faces.min() and faces.max() == len(vertices) - 1
        assert (ids[faces] == ids[faces[:, :1]]).all()  # a face belongs to one thing
        for item, box in zip(room.items, item_boxes(room.items)):
            own, longest = vertices[ids == item.object_id], max(item.size)
            assert (own.min(0) >= box[:3] - .02*longest).all(), item.category
            assert (own.max(0) <= box[3:] + .02*longest).all(), item.category
            if abs(np.sin(2*item.yaw)) < 1e-6:
                assert np.allclose(np.ptp(own, axis=0), box[3:] - box[:3], atol=.03*longest), item.category
        floor = vertices[ids == FLOOR]
        assert np.allclose(floor.min(0)[:2], room.outline.min(0), atol=1e-5) and not floor[:, 2].any()

def test_mesh_spacing():
    room = make_room(2, "overview")
    for spacing in (.3, .1):
        vertices, faces, _, _ = room_mesh(room, spacing)
        edge = np.linalg.norm(vertices[faces] - vertices[np.roll(faces, 1, 1)], axis=2)
        assert edge.max() <= spacing*np.sqrt(2) + 1e-6  # the diagonal of a cell

def test_benchmark_measures_what_was_drawn():
    geometry = pytest.importorskip("vsgrpo.data.geometry")
    for seed in range(3):
        room = make_room(seed, "overview")
        vertices, _, _, ids = room_mesh(room, room.preset.spacing_m)
        assert abs(geometry.room_area(vertices) - room.area_m2) < .03*room.area_m2 + .1

# camera

def test_look_at_by_hand():
    pose = look_at(np.array([0., 0, 2]), np.array([0., 1, 2]))
    assert np.allclose(pose[:3, :3].T, [[1, 0, 0], [0, 0, -1], [0, 1, 0]])

@pytest.mark.parametrize("preset", BOTH)
def test_poses_are_rigid(preset):
    poses, intrinsic = camera_path(make_room(1, preset), 10)
    assert poses.shape == (10, 4, 4) and intrinsic.shape == (3, 3)
    turns = poses[:, :3, :3]
    assert np.allclose(turns @ turns.transpose(0, 2, 1), np.eye(3)) and np.allclose(np.linalg.det(turns), 1)

def test_overview_sees_the_whole_floor_from_one_height():
    for seed in range(150):
        room = make_room(seed, "overview")
        poses, k = camera_path(room, 8)
        assert np.allclose(poses[:, 2, 3], 6.)
        poses = poses[4:]                      # the first half glides in
        floor = np.column_stack([room.outline, np.zeros(len(room.outline))])
        seen = (floor[None] - poses[:, None, :3, 3]) @ poses[:, :3, :3] @ k.T
        pixel = seen[..., :2]/seen[..., 2:]
        assert pixel.min() > 0 and pixel[..., 0].max() < 112 and pixel[..., 1].max() < 112, room.name

def test_overview_glides_in():
    "In half of the rooms, four categories come into view in four different frames."
    many = 0
    for seed in range(40):
        room = make_room(seed, "overview")
        _, ids = render(room, *camera_path(room), 112, 112, shadows=False, smooth=False)
        first = {i.category: int(np.argmax((ids == i.object_id).any((1, 2)))) for i in reversed(room.items)}
        many += len(set(first.values())) >= 4
    assert many >= 20

def test_room_size_shows_in_pixels():
    shares, areas = [], []
    for seed in range(40):
        room = make_room(seed, "overview")
        _, ids = render(room, *camera_path(room, 1), 56, 56, shadows=False, smooth=False)
        shares.append((ids != VOID).mean())
        areas.append(room.area_m2)
    assert np.corrcoef(np.log(shares), np.log(areas))[0, 1] > .95

def test_walk_stays_in_free_space():
    for seed in range(60):
        room = make_room(seed, "walkthrough")
        eyes, boxes = camera_path(room, 60)[0][:, :3, 3], item_boxes(room.items)
        assert shapely.contains_xy(shapely.Polygon(room.outline).buffer(-.15), eyes[:, 0], eyes[:, 1]).all(), room.name
        assert not ((eyes[:, None] > boxes[:, :3]) & (eyes[:, None] < boxes[:, 3:])).all(-1).any(), room.name
        assert np.linalg.norm(np.diff(eyes, axis=0), axis=1).max() < .7

@pytest.mark.parametrize("preset, share", [("overview", .97), ("walkthrough", .93)])
def test_most_things_are_seen(preset, share):
    seen = []
    for seed in range(6):
        room = make_room(seed, preset)
        size = (112, 112) if preset == "overview" else (160, 120)
        _, ids = render(room, *camera_path(room, 24), *size, shadows=False, smooth=False)
        seen += [v.max() > .0002 for v in visibility(ids, len(room.items)).values()]
    assert np.mean(seen) > share

# render

def test_render_by_hand():
    square = np.array([(-2., -2), (2, -2), (2, 2), (-2, 2)])
    room = replace(make_room(0, "overview"), items=(), outline=square, height_m=.01)
    # 4 m above the middle, straight down
    pose = np.array([[[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 4], [0, 0, 0, 1.]]])
    intrinsic = np.array([[56, 0, 56], [0, 56, 56], [0, 0, 1.]])
    frames, ids = render(room, pose, intrinsic, 112, 112)
    assert frames.shape == (1, 112, 112, 3) and frames.dtype == np.uint8 and ids.shape == (1, 112, 112)
    rows, columns = np.nonzero(ids[0] != VOID)  # 4 m at 4 m with f = 56: 56 pixels
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (28, 83, 28, 83)
    half = render(room, pose, intrinsic, 56, 56)[1]
    assert (half[0] != VOID).sum() == 28*28

def test_render_is_repeatable_and_checks_its_input():
    room = make_room(5, "overview")
    poses, k = camera_path(room, 2)
    a, b = render(room, poses, k, 56, 56), render(room, poses, k, 56, 56)
    assert (a[0] == b[0]).all() and (a[1] == b[1]).all()
    with pytest.raises(ValueError, match="another shape"): render(room, poses, k, 64, 48)

def test_visibility_by_hand():
    ids = np.array([[[0, 0], [1, -1]], [[-2, -4], [1, 1]]])
    seen = visibility(ids, 3)
    assert {k: v.tolist() for k, v in seen.items()} == {0: [.5, 0], 1: [.25, .5], 2: [0, 0]}

# files

def test_written_room_reads_back(tmp_path):
    folder = write_room(make_room(4, "overview"), tmp_path/"scans")
    room, scene = make_room(4, "overview"), read_scene(folder)
    poses, intrinsic = camera_path(room)
    vertices, faces, colours, _ = room_mesh(room, room.preset.spacing_m)
    assert np.allclose(scene.vertices, vertices, atol=1e-5)
    assert (scene.faces == faces).all() and (scene.colors == colours).all()
    assert np.allclose(scene.poses, poses, atol=1e-5) and np.allclose(scene.intrinsic, intrinsic)
    annotated = [(o.object_id, o.label) for o in scene.instances]
    assert annotated[:len(room.items)] == [(i.object_id, i.category) for i in room.items]
    assert [label for _, label in annotated[len(room.items):]] == ["floor", "wall"]
    assert sorted(scene.visibility) == [i.object_id for i in room.items]
    assert len(scene.visibility[0]) == room.preset.n_frames
    assert scene.video == folder/f"{room.name}.mp4" and scene.video.stat().st_size > 500
    stored = (folder/f"{room.name}.txt").read_text()
    assert "axisAlignment" in stored and "1.0 0.0 0.0 0.0" not in stored  # stored turned, as scans are

def test_walkthrough_has_a_ceiling():
    scene = room_scene(make_room(1, "walkthrough"), *camera_path(make_room(1, "walkthrough"), 2))
    assert [o.label for o in scene.instances][-3:] == ["floor", "wall", "ceiling"]

def test_many_rooms_resume(tmp_path):
    tiny = replace(PRESETS["overview"], n_frames=2)
    first = write_rooms([0, 1], tiny, tmp_path/"scans")
    made = (first[0]/"room_overview_000000.mp4").stat().st_mtime_ns
    (tmp_path/"scans"/"room_overview_000002.7.9.tmp").mkdir()  # a run that was stopped half-way
    again = write_rooms([0, 1, 2], tiny, tmp_path/"scans")
    assert [p.name for p in again] == ["room_overview_000000", "room_overview_000001", "room_overview_000002"]
    assert (again[0]/"room_overview_000000.mp4").stat().st_mtime_ns == made
    assert sorted(p.name for p in list_scenes(tmp_path/"scans")) == [p.name for p in again]
    assert not [p for pattern in (".*", "*.tmp") for p in (tmp_path/"scans").glob(pattern)]
    labels = read_label_map(tmp_path/"scannetv2-labels.combined.tsv", "category")
    assert labels["chair"] == "chair" and set(CATEGORIES) <= set(labels)

def test_the_second_writer_of_rooms_waits(tmp_path, capsys):
    from threading import Thread
    from vsgrpo.files import one_at_a_time
    tiny, scans, found = replace(PRESETS["overview"], n_frames=2), tmp_path/"scans", []
    scans.mkdir()
    writer = Thread(target=lambda: found.extend(write_rooms([3], tiny, scans)))
    with one_at_a_time(scans/".writing.lock", "never"):
        writer.start()
        line, end = "", time.monotonic() + 60
        while not line and time.monotonic() < end:
            time.sleep(.01)
            line = capsys.readouterr().out
        assert line == f"{scans}: another process is writing rooms here; waiting for it\n" and not found
    writer.join()
    assert found == [scans/"room_overview_000003"] and not list(scans.glob(".*"))

def test_two_processes_write_the_same(tmp_path):
    tiny = replace(PRESETS["overview"], n_frames=2)
    a, b = write_rooms([5, 6], tiny, tmp_path/"a"), write_rooms([5, 6], tiny, tmp_path/"b", workers=2)
    for x, y in zip(a, b):
        assert x.name == y.name
        files = sorted(p.relative_to(x) for p in x.rglob("*") if p.is_file())
        for f in files: assert (x/f).read_bytes() == (y/f).read_bytes(), f
