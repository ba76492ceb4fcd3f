//! Bytes as a scenario writes them: in hexadecimal, or as named fields of declared types. What a module reads is its own affair: postcard, as
//! the SDK does it, or numbers of fixed width.

use serde_json::{Map, Value};

/// Most fields of a layout; an input has 240 bytes at most.
const FIELDS_MAX: usize = 240;

/// The type of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    /// Bits; a byte is one byte, others are postcard's varints.
    Unsigned(u32),
    /// As `Unsigned`, zigzag.
    Signed(u32),
    /// Fixed width, little-endian.
    UnsignedFixed(u32),
    SignedFixed(u32),
    Float(u32),
}

const KINDS: [(&str, Kind); 17] = [
    ("bool", Kind::Bool),
    ("u8", Kind::UnsignedFixed(8)),
    ("u16", Kind::Unsigned(16)),
    ("u32", Kind::Unsigned(32)),
    ("u64", Kind::Unsigned(64)),
    ("i8", Kind::SignedFixed(8)),
    ("i16", Kind::Signed(16)),
    ("i32", Kind::Signed(32)),
    ("i64", Kind::Signed(64)),
    ("f32", Kind::Float(32)),
    ("f64", Kind::Float(64)),
    ("u16le", Kind::UnsignedFixed(16)),
    ("u32le", Kind::UnsignedFixed(32)),
    ("u64le", Kind::UnsignedFixed(64)),
    ("i16le", Kind::SignedFixed(16)),
    ("i32le", Kind::SignedFixed(32)),
    ("i64le", Kind::SignedFixed(64)),
];

/// Named fields in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Layout {
    fields: Vec<(String, Kind)>,
}

impl Layout {
    /// Reads declarations like `throttle:u8`.
    pub(super) fn parse(declared: &[String]) -> Result<Self, String> {
        if declared.len() > FIELDS_MAX {
            return Err(format!("{} fields; at most {FIELDS_MAX} are taken", declared.len()));
        }
        let mut fields: Vec<(String, Kind)> = Vec::new();
        for text in declared {
            let (name, kind) =
                text.split_once(':').map_or((text.as_str(), ""), |(name, kind)| (name.trim(), kind.trim()));
            let found = KINDS.iter().find(|(word, _)| *word == kind);
            let Some((_, kind)) = found.filter(|_| !name.is_empty()) else {
                let known: Vec<_> = KINDS.iter().map(|(word, _)| *word).collect();
                return Err(format!(
                    "{text:?} is no field; a field is `name:type`, with one of the types {}",
                    known.join(", ")
                ));
            };
            if fields.iter().any(|(other, _)| other == name) {
                return Err(format!("two fields are named `{name}`"));
            }
            fields.push((name.to_owned(), *kind));
        }
        Ok(Self { fields })
    }

    /// The bytes of an object. Fields that it does not name are zero.
    pub(super) fn encode(&self, object: &Map<String, Value>) -> Result<Vec<u8>, String> {
        if let Some(unknown) = object.keys().find(|key| !self.fields.iter().any(|(name, _)| name == *key)) {
            let known: Vec<_> = self.fields.iter().map(|(name, _)| name.as_str()).collect();
            return Err(format!("there is no field `{unknown}`; `fields` declares {}", known.join(", ")));
        }
        let mut bytes = Vec::new();
        for (name, kind) in &self.fields {
            let value = object.get(name).unwrap_or(&Value::Null);
            kind.write(value, &mut bytes)
                .ok_or_else(|| format!("`{name}` is {value}, which is not {}", kind.range()))?;
        }
        Ok(bytes)
    }

    /// The fields at the beginning of bytes; what follows them is ignored.
    pub(super) fn decode(&self, mut bytes: &[u8]) -> Result<Value, String> {
        let mut object = Map::new();
        for (name, kind) in &self.fields {
            let value =
                kind.read(&mut bytes).ok_or_else(|| format!("the bytes have no field `{name}`: {}", kind.range()))?;
            object.insert(name.clone(), value);
        }
        Ok(Value::Object(object))
    }
}

