//! Answers as JSON, and the same rows as CSV (RFC 4180: a header, CRLF, UTF-8).
//!
//! A spreadsheet takes a cell that begins with `=`, `+`, `-` or `@` for a formula, and a player may be called `=HYPERLINK(…)`. So a text that begins with one
//! of these, with their full-width forms, with a tab or with a line break gets an apostrophe in front, which spreadsheets take for "this is text". Numbers are
//! written as they are. A program that needs the texts as they are asks for JSON.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};

use super::super::http::ApiError;
use super::question::{Asked, Question, bad, cursor_text};
use crate::manager::records::boards::{BestRow, BoardRow, EntryRow};
use crate::manager::records::people::{PlayerSummary, VersusRow};
use crate::manager::records::results::ResultRow;

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    Csv,
}

impl Form {
    /// The form that a request asks for: `format` has the last word, then the header `Accept`.
    pub(super) fn asked(question: &mut Question, headers: &HeaderMap) -> Result<Self, ApiError> {
        match question.take("format")?.as_deref() {
            Some("json") => return Ok(Self::Json),
            Some("csv") => return Ok(Self::Csv),
            Some(other) => return Err(bad(format!("`format` is {other:?}; accepted: `json`, `csv`"))),
            None => {}
        }
        let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let mut kinds =
            accepted.flat_map(|value| value.split(',')).map(|kind| kind.split(';').next().unwrap_or_default());
        // Whoever takes both gets the first of them.
        let first = kinds.find(|kind| matches!(kind.trim(), "text/csv" | "application/json"));
        Ok(if first.is_some_and(|kind| kind.trim() == "text/csv") { Self::Csv } else { Self::Json })
    }
}

/// One cell of a table.
#[derive(Debug)]
pub(super) enum Cell {
    Empty,
    Text(String),
    /// A number, a truth value: nothing that anybody chose.
    Plain(String),
}

impl Cell {
    fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    fn maybe(text: Option<&String>) -> Self {
        text.map_or(Self::Empty, |text| Self::Text(text.clone()))
    }

    fn plain(value: impl ToString) -> Self {
        Self::Plain(value.to_string())
    }

    fn json(value: &Value) -> Self {
        if value.is_null() { Self::Empty } else { Self::Text(value.to_string()) }
    }

    /// As it stands in a file that a spreadsheet may open.
    fn written(self) -> String {
        match self {
            Self::Empty => String::new(),
            Self::Plain(text) => text,
            Self::Text(text) if text.starts_with(FORMULA_BEGINS) => format!("'{text}"),
            Self::Text(text) => text,
        }
    }
}

/// What a formula, or a cell that is cut into two, begins with.
const FORMULA_BEGINS: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];

/// A row of a table.
pub(super) trait Tabular: Serialize {
    /// Names of the columns.
    const COLUMNS: &'static [&'static str];

    /// The row, as many cells as there are columns.
    fn cells(&self) -> Vec<Cell>;
}

/// An answer with a list in it.
pub(super) struct Answer<T> {
    /// What the JSON has beside the list.
    pub(super) about: Map<String, Value>,
    /// The name of the list.
    pub(super) list: &'static str,
    pub(super) rows: Vec<T>,
    /// The cursor of the next page.
    pub(super) next: Option<String>,
}

impl<T: Tabular> Answer<T> {
    /// A list and nothing else.
    pub(super) fn list<C: Serialize>(list: &'static str, rows: Vec<T>, next: Option<&C>) -> Self {
        Self { about: Map::new(), list, rows, next: next.map(|cursor| cursor_text(cursor)) }
    }

    /// Writes it. The address of the next page is in the header `Link`, in either form.
    pub(super) fn write(self, form: Form, asked: &Asked) -> Result<Response, ApiError> {
        let link = self.next.as_ref().map(|next| format!("<{}>; rel=\"next\"", asked.next(next)));
        let mut response = match form {
            Form::Json => {
                let mut body = self.about;
                body.insert(self.list.to_owned(), serde_json::to_value(&self.rows).map_err(|error| internal(&error))?);
                body.insert("next".to_owned(), self.next.into());
                Json(Value::Object(body)).into_response()
            }
            Form::Csv => {
                let text = csv_text(&self.rows).map_err(|error| internal(&error))?;
                ([(header::CONTENT_TYPE, "text/csv; charset=utf-8; header=present")], text).into_response()
            }
        };
        // One address, two forms.
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
        if let Some(link) = link.and_then(|link| HeaderValue::try_from(link).ok()) {
            response.headers_mut().insert(header::LINK, link);
        }
        Ok(response)
    }
}

fn csv_text<T: Tabular>(rows: &[T]) -> Result<Vec<u8>, String> {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    writer.write_record(T::COLUMNS).map_err(|error| error.to_string())?;
    for row in rows {
        let cells = row.cells().into_iter().map(Cell::written);
        writer.write_record(cells).map_err(|error| error.to_string())?;
    }
    writer.into_inner().map_err(|error| error.to_string())
}

fn internal(error: &impl ToString) -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string())
}

impl Tabular for ResultRow {
    const COLUMNS: &'static [&'static str] =
        &["room", "ended_at", "player", "name", "module", "version", "hash", "mixed", "place", "outcome", "data"];

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::text(&self.room),
            Cell::text(&self.ended_at),
            Cell::plain(self.player),
            Cell::maybe(self.name.as_ref()),
            Cell::maybe(self.module.as_ref()),
            Cell::maybe(self.version.as_ref()),
            Cell::maybe(self.hash.as_ref()),
            Cell::plain(self.mixed),
            self.place.map_or(Cell::Empty, Cell::plain),
            Cell::text(&self.outcome),
            Cell::json(&self.data),
        ]
    }
}

