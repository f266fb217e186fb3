"Videos: what is sampled, how large, exact frames from a file, broken files, the cache."
import subprocess, sys, warnings, zlib
from fractions import Fraction

import numpy as np
import pytest

from vsgrpo.files import file_hash, save_tensor
from vsgrpo.engine.video import (BENCH_SAMPLING, SAMPLINGS, FrameCache, VideoSpec, decode, encode, film_fault,
                                 film_strip, frame_size, frame_times, resize, sample_indices, vision_tokens)

H, W = 64, 96
FULL = VideoSpec(frames=16, min_pixels=H*W, max_pixels=H*W, factor=32)   # 64×96 stays 64×96


def film(T, seed=0):
    "Smooth blobs that change from frame to frame, so that no two frames are alike."
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:H, :W]
    t = np.arange(T)[:, None, None, None]
    phase, speed = rng.uniform(0, 6, 3), rng.uniform(.2, .5, 3)
    return (127 + 120*np.sin(x[None, :, :, None]/9 + y[None, :, :, None]/7 + phase + speed*t)).round().astype(np.uint8)


def all_frames(path):
    import av
    with av.open(str(path)) as c: return np.stack([f.to_ndarray(format="rgb24") for f in c.decode(video=0)])


def write(path, frames, fmt=None, codec="libx264", gop=250, b=None, options=None, movflags=None, audio=0, pts=None,
          matrix=None):
    "A file that is not one of ours; `pts` when frames are shown, in 1/30 s; `audio` as many blocks of 64 ms."
    import av
    with av.open(str(path), "w", format=fmt, options={"movflags": movflags} if movflags else {}) as out:
        s = out.add_stream(codec, rate=30, options=options or {})
        s.width, s.height, s.pix_fmt, s.codec_context.gop_size = frames.shape[2], frames.shape[1], "yuv420p", gop
        if b is not None: s.codec_context.max_b_frames = b
        if matrix: s.set_display_matrix(matrix)
        a = out.add_stream("aac", rate=16000) if audio else None
        for i, f in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(f, format="rgb24")
            picture.pts, picture.time_base = i if pts is None else pts[i], Fraction(1, 30)
            out.mux(s.encode(picture))
        out.mux(s.encode(None))
        if a:
            for i in range(audio):
                sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                sound.sample_rate, sound.pts = 16000, i*1024
                out.mux(a.encode(sound))
            out.mux(a.encode(None))
    return path


# ---- the spec

@pytest.mark.parametrize("bad, word", [
    (dict(frames=0), "positive"), (dict(frames=15), "even"), (dict(frames=16.), "positive"),
    (dict(frames=True), "positive"), (dict(frames="16"), "positive"),
    (dict(min_pixels=-1), "positive"), (dict(max_pixels=100, min_pixels=50), "factor²"),
    (dict(min_pixels=10**6), "at most max_pixels"),
    (dict(factor=0), "positive"), (dict(sampling="first"), "uniform")])
def test_spec_refuses(bad, word):
    with pytest.raises(ValueError, match=word): VideoSpec(**bad)


def test_spec_digest_is_stable_and_tells_every_field_apart():
    assert VideoSpec().digest == "ec0ca913a1b2"
    others = [VideoSpec(frames=8), VideoSpec(min_pixels=28*28), VideoSpec(max_pixels=256*28*28), VideoSpec(factor=14),
              VideoSpec(sampling="uniform_floor")]
    assert len({s.digest for s in [VideoSpec(), *others]}) == 6
    assert VideoSpec(**VideoSpec().as_dict()) == VideoSpec()


@pytest.mark.parametrize("total, n, want", [(1, 4, [0]*4), (2, 4, [0, 0, 1, 1]), (4, 4, [0, 1, 2, 3]), (9, 2, [0, 8]),
                                            (100, 1, [0]), (6, 4, [0, 2, 3, 5])])
def test_sample_indices(total, n, want): assert sample_indices(total, n).tolist() == want


