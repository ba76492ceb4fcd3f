//! Model files: from TOML to a [`Model`] and back. Every mistake is told with the file, the line, the operation, the field, the value found and what
//! is accepted there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::{Range as Span, RangeInclusive};
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::model::{Complexity, Model, Operation, Range, Size, Unit, Work};
use crate::files::{TextError, read_text};

/// Longest model file in bytes: ten times what the most operations need.
pub const FILE_BYTES_MAX: u64 = 1 << 18;
/// Operations of a model: more is not a model that anybody reads.
pub const OPERATIONS_MAX: usize = 256;
/// Numbers whose product N is.
pub const TERMS_MAX: usize = 8;
/// Longest name in characters, so that tables keep their columns.
pub const NAME_CHARS_MAX: usize = 80;
/// Longest comment in characters.
pub const COMMENT_CHARS_MAX: usize = 1_000;
/// What N and each of its terms may be. Its square has a float's precision still.
const N_ACCEPTED: RangeInclusive<f64> = 0.0..=1e12;
/// What T may be, in any unit.
const T_ACCEPTED: RangeInclusive<f64> = 0.0..=1e9;
/// What P may be.
const P_ACCEPTED: RangeInclusive<f64> = 0.0..=1.0;
/// What `frames_per_second` may be.
const FRAMES_PER_SECOND_ACCEPTED: RangeInclusive<f64> = 0.1..=10_000.0;
/// What `cores` may be.
const CORES_MAX: u32 = 1_024;
/// Most characters of a value that an error repeats.
const FOUND_CHARS_MAX: usize = 40;

const FILE_KEYS: [&str; 2] = ["model", "operation"];
const MODEL_KEYS: [&str; 4] = ["name", "frames_per_second", "cores", "comment"];
const OPERATION_KEYS: [&str; 10] =
    ["name", "n", "t_s", "t_ms", "t_us", "t_ns", "p", "complexity", "comment", "alternative"];
const ALTERNATIVE_KEYS: [&str; 8] = ["n", "t_s", "t_ms", "t_us", "t_ns", "p", "complexity", "comment"];
const RANGE_KEYS: [&str; 3] = ["min", "likely", "max"];

/// A file that is no model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}{}: {problem}", line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct ModelError {
    /// The file.
    pub file: String,
    /// The line that is wrong, from 1; none where it is the whole file.
    pub line: Option<usize>,
    /// What is wrong, and what is accepted.
    pub problem: String,
}

/// Reads a model.
///
/// # Errors
/// If the file cannot be read or is no model.
pub fn read(path: &Path) -> Result<Model, ModelError> {
    let file = path.display().to_string();
    let text = read_text(path, FILE_BYTES_MAX).map_err(|error| {
        let hint = match error {
            TextError::Io(_) => "; `holeshot budget --example --write FILE` writes one to begin with",
            TextError::TooLong(_) | TextError::NotText(_) => "",
        };
        ModelError { file: file.clone(), line: None, problem: format!("{error}{hint}") }
    })?;
    parse(&file, &text)
}

/// As [`read`], of a text; `file` names it in errors.
///
/// # Errors
/// If the text is no model.
pub fn parse(file: &str, text: &str) -> Result<Model, ModelError> {
    let source = Source { file, text };
    let table = DeTable::parse(text).map_err(|error| {
        let line = error.span().map(|span| source.line(span.start));
        ModelError { file: file.to_owned(), line, problem: error.message().to_owned() }
    })?;
    source.model(table.get_ref())
}

/// Writes a model so that [`parse`] gives the same one.
#[must_use]
pub fn write(model: &Model, head: &[String]) -> String {
    let mut text = String::new();
    for line in head {
        let _ = writeln!(text, "{}", format!("# {line}").trim_end());
    }
    let Model { name, frames_per_second, cores, comment, operations } = model;
    let _ = writeln!(text, "\n[model]\nname = {}", quoted(name));
    let _ = writeln!(text, "frames_per_second = {frames_per_second}\ncores = {cores}");
    if let Some(comment) = comment {
        let _ = writeln!(text, "comment = {}", quoted(comment));
    }
    for Operation { name, work, comment, alternative } in operations {
        let _ = writeln!(text, "\n[[operation]]\nname = {}", quoted(name));
        for (key, value) in fields(work) {
            let _ = writeln!(text, "{key} = {value}");
        }
        if let Some(comment) = comment {
            let _ = writeln!(text, "comment = {}", quoted(comment));
        }
        if let Some((work, why)) = alternative {
            let why = why.as_ref().map(|why| ("comment", quoted(why)));
            let inner: Vec<_> =
                fields(work).into_iter().chain(why).map(|(key, value)| format!("{key} = {value}")).collect();
            let _ = writeln!(text, "alternative = {{ {} }}", inner.join(", "));
        }
    }
    text
}

