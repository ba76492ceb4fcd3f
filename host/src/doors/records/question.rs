//! The query string of a question to the records: every parameter is taken by name, and one that is left over is refused by name. So a misspelt
//! filter is an error and not the whole table.

use axum::http::{StatusCode, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::http::ApiError;
use super::limit_in_range;

/// Longest query string in bytes: every parameter of any question at its longest, percent-encoded, with room to spare.
const QUERY_BYTES_MAX: usize = 16 << 10;

/// Longest value in bytes once decoded: four times the longest name of a player. A cursor, which may hold a name, may be three times as long.
pub(super) const VALUE_BYTES_MAX: usize = 256;
const CURSOR_BYTES_MAX: usize = 3 * VALUE_BYTES_MAX;

/// What is left of a query string.
#[derive(Debug)]
pub(super) struct Question {
    path: String,
    all: Vec<(String, String)>,
    left: Vec<(String, String)>,
    taken: Vec<&'static str>,
}

impl Question {
    /// Takes a query string apart.
    pub(super) fn read(uri: &Uri) -> Result<Self, ApiError> {
        let query = uri.query().unwrap_or_default();
        if query.len() > QUERY_BYTES_MAX {
            let message =
                format!("the query has {} bytes after the `?`; accepted: up to {QUERY_BYTES_MAX}", query.len());
            return Err(ApiError::new(StatusCode::URI_TOO_LONG, "bad_request", message));
        }
        let mut all = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(value)) = (decode(name), decode(value)) else {
                let pair: String = pair.chars().take(60).collect();
                return Err(bad(format!("`{pair}` is not percent-encoded UTF-8")));
            };
            check_length(&name, &value, if name == "after" { CURSOR_BYTES_MAX } else { VALUE_BYTES_MAX })?;
            all.push((name, value));
        }
        Ok(Self { path: uri.path().to_owned(), left: all.clone(), all, taken: Vec::new() })
    }

    /// The value of a parameter that may be there once.
    pub(super) fn take(&mut self, name: &'static str) -> Result<Option<String>, ApiError> {
        let mut values = self.take_all(name);
        if values.len() > 1 {
            return Err(bad(format!("`{name}` is there {} times; accepted: once", values.len())));
        }
        Ok(values.pop())
    }

    /// The values of a parameter that may be there more than once, in their order.
    pub(super) fn take_all(&mut self, name: &'static str) -> Vec<String> {
        self.taken.push(name);
        let (taken, left) = std::mem::take(&mut self.left).into_iter().partition(|(other, _)| other == name);
        self.left = left;
        let taken: Vec<(String, String)> = taken;
        taken.into_iter().map(|(_, value)| value).collect()
    }

    /// The parameters whose names begin with `prefix`, without it, each once; `shown` is how they are named in a refusal.
    pub(super) fn take_fields(
        &mut self,
        prefix: &str,
        shown: &'static str,
        fields_max: usize,
    ) -> Result<Vec<(String, String)>, ApiError> {
        self.taken.push(shown);
        let (taken, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.left).into_iter().partition(|(name, _)| name.starts_with(prefix));
        self.left = left;
        let mut fields: Vec<(String, String)> = Vec::new();
        for (name, value) in taken {
            let field = name.strip_prefix(prefix).unwrap_or_default().to_owned();
            if field.is_empty() || fields.iter().any(|(other, _)| *other == field) {
                return Err(bad(format!("`{name}` names no field, or one that was named before")));
            }
            fields.push((field, value));
        }
        if fields.len() > fields_max {
            return Err(bad(format!("{} parameters like `{shown}`; accepted: up to {fields_max}", fields.len())));
        }
        Ok(fields)
    }

    /// The number of rows, in its range.
    pub(super) fn take_limit(&mut self) -> Result<usize, ApiError> {
        let limit = self.take("limit")?;
        let limit = limit
            .map(|limit| limit.parse().map_err(|_| bad(format!("`limit` is {limit:?}; accepted: a number of rows"))));
        limit_in_range(limit.transpose()?)
    }

    /// The cursor of the page before.
    pub(super) fn take_after<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ApiError> {
        let Some(after) = self.take("after")? else { return Ok(None) };
        let cursor = URL_SAFE_NO_PAD.decode(&after).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        match cursor {
            Some(cursor) => Ok(Some(cursor)),
            None => Err(bad(format!("`after` is {after:?}, which is not the `next` of a page of this list"))),
        }
    }

    /// Refuses what nobody took. What is given back makes the address of the next page.
    pub(super) fn finish(self) -> Result<Asked, ApiError> {
        if let Some((name, _)) = self.left.first() {
            let accepted =
                if self.taken.is_empty() { "none".to_owned() } else { format!("`{}`", self.taken.join("`, `")) };
            return Err(bad(format!("there is no parameter `{name}` here; accepted: {accepted}")));
        }
        Ok(Asked { path: self.path, query: self.all })
    }
}

