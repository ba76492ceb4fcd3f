//! The embedded broker: rmqtt as a library, behind a start and a stop of ours, on a runtime of its own. Who may do
//! what is decided here; delivery does not depend on it (see [`super::publisher`]).
//!
//! | client | may |
//! | --- | --- |
//! | with the broker's own credentials (host, manager) | everything |
//! | without a name, or with an empty one | subscribe below `holeshot/` |
//! | with any other name or password | nothing: refused at CONNECT |
//!
//! A client without credentials that publishes is disconnected (MQTT 3.1.1 has no other way to say no) or gets
//! "not authorized" (MQTT 5). One that brings a last will, or a client id that begins with `holeshot`, is refused at
//! CONNECT: a will would be published past the topic rules, a client id of ours would end our own session. What an operator sets at a
//! broker elsewhere is in [`super`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use rmqtt::codec::v5::SubscribeAckReason;
use rmqtt::context::ServerContext;
use rmqtt::fitter::{DefaultFitter, FitterManager};
use rmqtt::hook::{Handler, HookResult, Parameter, ReturnType, Type};
use rmqtt::net::Builder;
use rmqtt::retain::{DefaultRetainStorage, RetainStorage};
use rmqtt::server::MqttServer;
use rmqtt::types::{
    AuthResult, ConnectInfo, FitterType, Id, ListenerConfig, PublishAclResult, Retain, SubscribeAclResult, TopicFilter,
    TopicName,
};

use super::{BrokerAccess, topics};

/// What every client id of ours begins with.
pub(crate) const OWN_CLIENT_PREFIX: &str = "holeshot";

/// The user name of the broker's own credentials.
const OWN_USER: &str = "holeshot";

/// Bytes of the random password.
const PASSWORD_BYTES: usize = 24;

/// Unacknowledged messages that one subscriber may have. rmqtt's default of 16 loses messages of a busy publisher.
const INFLIGHT_MAX: NonZeroU16 = match NonZeroU16::new(500) {
    Some(value) => value,
    None => NonZeroU16::MIN,
};

/// Messages that wait for our manager while it is slow or away. rmqtt's default of 1,000 drops the rest in silence.
const OWN_QUEUE_MAX_MESSAGES: usize = 100_000;

/// Messages that wait for a foreign subscriber. It has no claim to all of them, and any local program may be one.
const FOREIGN_QUEUE_MAX_MESSAGES: usize = 5_000;

/// How long a foreign client's session outlives its connection.
const FOREIGN_SESSION_MAX: Duration = Duration::from_secs(5 * 60);

/// Sessions at a time, ours and foreign ones. Our own are five.
const SESSIONS_MAX: isize = 512;

/// Subscriptions of one client.
const SUBSCRIPTIONS_MAX: usize = 64;

/// Largest packet. Ours stay below it by [`super::outbox::DATA_MAX_BYTES`].
const PACKET_MAX_BYTES: u32 = 256 * 1024;

/// How long retained messages live: for ever would be right, but zero means "expired at once" to rmqtt's store, and its
/// default of 5 minutes forgets who is online.
const MESSAGE_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// Threads of the broker's runtime. It handles tens of thousands of messages a second with one; the second lets a
/// subscriber's queue drain while another connects.
const RUNTIME_THREADS: usize = 2;

/// How long the broker's tasks get to end when it stops.
const STOP_WAIT: Duration = Duration::from_millis(500);

/// Why the broker did not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// The address cannot be listened on.
    #[error(
        "the embedded MQTT broker cannot listen on {address}: {reason}. Choose another address or stop the program that uses it"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        reason: String,
    },
    /// The system gave no thread or no random bytes.
    #[error("the embedded MQTT broker cannot start: {0}")]
    System(String),
}

