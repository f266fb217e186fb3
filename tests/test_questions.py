"Questions of planted rooms worked by hand, of mirrored and turned rooms, and of the benchmark's own annotations."
import itertools, json, re, time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vsgrpo.data.geometry import Box, box_distance, direction_angle, direction_clear, direction_word
from vsgrpo.data.questions import PRESETS, TURNS, agreement, make_questions
from vsgrpo.data.scannet import Scene, instances_of, read_scene, write_scene
from vsgrpo.data.scene_facts import (STUFF, VSIBENCH, SceneFacts, Thing, category_of, facts_from_meta_info, is_stuff,
                                     measure, read_meta_info)
from vsgrpo.evaluation.rows import read_questions, write_questions
from vsgrpo.evaluation.vsibench import LETTERS, QUESTION_TYPES, score_answer

def facts_of(items, first_seen=None, hidden=(), area=20., name='scene0000_00'):
    "Facts from (category, x, y, side) items: upright cubes."
    things = [Thing(i, c, Box(np.array([x, y, side/2]), np.eye(3), np.full(3, side)))
              for i, (c, x, y, side) in enumerate(items)]
    counts = {c: sum(t.category == c for t in things) for c in {t.category for t in things}}
    return SceneFacts(name, 'generated', things, counts, area, first_seen, frozenset(hidden))

ITEMS = [('bed', 1, 1, 1.), ('table', 4.2, .6, .8), ('door', 2.5, 4.4, .3), ('lamp', .4, 3.6, .25), ('tv', 5.4, 3., .4),
         ('chair', 3.4, 1.9, .45), ('chair', 2.2, 2.9, .45), ('plant', 5., 4.6, .35)]
FIRST = dict(bed=0, table=3, door=3, lamp=8, tv=11, chair=2, plant=20)
FACTS = facts_of(ITEMS, FIRST)

def questions_of(facts=FACTS, preset='vsibench', per_type=None, **kw):
    return make_questions(facts, preset, per_type=per_type, **kw)

def of_type(questions, question_type): return [q for q in questions if q.question_type == question_type]
def answer(q): return q.options[LETTERS.index(q.ground_truth)][3:] if q.options else q.ground_truth
def named(facts, q): return [facts.objects[i] for i in q.provenance['objects']]

def test_every_type_and_no_other():
    assert {q.question_type for q in questions_of()} == set(QUESTION_TYPES) == set(PRESETS['vsibench'][0])
    assert {q.question_type for q in questions_of(preset='paper')} == set(PRESETS['paper'][0])
    assert len(PRESETS['paper'][0]) == 6

def test_the_benchmarks_wording():
    texts = {q.question_type: q.question for q in questions_of(per_type=1)}
    pattern = {
        'object_counting': r'How many chair\(s\) are in this room\?',
        'object_size_estimation': r'What is the length of the longest dimension \(length, width, or height\) of the '
                                  r'[a-z]+, measured in centimeters\?',
        'room_size_estimation': r'What is the size of this room \(in square meters\)\? \nIf multiple rooms are shown, '
                                r'estimate the size of the combined space\.',
        'object_abs_distance': r'Measuring from the closest point of each object, what is the distance between the '
                               r'[a-z]+ and the [a-z]+ \(in meters\)\?',
        'object_rel_distance': r'Measuring from the closest point of each object, which of these objects \([a-z]+, '
                               r'[a-z]+, [a-z]+, [a-z]+\) is the closest to the [a-z]+\?',
        'object_rel_direction_easy': r'If I am standing by the [a-z]+ and facing the ([a-z]+), is the [a-z]+ to the '
                                     r'left or the right of the \1\?',
        'object_rel_direction_medium': r'If I am standing by the [a-z]+ and facing the [a-z]+, is the [a-z]+ to my '
                                       r'left, right, or back\?\nAn object is to my back if I would have to turn at '
                                       r'least 135 degrees in order to face it\.',
        'object_rel_direction_hard': r'If I am standing by the [a-z]+ and facing the [a-z]+, is the [a-z]+ to my '
                                     r'front-left, front-right, back-left, or back-right\?\nThe directions refer to '
                                     r'the quadrants of a Cartesian plane \(if I am standing at the origin and facing '
                                     r'along the positive y-axis\)\.',
        'obj_appearance_order': r'What will be the first-time appearance order of the following categories in the '
                                r'video: [a-z]+, [a-z]+, [a-z]+, [a-z]+\?',
        'route_planning': r"You are a robot beginning at the [a-z]+ facing the [a-z]+\. You want to navigate to the "
                          r"[a-z]+\. You will perform the following actions \(Note: for each \[please fill in\], "
                          r"choose either 'turn back,' 'turn left,' or 'turn right\.'\): 1\. .* You have reached the "
                          r"final destination\."}
    for kind, p in pattern.items(): assert re.fullmatch(p, texts[kind]), texts[kind]

