//! Commands that are one call of the router and print what it answers.

use std::io;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::Value;

use super::connect::ServerArgs;
use super::output::say;

/// Where to ask, and how to print it.
#[derive(Debug, Args)]
pub(crate) struct Ask {
    #[command(flatten)]
    pub(super) server: ServerArgs,
    /// Prints JSON, one object.
    #[arg(long)]
    pub(super) json: bool,
}

impl Ask {
    pub(super) async fn ask(
        &self,
        method: &str,
        arguments: Value,
        print: fn(&Value) -> io::Result<()>,
    ) -> Result<ExitCode> {
        let client = self.server.connect().await?;
        let answer = client.call(method, arguments).await.with_context(|| method.to_owned())?;
        client.close().await;
        if self.json {
            say!("{answer}")?;
        } else {
            print(&answer)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
