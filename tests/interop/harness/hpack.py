"""HPACK (RFC 7541) for the test peers: a full decoder, and an encoder that adds nothing to the table.

Slow and plain on purpose: it must not share a mistake with the implementation under test.
"""

STATIC = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""),
    ("cache-control", ""), ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""),
    ("content-length", ""), ("content-location", ""), ("content-range", ""), ("content-type", ""),
    ("cookie", ""), ("date", ""), ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""),
    ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""),
    ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""),
    ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""),
    ("via", ""), ("www-authenticate", ""),
]  # fmt: skip

# Appendix B is a canonical code: the bit lengths of symbols 0..=256 alone determine it (256 is EOS).
_LENGTHS = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b08060606"
    "0505050606060606060607080f060c0a0d06070707070707070707070707070707070707070707070807080d130d0e06"
    "0f05060506050606060507070606060506070605050607070707070f0b0e0d1c14161414161616171617171717171817"
    "181816171817171717151617161717181615141616171715171616181516171715151615171617171416161617161617"
    "1a1a1413161716191a1a1a1b1b1a181913151a1b1b1a1b1815151a1a1c1b1b1b14181415161515171616191918181a17"
    "1a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a1e"
)


def _huffman_codes():
    """(length, code) -> symbol."""
    codes, code, previous = {}, 0, 0
    for symbol in sorted(range(len(_LENGTHS)), key=lambda s: (_LENGTHS[s], s)):
        length = _LENGTHS[symbol]
        code <<= length - previous
        codes[(length, code)] = symbol
        code, previous = code + 1, length
    return codes


_CODES = _huffman_codes()


class HpackError(ValueError):
    """The block does not decode."""


def huffman_decode(data):
    out, length, code = bytearray(), 0, 0
    for byte in data:
        for shift in range(7, -1, -1):
            code, length = code << 1 | byte >> shift & 1, length + 1
            symbol = _CODES.get((length, code))
            if symbol == 256:
                raise HpackError("EOS in a string")
            if symbol is not None:
                out.append(symbol)
                length = code = 0
    if length > 7 or code != (1 << length) - 1:
        raise HpackError("bad padding")
    return bytes(out)


def emit_int(value, prefix_bits, first):
    top = (1 << prefix_bits) - 1
    if value < top:
        return bytes([first | value])
    out, value = bytearray([first | top]), value - top
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def emit_string(text):
    raw = text if isinstance(text, bytes) else text.encode("latin-1")
    return emit_int(len(raw), 7, 0) + raw


def encode(fields, never_indexed=False):
    """Every field as a literal without indexing: nothing is kept, so blocks can be sent in any order."""
    first = b"\x10" if never_indexed else b"\x00"
    return b"".join(first + emit_string(name) + emit_string(value) for name, value in fields)


def encode_indexed(fields):
    """Every field as a literal with incremental indexing: fills the peer's dynamic table."""
    return b"".join(b"\x40" + emit_string(name) + emit_string(value) for name, value in fields)


class Decoder:
    """One direction's decoding context. Strings come back as latin-1, so that every byte survives."""

    def __init__(self, table_bytes_max=4096):
        self.limit = self.size_max = table_bytes_max
        self.dynamic, self.size = [], 0

    def decode(self, block):
        fields, self.at, self.block = [], 0, block
        while self.at < len(block):
            byte = block[self.at]
            if byte & 0x80:
                fields.append(self._entry(self._int(7)))
            elif byte & 0x40:
                field = self._literal(6)
                fields.append(field)
                self._insert(field)
            elif byte & 0x20:
                if fields:
                    raise HpackError("size update after a field")
                self.size_max = self._int(5)
                if self.size_max > self.limit:
                    raise HpackError("size update above the setting")
                self._evict()
            else:
                fields.append(self._literal(4))
        return fields

    def _literal(self, prefix_bits):
        index = self._int(prefix_bits)
        name = self._entry(index)[0] if index else self._string()
        return (name, self._string())

    def _entry(self, index):
        if 1 <= index <= len(STATIC):
            return STATIC[index - 1]
        if index == 0 or index - len(STATIC) > len(self.dynamic):
            raise HpackError(f"no entry {index}")
        return self.dynamic[index - len(STATIC) - 1]

    def _insert(self, field):
        self.dynamic.insert(0, field)
        self.size += len(field[0]) + len(field[1]) + 32
        self._evict()

    def _evict(self):
        while self.size > self.size_max:
            name, value = self.dynamic.pop()
            self.size -= len(name) + len(value) + 32

    def _int(self, prefix_bits):
        top = (1 << prefix_bits) - 1
        value = self.block[self.at] & top
        self.at += 1
        shift = 0
        while value >= top:
            if self.at >= len(self.block) or shift > 28:
                raise HpackError("integer cut off or too large")
            byte = self.block[self.at]
            self.at += 1
            value += (byte & 127) << shift
            shift += 7
            if not byte & 128:
                break
        return value

    def _string(self):
        if self.at >= len(self.block):
            raise HpackError("string cut off")
        coded = self.block[self.at] & 0x80
        length = self._int(7)
        raw = self.block[self.at : self.at + length]
        if len(raw) != length:
            raise HpackError("string cut off")
        self.at += length
        return (huffman_decode(raw) if coded else raw).decode("latin-1")