def test_the_papers_wording():
    texts = {q.question_type: q for q in questions_of(preset='paper', per_type=1)}
    pattern = {
        'object_counting': r'How many chair\(s\) in the room\?',
        'room_size_estimation': r'What is the size of this room \(in square meters\)\?',
        'object_abs_distance': r'What is the distance between the [a-z]+ and the [a-z]+ \(in meters\)\?',
        'object_rel_distance': r'Which of these objects \([a-z]+, [a-z]+, [a-z]+, [a-z]+\) is the closest to the '
                               r'[a-z]+\?',
        'object_rel_direction_easy': r'If I am standing by the [a-z]+ and facing the ([a-z]+) is the [a-z]+ to the '
                                     r'left or the right of the \1\?',
        'object_size_estimation': r'What is the length of the longest dimension \(length, width, or height\) of the '
                                  r'[a-z]+, measured in centimeters\?'}
    for kind, p in pattern.items():
        assert re.fullmatch(p, texts[kind].question) and texts[kind].options is None
    assert texts['object_rel_direction_easy'].ground_truth in ('left', 'right')
    assert texts['object_rel_distance'].ground_truth in FACTS.counts

def test_numbers_worked_by_hand():
    truth = {q.question: q.ground_truth for q in questions_of(preset='paper')}
    size = 'What is the length of the longest dimension (length, width, or height) of the {}, measured in centimeters?'
    assert truth[size.format('lamp')] == '25' and truth[size.format('bed')] == '100'
    assert size.format('chair') not in truth
    assert truth['How many chair(s) in the room?'] == '2'
    assert truth['What is the size of this room (in square meters)?'] == '20.0'
    between = {frozenset(re.findall('the (bed|tv|door|lamp|table|plant)', question)): gold
               for question, gold in truth.items() if 'distance' in question}
    assert len(between) == 15 and between[frozenset(('bed', 'tv'))] == f'{np.sqrt(4.4**2 + 2**2 + .3**2):.1f}'

def test_numbers_are_those_of_the_objects_named():
    for q in of_type(questions_of(), 'object_abs_distance'):
        a, b = named(FACTS, q)
        assert f'between the {a.category} and the {b.category} ' in q.question
        p = q.provenance
        assert q.ground_truth == f'{box_distance(a.box, b.box):.1f}'
        assert p['distance'] == 'closest' and p['closest_m'] < p['center_m']
        assert np.linalg.norm(np.diff(p['points'], axis=0)) == pytest.approx(p['closest_m'], abs=1e-3)
    for q in of_type(questions_of(preset='paper'), 'object_abs_distance'):
        a, b = named(FACTS, q)
        assert q.ground_truth == f"{q.provenance['center_m']:.1f}" == f'{np.linalg.norm(a.centroid - b.centroid):.1f}'

def test_wording_follows_the_distance():
    q = questions_of(preset='paper', distance='closest')
    assert of_type(q, 'object_abs_distance')[0].question.startswith('Measuring from the closest')
    assert of_type(q, 'object_rel_distance')[0].options is None
    q = questions_of(distance='center')
    assert of_type(q, 'object_abs_distance')[0].question.startswith('What is the distance')
    assert of_type(q, 'object_rel_distance')[0].options

