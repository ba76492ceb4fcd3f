//! Which host a command talks to, and whom it trusts when that speaks TLS: the same flags for every such command.

use std::path::PathBuf;

use clap::Args;

use crate::api::Api;

#[derive(Debug, Clone, Args)]
pub(super) struct HostArgs {
    /// The host, `http://…` or `https://…`
    #[arg(long, env = "HOLESHOT_URL", value_name = "URL", default_value = "http://127.0.0.1:7700")]
    pub(super) url: String,
    /// Whom to trust for https://: certificates (PEM) of authorities, or the host's own if it signed itself [default: whom this machine trusts]
    #[arg(long, env = "HOLESHOT_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl HostArgs {
    pub(super) fn api(&self) -> anyhow::Result<Api> {
        Api::trusting(&self.url, self.ca.as_deref())
    }
}
