//! The manager: the built-in recorder. It subscribes to the internal events of every host on a broker and keeps them
//! in SQLite; [`Records`] reads them. It tells each host what is committed, so that the host can forget it. How events
//! travel is the business of [`crate::events`].

pub mod alone;
pub mod chores;
mod derive;
pub(crate) mod recorder;
pub mod records;
mod scores;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension};
use serde::Serialize;

use crate::events::link::{Content, Link, LinkConfig, LinkEvent, LinkHandle};
use crate::events::publisher::Receipt;
use crate::events::{BrokerAccess, topics};
use crate::files::{self, LockError};
use chores::Retention;
use recorder::{Desk, Recorder};

pub use records::{Records, RecordsError};

/// QoS 1 messages that the manager publishes unacknowledged: it has none, its receipts are QoS 0.
const WINDOW: u16 = 10;

/// Name of the file in the data folder that a manager holds: two on one folder would write the same records and take each other's place at
/// the broker.
pub(crate) const LOCK_FILE: &str = "manager.lock";

/// How long acknowledgements, the last receipts and the farewell may take.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// What [`Manager::start`] needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagerConfig {
    /// The broker; it need not be there yet.
    pub broker: BrokerAccess,
    /// Where the records are kept.
    pub data_dir: PathBuf,
    /// How long.
    pub retention: Retention,
}

/// Why the manager did not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManagerError {
    /// The records cannot be used.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// Another manager keeps these records.
    #[error(
        "another manager keeps records in the data folder {folder}; stop it, or choose another folder with --data-dir"
    )]
    Held {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder cannot be used.
    #[error("{0}")]
    Folder(String),
    /// No thread or no random bytes.
    #[error("the system refused: {0}")]
    System(String),
}

/// Counters since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ManagerStats {
    /// Messages that arrived.
    pub received: u64,
    /// Events that are new and committed.
    pub stored: u64,
    /// Events that were known.
    pub duplicates: u64,
    /// Messages, or events' data, that could not be used.
    pub rejected: u64,
    /// Messages that were one too many; their hosts send them again.
    pub overflowed: u64,
    /// Transactions.
    pub batches: u64,
    /// Events deleted because of their age.
    pub deleted_events: u64,
    /// Rooms deleted because of their age.
    pub deleted_rooms: u64,
    /// The longest that recording waited for a step of that work, in microseconds.
    pub chore_longest_us: u64,
    /// Whether the broker has taken the subscription on the present connection.
    pub subscribed: bool,
}

/// A running manager. Dropping it cuts its connection without a farewell; what it acknowledged is committed.
pub struct Manager {
    desk: Arc<Desk>,
    records: Records,
    link: Option<Link>,
    thread: Option<JoinHandle<()>>,
    // Held until the last record is written.
    _lock: File,
}

impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manager").field("records", &self.records.path()).finish_non_exhaustive()
    }
}

impl Manager {
    /// Opens the records and begins to connect. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`ManagerError`].
    pub async fn start(config: ManagerConfig) -> Result<Self, ManagerError> {
        let directory = config.data_dir;
        let (lock, connection, path, id, newest) = tokio::task::spawn_blocking(move || {
            let lock = files::hold(directory.join(LOCK_FILE)).map_err(|error| match error {
                LockError::Held { .. } => ManagerError::Held { folder: directory.clone() },
                error @ LockError::Unusable { .. } => ManagerError::Folder(error.to_string()),
            })?;
            let (connection, path) = records::open(&directory)?;
            let id = manager_id(&connection, &path)?;
            let newest = records::newest_event(&connection, &path)?;
            Ok::<_, ManagerError>((lock, connection, path, id, newest))
        })
        .await
        .map_err(|error| ManagerError::System(error.to_string()))??;

        let desk = Arc::new(Desk::default());
        desk.committed.send_replace(newest);
        let for_link = Arc::clone(&desk);
        let link = Link::start(
            LinkConfig {
                // Stable, so that the broker keeps what comes while the manager is away.
                client_id: format!("holeshot-manager-{id}"),
                access: config.broker,
                keep_session: true,
                manual_acks: true,
                window: WINDOW,
                will: None,
            },
            |handle| reaction(for_link, handle),
        );
        let recorder = Recorder::new(Arc::clone(&desk), link.handle().clone(), connection, config.retention);
        let thread = std::thread::Builder::new()
            .name("recorder".to_owned())
            .spawn(move || recorder.run())
            .map_err(|error| ManagerError::System(format!("no thread: {error}")))?;
        let records = Records::live(path, desk.committed.subscribe());
        Ok(Self { desk, records, link: Some(link), thread: Some(thread), _lock: lock })
    }

