//! An allocator for modules whose rooms are to be small (feature `small-heap`): it begins in the page in which the module's own data ends, and touches no page that
//! nobody asked for. std's begins with a page of its own and writes to the last page of what it has from the host, which is 8 KiB for each room of a game that
//! needs two. What modules keep and how is theirs; nothing here knows.
//!
//! Freed blocks are kept in lists by size, four sizes for each doubling, and are neither joined nor split: right for rules that ask for the same sizes over and over, not for
//! those that fill their 4 MiB with blocks of every size. The block that was handed out last grows, shrinks and goes back where it is.

use core::alloc::Layout;

/// Blocks begin and end at multiples of this, in bytes: the alignment of everything but vectors that ask for more.
const GRAIN_BYTES: usize = 16;
/// Up to this, sizes are the multiples of [`GRAIN_BYTES`]; in bytes.
const FINE_BYTES: usize = 64;
/// Sizes of blocks: four up to [`FINE_BYTES`], and four for each doubling up to 4 MiB, all that a module can have (`holeshot_abi::MEMORY_BYTES_MAX`).
const SIZES: usize = 4 + 4 * 16;

/// The size of a block for so many bytes and its place among [`SIZES`]. None if no memory of a module holds it.
fn size_of_block(bytes: usize) -> Option<(usize, usize)> {
    if bytes <= FINE_BYTES {
        let grains = bytes.div_ceil(GRAIN_BYTES).max(1);
        return Some((grains * GRAIN_BYTES, grains - 1));
    }
    // The doubling that it is in, (2^doubling, 2^(doubling + 1)], and the quarter of that.
    let doubling = (bytes - 1).ilog2();
    let quarter_bytes = 1usize << (doubling - 2);
    let quarter = (bytes - 1 - (1 << doubling)) / quarter_bytes;
    let index = 4 + (doubling as usize - 6) * 4 + quarter;
    (index < SIZES).then(|| ((1 << doubling) + (quarter + 1) * quarter_bytes, index))
}

/// A heap in one run of memory: blocks that were freed, by size, and what was never handed out behind them. Addresses are numbers, 0 is none.
struct Heap {
    /// The first block of each size that was freed. In each is the address of the next one.
    free: [usize; SIZES],
    /// Where what was never handed out begins.
    next: usize,
    /// Where the memory ends.
    end: usize,
}

#[allow(unsafe_code, reason = "an allocator hands out addresses; where they come from is said at each place")]
impl Heap {
    const fn empty() -> Self {
        Self { free: [0; SIZES], next: 0, end: 0 }
    }

    /// Sees to it that memory reaches to `end`. `more` gets the number of bytes that are missing and gives the new end, none if there is no more.
    fn reach(&mut self, end: usize, more: impl FnOnce(usize) -> Option<usize>) -> bool {
        if end > self.end {
            match more(end - self.end) {
                Some(reached) => self.end = reached,
                None => return false,
            }
        }
        end <= self.end
    }

    /// The address of a block; 0 if there is no memory for it.
    ///
    /// # Safety
    /// From `next` to `end`, and to what `more` makes the end, memory is this heap's alone.
    unsafe fn take(&mut self, layout: Layout, more: impl FnOnce(usize) -> Option<usize>) -> usize {
        let Some((bytes, index)) = size_of_block(layout.size()) else { return 0 };
        let (mut at, mut before) = (self.free[index], 0);
        // Nearly always the first: all blocks have the usual alignment.
        while at != 0 {
            // SAFETY: a block in a list was handed out once, so it is this heap's, of at least a grain, and holds the address of the next one.
            let after = unsafe { (at as *const usize).read() };
            if at.is_multiple_of(layout.align()) {
                if before == 0 {
                    self.free[index] = after;
                } else {
                    // SAFETY: as above.
                    unsafe { (before as *mut usize).write(after) };
                }
                return at;
            }
            (before, at) = (at, after);
        }
        let at = self.next.next_multiple_of(layout.align().max(GRAIN_BYTES));
        let Some(end) = at.checked_add(bytes).filter(|end| self.reach(*end, more)) else { return 0 };
        self.next = end;
        at
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// The block was handed out for that many bytes and is not used any more.
    unsafe fn give_back(&mut self, at: usize, bytes: usize) {
        let Some((bytes, index)) = size_of_block(bytes) else { return };
        if at + bytes == self.next {
            self.next = at;
            return;
        }
        // SAFETY: the block has room for an address, is aligned for one, and nobody else uses it.
        unsafe { (at as *mut usize).write(self.free[index]) };
        self.free[index] = at;
    }

    /// Makes a block longer or shorter where it is. False if that cannot be.
    fn resize(&mut self, at: usize, bytes: usize, new: usize, more: impl FnOnce(usize) -> Option<usize>) -> bool {
        let (Some((bytes, index)), Some((new, new_index))) = (size_of_block(bytes), size_of_block(new)) else {
            return false;
        };
        if index == new_index {
            return true;
        }
        if at + bytes != self.next {
            return false;
        }
        let Some(end) = at.checked_add(new).filter(|end| self.reach(*end, more)) else { return false };
        self.next = end;
        true
    }
}

#[cfg(all(target_arch = "wasm32", feature = "small-heap"))]
#[allow(unsafe_code)]
mod wasm {
    //! The heap of the module itself.

