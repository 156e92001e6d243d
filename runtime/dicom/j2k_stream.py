"""The structure of a JPEG 2000 or HTJ2K code stream (ISO 15444-1 annexes A and B), checked before decoding.

The decoder leaves tiles black whose parts are missing, and builds every precinct and code-block that a header
of some bytes asks for. So the tile-parts must be complete, and what they ask for must be bounded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.dicom.damage import broken
from promptray.runtime.errors import ImageError
from promptray.runtime.jpeg_markers import FrameHeader
from promptray.runtime.limits import MAX_J2K_PARTS

COD, COC = 0xFF52, 0xFF53
_SOC, _SIZ, _POC, _SOT, _SOD, _EOC = 0xFF4F, 0xFF51, 0xFF5F, 0xFF90, 0xFF93, 0xFFD9
_START = struct.pack(">HH", _SOC, _SIZ)
_END = struct.pack(">H", _EOC)
_MAX_BOXES = 100  # real JP2 files have fewer than ten
_MAX_SEGMENTS = 100_000  # one or two for each tile-part; real files have at most some thousand tile-parts
_MAX_TILES = 65535  # the index of a tile has 16 bits, the last of which is reserved (A.4.2)
_MAX_LAYERS = 100  # real files have at most about fifty
_MAX_LEVELS = 32
_WHOLE_TILE = 15  # exponent of a precinct where none is stated (A.6.1)
_PARTS_OF_A_TILE = 32  # the decoder keeps as much of a tile's coding parameters as of that many code-blocks

Edges = NDArray[np.int64]


class _Grid(NamedTuple):
    """Where tiles begin and end on the reference grid (B.3), along one axis."""

    starts: Edges
    ends: Edges


class _Style(NamedTuple):
    """Coding style of a tile (A.6.1): exponents of width and height, of precincts for every resolution."""

    block: tuple[int, int]
    precincts: list[tuple[int, int]]


def j2k_code_stream(frame: bytes) -> bytes:
    """Return a JPEG 2000 code stream, taken out of its JP2 boxes if it has any (I.4).

    Empty where there is none. Only what is returned here may be decoded: other boxes can hold another size.
    """
    if frame.startswith(_START):
        return frame
    position = 0
    for _ in range(_MAX_BOXES):
        if position + 16 > len(frame):
            break
        head = 8
        length, kind = struct.unpack_from(">I4s", frame, position)
        if length == 1:
            head, length = 16, int.from_bytes(frame[position + 8 : position + 16], "big")
        end = position + length if length else len(frame)
        if kind == b"jp2c":
            return frame[position + head : end]
        if end < position + head:
            break
        position = end
    return b""


def read_j2k_header(stream: bytes) -> FrameHeader | None:
    """Return the image size of a JPEG 2000 code stream (A.5.1, SIZ)."""
    siz = stream[6:45]
    if not stream.startswith(_START) or len(siz) < 39:
        return None
    right, bottom, left, top = struct.unpack(">4I", siz[2:18])
    components, precision = struct.unpack(">HB", siz[34:37])
    return FrameHeader(_SIZ & 0xFF, (precision & 0x7F) + 1, bottom - top, right - left, components, b"")


def header_segments(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and payload of the main header's and all tile-part headers' segments, to the end (A.2).

    Raises
    ------
    ImageError
        `image.broken` where tile-parts are not contiguous from the main header to the end marker;
        `image.too-large` where there are more than 100000 segments.
    """
    position, part_end = len(_END), 0
    for _ in range(_MAX_SEGMENTS):
        marker, length = (int.from_bytes(stream[at : at + 2], "big") for at in (position, position + 2))
        if marker == _EOC and position == part_end:
            if len(stream[position:].rstrip(b"\0")) > len(_END) + 1:  # fragments are padded to even lengths
                break
            return
        if marker == _SOD and position + 2 <= part_end:
            position = part_end
            continue
        body = stream[position + 4 : position + 2 + length]
        if not _SOC < marker < _EOC or marker == _SOD or length < 2 or len(body) != length - 2:
            break
        if marker == _SOT or position == part_end:
            if marker != _SOT or part_end not in (0, position) or len(body) != 8:
                break
            size = int.from_bytes(body[2:6], "big")
            part_end = position + size if size else stream.find(_END, position)  # 0: to the end (A.4.2)
        yield marker, body
        position += 2 + length
    else:
        raise _too_large(f"at most {_MAX_SEGMENTS} marker segments and tile-parts", "more")
    raise broken("the tile-parts of the JPEG 2000 frame are damaged or end early")