@pytest.mark.parametrize('preset,metric', [('vsibench', 'closest_m'), ('paper', 'center_m')])
def test_nearest_of_four(preset, metric):
    questions = of_type(questions_of(preset=preset), 'object_rel_distance')
    assert len(questions) > 20
    for q in questions:
        words, target = re.search(r'objects \((.*)\) is the closest to the (.*)\?', q.question).groups()
        four = words.split(', ')
        target = next(o for o in FACTS.objects if o.category == target)
        def distance(o):
            if preset == 'vsibench': return box_distance(target.box, o.box)
            return np.linalg.norm(target.centroid - o.centroid)
        distances = {c: min(distance(o) for o in FACTS.objects if o.category == c) for c in four}
        ranked = sorted(distances.values())
        assert answer(q) == min(distances, key=distances.get) and ranked[0] >= .15 and np.diff(ranked).min() >= .15
        assert q.provenance[metric] == pytest.approx(ranked[0], abs=1e-3)
        if q.options: assert [option[3:] for option in q.options] == four

@pytest.mark.parametrize('difficulty', ['easy', 'medium', 'hard'])
def test_directions(difficulty):
    questions = of_type(questions_of(), f'object_rel_direction_{difficulty}')
    assert len(questions) > 20
    for q in questions:
        stand, facing, query = named(FACTS, q)
        assert q.question.startswith(f'If I am standing by the {stand.category} and facing the {facing.category}, is '
                                     f'the {query.category} to')
        angle_deg = direction_angle(stand.centroid, facing.centroid, query.centroid)
        assert answer(q) == direction_word(angle_deg, difficulty)
        assert q.provenance['angle_deg'] == pytest.approx(angle_deg, abs=1e-3)
        assert direction_clear(stand.box, facing.box, query.box, difficulty)

def moved(facts, matrix):
    "The same room under a linear map (2, 2) of the plane."
    full = np.eye(3)
    full[:2, :2] = matrix
    things = [Thing(t.object_id, t.category, Box(full @ t.box.centre, t.box.axes @ full.T, t.box.lengths))
              for t in facts.objects]
    return replace(facts, objects=things)

def test_a_turned_room_has_the_same_answers():
    a = 1.1
    turned = moved(FACTS, np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]))
    for preset in PRESETS:
        before, after = ([(q.question, q.ground_truth, q.options) for q in questions_of(facts, preset)]
                         for facts in (FACTS, turned))
        assert before == after

def swapped(text):
    "The text with left and right exchanged."
    other = dict(left='right', right='left', Left='Right', Right='Left')
    return re.sub('left|right|Left|Right', lambda found: other[found[0]], text)

def test_a_mirrored_room_swaps_left_and_right_and_nothing_else():
    mirrored = moved(FACTS, np.diag([-1, 1]))
    before, after = (sorted(questions_of(facts, 'paper'), key=lambda q: (q.question_type, q.question))
                     for facts in (FACTS, mirrored))
    for q, m in zip(before, after):
        turns = 'direction' in q.question_type
        assert q.question == m.question and m.ground_truth == (swapped(q.ground_truth) if turns else q.ground_truth)
    mine, theirs = ({q.question: answer(q) for q in of_type(questions_of(facts), 'object_rel_direction_hard')}
                    for facts in (FACTS, mirrored))
    both = mine.keys() & theirs.keys()
    assert len(both) > .9*len(mine) and all(theirs[k] == swapped(mine[k]) for k in both)

def walk(q, facts):
    "Follow a route's text with its answer: the names of the stops, or None if a turn is wrong."
    at = {t.category: t.centroid[:2] for t in facts.objects}
    start, faced = re.search(r'beginning at the ([a-z]+) facing the ([a-z]+)\.', q.question).groups()
    turns = iter(answer(q).split(', '))
    here, path = at[start], [start]
    heading = at[faced] - here
    for action in re.findall(r'\d\. (\[please fill in\]|Go [^.]*\.)', q.question):
        if action == '[please fill in]':
            quarters = TURNS.index(next(turns)) + 1
            heading = heading @ np.linalg.matrix_power(np.array([[0, 1], [-1, 0]]), quarters)
        else:
            name = re.search('until the ([a-z]+)', action)[1]
            goal = at[name] - here
            cos = heading @ goal/np.linalg.norm(heading)/np.linalg.norm(goal)
            if cos < np.cos(np.radians(30.01)): return None
            here, heading, path = at[name], goal, path + [name]
    assert next(turns, None) is None
    return path