fn fields(work: &Work) -> Vec<(&'static str, String)> {
    let n = match &work.n {
        Size::Number(n) => n.to_string(),
        Size::Product(terms) => {
            let terms: Vec<_> = terms.iter().map(|(name, n)| format!("{} = {n}", quoted(name))).collect();
            format!("{{ {} }}", terms.join(", "))
        }
    };
    let range = |range: Range| match range.is_exact() {
        true => range.likely.to_string(),
        false => format!("{{ min = {}, likely = {}, max = {} }}", range.min, range.likely, range.max),
    };
    vec![
        ("n", n),
        (work.unit.field(), range(work.t)),
        ("p", range(work.p)),
        ("complexity", quoted(work.complexity.as_str())),
    ]
}

/// A text as TOML has it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A text that is being read.
struct Source<'a> {
    file: &'a str,
    text: &'a str,
}

type Value<'t> = Spanned<DeValue<'t>>;

/// A table and how errors name it.
struct Place<'t> {
    table: &'t DeTable<'t>,
    line: Option<usize>,
    name: String,
}

impl Source<'_> {
    fn line(&self, at: usize) -> usize {
        self.text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
    }

    fn error(&self, line: Option<usize>, problem: String) -> ModelError {
        ModelError { file: self.file.to_owned(), line, problem }
    }

    /// A value as the file has it.
    fn found(&self, span: Span<usize>) -> String {
        let text = self.text.get(span).unwrap_or_default();
        let mut short: String = text.chars().take(FOUND_CHARS_MAX).collect();
        if short.len() < text.len() {
            short.push('…');
        }
        short
    }

    fn wrong(&self, place: &Place<'_>, field: &str, value: &Value<'_>, accepted: &str) -> ModelError {
        let (line, found) = (self.line(value.span().start), self.found(value.span()));
        self.error(Some(line), format!("{}: `{field}` is {found}; accepted: {accepted}", place.name))
    }

    fn missing(&self, place: &Place<'_>, field: &str, accepted: &str) -> ModelError {
        self.error(place.line, format!("{}: `{field}` is missing; accepted: {accepted}", place.name))
    }

    fn model(&self, table: &DeTable<'_>) -> Result<Model, ModelError> {
        let file = Place { table, line: None, name: "the file".to_owned() };
        self.known(&file, &FILE_KEYS)?;
        let head = self.table(&file, "model", "a table [model] with `name`")?;
        self.known(&head, &MODEL_KEYS)?;
        let name = self.text(&head, "name", NAME_CHARS_MAX)?.ok_or_else(|| self.missing(&head, "name", "a text"))?;
        let per_second = self.number(&head, "frames_per_second", &FRAMES_PER_SECOND_ACCEPTED)?;
        let cores = match head.table.get("cores") {
            None => 1,
            Some(value) => self
                .integer(value)
                .filter(|cores| (1..=CORES_MAX).contains(cores))
                .ok_or_else(|| self.wrong(&head, "cores", value, &format!("a whole number from 1 to {CORES_MAX}")))?,
        };
        let comment = self.text(&head, "comment", COMMENT_CHARS_MAX)?;
        let accepted = "tables [[operation]] with `name`, `n`, `t_ms` (or t_us …) and `p`";
        let Some(list) = table.get("operation") else { return Err(self.missing(&file, "operation", accepted)) };
        let entries = match list.get_ref() {
            DeValue::Array(entries) if !entries.is_empty() => entries,
            _ => return Err(self.wrong(&file, "operation", list, accepted)),
        };
        if entries.len() > OPERATIONS_MAX {
            let line = Some(self.line(list.span().start));
            return Err(self.error(line, format!("{} operations; accepted: at most {OPERATIONS_MAX}", entries.len())));
        }
        let mut operations = Vec::with_capacity(entries.len());
        let mut lines = BTreeMap::new();
        for (number, entry) in entries.iter().enumerate() {
            let operation = self.operation(number + 1, entry)?;
            let line = self.line(entry.span().start);
            if let Some(before) = lines.insert(operation.name.clone(), line) {
                let problem = format!("operation `{}` is there twice: also in line {before}", operation.name);
                return Err(self.error(Some(line), problem));
            }
            operations.push(operation);
        }
        Ok(Model { name, frames_per_second: per_second.unwrap_or(50.0), cores, comment, operations })
    }

    fn operation(&self, number: usize, entry: &Value<'_>) -> Result<Operation, ModelError> {
        let line = Some(self.line(entry.span().start));
        let DeValue::Table(table) = entry.get_ref() else {
            let problem = format!("`operation` has {}; accepted: tables", self.found(entry.span()));
            return Err(self.error(line, problem));
        };
        let mut place = Place { table, line, name: format!("operation {number}") };
        let name = self.text(&place, "name", NAME_CHARS_MAX)?.ok_or_else(|| self.missing(&place, "name", "a text"))?;
        place.name = format!("operation {number} `{name}`");
        self.known(&place, &OPERATION_KEYS)?;
        let n = self.size(&place)?.ok_or_else(|| self.missing(&place, "n", &n_text()))?;
        let (unit, t) = self.time(&place)?.ok_or_else(|| self.missing(&place, "t_ms", &range_text(&T_ACCEPTED)))?;
        let p =
            self.range(&place, "p", &P_ACCEPTED)?.ok_or_else(|| self.missing(&place, "p", &range_text(&P_ACCEPTED)))?;
        let complexity = self.complexity(&place)?.unwrap_or(Complexity::Linear);
        let work = Work { n, t, unit, p, complexity };
        let comment = self.text(&place, "comment", COMMENT_CHARS_MAX)?;
        let alternative = match table.contains_key("alternative") {
            true => Some(self.alternative(&place, &work)?),
            false => None,
        };
        Ok(Operation { name, work, comment, alternative })
    }

    /// Figures that differ from those of the operation, and why.
    fn alternative(&self, of: &Place<'_>, work: &Work) -> Result<(Work, Option<String>), ModelError> {
        let mut place =
            self.table(of, "alternative", "a table with other values for `n`, `t_ms`, `p` or `complexity`")?;
        place.name = format!("{}, alternative", of.name);
        self.known(&place, &ALTERNATIVE_KEYS)?;
        let (unit, t) = self.time(&place)?.unwrap_or((work.unit, work.t));
        let other = Work {
            n: self.size(&place)?.unwrap_or_else(|| work.n.clone()),
            t,
            unit,
            p: self.range(&place, "p", &P_ACCEPTED)?.unwrap_or(work.p),
            complexity: self.complexity(&place)?.unwrap_or(work.complexity),
        };
        Ok((other, self.text(&place, "comment", COMMENT_CHARS_MAX)?))
    }

    fn known(&self, place: &Place<'_>, known: &[&str]) -> Result<(), ModelError> {
        // The first of the file: a table's own order is that of the alphabet.
        let unknown = place.table.keys().filter(|key| !known.contains(&key.get_ref().as_ref()));
        let Some(key) = unknown.min_by_key(|key| key.span().start) else { return Ok(()) };
        let hint = nearest(key.get_ref(), known).map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default();
        let (line, found) = (self.line(key.span().start), self.found(key.span()));
        let problem = format!("{}: no such field {found}{hint}; fields here: {}", place.name, known.join(", "));
        Err(self.error(Some(line), problem))
    }

    fn table<'t>(&self, place: &Place<'t>, field: &str, accepted: &str) -> Result<Place<'t>, ModelError> {
        let Some(value) = place.table.get(field) else { return Err(self.missing(place, field, accepted)) };
        let DeValue::Table(table) = value.get_ref() else { return Err(self.wrong(place, field, value, accepted)) };
        Ok(Place { table, line: Some(self.line(value.span().start)), name: format!("[{field}]") })
    }

    fn text(&self, place: &Place<'_>, field: &str, chars_max: usize) -> Result<Option<String>, ModelError> {
        let Some(value) = place.table.get(field) else { return Ok(None) };
        match value.get_ref() {
            DeValue::String(text) if (1..=chars_max).contains(&text.chars().count()) => Ok(Some(text.to_string())),
            _ => Err(self.wrong(place, field, value, &format!("a text of 1 to {chars_max} characters"))),
        }
    }

    fn number(
        &self,
        place: &Place<'_>,
        field: &str,
        accepted: &RangeInclusive<f64>,
    ) -> Result<Option<f64>, ModelError> {
        let Some(value) = place.table.get(field) else { return Ok(None) };
        let number = float(value.get_ref()).filter(|number| accepted.contains(number));
        number.map(Some).ok_or_else(|| self.wrong(place, field, value, &number_text(accepted)))
    }

    fn integer(&self, value: &Value<'_>) -> Option<u32> {
        match value.get_ref() {
            DeValue::Integer(integer) => u32::from_str_radix(integer.as_str(), integer.radix()).ok(),
            _ => None,
        }
    }

    /// A number, or a table of the least, the likely and the greatest.
    fn range(
        &self,
        place: &Place<'_>,
        field: &str,
        accepted: &RangeInclusive<f64>,
    ) -> Result<Option<Range>, ModelError> {
        let Some(value) = place.table.get(field) else { return Ok(None) };
        let DeValue::Table(table) = value.get_ref() else {
            let number = float(value.get_ref()).filter(|number| accepted.contains(number));
            let number = number.ok_or_else(|| self.wrong(place, field, value, &range_text(accepted)))?;
            return Ok(Some(Range::exact(number)));
        };
        let inner =
            Place { table, line: Some(self.line(value.span().start)), name: format!("{}, `{field}`", place.name) };
        self.known(&inner, &RANGE_KEYS)?;
        let part = |key: &str| {
            let number = self.number(&inner, key, accepted)?;
            number.ok_or_else(|| self.missing(&inner, key, &number_text(accepted)))
        };
        let range = Range { min: part("min")?, likely: part("likely")?, max: part("max")? };
        if range.min <= range.likely && range.likely <= range.max {
            Ok(Some(range))
        } else {
            Err(self.wrong(place, field, value, "min no greater than likely, likely no greater than max"))
        }
    }

    fn time(&self, place: &Place<'_>) -> Result<Option<(Unit, Range)>, ModelError> {
        let mut time = None;
        for unit in Unit::ALL {
            let Some(range) = self.range(place, unit.field(), &T_ACCEPTED)? else { continue };
            if let Some((before, _)) = time.replace((unit, range)) {
                let line = place.table.get(unit.field()).map(|value| self.line(value.span().start));
                let (one, two) = (Unit::field(before), unit.field());
                return Err(
                    self.error(line, format!("{}: both `{one}` and `{two}`; accepted: one of them", place.name))
                );
            }
        }
        Ok(time)
    }

    fn size(&self, place: &Place<'_>) -> Result<Option<Size>, ModelError> {
        let Some(value) = place.table.get("n") else { return Ok(None) };
        let DeValue::Table(table) = value.get_ref() else {
            let number = float(value.get_ref()).filter(|number| N_ACCEPTED.contains(number));
            let number = number.ok_or_else(|| self.wrong(place, "n", value, &n_text()))?;
            return Ok(Some(Size::Number(number)));
        };
        if table.is_empty() || table.len() > TERMS_MAX {
            return Err(self.wrong(place, "n", value, &n_text()));
        }
        let inner = Place { table, line: place.line, name: format!("{}, `n`", place.name) };
        let mut terms = Vec::with_capacity(table.len());
        // In the order of the file, too.
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_unstable_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let name = key.get_ref().as_ref();
            if name.is_empty() || name.chars().count() > NAME_CHARS_MAX {
                let accepted = format!("a name of 1 to {NAME_CHARS_MAX} characters");
                return Err(self.wrong(&inner, &self.found(key.span()), value, &accepted));
            }
            let number = float(value.get_ref()).filter(|number| N_ACCEPTED.contains(number));
            let number = number.ok_or_else(|| self.wrong(&inner, name, value, &number_text(&N_ACCEPTED)))?;
            terms.push((name.to_owned(), number));
        }
        let size = Size::Product(terms);
        if N_ACCEPTED.contains(&size.value()) {
            Ok(Some(size))
        } else {
            Err(self.wrong(place, "n", value, &format!("a product {}", number_text(&N_ACCEPTED))))
        }
    }

    fn complexity(&self, place: &Place<'_>) -> Result<Option<Complexity>, ModelError> {
        let Some(value) = place.table.get("complexity") else { return Ok(None) };
        let found = match value.get_ref() {
            DeValue::String(text) => text.as_ref(),
            _ => "",
        };
        if let Some(complexity) = Complexity::ALL.into_iter().find(|complexity| complexity.as_str() == found) {
            return Ok(Some(complexity));
        }
        let names = Complexity::ALL.map(Complexity::as_str);
        let hint = nearest(found, &names).map(|near| format!(" (did you mean {near:?}?)")).unwrap_or_default();
        let accepted = names.map(|name| format!("{name:?}")).join(", ");
        Err(self.wrong(place, "complexity", value, &format!("{accepted}{hint}")))
    }
}

