"""Tell DICOM from anything else by its first bytes, without importing pydicom."""

from __future__ import annotations

_PREAMBLE = 128
#: Explicit VRs that a data set's first elements have; used to recognise data sets without file meta.
_FIRST_VRS = frozenset({b"UL", b"OB", b"UI", b"CS", b"SH", b"LO", b"DA", b"TM", b"UN"})


def looks_like_dicom(data: bytes) -> bool:
    """Tell whether bytes are a DICOM object: with preamble, with bare file meta, or a bare data set."""
    return has_preamble(data) or _begins_with_element(data)


def has_preamble(data: bytes) -> bool:
    """Tell whether bytes begin with a preamble; in a bare data set the letters may stand there by chance."""
    return data[_PREAMBLE : _PREAMBLE + 4] == b"DICM" and not _begins_with_element(data)


def with_preamble(data: bytes) -> bytes:
    """Return bytes that a parser which looks for the letters alone cannot mistake."""
    chance = data[_PREAMBLE : _PREAMBLE + 4] == b"DICM" and not has_preamble(data)
    return bytes(_PREAMBLE) + b"DICM" + data if chance else data


def _begins_with_element(data: bytes) -> bool:
    """Tell whether bytes begin with a group 0002 or 0008 element of plausible VR or implicit length."""
    if len(data) < 16:
        return False
    group_little, group_big = (int.from_bytes(data[:2], order) for order in ("little", "big"))
    if data[4:6] in _FIRST_VRS:
        return group_little in (2, 8) or group_big in (2, 8)
    length = int.from_bytes(data[4:8], "little")
    return group_little == 8 and data[3] == 0 and length % 2 == 0 and length <= min(len(data), 1024)