# the note itself names the blank once
def blanks(q): return q.question.split('actions (Note', 1)[1].count('. [please fill in]')

def test_routes_lead_to_their_goal():
    routes = of_type(questions_of(), 'route_planning')
    assert len(routes) > 20 and {blanks(q) for q in routes} == {1, 2}
    for q in routes:
        path = walk(q, FACTS)
        goal = re.search('navigate to the ([a-z]+)', q.question)[1]
        assert path is not None and path[-1] == goal and path == [t.category for t in named(FACTS, q)]
        assert len(set(q.options)) == len(q.options) == (3 if blanks(q) == 1 else 4)
        assert answer(q).count(',') == blanks(q) - 1

def test_appearance_order():
    questions = of_type(questions_of(), 'obj_appearance_order')
    assert questions
    for q in questions:
        order = answer(q).split(', ')
        frames = [FIRST[c] for c in order]
        assert frames == sorted(frames) and len(set(frames)) == 4 and len(set(q.options)) == 4
        assert all(sorted(option[3:].split(', ')) == sorted(order) for option in q.options)
        assert not {'table', 'door'} <= set(order)      # both come into view in frame 3
    assert not of_type(questions_of(facts_of(ITEMS)), 'obj_appearance_order')

def test_hidden_objects_and_their_categories_are_left_out():
    questions = questions_of(facts_of(ITEMS, FIRST, hidden=[6, 4]))
    text = ' '.join(q.question + ' '.join(q.options or []) for q in questions)
    assert 'chair' not in text and ' tv' not in text and 'lamp' in text

def test_deterministic_and_by_type():
    assert questions_of(per_type=3, seed=5) == questions_of(per_type=3, seed=5)
    assert questions_of(per_type=3, seed=5) != questions_of(per_type=3, seed=6)
    one = questions_of(per_type=2, types=['object_abs_distance'])
    assert one == of_type(questions_of(per_type=2), 'object_abs_distance') and len(one) == 2
    assert [q.id for q in one] == ['scene0000_00-object_abs_distance-0', 'scene0000_00-object_abs_distance-1']
    many = questions_of(per_type={'object_abs_distance': 4, 'object_counting': 9})
    assert [q.question_type for q in many] == ['object_counting'] + ['object_abs_distance']*4
    assert questions_of(per_type=0) == []

def test_ids_and_texts_are_unique():
    questions = questions_of()
    assert len({q.id for q in questions}) == len(questions)
    others = [q for q in questions if q.question_type != 'obj_appearance_order']
    assert len({(q.question, q.question_type) for q in others}) == len(others)

def test_letters_are_spread():
    facts = [facts_of(ITEMS, FIRST, name=f's{i}') for i in range(60)]
    types = ['object_rel_distance', 'obj_appearance_order']
    letters = [q.ground_truth for f in facts for q in make_questions(f, 'vsibench', types=types, per_type=2)]
    share = np.bincount(['ABCD'.index(letter) for letter in letters], minlength=4)/len(letters)
    assert share.min() > .15 and share.max() < .35

def test_small_rooms_give_fewer_questions():
    def types(facts): return [q.question_type for q in questions_of(facts)]
    assert types(facts_of([('bed', 1, 1, 1.)])) == ['object_size_estimation', 'room_size_estimation']
    assert types(facts_of([])) == ['room_size_estimation']
    assert types(facts_of([], area=.01)) == []

def test_bad_arguments():
    with pytest.raises(ValueError, match="preset 'vsi', expected one of paper, vsibench"): make_questions(FACTS, 'vsi')
    with pytest.raises(ValueError, match="paper: question type 'route_planning'"):
        make_questions(FACTS, types=['route_planning'])
    with pytest.raises(ValueError, match="distance 'far', expected one of center, closest"):
        make_questions(FACTS, distance='far')
    with pytest.raises(ValueError, match='s1: meta info entry has no room_size'):
        facts_from_meta_info(dict(video_path='a.mp4', dataset='x', object_counts={}, object_bbox={}), 's1')

