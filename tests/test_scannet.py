"ScanNet's layout, in and out, on planted files with the faults of the real ones."
import json, struct
from dataclasses import replace

import numpy as np
import pytest

from vsgrpo.data.ply import read_ply, write_ply
from vsgrpo.data.scannet import (Instance, Scene, align, group_instances, instances_of, list_scenes, read_alignment,
                                 read_label_map, read_poses, read_scene, tracked, write_label_map, write_scene)

def rigid(seed):
    "A turn and a shift (4, 4)."
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = q*np.sign(np.linalg.det(q)), rng.normal(size=3)
    return matrix

def planted(n=400, seed=0, **kw):
    "A scene of random vertices in four objects, with cameras and visibility."
    rng = np.random.default_rng(seed)
    ids = rng.integers(-1, 4, n)*3
    ids[ids < 0] = -1
    ids[:5] = [-1, 0, 3, 6, 9]
    labels = {0: 'chair', 3: 'Trash Can', 6: 'desk', 9: 'chair'}
    faces = rng.integers(0, n, (50, 3)).astype(np.int32)
    base = dict(poses=np.stack([rigid(i) for i in range(3)]), pose_frames=np.array([0, 2, 11]),
                intrinsic=np.array([[500., 0, 320], [0, 501, 240], [0, 0, 1]]),
                visibility={0: np.array([0, .25]), 3: np.zeros(2), 6: np.ones(2), 9: np.array([.5, 0])})
    return Scene('scene0001_02', rng.normal(size=(n, 3))*3, rng.integers(0, 256, (n, 3)).astype(np.uint8), faces,
                 instances_of(ids, labels), **{**base, **kw})

def folder_of(tmp_path, scene, matrix=None): return write_scene(scene, tmp_path/'scans'/scene.name, matrix)

@pytest.mark.parametrize('seed', range(4))
def test_round_trip_under_any_alignment(tmp_path, seed):
    scene = planted(seed=seed)
    folder = folder_of(tmp_path, scene, rigid(seed + 10))
    back = read_scene(folder)
    assert np.abs(back.vertices - scene.vertices).max() < 2e-6 and back.vertices.dtype == np.float64
    assert np.abs(back.poses - scene.poses).max() < 1e-12 and back.pose_frames.tolist() == [0, 2, 11]
    assert (back.colors == scene.colors).all() and back.colors.dtype == np.uint8
    assert (back.faces == scene.faces).all() and back.faces.dtype == np.int32
    assert (back.intrinsic == scene.intrinsic).all() and back.video is None and back.skipped == {}
    for a, b in zip(scene.instances, back.instances, strict=True):
        assert (a.object_id, a.label, a.vertices.tolist()) == (b.object_id, b.label, b.vertices.tolist())
    assert {k: v.tolist() for k, v in back.visibility.items()} == {k: v.tolist() for k, v in scene.visibility.items()}
    assert not list(folder.rglob('*.tmp'))

def test_the_bare_minimum_reads(tmp_path):
    scene = planted(poses=None, pose_frames=None, intrinsic=None, visibility=None)
    back = read_scene(folder_of(tmp_path, scene))
    assert back.poses is None and back.intrinsic is None and back.visibility is None and back.pose_frames is None

def test_the_mesh_on_disk_is_not_aligned(tmp_path):
    scene, matrix = planted(), rigid(3)
    raw = read_ply(folder_of(tmp_path, scene, matrix)/'scene0001_02_vh_clean_2.ply')[0]
    assert np.abs(align(raw, matrix) - scene.vertices).max() < 2e-6 and np.abs(raw - scene.vertices).max() > .1

def test_video_is_found_and_copied(tmp_path):
    (tmp_path/'a.mp4').write_bytes(b'film')
    folder = folder_of(tmp_path, planted(video=tmp_path/'a.mp4'))
    assert read_scene(folder).video.read_bytes() == b'film'
    write_scene(read_scene(folder), folder)
    assert read_scene(folder).video.read_bytes() == b'film'

def test_axis_alignment_absent_is_identity(tmp_path):
    p = tmp_path/'s.txt'
    p.write_text('colorHeight = 968\nnumColorFrames = 10\n')
    assert (read_alignment(p) == np.eye(4)).all()
    p.write_text('axisAlignment = 0.5 0.5\n')
    with pytest.raises(ValueError, match='axisAlignment has 2 numbers, expected 16'): read_alignment(p)

