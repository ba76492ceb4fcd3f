//! Models of frames: what is taken is within its ranges, works out to finite figures and is written so that it is read again; what is not is told with a
//! line that is there.

use holeshot::budget::file::{OPERATIONS_MAX, parse, write};
use holeshot::budget::report::Report;

pub(crate) fn target(input: &[u8]) {
    // A file that is not UTF-8 is refused when it is read.
    let Ok(text) = std::str::from_utf8(input) else { return };
    let model = match parse("model.toml", text) {
        Ok(model) => model,
        Err(error) => {
            assert!(error.line.is_none_or(|line| (1..=text.lines().count() + 1).contains(&line)), "{error}");
            assert!(!error.problem.is_empty());
            return;
        }
    };
    assert!((1..=OPERATIONS_MAX).contains(&model.operations.len()));
    for operation in &model.operations {
        let (t, p) = (operation.work.t, operation.work.p);
        assert!(0.0 <= t.min && t.min <= t.likely && t.likely <= t.max, "{operation:?}");
        assert!(0.0 <= p.min && p.min <= p.likely && p.likely <= p.max && p.max <= 1.0, "{operation:?}");
    }
    let frame = model.frame_ms();
    assert!(0.0 <= frame.min && frame.min <= frame.likely && frame.likely <= frame.max && frame.max.is_finite());
    assert_eq!(parse("again", &write(&model, &[])).as_ref(), Ok(&model));
    // Draws cost milliseconds, so only small ones are worked out.
    if model.is_exact() || model.operations.len() == 1 && input.len() < 200 {
        let report = Report::of(&model, 1);
        assert!(report.table().contains("the frame"));
        assert!(report.operations.iter().all(|row| (0.0..=1.0 + 1e-9).contains(&row.share)), "{report:?}");
    }
}