    use core::alloc::{GlobalAlloc, Layout};
    use core::arch::wasm32::{memory_grow, memory_size};
    use core::cell::UnsafeCell;

    use super::Heap;

    /// The size of a page of WebAssembly, in bytes.
    const PAGE_BYTES: usize = 1 << 16;

    unsafe extern "C" {
        /// Where the module's data ends: the linker's.
        static __heap_base: u8;
    }

    struct Whole(UnsafeCell<Heap>);

    // SAFETY: a module has one thread; it has no threads feature.
    unsafe impl Sync for Whole {}

    #[global_allocator]
    static WHOLE: Whole = Whole(UnsafeCell::new(Heap::empty()));

    impl Whole {
        #[allow(clippy::mut_from_ref)]
        fn heap(&self) -> &mut Heap {
            // SAFETY: one thread, and no method of the heap calls what allocates: this is the only reference.
            let heap = unsafe { &mut *self.0.get() };
            if heap.end == 0 {
                heap.next = (&raw const __heap_base) as usize;
                heap.end = memory_size(0) * PAGE_BYTES;
            }
            heap
        }
    }

    fn more(bytes: usize) -> Option<usize> {
        let before = memory_grow(0, bytes.div_ceil(PAGE_BYTES));
        // What it gives if the host gives no more.
        (before != usize::MAX).then(|| memory_size(0) * PAGE_BYTES)
    }

    // SAFETY: blocks are aligned as asked, do not overlap, and stay until they are given back; the memory behind `__heap_base` is nobody else's.
    unsafe impl GlobalAlloc for Whole {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: see above.
            unsafe { self.heap().take(layout, more) as *mut u8 }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            // SAFETY: the caller's, by the contract of `dealloc`.
            unsafe { self.heap().give_back(block as usize, layout.size()) }
        }

        unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_bytes: usize) -> *mut u8 {
            if self.heap().resize(block as usize, layout.size(), new_bytes, more) {
                return block;
            }
            let Ok(new) = Layout::from_size_align(new_bytes, layout.align()) else { return core::ptr::null_mut() };
            // SAFETY: the new block is another one, both have the bytes that are copied, and the old one is the caller's to give back.
            unsafe {
                let moved = self.alloc(new);
                if !moved.is_null() {
                    core::ptr::copy_nonoverlapping(block, moved, layout.size().min(new_bytes));
                    self.dealloc(block, layout);
                }
                moved
            }
        }
    }
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use super::*;

    /// A heap in memory of the test's, which grows by 4 KiB at a time.
    struct Tested {
        heap: Heap,
        begin: usize,
        end: usize,
        _memory: Vec<u128>,
    }

    impl Tested {
        fn new(bytes: usize) -> Self {
            let memory = vec![0u128; bytes / 16];
            let begin = memory.as_ptr() as usize;
            Self { heap: Heap { next: begin, end: begin, ..Heap::empty() }, begin, end: begin + bytes, _memory: memory }
        }

        fn used(&self) -> usize {
            self.heap.next - self.begin
        }

        fn more(&self) -> impl FnOnce(usize) -> Option<usize> + use<> {
            let (end, end_max) = (self.heap.end, self.end);
            move |bytes| Some(end + bytes.next_multiple_of(4096)).filter(|end| *end <= end_max)
        }

        fn take(&mut self, bytes: usize, align: usize) -> Option<usize> {
            let more = self.more();
            let layout = Layout::from_size_align(bytes, align).unwrap();
            // SAFETY: what is behind `next` belongs to the test's memory.
            let at = unsafe { self.heap.take(layout, more) };
            assert!(at.is_multiple_of(align) && (at == 0 || at >= self.begin && at + bytes <= self.end));
            (at != 0).then_some(at)
        }

        fn give_back(&mut self, at: usize, bytes: usize) {
            // SAFETY: tests give back what they took.
            unsafe { self.heap.give_back(at, bytes) }
        }
    }

    #[test]
    fn sizes_grow_by_a_quarter_at_most_and_hold_what_was_asked_for() {
        let mut last = (0, None);
        for bytes in (0..5_000).chain((5_000..4 << 20).step_by(641)).chain([(4 << 20) - 1, 4 << 20]) {
            let (size, index) = size_of_block(bytes).unwrap();
            assert!(size >= bytes.max(1) && size % GRAIN_BYTES == 0, "{bytes}: {size}");
            assert!(size - bytes < GRAIN_BYTES.max(bytes / 4 + 1) || bytes == 0, "{bytes}: {size}");
            // The size of a block is asked for again when it is given back.
            assert_eq!(size_of_block(size), Some((size, index)), "{bytes}");
            assert!(size >= last.0 && Some(index) >= last.1, "{bytes}");
            last = (size, Some(index));
        }
        assert_eq!(last.1, Some(SIZES - 1));
        assert_eq!(size_of_block((4 << 20) + 1), None);
        assert_eq!(size_of_block(usize::MAX), None);
    }

    #[test]
    fn what_is_given_back_is_handed_out_again() {
        let mut tested = Tested::new(1 << 16);
        let blocks: Vec<_> = [100, 40, 100].map(|bytes| (tested.take(bytes, 8).unwrap(), bytes)).to_vec();
        let used = tested.used();
        tested.give_back(blocks[0].0, 100);
        assert_eq!(tested.take(105, 8), Some(blocks[0].0), "of the same size");
        // The last one goes back where it came from.
        tested.give_back(blocks[2].0, 100);
        assert_eq!(tested.used(), used - 112);
        assert_eq!(tested.take(9_000, 8), Some(blocks[2].0));
    }

    #[test]
    fn the_last_block_grows_and_shrinks_where_it_is() {
        let mut tested = Tested::new(1 << 16);
        let first = tested.take(64, 8).unwrap();
        let last = tested.take(64, 8).unwrap();
        let resize = |tested: &mut Tested, at, bytes, new| {
            let more = tested.more();
            tested.heap.resize(at, bytes, new, more)
        };
        assert!(resize(&mut tested, last, 64, 10_000));
        assert_eq!(tested.used(), 64 + 10_240);
        assert!(!resize(&mut tested, last, 10_000, 1 << 16), "there is no more memory");
        assert!(resize(&mut tested, last, 10_000, 20));
        assert_eq!(tested.used(), 64 + 32);
        assert!(!resize(&mut tested, first, 64, 65));
        assert!(resize(&mut tested, first, 64, 50), "it has that room");
    }

    #[test]
    fn blocks_never_overlap_whatever_comes_in_what_order() {
        let mut tested = Tested::new(1 << 16);
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        let mut draw = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((random >> 33) % below) as usize
        };
        let mut live: Vec<(usize, usize, u8)> = Vec::new();
        let mut refused = 0;
        for round in 0..20_000u32 {
            if draw(2) == 0 || live.is_empty() {
                let (bytes, align) = (1 << draw(13), 1 << draw(8));
                let Some(at) = tested.take(bytes, align) else {
                    refused += 1;
                    continue;
                };
                // SAFETY: the block is the test's.
                unsafe { core::ptr::write_bytes(at as *mut u8, round as u8, bytes) };
                live.push((at, bytes, round as u8));
            } else {
                let (at, bytes, written) = live.swap_remove(draw(live.len() as u64));
                // SAFETY: as above.
                let block = unsafe { core::slice::from_raw_parts(at as *const u8, bytes) };
                assert!(block.iter().all(|byte| *byte == written), "somebody else wrote to a block of {bytes} bytes");
                tested.give_back(at, bytes);
            }
        }
        assert!(refused > 0, "the memory was full at times");
    }
}
