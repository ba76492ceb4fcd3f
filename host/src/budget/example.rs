//! The example that ships: the shooter with 64 players from which the model comes, with the figures that were published for it.

use super::file::{self, ModelError};
use super::model::Model;

/// The example as a model file.
pub const SHOOTER_TOML: &str = include_str!("shooter.toml");

/// The example as a model.
///
/// # Errors
/// None: a test reads it.
pub fn shooter() -> Result<Model, ModelError> {
    file::parse("shooter.toml", SHOOTER_TOML)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shooter_has_its_published_figures() {
        let model = shooter().unwrap();
        let rows: Vec<String> =
            model.operations.iter().map(|operation| format!("{:.2}", operation.work.w_ms().likely)).collect();
        assert_eq!(rows, ["6.40", "51.20", "51.20", "3.20", "42.00", "3.20", "6.70", "51.20", "51.20"]);
        let factors = model.operations.iter().map(|operation| format!("{:.2}", operation.work.factor()));
        assert_eq!(factors.filter(|factor| ["6.39", "13.39"].contains(&factor.as_str())).count(), 2);
        let frame_ms = model.frame_ms();
        assert!(frame_ms.is_exact() && model.is_exact());
        let over = |cores: f64| format!("{:.2}", frame_ms.likely / cores);
        assert_eq!([over(1.0), over(4.0), over(8.0)], ["266.29", "66.57", "33.29"]);
        // With what the source's table says of the objects.
        let (other, _) = model.operations[4].alternative.clone().unwrap();
        assert_eq!(format!("{:.2}", other.w_ms().likely), "0.84");
        assert_eq!(format!("{:.2}", model.alternative_frame_ms().unwrap().likely), "225.13");
        assert_eq!(format!("{:.0}", 270.0 / 4.0), "68", "what the source says of 4 cores");
    }
}