LINE = 'axisAlignment = 0 -1 0 1 1 0 0 2 0 0 1 3 0 0 0 1\n'
TURNED = [[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]]

@pytest.mark.parametrize('text', [LINE, '\ufeff' + LINE, LINE.lower(), LINE.upper(), LINE.replace(' =', ':'),
                                  LINE.replace(' = ', ' '), LINE.replace('\n', '\r\n'), '  ' + LINE,
                                  LINE.replace('A', '_a'), 'colorHeight = 968\r' + LINE,
                                  '\ufeffcolorHeight = 968\n' + LINE, LINE + LINE])
def test_an_alignment_is_read_however_its_line_is_written(tmp_path, text):
    (tmp_path/'s.txt').write_bytes(text.encode())
    assert read_alignment(tmp_path/'s.txt').tolist() == TURNED

@pytest.mark.parametrize('data,message', [
    (('# ' + LINE).encode(), "unknown name '# axisAlignment'"),
    (LINE.replace('=', '= [').encode(), "could not convert string to float: '\\['"),
    (LINE.replace('=', '==').encode(), 'could not convert'),
    ((LINE + LINE.replace('3', '4')).encode(), '2 different lines about axisAlignment'),
    (b'axisAlignment =\n', 'axisAlignment has 0 numbers'), (b'axisAlignment\n1 0 0 0\n', 'has 0 numbers'),
    (LINE.replace('A', 'A\0').encode(), 'not text, a zero byte'),
    (LINE.encode('utf-16'), 'not text'), (LINE.encode('utf-16-le'), 'not text, a zero byte at character 1')])
def test_an_unreadable_alignment_is_an_error(tmp_path, data, message):
    folder = folder_of(tmp_path, planted())
    (folder/'scene0001_02.txt').write_bytes(data)
    with pytest.raises(ValueError, match=f'scene0001_02.txt: .*{message}'): read_scene(folder)

def test_a_scan_without_alignment_is_counted(tmp_path):
    folder = folder_of(tmp_path, planted())
    assert read_scene(folder).skipped == {}
    (folder/'scene0001_02.txt').write_text('colorHeight = 968\n')
    assert read_scene(folder).skipped == {'scene: no alignment, taken as it stands': 1}

def test_every_text_file_may_start_with_a_byte_order_mark(tmp_path):
    folder = folder_of(tmp_path, planted(), rigid(4))
    before = read_scene(folder)
    texts = [p for p in folder.rglob('*') if p.suffix in ('.txt', '.json')]
    assert len(texts) == 8
    for p in texts: p.write_bytes(b'\xef\xbb\xbf' + p.read_bytes())
    after = read_scene(folder)
    assert (after.vertices == before.vertices).all() and (after.poses == before.poses).all()
    assert (after.intrinsic == before.intrinsic).all() and len(after.instances) == 4
    (tmp_path/'l.tsv').write_bytes('\ufeffraw_category\tcategory\ncouch\tsofa\n'.encode())
    assert read_label_map(tmp_path/'l.tsv', 'category') == {'couch': 'sofa'}

def test_segments_are_arbitrary_numbers():
    groups = [dict(objectId=8, label='a', segments=[4]), dict(objectId=2, label='b', segments=[900_000, 4242])]
    objects, skipped = group_instances(np.array([900_000, 4, 4, 77, 900_000]), groups)
    assert [(o.object_id, o.vertices.tolist()) for o in objects] == [(8, [1, 2]), (2, [0, 4])] and skipped == {}

def test_repeated_objects_are_dropped_once():
    first = [dict(objectId=i, label=f'o{i}', segments=[2*i, 2*i + 1]) for i in range(31)]
    again = [dict(g, objectId=31 + i, segments=g['segments'][::-1]) for i, g in enumerate(first)]
    objects, skipped = group_instances(np.arange(62), first + again)
    assert [o.object_id for o in objects] == list(range(31)) and list(skipped.values()) == [31]

