//! Frames as a scenario writes them: by number, or counted from the first time that an event left the room.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The frame in which each event was seen first, by name.
pub(super) type FirstSeen = BTreeMap<String, u32>;

/// A frame: `120`, `"tree_started"`, `"tree_started+75"`, `"tree_started-2"`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub(super) struct Point {
    event: Option<String>,
    offset: i64,
}

/// Frames from one on and before another, as in Rust: `"0..80"`, `"120.."`, `"..50"`, `"launched..launched+100"`; or a single one, as [`Point`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub(super) struct Frames {
    from: Option<Point>,
    /// Not among them.
    to: Option<Point>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a frame is a number, or text like \"tree_started+75\"; frames are text like \"0..80\"")]
enum Written {
    Number(i64),
    Text(String),
}

/// Frames beyond this are never played; it keeps every sum in range.
const OFFSET_MAX: i64 = 1 << 32;

impl Point {
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let wrong = |what: &str| {
            Err(format!(
                "{text:?} is no frame: {what}. A frame is a number, or the name of an event and an offset: `launched+75`"
            ))
        };
        let number =
            |digits: &str| digits.trim().parse::<i64>().ok().filter(|number| (0..=OFFSET_MAX).contains(number));
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            return match number(text) {
                Some(offset) => Ok(Self { event: None, offset }),
                None => wrong("it begins with a digit and is no number"),
            };
        }
        let split = text.find(['+', '-']).unwrap_or(text.len());
        let (event, rest) = text.split_at(split);
        let event = event.trim();
        if !holeshot_abi::is_event_name(event) {
            return wrong("no event has such a name");
        }
        let offset = match (rest.strip_prefix('+'), rest.strip_prefix('-')) {
            (Some(digits), _) => number(digits),
            (_, Some(digits)) => number(digits).map(|offset| -offset),
            _ => Some(0),
        };
        match offset {
            Some(offset) => Ok(Self { event: Some(event.to_owned()), offset }),
            None => wrong("what follows the name is no offset"),
        }
    }

    /// The frame; none before the event was seen. May be negative.
    pub(super) fn frame(&self, seen: &FirstSeen) -> Option<i64> {
        let from = match &self.event {
            None => 0,
            Some(event) => i64::from(*seen.get(event)?),
        };
        Some(from + self.offset)
    }

    /// The event that it counts from.
    pub(super) fn event(&self) -> Option<&str> {
        self.event.as_deref()
    }
}

impl Frames {
    fn parse(text: &str) -> Result<Self, String> {
        let Some((from, to)) = text.split_once("..") else {
            let point = Point::parse(text)?;
            let next = Point { offset: point.offset + 1, event: point.event.clone() };
            return Ok(Self { from: Some(point), to: Some(next) });
        };
        let end = |text: &str| if text.trim().is_empty() { Ok(None) } else { Point::parse(text).map(Some) };
        let frames = Self { from: end(from)?, to: end(to)? };
        if let (Some(from), Some(to)) = (&frames.from, &frames.to)
            && from.event == to.event
            && from.offset >= to.offset
        {
            return Err(format!("{text:?} has no frames: the end is not among them, as in Rust"));
        }
        Ok(frames)
    }

    /// Whether a frame is among them, as far as events were seen: what begins with one that was not has not begun, what ends with one goes on.
    pub(super) fn contain(&self, frame: u32, seen: &FirstSeen) -> bool {
        let frame = i64::from(frame);
        let begun = match &self.from {
            None => true,
            Some(from) => from.frame(seen).is_some_and(|from| frame >= from),
        };
        let ended = self.to.as_ref().and_then(|to| to.frame(seen)).is_some_and(|to| frame >= to);
        begun && !ended
    }
}

impl TryFrom<Written> for Point {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Number(number) => Self::parse(&number.to_string()),
            Written::Text(text) => Self::parse(&text),
        }
    }
}

impl TryFrom<Written> for Frames {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Number(number) => Self::parse(&number.to_string()),
            Written::Text(text) => Self::parse(&text),
        }
    }
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.event, self.offset) {
            (None, offset) => write!(f, "{offset}"),
            (Some(event), 0) => f.write_str(event),
            (Some(event), offset) => write!(f, "{event}{offset:+}"),
        }
    }
}

impl std::fmt::Display for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let (Some(from), Some(to)) = (&self.from, &self.to)
            && from.event == to.event
            && from.offset + 1 == to.offset
        {
            return write!(f, "{from}");
        }
        let show = |point: &Option<Point>| point.as_ref().map(ToString::to_string).unwrap_or_default();
        write!(f, "{}..{}", show(&self.from), show(&self.to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> FirstSeen {
        FirstSeen::from([("green".to_owned(), 100), ("a.b".to_owned(), 7)])
    }

    #[test]
    fn frames_are_numbers_or_counted_from_events() {
        for (text, frames) in [
            ("5", vec![5]),
            ("5..7", vec![5, 6]),
            ("..2", vec![0, 1]),
            ("119..", vec![119]),
            ("green", vec![100]),
            ("green+3..green+5", vec![103, 104]),
            (" green - 1 .. 101 ", vec![99, 100]),
            ("a.b", vec![7]),
            ("118..never", vec![118, 119]),
            ("never..", vec![]),
            ("never-5", vec![]),
        ] {
            let parsed = Frames::parse(text).unwrap();
            let found: Vec<u32> = (0..120).filter(|frame| parsed.contain(*frame, &seen())).collect();
            assert_eq!(found, frames, "{text}");
        }
        for text in ["5", "..2", "119..", "green", "green+3..green+5", "green-1..101"] {
            assert_eq!(Frames::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Point::parse("green-200").unwrap().frame(&seen()), Some(-100));
        assert_eq!(Point::parse("never").unwrap().frame(&seen()), None);
    }

    #[test]
    fn what_is_no_frame_says_so() {
        for (text, part) in [
            ("", "no event"),
            ("5x", "no number"),
            ("Green", "no event"),
            ("green+", "no offset"),
            ("green+x", "no offset"),
            ("green+-3", "no offset"),
            ("99999999999999999999", "no number"),
            ("7..7", "no frames"),
            ("green+2..green", "no frames"),
            ("1..2..3", "no number"),
            ("-5", "no event"),
        ] {
            let error = Frames::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
