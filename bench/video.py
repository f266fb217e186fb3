"""Does `decode` give the frames that decoding in order gives, whatever PyAV can write?

    .venv/bin/python bench/video.py
    .venv/bin/python bench/video.py --only mkv         # those whose name holds a word

Writes a film of every container, codec and kind of GOP (and every orientation, in containers that keep one). Compares
`decode`, for every even number of frames from 2 to 64, with the same film decoded from its start, pixel by pixel. What
cannot be written is listed with the reason. The last line is one JSON object.
"""
import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

os.environ["SVT_LOG"] = "1"      # the AV1 encoder writes of errors alone
import av
import numpy as np

from vsgrpo.doctor import repo_root
from vsgrpo.evaluation.records import git_commit
from vsgrpo.engine.video import VideoSpec, decode, sample_indices

FRAMES, FPS = 77, 25

CONTAINERS = { # name → FFmpeg's name, options of the muxer
    "mp4": ("mp4", {}),
    "mp4 fragments": ("mp4", {"movflags": "frag_keyframe+empty_moov"}),
    "mp4 fragments of 10 frames": ("mp4", {"movflags": "empty_moov", "frag_duration": "400000"}),
    "mp4 index in front": ("mp4", {"movflags": "faststart"}),
    "mkv": ("matroska", {}),
    "mkv clusters of 200 ms": ("matroska", {"cluster_time_limit": "200"}),
    "mpeg-ps": ("mpeg", {}), "y4m": ("yuv4mpegpipe", {}), "raw h264": ("h264", {}), "raw hevc": ("hevc", {}),
    "raw mpeg4": ("m4v", {}), "raw mpeg1": ("mpeg1video", {}), "raw mpeg2": ("mpeg2video", {}),
    "raw mjpeg": ("mjpeg", {}), "raw av1": ("obu", {})}
for name in "mov 3gp f4v ismv webm avi flv mpegts vob ogg nut asf wtv mxf ivf gif apng swf rm".split():
    CONTAINERS[name] = name, {}

# a key frame every so many frames, B frames
GOPS = {"closed": (12, 0), "B": (12, 2), "open": (12, 3), "intra": (1, 0), "long": (1000, 3)}
CLOSED = {"flags": "+cgop", "sc_threshold": "1000000000"}      # MPEG-1 and -2, open otherwise
X265 = "log-level=error:pools=1:frame-threads=1"
FAST = {"deadline": "realtime", "cpu-used": "8"}
AHEAD = {"deadline": "good", "cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "16"}
PLAIN = {"closed": {}, "long": {}}
INTER = { # codec → GOP → options
    "libx264": dict.fromkeys(GOPS, {}) | {
        "B": {"x264-params": "b-pyramid=normal"}, "open": {"x264-params": "open-gop=1"},
        "refresh": {"x264-params": "intra-refresh=1"}},
    "libx265": {
        "closed": {"x265-params": f"{X265}:bframes=0:open-gop=0"}, "B": {"x265-params": f"{X265}:bframes=4:open-gop=0"},
        "open": {"x265-params": f"{X265}:bframes=4:open-gop=1"}, "intra": {"x265-params": X265},
        "long": {"x265-params": f"{X265}:bframes=4"}},
    "mpeg4": dict.fromkeys(GOPS, {}),
    "mpeg2video": dict.fromkeys(GOPS, {}) | {"closed": CLOSED},
    "mpeg1video": dict.fromkeys(GOPS, {}) | {"closed": CLOSED},
    "libvpx": {"closed": FAST, "intra": FAST, "long": AHEAD | {"arnr-maxframes": "5"}},
    "libvpx-vp9": {"closed": FAST, "intra": FAST, "long": AHEAD},
    "libsvtav1": {"closed": {"preset": "12"}, "long": {"preset": "12"}},
    "msmpeg4v2": PLAIN, "msmpeg4": PLAIN, "wmv1": PLAIN, "wmv2": PLAIN, "flv": PLAIN,
    "h263p": PLAIN, "h263": PLAIN, "rv20": PLAIN, "snow": {"closed": {}}, "svq1": {"closed": {}},
    "ffv1": {"closed": {}, "intra": {}}, "gif": {"closed": {}},
    "apng": {"closed": {}}}
INTRA = "mjpeg prores_ks dnxhd png huffyuv utvideo magicyuv qtrle rawvideo jpeg2000 vc2 cinepak targa".split()

FORMATS = {"prores_ks": "yuv422p10le", "dnxhd": "yuv422p", "png": "rgb24", "huffyuv": "yuv422p", "magicyuv": "gbrp",
           "qtrle": "rgb24", "mjpeg": "yuvj420p", "svq1": "yuv410p", "gif": "rgb8",
           "apng": "rgb24", "targa": "bgr24", "cinepak": "rgb24"}
SIZES = {"h263": (128, 96), "h263p": (128, 96), "rv20": (128, 96), "dnxhd": (1280, 720)}

QUARTERS = { # orientation → a, b, c, d of the display matrix; the picture as numpy turns it
    "as it is": ((1, 0, 0, 1), lambda x: x),
    "a quarter turn clockwise": ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),
    "half a turn": ((-1, 0, 0, -1), lambda x: np.rot90(x, 2)),
    "a quarter turn back": ((0, -1, 1, 0), np.rot90),
    "left for right": ((-1, 0, 0, 1), np.fliplr),
    "upside down": ((1, 0, 0, -1), np.flipud),
    "transposed": ((0, 1, 1, 0), lambda x: x.transpose(1, 0, 2)),
    "transposed the other way": ((0, -1, -1, 0), lambda x: np.rot90(x, 2).transpose(1, 0, 2))}
