//! What the reports that are HTML files share: charts as SVG in the page's colours, figures and tables, and how a page looks. What a page tells is elsewhere
//! ([`crate::dyno::report`], [`crate::load::page`]).

pub(crate) mod chart;
pub(crate) mod parts;
#[cfg(test)]
pub(crate) mod read;

/// How a page looks, in light, in dark and on paper. No address is in it, so nothing is loaded.
pub(crate) const STYLE: &str = include_str!("style.css");
