//! NaNs made canonical on their way out of a module.
//!
//! The sign and payload of a NaN that was computed differ between processors and between compilers, so a snapshot or state
//! that holds one would not be the same bytes everywhere. [`Canonical`] wraps a value, and serialises it as the value would, but every NaN as
//! the one with positive sign and only the quiet bit set. Making them canonical here costs one comparison per float; doing it in the compiled
//! code costs half of the speed.
//!
//! In a format for people (where serde's `is_human_readable` says so, as JSON's) a float that is no number becomes a string instead, `"NaN"`, `"inf"` or
//! `"-inf"`: JSON has no other way to tell it from a `None`.

use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

/// The NaN that leaves a module as `f32`.
pub const NAN_F32: f32 = f32::from_bits(0x7fc0_0000);
/// The NaN that leaves a module as `f64`.
pub const NAN_F64: f64 = f64::from_bits(0x7ff8_0000_0000_0000);

/// Appends a value as postcard, with canonical NaNs.
///
/// # Errors
/// Those of the value's `Serialize` (a sequence of unknown length, say); `out` may then hold a part of it.
pub fn to_postcard<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), postcard::Error> {
    postcard::serialize_with_flavor(&Canonical(value), Append(out))
}

/// Up to so many bytes are appended one by one. A varint is a slice whose length only the running module knows, and copying such a one is a call
/// that leaves the module, as dear as twenty numbers; most varints are shorter than this, and no float is.
const VARINT_BYTES_SHORT: usize = 3;

struct Append<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Append<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        if bytes.len() <= VARINT_BYTES_SHORT {
            bytes.iter().for_each(|byte| self.0.push(*byte));
        } else {
            self.0.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// A value that serialises with canonical NaNs.
#[derive(Debug, Clone, Copy)]
pub struct Canonical<T>(pub T);

impl<T: Serialize> Serialize for Canonical<T> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(Wrap(serializer))
    }
}

/// A serializer, or the state of one within a compound, that passes everything on but NaNs.
struct Wrap<S>(S);

/// A float that is no number, in words.
const fn word(value: f64) -> &'static str {
    if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "inf"
    } else {
        "-inf"
    }
}

macro_rules! pass {
    ($($method:ident($type:ty);)*) => {$(
        #[inline]
        fn $method(self, value: $type) -> Result<S::Ok, S::Error> { self.0.$method(value) }
    )*};
}

impl<S: Serializer> Serializer for Wrap<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Wrap<S::SerializeSeq>;
    type SerializeTuple = Wrap<S::SerializeTuple>;
    type SerializeTupleStruct = Wrap<S::SerializeTupleStruct>;
    type SerializeTupleVariant = Wrap<S::SerializeTupleVariant>;
    type SerializeMap = Wrap<S::SerializeMap>;
    type SerializeStruct = Wrap<S::SerializeStruct>;
    type SerializeStructVariant = Wrap<S::SerializeStructVariant>;

    pass! {
        serialize_bool(bool); serialize_i8(i8); serialize_i16(i16); serialize_i32(i32); serialize_i64(i64); serialize_i128(i128);
        serialize_u8(u8); serialize_u16(u16); serialize_u32(u32); serialize_u64(u64); serialize_u128(u128);
        serialize_char(char); serialize_str(&str); serialize_bytes(&[u8]); serialize_unit_struct(&'static str);
    }

    #[inline]
    fn serialize_f32(self, value: f32) -> Result<S::Ok, S::Error> {
        if !value.is_finite() && self.0.is_human_readable() {
            return self.0.serialize_str(word(value.into()));
        }
        self.0.serialize_f32(if value.is_nan() { NAN_F32 } else { value })
    }
    #[inline]
    fn serialize_f64(self, value: f64) -> Result<S::Ok, S::Error> {
        if !value.is_finite() && self.0.is_human_readable() {
            return self.0.serialize_str(word(value));
        }
        self.0.serialize_f64(if value.is_nan() { NAN_F64 } else { value })
    }
    #[inline]
    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.0.serialize_none()
    }
    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.0.serialize_some(&Canonical(value))
    }
    #[inline]
    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.0.serialize_unit()
    }
    #[inline]
    fn serialize_unit_variant(self, name: &'static str, index: u32, variant: &'static str) -> Result<S::Ok, S::Error> {
        self.0.serialize_unit_variant(name, index, variant)
    }
    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<S::Ok, S::Error> {
        self.0.serialize_newtype_struct(name, &Canonical(value))
    }
    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.0.serialize_newtype_variant(name, index, variant, &Canonical(value))
    }
    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        self.0.serialize_seq(len).map(Wrap)
    }
    #[inline]
    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        self.0.serialize_tuple(len).map(Wrap)
    }
    #[inline]
    fn serialize_tuple_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeTupleStruct, S::Error> {
        self.0.serialize_tuple_struct(name, len).map(Wrap)
    }
    #[inline]
    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        self.0.serialize_tuple_variant(name, index, variant, len).map(Wrap)
    }
    #[inline]
    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        self.0.serialize_map(len).map(Wrap)
    }
    #[inline]
    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeStruct, S::Error> {
        self.0.serialize_struct(name, len).map(Wrap)
    }
    #[inline]
    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        self.0.serialize_struct_variant(name, index, variant, len).map(Wrap)
    }
    #[inline]
    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