    /// A handle that reads the records. It works on after the manager has stopped.
    pub fn records(&self) -> Records {
        self.records.clone()
    }

    /// Counters.
    pub fn stats(&self) -> ManagerStats {
        self.figures().stats()
    }

    /// A handle that reads the counters. It works on after the manager has stopped.
    pub fn figures(&self) -> ManagerFigures {
        ManagerFigures(Arc::clone(&self.desk))
    }

    /// Stores what has arrived, sends the last acknowledgements and receipts, and disconnects.
    pub async fn shutdown(mut self) {
        self.desk.stop();
        if let Some(thread) = self.thread.take() {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the recorder's thread panicked");
            }
        }
        if let Some(link) = self.link.take() {
            link.close(FAREWELL_MAX).await;
        }
    }
}

/// Reads a manager's counters.
pub struct ManagerFigures(Arc<Desk>);

impl std::fmt::Debug for ManagerFigures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ManagerFigures")
    }
}

impl ManagerFigures {
    /// Counters.
    pub fn stats(&self) -> ManagerStats {
        let counters = &self.0.counters;
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        ManagerStats {
            received: read(&counters.received),
            stored: read(&counters.stored),
            duplicates: read(&counters.duplicates),
            rejected: read(&counters.rejected),
            overflowed: read(&counters.overflowed),
            batches: read(&counters.batches),
            deleted_events: read(&counters.deleted_events),
            deleted_rooms: read(&counters.deleted_rooms),
            chore_longest_us: read(&counters.chore_longest_us),
            subscribed: counters.subscribed.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // First, so that the last batch is stored but, as after a crash, not acknowledged.
        self.link = None;
        self.desk.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the recorder's thread panicked");
        }
    }
}

fn reaction(desk: Arc<Desk>, handle: LinkHandle) -> impl FnMut(LinkEvent) + Send + 'static {
    let mut resumed = false;
    // Subscriptions that the broker has not answered.
    let mut unanswered = 0_u32;
    move |event| match event {
        LinkEvent::Connected { session_present, .. } => {
            resumed = session_present;
            unanswered = 0;
            for filter in [topics::EVERY_EVENT, topics::EVERY_OUTBOX] {
                if handle.subscribe(filter).is_ok() {
                    unanswered += 1;
                }
            }
            desk.renewed();
        }
        LinkEvent::Disconnected => desk.counters.subscribed.store(false, Ordering::Relaxed),
        LinkEvent::Subscribed { accepted } => {
            unanswered = unanswered.saturating_sub(1);
            if !accepted {
                // The link has said so. Without the right to subscribe there is nothing to do here.
                return;
            }
            if unanswered == 0 {
                desk.counters.subscribed.store(true, Ordering::Relaxed);
                if !resumed {
                    let ready = serde_json::to_vec(&Receipt::Ready { ready: true });
                    // If it gets lost, the hosts notice within a second that receipts are missing.
                    let _ = handle.publish(
                        None,
                        &topics::stored(topics::ALL_HOSTS),
                        ready.unwrap_or_default(),
                        false,
                        false,
                        Content::Json,
                    );
                }
            }
        }
        LinkEvent::Unreachable { .. } | LinkEvent::Published { .. } => {}
        LinkEvent::Message(message) => desk.put(message),
    }
}

/// The id of these records, made once: the broker knows the manager's session by it.
fn manager_id(connection: &Connection, path: &std::path::Path) -> Result<String, ManagerError> {
    let sqlite = |error: rusqlite::Error| RecordsError::Sqlite { path: path.to_owned(), reason: error.to_string() };
    let read = || {
        connection
            .query_row("SELECT value FROM meta WHERE key = 'manager'", [], |row| row.get::<_, String>(0))
            .optional()
            .map_err(sqlite)
    };
    if let Some(id) = read()? {
        return Ok(id);
    }
    let mut bytes = [0_u8; 8];
    getrandom::fill(&mut bytes).map_err(|error| ManagerError::System(format!("no random bytes: {error}")))?;
    let id: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    connection
        .execute("INSERT INTO meta (key, value) VALUES ('manager', ?1) ON CONFLICT (key) DO NOTHING", [&id])
        .map_err(sqlite)?;
    Ok(read()?.unwrap_or(id))
}
