//! Which points make a torque curve. Shared by the reader of car files, which is also part of the build script, and the module.

/// Points are at multiples of this, in rpm.
pub(crate) const STEP_RPM: f64 = 100.0;
/// The highest point of a curve, in rpm: that of the highest limiter. It bounds a curve to 251 points.
pub(crate) const RPM_MAX: f64 = 25_000.0;
/// Torque that a point may have, in Nm.
pub(crate) const POINT_NM: core::ops::RangeInclusive<f64> = 1.0..=3000.0;
/// Points of a curve, at least.
const POINTS_MIN: usize = 3;

/// What is accepted as one point.
pub(crate) const POINT_ACCEPTED: &str =
    "pairs [rpm, Nm]: rpm a rising multiple of 100 from 0 to 25000, Nm a number from 1 to 3000";
/// What is accepted as the points together.
pub(crate) const POINTS_ACCEPTED: &str = "3 points or more, the last at limiter_rpm or above";

/// Whether a point may come after the one before it; the first has none before it.
pub(crate) fn follows(last: Option<&[f64; 2]>, [rpm, nm]: &[f64; 2]) -> bool {
    let rises = last.map_or(*rpm == 0.0, |[last_rpm, _]| rpm > last_rpm);
    rises && *rpm <= RPM_MAX && rpm % STEP_RPM == 0.0 && POINT_NM.contains(nm)
}

/// Whether points that are right one by one are a curve up to the limiter.
pub(crate) fn is_whole(points: &[[f64; 2]], limiter_rpm: f64) -> bool {
    points.len() >= POINTS_MIN && points.last().is_some_and(|[rpm, _]| *rpm >= limiter_rpm)
}