def test_rows_survive_a_file_and_score_full(tmp_path):
    questions = questions_of(per_type=2) + questions_of(facts_of(ITEMS, name='other'), 'paper', per_type=2)
    write_questions(questions, tmp_path/'q.parquet')
    back = read_questions(tmp_path/'q.parquet')
    assert back == questions and back[3].provenance == questions[3].provenance
    assert all(score_answer(q, q.ground_truth) == 1 for q in back)

# measuring
def scanned(spec, visibility=None, size=(5, 4)):
    x, y = (np.arange(0, side + .01, .05) for side in size)
    floor = np.stack(np.meshgrid(x, y, [0.]), -1).reshape(-1, 3)
    unit = np.array(list(itertools.product((-.5, 0, .5), repeat=3)))
    xyz = np.concatenate([floor] + [unit*np.array(l) + np.array(c) for _, c, l in spec])
    ids = np.repeat(np.arange(-1, len(spec)), [len(floor)] + [27]*len(spec))
    return Scene('scene0003_00', xyz, np.zeros(xyz.shape, np.uint8), np.zeros((0, 3), np.int32),
                 instances_of(ids, {i: s[0] for i, s in enumerate(spec)}), visibility=visibility)

PLANTED = [('bed', (1., 1., .3), (2.04, 1.4, .6)), ('tv', (4.2, .5, 1.), (1.1, .12, .7)),
           ('door', (2.6, 3.9, 1.), (.9, .1, 2.02)), ('plant', (4.3, 3.2, .5), (.4, .5, 1.03)),
           ('chair', (3., 2., .4), (.5, .5, .8)), ('chair', (2.2, 3., .4), (.5, .5, .8)),
           ('lamp', (.5, 3.4, .7), (.3, .3, 1.44))]

@pytest.mark.parametrize('seed', range(6))
def test_planted_answers_come_back_from_disk_however_the_scan_lies(seed, tmp_path):
    "A room rotated about z, moved, and stored in another frame gives the answers known beforehand."
    rng = np.random.default_rng(seed)
    scene = scanned(PLANTED)
    def turn(a, b=0., c=0.): return Rotation.from_euler('zyx', (a, b, c)).as_matrix()
    world, shift = turn(rng.uniform(0, 2*np.pi)), rng.uniform(-20, 20, 3)
    moved = replace(scene, vertices=scene.vertices @ world.T + shift*[1, 1, 0])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn(*rng.uniform(-3, 3, 3)), rng.uniform(-5, 5, 3)
    back = read_scene(write_scene(moved, tmp_path/scene.name, matrix))
    questions = make_questions(measure(back), 'paper', per_type=None)
    truth = {(q.question_type, q.question): q.ground_truth for q in questions}
    assert planted_numbers().items() <= truth.items()
    centres = {category: np.array(centre) for category, centre, _ in PLANTED}
    names = ('bed', 'tv', 'door', 'plant', 'lamp')
    far = {frozenset(re.findall('|'.join(names), q.question)): q.ground_truth
           for q in of_type(questions, 'object_abs_distance')}
    assert far == {frozenset((a, b)): f'{np.linalg.norm(centres[a] - centres[b]):.1f}'
                   for a, b in itertools.combinations(names, 2)}
    sides = of_type(questions, 'object_rel_direction_easy')
    assert len(sides) > 5
    for q in sides:
        stand, facing, query = (centres[c][:2] for c in re.findall('|'.join(names), q.question)[:3])
        ahead, across = facing - stand, query - stand
        assert q.ground_truth == ('left' if ahead[0]*across[1] - ahead[1]*across[0] > 0 else 'right')

def planted_numbers():
    "Counts and sizes of the planted room: (question type, question) -> answer."
    size = 'What is the length of the longest dimension (length, width, or height) of the {}, measured in centimeters?'
    return {('object_counting', 'How many chair(s) in the room?'): '2',
            ('room_size_estimation', 'What is the size of this room (in square meters)?'): '20.0',
            **{('object_size_estimation', size.format(category)): str(round(100*max(lengths)))
               for category, _, lengths in PLANTED if category != 'chair'}}

