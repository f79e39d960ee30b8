"""Small images and videos in every media type that bulk data may have, made by the tools that people make them with."""

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.peers import program_path

ROWS, COLUMNS, FRAMES = 48, 64, 5
_PATTERN = f"testsrc=size={COLUMNS}x{ROWS}:rate=25:duration={FRAMES / 25}"
_ONE = ("-frames:v", "1")
Make = Callable[[Path], Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class Medium:
    """How a file is made, by which program, and what becomes of it as bulk data."""

    name: str
    media_type: str
    transfer_syntax_uid: str
    program: str
    make: Make
    wish: str = ""
    is_video: bool = False
    tells_size: bool = True
    tells_frames: bool = True


def _run(program: str, *arguments: str | Path) -> None:
    run = subprocess.run(
        [program_path(program), *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr


def _ffmpeg(name: str, *options: str, pattern: str = _PATTERN) -> Make:
    def make(folder: Path) -> Path:
        _run("ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", pattern, *options, folder / name)
        return folder / name

    return make


def _compressed(program: str, name: str, *options: str, source: str = "image.ppm") -> Make:
    """Make an image by ffmpeg, and compress it by another program."""

    def make(folder: Path) -> Path:
        image = _ffmpeg(source, *_ONE)(folder)
        if program == "cjxl":
            _run(program, image, folder / name, *options)
        else:
            _run(program, "-i", image, "-o", folder / name, *options)
        return folder / name

    return make


def _uid(end: str) -> str:
    return f"1.2.840.10008.1.2.4.{end}"


_X264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")
_X265 = ("-c:v", "libx265", "-x265-params", "log-level=error", "-pix_fmt")
_ANNEX_B = ("-bsf:v", "h264_mp4toannexb", "-f", "h264")

MEDIA: Sequence[Medium] = (
    Medium(
        name="jpeg",
        media_type="image/jpeg",
        transfer_syntax_uid=_uid("50"),
        program="ffmpeg",
        make=_ffmpeg("a.jpg", *_ONE, "-pix_fmt", "yuvj422p"),
    ),
    Medium(
        name="jpeg-ls",
        media_type="image/jls",
        transfer_syntax_uid=_uid("80"),
        program="ffmpeg",
        make=_ffmpeg("a.jls", *_ONE, "-c:v", "jpegls", "-pix_fmt", "rgb24"),
    ),
    Medium(
        name="jpeg-2000",
        media_type="image/jp2",
        transfer_syntax_uid=_uid("90"),
        program="opj_compress",
        make=_compressed("opj_compress", "a.jp2"),
    ),
    Medium(
        name="jpeg-2000-codestream",
        media_type="image/jp2",
        transfer_syntax_uid=_uid("90"),
        program="opj_compress",
        make=_compressed("opj_compress", "a.j2k"),
    ),
    Medium(
        name="jpeg-2000-lossy",
        media_type="image/jp2",
        transfer_syntax_uid=_uid("91"),
        program="opj_compress",
        make=_compressed("opj_compress", "a.jp2", "-r", "20", "-I"),
    ),
    Medium(
        name="jpeg-2000-multi-component",
        media_type="image/jpx",
        transfer_syntax_uid=_uid("92"),
        program="opj_compress",
        make=_compressed("opj_compress", "a.j2k"),
    ),
    Medium(
        name="htj2k",
        media_type="image/jphc",
        transfer_syntax_uid=_uid("201"),
        program="ojph_compress",
        make=_compressed("ojph_compress", "a.j2c", "-reversible", "true"),
    ),
    Medium(
        name="htj2k-rpcl",
        media_type="image/jphc",
        transfer_syntax_uid=_uid("202"),
        wish=_uid("202"),
        program="ojph_compress",
        make=_compressed("ojph_compress", "a.j2c", "-reversible", "true", "-prog_order", "RPCL"),
    ),
    Medium(
        name="htj2k-lossy",
        media_type="image/jphc",
        transfer_syntax_uid=_uid("203"),
        program="ojph_compress",
        make=_compressed("ojph_compress", "a.j2c", "-reversible", "false", "-qstep", "0.01"),
    ),
    Medium(
        name="jpeg-xl",
        media_type="image/jxl",
        transfer_syntax_uid=_uid("112"),
        program="cjxl",
        make=_compressed("cjxl", "a.jxl", "-d", "1", source="image.png"),
        tells_size=False,
    ),
    Medium(
        name="jpeg-xl-lossless",
        media_type="image/jxl",
        transfer_syntax_uid=_uid("110"),
        wish=_uid("110"),
        program="cjxl",
        make=_compressed("cjxl", "a.jxl", "-d", "0", source="image.png"),
        tells_size=False,
    ),
    Medium(
        name="jpeg-xl-recompression",
        media_type="image/jxl",
        transfer_syntax_uid=_uid("111"),
        wish=_uid("111"),
        program="cjxl",
        make=_compressed("cjxl", "a.jxl", source="image.jpg"),
        tells_size=False,
    ),
    Medium(
        name="mpeg-2",
        media_type="video/mpeg",
        transfer_syntax_uid=_uid("100"),
        program="ffmpeg",
        make=_ffmpeg("a.m2v", "-c:v", "mpeg2video", "-f", "mpeg2video"),
        is_video=True,
        tells_frames=False,
    ),
    Medium(
        name="mpeg-2-program-stream",
        media_type="video/mpeg",
        transfer_syntax_uid=_uid("100"),
        program="ffmpeg",
        make=_ffmpeg("a.mpg", "-c:v", "mpeg2video", "-f", "vob"),
        is_video=True,
        tells_frames=False,
    ),
    Medium(
        name="mpeg-2-transport-stream",
        media_type="video/mpeg",
        transfer_syntax_uid=_uid("100"),
        program="ffmpeg",
        make=_ffmpeg("a.ts", "-c:v", "mpeg2video", "-f", "mpegts"),
        is_video=True,
        tells_frames=False,
    ),
    Medium(
        name="h264",
        media_type="video/mp4",
        transfer_syntax_uid=_uid("102"),
        program="ffmpeg",
        make=_ffmpeg("a.mp4", *_X264),
        is_video=True,
    ),
    Medium(
        name="h264-bare",
        media_type="video/mp4",
        transfer_syntax_uid=_uid("102"),
        program="ffmpeg",
        make=_ffmpeg("a.h264", *_X264, *_ANNEX_B),
        is_video=True,
        tells_size=False,
        tells_frames=False,
    ),
    Medium(
        name="hevc",
        media_type="video/mp4",
        transfer_syntax_uid=_uid("107"),
        program="ffmpeg",
        make=_ffmpeg("a.mp4", *_X265, "yuv420p", "-tag:v", "hvc1"),
        is_video=True,
    ),
    Medium(
        name="hevc-10-bare",
        media_type="video/H265",
        transfer_syntax_uid=_uid("108"),
        program="ffmpeg",
        make=_ffmpeg("a.h265", *_X265, "yuv420p10le", "-f", "hevc"),
        is_video=True,
        tells_size=False,
        tells_frames=False,
    ),
)

DECODED_BY_SENDER: Sequence[tuple[str, Make]] = (
    ("image/png", _ffmpeg("a.png", *_ONE)),
    ("image/gif", _ffmpeg("a.gif", *_ONE)),
)
"""Images that have no transfer syntax."""
