//! Whether data is what a scenario expects of it: the parts that it names, ranges, and places where nothing may be.

use serde_json::Value;

use super::file::Values;

/// Numbers this near to each other, in proportion, are equal: a scenario writes fewer digits than a computer.
const EQUAL_WITHIN: f64 = 1e-9;

/// The first thing that is not as expected; none if all is.
pub(super) fn mismatch(expected: &Values, found: &Value) -> Option<String> {
    if let Some(data) = &expected.data
        && let Some(problem) = differs("", data, found)
    {
        return Some(problem);
    }
    for (path, min, max) in &expected.between {
        match at(found, path) {
            Some(value) if value.as_f64().is_some_and(|number| (*min..=*max).contains(&number)) => {}
            Some(value) => return Some(format!("`{path}`: expected {min} to {max}, found {}", short(value))),
            None => return Some(format!("`{path}`: expected {min} to {max}, found nothing there")),
        }
    }
    for path in &expected.absent {
        if let Some(value) = at(found, path).filter(|value| !value.is_null()) {
            return Some(format!("`{path}`: expected nothing there, found {}", short(value)));
        }
    }
    None
}

/// What an object names has to be in the other one; lists are compared element by element and have the same length.
fn differs(path: &str, expected: &Value, found: &Value) -> Option<String> {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    let problem = |found: &str| {
        let place = if path.is_empty() { String::new() } else { format!("`{path}`: ") };
        Some(format!("{place}expected {}, found {found}", short(expected)))
    };
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => expected.iter().find_map(|(key, value)| {
            let path = below(key);
            match found.get(key) {
                Some(found) => differs(&path, value, found),
                None => Some(format!("`{path}`: expected {}, found nothing there", short(value))),
            }
        }),
        (Value::Array(expected), Value::Array(other)) if expected.len() == other.len() => {
            let pairs = expected.iter().zip(other).enumerate();
            pairs.into_iter().find_map(|(at, (expected, found))| differs(&below(&at.to_string()), expected, found))
        }
        (Value::Number(a), Value::Number(b)) => {
            let equal = a == b
                || a.as_f64()
                    .zip(b.as_f64())
                    .is_some_and(|(a, b)| (a - b).abs() <= EQUAL_WITHIN * a.abs().max(b.abs()).max(1.0));
            if equal { None } else { problem(&short(found)) }
        }
        _ if expected == found => None,
        _ => problem(&short(found)),
    }
}

/// The value at a path of keys and indices with dots between them.
fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, key| match value {
        Value::Object(object) => object.get(key),
        Value::Array(list) => list.get(key.parse::<usize>().ok()?),
        _ => None,
    })
}

/// A value as text that fits on a line or two.
pub(super) fn short(value: &Value) -> String {
    const CHARS_MAX: usize = 400;
    let text = value.to_string();
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn values(data: Value) -> Values {
        Values { data: Some(data), ..Values::default() }
    }

    #[test]
    fn what_is_named_has_to_be_there_and_the_rest_may() {
        let found = json!({ "a": 1, "b": [{ "c": 0.1, "d": null }, 2], "e": "x" });
        for data in [
            json!({}),
            json!({ "a": 1.0 }),
            json!({ "b": [{ "c": 0.1 }, 2] }),
            json!({ "b": [{ "c": 0.100_000_000_000_1 }, {}] }),
        ] {
            let problem = mismatch(&values(data.clone()), &found);
            assert!(problem.is_none() || data["b"][1].is_object(), "{data}: {problem:?}");
        }
        for (data, expected) in [
            (json!({ "a": 2 }), "`a`: expected 2, found 1"),
            (json!({ "b": [{ "c": 0.2 }, 2] }), "`b.0.c`: expected 0.2, found 0.1"),
            (json!({ "b": [] }), "`b`: expected [], found [{\"c\":0.1,\"d\":null},2]"),
            (json!({ "z": 1 }), "`z`: expected 1, found nothing there"),
            (json!({ "e": 1 }), "`e`: expected 1, found \"x\""),
            (json!([]), "expected [], found {\"a\":1,\"b\":[{\"c\":0.1,\"d\":null},2],\"e\":\"x\"}"),
        ] {
            assert_eq!(mismatch(&values(data), &found).as_deref(), Some(expected));
        }
    }

    #[test]
    fn ranges_and_absences_are_found_by_path() {
        let found = json!({ "a": 1, "b": [{ "c": 0.1, "d": null }] });
        let check = |between: &[(&str, f64, f64)], absent: &[&str]| {
            let between = between.iter().map(|(path, min, max)| ((*path).to_owned(), *min, *max)).collect();
            let absent = absent.iter().map(|path| (*path).to_owned()).collect();
            mismatch(&Values { data: None, between, absent }, &found)
        };
        assert_eq!(check(&[("a", 1.0, 2.0), ("b.0.c", 0.0, 0.1)], &["b.0.d", "b.1", "z"]), None);
        assert_eq!(check(&[("a", 2.0, 3.0)], &[]).as_deref(), Some("`a`: expected 2 to 3, found 1"));
        assert_eq!(check(&[("b.0.d", 2.0, 3.0)], &[]).as_deref(), Some("`b.0.d`: expected 2 to 3, found null"));
        assert_eq!(check(&[("b.x", 2.0, 3.0)], &[]).as_deref(), Some("`b.x`: expected 2 to 3, found nothing there"));
        assert_eq!(check(&[], &["a"]).as_deref(), Some("`a`: expected nothing there, found 1"));
    }

    #[test]
    fn long_data_is_cut_between_characters() {
        assert!(short(&json!("é".repeat(1_000))).ends_with("é…"));
    }
}
