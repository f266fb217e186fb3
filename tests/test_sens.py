"What the camera saw, compared with the renderer's own count; recordings in a folder as downloaded."
from dataclasses import replace

import numpy as np
import pytest

from vsgrpo.data import scene_questions
from vsgrpo.data.camera_path import camera_path
from vsgrpo.data.room_rendering import render, room_scene, visibility
from vsgrpo.data.rooms import make_room
from vsgrpo.data.scannet import read_scene, write_scene
from vsgrpo.data.sens import (RATE, _pictures, film_frames, film_source, open_sens, seen_shares, with_cameras,
                              write_film, write_sens)
from vsgrpo.engine.video import VideoSpec, decode
from vsgrpo.evaluation.vsibench import QUESTION_TYPES


@pytest.fixture(scope="module")
def filmed():
    "A furnished room, eight frames of its walk and what they show."
    room = make_room(3, "walkthrough")
    poses, intrinsic = camera_path(room)
    few = poses[np.linspace(0, len(poses) - 1, 8).round().astype(int)]
    frames, ids = render(room, few, intrinsic, 160, 120)
    return room_scene(room, few, intrinsic), frames, visibility(ids, len(room.items))

def recording(scene, frames, poses=None):
    "Frames of a recording with empty depth pictures, at the rate of a recording."
    poses = scene.poses if poses is None else poses
    return [(frame, np.ones((3, 4)), pose, 1e6*k/RATE) for k, (frame, pose) in enumerate(zip(frames, poses))]

def without_cameras(scene, name, root):
    "The folder of a scene as downloaded: mesh, segments, aggregation."
    bare = replace(scene, name=name, poses=None, intrinsic=None, visibility=None)
    return write_scene(bare, root/name)

def test_shares_are_those_of_the_renderer(filmed):
    scene, frames, truth = filmed
    shares = seen_shares(scene, 8)
    ours, true = (np.array([by_object[k] for k in truth]) for by_object in (shares, truth))
    assert np.corrcoef(ours.ravel(), true.ravel())[0, 1] > .99
    clear = (true.max(1) > .002) | (true.max(1) == 0)       # a ray is 0.0003 of the image
    assert ((ours.max(1) >= 5e-4) == (true.max(1) >= 5e-4))[clear].mean() > .95

def test_frames_without_tracking_take_the_nearest_pose(filmed):
    scene = filmed[0]
    gone = replace(scene, poses=scene.poses[[0, 7]], pose_frames=np.array([0, 7]))
    every, two = seen_shares(scene, 8), seen_shares(gone, 8)
    for k in every:
        assert np.array_equal(two[k][:4], [every[k][0]]*4) and np.array_equal(two[k][4:], [every[k][7]]*4)

def test_a_scan_as_downloaded_becomes_rows_and_a_film(filmed, tmp_path):
    "Cameras and film come from the recording, and hidden objects are left out."
    scene, frames, truth = filmed
    folder = without_cameras(scene, "scene0042_00", tmp_path/"scans")
    full = scene.intrinsic*[[frames.shape[2]/2/scene.intrinsic[0, 2]], [frames.shape[1]/2/scene.intrinsic[1, 2]], [1]]
    write_sens(folder/"scene0042_00.sens", recording(scene, frames), full)
    assert film_source(folder).suffix == ".sens" and len(open_sens(folder/"scene0042_00.sens")) == 8
    back = with_cameras(read_scene(folder), folder)
    assert np.allclose(back.poses, scene.poses, atol=1e-5) and back.pose_frames.tolist() == list(range(8))
    made = scene_questions.scene_rows(folder, tmp_path/"out", "scannet", scene_questions.Asking(labels="raw", frames=8),
                              candidates=dict.fromkeys(QUESTION_TYPES, 50), vocabulary=(None, {}))
    hidden = {k for k, shares in seen_shares(back, 8).items() if shares.max() < 5e-4}
    shell = {max(truth) + k for k in (1, 2, 3)}     # floor, walls, ceiling
    named = {k for q in made["train"] for k in q.provenance["objects"]}
    assert made["skipped"].get("object: shown by none of the frames", 0) >= len(hidden - shell)
    assert named and not named & hidden
    spec = VideoSpec(frames=2, min_pixels=64*64, max_pixels=64*64, factor=16)
    assert decode(tmp_path/"out"/"scannet"/"scene0042_00.mp4", spec).shape == (2, 48, 64, 3)

def test_a_scan_without_any_camera_is_counted(filmed, tmp_path):
    folder = without_cameras(filmed[0], "scene0043_00", tmp_path)
    made = scene_questions.scene_rows(folder, tmp_path/"out", "scannet", scene_questions.Asking(labels="raw", frames=8),
                                      film=False)
    assert made["skipped"]["scene: no cameras, so nothing tells what a frame shows"] == 1

