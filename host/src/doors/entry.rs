//! From a ticket to a session: what a hello asks for is checked here, in the order of what it costs, before the room hears of it. Reading the hello and
//! carrying messages is the business of [`super::websocket`].

use holeshot_room::Phase;
use holeshot_wire::{HandshakeMessage, RefusalCode};
use tokio::sync::oneshot;

use super::http::Doors;
use super::tickets::{Ticket, TicketError};
use crate::clock::unix_ms;
use crate::rooms::{LiveRoom, NewSetup, SetUpError};
use crate::shard::{Admit, Attach, Command, OutboundSender, Pass, SessionId, ShardHandle};

/// Why no session was opened, for programs and for people.
pub(super) type Refused = (RefusalCode, String);

/// What a client shows to get a session.
#[derive(Debug)]
pub(super) struct Hello {
    /// The ticket.
    pub(super) ticket: String,
    /// Message 1 of the handshake, if it wants datagrams.
    pub(super) noise: Option<HandshakeMessage>,
    /// The last public event that it has.
    pub(super) after: Option<u64>,
    /// It takes deltas.
    pub(super) deltas: bool,
}

/// Opens the session that a ticket is good for. What the session has to say goes to `outbound`.
pub(super) async fn enter(
    doors: &Doors,
    hello: Hello,
    outbound: OutboundSender,
) -> Result<(SessionId, ShardHandle), Refused> {
    let now_s = unix_ms() / 1_000;
    let ticket = doors.tickets.check(&hello.ticket, now_s).map_err(|error| (code_of(&error), error.to_string()))?;
    let live = doors
        .rooms
        .live(&ticket.room)
        .ok_or_else(|| (RefusalCode::RoomClosed, format!("room {} is closed", ticket.room)))?;
    check_player(&live, &ticket)?;
    let stopping = || (RefusalCode::HostClosing, "the host is stopping".to_owned());
    let shard = doors.rooms.shard_of(&live).cloned().ok_or_else(stopping)?;
    let internal = |problem: String| (RefusalCode::Internal, problem);
    let keys = match hello.noise {
        None => None,
        Some(message_1) => {
            let random = crate::identity::random().map_err(|error| internal(error.to_string()))?;
            let accepted = holeshot_wire::accept(&doors.keypair, &hello.ticket, &message_1, random)
                .map_err(|error| (RefusalCode::BadHandshake, error.to_string()))?;
            Some(accepted)
        }
    };
    let pass = doors.tickets.pass(&ticket, now_s).map_err(|error| internal(error.to_string()))?;
    // Held until the session is open, so that the data of two players is not begun from the same setup.
    let _turn;
    let setup = match (&ticket.data, ticket.player) {
        (Some(data), Some(player)) if live.phase() == Phase::Gathering => {
            _turn = live.setting_up.lock().await;
            set_up(doors, &live, &shard, (player, data), &pass).await?
        }
        _ => None,
    };
    let (room, player, after, deltas) = (ticket.room, ticket.player, hello.after, hello.deltas);
    let (reply, answer) = oneshot::channel();
    let attach = Attach { room, player, pass, setup, keys, after, deltas, outbound, reply };
    if !shard.send(Command::Attach(Box::new(attach))).await {
        return Err(stopping());
    }
    let session = answer.await.map_err(|_| stopping())??;
    Ok((session, shard))
}

/// Rules that are begun anew with a player's data, if the room needs them. A ticket that opens nothing gets no rules begun.
async fn set_up(
    doors: &Doors,
    live: &LiveRoom,
    shard: &ShardHandle,
    (player, data): (u16, &str),
    pass: &Pass,
) -> Result<Option<Box<NewSetup>>, Refused> {
    let stopping = || (RefusalCode::HostClosing, "the host is stopping".to_owned());
    let (reply, answer) = oneshot::channel();
    let admit = Admit { room: live.id.clone(), player, pass: pass.clone(), data: data.to_owned(), reply };
    if !shard.send(Command::Admit(Box::new(admit))).await {
        return Err(stopping());
    }
    let Some(program) = answer.await.map_err(|_| stopping())?? else { return Ok(None) };
    let begun = doors.rooms.set_up(live, &program, player, data).await.map_err(|error| match error {
        SetUpError::Refused(reason) => (RefusalCode::RefusedByRules, reason),
        SetUpError::TooLong(reason) => (RefusalCode::BadTicket, reason),
        SetUpError::Internal { .. } => (RefusalCode::Internal, error.to_string()),
    })?;
    Ok(Some(Box::new(begun)))
}

const fn code_of(error: &TicketError) -> RefusalCode {
    match error {
        TicketError::Expired(_) => RefusalCode::ExpiredTicket,
        TicketError::NotYetValid(_) => RefusalCode::EarlyTicket,
        _ => RefusalCode::BadTicket,
    }
}

/// Whether the room has the player of a ticket, under that name and in that slot.
fn check_player(live: &LiveRoom, ticket: &Ticket) -> Result<(), Refused> {
    let Some(player) = ticket.player else { return Ok(()) };
    let found = live.players.get(usize::from(player));
    if found.is_some_and(|found| found.name == ticket.name) {
        return Ok(());
    }
    let problem = match found {
        Some(_) => "another name than the ticket's",
        None => "no player",
    };
    let reason = format!("room {} has {problem} in slot {player}; slots count from 0", ticket.room);
    Err((RefusalCode::WrongRoom, reason))
}