/// A running broker. Dropping it stops it.
#[derive(Debug)]
pub struct Broker {
    address: SocketAddr,
    access: BrokerAccess,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Broker {
    /// Starts a broker on `listen` (port 0: the system picks one) with fresh random credentials of its own.
    ///
    /// # Errors
    /// [`BrokerError`], when the address is taken or the system refuses.
    pub fn start(listen: SocketAddr) -> Result<Self, BrokerError> {
        let mut bytes = [0_u8; PASSWORD_BYTES];
        getrandom::fill(&mut bytes).map_err(|error| BrokerError::System(format!("no random bytes: {error}")))?;
        let password = bytes.iter().map(|b| format!("{b:02x}")).collect();
        Self::start_with(listen, password)
    }

    /// Starts a broker whose own credentials have this password.
    ///
    /// # Errors
    /// [`BrokerError`], when the address is taken or the system refuses.
    pub(crate) fn start_with(listen: SocketAddr, password: String) -> Result<Self, BrokerError> {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (started, start) = mpsc::sync_channel(1);
        let guard_password = password.clone();
        let thread = std::thread::Builder::new()
            .name("broker".to_owned())
            .spawn(move || run(listen, guard_password, &started, stopped))
            .map_err(|error| BrokerError::System(format!("no thread: {error}")))?;
        let address = match start.recv() {
            Ok(Ok(address)) => address,
            Ok(Err(error)) => {
                let _ = thread.join();
                return Err(error);
            }
            Err(_) => {
                return Err(BrokerError::System("its thread ended at once; the log has the reason".to_owned()));
            }
        };
        let reach = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        Ok(Self {
            address,
            access: BrokerAccess::new(
                match reach {
                    IpAddr::V4(ip) => ip.to_string(),
                    IpAddr::V6(ip) => format!("[{ip}]"),
                },
                address.port(),
                Some(OWN_USER.to_owned()),
                Some(password),
            ),
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How our own clients reach it: with credentials that may publish.
    pub fn access(&self) -> &BrokerAccess {
        &self.access
    }

    /// Stops it: every connection is cut. Blocks for half a second at most.
    pub fn stop(mut self) {
        self.halt();
    }

    fn halt(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the embedded MQTT broker's thread panicked");
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.halt();
    }
}

fn run(
    listen: SocketAddr,
    password: String,
    started: &mpsc::SyncSender<Result<SocketAddr, BrokerError>>,
    stopped: tokio::sync::oneshot::Receiver<()>,
) {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .thread_name("broker-worker")
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = started.send(Err(BrokerError::System(format!("no runtime: {error}"))));
            return;
        }
    };
    runtime.block_on(async {
        let server = match serve(listen, password).await {
            Ok((server, address)) => {
                let _ = started.send(Ok(address));
                server
            }
            Err(error) => {
                let _ = started.send(Err(error));
                return;
            }
        };
        tokio::select! {
            // `run`, not `start`: the latter ends the process on an error.
            result = server.run() => {
                if let Err(error) = result {
                    tracing::error!(%error, "the embedded MQTT broker ended by itself");
                }
            }
            _ = stopped => {}
        }
    });
    runtime.shutdown_timeout(STOP_WAIT);
}

async fn serve(listen: SocketAddr, password: String) -> Result<(MqttServer, SocketAddr), BrokerError> {
    let bind_error = |error: &dyn std::fmt::Display| BrokerError::Bind { address: listen, reason: error.to_string() };
    let context = ServerContext::new()
        // The check refuses clients while the machine is loaded. Records must go on then.
        .busy_check_enable(false)
        .mqtt_max_sessions(SESSIONS_MAX)
        .build()
        .await;
    *context.extends.retain_mut().await = Box::new(MemoryRetain(DefaultRetainStorage::new()));
    *context.extends.fitter_mgr_mut().await = Box::new(Limits);

    let guard: Arc<str> = password.into();
    let refusals = Arc::new(AtomicU64::new(0));
    let register = context.extends.hook_mgr().register();
    for hook in [Type::ClientAuthenticate, Type::ClientSubscribeCheckAcl, Type::MessagePublishCheckAcl] {
        register.add(hook, Box::new(Guard { password: Arc::clone(&guard), refusals: Arc::clone(&refusals) })).await;
    }
    register.start().await;

    let builder = Builder::new()
        .name("holeshot")
        .laddr(listen)
        // Elsewhere this option lets a second program take the port.
        .reuseaddr(cfg!(unix).then_some(true))
        .nodelay(true)
        .allow_anonymous(false)
        .max_packet_size(PACKET_MAX_BYTES)
        .max_subscriptions(SUBSCRIPTIONS_MAX)
        .max_inflight(INFLIGHT_MAX)
        .max_mqueue_len(OWN_QUEUE_MAX_MESSAGES)
        .message_expiry_interval(MESSAGE_LIFETIME);
    let listener = builder.bind().and_then(rmqtt::net::Listener::tcp).map_err(|error| bind_error(&error))?;
    let address = listener.local_addr().map_err(|error| bind_error(&error))?;
    let server = MqttServer::new(context).listener_by_id(listener, address.port()).build();
    Ok((server, address))
}

/// Who may connect, subscribe and publish.
struct Guard {
    password: Arc<str>,
    /// Refusals so far. Those whose number is a power of two are logged: nobody can fill the log.
    refusals: Arc<AtomicU64>,
}

impl Guard {
    fn refused(&self, client: &str, what: &str, reason: &str) {
        let refusals = self.refusals.fetch_add(1, Ordering::Relaxed) + 1;
        if refusals.is_power_of_two() {
            tracing::warn!(client, refusals, "the embedded MQTT broker refused {what}: {reason}");
        }
    }

    fn connect(&self, info: &ConnectInfo) -> AuthResult {
        let name = info.username().map_or("", |name| name.as_ref());
        if name.is_empty() {
            let own_id = info.client_id().starts_with(OWN_CLIENT_PREFIX);
            if own_id || info.last_will().is_some() {
                let reason = if own_id { "its client id is reserved" } else { "it brings a last will" };
                self.refused(info.client_id(), "a client", reason);
                return AuthResult::NotAuthorized;
            }
            return AuthResult::Allow(false, None);
        }
        let password = info.password().map_or(&b""[..], |password| password.as_ref());
        if name == OWN_USER && same(password, self.password.as_bytes()) {
            AuthResult::Allow(true, None)
        } else {
            self.refused(info.client_id(), "a client", "wrong credentials");
            AuthResult::BadUsernameOrPassword
        }
    }
}

#[async_trait]
impl Handler for Guard {
    // Sessions with our credentials are rmqtt's "superusers": the two ACL hooks are not asked about them.
    async fn hook(&self, parameter: &Parameter, so_far: Option<HookResult>) -> ReturnType {
        match parameter {
            Parameter::ClientAuthenticate(info) => (false, Some(HookResult::AuthResult(self.connect(info)))),
            Parameter::ClientSubscribeCheckAcl(session, subscribe) => {
                if subscribe.topic_filter.starts_with(topics::TREE) {
                    return (true, so_far);
                }
                let client = &session.id.client_id;
                self.refused(client, "a subscription", "it is not below holeshot/");
                let refused = SubscribeAclResult::new_failure(SubscribeAckReason::NotAuthorized);
                (false, Some(HookResult::SubscribeAclResult(refused)))
            }
            Parameter::MessagePublishCheckAcl(session, _) => {
                let reason = "only the host and its manager may publish here";
                self.refused(&session.id.client_id, "a message", reason);
                // Version 5 has a PUBACK that says no; before, only a cut connection says so.
                let cut = session.connect_info().await.map_or(true, |info| matches!(*info, ConnectInfo::V3(..)));
                let refused = PublishAclResult::rejected(cut, Some(reason.into()));
                (false, Some(HookResult::PublishAclResult(refused)))
            }
            _ => (true, so_far),
        }
    }
}

/// Compares in a time that does not depend on where the first difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0_u8, |all, (a, b)| all | (a ^ b)) == 0
}

/// Smaller limits for foreign clients.
struct Limits;

impl FitterManager for Limits {
    fn create(&self, info: Arc<ConnectInfo>, id: Id, config: ListenerConfig) -> FitterType {
        let ours = info.username().is_some_and(|name| name == OWN_USER);
        if ours {
            return Arc::new(DefaultFitter::new(info, id, config));
        }
        let mut builder = Builder::clone(&config);
        builder.max_mqueue_len = FOREIGN_QUEUE_MAX_MESSAGES;
        builder.session_expiry_interval = FOREIGN_SESSION_MAX;
        builder.max_session_expiry_interval = FOREIGN_SESSION_MAX;
        Arc::new(DefaultFitter::new(info, id, Arc::new(builder)))
    }
}

/// rmqtt's own store of retained messages, switched on: by default it only logs that a plugin is wanted.
struct MemoryRetain(DefaultRetainStorage);

#[async_trait]
impl RetainStorage for MemoryRetain {
    fn enable(&self) -> bool {
        true
    }

    fn need_sync(&self) -> bool {
        false
    }

    async fn set(&self, topic: &TopicName, retain: Retain, expiry: Option<Duration>) -> rmqtt::Result<()> {
        self.0.set_with_timeout(topic, retain, expiry).await
    }

    async fn get(&self, filter: &TopicFilter) -> rmqtt::Result<Vec<(TopicName, Retain)>> {
        self.0.get_message(filter).await
    }

    async fn count(&self) -> isize {
        self.0.count().await
    }

    async fn max(&self) -> isize {
        self.0.max().await
    }
}