def test_a_segment_claimed_twice_goes_to_the_later_object():
    groups = [dict(objectId=0, label='a', segments=[1, 2]), dict(objectId=1, label='b', segments=[2, 3])]
    objects, skipped = group_instances(np.array([1, 1, 2, 3]), groups)
    assert [o.vertices.tolist() for o in objects] == [[0, 1], [2, 3]] and list(skipped.values()) == [1]

def test_the_aggregation_of_the_other_mesh_leaves_no_vertex():
    objects, skipped = group_instances(np.array([1, 2]), [dict(objectId=0, label='a', segments=[10, 11])])
    assert objects == [] and skipped == {'object: has no vertex in the mesh': 1}
    assert group_instances(np.array([1, 2]), []) == ([], {})

def test_files_of_the_other_mesh_beside_ours_are_not_read(tmp_path):
    scene = planted()
    folder = folder_of(tmp_path, scene)
    before = read_scene(folder)
    for end in ('_vh_clean.aggregation.json', '_vh_clean.segs.json', '_vh_clean.ply'):
        (folder/f'{scene.name}{end}').write_text('of the hi-res mesh')
    after = read_scene(folder)
    assert [o.label for o in after.instances] == [o.label for o in before.instances]
    assert np.array_equal(after.vertices, before.vertices)

def test_unannotated_vertices_belong_to_no_object(tmp_path):
    back = read_scene(folder_of(tmp_path, planted()))
    owned = np.concatenate([o.vertices for o in back.instances])
    assert len(owned) == len(set(owned)) < len(back.vertices)

@pytest.mark.parametrize('text', ['-inf '*16, 'nan '*16, '0 '*16, '0 0 0 1 '*4])
def test_lost_tracking_is_counted(tmp_path, text):
    folder = folder_of(tmp_path, planted())
    (folder/'pose'/'5.txt').write_text(text)
    back = read_scene(folder)
    assert back.skipped == {'pose: tracking lost': 1} and back.pose_frames.tolist() == [0, 2, 11]

def test_pose_files_are_in_frame_order_and_complete(tmp_path):
    for frame in (10, 9, 100): (tmp_path/f'{frame}.txt').write_text(' '.join(map(str, (np.eye(4)*frame).ravel())))
    assert read_poses(tmp_path)[1].tolist() == [9, 10, 100]
    (tmp_path/'11.txt').write_text('1 2 3')
    with pytest.raises(ValueError, match='11.txt: 3 numbers'): read_poses(tmp_path)
    (tmp_path/'none').mkdir()
    with pytest.raises(FileNotFoundError, match='no pose file'): read_poses(tmp_path/'none')

def test_a_scan_without_tracked_poses_has_no_cameras(tmp_path):
    folder = folder_of(tmp_path, planted())
    for p in (folder/'pose').iterdir(): p.write_text('0 '*16)
    back = read_scene(folder)
    assert back.poses is None and back.pose_frames is None and back.skipped == {'pose: tracking lost': 3}
    assert tracked(np.stack([np.eye(4), np.zeros((4, 4)), np.full((4, 4), -np.inf)])).tolist() == [True, False, False]

@pytest.mark.parametrize('name,message', [('²3.txt', "'²3' is not a frame number"),
                                          ('٣.txt', "'٣' is not a frame number"),
                                          ('011.txt', 'frame 11 is also 11.txt|frame 11 is also 011.txt'),
                                          ('1700000000000.txt',
                                           'frame number 1700000000000, expected at most 1,000,000')])
def test_a_pose_file_without_a_frame_number_is_named(tmp_path, name, message):
    folder = folder_of(tmp_path, planted())
    (folder/'pose'/name).write_text('1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1')
    (folder/'pose'/'notes.txt').write_text('not ours')
    with pytest.raises(ValueError, match=f'pose/.*txt: ({message})'): read_scene(folder)

@pytest.mark.parametrize('k', ['-inf 0 320 0 500 240 0 0 1', '500 0 nan 0 500 240 0 0 1', '0 0 320 0 500 240 0 0 1',
                               '500 0 320 0 -500 240 0 0 1', '500 0 320 0 500 1e-9 0 0 1',
                               '500 inf 320 0 500 240 0 0 1'])
def test_impossible_intrinsics_are_named(tmp_path, k):
    folder = folder_of(tmp_path, planted())
    (folder/'intrinsic'/'intrinsic_color.txt').write_text(k)
    with pytest.raises(ValueError, match='intrinsic_color.txt: impossible camera: focal lengths'): read_scene(folder)

