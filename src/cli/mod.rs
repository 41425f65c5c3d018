//! The command line, for people and for agents' shells.
