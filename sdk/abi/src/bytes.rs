//! Reading and writing little-endian fields with bounds checked. No record's layout lives here.

use alloc::vec::Vec;
use core::fmt;

/// A record that does not follow the specification: which record, which field, where, and what was wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    /// The record: "setup", "tick", "output", "restore".
    pub record: &'static str,
    /// The field.
    pub field: &'static str,
    /// Offset of the field from the record's start, in bytes.
    pub offset: usize,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} record, field `{}` at byte {}: {}", self.record, self.field, self.offset, self.problem)
    }
}

impl core::error::Error for Malformed {}

/// A cursor over a record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a> {
    pub(crate) record: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) const fn new(record: &'static str, bytes: &'a [u8]) -> Self {
        Self { record, bytes, at: 0 }
    }

    pub(crate) const fn malformed(&self, field: &'static str, problem: &'static str) -> Malformed {
        Malformed { record: self.record, field, offset: self.at, problem }
    }

    #[inline]
    pub(crate) fn take(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], Malformed> {
        let taken = self
            .at
            .checked_add(len)
            .and_then(|end| self.bytes.get(self.at..end))
            .ok_or(self.malformed(field, "the record ends before it"))?;
        self.at += len;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Malformed> {
        let taken = self.take(field, N)?;
        taken.try_into().map_err(|_| self.malformed(field, "the record ends before it"))
    }

    #[inline]
    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, Malformed> {
        Ok(u8::from_le_bytes(self.array(field)?))
    }

    #[inline]
    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array(field)?))
    }

    #[inline]
    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    #[inline]
    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    /// Bytes followed by zeros up to the next multiple of 4.
    #[inline]
    pub(crate) fn padded(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], Malformed> {
        let taken = self.take(field, len)?;
        self.take(field, padding(self.at))?;
        Ok(taken)
    }

    pub(crate) fn padded_str(&mut self, field: &'static str, len: usize) -> Result<&'a str, Malformed> {
        let before = *self;
        let bytes = self.padded(field, len)?;
        core::str::from_utf8(bytes).map_err(|_| before.malformed(field, "not UTF-8 text"))
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        self.at = self.bytes.len();
        rest
    }

    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.malformed("end", "bytes follow the last field")) }
    }
}

/// Zero bytes needed after `len` bytes to reach a multiple of 4.
#[inline]
pub(crate) const fn padding(len: usize) -> usize {
    len.wrapping_neg() & 3
}

/// Appends bytes and their padding to a record that starts at the beginning of `out`.
pub(crate) fn push_padded(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
    pad(out);
}

/// Appends zeros up to a multiple of 4.
pub(crate) fn pad(out: &mut Vec<u8>) {
    out.resize(out.len() + padding(out.len()), 0);
}
