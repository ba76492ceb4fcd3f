//! `holeshot doctor`: looks at what a host needs, with the settings that it has, and says of each thing what was found and what to do about it. It
//! changes nothing. Each judgement is a function of figures, so that its words can be tested without a machine that is broken in that way.

mod data;
mod machine;
mod network;

use serde::Serialize;

use crate::config::Config;

/// How good or bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing to do.
    Ok,
    /// A host runs with it; somebody should know.
    Warning,
    /// A host does not start with it, loses something, or is open to others.
    Problem,
}

impl Verdict {
    /// The verdict as a word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, in a word.
    pub check: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it; none if nothing is to be done.
    pub advice: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, found: found.into(), advice: None }
    }

    fn warning(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warning, found: found.into(), advice: Some(advice.into()) }
    }

    fn problem(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Problem, found: found.into(), advice: Some(advice.into()) }
    }
}

/// Looks at everything. Takes some seconds: the timer is measured for two of them, and a large database is read.
pub async fn examine(config: &Config) -> Vec<Finding> {
    crate::tls::install_provider();
    let (for_data, for_machine) = (config.clone(), config.clone());
    let data = tokio::task::spawn_blocking(move || data::examine(&for_data)).await;
    // After the disk was read, which would make the timer late.
    let machine = tokio::task::spawn_blocking(move || machine::examine(&for_machine)).await;
    let panicked = || vec![Finding::problem("doctor", "a check panicked", "see the log, and report it")];
    let mut findings = data.unwrap_or_else(|_| panicked());
    findings.extend(network::examine(config).await);
    findings.extend(machine.unwrap_or_else(|_| panicked()));
    findings
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    const UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match UNITS.into_iter().find(|(_, shift)| bytes >= 1 << shift) {
        Some((unit, shift)) => format!("{:.1} {unit}", bytes as f64 / (1_u64 << shift) as f64),
        None => format!("{bytes} bytes"),
    }
}

/// A time that has passed, for people.
fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} minutes", seconds / 60),
        7_200..172_800 => format!("{} hours", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asserts what was found, and that there is advice where it is needed.
    #[track_caller]
    pub(super) fn says(finding: &Finding, verdict: Verdict, words: &[&str]) {
        let text = format!("{} / {}", finding.found, finding.advice.as_deref().unwrap_or_default());
        assert_eq!(finding.verdict, verdict, "{text}");
        assert_eq!(finding.advice.is_none(), verdict == Verdict::Ok, "{text}");
        for words in words {
            assert!(text.contains(words), "no {words:?} in {text}");
        }
    }

    #[test]
    fn figures_are_for_people() {
        assert_eq!(
            [0, 1_023, 1_536, 5 << 20, 3 << 30].map(size),
            ["0 bytes", "1023 bytes", "1.5 KiB", "5.0 MiB", "3.0 GiB"]
        );
        assert_eq!([1, 119, 120, 7_200, 200_000].map(age), ["1 s", "119 s", "2 minutes", "2 hours", "2 days"]);
        assert!(Verdict::Problem > Verdict::Warning && Verdict::Warning > Verdict::Ok);
    }
}
