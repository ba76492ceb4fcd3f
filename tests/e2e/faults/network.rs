//! A broker that refuses, hangs, resets, is slow or cut off, that forgets what it has acknowledged, or whose users may not do what they must.

use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;

use super::proxy::{Proxy, Weather};
use super::site::{Part, Plan, Site};
use crate::harness::{eventually, run};
use crate::mosquitto::Mosquitto;

/// Events of rooms that end under each fault: some games.
const UNDER_A_FAULT: u64 = 2_000;

#[test]
fn a_network_that_fails_in_every_way() {
    run(240, async {
        let Some(broker) = Mosquitto::start("").await else { return };
        let proxy = Proxy::to(broker.port).await;
        let plan = Plan { broker_port: Some(proxy.port), ..Plan::default() };
        let mut site = Site::start(broker, &plan).await;
        site.burst().goes_on(UNDER_A_FAULT).await;
        let names = [
            "refuses for 2 s",
            "hangs for 3 s",
            "needs 20 ms for every 4 KiB",
            "is cut after 20,000 bytes, again and again",
        ];
        let weathers = [Weather::Refuses, Weather::Hangs, Weather::Slow(20), Weather::CutsAfter(20_000)];
        for ((weather, name), seconds) in weathers.into_iter().zip(names).zip([2, 3, 3, 3]) {
            let before = proxy.connections();
            proxy.set(weather);
            site.burst().goes_on(UNDER_A_FAULT).await;
            sleep(Duration::from_secs(seconds)).await;
            if let Weather::CutsAfter(_) = weather {
                assert!(proxy.connections() > before + 5, "{} connections were cut", proxy.connections() - before);
            }
            proxy.set(Weather::Fair);
            site.burst().goes_on(UNDER_A_FAULT / 2).await;
            site.verdict(&format!("the broker {name}"), true).await;
        }
        for _ in 0..8 {
            proxy.reset();
            sleep(Duration::from_millis(170)).await;
        }
        site.burst().goes_on(UNDER_A_FAULT / 2).await;
        site.verdict("the broker resets every connection 8 times", false).await;
    });
}

#[test]
fn a_broker_that_is_stopped_and_killed_and_a_manager_that_is_stopped() {
    run(240, async {
        // It holds little for a manager that is away, and drops the rest although it has acknowledged it.
        let Some(broker) = Mosquitto::start("max_queued_messages 100").await else { return };
        let mut site = Site::start(broker, &Plan::default()).await;
        site.is_subscribed().await;
        for time in 1..=2 {
            site.burst().goes_on(UNDER_A_FAULT).await;
            site.broker().signal(libc::SIGSTOP);
            site.burst().goes_on(UNDER_A_FAULT).await;
            site.kill(Part::Broker).await;
            site.restart(Part::Broker).await;
            site.burst().goes_on(UNDER_A_FAULT).await;
            site.verdict(&format!("the broker is stopped and then killed, time {time}"), true).await;
        }

        site.is_subscribed().await;
        site.manager().signal(libc::SIGSTOP);
        site.burst().goes_on(2 * UNDER_A_FAULT).await;
        // It says so once.
        eventually("the broker drops messages", Duration::from_secs(20), async || {
            let said = site.broker().log();
            if said.contains("Outgoing messages are being dropped") { Ok(()) } else { Err(said) }
        })
        .await;
        site.manager().signal(libc::SIGCONT);
        site.burst().goes_on(UNDER_A_FAULT).await;
        site.verdict("the manager is stopped while the broker's queue of 100 overflows", true).await;

        // Longer than the broker waits for a sign of life.
        site.manager().signal(libc::SIGSTOP);
        sleep(Duration::from_secs(9)).await;
        site.manager().signal(libc::SIGCONT);
        site.verdict("the manager is stopped until the broker gives it up", false).await;
    });
}

const ALL: &str = "topic readwrite holeshot/#";

fn write_acl(folder: &Path, host: &str, manager: &str) {
    std::fs::write(folder.join("acl"), format!("user host\n{host}\nuser manager\n{manager}\n")).unwrap();
}

/// Changes what the users may, also on connections that are there.
async fn allow(broker: &Mosquitto, host: &str, manager: &str) {
    write_acl(broker.dir(), host, manager);
    let reloads = || broker.log().matches("Reloading config.").count();
    let before = reloads();
    broker.signal(libc::SIGHUP);
    eventually("mosquitto reads its files again", Duration::from_secs(10), async || {
        if reloads() > before { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
}

#[test]
fn users_of_a_broker_without_the_right_to_do_what_they_must() {
    run(240, async {
        let settings = |folder: &Path| {
            write_acl(folder, ALL, ALL);
            format!("allow_anonymous true\nuser root\nlog_type all\nacl_file {}", folder.join("acl").display())
        };
        let Some(broker) = Mosquitto::start_with(settings).await else { return };
        let user = |name: &str| vec!["--broker-username".to_owned(), name.to_owned()];
        let plan = Plan { host_args: user("host"), manager_args: user("manager"), ..Plan::default() };
        let mut site = Site::start(broker, &plan).await;
        site.is_subscribed().await;
        site.burst().goes_on(UNDER_A_FAULT).await;
        let own = "topic write holeshot/v1/+/status\ntopic read holeshot/v1/+/stored";
        let without: [(&str, &str, &str); 3] = [
            ("the host may not publish events", own, ALL),
            ("the manager may not read events", ALL, "topic write holeshot/v1/+/stored"),
            ("the manager may not publish receipts", ALL, "topic read holeshot/#"),
        ];
        for (number, (name, host, manager)) in without.into_iter().enumerate() {
            let says = |site: &Site| site.host.log().matches("no manager confirms the events").count();
            let before = says(&site);
            allow(site.broker(), host, manager).await;
            site.burst().goes_on(UNDER_A_FAULT).await;
            eventually("the host says what is missing", Duration::from_secs(20), async || {
                if says(&site) > before { Ok(()) } else { Err(site.host.log()) }
            })
            .await;
            allow(site.broker(), ALL, ALL).await;
            site.burst().goes_on(UNDER_A_FAULT / 2).await;
            site.verdict(name, number + 1 < without.len()).await;
        }
    });
}
