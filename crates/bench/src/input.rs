//! Checks of arguments, and the refusal of arguments that the program cannot use.

/// Parses a number that is at least 1.
pub(crate) fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("the number must be at least 1".to_string()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

/// Ends the program with an error message, because it cannot do what the arguments ask for.
pub(crate) fn refuse(why: &str) -> ! {
    eprintln!("error: {why}");
    std::process::exit(2);
}
