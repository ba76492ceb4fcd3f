//! Whether a text is JSON that everybody can read. A parser that only skips over a text (serde's `IgnoredAny`) lets numbers pass that no parser can
//! keep, halves of surrogate pairs, and any depth; whoever reads the text later, the broker's subscribers and players among them, stumbles over these.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};

/// How deep lists and objects may be in each other. Parsers stop at 128 by default, and what a module says is put into a few more.
pub(crate) const DEPTH_MAX: u8 = 100;

/// Checks a text without keeping any of it. The error says what is wrong, and where.
pub(crate) fn check(json: &str) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    Checked { depth_left: DEPTH_MAX }.deserialize(&mut deserializer)?;
    deserializer.end()
}

/// A value within so many levels.
#[derive(Clone, Copy)]
struct Checked {
    depth_left: u8,
}

impl Checked {
    fn inside<E: Error>(self) -> Result<Self, E> {
        let too_deep = || E::custom(format_args!("nested more than {DEPTH_MAX} deep"));
        self.depth_left.checked_sub(1).map(|depth_left| Self { depth_left }).ok_or_else(too_deep)
    }
}

impl<'de> DeserializeSeed<'de> for Checked {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Checked {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        while let Some(()) = list.next_element_seed(inside)? {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        // Names are texts like others.
        while let Some(()) = object.next_key_seed(inside)? {
            object.next_value_seed(inside)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn what_passes_can_be_read_by_everybody() {
        for good in ["null", "1", "-0", "1e308", "\"\\ud83c\\udfc1\"", "{\"a\":[true,{\"\":[]}]}", " [ ] "] {
            check(good).unwrap_or_else(|error| panic!("{good}: {error}"));
            serde_json::from_str::<Value>(good).unwrap();
        }
        // Each but the last two passes a parser that skips.
        for (bad, words) in [
            ("1e999", "out of range"),
            ("{\"a\":[-1e400]}", "out of range"),
            ("[\"\\ud83c\"]", "hex escape"),
            ("{\"\\udfc1\":1}", "surrogate"),
            ("[1] 2", "trailing"),
            ("", "EOF"),
        ] {
            let error = check(bad).unwrap_err().to_string();
            assert!(error.contains(words), "{bad}: {error}");
        }
    }

    #[test]
    fn the_depth_has_a_bound() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let depth_max = usize::from(DEPTH_MAX);
        check(&nested(depth_max)).unwrap();
        for depth in [depth_max + 1, 128, 10_000] {
            assert!(check(&nested(depth)).unwrap_err().to_string().contains("more than 100 deep"), "{depth}");
        }
        let objects = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        check(&objects(depth_max)).unwrap();
        assert!(check(&objects(depth_max + 1)).is_err());
    }
}
