//! What differs between two states or two results, for people: fields of JSON, or bytes where a module does not describe its state.

use serde::Serialize;
use serde_json::Value;

/// Fields that are named; what differs in more of them is better looked at as a whole (`--at`).
pub const FIELDS_MAX: usize = 20;
/// Bytes that are shown of each side, from the first one that differs.
const BYTES_SHOWN: usize = 16;

/// A field that is not the same on both sides.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Field {
    /// Where it is, as a JSON pointer: `/lanes/0/speed_mps`.
    pub path: String,
    /// Its value on the one side; none if it is not there.
    pub left: Option<Value>,
    /// On the other.
    pub right: Option<Value>,
}

/// Where bytes differ first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bytes {
    /// The first byte that differs.
    pub offset: usize,
    /// Lengths, in bytes.
    pub lengths: (usize, usize),
    /// Some bytes of the one side from there, in hexadecimal.
    pub left: String,
    /// And of the other.
    pub right: String,
}

/// The first fields that differ, in the order of the text, and how many there are.
#[must_use]
pub fn fields(left: &Value, right: &Value) -> (Vec<Field>, usize) {
    let mut found = Vec::new();
    let mut count = 0;
    walk(String::new(), Some(left), Some(right), &mut found, &mut count);
    (found, count)
}

fn walk(path: String, left: Option<&Value>, right: Option<&Value>, found: &mut Vec<Field>, count: &mut usize) {
    match (left, right) {
        (Some(Value::Object(one)), Some(Value::Object(other))) => {
            let only_there = other.keys().filter(|key| !one.contains_key(*key));
            for key in one.keys().chain(only_there) {
                let escaped = key.replace('~', "~0").replace('/', "~1");
                walk(format!("{path}/{escaped}"), one.get(key), other.get(key), found, count);
            }
        }
        (Some(Value::Array(one)), Some(Value::Array(other))) => {
            for index in 0..one.len().max(other.len()) {
                walk(format!("{path}/{index}"), one.get(index), other.get(index), found, count);
            }
        }
        (left, right) if left == right => {}
        (left, right) => {
            *count += 1;
            if found.len() < FIELDS_MAX {
                found.push(Field { path, left: left.cloned(), right: right.cloned() });
            }
        }
    }
}

/// Where two byte strings differ first; none if they are the same.
#[must_use]
pub fn bytes(left: &[u8], right: &[u8]) -> Option<Bytes> {
    if left == right {
        return None;
    }
    let offset = left.iter().zip(right).take_while(|(a, b)| a == b).count();
    let shown = |bytes: &[u8]| bytes.iter().skip(offset).take(BYTES_SHOWN).map(|byte| format!("{byte:02x}")).collect();
    Some(Bytes { offset, lengths: (left.len(), right.len()), left: shown(left), right: shown(right) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_named_by_their_path() {
        let left = json!({ "a": 1, "b/c": { "d": [1, 2.5, null] }, "same": [1, { "x": "y" }], "gone": true });
        let right = json!({ "a": 2, "b/c": { "d": [1, 2.25] }, "same": [1, { "x": "y" }], "new": "n" });
        let (found, count) = fields(&left, &right);
        let told: Vec<_> = found.iter().map(|f| (f.path.as_str(), f.left.clone(), f.right.clone())).collect();
        let expected = [
            ("/a", Some(json!(1)), Some(json!(2))),
            ("/b~1c/d/1", Some(json!(2.5)), Some(json!(2.25))),
            ("/b~1c/d/2", Some(json!(null)), None),
            ("/gone", Some(json!(true)), None),
            ("/new", None, Some(json!("n"))),
        ];
        assert_eq!((told, count), (expected.to_vec(), 5));
        assert_eq!(fields(&left, &left), (Vec::new(), 0));
        let (many, count) = fields(&json!(vec![0; 100]), &json!(vec![1; 100]));
        assert_eq!((many.len(), count), (FIELDS_MAX, 100));
        assert_eq!(fields(&json!(1), &json!({ "a": 1 })).0.first().map(|f| f.path.clone()), Some(String::new()));
    }

    #[test]
    fn bytes_are_shown_from_the_first_that_differs() {
        assert_eq!(bytes(b"same", b"same"), None);
        let found = bytes(b"abcd", b"abXde").unwrap();
        assert_eq!(
            (found.offset, found.lengths, found.left.as_str(), found.right.as_str()),
            (2, (4, 5), "6364", "586465")
        );
        let cut = bytes(&[1; 100], &[1; 40]).unwrap();
        assert_eq!((cut.offset, cut.left.len(), cut.right.as_str()), (40, 2 * BYTES_SHOWN, ""));
    }
}
