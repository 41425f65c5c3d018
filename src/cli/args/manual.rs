//! Arguments of the commands that describe the program: for shells, for `man`, for agents.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// A shell that completes words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    // Needs bash-completion 2 or nothing but `source`.
    Bash,
    // A function for a directory of `fpath`.
    Zsh,
    // A file for its directory of completions.
    Fish,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  ravi-broker completions bash > ~/.local/share/bash-completion/completions/ravi-broker
  ravi-broker completions zsh > ~/.zfunc/_ravi-broker
  ravi-broker completions fish > ~/.config/fish/completions/ravi-broker.fish")]
pub(crate) struct Completions {
    /// Which shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  ravi-broker man --dir ~/.local/share/man/man1 && man ravi-broker-run")]
pub(crate) struct ManualPages {
    /// Write the pages of all commands into this directory; without it, that of the program is printed
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SkillCommand {
    /// Print the skill
    #[command(after_help = "Example:\n  ravi-broker skill show")]
    Show,
    /// Show what is written and where, ask, and write it
    #[command(after_help = "\
Example:
  ravi-broker skill install
  ravi-broker skill install --to .codex/skills --yes")]
    Install(SkillPlace),
    /// Remove what `install` wrote, and nothing else
    #[command(after_help = "Example:\n  ravi-broker skill uninstall")]
    Uninstall(SkillPlace),
}

#[derive(Args, Debug)]
pub(crate) struct SkillPlace {
    /// The directory of skills [default: ~/.claude/skills]
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<PathBuf>,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}
