//! Asking the processor for memory before it is needed: the one instruction that [`holeshot_room::Ask`] stands for, and [`holeshot_room::AskMany`] for many. What is asked for is known where it lies.

/// Asks for the line of memory at an address. Nothing waits for it, and an address without memory behind it does nothing.
#[inline(always)]
pub(crate) fn ask(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the instruction is a hint. It raises no fault whatever the address is, and the program sees nothing of what it reads
        // (Intel, Software Developer's Manual, volume 2, PREFETCHh). Every x86-64 has it.
        #[allow(unsafe_code)]
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(at.cast());
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        // SAFETY: as above (Arm, Architecture Reference Manual, PRFM): a hint, which changes neither registers nor flags.
        #[allow(unsafe_code)]
        unsafe {
            core::arch::asm!("prfm pldl1keep, [{at}]", at = in(reg) at, options(nostack, preserves_flags));
        }
    }
    // Elsewhere it is fetched when it is needed.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = at;
}

/// Asks for the lines at these distances from an address.
pub(crate) fn ask_many(from: *const u8, distances: &[u32]) {
    for distance in distances {
        ask(from.wrapping_add(*distance as usize));
    }
}