impl Tabular for BestRow {
    const COLUMNS: &'static [&'static str] =
        &["module", "version", "hash", "board", "group", "score", "room", "player", "ended_at"];

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::maybe(self.module.as_ref()),
            Cell::maybe(self.version.as_ref()),
            Cell::text(&self.hash),
            Cell::text(&self.board),
            Cell::json(&self.group),
            Cell::plain(self.score),
            Cell::text(&self.room),
            Cell::plain(self.player),
            Cell::text(&self.ended_at),
        ]
    }
}

impl Tabular for PlayerSummary {
    const COLUMNS: &'static [&'static str] = &["name", "rooms", "finished", "wins", "first_seen_at", "last_seen_at"];

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::text(&self.name),
            Cell::plain(self.rooms),
            Cell::plain(self.finished),
            Cell::plain(self.wins),
            Cell::maybe(self.first_seen_at.as_ref()),
            Cell::maybe(self.last_seen_at.as_ref()),
        ]
    }
}

impl Tabular for VersusRow {
    const COLUMNS: &'static [&'static str] = &[
        "room",
        "ended_at",
        "module",
        "hash",
        "mixed",
        "first_place",
        "second_place",
        "first_outcome",
        "second_outcome",
        "winner",
    ];

    fn cells(&self) -> Vec<Cell> {
        let [first_place, second_place] = self.places.map(|place| place.map_or(Cell::Empty, Cell::plain));
        let [first_outcome, second_outcome] = &self.outcomes;
        vec![
            Cell::text(&self.room),
            Cell::text(&self.ended_at),
            Cell::maybe(self.module.as_ref()),
            Cell::maybe(self.hash.as_ref()),
            Cell::plain(self.mixed),
            first_place,
            second_place,
            Cell::text(first_outcome),
            Cell::text(second_outcome),
            Cell::maybe(self.winner.as_ref()),
        ]
    }
}

impl Tabular for BoardRow {
    const COLUMNS: &'static [&'static str] =
        &["module", "version", "hash", "newest", "board", "score", "best", "group_by", "groups", "more_groups"];

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::text(&self.module),
            Cell::text(&self.version),
            Cell::text(&self.hash),
            Cell::plain(self.newest),
            Cell::text(&self.board),
            Cell::text(&self.score),
            Cell::json(&serde_json::json!(self.best)).unquoted(),
            Cell::json(&serde_json::json!(self.group_by)),
            Cell::json(&serde_json::json!(self.groups)),
            Cell::plain(self.more_groups),
        ]
    }
}

impl Cell {
    /// A JSON text without its quotes.
    fn unquoted(self) -> Self {
        match self {
            Self::Text(text) => Self::Text(text.trim_matches('"').to_owned()),
            other => other,
        }
    }
}

impl Tabular for EntryRow {
    const COLUMNS: &'static [&'static str] =
        &["place", "name", "score", "room", "player", "ended_at", "hash", "version"];

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::plain(self.place),
            Cell::text(&self.name),
            Cell::plain(self.score),
            Cell::text(&self.room),
            Cell::plain(self.player),
            Cell::text(&self.ended_at),
            Cell::text(&self.hash),
            Cell::text(&self.version),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Named(&'static str, f64);

    impl Tabular for Named {
        const COLUMNS: &'static [&'static str] = &["name", "score"];
        fn cells(&self) -> Vec<Cell> {
            vec![Cell::text(self.0), Cell::plain(self.1)]
        }
    }

    #[test]
    fn a_name_is_no_formula_and_a_number_stays_one() {
        let names = ["=1+1", "+a", "-a", "@a", "\ta", "＝a", "Ada", "a,b", "say \"hi\"", "two\r\nlines", "'a", ""];
        let rows: Vec<Named> = names.into_iter().map(|name| Named(name, -0.5)).collect();
        let text = csv_text(&rows).unwrap();
        assert!(text.starts_with(b"name,score\r\n'=1+1,-0.5\r\n'+a,-0.5\r\n"), "{}", String::from_utf8_lossy(&text));
        let mut reader = csv::Reader::from_reader(text.as_slice());
        let read: Vec<(String, f64)> = reader.deserialize().collect::<Result<_, _>>().unwrap();
        for ((read, score), name) in read.iter().zip(names) {
            let expected = if name.starts_with(FORMULA_BEGINS) { format!("'{name}") } else { name.to_owned() };
            assert_eq!((read, *score), (&expected, -0.5));
        }
        assert_eq!(read.len(), names.len());
    }

    #[test]
    fn the_form_is_the_first_that_is_asked_for() {
        for (query, accept, expected) in [
            ("", "", Form::Json),
            ("", "*/*", Form::Json),
            ("", "text/csv", Form::Csv),
            ("", "text/html, text/csv; q=0.9, application/json;q=0.1", Form::Csv),
            ("", "application/json, text/csv", Form::Json),
            ("?format=csv", "application/json", Form::Csv),
            ("?format=json", "text/csv", Form::Json),
        ] {
            let mut question = Question::read(&format!("/api/results{query}").parse().unwrap()).unwrap();
            let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(Form::asked(&mut question, &headers).unwrap(), expected, "{query} {accept}");
        }
        let mut question = Question::read(&"/api/results?format=xml".parse().unwrap()).unwrap();
        assert!(Form::asked(&mut question, &HeaderMap::new()).is_err());
    }
}