/// A question that was understood.
#[derive(Debug)]
pub(super) struct Asked {
    path: String,
    query: Vec<(String, String)>,
}

impl Asked {
    /// The same question about what comes after this cursor.
    pub(super) fn next(&self, cursor: &str) -> String {
        let mut uri = self.path.clone();
        let others = self.query.iter().filter(|(name, _)| name != "after");
        for (at, (name, value)) in others.map(|(n, v)| (n.as_str(), v.as_str())).chain([("after", cursor)]).enumerate()
        {
            uri.push(if at == 0 { '?' } else { '&' });
            encode(name, &mut uri);
            uri.push('=');
            encode(value, &mut uri);
        }
        uri
    }
}

/// A cursor as it stands in answers and questions: letters, digits, `-` and `_`.
pub(super) fn cursor_text(cursor: &impl Serialize) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(cursor).unwrap_or_default())
}

/// A name out of a path, which may be any text of a sensible length.
pub(super) fn check_length(name: &str, value: &str, bytes_max: usize) -> Result<(), ApiError> {
    if value.len() <= bytes_max && name.len() <= VALUE_BYTES_MAX {
        return Ok(());
    }
    let name: String = name.chars().take(60).collect();
    Err(bad(format!("`{name}` has {} bytes; accepted: up to {bytes_max}", value.len())))
}

/// A refusal of what was asked.
pub(super) fn bad(message: String) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "bad_request", message)
}

/// Undoes the encoding of forms: `%41` and `+`. None if it is not that, or not UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let (high, low) = (char::from(rest.next()?).to_digit(16)?, char::from(rest.next()?).to_digit(16)?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Percent-encodes all but what RFC 3986 calls unreserved.
pub(crate) fn encode(text: &str, out: &mut String) {
    use std::fmt::Write as _;
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _infallible = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(query: &str) -> Result<Question, ApiError> {
        let mut uri = "/api/results?".to_owned();
        uri.push_str(query);
        Question::read(&uri.parse().unwrap())
    }

    #[test]
    fn values_are_decoded_once_and_encoded_back() {
        let mut asked = question("player=Zo%C3%AB+%26+Co%25&data.car=mx5&limit=7&after=x").unwrap();
        assert_eq!(asked.take("player").unwrap().unwrap(), "Zoë & Co%");
        assert_eq!(asked.take_fields("data.", "data.…", 4).unwrap(), [("car".to_owned(), "mx5".to_owned())]);
        assert_eq!(asked.take_limit().unwrap(), 7);
        assert_eq!(asked.take("after").unwrap().unwrap(), "x");
        let next = asked.finish().unwrap().next("y_-");
        assert_eq!(next, "/api/results?player=Zo%C3%AB%20%26%20Co%25&data.car=mx5&limit=7&after=y_-");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for query in ["player=%ff", "player=%4", "player=%zz", &format!("player={}", "a".repeat(257))] {
            assert!(question(query).is_err(), "{query}");
        }
        assert!(question(&"a=b&".repeat(5_000)).is_err());
        let mut twice = question("player=a&player=b&plyer=c").unwrap();
        assert_eq!(twice.take_all("player"), ["a", "b"]);
        let refusal = format!("{:?}", twice.finish().unwrap_err());
        assert!(refusal.contains("`plyer`") && refusal.contains("`player`"), "{refusal}");
        assert!(question("player=a&player=b").unwrap().take("player").is_err());
        assert!(question("data.a=1&data.a=2").unwrap().take_fields("data.", "data.…", 4).is_err());
        assert!(question("data.=1").unwrap().take_fields("data.", "data.…", 4).is_err());
        assert!(question("limit=0").unwrap().take_limit().is_err());
        assert!(question("after=!").unwrap().take_after::<(String, i64)>().is_err());
        let cursor = cursor_text(&("Zoë,\"".to_owned(), -7_i64));
        let back: (String, i64) = question(&format!("after={cursor}")).unwrap().take_after().unwrap().unwrap();
        assert_eq!(back, ("Zoë,\"".to_owned(), -7));
    }
}
