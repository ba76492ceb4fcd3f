//! `holeshot ticket`: a ticket of the host's own, for people and scripts; and `holeshot ticket-key`: a pair of keys for a matchmaker that signs its own.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;

use super::host::HostArgs;
use super::output::{note, say};
use crate::api::TicketWish;
use crate::doors::tickets::keys::{HOST_KID, KID_BYTES_MAX, KeyPair};
use crate::files::{Readers, write_whole};

#[derive(Debug, Clone, Args)]
pub(super) struct TicketArgs {
    /// The room's id, whole
    #[arg(long, value_name = "ROOM")]
    room: String,
    /// The player's name, as it was given when the room was opened
    #[arg(
        long,
        value_name = "NAME",
        required_unless_present = "spectator",
        conflicts_with = "spectator",
        allow_hyphen_values = true
    )]
    player: Option<String>,
    /// A ticket for a spectator
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "spectator")]
    spectator: Option<String>,
    /// What the rules get of this player in place of what the room was opened with, as JSON: '{"car":"mx5"}'
    #[arg(long, value_name = "JSON", conflicts_with = "spectator")]
    data: Option<String>,
    /// How long it opens a session, in seconds [default: as long as the host lets it]
    #[arg(long, value_name = "SECONDS")]
    lifetime_s: Option<u64>,
    #[command(flatten)]
    host: HostArgs,
}

pub(super) async fn ticket(args: TicketArgs, as_json: bool) -> anyhow::Result<()> {
    let TicketArgs { room, player, spectator, data, lifetime_s, host } = args;
    let api = host.api()?;
    let data: Option<Value> = data
        .map(|text| serde_json::from_str(&text).with_context(|| format!("--data {text:?} is not JSON")))
        .transpose()?;
    let grant = match (player, spectator) {
        (Some(name), _) => {
            api.ticket(&room, &TicketWish::Player { name: &name, data: data.as_ref() }, lifetime_s).await?
        }
        (None, Some(name)) => api.ticket(&room, &TicketWish::Spectator { name: &name }, lifetime_s).await?,
        (None, None) => bail!("name a player with --player, or ask for a ticket to watch with --spectator"),
    };
    if as_json {
        say(&grant);
    } else {
        // Nothing else on standard output, for a script.
        say(grant.get("ticket").and_then(Value::as_str).context("the host's answer has no ticket")?);
    }
    Ok(())
}

#[derive(Debug, Clone, Args)]
pub(super) struct TicketKeyArgs {
    /// Where the private key goes: PKCS #8 in PEM, for the matchmaker alone. It must not be there yet
    #[arg(long, value_name = "FILE", default_value = "matchmaker-key.pem")]
    private: PathBuf,
    /// Where the public key goes: a JWK, for the host's --ticket-keys. It must not be there yet
    #[arg(long, value_name = "FILE", default_value = "matchmaker-key.jwk")]
    public: PathBuf,
    /// The key's name, for the `kid` of tickets [default: made from the key]
    #[arg(long, value_name = "NAME")]
    kid: Option<String>,
}

pub(super) fn ticket_key(args: &TicketKeyArgs, as_json: bool) -> anyhow::Result<()> {
    let TicketKeyArgs { private, public, kid } = args;
    if kid.as_ref().is_some_and(|kid| !(1..=KID_BYTES_MAX).contains(&kid.len()) || kid == HOST_KID) {
        bail!("--kid has 1 to {KID_BYTES_MAX} bytes, and is not {HOST_KID:?}, which is the host's own");
    }
    for path in [private, public] {
        if path.try_exists().with_context(|| format!("cannot look at {}", path.display()))? {
            bail!(
                "{} is there already; choose another file, or move it away: a key that is lost cannot be made again",
                path.display()
            );
        }
    }
    let pair = KeyPair::make(kid.as_deref())?;
    let failed = |path: &PathBuf| format!("cannot write {}", path.display());
    write_whole(private, pair.private_pem.as_bytes(), Readers::Owner).with_context(|| failed(private))?;
    write_whole(public, format!("{}\n", pair.public_jwk).as_bytes(), Readers::Usual).with_context(|| failed(public))?;
    if as_json {
        say(serde_json::json!({ "private": private, "public": public, "jwk": pair.public_jwk }));
    } else {
        say(format_args!("private key  {}  (for the matchmaker alone)", private.display()));
        say(format_args!("public key   {}  (holeshot serve --ticket-keys {})", public.display(), public.display()));
        note(format_args!(
            "tickets: `alg` EdDSA, `kid` {}",
            pair.public_jwk.get("kid").and_then(Value::as_str).unwrap_or_default()
        ));
    }
    Ok(())
}
