//! The exports. They have names of their own, because the drag race that is linked in brings the usual ones; a test renames them in the file.

use std::cell::RefCell;

use crate::orders::Orders;
use crate::rules::Misrule;

thread_local! {
    /// The one game of an instance. The boundary has one thread.
    static GAME: RefCell<Misrule> = {
        std::panic::set_hook(Box::new(|panic| holeshot_guest::error!("{panic}")));
        RefCell::new(Misrule::new(Orders::mine()))
    };
}

fn call<T>(call: impl FnOnce(&mut Misrule) -> T) -> T {
    GAME.with_borrow_mut(call)
}

macro_rules! exports {
    ($($name:ident($($len:ident)?) -> $result:ty = $method:ident;)+) => {
        $(
            #[allow(unsafe_code)] // an exported symbol name is an unsafe attribute
            #[unsafe(no_mangle)]
            extern "C" fn $name($($len: usize)?) -> $result {
                call(|game| game.$method($($len)?))
            }
        )+
    };
}

exports! {
    misrule__abi_version() -> u32 = abi_version;
    misrule__manifest() -> i64 = manifest;
    misrule__buffer(len) -> u32 = buffer;
    misrule__init(len) -> i64 = init;
    misrule__tick(len) -> i64 = tick;
    misrule__save() -> i64 = save;
    misrule__restore(len) -> i64 = restore;
    misrule__describe() -> i64 = describe;
}