def test_sample_indices_as_qwen_vl_utils_does():
    import torch
    for total in (16, 17, 31, 100, 999, 4321):
        for n in (2, 8, 16, 32):
            if n > total: continue
            theirs = torch.linspace(0, total-1, n).round().long()
            assert sample_indices(total, n).tolist() == theirs.tolist(), (total, n)


def test_sample_indices_as_the_benchmarks_pipeline_does():
    for total in (1, 5, 16, 17, 31, 100, 999, 4321):
        for n in (2, 8, 16, 32):
            theirs = np.linspace(0, total - 1, n, dtype=int)
            assert sample_indices(total, n, BENCH_SAMPLING).tolist() == theirs.tolist(), (total, n)


@pytest.mark.parametrize("size, spec, want, tokens", [
    ((480, 640), VideoSpec(max_pixels=768*28*28), (476, 644), 3128),
    ((480, 640), VideoSpec(), (252, 364), 936),
    ((1920, 1440), VideoSpec(max_pixels=768*28*28), (896, 672), 8*32*24),
    ((56, 56), VideoSpec(frames=4, min_pixels=28*28, max_pixels=56*56), (56, 56), 8),
    ((112, 112), VideoSpec(frames=8, min_pixels=56*56, max_pixels=56*56, factor=14), (56, 56), 64)])
def test_sizes_and_tokens(size, spec, want, tokens):
    assert frame_size(*size, spec) == want
    assert vision_tokens(*size, spec) == tokens


def test_resize_is_torchvisions():
    from vsgrpo.engine.video import fix_torchvision
    fix_torchvision()
    import torch
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2.functional import resize as theirs
    x = np.random.default_rng(0).integers(0, 256, (3, 48, 80, 3)).astype(np.uint8)
    for h, w in ((28, 56), (96, 160), (48, 28)):
        want = theirs(torch.from_numpy(x).permute(0, 3, 1, 2), [h, w], interpolation=InterpolationMode.BICUBIC,
                      antialias=True).permute(0, 2, 3, 1).numpy()
        assert np.array_equal(resize(x, h, w), want)
    assert resize(x, 48, 80) is x


def test_processor_leaves_our_frames_alone(tmp_path):
    "Raw frames through Qwen2-VL's image processor are the same patches as our resized ones."
    from vsgrpo.engine.video import fix_torchvision
    fix_torchvision()
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
    spec = VideoSpec(frames=2, min_pixels=28*28, max_pixels=8*28*28)
    p = encode(film(2), tmp_path/"a.mp4")
    raw, ours = all_frames(p), decode(p, spec)
    processor = Qwen2VLImageProcessor(size={"shortest_edge": spec.min_pixels, "longest_edge": spec.max_pixels})
    a, b = (processor(images=list(x), return_tensors="np") for x in (raw, ours))
    assert raw.shape != ours.shape and np.array_equal(a["image_grid_thw"], b["image_grid_thw"])
    assert np.array_equal(a["pixel_values"], b["pixel_values"])


# ---- files

@pytest.mark.parametrize("T", [1, 2, 15, 16, 23, 24, 25, 49, 130])
def test_decode_takes_exactly_the_sampled_frames(tmp_path, T):
    p = encode(film(T), tmp_path/"a.mp4")
    assert len(all_frames(p)) == T
    assert np.array_equal(decode(p, FULL), all_frames(p)[sample_indices(T, 16)])


@pytest.mark.parametrize("kw", [dict(gop=250), dict(gop=7, options={"x264-params": "bframes=3:open-gop=1"}),
                                dict(audio=8), dict(movflags="faststart"),
                                dict(options={"tune": "zerolatency"})], ids=str)
def test_decode_of_files_that_others_wrote(tmp_path, kw):
    p = write(tmp_path/"a.mp4", film(70), **kw)
    assert np.array_equal(decode(p, FULL), all_frames(p)[sample_indices(70, 16)])


