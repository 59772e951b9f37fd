//! The protobuf wire format: keys, varints and the skipping of what nobody reads.
//!
//! A message is a run of fields, each a key (number and wire type) and a value. Nothing here knows a schema;
//! `lang` reads and writes by one. Reading is strict where parsers are: a varint has at most 10 bytes and 64
//! bits, a field has a number, a group ends with its own, and nothing nests deeper than [`DEPTH_MAX`].
//!
//! Invariant: every step consumes at least one byte or fails.

use alloc::vec::Vec;

/// Messages and groups within one another.
pub const DEPTH_MAX: u32 = 100;

/// How a value is laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wire {
    /// 0: a varint.
    Varint,
    /// 1: eight bytes, little endian.
    Fixed64,
    /// 2: a length and that many bytes.
    Len,
    /// 3: fields up to the key that ends the group.
    Group,
    /// 4: the end of a group.
    EndGroup,
    /// 5: four bytes, little endian.
    Fixed32,
}

/// The bytes are no message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

/// What is left to read of a message, and where it stands in it.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'m> {
    bytes: &'m [u8],
    at: usize,
}

impl<'m> Reader<'m> {
    /// Reads `bytes` from their beginning.
    pub fn new(bytes: &'m [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read so far.
    #[inline]
    pub fn at(&self) -> usize {
        self.at
    }

    /// Nothing is left.
    #[inline]
    pub fn is_done(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// A varint.
    ///
    /// # Errors
    /// It does not end, or has more than 64 bits.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        match self.bytes.get(self.at) {
            Some(byte) if *byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(*byte))
            }
            _ => {
                // Not `&mut self`: a reader that nobody points to stays in registers.
                let (value, len) = long_varint(self.bytes.get(self.at..).unwrap_or(&[]))?;
                self.at += len;
                Ok(value)
            }
        }
    }

    /// A key: the field's number, never 0, and the layout of its value.
    ///
    /// # Errors
    /// It is none.
    #[inline]
    pub fn key(&mut self) -> Result<(u32, Wire), Malformed> {
        let key = u32::try_from(self.varint()?).map_err(|_| Malformed)?;
        let wire = match key & 7 {
            0 => Wire::Varint,
            1 => Wire::Fixed64,
            2 => Wire::Len,
            3 => Wire::Group,
            4 => Wire::EndGroup,
            5 => Wire::Fixed32,
            _ => return Err(Malformed),
        };
        if key >> 3 == 0 { Err(Malformed) } else { Ok((key >> 3, wire)) }
    }

    /// The bytes behind a length, and where they begin.
    ///
    /// # Errors
    /// There are fewer.
    #[inline]
    pub fn slice(&mut self) -> Result<(usize, &'m [u8]), Malformed> {
        let len = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
        let at = self.at;
        let end = at.checked_add(len).ok_or(Malformed)?;
        let slice = self.bytes.get(at..end).ok_or(Malformed)?;
        self.at = end;
        Ok((at, slice))
    }

    /// Four bytes.
    ///
    /// # Errors
    /// There are fewer.
    #[inline]
    pub fn fixed32(&mut self) -> Result<u32, Malformed> {
        let (four, _) = self.bytes.get(self.at..).and_then(<[u8]>::split_first_chunk).ok_or(Malformed)?;
        self.at += 4;
        Ok(u32::from_le_bytes(*four))
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// There are fewer.
    #[inline]
    pub fn fixed64(&mut self) -> Result<u64, Malformed> {
        let (eight, _) = self.bytes.get(self.at..).and_then(<[u8]>::split_first_chunk).ok_or(Malformed)?;
        self.at += 8;
        Ok(u64::from_le_bytes(*eight))
    }

    /// Goes over the value of field `number`, whatever it is. `depth` is how many more groups may nest.
    ///
    /// # Errors
    /// It is cut off, a group ends with another's number, or too much is nested.
    #[inline]
    pub fn skip(&mut self, number: u32, wire: Wire, depth: u32) -> Result<(), Malformed> {
        match wire {
            Wire::Varint => self.varint().map(|_| ()),
            Wire::Fixed64 => self.fixed64().map(|_| ()),
            Wire::Fixed32 => self.fixed32().map(|_| ()),
            Wire::Len => self.slice().map(|_| ()),
            Wire::EndGroup => Err(Malformed),
            Wire::Group => {
                *self = self.behind_group(number, depth)?;
                Ok(())
            }
        }
    }

    /// The reader behind group `number`, of which the key has been read.
    fn behind_group(mut self, number: u32, depth: u32) -> Result<Self, Malformed> {
        let depth = depth.checked_sub(1).ok_or(Malformed)?;
        loop {
            match self.key()? {
                (end, Wire::EndGroup) => return if end == number { Ok(self) } else { Err(Malformed) },
                (inner, wire) => self.skip(inner, wire, depth)?,
            }
        }
    }
}