def test_measure_merges_drops_and_counts():
    spec = [('couch', (1, 1, .4), (2, 1, .8)), ('sofa', (4, 1, .4), (1, 1, .8)),
            ('Trash Can', (1, 3, .2), (.3, .3, .4)), ('recycling bin', (3, 3, .2), (.3, .3, .4)),
            ('wall', (2, 4, 1), (4, .1, 2)), ('otherprop', (2, 2, 1), (.1, .1, .1)),
            ('crumb', (2, 2, 0), (.001, .001, .001)), ('picture', (2, 4, 1.5), (.6, 0, .4))]
    f = measure(scanned(spec))
    assert f.counts == {'sofa': 2, 'trash bin': 2, 'picture': 1} and f.skipped == {'stuff': 2, 'smaller than 1 cm': 1}
    assert f.area_m2 == pytest.approx(20, abs=.3) and f.first_seen is None and f.hidden == frozenset()
    assert [f.objects[i].category for i in f.unique] == ['picture']
    assert measure(scanned(spec), synonyms={}).counts['couch'] == 1
    g = measure(scanned(spec), {'couch': 'sofa', 'sofa': 'sofa', 'trash can': 'bin'})
    assert g.counts == {'sofa': 2, 'bin': 1} and g.skipped['label not in the map'] == 5

def test_measure_reads_first_sight():
    spec = [('bed', (1, 1, .3), (2, 1, .6)), ('chair', (3, 1, .4), (.5, .5, .8)), ('chair', (3, 3, .4), (.5, .5, .8)),
            ('lamp', (1, 3, .4), (.2, .2, .8))]
    f = measure(scanned(spec, {0: np.array([0, 0, .1]), 1: np.array([0, .01, 0]), 2: np.array([1e-4, 0, .2]),
                               3: np.array([1e-4]*3)}))
    assert f.first_seen == {'bed': 2, 'chair': 1} and f.hidden == {3}
    assert measure(scanned(spec, {0: np.array([1.])}), min_share=1.).hidden == {1, 2, 3}

def test_stuff_and_categories():
    assert {'wall', 'floor', 'ceiling', 'window frame', 'door frame'} <= STUFF
    assert '' not in STUFF and all(s == s.strip() for s in STUFF)
    assert is_stuff('otherfurniture') and is_stuff('') and not is_stuff('window')
    assert category_of('DESK ') == 'table' and category_of('desk', {}) is None

# the benchmark's own annotations
DATA = Path(__file__).resolve().parents[2]/'shared'/'data'

@pytest.fixture(scope='module')
def bench():
    meta, rows = DATA/'vsibench_meta_info'/'scannet_meta_info_val.json', DATA/'vsibench_test.parquet'
    if not (meta.is_file() and rows.is_file()): pytest.skip("VSI-Bench's rows and meta info are not here")
    facts = read_meta_info(meta)
    return facts, [q for q in read_questions(rows) if q.dataset == 'scannet']

def ends(q): return re.search(r'between the (.*) and the (.*) \(in', q.question).groups()
def boxes(facts, category): return [o.box for o in facts.objects if o.category == category]

def test_benchmark_answers_are_found_again(bench):
    facts, rows = bench
    found = agreement(rows, facts)
    assert found.n.to_dict() == dict(object_size_estimation=357, room_size_estimation=88, object_counting=223,
                                     object_abs_distance=347, object_rel_distance=259, object_rel_direction=343)
    share = found['agree, %']
    exact = ['object_size_estimation', 'room_size_estimation', 'object_rel_distance', 'object_rel_direction']
    assert (share[exact] == 100).all() and share.object_counting > 99 and share.object_abs_distance >= 98
    assert found['MRA of centres'].object_abs_distance == pytest.approx(32.8, abs=.1)
    assert found['agree with centres, %'].object_rel_distance == pytest.approx(85.3, abs=.1)

def meta_entry(dataset, film, **objects):
    def box(x): return dict(centroid=[x, 0, .5], axesLengths=[1, 1, 1], normalizedAxes=[1, 0, 0, 0, 1, 0, 0, 0, 1])
    return dict(dataset=dataset, video_path=film, room_size=20.,
                object_counts={category: len(xs) for category, xs in objects.items()},
                object_bbox={category: list(map(box, xs)) for category, xs in objects.items()})

