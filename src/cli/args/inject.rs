//! Arguments of `inject`.

use std::path::PathBuf;

use clap::Args;

use super::{OneCall, Purpose};

#[derive(Args, Debug)]
#[command(after_help = "\
A placeholder is a reference in braces: {{ ravi://secret/KEY }}, {{ ravi://password/DOMAIN }}, and
{{ ravi://password/DOMAIN#username }} for the account name. Every pair of {{ and }} is one. If a
value is not to be had, nothing is written. The file gets mode 0600 and takes its place at once.

A file on a disk outlives the lease. Where the program can be started by `run`, prefer that.

Example:
  printf 'token={{ ravi://secret/NPM_TOKEN }}' |
    ravi-broker inject --role deploy -o /dev/shm/npmrc
  ravi-broker inject -i config.toml.in -o config.toml")]
pub(crate) struct Inject {
    /// The template; standard input if absent
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Where the result goes, in place of a file that is there; standard output if absent
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Write to standard output even if that is a terminal
    #[arg(short, long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) purpose: Purpose,
    #[command(flatten)]
    pub(crate) session: OneCall,
}
