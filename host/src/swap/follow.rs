//! What becomes of a module that a swap of all rooms gave to them and to new rooms: if it fails in every one of them on probation, new rooms
//! get the former module again. What a rollback is in a room is the business of `holeshot-room`.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::InForce;
use super::service::is_over;
use crate::modules::Former;
use crate::rooms::{LiveRoom, Rooms};
use crate::rules::Module;

/// How often rooms are looked at, in milliseconds: new rooms begin under failed rules no longer than that, and a thousand rooms are looked at in
/// a tenth of one.
const LOOK_EVERY_MS: u64 = 100;

/// What the rules did in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// They are on probation.
    Open,
    /// They failed, and the former ones are back.
    Failed,
    /// They passed, or brought the game to its end.
    Passed,
    /// Nobody knows: the room ended before a frame, or has other rules by now.
    Unknown,
}

fn fate(rules: &InForce, hash: &str, is_over: bool, has_frames: bool) -> Fate {
    if rules.failed(hash).is_some() {
        return Fate::Failed;
    }
    match (rules.module().hash == hash, rules.on_probation()) {
        (true, false) => Fate::Passed,
        (true, true) if !is_over => Fate::Open,
        (true, true) if has_frames => Fate::Passed,
        _ => Fate::Unknown,
    }
}

/// Follows a module through the probations that it is on in `swapped`. Ends with the last of them, at the first that it passed, or when its name has
/// another module: so there is one of these for each name, and each ends with its rooms at the latest.
pub(super) async fn follow(rooms: Arc<Rooms>, module: Arc<Module>, former: Former, mut swapped: Vec<Arc<LiveRoom>>) {
    let modules = rooms.modules();
    let (name, hash) = (&module.manifest().name, module.hash().to_string());
    let mut failed = 0usize;
    while !swapped.is_empty() {
        sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
        if modules.get(name).is_none_or(|now| now.hash() != module.hash()) {
            return;
        }
        let mut passed = false;
        swapped.retain(|live| {
            let fate = fate(&live.rules, &hash, is_over(&rooms, live), live.frame().is_some());
            passed |= fate == Fate::Passed;
            failed += usize::from(fate == Fate::Failed);
            fate == Fate::Open
        });
        if passed {
            return;
        }
    }
    if failed == 0 {
        return;
    }
    let put_back = {
        let (modules, failed) = (Arc::clone(modules), module.hash());
        spawn_blocking(move || modules.put_back(&failed, &former)).await
    };
    match put_back {
        Ok(Ok(true)) => {
            tracing::warn!(
                module = name,
                hash,
                rooms = failed,
                "the new rules failed in every room; new rooms get the former ones again"
            );
        }
        Ok(Ok(false)) => {}
        Ok(Err(error)) => {
            tracing::error!(module = name, hash, rooms = failed, %error, "the new rules failed in every room, and new rooms get them all the same");
        }
        Err(error) => tracing::error!(module = name, %error, "the former rules were not put back"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rooms::ModuleName;
    use crate::swap::FailedModule;

    #[test]
    fn a_fate_is_open_until_the_probation_or_the_room_ends() {
        let named = |hash: &str| ModuleName { name: "game".into(), version: "1".into(), hash: hash.into() };
        let rules = InForce::new(named("old"));
        let fate = |hash: &str, is_over, has_frames| fate(&rules, hash, is_over, has_frames);
        rules.swapped(named("new"));
        assert_eq!(fate("new", false, true), Fate::Open);
        assert_eq!(fate("new", true, true), Fate::Passed);
        assert_eq!(fate("new", true, false), Fate::Unknown);
        let failed = FailedModule { hash: "new".into(), frame: Some(1), reason: "trap".into(), rules_failed: true };
        rules.rolled_back(named("old"), failed);
        assert_eq!(fate("new", false, true), Fate::Failed);
        rules.swapped(named("new"));
        rules.kept();
        assert_eq!(fate("new", false, true), Fate::Passed);
        rules.swapped(named("newer"));
        assert_eq!(fate("new", false, true), Fate::Unknown);
    }
}
