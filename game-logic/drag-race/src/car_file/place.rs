//! A table of the car file together with what an error needs: the file, the line, the car. Typed access to its fields; knows none of their names.

use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use crate::car_file::{CarFileError, WrongField};
use crate::ranges;

/// Characters of a wrong value that an error repeats: a value may be a list of any length.
const VALUE_SHOWN_CHARS_MAX: usize = 60;

/// Digits that a figure keeps. So many survive any reader of JSON, also one that is careless with the last of 17, so a car is the same to the bit
/// in the file, in a room's options and in the module's constants.
const FIGURE_DIGITS: usize = 12;

/// The text of a file, and its name for errors.
pub(super) struct Text<'a> {
    pub(super) path: &'a str,
    pub(super) text: &'a str,
}

impl Text<'_> {
    /// The line of a position, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        1 + self.text.bytes().take(at).filter(|byte| *byte == b'\n').count()
    }

    /// What the file has there, on one line and cut.
    fn shown(&self, span: Range<usize>) -> String {
        let words: Vec<&str> = self.text.get(span).unwrap_or_default().split_whitespace().collect();
        let text = words.join(" ");
        match text.char_indices().nth(VALUE_SHOWN_CHARS_MAX) {
            Some((end, _)) => format!("{} …", text.get(..end).unwrap_or_default()),
            None => text,
        }
    }
}

/// A table, and where it is.
pub(super) struct Place<'a> {
    pub(super) file: &'a Text<'a>,
    /// `car "mx5"`, `car number 3`, `shared` or `the file`.
    pub(super) car: &'a str,
    /// What stands before its fields' names: `published.`.
    pub(super) prefix: String,
    pub(super) table: &'a DeTable<'a>,
    /// Its header, where a missing field is missed.
    pub(super) header: Range<usize>,
}

impl<'a> Place<'a> {
    /// An error about a field: its value if there is one.
    pub(super) fn wrong(&self, field: &str, accepted: impl Into<String>) -> CarFileError {
        self.wrong_at(field, self.table.get(field).map(Spanned::span), accepted)
    }

    /// An error about a part of a field.
    pub(super) fn wrong_at(
        &self,
        field: &str,
        span: Option<Range<usize>>,
        accepted: impl Into<String>,
    ) -> CarFileError {
        CarFileError::Field(Box::new(WrongField {
            path: self.file.path.to_string(),
            line: self.file.line(span.as_ref().unwrap_or(&self.header).start),
            car: self.car.to_string(),
            field: format!("{}{field}", self.prefix),
            value: span.map_or_else(|| "missing".to_string(), |span| self.file.shown(span)),
            accepted: accepted.into(),
        }))
    }

    /// Refuses fields that nobody knows.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), CarFileError> {
        // Of several the first in the file.
        let unknown = self.table.iter().filter(|(key, _)| !known.contains(&key.get_ref().as_ref()));
        let Some((key, value)) = unknown.min_by_key(|(key, _)| key.span().start) else { return Ok(()) };
        let name: &str = key.get_ref();
        let near =
            known.iter().map(|near| (edits(name, near), near)).min().filter(|(edits, near)| edits * 2 <= near.len());
        let meant = near.map_or_else(String::new, |(_, near)| format!(" (did you mean `{near}`?)"));
        let shown: String = name.chars().take(VALUE_SHOWN_CHARS_MAX).collect();
        let error = self.wrong_at(
            &shown,
            Some(value.span()),
            format!("no such field{meant}; fields here: {}", known.join(", ")),
        );
        Err(error)
    }

    pub(super) fn has(&self, field: &str) -> bool {
        self.table.contains_key(field)
    }

    pub(super) fn number(&self, field: &str, range: &RangeInclusive<f64>) -> Result<f64, CarFileError> {
        match self.table.get(field).and_then(|value| figure(value.get_ref())) {
            Some(value) if range.contains(&value) => Ok(value),
            _ => Err(self.wrong(field, ranges::accepted(range))),
        }
    }

    pub(super) fn numbers(&self, field: &str, range: &RangeInclusive<f64>) -> Result<Vec<f64>, CarFileError> {
        let accepted = || format!("a list of numbers from {} to {}", range.start(), range.end());
        let list = self.list(field).ok_or_else(|| self.wrong(field, accepted()))?;
        let number = |value: &Spanned<DeValue<'_>>| match figure(value.get_ref()) {
            Some(number) if range.contains(&number) => Ok(number),
            _ => Err(self.wrong_at(field, Some(value.span()), accepted())),
        };
        list.iter().map(number).collect()
    }

    pub(super) fn text(&self, field: &str, bytes: &RangeInclusive<usize>) -> Result<&'a str, CarFileError> {
        match self.table.get(field).map(Spanned::get_ref) {
            Some(DeValue::String(text)) if bytes.contains(&text.len()) && !text.chars().any(char::is_control) => {
                Ok(text)
            }
            _ => Err(self.wrong(field, format!("text of {} to {} bytes, on one line", bytes.start(), bytes.end()))),
        }
    }

    pub(super) fn choice(&self, field: &str, known: &[&'static str]) -> Result<&'static str, CarFileError> {
        let found = match self.table.get(field).map(Spanned::get_ref) {
            Some(DeValue::String(text)) => known.iter().find(|known| **known == text.as_ref()),
            _ => None,
        };
        found.copied().ok_or_else(|| self.wrong(field, format!("one of {}", known.join(", "))))
    }

    pub(super) fn list(&self, field: &str) -> Option<&'a DeArray<'a>> {
        match self.table.get(field).map(Spanned::get_ref) {
            Some(DeValue::Array(list)) => Some(list),
            _ => None,
        }
    }

    /// The table below this one.
    pub(super) fn below(&self, field: &str) -> Result<Place<'a>, CarFileError> {
        match self.table.get(field) {
            Some(value) => self.inside(field, value).ok_or_else(|| self.wrong(field, "a table")),
            None => Err(self.wrong(field, "a table")),
        }
    }

    /// The place of a value that is a table.
    pub(super) fn inside(&self, field: &str, value: &'a Spanned<DeValue<'a>>) -> Option<Place<'a>> {
        let DeValue::Table(table) = value.get_ref() else { return None };
        let prefix = format!("{}{field}.", self.prefix);
        Some(Place { file: self.file, car: self.car, prefix, table, header: value.span() })
    }
}

/// A finite number, with [`FIGURE_DIGITS`] of its digits.
pub(super) fn figure(value: &DeValue<'_>) -> Option<f64> {
    let number: f64 = match value {
        DeValue::Float(number) => number.as_str().parse().ok()?,
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok()? as f64,
        _ => return None,
    };
    Some(tidy(number)).filter(|number| number.is_finite())
}

/// The number nearest to this one with [`FIGURE_DIGITS`] digits.
pub fn tidy(number: f64) -> f64 {
    format!("{number:.*e}", FIGURE_DIGITS - 1).parse().unwrap_or(number)
}

/// Number of single-letter edits between two names (Levenshtein), for the "did you mean".
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (done, letter) in a.bytes().enumerate() {
        let mut diagonal = done;
        let mut left = done + 1;
        let mut cells = row.iter_mut();
        if let Some(first) = cells.next() {
            *first = left;
        }
        for (cell, other) in cells.zip(b.bytes()) {
            let change = diagonal + usize::from(letter != other);
            diagonal = *cell;
            left = change.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
    }
    row.last().copied().unwrap_or(0)
}