impl Kind {
    fn range(self) -> String {
        match self {
            Self::Bool => "true or false".into(),
            Self::Unsigned(bits) | Self::UnsignedFixed(bits) => {
                format!("a whole number from 0 to {}", u64::MAX >> (64 - bits))
            }
            Self::Signed(bits) | Self::SignedFixed(bits) => {
                let most = i64::MAX >> (64 - bits);
                format!("a whole number from {} to {most}", -most - 1)
            }
            Self::Float(_) => "a number".into(),
        }
    }

    fn write(self, value: &Value, out: &mut Vec<u8>) -> Option<()> {
        let absent = value.is_null();
        let unsigned = |bits: u32| {
            let number = if absent { Some(0) } else { value.as_u64() };
            number.filter(|number| *number <= u64::MAX >> (64 - bits))
        };
        let signed = |bits: u32| {
            let number = if absent { Some(0) } else { value.as_i64() };
            number.filter(|number| number >> (bits - 1) == 0 || number >> (bits - 1) == -1)
        };
        let mut fixed = |bytes: [u8; 8], bits: u32| out.extend(bytes.iter().take(bits as usize / 8));
        match self {
            Self::Bool => out.push(u8::from(if absent { false } else { value.as_bool()? })),
            Self::UnsignedFixed(bits) => fixed(unsigned(bits)?.to_le_bytes(), bits),
            Self::SignedFixed(bits) => fixed(signed(bits)?.to_le_bytes(), bits),
            Self::Unsigned(bits) => write_varint(unsigned(bits)?, out),
            Self::Signed(bits) => {
                let number = signed(bits)?;
                write_varint(((number << 1) ^ (number >> 63)).cast_unsigned(), out);
            }
            Self::Float(bits) => {
                let number = if absent { 0.0 } else { value.as_f64()? };
                if bits == 32 {
                    out.extend((number as f32).to_le_bytes());
                } else {
                    out.extend(number.to_le_bytes());
                }
            }
        }
        Some(())
    }

    fn read(self, bytes: &mut &[u8]) -> Option<Value> {
        let mut fixed = |bits: u32| {
            let (taken, rest) = bytes.split_at_checked(bits as usize / 8)?;
            let mut wide = [0; 8];
            wide.iter_mut().zip(taken).for_each(|(to, from)| *to = *from);
            *bytes = rest;
            Some(u64::from_le_bytes(wide))
        };
        Some(match self {
            Self::Bool => match fixed(8)? {
                0 => false.into(),
                1 => true.into(),
                _ => return None,
            },
            Self::UnsignedFixed(bits) => fixed(bits)?.into(),
            Self::SignedFixed(bits) => (fixed(bits)?.cast_signed() << (64 - bits) >> (64 - bits)).into(),
            Self::Unsigned(bits) => read_varint(bytes).filter(|number| *number <= u64::MAX >> (64 - bits))?.into(),
            Self::Signed(bits) => {
                let number = read_varint(bytes).filter(|number| *number <= u64::MAX >> (64 - bits))?;
                ((number >> 1).cast_signed() ^ -(number & 1).cast_signed()).into()
            }
            // What is no number is null, as JSON has it.
            Self::Float(32) => f64::from(f32::from_bits(fixed(32)? as u32)).into(),
            Self::Float(_) => f64::from_bits(fixed(64)?).into(),
        })
    }
}

/// Seven bits a byte, the lowest first; all but the last have the eighth set (postcard's and LEB128's form).
fn write_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Bytes in hexadecimal; spaces may stand between them.
pub(super) fn parse_hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let nibble = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => Some(nibble(high)? << 4 | nibble(low)?),
        _ => None,
    });
    pairs
        .collect::<Option<Vec<u8>>>()
        .ok_or_else(|| format!("{text:?} are no bytes in hexadecimal: two digits each, like \"00 ff 1a\""))
}