def check_j2k(stream: bytes) -> None:
    """Refuse a code stream with missing tile-parts, or that asks for more than any radiograph needs.

    Parameters
    ----------
    stream : bytes
        Of one component, with a readable SIZ whose rows and columns were checked against a limit.

    Raises
    ------
    ImageError
        `image.broken` where a header is malformed or a tile lacks parts; `image.too-large` beyond
        MAX_J2K_PARTS, 100 quality layers or 100000 segments.
    """
    tiles = _TileParts()
    layers, progressions = 1, 1
    styles: list[_Style] = []
    across, down = _Grid(*_edges(stream, 0)), _Grid(*_edges(stream, 1))
    count = across.starts.size * down.starts.size
    if count > _MAX_TILES:
        raise broken("the JPEG 2000 frame has more tiles than can be numbered")
    for marker, body in header_segments(stream):
        if marker == _SOT:
            tiles.add(body)
        elif marker == _POC:
            progressions += len(body) // 7
        elif marker == COD:
            styles.append(_read_style(body[:1], body[5:]))
            layers = max(layers, int.from_bytes(body[2:4], "big"))
        elif marker == COC:
            styles.append(_read_style(body[1:2], body[2:]))
    if not styles or not tiles.are_complete(count):
        raise broken("the JPEG 2000 frame lacks its coding style, or parts of a tile")
    if layers > _MAX_LAYERS:
        raise _too_large(f"at most {_MAX_LAYERS} quality layers", f"{layers}")
    parts = max(_parts(style, across, down, layers * progressions) for style in styles)
    if parts > MAX_J2K_PARTS:
        raise _too_large(f"at most {MAX_J2K_PARTS} code-blocks, precincts, packets and tiles", f"{parts}")


class _TileParts:
    """Which parts of which tiles there are (A.4.2, SOT)."""

    def __init__(self) -> None:
        self._found: dict[int, int] = {}
        self._stated: dict[int, int] = {}

    def add(self, body: bytes) -> None:
        """Count a tile-part, which must be its tile's next."""
        tile, _, number, stated = struct.unpack(">HIBB", body)
        if number != self._found.get(tile, 0) or (stated and self._stated.setdefault(tile, stated) != stated):
            raise broken("a tile-part of the JPEG 2000 frame is missing, doubled or out of order")
        self._found[tile] = number + 1

    def are_complete(self, tiles: int) -> bool:
        """Tell whether every tile of the grid has as many parts as it states."""
        all_there = len(self._found) == tiles and max(self._found) < tiles
        return all_there and all(self._found[tile] == stated for tile, stated in self._stated.items())


def _edges(stream: bytes, axis: int) -> tuple[Edges, Edges]:
    """Return where tiles begin and end along the columns (0) or rows (1), from SIZ (A.5.1, B.3)."""
    end, start, tile, first = struct.unpack(">8I", stream[8:40])[axis::2]
    if not first <= start < first + tile or stream[43 + axis] != 1:  # else the first tile is empty (B.3)
        raise broken("the tiles of the JPEG 2000 frame do not cover its picture")
    corners = np.arange(first, end, tile, dtype=np.int64)
    return np.maximum(corners, start), np.minimum(corners + tile, end)


def _read_style(scod: bytes, body: bytes) -> _Style:
    """Return the coding style of COD or COC, from its style byte and its parameters (table A.20)."""
    levels = body[0] if body else 0
    sizes = body[5:] if scod and scod[0] & 1 else bytes([_WHOLE_TILE * 0x11]) * (levels + 1)
    if len(body) < 5 or levels > _MAX_LEVELS or len(sizes) != levels + 1:
        raise broken("a coding style of the JPEG 2000 frame is malformed")
    width, height = body[1] + 2, body[2] + 2
    precincts = [(size & 15, size >> 4) for size in sizes]
    # Table A.18; above the lowest resolution a precinct of one sample would halve into bands of none.
    if width + height > 12 or max(width, height) > 10 or any(0 in size for size in precincts[1:]):
        raise broken("the JPEG 2000 frame has code-blocks or precincts of a forbidden size")
    return _Style((width, height), precincts)


def _parts(style: _Style, across: _Grid, down: _Grid, passes: int) -> int:
    """Return how many code-blocks, precincts of bands and packets a decoder makes or visits in all tiles.

    An upper bound, and exact where tiles and bands begin at multiples of their code-blocks (B.6, B.7): how
    often each tile touches the cells of a size is a product of columns and rows. Progressions by position
    visit each precinct's column and row of any resolution at every resolution, `passes` times.
    """
    levels = len(style.precincts) - 1
    parts = _PARTS_OF_A_TILE * across.starts.size * down.starts.size
    visited = [np.zeros_like(across.starts), np.zeros_like(down.starts)]
    for resolution, precinct in enumerate(style.precincts):
        scale, bands = levels - resolution, 3 if resolution else 1
        precincts, blocks = bands, bands
        for axis, grid in enumerate((across, down)):
            cells = _cells(grid, scale + precinct[axis])
            # Bands above the lowest resolution have half its samples: a block covers twice its own size.
            block = min(style.block[axis] + (1 if resolution else 0), precinct[axis])
            visited[axis] = np.maximum(visited[axis], cells)
            precincts *= int(cells.sum())
            blocks *= int(_cells(grid, scale + block).sum())
        parts += precincts + blocks
    return parts + int(visited[0].sum()) * int(visited[1].sum()) * (levels + 1) * passes


def _cells(grid: _Grid, exponent: int) -> Edges:
    """Count the cells of 2**exponent that each tile touches."""
    return -(-grid.ends >> exponent) - (grid.starts >> exponent)


def _too_large(expected: str, found: str) -> ImageError:
    return ImageError(
        "image.too-large",
        "the JPEG 2000 frame is cut into more parts than any radiograph",
        expected=expected,
        found=found,
        cure="let the archive send it as Explicit VR Little Endian",
    )
