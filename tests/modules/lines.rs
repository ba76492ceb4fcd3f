//! Rules in Rust without any crate whose every tick stops at `unreachable`, two functions deep: for backtraces with files and lines.
//!
//! Built with:
//!   rustc --edition 2024 --target wasm32-unknown-unknown --crate-type cdylib -C opt-level=1 -C debuginfo=1 -C panic=abort \
//!     --remap-path-prefix "$PWD"=/home/ada/my-rules/src lines.rs
#![no_std]

const MANIFEST: &str =
    r#"{"name":"lines","version":"1","state_version":1,"players_min":1,"players_max":4,"input_bytes_max":0}"#;

#[repr(align(8))]
#[allow(dead_code)] // the host writes it
struct Buffer([u8; 4096]);
static mut BUFFER: Buffer = Buffer([0; 4096]);

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}

#[unsafe(no_mangle)]
extern "C" fn holeshot_abi_version() -> i32 {
    0x0001_0000
}

#[unsafe(no_mangle)]
extern "C" fn holeshot_manifest() -> i64 {
    ((MANIFEST.as_ptr() as i64) << 32) | MANIFEST.len() as i64
}

#[unsafe(no_mangle)]
extern "C" fn holeshot_buffer(len: u32) -> u32 {
    if len > 4096 { 0 } else { (&raw const BUFFER) as u32 }
}

#[unsafe(no_mangle)]
extern "C" fn holeshot_init(_: u32) -> i64 {
    0
}

#[unsafe(no_mangle)]
extern "C" fn holeshot_tick(len: u32) -> i64 {
    garage::change_gear(len)
}

#[unsafe(no_mangle)]
extern "C" fn holeshot_save() -> i64 {
    0
}

#[unsafe(no_mangle)]
extern "C" fn holeshot_restore(_: u32) -> i64 {
    0
}

mod garage {
    #[inline(never)]
    pub fn change_gear(len: u32) -> i64 {
        i64::from(ratio(len)) + 1
    }

    #[inline(always)]
    fn ratio(len: u32) -> i32 {
        // No such gear.
        if len > 0 { core::arch::wasm32::unreachable() } else { 3 }
    }
}
