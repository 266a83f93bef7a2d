//! Errors with all their causes, for logs.

use std::{error::Error, iter::successors};

/// Prints an error and what caused it in one line. Our messages never repeat their source's text, so
/// nothing stands there twice.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    successors(Some(error), |&error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