@pytest.mark.parametrize("name", ["a.mkv", "a.mov"])
def test_decode_of_other_containers(tmp_path, name):
    p = write(tmp_path/name, film(40))
    assert np.array_equal(decode(p, FULL), all_frames(p)[sample_indices(40, 16)])


# ---- files that others wrote: `decode` equals decoding in order

def kept_order(path, even=range(2, 65, 6)):
    "How many frames of a film `decode` gives other than decoding in order does, for several numbers of frames."
    frames = all_frames(path)
    assert len({f.tobytes() for f in frames}) == len(frames)
    specs = [VideoSpec(n, H*W, H*W, 32, sampling) for n in even for sampling in SAMPLINGS]
    wanted = [frames[sample_indices(len(frames), s.frames, s.sampling)] for s in specs]
    return sum(not np.array_equal(decode(path, s), x) for s, x in zip(specs, wanted))


X265 = {"x265-params": "log-level=error:pools=1:keyint=24:min-keyint=24"}

@pytest.mark.parametrize("name, kw", [
    ("a.mp4", dict(codec="mpeg4", gop=24, b=2)), ("a.mp4", dict(codec="libx265", gop=24, b=4, options=X265)),
    ("a.mp4", dict(gop=24, b=3, options={"x264-params": "open-gop=1"})),
    ("a.mp4", dict(gop=24, b=3, movflags="frag_keyframe+empty_moov")),
    ("a.mp4", dict(gop=12, options={"x264-params": "intra-refresh=1"})),
    ("a.mkv", dict(gop=24, b=3, options={"x264-params": "open-gop=1"})),
    ("a.ts", dict(gop=24, b=3)), ("a.avi", dict(gop=24, b=3)), ("a.flv", dict(gop=24, b=3)),
    ("a.mpg", dict(codec="mpeg2video", gop=12, b=2)),
    ("a.h264", dict(gop=24, b=3)),
    ("a.webm", dict(codec="libvpx-vp9", gop=24, options={"deadline": "realtime", "cpu-used": "8"}))], ids=str)
def test_decode_equals_decoding_in_order(tmp_path, name, kw):
    p = write(tmp_path/name, film(130), fmt="mpeg" if name.endswith("mpg") else None, **kw)
    assert kept_order(p) == 0


@pytest.mark.parametrize("name", ["b.mkv", "b.mp4"])
def test_a_film_whose_time_stamps_mislead_is_decoded_in_order(tmp_path, name):
    "B frames written as if they were shown in the order of decoding."
    import av
    p = write(tmp_path/"a.mkv", film(130), gop=24, b=3)
    with av.open(str(p)) as c, av.open(str(tmp_path/name), "w") as out:
        s = out.add_stream_from_template(c.streams.video[0])
        for i, q in enumerate(q for q in c.demux(video=0) if q.size):
            q.pts = q.dts = i*33
            q.stream = s
            out.mux(q)
    assert kept_order(tmp_path/name) == 0


def test_ordinary_films_are_not_decoded_whole(tmp_path, monkeypatch):
    # x264 uses no B frame, though its header allows them
    noise = np.random.default_rng(0).integers(0, 256, (60, H, W, 3), dtype=np.uint8)
    films = [encode(film(130), tmp_path/"a.mp4"), encode(noise, tmp_path/"b.mp4"),
             write(tmp_path/"c.mkv", film(130), gop=24, b=3)]
    monkeypatch.setattr("vsgrpo.engine.video._decode_in_order", lambda *a: pytest.fail("decoded in order"))
    for p in films: assert decode(p, FULL).shape == (16, H, W, 3)


# ---- orientation, streams, length

EIGHT = {
    (1, 0, 0, 1): lambda x: x, (-1, 0, 0, -1): lambda x: np.rot90(x, 2),
    (0, 1, -1, 0): lambda x: np.rot90(x, -1), (0, -1, 1, 0): np.rot90,
    (-1, 0, 0, 1): np.fliplr, (1, 0, 0, -1): np.flipud,
    (0, 1, 1, 0): lambda x: x.transpose(1, 0, 2), (0, -1, -1, 0): lambda x: np.rot90(x, 2).transpose(1, 0, 2)}