def test_a_scene_is_named_by_its_key_not_by_its_film(tmp_path):
    "ScanNet++ calls every film rgb_compressed.mp4, ARKitScenes appends _compressed to the name."
    path = tmp_path/'meta.json'
    pp, arkit = '/data/{}/iphone/rgb_compressed.mp4', '/videos/{}_compressed.mov'
    entries = {'7b64': meta_entry('scannetpp', pp.format('7b64'), bed=[0], tv=[3.05]),
               '3e8b': meta_entry('scannetpp', pp.format('3e8b'), bed=[0], tv=[4.05]),
               '41069025': meta_entry('arkitscenes', arkit.format('41069025'), bed=[0], tv=[5.05])}
    path.write_bytes(b'\xef\xbb\xbf' + json.dumps(entries).encode())
    facts = read_meta_info(path)
    assert [f.name for f in facts.values()] == list(facts) == list(entries)
    questions = [q for f in facts.values() for q in make_questions(f, 'vsibench', types=['object_abs_distance'])]
    assert [q.scene_name for q in questions] == list(entries)
    assert [q.ground_truth for q in questions] == ['2.1', '3.1', '4.1']
    assert agreement(questions, facts)['agree, %'].tolist() == [100]

def test_missing_annotations_are_counted_and_reported(tmp_path):
    entry = meta_entry('scannetpp', 'a.mp4', bed=[0], tv=[3], **{'coat hanger': [6]})
    facts = {'s': facts_from_meta_info(entry, 's')}
    questions = make_questions(facts['s'], 'vsibench', types=['object_abs_distance'], per_type=None)
    assert {'coat rack', 'bed', 'tv'} == {category for q in questions for category in ends(q)}
    strange = replace(questions[0], question=questions[0].question.replace(ends(questions[0])[0], 'dragon'))
    found = agreement(questions + [strange], facts).loc['object_abs_distance']
    assert (found.n, found['without a box'], found['agree, %']) == (4, 1, 100)
    for text, message in (('[]', 'no scenes'), ('{"a": 3}', 'a: meta info entry has no dataset'), ('{', 'not JSON')):
        (tmp_path/'m.json').write_text(text)
        with pytest.raises(ValueError, match=f'm.json: .*{message}'): read_meta_info(tmp_path/'m.json')

def test_scannetpp_answers_are_found_again(data):
    meta, rows = data/'vsibench_meta_info'/'scannetpp_meta_info_val.json', data/'vsibench_test.parquet'
    found = agreement([q for q in read_questions(rows) if q.dataset == 'scannetpp'], read_meta_info(meta))
    assert found.n.to_dict() == dict(object_counting=176, object_size_estimation=233, room_size_estimation=50,
                                     object_abs_distance=210, object_rel_distance=284, object_rel_direction=251)
    share = found['agree, %']
    exact = ['object_size_estimation', 'room_size_estimation', 'object_rel_distance', 'object_rel_direction']
    assert (share[exact] == 100).all() and share.min() > 97.6 and (found['without a box'] == 0).all()

@pytest.mark.parametrize('factor,unit', [(39.37, 'inches'), (100, 'centimetres')])
def test_a_thing_in_another_unit_is_refused_with_the_factor(factor, unit):
    "The room is so small that its size passes; the size of the bed reveals the unit."
    small = [('bed', (1., 1., .3), (2.04, 1.4, .6)), ('door', (1.5, 1.8, 1.), (.9, .1, 2.02))]
    scene = scanned(small, size=(2, 1.9))
    measure(scene)
    with pytest.raises(ValueError,
                       match=r'scene0003_00: object 0 \(bed\) is \d+(\.\d+)? m long, expected at most 30; is it in '
                             rf'{unit}\? times [0-9.]+ it would be 2.0 m high'):
        measure(replace(scene, vertices=scene.vertices*factor))

@pytest.mark.parametrize('difficulty,n,clear', [('easy', 63, 1.), ('medium', 147, .97), ('hard', 133, .90)])
def test_benchmark_directions(bench, difficulty, n, clear):
    facts, rows = bench
    right, sure = [], []
    for q in of_type(rows, f'object_rel_direction_{difficulty}'):
        names = re.search(r'by the (.*) and facing the (.*), is the (.*?) to (?:the|my)', q.question).groups()
        triple = [boxes(facts[q.scene_name], category)[0] for category in names]
        right.append(direction_word(direction_angle(*(b.centre for b in triple)), difficulty) == answer(q))
        sure.append(direction_clear(*triple, difficulty))
    assert len(right) == n and all(right) and np.mean(sure) >= clear