@pytest.mark.parametrize('metres,unit,factor', [(.0254, 'inches', '0.0254'), (.01, 'centimetres', '0.01'),
                                                (.001, 'millimetres', '0.001'), (1000., 'units of 1000 m', '1000')])
def test_a_scan_in_another_unit_is_refused_with_the_factor(tmp_path, metres, unit, factor):
    cloud = np.random.default_rng(0).uniform(0, 1, (400, 3))*[7, 5, 2.4]
    assert len(read_scene(folder_of(tmp_path/'m', replace(planted(), vertices=cloud))).vertices) == 400
    with pytest.raises(ValueError,
                       match=rf'scene0001_02: the scan is [0-9.e+-]+ m long, expected 0.5 to 200; is it in {unit}\? '
                             rf'times {factor} it would be 2.4 m high'):
        read_scene(folder_of(tmp_path, replace(planted(), vertices=cloud/metres)))

def edit(path, **kw): path.write_text(json.dumps({**json.loads(path.read_text()), **kw}))

@pytest.mark.parametrize('break_it,error,message', [
    (lambda f: (f/'scene0001_02_vh_clean_2.ply').unlink(), FileNotFoundError,
     'scene0001_02: no scene0001_02_vh_clean_2.ply'),
    (lambda f: (f/'scene0001_02.txt').unlink(), FileNotFoundError, 'no scene0001_02.txt'),
    (lambda f: (f/'scene0001_02.aggregation.json').write_text('{"segGroups": ['), ValueError, 'not JSON'),
    (lambda f: (f/'scene0001_02.aggregation.json').write_text('{}'), ValueError, "has no 'segGroups'"),
    (lambda f: edit(f/'scene0001_02_vh_clean_2.0.010000.segs.json', segIndices=[1, 2]), ValueError,
     r'segIndices is \(2,\), expected \(400,\)'),
    (lambda f: edit(f/'scene0001_02.visibility.json', frames=7), ValueError, 'object 0 has 2 frames, expected 7'),
])
def test_broken_scenes_are_named(tmp_path, break_it, error, message):
    folder = folder_of(tmp_path, planted())
    break_it(folder)
    with pytest.raises(error, match=message): read_scene(folder)

def ply(tmp_path, header, body):
    p = tmp_path/'m.ply'
    p.write_bytes(('\n'.join(header) + '\nend_header\n').encode() + body)
    return p

HEAD = ['ply', 'format binary_little_endian 1.0', 'comment VCGLIB generated', 'element vertex 3',
        *[f'property float {axis}' for axis in 'xyz'],
        *[f'property uchar {channel}' for channel in ('red', 'green', 'blue', 'alpha')]]
FACE = ['element face 1', 'property list uchar int vertex_indices']

def vertex(x): return struct.pack('<fffBBBB', x, 0, 0, 1, 2, 3, 255)
def triangle(*idxs): return struct.pack('<Biii', 3, *idxs)

BODY = b''.join(map(vertex, range(3)))

def test_ply_with_more_properties(tmp_path):
    body = b''.join(vertex(x) + struct.pack('<H', 9) for x in range(3)) + triangle(0, 1, 2)
    header = [*HEAD, 'property ushort label', 'element face 1', 'property list uchar int vertex_index']
    vertices, colors, faces = read_ply(ply(tmp_path, header, body))
    assert vertices[:, 0].tolist() == [0, 1, 2] and colors.tolist() == [[1, 2, 3]]*3
    assert faces.tolist() == [[0, 1, 2]]

def test_a_header_may_end_its_lines_as_windows_does(tmp_path):
    "The first body byte is a line feed, so that one read too many would show."
    line_feed, = struct.unpack('<f', b'\n\r\n@')
    body = b''.join(map(vertex, (line_feed, 1, 2))) + triangle(0, 1, 2)
    unix = read_ply(ply(tmp_path, HEAD + FACE, body))
    (tmp_path/'w.ply').write_bytes('\r\n'.join(HEAD + FACE + ['end_header', '']).encode() + body)
    windows = read_ply(tmp_path/'w.ply')
    assert all((a == b).all() for a, b in zip(unix, windows)) and windows[0][1:, 0].tolist() == [1, 2]