fn number_text(accepted: &RangeInclusive<f64>) -> String {
    format!("a number from {} to {}", accepted.start(), accepted.end())
}

fn range_text(accepted: &RangeInclusive<f64>) -> String {
    format!("{}, or {{ min = …, likely = …, max = … }} of such numbers", number_text(accepted))
}

fn n_text() -> String {
    format!("{}, or a table of 1 to {TERMS_MAX} named ones whose product is one", number_text(&N_ACCEPTED))
}

fn float(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Integer(integer) => Some(i64::from_str_radix(integer.as_str(), integer.radix()).ok()? as f64),
        DeValue::Float(float) => float.as_str().parse().ok(),
        _ => None,
    }
}

/// The known name that is nearest, if a slip of the pen may have made one of the other.
fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    if name.chars().count() > NAME_CHARS_MAX {
        return None;
    }
    let near = known.iter().map(|known| (edits(name, known), *known)).min()?;
    (near.0 <= 1 + near.1.chars().count() / 4).then_some(near.1)
}

/// Letters to add, drop or change so that one name becomes the other (Levenshtein 1966).
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (above, letter) in a.chars().enumerate() {
        let mut next = vec![above + 1];
        for (other, pair) in b.chars().zip(row.windows(2)) {
            let (&[diagonal, up], Some(left)) = (pair, next.last()) else { continue };
            next.push((diagonal + usize::from(letter != other)).min(up + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"[model]
name = "m"
frames_per_second = 20
cores = 4
comment = "of 'it'"
[[operation]]
name = "a"
n = { players = 64, things = 2.5 }
t_us = { min = 1, likely = 2.5, max = 0x10 }
p = 0.8
complexity = "n log n"
comment = "why \"so\""
alternative = { p = 0.01, comment = "the table" }
[[operation]]
name = "b"
n = 84
t_ms = 1
p = { min = 0, likely = 0.5, max = 1 }
"#;

    #[test]
    fn a_model_is_read_and_written_and_read_again() {
        let model = parse("m.toml", GOOD).unwrap();
        assert_eq!((model.name.as_str(), model.frames_per_second, model.cores), ("m", 20.0, 4));
        assert_eq!(model.comment.as_deref(), Some("of 'it'"));
        let [a, b] = model.operations.as_slice() else { panic!("{model:?}") };
        assert_eq!(a.work.n, Size::Product(vec![("players".into(), 64.0), ("things".into(), 2.5)]));
        assert_eq!(a.work.t, Range { min: 1.0, likely: 2.5, max: 16.0 });
        assert_eq!((a.work.unit, a.work.complexity), (Unit::Microseconds, Complexity::LinearLog));
        let (other, why) = a.alternative.as_ref().unwrap();
        assert_eq!((other, why.as_deref()), (&Work { p: Range::exact(0.01), ..a.work.clone() }, Some("the table")));
        assert_eq!((b.work.complexity, b.work.n.value()), (Complexity::Linear, 84.0));
        let written = write(&model, &["One line".into(), String::new(), "two".into()]);
        assert!(written.starts_with("# One line\n#\n# two\n\n[model]"), "{written}");
        assert_eq!(parse("again", &written).as_ref(), Ok(&model), "{written}");
    }

    /// Replaces a part of the good file and gives the error.
    fn error(part: &str, by: &str) -> ModelError {
        assert!(GOOD.contains(part), "{part}");
        parse("m.toml", &GOOD.replacen(part, by, 1)).expect_err(by)
    }

    #[test]
    fn a_mistake_is_told_with_line_field_value_and_range() {
        for (part, by, line, words) in [
            ("p = 0.8", "p = 1.5", 10, vec!["operation 1 `a`", "`p` is 1.5", "a number from 0 to 1"]),
            ("p = 0.8", "p = nan", 10, vec!["`p` is nan"]),
            ("p = 0.8", "p = -0.1", 10, vec!["`p` is -0.1"]),
            ("p = 0.8\n", "", 6, vec!["`p` is missing", "from 0 to 1"]),
            ("complexity", "complexty", 11, vec!["complexty", "did you mean `complexity`?"]),
            ("\"n log n\"", "\"n logn\"", 11, vec!["\"constant\", \"log n\"", "did you mean \"n log n\"?"]),
            ("\"n log n\"", "7", 11, vec!["`complexity` is 7"]),
            ("min = 1,", "min = 3,", 9, vec!["min no greater than likely"]),
            ("min = 1, ", "", 9, vec!["`t_us`: `min` is missing"]),
            ("t_ms = 1\n", "t_ms = 1\nt_us = 1\n", 18, vec!["both `t_ms` and `t_us`"]),
            ("t_ms = 1", "t_ms = \"1\"", 17, vec!["`t_ms` is \"1\""]),
            ("t_ms", "tms", 17, vec!["did you mean `t_ms`?"]),
            ("n = 84", "n = 1e13", 16, vec!["`n` is 1e13", "from 0 to 1000000000000"]),
            ("players = 64", "players = -1", 8, vec!["`n`: `players` is -1"]),
            ("players = 64, things = 2.5", "a = 1e7, b = 1e7", 8, vec!["a product"]),
            ("players = 64, things = 2.5", "", 8, vec!["`n` is {", "named ones"]),
            ("name = \"b\"", "name = \"a\"", 14, vec!["operation `a` is there twice: also in line 6"]),
            ("name = \"b\"\n", "", 14, vec!["operation 2: `name` is missing"]),
            ("cores = 4", "cores = 0", 4, vec!["`cores` is 0", "from 1 to 1024"]),
            ("cores = 4", "cores = 1.5", 4, vec!["`cores` is 1.5"]),
            ("frames_per_second = 20", "frames_per_second = 0", 3, vec!["[model]", "from 0.1 to 10000"]),
            ("[model]\nname", "name", 1, vec!["the file", "no such field name"]),
            ("alternative = { p", "alternative = { q", 13, vec!["alternative", "no such field q"]),
            ("p = 0.01", "p = 2", 13, vec!["alternative: `p` is 2"]),
            ("p = 0.8", "p = ", 10, vec![]),
        ] {
            let error = error(part, by);
            let text = error.to_string();
            assert_eq!(error.line, Some(line), "{text}");
            assert!(text.starts_with(&format!("m.toml:{line}: ")) && !error.problem.is_empty(), "{text}");
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        }
        assert_eq!(parse("m", "").unwrap_err().line, None);
        assert!(parse("m", "[model]\nname = \"x\"").unwrap_err().problem.contains("`operation` is missing"));
        assert!(parse("m", "operation = []\n[model]\nname = \"x\"").unwrap_err().problem.contains("is []"));
    }

    #[test]
    fn what_a_file_may_have_is_bounded() {
        let operations = |count: usize| {
            let one = |number| format!("[[operation]]\nname = \"{number}\"\nn = 1\nt_ms = 1\np = 1\n");
            format!("[model]\nname = \"m\"\n{}", (0..count).map(one).collect::<String>())
        };
        assert!(parse("m", &operations(OPERATIONS_MAX)).is_ok());
        let error = parse("m", &operations(OPERATIONS_MAX + 1)).unwrap_err();
        assert!(error.problem.contains("257 operations; accepted: at most 256"), "{error}");
        let long = GOOD.replace("\"b\"", &format!("\"{}\"", "é".repeat(NAME_CHARS_MAX + 1)));
        let error = parse("m", &long).unwrap_err();
        assert!(error.problem.contains("1 to 80 characters") && error.problem.len() < 300, "{error}");

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.toml");
        assert!(read(&path).unwrap_err().problem.contains("--example"));
        std::fs::write(&path, [GOOD.as_bytes(), &vec![b'\n'; FILE_BYTES_MAX as usize]].concat()).unwrap();
        assert!(read(&path).unwrap_err().problem.contains("more than 262144 bytes"));
        std::fs::write(&path, b"\xff").unwrap();
        assert!(read(&path).unwrap_err().problem.contains("UTF-8"));
        std::fs::write(&path, GOOD).unwrap();
        assert!(read(&path).is_ok());
    }

    #[test]
    fn edits_are_counted() {
        for (a, b, expected) in
            [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("t_ms", "tms", 1)]
        {
            assert_eq!((edits(a, b), edits(b, a)), (expected, expected), "{a} {b}");
        }
    }
}
