//! `holeshot doctor`: what a host with these settings would meet, and what to do about it.

use clap::Args;
use serde_json::json;

use super::Failed;
use super::output::say;
use super::serve::ServeArgs;
use crate::doctor::{Finding, Verdict, examine};

/// Width of the words before what was found, in characters.
const CHECK_CHARS: usize = 18;

#[derive(Debug, Clone, Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    serve: ServeArgs,
}

pub(super) async fn doctor(args: DoctorArgs, as_json: bool) -> anyhow::Result<()> {
    let config = args.serve.config()?;
    let findings = examine(&config).await;
    let count = |verdict: Verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let (problems, warnings) = (count(Verdict::Problem), count(Verdict::Warning));
    if as_json {
        say(json!({ "findings": findings, "problems": problems, "warnings": warnings }));
    } else {
        for finding in &findings {
            say(lines(finding));
        }
        say(match (problems, warnings) {
            (0, 0) => "All is well.".to_owned(),
            (0, warnings) => format!("No problems, {warnings} to know about."),
            (problems, warnings) => format!("{problems} to be solved, {warnings} to know about."),
        });
    }
    if problems > 0 { Err(Failed.into()) } else { Ok(()) }
}

fn lines(finding: &Finding) -> String {
    let Finding { check, verdict, found, advice } = finding;
    let line = format!("{:<8} {check:<CHECK_CHARS$} {found}", verdict.as_str());
    match advice {
        Some(advice) => format!("{line}\n{:<8} {:<CHECK_CHARS$} -> {advice}", "", ""),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_stands_below_what_was_found() {
        let mut finding =
            Finding { check: "disk", verdict: Verdict::Problem, found: "full".into(), advice: Some("empty it".into()) };
        assert_eq!(lines(&finding), format!("problem  disk               full\n{:28}-> empty it", ""));
        finding.advice = None;
        finding.verdict = Verdict::Ok;
        assert_eq!(lines(&finding), "ok       disk               full");
    }
}
