"Boxes, outlines and directions against hand-worked values and slow, plain oracles."
from collections import Counter

import numpy as np
import pytest
import shapely
from scipy.optimize import lsq_linear
from scipy.spatial import Delaunay, cKDTree

from vsgrpo.data.geometry import (Box, box_corners, box_distance, box_distances, box_shell, closest_points,
                                  direction_angle, direction_angles, direction_clear, direction_word, directions_clear,
                                  longest_side_cm, oriented_box, room_area, room_outline)

def turn(rng):
    "A random rotation (3, 3)."
    q = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return q*np.sign(np.linalg.det(q))

def random_box(rng, spread=3.): return Box(rng.uniform(-spread, spread, 3), turn(rng), rng.uniform(.01, 1.5, 3))

UNIT = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)

@pytest.mark.parametrize('seed', range(20))
def test_oriented_box_finds_a_turned_cuboid(seed):
    rng = np.random.default_rng(seed)
    size, axes, shift = rng.uniform(.1, 3, 3), turn(rng), rng.normal(size=3)
    inside = np.concatenate([UNIT, rng.uniform(0, 1, (200, 3))])
    box = oriented_box(inside*size @ axes.T + shift)
    assert np.allclose(np.sort(box.lengths), np.sort(size), atol=1e-6)
    assert np.allclose(box.axes @ box.axes.T, np.eye(3), atol=1e-9)
    assert np.allclose(box.centre, size/2 @ axes.T + shift, atol=1e-6)
    assert cKDTree(box_corners(box)).query(UNIT*size @ axes.T + shift)[0].max() < 1e-5

@pytest.mark.parametrize('size,expected', [((2, 1, 0), [0, 1, 2]), ((3, 0, 0), [0, 0, 3]), ((0, 0, 0), [0, 0, 0]),
                                           ((2, 1, 1e-6), [0, 1, 2])])
def test_flat_input_has_a_box(size, expected):
    rng = np.random.default_rng(1)
    box = oriented_box(UNIT*size @ turn(rng) + rng.normal(size=3))
    assert np.allclose(np.sort(box.lengths), expected, atol=1e-5)
    assert np.allclose(box.axes @ box.axes.T, np.eye(3), atol=1e-9)

def test_few_points_and_bad_points():
    assert longest_side_cm(oriented_box([[0, 0, 0], [3, 4, 0]])) == 500
    assert longest_side_cm(oriented_box([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])) > 0
    with pytest.raises(ValueError, match='not finite'): oriented_box([[np.nan, 0, 0]])
    with pytest.raises(ValueError, match=r'\(4,\), expected \(n, 3\)'): oriented_box(np.zeros(4))

def test_same_points_same_box():
    points = np.random.default_rng(3).normal(size=(300, 3))
    a, b = oriented_box(points), oriented_box(points)
    assert (a.axes == b.axes).all() and (a.lengths == b.lengths).all()

def grid_of(n):
    "Points of a grid, 5 cm apart and centred in a box of `n` points a side."
    return np.stack(np.meshgrid(*[(np.arange(k) - (k - 1)/2)*.05 for k in n], indexing='ij'), -1).reshape(-1, 3)

def solid(box):
    "All grid points of a box."
    n = np.maximum(np.ceil(box.lengths/.05 - 1e-9).astype(int), 1)
    return box.centre + grid_of(n) @ box.axes

@pytest.mark.parametrize('seed', range(40))
def test_box_distance_equals_a_search_over_both_grids(seed):
    rng = np.random.default_rng(seed)
    a, b = random_box(rng), random_box(rng, 1. if seed % 2 else 3.)
    distance, plain = box_distance(a, b), cKDTree(solid(a)).query(solid(b))[0].min()
    assert distance == pytest.approx(box_distance(b, a)) and distance >= plain - 1e-9
    assert np.linalg.norm(np.diff(closest_points(a, b), axis=0)) == pytest.approx(distance)
    if plain <= .15:
        assert distance < .25
        return
    assert distance == pytest.approx(plain, abs=1e-9)
    half = np.r_[a.lengths, b.lengths]/2
    exact = lsq_linear(np.hstack([a.axes.T, -b.axes.T]), b.centre - a.centre, (-half, half))
    assert 0 <= distance - np.sqrt(2*exact.cost) < .14

def test_nested_boxes_touch():
    big = Box(np.zeros(3), np.eye(3), np.full(3, 2.))
    small = Box(np.array([.3, .2, 0]), turn(np.random.default_rng(0)), np.full(3, .2))
    assert box_distance(big, small) < .05 and box_distance(small, big) < .05

