"""Decodes header blocks with nghttp2, an HPACK of other hands.

Standard input: one line a step, of three words.
    story - NAME        a new connection
    table BYTES -       the decoder's SETTINGS_HEADER_TABLE_SIZE is now in force
    block HEX -         a header block
Standard output: for each block its fields, one line each: NAME VALUE N, in hex, N being 1 if never indexed;
then an empty line. A block that nghttp2 refuses gives one line, "error CODE".
Exit code 77: no libnghttp2 here.
"""
import ctypes
import sys

EMIT, FINAL, NO_INDEX = 0x02, 0x01, 0x01


class Field(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.POINTER(ctypes.c_uint8)),
        ("value", ctypes.POINTER(ctypes.c_uint8)),
        ("name_len", ctypes.c_size_t),
        ("value_len", ctypes.c_size_t),
        ("flags", ctypes.c_uint8),
    ]


def load():
    for name in ("libnghttp2.so.14", "libnghttp2.so"):
        try:
            lib = ctypes.CDLL(name)
        except OSError:
            continue
        lib.nghttp2_hd_inflate_hd2.restype = ctypes.c_ssize_t
        lib.nghttp2_hd_inflate_hd2.argtypes = [
            ctypes.c_void_p,
            ctypes.POINTER(Field),
            ctypes.POINTER(ctypes.c_int),
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_int,
        ]
        lib.nghttp2_hd_inflate_change_table_size.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        lib.nghttp2_hd_inflate_end_headers.argtypes = [ctypes.c_void_p]
        lib.nghttp2_hd_inflate_del.argtypes = [ctypes.c_void_p]
        return lib
    sys.exit(77)


def inflate(lib, inflater, block):
    buffer = ctypes.create_string_buffer(block, len(block))
    at, field, flags = 0, Field(), ctypes.c_int()
    while True:
        flags.value = 0
        here = ctypes.addressof(buffer) + at
        used = lib.nghttp2_hd_inflate_hd2(inflater, field, flags, here, len(block) - at, 1)
        if used < 0:
            yield f"error {used}"
            return
        at += used
        if flags.value & EMIT:
            name = ctypes.string_at(field.name, field.name_len).hex()
            value = ctypes.string_at(field.value, field.value_len).hex()
            yield f"{name} {value} {field.flags & NO_INDEX}"
        if flags.value & FINAL:
            lib.nghttp2_hd_inflate_end_headers(inflater)
            return
        if used == 0 and not flags.value & EMIT:
            yield "error stuck"
            return


def main():
    lib = load()
    inflater = None
    for line in sys.stdin:
        what, argument, _ = line.split(" ", 2)
        if what == "story":
            if inflater is not None:
                lib.nghttp2_hd_inflate_del(inflater)
            inflater = ctypes.c_void_p()
            assert lib.nghttp2_hd_inflate_new(ctypes.byref(inflater)) == 0
        elif what == "table":
            assert lib.nghttp2_hd_inflate_change_table_size(inflater, int(argument)) == 0
        elif what == "block":
            for field in inflate(lib, inflater, bytes.fromhex(argument)):
                print(field)
            print()


main()