@pytest.mark.parametrize('header,body,message', [
    (['plx'], b'', 'not a PLY file'),
    (['ply', 'format ascii 1.0'], b'', "found 'format ascii 1.0'"),
    (HEAD, BODY, 'expected vertex then face'),
    (HEAD + FACE, BODY[:-1], 'ends inside its vertex record'),
    (HEAD + FACE, BODY, 'ends inside its face record'),
    (HEAD + FACE, BODY + struct.pack('<Biii', 4, 0, 1, 2), 'face 0 is not a triangle'),
    (HEAD + FACE, BODY + triangle(0, 1, 3), 'a face has vertex number 3, there are 3 vertices'),
    (HEAD[:7] + FACE, BODY, 'no property red, green, blue'),
    (HEAD + FACE, vertex(np.nan) + BODY[16:] + triangle(0, 1, 2), '1 vertices are not finite'),
])
def test_broken_meshes_are_named(tmp_path, header, body, message):
    with pytest.raises(ValueError, match=message): read_ply(ply(tmp_path, header, body))

def test_mesh_without_faces(tmp_path):
    write_ply(tmp_path/'a.ply', np.zeros((1, 3)), np.zeros((1, 3)), [])
    assert read_ply(tmp_path/'a.ply')[2].shape == (0, 3)

def test_writing_refuses_bad_scenes(tmp_path):
    scene = planted()
    twice = replace(scene, instances=[Instance(0, 'a', np.array([1, 2])), Instance(1, 'b', np.array([2]))])
    with pytest.raises(ValueError, match=r'object 1 \(b\) shares vertices'): write_scene(twice, tmp_path/'x')
    none = replace(scene, instances=[Instance(4, 'a', np.array([], int))])
    with pytest.raises(ValueError, match=r'object 4 \(a\) has no vertex'): write_scene(none, tmp_path/'x')
    with pytest.raises(ValueError, match=r'axis_alignment is \(3, 3\)'): write_scene(scene, tmp_path/'x', np.eye(3))
    with pytest.raises(ValueError, match='no label for object'): instances_of(np.array([0, 1]), {0: 'a'})

def test_label_map(tmp_path):
    p = tmp_path/'labels.tsv'
    p.write_text('id\traw_category\tcategory\tnyu40class\n1\t Office Chair \tchair\tchair\n2\tgizmo\t\totherprop\n')
    assert read_label_map(p, 'category') == {'office chair': 'chair'}
    assert read_label_map(p, 'nyu40class') == {'office chair': 'chair', 'gizmo': 'otherprop'}
    write_label_map(p, {'a': 'b'}, 'nyu40class')
    assert read_label_map(p, 'nyu40class') == {'a': 'b'}
    p.write_text('raw_category\tcategory\nchair\n')
    with pytest.raises(ValueError, match='row 2 has 1 columns'): read_label_map(p, 'category')
    p.write_text('')
    with pytest.raises(ValueError, match='empty'): read_label_map(p, 'category')

def test_list_scenes(tmp_path):
    folder = folder_of(tmp_path, planted())
    (tmp_path/'scans'/'half').mkdir()
    (tmp_path/'scans'/'note.txt').write_text('')
    assert list_scenes(tmp_path/'scans') == [folder]
    with pytest.raises(FileNotFoundError, match='no such folder'): list_scenes(tmp_path/'nowhere')
    (tmp_path/'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='no scene, expected folders'): list_scenes(tmp_path/'empty')

def test_a_repeated_object_number_is_replaced():
    groups = [dict(objectId=k, label=label, segments=[s])
              for k, label, s in ((0, "chair", 0), (5, "table", 1), (0, "lamp", 2))]
    found, skipped = group_instances(np.arange(3), groups)
    assert [(o.object_id, o.label) for o in found] == [(0, "chair"), (5, "table"), (6, "lamp")]
    assert skipped == {"object: number taken by an earlier one, numbered anew": 1}

def test_folders_without_a_mesh_are_scenes_too(tmp_path):
    for name, file in (("scene0000_00", "scene0000_00.txt"), ("notes", "readme.md")):
        (tmp_path/name).mkdir()
        (tmp_path/name/file).write_text("x")
    assert [p.name for p in list_scenes(tmp_path)] == ["scene0000_00"]