def test_distance_matrix_and_shell():
    rng = np.random.default_rng(5)
    boxes = [random_box(rng) for _ in range(6)]
    distances = box_distances(boxes)
    assert (distances == distances.T).all() and (np.diag(distances) == 0).all()
    assert distances[1, 4] == box_distance(boxes[1], boxes[4])
    def shell_size(side): return len(box_shell(Box(np.zeros(3), np.eye(3), np.full(3, side))))
    assert shell_size(.2) == 4**3 - 2**3 and shell_size(0.) == 1
    assert box_distances([]).shape == (0, 0)

def whole_grid(box):
    "A simple version of the shell: all points of the grid, then those on the outside."
    n = np.maximum(np.ceil(box.lengths/.05 - 1e-9).astype(int), 1) - 1
    grid = np.indices(n + 1).reshape(3, -1).T
    return box.centre + (grid[((grid == 0) | (grid == n)).any(1)] - n/2)*.05 @ box.axes

@pytest.mark.parametrize('lengths', [(0, 0, 0), (.04, 1, 1), (1, .04, 1), (1, 1, .04), (.1, .1, .1), (.1, 1, .05),
                                     (.3, .7, .9), (2, 1.4, .6)])
def test_only_the_faces_are_built(lengths):
    box = Box(np.array([1., 2, 3]), turn(np.random.default_rng(0)), np.array(lengths, float))
    assert np.array_equal(box_shell(box), whole_grid(box))

def test_memory_grows_with_the_surface():
    "A bed in inches has a grid of 880 million points, 6.3 million on the surface; a tenth of each side is tried."
    import tracemalloc
    tracemalloc.start()
    try:
        n = len(box_shell(Box(np.zeros(3), np.eye(3), np.array([2., 1.5, .6])*3.937*4)))
        peak = tracemalloc.get_traced_memory()[1]
    finally: tracemalloc.stop()
    assert n == 2*(630*473 + 630*189 + 473*189) - 4*(630 + 473 + 189) + 8
    assert peak < 200*n
    for lengths in ([2000., 1500, 600], [1e300, 1, 1], [np.nan, 1, 1]):
        with pytest.raises(ValueError, match='expected a surface below 80,000 m²: is it in metres'):
            box_shell(Box(np.zeros(3), np.eye(3), np.array(lengths)))

SIDES = ((0, 1), (1, 2), (2, 0)) # sides of a triangle, as pairs of corners

def plain_alpha_shape(xy, alpha):
    "Triangles one by one, edges that occur once, polygons of the edges, their union."
    count = Counter()
    for corners in Delaunay(xy).simplices:
        a, b, c = (np.hypot(*(xy[corners[i]] - xy[corners[j]])) for i, j in SIDES)
        half = (a + b + c)/2
        squared_area = half*(half - a)*(half - b)*(half - c)
        if squared_area > 0 and a*b*c/(4*np.sqrt(squared_area)) < 1/alpha:
            count.update(tuple(sorted((corners[i], corners[j]))) for i, j in SIDES)
    border = [shapely.LineString(xy[list(edge)]) for edge, n in count.items() if n == 1]
    return shapely.union_all(list(shapely.polygonize(border).geoms))

@pytest.mark.parametrize('seed', range(6))
def test_area_equals_the_plain_alpha_shape(seed):
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 4, (2500, 2))
    for _ in range(4): xy = xy[np.hypot(*(xy - rng.uniform(0, 4, 2)).T) > rng.uniform(.2, .8)]
    if seed % 2: xy = np.concatenate([xy, rng.uniform(0, 1, (150, 2)) + [5, 1], rng.uniform(0, 1, (40, 2)) + [1, 5]])
    oracle = plain_alpha_shape(xy, 5)
    assert room_area(xy) == pytest.approx(oracle.area, rel=1e-9)
    assert room_outline(xy).area == pytest.approx(oracle.area, rel=1e-9)
    assert room_outline(xy).symmetric_difference(oracle).area < 1e-9

@pytest.mark.parametrize('seed,area', [(0, 16.14777149055586), (1, 16.152742093707143), (2, 16.04410063068247)])
def test_area_equals_the_alphashape_package(seed, area):
    "Values of alphashape 1.3.1, alphashape(xy, 5).area, for the same points (computed once, outside the project)."
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 4, (2500, 2))
    xy = xy[np.hypot(*(xy - [1, 2]).T) > .6]
    assert room_area(np.r_[xy, rng.uniform(0, 1, (60, 2)) + [5, 1]]) == pytest.approx(area, rel=1e-12)

def test_area_worked_by_hand():
    grid = np.stack(np.meshgrid(np.arange(41)*.1, np.arange(31)*.1), -1).reshape(-1, 2)
    assert room_area(grid) == pytest.approx(12)
    ring = grid[(np.abs(grid - [2, 1.5]) > .55).any(1)]
    assert len(ring) < len(grid) and room_area(ring) == pytest.approx(12)       # a hole is filled
    bay = grid[~((grid[:, 0] > 3.05) & (grid[:, 1] > 2.05))]
    assert room_area(bay) == pytest.approx(12 - 1, abs=.02)                     # a corner is not
    assert room_area(np.c_[grid, np.full(len(grid), 7.)]) == room_area(grid)    # z does not matter
    assert room_area(np.concatenate([grid, grid])) == pytest.approx(12)         # doubled points
    far = np.array([[0, 0], [10, 0], [0, 10], [10, 10], [5, 5.]])
    assert room_area(far) == 0 and room_outline(far).is_empty

