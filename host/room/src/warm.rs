//! What a step comes to in memory, for whoever can have it fetched before: a shard takes its rooms in turns, so that most of what a room has was thrown out of
//! the processor's caches since its last step. Nothing here reads any of it.

/// Asks for the line of memory at an address, and does not wait for it. What is there, and whether it is memory at all, does not matter.
pub trait Ask: Fn(*const u8) + Copy {}
impl<F: Fn(*const u8) + Copy> Ask for F {}

/// Asks for the lines at these distances from an address, as [`Ask`] does for one.
pub type AskMany = fn(*const u8, &[u32]);

/// Bytes that are fetched at once, on the processors that servers have.
pub const LINE_BYTES: usize = 64;

/// Asks for a value, or for the elements of a slice; not for what is behind pointers in it.
#[inline]
pub fn ask_for<T: ?Sized>(value: &T, ask: impl Ask) {
    let at = std::ptr::from_ref(value).cast::<u8>();
    let Some(last) = size_of_val(value).checked_sub(1) else { return };
    for offset in (0..last).step_by(LINE_BYTES) {
        ask(at.wrapping_add(offset));
    }
    ask(at.wrapping_add(last));
}
