//! The handle that a player program holds. The work is done by the driver's task.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use holeshot_wire::ClientMessage;
use holeshot_wire::message::INTEGER_MAX;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::driver::{Command, Driver};
use crate::incoming::{Incoming, Welcome};
use crate::link;
use crate::options::{ActionError, ConnectError, ConnectOptions, InputError};
use crate::shared::{NetStats, Shared};

/// How many events may wait for [`Client::next`]. Then the client stops reading, and the host waits or gives up. A room
/// sends a few events per second, so this is minutes.
const EVENTS_WAITING_MAX: usize = 256;

/// How many actions may wait to be sent. A host takes fewer at a time.
const COMMANDS_WAITING_MAX: usize = 32;

/// A player's session on a host. See the crate's documentation for its contract.
pub struct Client {
    welcome: Welcome,
    shared: Arc<Shared>,
    events: mpsc::Receiver<Incoming>,
    commands: mpsc::Sender<Command>,
    next_action_id: Mutex<u64>,
    /// Dropping it ends the task.
    _alive: oneshot::Sender<()>,
}

impl Client {
    /// Opens a session and starts the task that keeps it. Must be called on a tokio runtime with time and I/O.
    ///
    /// Errors: all of [`ConnectError`]. Nothing is tried twice here; reconnecting begins once a session was open.
    pub async fn connect(options: ConnectOptions) -> Result<Self, ConnectError> {
        let link = link::open(&options, &options.ticket, options.after).await?;
        let welcome = link.welcome.clone();
        let shared = Arc::new(Shared::new(welcome.tick_hz));
        let (events_in, events) = mpsc::channel(EVENTS_WAITING_MAX);
        let (commands, commands_out) = mpsc::channel(COMMANDS_WAITING_MAX);
        let (alive, alive_out) = oneshot::channel();
        let driver = Driver::new(options, Arc::clone(&shared), events_in, commands_out, alive_out);
        tokio::spawn(driver.run(link));
        // Ids must rise for a player, not for a program: one that starts again goes on where the clock is.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let next_action_id = Mutex::new((since_epoch.as_micros() as u64).min(INTEGER_MAX / 2));
        Ok(Self { welcome, shared, events, commands, next_action_id, _alive: alive })
    }

    /// What the host said when the session opened first.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Tells the host that the player is ready.
    ///
    /// Errors: [`ActionError::Closed`].
    pub async fn ready(&self) -> Result<(), ActionError> {
        self.commands.send(Command::Ready).await.map_err(|_| ActionError::Closed)
    }

    /// Queues an action for the rules and gives its id; [`Incoming::ActionResult`] says what became of it. Waits while
    /// many are queued, as during a reconnect.
    ///
    /// Errors: [`ActionError::Message`] if it is too large, [`ActionError::Closed`].
    pub async fn action(&self, data: Value) -> Result<u64, ActionError> {
        let place = self.commands.reserve().await.map_err(|_| ActionError::Closed)?;
        // Held over the send, so that ids leave in rising order whoever calls.
        let mut next_id = self.next_action_id.lock().unwrap_or_else(PoisonError::into_inner);
        let id = *next_id;
        let text = ClientMessage::Action { id, data }.encode()?;
        *next_id += 1;
        place.send(Command::Action { id, text });
        Ok(id)
    }

    /// Leaves the room for good. The host answers with a `bye`, which [`Client::next`] gives.
    ///
    /// Errors: [`ActionError::Closed`].
    pub async fn leave(&self) -> Result<(), ActionError> {
        self.commands.send(Command::Leave).await.map_err(|_| ActionError::Closed)
    }

    /// Sends the player's controls for the frame that is due, and gives that frame. `None`, and nothing is sent, if none is
    /// due: before the first snapshot, or when this frame has its input already. Call it once per snapshot. Never waits.
    ///
    /// Errors: all of [`InputError`].
    pub fn send_input(&self, bytes: &[u8]) -> Result<Option<u32>, InputError> {
        self.shared.send_input(bytes)
    }

    /// Sends an input for a frame of the caller's choice, for programs that keep their own clock and for tests. Frames that
    /// are skipped get the same input; one that is not newer than the newest sent goes out alone. Never waits.
    ///
    /// Errors: all of [`InputError`].
    pub fn send_input_for(&self, frame: u32, bytes: &[u8]) -> Result<(), InputError> {
        self.shared.send_input_for(frame, bytes)
    }

    /// Waits for what comes next; `None` when all is over and was given out. May be cancelled: nothing is lost.
    pub async fn next(&mut self) -> Option<Incoming> {
        loop {
            tokio::select! {
                biased;
                event = self.events.recv() => {
                    return event.or_else(|| self.shared.take_snapshot().map(Incoming::Snapshot));
                }
                () = self.shared.snapshot_filled.notified() => {
                    if let Some(snapshot) = self.shared.take_snapshot() {
                        return Some(Incoming::Snapshot(snapshot));
                    }
                }
            }
        }
    }

    /// How the connection does.
    pub fn stats(&self) -> NetStats {
        self.shared.stats()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("room", &self.welcome.room)
            .field("player", &self.welcome.player)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