macro_rules! compound {
    ($($trait:ident { $($method:ident($($key:ident)?);)* })*) => {$(
        impl<S: $trait> $trait for Wrap<S> {
            type Ok = S::Ok;
            type Error = S::Error;
            $(compound!(@ $method $($key)?);)*
            #[inline]
            fn end(self) -> Result<S::Ok, S::Error> { self.0.end() }
        }
    )*};
    (@ $method:ident key) => {
        #[inline]
        fn $method<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), S::Error> {
            self.0.$method(key, &Canonical(value))
        }
    };
    (@ $method:ident) => {
        #[inline]
        fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> { self.0.$method(&Canonical(value)) }
    };
}

compound! {
    SerializeSeq { serialize_element(); }
    SerializeTuple { serialize_element(); }
    SerializeTupleStruct { serialize_field(); }
    SerializeTupleVariant { serialize_field(); }
    SerializeMap { serialize_key(); serialize_value(); }
    SerializeStruct { serialize_field(key); }
    SerializeStructVariant { serialize_field(key); }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};
    use std::collections::BTreeMap;

    #[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
    enum Shape {
        Unit,
        New(f32),
        Pair(f64, u8),
        Named { x: f32, deep: Option<Box<Shape>> },
    }

    #[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
    struct New(f64);

    #[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
    struct All {
        f: f32,
        list: Vec<(f64, char)>,
        map: BTreeMap<String, f32>,
        new: New,
        shapes: [Shape; 3],
        text: String,
        nothing: (),
        big: i128,
    }

    fn all(f: f32, d: f64, text: String) -> All {
        All {
            f,
            list: vec![(d, 'x'), (1.0, 'y')],
            map: BTreeMap::from([(text.clone(), f)]),
            new: New(d),
            shapes: [Shape::Unit, Shape::Pair(d, 3), Shape::Named { x: f, deep: Some(Box::new(Shape::New(f))) }],
            text,
            nothing: (),
            big: -5,
        }
    }

    #[test]
    fn what_is_no_number_is_a_word_in_json() {
        let text = |f: f32, d: f64| serde_json::to_string(&Canonical(all(f, d, "a".into()))).unwrap();
        let words = text(f32::NAN, f64::NEG_INFINITY);
        assert!(
            words.starts_with(r#"{"f":"NaN","list":[["-inf","x"],[1.0,"y"]],"map":{"a":"NaN"},"new":"-inf","#),
            "{words}"
        );
        assert!(text(f32::INFINITY, -f64::NAN).starts_with(r#"{"f":"inf","list":[["NaN","x"]"#));
        // Nothing else is touched.
        assert_eq!(text(0.1, 1e300), serde_json::to_string(&all(0.1, 1e300, "a".into())).unwrap());
    }

    proptest! {
        #[test]
        fn without_nans_the_bytes_are_those_of_postcard(f in -1e30f32..1e30, d in -1e300..1e300f64, text in ".{0,9}") {
            let value = all(f, d, text);
            let mut out = vec![7];
            to_postcard(&value, &mut out).unwrap();
            prop_assert_eq!(&out[1..], postcard::to_allocvec(&value).unwrap());
            prop_assert_eq!(postcard::from_bytes::<All>(&out[1..]).unwrap(), value);
        }

        #[test]
        fn every_nan_leaves_as_the_same_bytes(bits32: u32, bits64: u64) {
            let f = f32::from_bits(bits32 | 0x7fc0_0000);
            let d = f64::from_bits(bits64 | 0x7ff8_0000_0000_0000);
            let (mut some, mut canonical) = (vec![], vec![]);
            to_postcard(&all(f, d, "a".into()), &mut some).unwrap();
            to_postcard(&all(NAN_F32, NAN_F64, "a".into()), &mut canonical).unwrap();
            prop_assert_eq!(&some, &canonical);
            prop_assert_eq!(&canonical, &postcard::to_allocvec(&all(NAN_F32, NAN_F64, "a".into())).unwrap());
        }
    }
}
