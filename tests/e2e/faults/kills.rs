//! kill -9 of host, manager and broker, in every order, one after the other and together, in the middle of a burst of games.

use std::time::Duration;

use tokio::time::sleep;

use super::burst::{Seen, count};
use super::site::{Part, Plan, Site};
use crate::harness::run;
use crate::mosquitto::Mosquitto;

/// How long a part is away while the games go on.
const AWAY: Duration = Duration::from_millis(300);
/// Events of rooms that end before the next kill: two or three games.
const BETWEEN: u64 = 1_000;
/// What passes between the end of a game and a kill, one after the other: at once, and at moments of the next games, which last 600 ms.
const MOMENTS_MS: [u64; 5] = [0, 130, 520, 5, 310];

const ORDERS: [[Part; 3]; 6] = [
    [Part::Host, Part::Manager, Part::Broker],
    [Part::Host, Part::Broker, Part::Manager],
    [Part::Manager, Part::Host, Part::Broker],
    [Part::Manager, Part::Broker, Part::Host],
    [Part::Broker, Part::Host, Part::Manager],
    [Part::Broker, Part::Manager, Part::Host],
];

/// Waits for the moment of the next kill.
async fn moment(site: &Site, moments: &mut impl Iterator<Item = u64>) {
    site.burst().goes_on(BETWEEN).await;
    sleep(Duration::from_millis(moments.next().unwrap())).await;
}

async fn in_every_order(broker: Mosquitto, kind: &str) {
    let mut site = Site::start(broker, &Plan::default()).await;
    let mut moments = MOMENTS_MS.into_iter().cycle();
    for order in ORDERS {
        for part in order {
            moment(&site, &mut moments).await;
            site.kill(part).await;
            sleep(AWAY).await;
            site.restart(part).await;
        }
        let names = order.map(Part::name).join(", ");
        site.verdict(&format!("kill -9 {names}, {kind}"), true).await;
    }
    for pair in [[Part::Host, Part::Manager], [Part::Manager, Part::Broker], [Part::Broker, Part::Host]] {
        moment(&site, &mut moments).await;
        for part in pair {
            site.kill(part).await;
        }
        sleep(AWAY).await;
        for part in pair {
            site.restart(part).await;
        }
        site.burst().goes_on(BETWEEN).await;
        site.verdict(&format!("kill -9 {} at once, {kind}", pair.map(Part::name).join(" and ")), true).await;
    }
    moment(&site, &mut moments).await;
    for part in Part::ALL {
        site.kill(part).await;
    }
    for part in Part::ALL {
        site.restart(part).await;
    }
    site.burst().goes_on(BETWEEN).await;
    site.verdict(&format!("kill -9 all three at once, {kind}"), false).await;
}

#[test]
fn kills_in_every_order_with_a_broker_that_forgets() {
    run(240, async {
        let Some(broker) = Mosquitto::start("").await else { return };
        in_every_order(broker, "a broker without persistence").await;
    });
}

#[test]
fn kills_in_every_order_with_a_broker_that_remembers() {
    run(240, async {
        let folder = tempfile::tempdir().unwrap();
        // As root it would become a user who may not write there.
        let settings = |place: &std::path::Path| {
            format!(
                "allow_anonymous true\nuser root\npersistence true\npersistence_location {}/\nautosave_interval 1",
                place.display()
            )
        };
        let Some(broker) = Mosquitto::start_with(|_| settings(folder.path())).await else { return };
        in_every_order(broker, "a broker with persistence").await;
        let saved = folder.path().join("mosquitto.db");
        assert!(
            std::fs::metadata(&saved).is_ok_and(|file| file.len() > 200),
            "the broker has saved nothing: {saved:?}"
        );
    });
}

#[test]
fn kills_of_the_one_process_with_the_embedded_broker() {
    run(120, async {
        let mut site = Site::start_embedded(&Plan::default()).await;
        let mut moments = MOMENTS_MS.into_iter().cycle();
        for time in 1..=4 {
            moment(&site, &mut moments).await;
            site.kill(Part::Host).await;
            site.restart(Part::Host).await;
            site.burst().goes_on(BETWEEN).await;
            site.verdict(&format!("kill -9 of host, manager and broker in one process, time {time}"), time < 4).await;
        }
        // The count itself: one event less, and another once more.
        let rooms = site.counted();
        let (room, _) = rooms.iter().find(|(_, seen)| matches!(seen, Seen::Whole(_))).unwrap();
        let connection = rusqlite::Connection::open(site.records()).unwrap();
        let change = "DELETE FROM events WHERE room = ?1 AND json_extract(json, '$.data.data') = 7";
        assert_eq!(connection.execute(change, [room]).unwrap(), 1);
        let change = "INSERT INTO events (origin, sequence, time, kind, room, module, json)
            SELECT origin, 1000000, time, kind, room, module, json FROM events
            WHERE room = ?1 AND json_extract(json, '$.data.data') = 9";
        assert_eq!(connection.execute(change, [room]).unwrap(), 1);
        let found = count(&site.records(), rooms).unwrap();
        assert_eq!((found.sent, found.recorded, found.lost, found.doubled), (found.sent, found.sent, 1, 2));
        assert!(found.wrong.len() >= 3, "{:?}", found.wrong);
    });
}
