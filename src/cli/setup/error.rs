//! Why nothing was set up. Each names what to do; none quotes what is in a file.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::piece::Fault;

/// Why nothing was set up, or taken out.
#[derive(Debug, Error)]
pub(crate) enum SetupError {
    #[error("there is no home directory\nset HOME, or name the host's file with --file")]
    NoHome,
    #[error("ravi-broker-mcp is not beside this program\ninstall both into one directory")]
    NoAdapter,
    #[error("a path or name is not plain text\nuse one of letters, digits and the usual signs")]
    NotText,
    #[error("{host} has no file of a project\nleave --project away")]
    NoProject { host: &'static str },
    #[error("{host} has nothing in which --file or --agent could be\nleave them away")]
    NoFile { host: &'static str },
    #[error("`print` writes nothing\nleave --undo, --project and --file away")]
    Print,
    #[error("it is not known where kcosr/assistant keeps its config.json\nname it with --file")]
    NoAssistant,
    #[error("{} is not there\nname the host's file with --file", .0.display())]
    Absent(PathBuf),
    #[error("{} has no agent that is a command line, or none of these names\nsee `agents` there, and --agent", .0.display())]
    NoAgent(PathBuf),
    #[error("{}: {}\nsee that the path is right and that this user may write there", .0.display(), .1.kind())]
    Io(PathBuf, #[source] io::Error),
    #[error("{} is another's, a link that leads away, or in a directory that everybody may write\nname the real file with --file, or make it your own", .0.display())]
    NotOurs(PathBuf),
    #[error("{} does not parse and is left alone\ncorrect it, then run this again", .0.display())]
    Syntax(PathBuf),
    #[error("{} has no place for it: what stands there is of another form\nadd it by hand: `ravi-broker setup print` shows what", .0.display())]
    Shape(PathBuf),
    #[error("{} has another entry of that name already, or ours was changed\nremove it there, or take it out with the `ravi-broker setup … --undo` that fits", .0.display())]
    Foreign(PathBuf),
    #[error("{} was changed since setup wrote it, so nothing is taken out\ntake the entry out by hand, or restore it and run this again", .0.display())]
    Changed(PathBuf),
    #[error("{} was changed meanwhile by another program\nrun this again", .0.display())]
    Meanwhile(PathBuf),
    #[error("{} is no record of setup\nmove it away; what it noted has then to be taken out by hand", .0.display())]
    Record(PathBuf),
    #[error("{} would be refused with the role that is added\nsee `ravi-broker config check`, or choose another --role", .0.display())]
    Refused(PathBuf),
    #[error("nothing was changed: there is no terminal to ask on\ngive --yes to go on without being asked")]
    NotAsked,
    #[error("nothing was changed\nrun it again and answer y, or give --yes")]
    Declined,
}

impl SetupError {
    /// What a file had against a change.
    pub(super) fn of(fault: Fault, file: PathBuf) -> Self {
        match fault {
            Fault::Syntax => Self::Syntax(file),
            Fault::Shape => Self::Shape(file),
            Fault::Foreign => Self::Foreign(file),
            Fault::Changed => Self::Changed(file),
        }
    }

    /// Whether the command line was wrong, rather than the world.
    pub(crate) fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::NotAsked | Self::NoProject { .. } | Self::NoFile { .. } | Self::Print | Self::NoAssistant
        )
    }
}
