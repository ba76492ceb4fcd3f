//! The settings file: what resolves is within its ranges, and nothing that is not TOML with known keys is taken.

use std::path::Path;

use holeshot::config::{ConfigError, ROOMS_MAX, Settings};

pub(crate) fn target(input: &[u8]) {
    // A file that is not UTF-8 is refused when it is read.
    let Ok(text) = std::str::from_utf8(input) else { return };
    let path = Path::new("holeshot.toml");
    let settings = match Settings::parse(path, text) {
        Ok(settings) => settings,
        Err(ConfigError::Invalid { reason, .. }) => {
            assert!(!reason.is_empty());
            return;
        }
        Err(other) => panic!("{other}"),
    };
    assert_eq!(settings.clone().over(Settings::default()), settings, "what is set is set");
    assert_eq!(Settings::default().over(settings.clone()), settings, "flags that say nothing change nothing");
    assert_eq!(settings.clone().over(settings.clone()), settings);
    match settings.clone().resolve() {
        Ok(config) => {
            assert!((1..=ROOMS_MAX).contains(&config.rooms_max) && config.shards >= 1);
            assert!((1..=100).contains(&config.tick_share_percent) && config.gather_wait_s >= 1);
            assert_eq!(settings.http_listen.unwrap_or(config.http_listen), config.http_listen);
            assert_eq!(settings.resolve(), Ok(config));
        }
        Err(ConfigError::OutOfRange { setting, accepted, .. }) => assert!(!setting.is_empty() && !accepted.is_empty()),
        Err(other) => panic!("{other}"),
    }
}