def same_question(q):
    "A key that ignores the order of names in a question."
    if q.question_type == 'object_abs_distance': return frozenset(ends(q))
    return re.sub(r'\((.*?)\) is', lambda found: str(sorted(found[1].split(', '))), q.question)

def test_benchmark_questions_are_found_again(bench):
    "All our candidates contain most released questions, with the same answers."
    facts, rows = bench
    least = dict(object_size_estimation=(1, 1), room_size_estimation=(1, 1), object_counting=(.97, .99),
                 object_abs_distance=(.95, .8), object_rel_direction_easy=(.95, 1), object_rel_direction_medium=(.9, 1),
                 object_rel_direction_hard=(.85, 1), object_rel_distance=(.7, 1))
    found, equal, n = Counter(), Counter(), Counter()
    for name, f in facts.items():
        questions = make_questions(f, 'vsibench', types=list(least), per_type=None)
        ours = {(q.question_type, same_question(q)): answer(q) for q in questions}
        for q in rows:
            if q.scene_name != name or q.question_type not in least: continue
            n[q.question_type] += 1
            mine = ours.get((q.question_type, same_question(q)))
            if mine is None: continue
            found[q.question_type] += 1
            equal[q.question_type] += mine == answer(q)
    share = {k: (round(found[k]/n[k], 3), round(equal[k]/max(found[k], 1), 3)) for k in least}
    print(share)
    for k, (least_found, least_equal) in least.items():
        assert share[k][0] >= least_found and share[k][1] >= least_equal, (k, share[k])

def test_generated_rooms(tmp_path):
    rooms, room_rendering = pytest.importorskip('vsgrpo.data.rooms'), pytest.importorskip('vsgrpo.data.room_rendering')
    for seed in range(2):
        room = rooms.make_room(seed, 'overview')
        scene = read_scene(room_rendering.write_room(room, tmp_path))
        start = time.perf_counter()
        facts = measure(scene)
        questions = make_questions(facts, 'vsibench') + make_questions(facts, 'paper')
        assert time.perf_counter() - start < 5
        assert abs(facts.area_m2/room.area_m2 - 1) < .06, (facts.area_m2, room.area_m2)
        sizes = {item.object_id: item.size for item in room.items}
        for thing in facts.objects: assert thing.box.lengths.max() <= np.linalg.norm(sizes[thing.object_id]) + .02
        assert len({q.question_type for q in questions}) >= 6

def test_surfaces_are_stuff_whatever_stands_before_them():
    surfaces = ("closet wall", "walls", "shower floor", "stair rail", "closet ceiling", "otherfurniture", "")
    assert all(map(is_stuff, surfaces))
    assert not any(map(is_stuff, (*VSIBENCH, "shower curtain", "bathroom stall", "floor lamp", "wall hanging")))

def test_vertices_on_a_line_name_their_scene():
    line = np.stack([np.linspace(0, 1, 50)]*3, 1)
    with pytest.raises(ValueError, match="scene0000_00: 50 points span no area"):
        measure(Scene("scene0000_00", line, np.zeros((50, 3), np.uint8), np.zeros((0, 3), np.int32), []))

def test_what_is_in_doubt_is_counted():
    "With the thresholds and what they leave out there are as many directions and distances as without thresholds."
    from vsgrpo.data.rooms import make_room
    from vsgrpo.teaching.lessons import facts_of_room
    facts, doubtful = facts_of_room(make_room(4, "overview")), Counter()
    distance, *directions = ["object_abs_distance", "object_rel_direction_easy", "object_rel_direction_hard"]
    def count(**kw):
        return Counter(q.question_type for q in make_questions(facts, "vsibench", [distance, *directions], None, **kw))
    strict, loose = count(doubtful=doubtful), count(clear=False)
    assert doubtful["object_rel_direction_easy"] > 0
    assert all(strict[k] + doubtful[k] == loose[k] for k in directions)
    assert strict[distance] + doubtful[distance] >= loose[distance]
