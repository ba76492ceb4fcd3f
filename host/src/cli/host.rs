//! Which host a command talks to, whom it trusts when that speaks TLS, and the admin token: the same flags for every such command.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::admin::{ADMIN_TOKEN_FILE, AdminToken, TOKEN_CHARS_MAX, TOKEN_CHARS_MIN};
use crate::api::Api;

#[derive(Clone, Args)]
pub(super) struct HostArgs {
    /// The host, `http://…` or `https://…`
    #[arg(long, env = "HOLESHOT_URL", value_name = "URL", default_value = "http://127.0.0.1:7700")]
    pub(super) url: String,
    /// Whom to trust for https://: certificates (PEM) of authorities, or the host's own if it signed itself [default: whom this machine trusts]
    #[arg(long, env = "HOLESHOT_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The host's data folder, where its admin token is read
    #[arg(long, env = "HOLESHOT_DATA_DIR", value_name = "FOLDER", default_value = "holeshot-data")]
    data_dir: PathBuf,
    /// The admin token itself, of a host on another machine
    #[arg(long, env = "HOLESHOT_TOKEN", hide_env_values = true, allow_hyphen_values = true)]
    token: Option<String>,
}

impl std::fmt::Debug for HostArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostArgs").field("url", &self.url).field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

impl HostArgs {
    /// Of the host at this URL; `ca` as the flag.
    pub(super) const fn of(url: String, ca: Option<PathBuf>, data_dir: PathBuf, token: Option<String>) -> Self {
        Self { url, ca, data_dir, token }
    }

    /// The token, for what needs it.
    pub(super) fn token(&self) -> anyhow::Result<AdminToken> {
        match &self.token {
            Some(text) => parse(text),
            None => AdminToken::load(&self.data_dir).context(
                "the admin token of the host is needed: name its data folder with --data-dir, or give --token",
            ),
        }
    }

    /// The host's interface, with the token if there is one to be found: a host with open doors asks for none.
    pub(super) fn api(&self) -> anyhow::Result<Api> {
        let api = Api::trusting(&self.url, self.ca.as_deref())?;
        Ok(match self.token_if_any()? {
            Some(token) => api.with_token(token),
            None => api,
        })
    }

    fn token_if_any(&self) -> anyhow::Result<Option<AdminToken>> {
        match &self.token {
            Some(text) => parse(text).map(Some),
            // One that is there and cannot be read is told: the host's answer would only be that a token is missing.
            None if self.data_dir.join(ADMIN_TOKEN_FILE).exists() => Ok(Some(AdminToken::load(&self.data_dir)?)),
            None => Ok(None),
        }
    }
}

fn parse(text: &str) -> anyhow::Result<AdminToken> {
    AdminToken::parse(text.trim()).with_context(|| {
        format!(
            "--token is no admin token: {TOKEN_CHARS_MIN} to {TOKEN_CHARS_MAX} characters of A-Z, a-z, 0-9, - and _"
        )
    })
}
