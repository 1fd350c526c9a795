//! Queries against an imported database: from arguments, from a pipe or at a prompt.

pub(crate) mod command;
mod completion;
mod prompt;
mod script;
mod session;
pub(crate) mod words;

pub(crate) use prompt::converse;
pub(crate) use script::{run_arguments, run_piped};
pub(crate) use session::Session;
