//! Following the events of any broker as one more subscriber, for people who watch. Nothing is kept and nothing acknowledged end to end: who
//! must not miss an event asks the records.

use tokio::sync::mpsc;

use super::link::{Link, LinkConfig, LinkEvent};
use super::{BrokerAccess, CloudEvent, cloudevent::CloudEventError};

/// Events that may wait for the one who watches. A slow watcher misses some and is told how many.
const EVENTS_QUEUED_MAX: usize = 4_096;

/// What a follower is handed.
#[derive(Debug, Clone)]
pub enum Followed {
    /// The broker has taken the subscription: events from now on are seen.
    Subscribed,
    /// The connection is lost and is being made again.
    Disconnected,
    /// There is no connection yet; it is tried again and again.
    Unreachable {
        /// What the system or the broker says.
        reason: String,
    },
    /// An event.
    Event(Box<CloudEvent>),
    /// A message on a topic of events that is no event.
    NotAnEvent {
        /// Where it came.
        topic: String,
        /// What is wrong with it.
        error: CloudEventError,
    },
    /// The broker refuses the subscription.
    Refused,
}

/// A subscription to the events of every host on a broker, until it is dropped.
#[derive(Debug)]
pub struct Follower {
    followed: mpsc::Receiver<Followed>,
    _link: LinkHolder,
}

struct LinkHolder(#[allow(dead_code, reason = "held for its drop, which ends the connection")] Link);

impl std::fmt::Debug for LinkHolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Link")
    }
}

impl Follower {
    /// Begins to follow. Connects in the background, again and again. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(access: BrokerAccess) -> Self {
        let (sender, followed) = mpsc::channel(EVENTS_QUEUED_MAX);
        let config = LinkConfig {
            // Not `holeshot-…`: the embedded broker keeps those names for the host itself.
            client_id: format!("follower-{}", uuid::Uuid::now_v7().simple()),
            access,
            keep_session: false,
            manual_acks: false,
            window: 1,
            will: None,
        };
        let link = Link::start(config, |handle| {
            let mut missed = 0u64;
            move |event| {
                let followed = match event {
                    LinkEvent::Connected { .. } => {
                        if handle.subscribe(super::topics::EVERY_EVENT).is_err() {
                            handle.reconnect();
                        }
                        return;
                    }
                    LinkEvent::Disconnected => Followed::Disconnected,
                    LinkEvent::Unreachable { reason } => Followed::Unreachable { reason },
                    LinkEvent::Subscribed { accepted: true } => Followed::Subscribed,
                    LinkEvent::Subscribed { accepted: false } => Followed::Refused,
                    LinkEvent::Published { .. } => return,
                    LinkEvent::Message(message) => match CloudEvent::parse(&message.payload) {
                        Ok(event) => Followed::Event(Box::new(event)),
                        Err(error) => Followed::NotAnEvent { topic: message.topic, error },
                    },
                };
                if sender.try_send(followed).is_err() {
                    missed += 1;
                    tracing::warn!(missed, "events come faster than they are read");
                }
            }
        });
        Self { followed, _link: LinkHolder(link) }
    }

    /// The next thing, or none when the connection is given up.
    pub async fn next(&mut self) -> Option<Followed> {
        self.followed.recv().await
    }
}
