//! Lines for the host's log. In a native build they go to standard error, where a test runner catches them.
//!
//! Use the macros [`error!`](crate::error), [`warn!`](crate::warn), [`info!`](crate::info) and [`debug!`](crate::debug), which take what `format!` takes.

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Level {
    /// Something is wrong.
    Error = 1,
    /// Something may be wrong.
    Warn = 2,
    /// For the operator.
    Info = 3,
    /// For the modder.
    Debug = 4,
}

/// Writes one line to the host's log. The host cuts it at 1,024 bytes, and drops lines beyond the 32nd of one tick.
pub fn line(level: Level, text: &str) {
    #[cfg(target_arch = "wasm32")]
    crate::export::host_log(level as i32, text);
    #[cfg(not(target_arch = "wasm32"))]
    eprintln!("[{level:?}] {text}");
}

/// Logs an error.
#[macro_export]
macro_rules! error {
    ($($arg:tt)*) => { $crate::log::line($crate::log::Level::Error, &::std::format!($($arg)*)) };
}
/// Logs a warning.
#[macro_export]
macro_rules! warn {
    ($($arg:tt)*) => { $crate::log::line($crate::log::Level::Warn, &::std::format!($($arg)*)) };
}
/// Logs for the operator.
#[macro_export]
macro_rules! info {
    ($($arg:tt)*) => { $crate::log::line($crate::log::Level::Info, &::std::format!($($arg)*)) };
}
/// Logs for the modder.
#[macro_export]
macro_rules! debug {
    ($($arg:tt)*) => { $crate::log::line($crate::log::Level::Debug, &::std::format!($($arg)*)) };
}
