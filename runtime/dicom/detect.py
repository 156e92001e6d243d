"""Tell DICOM from anything else by its first bytes, without importing pydicom."""

from __future__ import annotations

_PREAMBLE = 128
#: Explicit VRs that a data set's first elements have; used to recognise data sets without file meta.
_FIRST_VRS = frozenset({b"UL", b"OB", b"UI", b"CS", b"SH", b"LO", b"DA", b"TM", b"UN"})


def looks_like_dicom(data: bytes) -> bool:
    """Tell whether bytes are a DICOM object: with preamble, with bare file meta, or a bare data set.

    A bare data set must begin with a group 0002 or 0008 element whose VR, or whose implicit length, is
    plausible.
    """
    if data[_PREAMBLE : _PREAMBLE + 4] == b"DICM":
        return True
    if len(data) < 16:
        return False
    group_little, group_big = (int.from_bytes(data[:2], order) for order in ("little", "big"))
    if data[4:6] in _FIRST_VRS:
        return group_little in (2, 8) or group_big in (2, 8)
    length = int.from_bytes(data[4:8], "little")
    return group_little == 8 and data[3] == 0 and length % 2 == 0 and length <= min(len(data), 1024)