/// The same the other way about.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::{Deserialize, Serialize};
    use serde_json::json;

    fn layout(declared: &[&str]) -> Layout {
        Layout::parse(&declared.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    fn encode(layout: &Layout, value: Value) -> Result<Vec<u8>, String> {
        layout.encode(value.as_object().unwrap())
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug, Default)]
    struct All {
        a: bool,
        b: u8,
        c: u16,
        d: u32,
        e: u64,
        f: i8,
        g: i16,
        h: i32,
        i: i64,
        j: f32,
        k: f64,
    }

    const ALL: [&str; 11] =
        ["a:bool", "b:u8", "c:u16", "d:u32", "e:u64", "f:i8", "g:i16", "h:i32", "i:i64", "j:f32", "k : f64"];

    #[test]
    fn fields_are_those_of_postcard() {
        let all = layout(&ALL);
        for value in [
            All::default(),
            All {
                a: true,
                b: 255,
                c: 300,
                d: 1 << 20,
                e: 1 << 40,
                f: -1,
                g: -300,
                h: 70_000,
                i: -(1 << 40),
                j: 1.5,
                k: -0.25,
            },
            All {
                a: true,
                b: 1,
                c: u16::MAX,
                d: u32::MAX,
                e: u64::MAX,
                f: i8::MIN,
                g: i16::MIN,
                h: i32::MIN,
                i: i64::MIN,
                j: 0.0,
                k: 1e300,
            },
            All { f: i8::MAX, g: i16::MAX, h: i32::MAX, i: i64::MAX, ..All::default() },
        ] {
            let json = serde_json::to_value(&value).unwrap();
            let bytes = encode(&all, json.clone()).unwrap();
            assert_eq!(bytes, postcard::to_allocvec(&value).unwrap(), "{json}");
            // With something behind it.
            assert_eq!(all.decode(&[&bytes[..], &[9]].concat()).unwrap(), json);
        }
        let fixed = layout(&["x:u16le", "y:i32le"]);
        assert_eq!(encode(&fixed, json!({ "x": 258, "y": -2 })).unwrap(), [2, 1, 254, 255, 255, 255]);
        assert_eq!(fixed.decode(&[2, 1, 254, 255, 255, 255]).unwrap(), json!({ "x": 258, "y": -2 }));
        assert_eq!(encode(&fixed, json!({})).unwrap(), [0; 6]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let all = layout(&ALL);
        for (value, part) in [
            (json!({ "z": 1 }), "no field `z`; `fields` declares a, b"),
            (json!({ "b": 256 }), "`b` is 256, which is not a whole number from 0 to 255"),
            (json!({ "b": -1 }), "`b` is -1"),
            (json!({ "f": 128 }), "from -128 to 127"),
            (json!({ "g": -32_769 }), "from -32768"),
            (json!({ "a": 1 }), "true or false"),
            (json!({ "d": 1.5 }), "`d` is 1.5"),
            (json!({ "k": "x" }), "a number"),
        ] {
            let error = encode(&all, value).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        for declared in ["x", "x:u7", ":u8", "x:"] {
            assert!(Layout::parse(&[declared.into()]).unwrap_err().contains("u16le"));
        }
        assert!(Layout::parse(&["x:u8".into(), "x:u16".into()]).is_err());
        for bytes in [&[][..], &[2], &[0, 1, 0x80], &[0, 1, 0xff, 0xff, 0x7f]] {
            assert!(all.decode(bytes).is_err(), "{bytes:?}");
        }
        assert!(layout(&["x:u64"]).decode(&[0xff; 20]).is_err());
        assert_eq!(parse_hex("00 Ff1a"), Ok(vec![0, 255, 26]));
        assert!(parse_hex("0").is_err() && parse_hex("0g").is_err() && parse_hex("é").is_err());
        assert_eq!(hex(&[0, 255]), "00ff");
    }
}
