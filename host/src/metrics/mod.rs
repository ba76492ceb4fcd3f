//! What the host tells about itself in figures: what modules and rooms cost, how late steps come, what waits where.

pub mod distribution;
