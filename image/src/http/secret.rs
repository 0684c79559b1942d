use serde::{Deserialize, Serialize};
use std::fmt;

/// A password or token. `Debug` does not show it, and there is no `Display`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes the secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself, to be sent to whom it is meant for.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("[secret]")
    }
}

/// A value of the request header `Authorization`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Authorization(Secret);

impl Authorization {
    /// User name and password (RFC 7617).
    pub fn basic(user: &str, password: &Secret) -> Self {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let pair = format!("{user}:{}", password.expose());
        Self(Secret::new(format!("Basic {}", STANDARD.encode(pair))))
    }

    /// A token (RFC 6750).
    pub fn bearer(token: &Secret) -> Self {
        Self(Secret::new(format!("Bearer {}", token.expose())))
    }

    pub(crate) fn expose(&self) -> &str {
        self.0.expose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let secret = Secret::new("geheim");
        let basic = Authorization::basic("user", &secret);
        let bearer = Authorization::bearer(&secret);
        assert_eq!(basic.expose(), "Basic dXNlcjpnZWhlaW0=");
        let shown = format!("{secret:?} {basic:?} {bearer:?}");
        assert!(!shown.contains("geheim") && !shown.contains("dXNlcjpnZWhlaW0"), "{shown}");
    }
}
