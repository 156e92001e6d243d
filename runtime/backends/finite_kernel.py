"""The kernel that looks for what is no number, as PTX text: the driver compiles it for the GPU that is there.

A floating-point value is NaN or infinite exactly if all bits of its exponent are set, so values are looked at
as whole numbers. There is one thread for each value, and whoever finds such a one writes 1 to the flag; that
many write the same number is no harm. The text asks for nothing that GPUs from compute capability 7.0 on
lack: PTX runs on that capability and on every later one.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

#: Threads of a block.
BLOCK: Final = 256
#: The function for each type of value. Parameters: address of the values, how many, address of the flag.
ENTRIES: Final[dict[np.dtype[Any], str]] = {
    np.dtype(np.float32): "mark_not_finite_float32",
    np.dtype(np.float16): "mark_not_finite_float16",
}

_HEADER = """\
.version 6.0
.target sm_70
.address_size 64
"""

_ENTRY = """
.visible .entry {name}(
    .param .u64 values,
    .param .u32 count,
    .param .u64 flag
)
{{
    .reg .pred %p<2>;
    .reg .b32 %r<7>;
    .reg .b64 %a<4>;

    mov.u32 %r0, %ctaid.x;
    mov.u32 %r1, %ntid.x;
    mov.u32 %r2, %tid.x;
    mad.lo.u32 %r3, %r0, %r1, %r2;
    ld.param.u32 %r4, [count];
    setp.ge.u32 %p0, %r3, %r4;
    @%p0 ret;

    ld.param.u64 %a0, [values];
    cvta.to.global.u64 %a0, %a0;
    mul.wide.u32 %a1, %r3, {size};
    add.u64 %a2, %a0, %a1;
    ld.global.u{bits} %r5, [%a2];
    and.b32 %r6, %r5, {exponent:#x};
    setp.ne.u32 %p1, %r6, {exponent:#x};
    @%p1 ret;

    ld.param.u64 %a3, [flag];
    cvta.to.global.u64 %a3, %a3;
    st.global.u32 [%a3], 1;
    ret;
}}
"""


def _entry(dtype: np.dtype[np.floating], exponent: int) -> str:
    return _ENTRY.format(name=ENTRIES[dtype], size=dtype.itemsize, bits=8 * dtype.itemsize, exponent=exponent)


PTX: Final = _HEADER + _entry(np.dtype(np.float32), 0x7F800000) + _entry(np.dtype(np.float16), 0x7C00)
