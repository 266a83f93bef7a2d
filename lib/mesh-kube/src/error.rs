//! What a failed request to the API server means: whose fault it is, whether to ask again, and how to
//! say it to the person who has to help.

use std::{error::Error, fmt};

use kube::core::{Status, response::reason};

/// Whose fault a failure is, and therefore what helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The API server cannot be reached, is overloaded or is starting. Ask again, with back-off.
    Unavailable,
    /// Somebody changed the object since it was read, or owns the field. Read it again, then decide.
    Conflict,
    /// The object, or its kind, does not exist.
    Missing,
    /// An object of this name exists already.
    Exists,
    /// The version that was asked for is no longer kept. List again.
    Expired,
    /// The credentials are not valid or lack a permission. An administrator helps; asking again finds
    /// out when.
    Denied,
    /// The server refuses the content. Asking again with the same content does not help.
    Invalid,
    /// The request could not be made or the answer could not be read: a defect of ours or of a proxy on
    /// the way.
    Protocol,
}

/// Prints a failure with what caused it, each cause once, and with what the server said about each
/// field.
#[derive(Clone, Copy, Debug)]
pub struct Explained<'a>(pub &'a (dyn Error + 'static));

// === impl Fault ===

impl Fault {
    /// What `error` means.
    pub fn of(error: &kube::Error) -> Self {
        use kube::Error as E;

        match error {
            E::Api(status) => Self::of_status(status),
            E::HyperError(_) | E::Service(_) | E::ReadEvents(_) => Self::Unavailable,
            // A token or certificate that could not be obtained.
            E::Auth(_) | E::OpensslTls(_) => Self::Denied,
            _ => Self::Protocol,
        }
    }

    /// What the server's `status` means.
    pub fn of_status(status: &Status) -> Self {
        match (status.code, status.reason.as_str()) {
            (_, reason::ALREADY_EXISTS) => Self::Exists,
            (409, _) | (_, reason::CONFLICT) => Self::Conflict,
            (404, _) | (_, reason::NOT_FOUND) => Self::Missing,
            (410, _) | (_, reason::EXPIRED | reason::GONE) => Self::Expired,
            (401 | 403, _) | (_, reason::FORBIDDEN | reason::UNAUTHORIZED) => Self::Denied,
            (408 | 429 | 500.., _) => Self::Unavailable,
            (400..500, _) | (_, reason::INVALID) => Self::Invalid,
            _ => Self::Unavailable,
        }
    }

    /// Whether the same request may succeed later without anybody's help. [`Fault::Denied`] is not:
    /// somebody has to grant something first.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable | Self::Conflict | Self::Expired)
    }

    /// One word for metrics and conditions.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Unavailable => "Unavailable",
            Self::Conflict => "Conflict",
            Self::Missing => "NotFound",
            Self::Exists => "AlreadyExists",
            Self::Expired => "Expired",
            Self::Denied => "Denied",
            Self::Invalid => "Invalid",
            Self::Protocol => "Protocol",
        }
    }
}

// === impl Explained ===

impl fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = String::new();
        let mut next = Some(self.0);
        while let Some(error) = next {
            next = error.source();
            let text = match of_client(error) {
                Some(kube::Error::Api(status)) => {
                    next = None;
                    in_words(status)
                }
                // Its own words are its source's with a label before them.
                Some(_) if next.is_some() => continue,
                _ => error.to_string(),
            };
            // Other people's errors often repeat their source.
            if said.contains(&text) {
                continue;
            }
            if !said.is_empty() {
                f.write_str(": ")?;
            }
            f.write_str(&text)?;
            said.push_str(&text);
        }
        Ok(())
    }
}

/// The client's error, which large enums of errors hold in a box: that is another type.
fn of_client<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a kube::Error> {
    let boxed = || Some(&**error.downcast_ref::<Box<kube::Error>>()?);
    error.downcast_ref().or_else(boxed)
}

/// The server's message, and what it says about fields where the message does not say it.
fn in_words(status: &Status) -> String {
    let mut text = match status.message.trim() {
        "" if status.reason.is_empty() => format!("the API server answered {}", status.code),
        "" => format!("the API server answered {} {}", status.code, status.reason),
        message => message.to_owned(),
    };
    for cause in status.details.iter().flat_map(|details| &details.causes) {
        if !cause.message.is_empty() && !text.contains(&cause.message) {
            text.push_str("; ");
            if !cause.field.is_empty() {
                text.push_str(&cause.field);
                text.push_str(": ");
            }
            text.push_str(&cause.message);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use kube::core::response::{StatusCause, StatusDetails};

    use super::*;

    fn api(code: u16, reason: &str) -> kube::Error {
        let status = Status::failure("no", reason).with_code(code);
        kube::Error::Api(status.boxed())
    }

    #[test]
    fn an_answer_of_the_server_tells_whose_fault_it_is() {
        let table = [
            (api(400, "BadRequest"), Fault::Invalid),
            (api(401, "Unauthorized"), Fault::Denied),
            (api(403, "Forbidden"), Fault::Denied),
            (api(404, "NotFound"), Fault::Missing),
            (api(409, "AlreadyExists"), Fault::Exists),
            (api(409, "Conflict"), Fault::Conflict),
            (api(410, "Expired"), Fault::Expired),
            (api(422, "Invalid"), Fault::Invalid),
            (api(429, "TooManyRequests"), Fault::Unavailable),
            (api(500, "InternalError"), Fault::Unavailable),
            (api(503, "ServiceUnavailable"), Fault::Unavailable),
            // A proxy's answer without a body of Kubernetes' kind.
            (api(502, "Failed to parse error data"), Fault::Unavailable),
            (
                kube::Error::LinesCodecMaxLineLengthExceeded,
                Fault::Protocol,
            ),
        ];
        for (error, fault) in table {
            assert_eq!(Fault::of(&error), fault, "{error}");
        }
    }

    #[test]
    fn a_refused_object_is_explained_field_by_field() {
        let cause = |field: &str, message: &str| StatusCause {
            reason: "FieldValueInvalid".into(),
            message: message.into(),
            field: field.into(),
        };
        let causes = vec![
            cause("spec.a", "must be positive"),
            cause("spec.b", "is too long"),
        ];
        let status = Status::failure("Thing \"x\" is invalid: spec.b: is too long", "Invalid")
            .with_code(422)
            .with_details(StatusDetails {
                causes,
                name: "x".into(),
                group: String::new(),
                kind: "Thing".into(),
                uid: String::new(),
                retry_after_seconds: 0,
            });
        let error = kube::Error::Api(status.boxed());
        assert_eq!(
            Explained(&error).to_string(),
            "Thing \"x\" is invalid: spec.b: is too long; spec.a: must be positive"
        );
    }

    #[test]
    fn what_the_server_says_is_found_in_a_box() {
        #[derive(Debug, thiserror::Error)]
        #[error("applying pod x")]
        struct Applying(#[source] Box<kube::Error>);

        let error = Applying(Box::new(api(403, "Forbidden")));
        assert_eq!(Explained(&error).to_string(), "applying pod x: no");
    }

    #[test]
    fn a_failure_to_connect_says_each_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("listing pods")]
        struct Listing(#[source] kube::Error);

        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let error = Listing(kube::Error::Service(refused.into()));
        assert_eq!(
            Explained(&error).to_string(),
            "listing pods: connection refused"
        );
    }
}
