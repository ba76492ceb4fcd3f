//! Torque curves: points as a file has them, and the table that physics reads. Shared by the reader of car files, which is also part of the build
//! script, and the module, so that both draw the same curve to the bit.

/// Torque tables have a value for every so many rpm, so points between those cannot be kept exactly.
pub(crate) const STEP_RPM: f64 = 100.0;
/// The highest point of a curve, in rpm: that of the highest limiter. It bounds a table to 251 values.
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

/// The torque at every [`STEP_RPM`] from 0, drawn straight between points that [follow](follows) each other.
pub(crate) fn table(points: &[[f64; 2]]) -> Vec<f64> {
    let Some([_, first_nm]) = points.first() else { return Vec::new() };
    let last_rpm = points.last().map_or(0.0, |[rpm, _]| if *rpm <= RPM_MAX { *rpm } else { RPM_MAX });
    let mut table = Vec::with_capacity((last_rpm / STEP_RPM) as usize + 1);
    table.push(*first_nm);
    for ([rpm_a, nm_a], [rpm_b, nm_b]) in points.iter().zip(points.iter().skip(1)) {
        while (table.len() as f64) * STEP_RPM <= *rpm_b && *rpm_b <= RPM_MAX {
            let rpm = table.len() as f64 * STEP_RPM;
            table.push(nm_a + (nm_b - nm_a) * (rpm - rpm_a) / (rpm_b - rpm_a));
        }
    }
    table
}