def test_without_a_film_the_build_names_what_it_looked_for(filmed, tmp_path):
    folder = write_scene(replace(filmed[0], name="scene0044_00"), tmp_path/"scans"/"scene0044_00")
    with pytest.raises(FileNotFoundError,
                       match="scene0044_00: no film in .*: expected one of scene0044_00.mp4, color, scene0044_00.sens"):
        scene_questions.scene_rows(folder, tmp_path/"out", "scannet")

def test_pictures_of_any_stride_fill_the_time_they_were_taken_in(tmp_path):
    "Every hundredth picture of a recording: a film as long as the recording."
    from PIL import Image
    for k in range(0, 1000, 100): Image.fromarray(np.full((6, 8, 3), k//4, np.uint8)).save(tmp_path/f"{k}.JPEG")
    shown = [int(frame[0, 0, 0]) for frame in _pictures(tmp_path, 24, (8, 6))]
    assert len(shown) == 900*24//30 + 1 and len(set(shown)) == 10
    assert all(shown.count(grey) >= 79 for grey in sorted(set(shown))[:-1])

@pytest.mark.parametrize("names,message", [
    (["0.jpg", "3000000.jpg"], "3000000.jpg: frame number 3000000, expected at most 1,000,000"),
    (["0.jpg", "5.jpg", "1006.jpg"],
     "1006.jpg: the image before it is 5.jpg, expected one at most 1,000 frames earlier"),
    (["1700000000000.jpg", "1700000000033.jpg"], "1700000000000.jpg: frame number 1700000000000, expected"),
    (["0.jpg", "²3.jpg"], "²3.jpg: '²3' is not a frame number"),
    (["7.jpg", "07.png"], "7.jpg: frame 7 is also 07.png")])
def test_numbers_that_would_make_an_endless_film_are_refused_by_file(tmp_path, names, message):
    folder = tmp_path/"scene0000_00"
    (folder/"color").mkdir(parents=True)
    for name in names: (folder/"color"/name).write_bytes(b"never opened")
    with pytest.raises(ValueError, match=f"color/{message}"): write_film(folder, tmp_path/"film.mp4")
    assert not list(tmp_path.glob("film.mp4*"))

def test_a_disk_error_is_not_reported_as_a_broken_image(tmp_path, monkeypatch):
    from pathlib import Path
    from PIL import Image
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path/"0.jpg")
    def denied(self): raise PermissionError(13, "Permission denied", str(self))
    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(PermissionError, match="0.jpg"): list(_pictures(tmp_path, 24, (8, 6)))

@pytest.mark.parametrize("lost", [0., -np.inf])
def test_a_recording_without_tracked_poses_has_no_cameras(filmed, tmp_path, lost):
    "The rule is that of a scan without poses: all its objects are kept, and it is counted."
    scene, frames, _ = filmed
    folder = without_cameras(scene, "scene0046_00", tmp_path)
    write_sens(folder/"scene0046_00.sens", recording(scene, frames, np.full((8, 4, 4), lost)), scene.intrinsic)
    bare = without_cameras(scene, "scene0047_00", tmp_path)
    asking = scene_questions.Asking(labels="raw", frames=8)
    made, none = (scene_questions.scene_rows(f, tmp_path/"out", "scannet", asking, film=False) for f in (folder, bare))
    assert made["skipped"] == none["skipped"] | {"pose: tracking lost": 8}
    assert made["skipped"][scene_questions.UNSEEN] == 1
    assert len(made["train"]) == len(none["train"]) > 3

def test_a_recording_with_an_impossible_camera_is_named(filmed, tmp_path):
    scene, frames, _ = filmed
    folder = without_cameras(scene, "scene0048_00", tmp_path)
    write_sens(folder/"scene0048_00.sens", recording(scene, frames), np.full((3, 3), -np.inf))
    with pytest.raises(ValueError, match="scene0048_00.sens: impossible camera: focal lengths -inf"):
        with_cameras(read_scene(folder), folder)

def test_one_bad_stamp_does_not_change_the_film():
    times = np.arange(300)*1e6/15
    bad = times.copy()
    bad[[100, 200]] = bad[[99, 199]]
    assert len(film_frames(bad)) == len(film_frames(times)) == 479

def test_poses_without_an_intrinsic_take_the_recordings(filmed, tmp_path):
    scene, frames, _ = filmed
    folder = write_scene(replace(scene, name="scene0045_00", intrinsic=None), tmp_path/"scene0045_00")
    assert with_cameras(read_scene(folder), folder).intrinsic is None
    write_sens(folder/"scene0045_00.sens", recording(scene, frames, np.tile(np.eye(4), (8, 1, 1))), scene.intrinsic)
    back = with_cameras(read_scene(folder), folder)
    assert np.allclose(back.intrinsic, scene.intrinsic) and np.allclose(back.poses, scene.poses)
