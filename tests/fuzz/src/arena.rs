//! Snapshots of the arena, as a bot reads them from a host.

use arena::{Bot, Snapshot};

pub(crate) fn target(bytes: &[u8]) {
    let Ok(snapshot) = postcard::from_bytes::<Snapshot>(bytes) else { return };
    let written = postcard::to_allocvec(&snapshot).expect("what was read can be written");
    assert_eq!(postcard::from_bytes::<Snapshot>(&written).as_ref(), Ok(&snapshot));
    // Whatever it says, a bot answers it, also when it comes again and when another follows.
    let mut bot = Bot::new(0.9, 1);
    bot.set_delay_ms(40);
    let later = Snapshot { time_ms: snapshot.time_ms.saturating_add(20), ..snapshot.clone() };
    for seen in [&snapshot, &snapshot, &later] {
        let input = postcard::to_allocvec(&bot.play(seen)).expect("an input can be written");
        assert!(input.len() <= 6, "{input:?}");
    }
}
