"""The files of benchmarks/media_collection.py: every codec, container and condition, of 6 seconds each."""

import dataclasses
import io
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

RIGHT = "right"
# Smooth, because the scaler of FFmpeg's command line puts the samples of colour of H.264 beside where PyAV's puts them.
TEST = "testsrc2=s=96x64:r=10:d=6,gblur=2"
Change = Callable[[bytes], bytes]


@dataclasses.dataclass(frozen=True)
class MediaFile:
    """A file and what is to become of it.

    Attributes:
      name: of the file; its suffix says FFmpeg's format unless `args` do.
      args: options of FFmpeg for the output.
      expected: RIGHT, or the beginning of the reason for which it is refused.
      source: of FFmpeg's lavfi; several are separated by a space.
      again: options for the input and for the output of a second pass that copies the streams; None: none.
      change: of the bytes afterwards.
      about: for the table, in place of the options.
      colours: filter with which FFmpeg converts the colours for the comparison.
      stream: that FFmpeg is told to compare with, where it would take another one.
    """

    name: str
    args: str = ""
    expected: str = RIGHT
    source: str = TEST
    again: tuple[str, str] | None = None
    change: Change | None = None
    about: str = ""
    colours: str = ""
    stream: str = "0:v"

    def write(self, ffmpeg: str, folder: Path) -> Path:
        """Make it; its format in both passes is that of the name."""
        path = folder / self.name
        if not self.args:
            assert self.change is not None
            path.write_bytes(self.change(b""))
            return path
        first = folder / f"first_{self.name}" if self.again else path
        inputs = [word for source in self.source.split() for word in ("-f", "lavfi", "-i", source)]
        run(ffmpeg, *inputs, *self.args.split(), str(first))
        if self.again:
            before, after = self.again
            run(ffmpeg, *before.split(), "-i", str(first), *after.split(), str(path))
            first.unlink()
        if self.change:
            path.write_bytes(self.change(path.read_bytes()))
        return path


def run(ffmpeg: str, *words: str) -> None:
    """FFmpeg, in one thread: the same bytes every time.

    Raises:
      RuntimeError: it failed.
    """
    command = [
        ffmpeg,
        "-nostdin",
        "-hide_banner",
        "-v",
        "error",
        "-y",
        "-bitexact",
        *words[:-1],
        "-threads",
        "1",
        words[-1],
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-500:]}")


def first(share: float) -> Change:
    """The first part of a file."""
    return lambda data: data[: int(len(data) * share)]


