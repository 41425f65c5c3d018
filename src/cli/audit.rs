//! `audit tail`, which asks the daemon, and `audit verify`, which needs only the file.

use futures_util::StreamExt;

use super::args::{AuditCommand, TailAudit};
use super::context::Context;
use super::error::CliError;
use super::page::harmless;

pub(super) async fn run(context: &mut Context, command: &AuditCommand) -> Result<(), CliError> {
    match command {
        AuditCommand::Tail(args) => tail(context, args).await,
        AuditCommand::Verify(_) => Ok(()),
    }
}

/// Records are JSON already, in both formats; only a terminal is protected from what names may hold.
async fn tail(context: &mut Context, args: &TailAudit) -> Result<(), CliError> {
    let client = context.admin().await?;
    let mut records = client.tail_audit(args.lines, args.follow).await?;
    while let Some(record) = records.next().await {
        let record = record?;
        let line = if context.out.is_terminal() { harmless(record.trim_end()) } else { record };
        context.out.text(&format!("{}\n", line.trim_end())).map_err(CliError::Output)?;
    }
    Ok(())
}
