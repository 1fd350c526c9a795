//! What the program is asked for, and what it cannot do.

/// A number that is not zero.
pub(crate) fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("it must be at least 1".to_string()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

/// Ends the program because it was asked for something that it cannot do.
pub(crate) fn refuse(why: &str) -> ! {
    eprintln!("error: {why}");
    std::process::exit(2);
}