/// The varint that `bytes` begin with, and how many it takes.
fn long_varint(bytes: &[u8]) -> Result<(u64, usize), Malformed> {
    let mut value = 0_u64;
    for (nth, byte) in bytes.iter().enumerate().take(10) {
        // The tenth byte has room for one bit.
        if nth == 9 && *byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << (7 * nth);
        if *byte < 0x80 {
            return Ok((value, nth + 1));
        }
    }
    Err(Malformed)
}

/// Appends a varint.
pub fn put_varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    to.push(value.to_le_bytes()[0]);
}

/// Appends a key.
pub fn put_key(to: &mut Vec<u8>, number: u32, wire: Wire) {
    let wire = match wire {
        Wire::Varint => 0,
        Wire::Fixed64 => 1,
        Wire::Len => 2,
        Wire::Group => 3,
        Wire::EndGroup => 4,
        Wire::Fixed32 => 5,
    };
    put_varint(to, u64::from(number) << 3 | wire);
}

/// Puts the length of all that stands from `from` before it.
pub fn put_length_before(to: &mut Vec<u8>, from: usize) {
    let len = to.len().saturating_sub(from);
    put_varint(to, len as u64);
    if let Some(tail) = to.get_mut(from..) {
        tail.rotate_left(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_have_ten_bytes_and_64_bits() {
        let read = |bytes: &[u8]| Reader::new(bytes).varint();
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX >> 1, u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(read(&bytes), Ok(value));
            assert_eq!(read(&bytes[..bytes.len() - 1]), Err(Malformed));
        }
        assert_eq!(read(&[0x80, 0x80, 0]), Ok(0), "longer than needed is a varint still");
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]), Err(Malformed));
        assert_eq!(read(&[0x80; 11]), Err(Malformed));
    }

    #[test]
    fn keys_have_a_number_and_a_known_layout() {
        assert_eq!(Reader::new(&[0x0a]).key(), Ok((1, Wire::Len)));
        assert_eq!(Reader::new(&[0x02]).key(), Err(Malformed), "field 0");
        assert_eq!(Reader::new(&[0x0e]).key(), Err(Malformed), "wire type 6");
        assert_eq!(Reader::new(&[0x80, 0x80, 0x80, 0x80, 0x10]).key(), Err(Malformed), "more than 32 bits");
    }

    #[test]
    fn groups_end_with_their_own_number_and_nest_so_deep() {
        let skip = |bytes: &[u8], depth| {
            let mut reader = Reader::new(bytes);
            let (number, wire) = reader.key().unwrap();
            reader.skip(number, wire, depth).map(|()| reader.at())
        };
        assert_eq!(skip(&[0x0b, 0x10, 5, 0x0c], 100), Ok(4));
        assert_eq!(skip(&[0x0b, 0x14], 100), Err(Malformed), "another group's end");
        assert_eq!(skip(&[0x0b, 0x10, 5], 100), Err(Malformed), "no end");
        assert_eq!(skip(&[0x0c], 100), Err(Malformed), "no beginning");
        assert_eq!(skip(&[0x0b, 0x0b, 0x0c, 0x0c], 2), Ok(4));
        assert_eq!(skip(&[0x0b, 0x0b, 0x0c, 0x0c], 1), Err(Malformed));
    }

    #[test]
    fn a_length_goes_before_what_it_measures() {
        let mut bytes = alloc::vec![9; 3];
        bytes.resize(203, 7);
        put_length_before(&mut bytes, 3);
        assert_eq!(&bytes[..6], &[9, 9, 9, 0xc8, 0x01, 7]);
        assert_eq!(bytes.len(), 205);
    }
}