@pytest.mark.parametrize("turn", EIGHT, ids=str)
def test_all_eight_orientations(tmp_path, turn):
    a, b, c, d = (v << 16 for v in turn)
    p = write(tmp_path/"a.mp4", film(4), matrix=[a, b, 0, c, d, 0, 0, 0, 1 << 30])
    seen = decode(p, VideoSpec(4, H*W, H*W, 32))
    for got, stored in zip(seen, all_frames(p), strict=True): assert np.array_equal(got, EIGHT[turn](stored))


def test_a_photograph_with_exif_is_turned(tmp_path):
    "PyAV has no name for that kind of side data and refuses to list any."
    from PIL import Image
    picture, exif = Image.fromarray(film(1)[0]), Image.Exif()
    picture.save(tmp_path/"a.jpg")
    exif[0x0112] = 2           # mirrored
    picture.save(tmp_path/"b.jpg", exif=exif)
    a, b = (decode(tmp_path/name, VideoSpec(2, H*W, H*W, 32)) for name in ("a.jpg", "b.jpg"))
    assert np.array_equal(b, a[:, :, ::-1]) and not np.array_equal(a, b)


def test_of_two_films_the_best_and_never_a_cover(tmp_path):
    import av
    both = tmp_path/"two.mkv"
    with av.open(str(both), "w") as out:
        streams = [out.add_stream("libx264", rate=30) for _ in range(2)]
        for s, side in zip(streams, (64, 128)): s.width, s.height, s.pix_fmt = side, side, "yuv420p"
        streams[1].disposition = av.stream.Disposition.default
        for i in range(60):
            for s in streams:
                grey = np.full((s.height, s.width, 3), 4*i, np.uint8)
                out.mux(s.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        for s in streams: out.mux(s.encode(None))
    with av.open(str(both)) as c: assert c.streams.best("video").width == 128
    assert decode(both, VideoSpec(2, 32*32, 10**5, 32)).shape == (2, 128, 128, 3)


def with_cover(path, frames):
    "A film, or none, behind a cover picture."
    import av
    with av.open(str(path), "w") as out:
        cover = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 256, 256, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        if len(frames):
            s = out.add_stream("libx264", rate=30)
            s.width, s.height, s.pix_fmt = W, H, "yuv420p"
        else: s = out.add_stream("aac", rate=16000)
        picture = av.VideoFrame.from_ndarray(np.full((256, 256, 3), 90, np.uint8), format="rgb24")
        out.mux(cover.encode(picture.reformat(format="yuvj420p")))
        out.mux(cover.encode(None))
        for f in frames: out.mux(s.encode(av.VideoFrame.from_ndarray(f, format="rgb24")))
        if not len(frames):
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            sound.sample_rate = 16000
            out.mux(s.encode(sound))
        out.mux(s.encode(None))
    return path


def test_a_cover_picture_is_no_film(tmp_path):
    assert decode(with_cover(tmp_path/"a.mp4", film(30)), FULL).shape == (16, H, W, 3)
    with pytest.raises(ValueError, match="b.mp4: not a readable video: only a cover picture in it"):
        decode(with_cover(tmp_path/"b.mp4", []), FULL)


@pytest.mark.parametrize("name, codec",
                         [("w.mkv", "libx264"), ("w.webm", "libvpx-vp9"), ("w.flv", "libx264"), ("w.avi", "libx264")])
def test_half_a_film_is_refused(tmp_path, name, codec):
    "Sound that goes on after the picture, or uneven times, are no reason to."
    whole = write(tmp_path/name, film(150), codec=codec, gop=24)
    assert decode(whole, FULL).shape == (16, H, W, 3)
    (tmp_path/f"cut-{name}").write_bytes(whole.read_bytes()[:whole.stat().st_size//2])
    with pytest.raises(ValueError,
                       match=rf"cut-{name}: not a readable video: its header says 5\.\d s, its last frame ends at "
                             r"[23]\.\d s"):
        decode(tmp_path/f"cut-{name}", FULL)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.flv", "a.avi"])
def test_whole_films_of_uneven_times_or_longer_sound(tmp_path, name):
    pts = np.random.default_rng(0).integers(1, 90, 60).cumsum().tolist()
    assert kept_order(write(tmp_path/name, film(60), pts=pts), (2, 16, 40)) == 0
    # sound of 6.4 s, film of 2
    if name != "a.avi": assert kept_order(write(tmp_path/name, film(60), audio=100), (2, 16)) == 0


# ---- bounds

def test_too_large_a_picture_is_refused(tmp_path):
    from PIL import Image
    Image.new("1", (8200, 8200)).save(tmp_path/"a.png")
    with pytest.raises(ValueError,
                       match=r"a\.png: not a readable video: its frames are 8200×8200, wanted at most 67108864 pixels"):
        decode(tmp_path/"a.png", FULL)
    head = bytearray((tmp_path/"a.png").read_bytes())
    head[16:24] = (30000).to_bytes(4, "big")*2
    head[29:33] = zlib.crc32(head[12:29]).to_bytes(4, "big")
    (tmp_path/"b.png").write_bytes(head)
    with pytest.raises(ValueError,
                       match=r"b\.png: not a readable video: the size of its frames cannot be read, wanted at most "
                             r"67108864 pixels"):
        decode(tmp_path/"b.png", FULL)


def test_too_many_frames_are_refused(tmp_path, monkeypatch):
    p = encode(film(30), tmp_path/"a.mp4")
    monkeypatch.setattr("vsgrpo.engine.video.MOST_PACKETS", 29)
    with pytest.raises(ValueError, match=r"a\.mp4: not a readable video: it has more than 29 frames"): decode(p, FULL)


def test_the_list_of_packets_is_small(tmp_path):
    "A film of 46 MB: the content of its packets is not kept."
    p = write(tmp_path/"a.mkv", np.zeros((400, 240, 320, 3), np.uint8), codec="rawvideo")
    assert p.stat().st_size > 40e6
    code = f"""import resource
from vsgrpo.engine.video import _open_video, _Packets
with _open_video({str(p)!r}) as (c, stream):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    packets = _Packets(c, stream)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"""
    grown = int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    assert grown < 10_000      # KiB


def test_frame_times_of_films_without_time_stamps(tmp_path):
    p = write(tmp_path/"a.h264", film(40))
    for sampling in SAMPLINGS:      # FFmpeg's rate where none is stored
        assert np.allclose(frame_times(p, 6, sampling)[:, 0], sample_indices(40, 6, sampling)/25)


def test_encode_is_faithful_and_repeatable(tmp_path):
    x = film(50)
    a, b = encode(x, tmp_path/"a.mp4"), encode(x, tmp_path/"b.mp4")
    assert file_hash(a) == file_hash(b)
    assert np.abs(all_frames(a).astype(int) - x).mean() < 6        # chroma is halved in yuv420p
    assert sorted(q.name for q in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]
    import av
    with av.open(str(a)) as c:
        packets = sorted((q for q in c.demux(video=0) if q.size), key=lambda q: q.pts)
        keys = [i for i, q in enumerate(packets) if q.is_keyframe]
        assert c.streams.video[0].average_rate == 24 and keys[0] == 0 and max(np.diff([*keys, 50])) <= 24


@pytest.mark.parametrize("bad, word", [
    (np.zeros((2, 4, 4, 3)), "float64"), (np.zeros((2, 4, 4), np.uint8), r"\(4, 4\)"),
    (np.zeros((0, 4, 4, 3), np.uint8), "no frame"),
    (np.zeros((2, 4, 5, 3), np.uint8), "5×4"),
    (np.zeros((2, 4, 4, 4), np.uint8), r"\(4, 4, 4\), expected uint8 \(H,W,3\)")])
def test_encode_refuses(tmp_path, bad, word):
    with pytest.raises(ValueError, match=word): encode(bad, tmp_path/"a.mp4")
    assert not list(tmp_path.iterdir())


def test_missing_empty_and_foreign_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no.mp4"): decode(tmp_path/"no.mp4", FULL)
    with pytest.raises(FileNotFoundError, match="no such video"): decode(tmp_path, FULL)
    for name, content in (("empty.mp4", b""), ("text.mp4", b"not a video\n"*50)):
        (tmp_path/name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}: not a readable video"): decode(tmp_path/name, FULL)


def test_sound_only_is_refused(tmp_path):
    import av
    with av.open(str(tmp_path/"s.mp4"), "w") as out:
        a = out.add_stream("aac", rate=16000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 16000
        out.mux(a.encode(sound))
        out.mux(a.encode(None))
    with pytest.raises(ValueError, match="s.mp4.*no video stream"): decode(tmp_path/"s.mp4", FULL)


def test_cut_files_are_refused(tmp_path):
    "With its index in front, a cut file opens without complaint: the missing frames must not go unnoticed."
    for fast in (False, True):
        whole = write(tmp_path/"w.mp4", film(60), movflags="faststart" if fast else None).read_bytes()
        for share in (.3, .6, .9):
            (tmp_path/"cut.mp4").write_bytes(whole[:int(len(whole)*share)])
            with pytest.raises(ValueError, match="cut.mp4: not a readable video"): decode(tmp_path/"cut.mp4", FULL)


def test_damaged_bytes_never_give_anything_but_frames_or_a_clear_error(tmp_path):
    whole, rng, refused = write(tmp_path/"w.mp4", film(60)).read_bytes(), np.random.default_rng(0), 0
    for i in range(12):
        data = bytearray(whole)
        for at in rng.integers(100, len(data), 1 + 20*i): data[at] ^= int(rng.integers(1, 256))
        (tmp_path/"d.mp4").write_bytes(data)
        try: assert decode(tmp_path/"d.mp4", FULL).shape == (16, H, W, 3)
        except ValueError as e:
            refused += 1
            assert "d.mp4: not a readable video" in str(e)
    assert refused > 0


# ---- the cache

def test_cache(tmp_path):
    p, spec = encode(film(30), tmp_path/"a.mp4"), VideoSpec(frames=4, min_pixels=28*28, max_pixels=6*28*28)
    cache = FrameCache(tmp_path/"c")
    first = cache(p, spec)
    assert np.array_equal(first, decode(p, spec)) and np.array_equal(FrameCache(tmp_path/"c")(p, spec), first)
    (tmp_path/"b.mp4").write_bytes(p.read_bytes())
    assert cache.entry(tmp_path/"b.mp4", spec) == cache.entry(p, spec)              # named by content
    cache(p, VideoSpec(frames=2, min_pixels=28*28, max_pixels=6*28*28))
    assert len(list((tmp_path/"c").glob("*.safetensors"))) == 2 and not list((tmp_path/"c").glob("*.tmp"))
    encode(film(30, seed=1), p)                                                     # another film under the same name
    assert not np.array_equal(cache(p, spec), first)
    with pytest.raises(FileNotFoundError, match="gone.mp4"): cache(tmp_path/"gone.mp4", spec)


def flipped(b, k): return b[:k] + bytes([b[k] ^ 64]) + b[k+1:]

DAMAGE = {
    "torn head": lambda b: b[:50], "empty": lambda b: b"", "torn end": lambda b: b[:-1], "noise": lambda b: b"x"*len(b),
    "longer": lambda b: b + b"x",
    "one bit of a picture": lambda b: flipped(b, len(b) - 5000), "one bit of the label": lambda b: flipped(b, 40),
    "a zeroed block": lambda b: b[:-4096] + bytes(4096),
    "a head of 2^40 bytes": lambda b: (2**40).to_bytes(8, "little") + b[8:], "pickled": lambda b: b"\x80\x04K\x01.",
}

def cached(tmp_path):
    "A film's frames in a cache: the cache, the film, its spec, the frames and the entry."
    p, spec = encode(film(30), tmp_path/"a.mp4"), VideoSpec(frames=4, min_pixels=28*28, max_pixels=6*28*28)
    cache = FrameCache(tmp_path/"c")
    return cache, p, spec, cache(p, spec), cache.entry(p, spec)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_broken_entries_are_made_anew(tmp_path, damage):
    cache, p, spec, want, entry = cached(tmp_path)
    entry.write_bytes(damage(entry.read_bytes()))
    with pytest.warns(UserWarning, match="broken cache entry") as caught: assert np.array_equal(cache(p, spec), want)
    assert cache.broken == len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(cache(p, spec), want)


@pytest.mark.parametrize("change",
                         [lambda x: x[::-1], lambda x: x[:, :, ::-1], lambda x: x[[0, 0, 2, 3]],
                          lambda x: x[:, ::2, ::2], lambda x: x.reshape(4, -1, x.shape[1], 3)],
                         ids=["reversed", "mirrored", "a frame twice", "half the size", "sides exchanged"])
def test_other_frames_in_an_entry_are_noticed(tmp_path, change):
    "Entries with the film and the spec of the right entry, and its checksum."
    import safetensors.numpy
    from safetensors import safe_open
    cache, p, spec, want, entry = cached(tmp_path)
    with safe_open(entry, "np") as f: label = f.metadata()
    safetensors.numpy.save_file({"x": np.ascontiguousarray(change(want))}, entry, label)
    with pytest.warns(UserWarning, match="broken cache entry"): assert np.array_equal(cache(p, spec), want)


def test_an_entry_of_another_film_or_spec_is_noticed(tmp_path):
    cache, p, spec, want, entry = cached(tmp_path)
    for about in (dict(film="another", spec=spec.digest), dict(film=cache.hashes(p), spec="another")):
        save_tensor(entry, want[::-1].copy(), **about)
        with pytest.warns(UserWarning, match="broken cache entry"): assert np.array_equal(cache(p, spec), want)


@pytest.mark.parametrize("kind, shows", [("grey", False), ("one pixel", False), ("red", False), ("fade", False),
                                         ("noise of one level", False), ("a small thing", True)])
def test_what_shows_nothing(kind, shows):
    frames = np.full((4, 56, 56, 3), 127, np.uint8)
    if kind == "one pixel": frames[1, 2, 3, 0] = 129
    if kind == "red": frames[:] = (255, 0, 0)
    if kind == "fade": frames[:] = np.array([0, 60, 120, 180])[:, None, None, None]
    if kind == "noise of one level": frames += np.random.default_rng(0).integers(0, 2, frames.shape, dtype=np.uint8)
    if kind == "a small thing": frames[2, 10:16, 20:26] = 200
    assert (film_fault(frames) == "") == shows


def test_no_cache_folder_decodes_each_time(tmp_path):
    p = encode(film(4), tmp_path/"a.mp4")
    assert np.array_equal(FrameCache(None)(p, FULL), decode(p, FULL))
    assert [q.name for q in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("T, n, pictures", [(20, 8, 8), (3, 8, 3), (1, 8, 1)])
def test_film_strip(T, n, pictures): assert len(film_strip(film(T), n).axes) == pictures


def test_import_is_light_and_the_torchvision_fix_works_twice():
    code = ("import sys, vsgrpo.engine.video as v; heavy = {'torch', 'transformers', 'matplotlib', 'av'} & "
            "set(sys.modules); assert not heavy, heavy; "
            "v.fix_torchvision(); v.fix_torchvision(); from transformers import Qwen2VLVideoProcessor; "
            "Qwen2VLVideoProcessor()")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_same_frames_give_the_same_file(tmp_path):
    "Twenty times: x264's macroblock tree gave other bytes about every fifth time."
    frames = np.random.default_rng(0).integers(0, 255, (8, 14, 14, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    files = {encode(frames, tmp_path/f"{i}.mp4", fps=8).read_bytes() for i in range(20)}
    assert len(files) == 1