TURNED = {"mp4": ("libx264", "libx265", "mpeg4"), "mov": ("libx264", "prores_ks"), "mkv": ("libx264", "mpeg4"),
          "webm": ("libvpx-vp9",)}
TURNED |= dict.fromkeys(("mp4 fragments", "3gp", "ismv", "avi", "mpegts", "nut"), ("libx264",))


def picture(i, width, height):
    "Frame i: a gradient of grey, a bar that moves, and the number in binary squares."
    grey = np.linspace(40, 180, width).astype(np.uint8)[None, :, None]
    x = np.broadcast_to(grey, (height, width, 3)).copy()
    x[height//2:, (3*i) % (width - 8):][:, :8] = (240, 200, 60)
    for bit in range(7): x[4:12, 4 + 8*bit:12 + 8*bit] = 235*(i >> bit & 1)
    return x


def write(path, container, codec, gop, turn="as it is"):
    "Write a film of FRAMES pictures."
    form, options = CONTAINERS[container]
    width, height = SIZES.get(codec, (64, 64))
    with av.open(str(path), "w", format=form, options=options) as out:
        s = out.add_stream(codec, rate=FPS, options=INTER.get(codec, {}).get(gop, {}))
        s.width, s.height, s.pix_fmt = width, height, FORMATS.get(codec, "yuv420p")
        if codec == "dnxhd": s.bit_rate = 90_000_000
        if codec in INTER: s.codec_context.gop_size, s.codec_context.max_b_frames = GOPS.get(gop, GOPS["closed"])
        s.codec_context.thread_count = 1
        if turn != "as it is": s.set_display_matrix(matrix(turn, width, height))
        for i in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(picture(i, width, height), format="rgb24")
            out.mux(s.encode(frame.reformat(format=s.pix_fmt)))
        out.mux(s.encode(None))
    # the AV1 encoder takes real-time priority where it may
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def matrix(turn, width, height):
    "The display matrix of an orientation: 16 bits behind the point, in the last column 30."
    a, b, c, d = QUARTERS[turn][0]
    x, y = width*((a < 0) + (c < 0)), height*((b < 0) + (d < 0))
    return [a << 16, b << 16, 0, c << 16, d << 16, 0, x << 16, y << 16, 1 << 30]


def in_order(path):
    "All frames as the film holds them, and the display matrix of the first."
    with av.open(str(path)) as c:
        frames = list(c.decode(video=0))
        kept = frames[0].side_data.get("DISPLAYMATRIX") if frames else None
        if any(f.is_corrupt for f in frames): raise ValueError("it marks frames as damaged")
        kept = None if kept is None else np.frombuffer(kept, np.int32).tolist()
        return [f.to_ndarray(format="rgb24") for f in frames], kept


def compare(path, frames):
    "For every even number of frames from 2 to 64: why a film was refused, and how many frames are others."
    (height, width), refused, wrong = frames[0].shape[:2], "", 0
    for n in range(2, 65, 2):
        spec = VideoSpec(frames=n, min_pixels=height*width, max_pixels=height*width, factor=16)
        try: seen = decode(path, spec)
        except ValueError as e:
            refused = refused or f"{n} frames: {e}".replace(str(path), path.name)
            continue
        for got, i in zip(seen, sample_indices(len(frames), n)): wrong += not np.array_equal(got, frames[i])
    return refused, wrong


def why_not(error, container):
    "Why a film could not be written."
    if "format does not support" in str(error): return "the container takes no such codec"
    return f"the encoder or the muxer refuses: {error.strerror if isinstance(error, av.FFmpegError) else error}"


def films():
    "What is tried: container, codec, GOP, orientation."
    for container in CONTAINERS:
        for codec in (*INTER, *INTRA):
            for gop in INTER.get(codec, {"intra": {}}): yield container, codec, gop, "as it is"
    for container, codecs in TURNED.items():
        for codec in codecs:
            for turn in list(QUARTERS)[1:]: yield container, codec, "intra" if codec in INTRA else "closed", turn


def try_film(film, folder):
    "Write a film and compare: why it was skipped, what is odd about it, why it was refused, how many frames differ."
    container, codec, gop, turn = film
    path = Path(folder)/f"{container}.film"
    try: write(path, container, codec, gop, turn)
    except (av.FFmpegError, ValueError) as e: return why_not(e, container), "", "", 0
    try: frames, kept = in_order(path)
    except (av.FFmpegError, ValueError, IndexError) as e:
        why = "no film in it" if isinstance(e, IndexError) else getattr(e, "strerror", e)
        return f"PyAV writes it but does not decode it whole: {why}", "", "", 0
    if turn != "as it is" and (kept is None or kept[:5] != matrix(turn, 64, 64)[:5]):
        return "the container keeps no display matrix, or another one", "", "", 0
    odd = "frames alike" if len({f.tobytes() for f in frames}) < len(frames) else ""
    if len(frames) != FRAMES: odd = f"{len(frames)} of {FRAMES} frames"
    return "", odd, *compare(path, [QUARTERS[turn][1](f) for f in frames])


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--only", default="", help="part of the names of films to try")
    args = p.parse_args()
    begin, done, skipped, refused, wrong, odd = time.time(), Counter(), defaultdict(list), {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for film in films():
            name = ", ".join(film)
            if args.only not in name: continue
            why_skipped, oddity, why_refused, n_wrong = try_film(film, folder)
            if why_skipped:
                skipped[why_skipped].append(name)
                continue
            done[film[0]] += 1
            if oddity: odd[name] = oddity
            if why_refused: refused[name] = why_refused
            if n_wrong: wrong[name] = n_wrong
            if why_refused or n_wrong:
                print(f"{name}: {n_wrong} frames wrong{', refused: ' + why_refused if why_refused else ''}", flush=True)
        print(dict(done), flush=True)
    print(json.dumps(dict(
        bench="video", films=done.total(), refused=len(refused), wrong_frames=sum(wrong.values()),
        by_container=dict(done), frame_counts="even, 2 to 64", frames_of_a_film=FRAMES,
        refused_films=refused, wrong_films=wrong, odd_films=odd,
        combinations_skipped=sum(map(len, skipped.values())), skipped=by_container(skipped),
        pyav=av.__version__, ffmpeg=av.ffmpeg_version_info, commit=git_commit(repo_root()),
        seconds=round(time.time() - begin))))
    return bool(refused or wrong)


def by_container(skipped):
    "Reason → container → what of it could not be written."
    grouped = defaultdict(lambda: defaultdict(list))
    for why, names in skipped.items():
        for name in names:
            container, rest = name.split(", ", 1)
            grouped[why][container].append(rest)
    return grouped


if __name__ == "__main__": sys.exit(main())