def flipped(count: int, seed: int = 0) -> Change:
    """Bits flipped in the middle of a file."""

    def change(data: bytes) -> bytes:
        numbers, copy = random.Random(seed), bytearray(data)
        for _ in range(count):
            copy[numbers.randrange(len(data) // 4, len(data) * 3 // 4)] ^= 1 << numbers.randrange(8)
        return bytes(copy)

    return change


def zeros(begin: float, end: float) -> Change:
    """A part of a file as zeros."""
    return lambda data: (
        data[: int(len(data) * begin)]
        + bytes(int(len(data) * end) - int(len(data) * begin))
        + data[int(len(data) * end) :]
    )


def text(content: str) -> Change:
    """A file of these words."""
    return lambda _: content.encode()


def pictures(kind: str, count: int = 1, side: int = 64, **options: object) -> Change:
    """Pillow's pictures of a square that moves."""

    def change(_: bytes) -> bytes:
        frames = []
        for number in range(count):
            frame = np.full((side, side, 3), 40, np.uint8)
            frame[: side // 4, number * side // 32 : number * side // 32 + side // 4] = (250, 200, 30)
            frames.append(Image.fromarray(frame))
        file = io.BytesIO()
        several = {"save_all": True, "append_images": frames[1:], "duration": 100} if count > 1 else {}
        frames[0].save(file, kind, **several, **options)
        return file.getvalue()

    return change


X264 = "-c:v libx264 -pix_fmt yuv420p"
X265 = "-c:v libx265 -pix_fmt yuv420p -x265-params log-level=none:keyint=12:min-keyint=12"
VP9 = "-c:v libvpx-vp9 -pix_fmt yuv420p -deadline realtime -cpu-used 8"
AV1 = "-c:v libsvtav1 -pix_fmt yuv420p -preset 12 -svtav1-params lp=1"
MPEG2 = "-c:v mpeg2video -pix_fmt yuv420p -q:v 3 -r 25"
SOUND = f"{TEST} sine=d=6"
SMOOTH = "testsrc2=s=96x64:r=10:d=6,gblur=5"
TONE = (
    "zscale=agamma=0:t=linear:npl=203:p=bt709,format=gbrpf32le,tonemap=mobius:param=0.3:peak=4.926108:desat=0,"
    "zscale=agamma=0:t=bt709:m=gbr:r=full,format=gbrp"
)
GAMUT = "zscale=p=bt709:m=gbr:r=full,format=gbrp"


def hdr(transfer: str, white: int) -> str:
    """Filter: SDR as HDR of 10 bits."""
    tags = "color_primaries=bt2020:color_trc={}:colorspace=bt2020nc:range=tv"
    zscale = f"zscale=tin=bt709:pin=bt709:min=gbr:t={transfer}:p=bt2020:m=bt2020nc:npl={white}"
    return f"-vf format=gbrp,{zscale},format=yuv420p10le,setparams={tags.format(transfer)}"


def tagged(primaries: str, transfer: str, matrix: str, pixels: str = "yuv420p10le") -> str:
    """Filter: only the tags."""
    tags = f"color_primaries={primaries}:color_trc={transfer}:colorspace={matrix}:range=tv"
    return f"-vf format={pixels},setparams={tags}"


NOT_A_VIDEO = "not a video: not an MP4"
PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\nh264.mp4\n#EXT-X-ENDLIST\n"
CONCAT = "ffconcat version 1.0\nfile h264.mp4\n"
DASH = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
    "<Representation id='1' mimeType='video/mp4' bandwidth='1'><BaseURL>h264.mp4</BaseURL></Representation>"
    "</AdaptationSet></Period></MPD>"
)
ASX = '<asx version="3.0"><entry><ref href="h264.mp4"/></entry></asx>'

COLLECTION: dict[str, list[MediaFile]] = {
    "Codecs and containers": [
        MediaFile("h264.mp4", X264),
        MediaFile("h264.mov", X264),
        MediaFile("h264.qt", f"{X264} -f mov"),
        MediaFile("h264.m4v", f"{X264} -f mp4"),
        MediaFile("h264.3gp", X264),
        MediaFile("h264.3g2", X264),
        MediaFile("h264.mkv", X264),
        MediaFile("h264.avi", f"{X264} -bf 0"),
        MediaFile("h264.ts", X264),
        MediaFile("h264.m2ts", f"{X264} -f mpegts -mpegts_m2ts_mode 1"),
        MediaFile("h264.flv", X264),
        MediaFile("h264.wmv", X264, "unsupported codec: H.264 or HEVC in a WMV file"),
        MediaFile("h264.mpg", f"{X264} -f mpeg", "damaged: its pictures carry no times"),
        MediaFile("h264_rgb.mkv", "-c:v libx264rgb"),
        MediaFile("hevc.mp4", X265),
        MediaFile("hevc.mov", f"{X265} -tag:v hvc1"),
        MediaFile("hevc.mkv", X265),
        MediaFile("hevc.ts", X265),
        MediaFile("hevc.flv", X265),
        MediaFile("vp8.webm", "-c:v libvpx -deadline realtime -cpu-used 8"),
        MediaFile("vp8.mkv", "-c:v libvpx -deadline realtime -cpu-used 8"),
        MediaFile("vp9.webm", VP9),
        MediaFile("vp9.mp4", VP9),
        MediaFile("vp9.mkv", VP9),
        MediaFile("av1.mp4", AV1),
        MediaFile("av1.webm", AV1),
        MediaFile("av1.mkv", AV1),
        MediaFile("mpeg4.mp4", "-c:v mpeg4 -q:v 3"),
        MediaFile("mpeg4.avi", "-c:v mpeg4 -q:v 3"),
        MediaFile("mpeg4.mov", "-c:v mpeg4 -q:v 3"),
        MediaFile("mpeg4.3gp", "-c:v mpeg4 -q:v 3"),
        MediaFile("xvid.avi", "-c:v libxvid -q:v 3"),
        MediaFile("divx.avi", "-c:v mpeg4 -q:v 3 -tag:v DX50"),
        MediaFile("mpeg1.mpg", "-c:v mpeg1video -q:v 3 -r 25"),
        MediaFile("mpeg1_vcd.mpg", "-c:v mpeg1video -q:v 3 -r 25 -f vcd"),
        MediaFile("mpeg2.mpg", MPEG2),
        MediaFile("mpeg2.vob", MPEG2),
        MediaFile("mpeg2.ts", MPEG2),
        MediaFile("mpeg2.mts", f"{MPEG2} -f mpegts"),
        MediaFile("mpeg2.mkv", MPEG2),
        MediaFile("h263.3gp", "-c:v h263 -s 176x144 -q:v 3"),
        MediaFile("h263.avi", "-c:v h263 -s 176x144 -q:v 3"),
        MediaFile("flv1.flv", "-c:v flv -q:v 3"),
        MediaFile("msmpeg4.avi", "-c:v msmpeg4 -q:v 3"),
        MediaFile("msmpeg4v2.avi", "-c:v msmpeg4v2 -q:v 3"),
        MediaFile("wmv1.wmv", "-c:v wmv1 -q:v 3"),
        MediaFile("wmv2.wmv", "-c:v wmv2 -q:v 3"),
        MediaFile("wmv2.asf", "-c:v wmv2 -q:v 3"),
        MediaFile("theora.ogv", "-c:v libtheora -q:v 8"),
        MediaFile("theora.mkv", "-c:v libtheora -q:v 8"),
        MediaFile("mjpeg.avi", "-c:v mjpeg -q:v 3 -pix_fmt yuvj420p"),
        MediaFile("mjpeg.mov", "-c:v mjpeg -q:v 3 -pix_fmt yuvj422p"),
        MediaFile("prores.mov", "-c:v prores_ks -profile:v 3"),
        MediaFile("prores_4444.mov", "-c:v prores_ks -profile:v 4 -pix_fmt yuva444p10le"),
        MediaFile("dv.avi", "-c:v dvvideo -s 720x576 -r 25 -pix_fmt yuv420p -t 1"),
        MediaFile("dv.mov", "-c:v dvvideo -s 720x576 -r 25 -pix_fmt yuv420p -t 1"),
        MediaFile("ffv1.mkv", "-c:v ffv1"),
        MediaFile("ffv1.avi", "-c:v ffv1"),
        MediaFile("huffyuv.avi", "-c:v huffyuv -pix_fmt yuv422p"),
        MediaFile("ffvhuff.mkv", "-c:v ffvhuff"),
        MediaFile("cinepak.avi", "-c:v cinepak -t 1"),
        MediaFile("png.mov", "-c:v png"),
        MediaFile("raw.avi", "-c:v rawvideo -pix_fmt bgr24"),
        MediaFile("raw.mov", "-c:v rawvideo -pix_fmt uyvy422"),
        MediaFile("pictures.gif", "-vf split[a][b];[a]palettegen[p];[b][p]paletteuse"),
        MediaFile("animated.webp", change=pictures("WEBP", 20, lossless=True), about="Pillow, 20 pictures"),
        MediaFile(
            "animated.avif", change=pictures("AVIF", 20, quality=90), about="Pillow, 20 pictures", stream="0:v:1"
        ),
    ],
    "Structure": [
        MediaFile("fragments.mp4", f"{X264} -g 10 -movflags frag_keyframe+empty_moov+default_base_moof"),
        MediaFile("fragments_index.mp4", f"{X264} -g 10 -movflags dash"),
        MediaFile("index_first.mp4", f"{X264} -movflags faststart"),
        MediaFile("not_seekable.mkv", f"{X264} -f matroska -live 1"),
        MediaFile("not_seekable.webm", f"{VP9} -f webm -live 1"),
        MediaFile("no_length.flv", f"{X264} -flvflags no_duration_filesize+no_metadata"),
        MediaFile("named_wrong.avi", f"{X264} -f mp4", about="an MP4 file named .avi"),
        MediaFile("all_key.mp4", f"{X264} -g 1"),
        MediaFile("long_groups.mp4", f"{X264} -g 250"),
        MediaFile("closed_groups.mp4", f"{X264} -x264-params keyint=12:bframes=3:b-pyramid=2"),
        MediaFile("open_groups.mp4", f"{X264} -x264-params open-gop=1:keyint=12:bframes=3:b-pyramid=2"),
        MediaFile("open_groups.ts", f"{X264} -x264-params open-gop=1:keyint=12:bframes=3"),
        MediaFile("open_groups_hevc.mp4", f"{X265}:open-gop=1:bframes=4"),
        MediaFile("no_key_pictures.mp4", f"{X264} -x264-params intra-refresh=1:keyint=12:bframes=0"),
        MediaFile("hidden_pictures.webm", "-c:v libvpx -auto-alt-ref 1 -lag-in-frames 10 -g 20 -cpu-used 8"),
        MediaFile("b_pictures.avi", f"{X264} -bf 2 -g 12"),
        MediaFile("interlaced.ts", f"{MPEG2} -flags +ilme+ildct -field_order tt"),
        MediaFile("interlaced.mp4", f"{X264} -flags +ilme+ildct -x264-params tff=1"),
    ],
    "Time": [
        MediaFile("begins_at_10.mkv", X264, again=("", "-c copy -output_ts_offset 10")),
        MediaFile("begins_at_10.webm", VP9, again=("", "-c copy -output_ts_offset 10")),
        MediaFile("begins_at_10.mp4", X264, again=("", "-c copy -output_ts_offset 10")),
        MediaFile("begins_at_10_h.ts", X264, again=("", "-c copy -output_ts_offset 36000")),
        MediaFile("clock_wraps.ts", X264, again=("", "-c copy -output_ts_offset 95440")),
        MediaFile("edit_list.mp4", f"{X264} -g 20", again=("-ss 3.3", "-c copy")),
        MediaFile("edit_list.mov", f"{X264} -bf 2 -g 20", again=("-ss 1.7", "-c copy")),
        MediaFile("cut_by_copy.mkv", f"{X264} -bf 2 -g 20", again=("-ss 3.3", "-c copy")),
        MediaFile("variable_rate.mp4", f"{X264} -vf select=not(mod(n\\,7))+lt(mod(n\\,5)\\,2) -fps_mode vfr"),
        MediaFile("variable_rate.mkv", f"{VP9} -vf select=not(mod(n\\,7))+lt(mod(n\\,5)\\,2) -fps_mode vfr"),
        MediaFile("variable_rate.ts", f"{X264} -vf select=not(mod(n\\,7))+lt(mod(n\\,5)\\,2) -fps_mode vfr"),
        MediaFile("variable_rate.gif", "-vf select=not(mod(n\\,7)) -fps_mode vfr"),
        MediaFile("slides.mp4", f"{X264} -r 1/3", source="testsrc2=s=96x64:r=1/3:d=30,gblur=2"),
        MediaFile("one_a_minute.mkv", X264, source="testsrc2=s=96x64:r=1/60:d=1200,gblur=2"),
        MediaFile("slow_motion.mov", X264, source="testsrc2=s=96x64:r=240:d=1,gblur=2"),
        MediaFile("ntsc.mp4", X264, source="testsrc2=s=96x64:r=30000/1001:d=4,gblur=2"),
        MediaFile("hour.mp4", f"{X264} -g 60 -preset ultrafast", source="testsrc2=s=96x64:r=1:d=3600,gblur=2"),
        MediaFile("one_picture.mp4", f"{X264} -frames:v 1"),
        MediaFile("two_pictures.webm", f"{VP9} -frames:v 2"),
    ],
    "Streams": [
        MediaFile("sound.mp4", f"{X264} -c:a aac", source=SOUND),
        MediaFile("sound.webm", f"{VP9} -c:a libopus", source=SOUND),
        MediaFile("sound.ogv", "-c:v libtheora -q:v 8 -c:a libvorbis", source=SOUND),
        MediaFile("sound.avi", "-c:v mpeg4 -q:v 3 -c:a libmp3lame", source=SOUND),
        MediaFile("sound.mpg", f"{MPEG2} -c:a mp2", source=SOUND),
        MediaFile("sound.wmv", "-c:v wmv2 -q:v 3 -c:a wmav2", source=SOUND),
        MediaFile("sound.flv", f"{X264} -c:a aac", source=SOUND),
        MediaFile("sound.ts", f"{X264} -c:a aac", source=SOUND),
        MediaFile("longer_sound.mp4", f"{X264} -c:a aac", source=f"{TEST} sine=d=12"),
        MediaFile("longer_sound.mkv", f"{X264} -c:a aac", source=f"{TEST} sine=d=12"),
        MediaFile(
            "later_pictures.mkv",
            f"{X264} -c:a aac -af atrim=0:4",
            source=f"{TEST},setpts=PTS+1/TB sine=d=6",
        ),
        MediaFile("chapters.mkv", f"{X264} -metadata title=\u00fc", about="H.264, a title that is not ASCII"),
        MediaFile("time_code.mov", f"{X264} -timecode 01:02:03:04"),
        MediaFile(
            "default_second.mkv",
            f"{X264} -map 0 -map 1 -disposition:0 0 -disposition:1 default",
            stream="0:v:1",
            source=f"color=red:s=64x64:r=10:d=6 {TEST}",
        ),
        MediaFile(
            "cover_first.mp4",
            "-map 0 -map 1 -c:v:0 mjpeg -disposition:0 attached_pic -c:v:1 libx264 -pix_fmt:1 yuv420p",
            source=f"color=red:s=64x64:r=10:d=0.1 {TEST}",
            stream="0:v:0",
        ),
        MediaFile(
            "two_views.mp4",
            f"{X264} -map 0 -map 1",
            stream="0:v:0",
            source=f"{TEST} color=red:s=64x64:r=10:d=6",
        ),
        MediaFile("sound_alone.m4a", "-map 1 -c:a aac", "no video stream: only audio", source=SOUND),
        MediaFile("sound_alone.ogg", "-map 1 -c:a libvorbis", "no video stream: only audio", source=SOUND),
    ],
    "Pictures": [
        MediaFile("turned_90.mp4", X264, again=("-display_rotation 90", "-c copy")),
        MediaFile("turned_180.mov", X264, again=("-display_rotation 180", "-c copy")),
        MediaFile("turned_270.mp4", X264, again=("-display_rotation 270", "-c copy")),
        MediaFile("mirrored.mp4", X264, again=("-display_hflip", "-c copy")),
        MediaFile("turned.mkv", X264, again=("-display_rotation 90", "-c copy")),
        MediaFile("wide_pixels.mp4", f"{X264} -vf setsar=64/45"),
        MediaFile("narrow_pixels.mpg", f"{MPEG2} -s 96x80 -aspect 4:3"),
        MediaFile("wide_pixels.mkv", f"{VP9} -vf setsar=2/1"),
        MediaFile("odd_size.webm", f"{VP9} -s 63x49"),
        MediaFile("odd_size.mp4", "-c:v libx264 -pix_fmt yuv444p -s 63x49"),
        MediaFile("ten_bits.mp4", "-c:v libx264 -pix_fmt yuv420p10le"),
        MediaFile("ten_bits_422.mov", "-c:v libx264 -pix_fmt yuv422p10le"),
        MediaFile("ten_bits.webm", "-c:v libvpx-vp9 -pix_fmt yuv420p10le -profile:v 2 -deadline realtime -cpu-used 8"),
        MediaFile("twelve_bits.mkv", "-c:v ffv1 -pix_fmt yuv444p12le"),
        MediaFile("gray.mp4", "-c:v libx264 -pix_fmt gray"),
        MediaFile("gray_16.mkv", "-c:v ffv1 -pix_fmt gray16le"),
        MediaFile("alpha.webm", "-c:v libvpx-vp9 -pix_fmt yuva420p -auto-alt-ref 0 -deadline realtime -cpu-used 8"),
        MediaFile("full_range.mp4", "-c:v libx264 -pix_fmt yuvj420p"),
        MediaFile("bt709.mp4", f"-c:v libx264 {tagged('bt709', 'bt709', 'bt709', 'yuv420p')}"),
        MediaFile("bt601.mp4", f"-c:v libx264 {tagged('smpte170m', 'smpte170m', 'smpte170m', 'yuv420p')}"),
        MediaFile("uhd.mp4", f"{X264} -preset ultrafast", source="testsrc2=s=3840x2160:r=10:d=1,gblur=2"),
    ],
    "HDR and wide gamut": [
        MediaFile(
            "pq.mp4",
            f"-c:v libx265 -x265-params log-level=none {hdr('smpte2084', 600)}",
            source=SMOOTH,
            about="HEVC of 10 bits, PQ",
            colours=TONE,
        ),
        MediaFile(
            "hlg.mov",
            f"-c:v libx265 -x265-params log-level=none {hdr('arib-std-b67', 1000)}",
            source=SMOOTH,
            about="HEVC of 10 bits, HLG",
            colours=TONE,
        ),
        MediaFile(
            "hlg.ts",
            f"-c:v libx265 -x265-params log-level=none {hdr('arib-std-b67', 1000)}",
            source=SMOOTH,
            about="HEVC of 10 bits, HLG",
            colours=TONE,
        ),
        MediaFile(
            "pq.webm",
            f"-c:v libvpx-vp9 -profile:v 2 -deadline realtime -cpu-used 8 {hdr('smpte2084', 600)}",
            source=SMOOTH,
            about="VP9 of 10 bits, PQ",
            colours=TONE,
        ),
        MediaFile(
            "pq.mkv",
            f"-c:v libsvtav1 -preset 12 -svtav1-params lp=1 {hdr('smpte2084', 600)}",
            source=SMOOTH,
            about="AV1 of 10 bits, PQ",
            colours=TONE,
        ),
        MediaFile(
            "hlg_prores.mov",
            f"-c:v prores_ks {hdr('arib-std-b67', 1000)},format=yuv422p10le",
            source=SMOOTH,
            about="ProRes, HLG",
            colours=TONE,
        ),
        MediaFile(
            "bt2020.mp4",
            f"-c:v libx264 {tagged('bt2020', 'bt709', 'bt2020nc')}",
            source=SMOOTH,
            about="H.264 of 10 bits, BT.2020",
            colours=GAMUT,
        ),
        MediaFile(
            "display_p3.mov",
            f"-c:v libx264 {tagged('smpte432', 'bt709', 'bt709', 'yuv420p')}",
            source=SMOOTH,
            about="H.264, Display P3",
            colours=GAMUT,
        ),
        MediaFile(
            "ictcp.mkv",
            f"-c:v ffv1 {tagged('bt2020', 'smpte2084', 'ictcp')}",
            "unsupported colours: ICtCp",
            about="FFV1, ICtCp",
        ),
    ],
    "Photographs": [
        MediaFile("photo.jpg", change=pictures("JPEG", side=512, quality=95), about="Pillow"),
        MediaFile("photo.png", change=pictures("PNG"), about="Pillow"),
        MediaFile("photo.webp", change=pictures("WEBP", lossless=True), about="Pillow"),
        MediaFile("photo.avif", change=pictures("AVIF", quality=95), about="Pillow"),
        MediaFile(
            "photo_100_mp.jpg", change=pictures("JPEG", side=10_000, quality=80), about="Pillow, 10,000 x 10,000"
        ),
        MediaFile(
            "photo.heic",
            "-c:v libx265 -x265-params log-level=none -frames:v 1 -f mp4 -brand heic",
            "not a video: a HEIC picture",
        ),
    ],
    "Damaged": [
        MediaFile(
            "joined.ts", X264, "damaged: a picture near", change=lambda data: data + data, about="the file twice"
        ),
        MediaFile("no_index.mp4", X264, "damaged: begins like an MP4", change=first(0.5)),
        MediaFile("half.mp4", f"{X264} -movflags faststart", "damaged: a picture near", change=first(0.5)),
        MediaFile(
            "half_fragments.mp4",
            f"{X264} -g 10 -movflags frag_keyframe+empty_moov",
            "damaged: a picture near",
            change=first(0.5),
        ),
        MediaFile("half.mkv", X264, "cut off: its pictures end", change=first(0.5)),
        MediaFile("half.webm", VP9, "cut off: its pictures end", change=first(0.5)),
        MediaFile("half.avi", "-c:v mpeg4 -q:v 3", "damaged: a picture near", change=first(0.5)),
        MediaFile("half.flv", X264, "damaged: a picture near", change=first(0.5)),
        MediaFile("half.wmv", "-c:v wmv2 -q:v 3", change=first(0.5)),
        MediaFile("half.ogv", "-c:v libtheora -q:v 8", change=first(0.5)),
        MediaFile("half.mpg", MPEG2, "damaged: a picture near", change=first(0.5)),
        MediaFile("half.ts", X264, change=first(0.5)),
        MediaFile("half.gif", "-vf format=rgb8", change=first(0.5)),
        MediaFile(
            "half.webp",
            "",
            "damaged: begins like a picture",
            change=lambda data: first(0.5)(pictures("WEBP", 20)(data)),
            about="Pillow, the first half",
        ),
        MediaFile(
            "half.jpg",
            "",
            "damaged: begins like a picture",
            change=lambda data: first(0.5)(pictures("JPEG", side=512)(data)),
            about="Pillow, the first half",
        ),
        MediaFile("bits.mp4", f"{X264} -movflags faststart -crf 1", "damaged", change=flipped(20)),
        MediaFile("bits.mkv", f"{X264} -crf 1", "damaged", change=flipped(20)),
        MediaFile("hole.mp4", f"{X264} -movflags faststart", "damaged", change=zeros(0.5, 0.6)),
        MediaFile("hole.mkv", X264, "damaged", change=zeros(0.5, 0.6)),
        MediaFile("header.mkv", X264, "damaged: begins like a Matroska", change=lambda data: data[:40]),
        MediaFile("header.ogv", "-c:v libtheora", "damaged: begins like an Ogg", change=lambda data: data[:40]),
        MediaFile("header.wmv", "-c:v wmv2", "damaged: begins like a WMV", change=lambda data: data[:40]),
        MediaFile("header.flv", X264, "", change=lambda data: data[:40]),
        MediaFile("empty.mp4", "", "empty file", change=text(""), about="no byte"),
        MediaFile("zeros.mp4", "", NOT_A_VIDEO, change=lambda _: bytes(100_000), about="100,000 zeros"),
        MediaFile("page.mp4", "", NOT_A_VIDEO, change=text("<!doctype html><title>404</title>"), about="a page"),
    ],
    "Files that name others": [
        MediaFile("playlist.m3u8", "", NOT_A_VIDEO, change=text(PLAYLIST), about="HLS"),
        MediaFile("playlist.ts", "", NOT_A_VIDEO, change=text(PLAYLIST), about="HLS"),
        MediaFile("playlist.mpg", "", NOT_A_VIDEO, change=text(PLAYLIST), about="HLS"),
        MediaFile("concat.mp4", "", NOT_A_VIDEO, change=text(CONCAT), about="ffconcat"),
        MediaFile("concat.ogv", "", NOT_A_VIDEO, change=text(CONCAT), about="ffconcat"),
        MediaFile("dash.flv", "", NOT_A_VIDEO, change=text(DASH), about="DASH"),
        MediaFile("list.wmv", "", NOT_A_VIDEO, change=text(ASX), about="ASX"),
    ],
    "Not opened": [
        MediaFile(
            "dnxhd.mov",
            "-c:v dnxhd -profile:v dnxhr_lb -pix_fmt yuv422p -s 256x128",
            "unsupported codec: its pictures are in the codec dnxhd",
        ),
        MediaFile(
            "cineform.mov",
            "-c:v cfhd -s 96x64 -pix_fmt yuv422p10le",
            "unsupported codec: its pictures are in the codec cfhd",
        ),
        MediaFile("vvc.mp4", "-c:v libvvenc -preset faster -t 1", "unsupported codec"),
        MediaFile("utvideo.avi", "-c:v utvideo", "unsupported codec: its pictures are in the codec utvideo"),
        MediaFile("jpeg2000.mov", "-c:v jpeg2000 -t 1", "unsupported codec"),
        MediaFile("animation.mov", "-c:v qtrle", "unsupported codec: its pictures are in the codec qtrle"),
        MediaFile("svq1.mov", "-c:v svq1", "unsupported codec: its pictures are in the codec svq1"),
        MediaFile("raw.h264", X264, NOT_A_VIDEO),
        MediaFile("mpeg2.mxf", MPEG2, NOT_A_VIDEO),
        MediaFile("vp9.ivf", VP9, NOT_A_VIDEO),
        MediaFile("real.rm", "-c:v rv20 -s 176x144", NOT_A_VIDEO),
        MediaFile("ffv1.nut", "-c:v ffv1", NOT_A_VIDEO),
        MediaFile("drawing.bmp", "", NOT_A_VIDEO, change=pictures("BMP"), about="Pillow"),
    ],
}