def test_area_draws_by_seed():
    xy = np.random.default_rng(0).uniform(0, 5, (30_000, 2))
    assert room_area(xy, seed=1) == room_area(xy, seed=1) != room_area(xy, seed=2)
    assert abs(room_area(xy, seed=1) - 25) < .4
    with pytest.raises(ValueError, match='span no area'): room_area(np.zeros((50, 3)))
    with pytest.raises(ValueError, match='expected'): room_area(np.zeros(5))

@pytest.mark.parametrize('angle,easy,medium,hard', [
    (0, 'left', 'left', 'front-left'),
    (89.9, 'left', 'left', 'front-left'),
    (90, 'left', 'left', 'back-left'),
    (134.9, 'left', 'left', 'back-left'),
    (135, None, 'back', 'back-left'),
    (180, None, 'back', 'back-right'),
    (224.9, None, 'back', 'back-right'),
    (225, 'right', 'right', 'back-right'),
    (270, 'right', 'right', 'front-right'),
    (359.9, 'right', 'right', 'front-right')])
def test_direction_words(angle, easy, medium, hard):
    assert [direction_word(angle, k) for k in ('easy', 'medium', 'hard')] == [easy, medium, hard]

def test_direction_errors():
    with pytest.raises(ValueError, match='expected one of easy, medium, hard'): direction_word(1, 'mean')
    for a in (-1, 360, np.nan):
        with pytest.raises(ValueError, match='expected in'): direction_word(a, 'easy')

def test_direction_angle_turns_counter_clockwise_whatever_the_pose():
    rng = np.random.default_rng(0)
    for _ in range(200):
        wanted, heading, stand = rng.uniform(0, 360), rng.uniform(0, 2*np.pi), rng.normal(size=2)*4
        def seen_from_stand(angle, r): return stand + r*np.array([np.cos(angle), np.sin(angle)])
        facing = seen_from_stand(heading, 1.3)
        query = seen_from_stand(heading + np.radians(wanted), rng.uniform(.1, 5))
        found = direction_angle(stand, facing, query)
        assert abs((found - wanted + 180) % 360 - 180) < 1e-6 and 0 <= found < 360
    centres = rng.normal(size=(5, 3))
    assert direction_angles(centres)[1, 3, 4] == pytest.approx(direction_angle(*centres[[1, 3, 4]]))
    assert direction_angle((0, 0), (0, 1), (1e-18, 1)) < 360

def cube(x, y, side=.2, z=0.): return Box(np.array([x, y, z], float), np.eye(3), np.full(3, side))
def polar(deg, r=1.5, side=.2): return cube(-r*np.sin(np.deg2rad(deg)), r*np.cos(np.deg2rad(deg)), side)

@pytest.mark.parametrize('difficulty,bounds',
                         [('easy', (0, 135, 225)), ('medium', (0, 135, 225)), ('hard', (0, 90, 180, 270))])
def test_clear_directions_keep_ten_degrees_off_a_boundary(difficulty, bounds):
    for deg in range(1, 360, 3):
        off = min(abs((deg - b + 180) % 360 - 180) for b in bounds)
        if abs(off - 10) < 1e-6: continue
        facing, query = cube(0, 3), polar(deg, side=.02)    # far enough from one another in every direction
        has_word, apart = direction_word(deg, difficulty) is not None, box_distance(facing, query) >= .3
        assert direction_clear(cube(0, 0), facing, query, difficulty) == (off > 10 and has_word and apart), (deg, off)

def test_unclear_when_near_far_or_wide():
    stand, facing = cube(0, 0), cube(0, 2)
    assert direction_clear(stand, facing, polar(45), 'hard')
    for query in (polar(45, r=.3), polar(45, r=6), polar(45, r=1.5, side=2.4)):
        assert not direction_clear(stand, facing, query, 'hard')
    assert not direction_clear(stand, cube(0, 8), polar(45), 'hard')

def test_all_triples_agree_with_one_by_one():
    rng = np.random.default_rng(2)
    boxes = [Box(rng.uniform(0, 4, 3), turn(rng), rng.uniform(.1, .8, 3)) for _ in range(6)]
    for k in ('easy', 'medium', 'hard'):
        every = directions_clear(boxes, box_distances(boxes), k)
        assert every.any()
        for i, j, q in np.ndindex(6, 6, 6):
            assert every[i, j, q] == (len({i, j, q}) == 3 and direction_clear(boxes[i], boxes[j], boxes[q], k))
