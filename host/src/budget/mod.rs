//! The frame budget: what the operations of a server's frame cost together, before the game is built or after.
//!
//! The model is that of ["Know what to Build: The Server Loop"](https://gameserverarchitecture.com/2015/10/know-what-to-build-the-server-loop/): a
//! frame is the sum of its operations, and each takes W = f(N) · T · P, where N is the size of its data, f its growth, T the time for one item and P the
//! probability that it happens in a frame. [`model`] has the arithmetic, [`file`] reads and writes models, [`spread`] draws from ranges, [`report`] is
//! what is printed. Nothing here knows a game.

pub mod check;
pub mod counts;
pub mod example;
pub mod file;
pub mod measure;
pub mod model;
pub mod queue;
pub mod report;
pub mod spread;
