//! The API key. An operator may replace it in its file while the worker runs.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::header::{HeaderValue, InvalidHeaderValue};
use log::{info, warn};

use crate::logging::message;
use crate::secret::Secret;

/// Reads the key's file again; returns the key, or why there is none, for people.
type ReadKey = dyn Fn() -> Result<Secret, String> + Send + Sync;

/// The API key that is valid now. Clones share it.
#[derive(Clone)]
pub struct ApiKey {
    current: Arc<Mutex<Current>>,
    read: Option<Arc<ReadKey>>,
}

/// A key, and the value of the header that carries it.
#[derive(Clone)]
pub(super) struct Bearer {
    pub(super) secret: Secret,
    /// Marked as sensitive, so that it is not shown.
    pub(super) header: HeaderValue,
}

struct Current {
    bearer: Bearer,
    /// Why the file could not be read at the last attempt.
    error: Option<String>,
}

impl ApiKey {
    /// A key that stays the same.
    ///
    /// # Errors
    /// The key contains characters that HTTP headers do not allow.
    pub fn new(key: Secret) -> Result<Self, InvalidHeaderValue> {
        let current = Current { bearer: Bearer::new(key)?, error: None };
        Ok(Self { current: Arc::new(Mutex::new(current)), read: None })
    }

    /// Reads the key again with `read` before each use. While that fails, the last key is used, and each new error is logged.
    #[must_use]
    pub fn read_again(self, read: impl Fn() -> Result<Secret, String> + Send + Sync + 'static) -> Self {
        Self { read: Some(Arc::new(read)), ..self }
    }

    /// Returns the key to use now. May read a file.
    pub(super) fn current(&self) -> Bearer {
        let Some(read) = &self.read else { return self.lock().bearer.clone() };
        // Outside of the lock: a file system may be slow.
        let found = read().and_then(|key| Bearer::new(key).map_err(|error| error.to_string()));
        let mut current = self.lock();
        match found {
            Ok(bearer) => {
                if bearer.secret != current.bearer.secret {
                    info!("key changed");
                    current.bearer = bearer;
                }
                current.error = None;
            }
            Err(error) if current.error.as_ref() != Some(&error) => {
                warn!("key not read again error={}", message(&error));
                current.error = Some(error);
            }
            Err(_) => {}
        }
        current.bearer.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        // Nothing that runs under the lock panics.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bearer {
    fn new(secret: Secret) -> Result<Self, InvalidHeaderValue> {
        let mut header = HeaderValue::from_str(&format!("Bearer {}", secret.expose()))?;
        header.set_sensitive(true);
        Ok(Self { secret, header })
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> ApiKey {
        ApiKey::new(Secret::new(text)).unwrap()
    }

    #[test]
    fn a_key_is_shown_nowhere() {
        let key = key("k3y");
        let bearer = key.current();
        assert_eq!(bearer.header, "Bearer k3y");
        assert_eq!(format!("{key:?} {:?} {:?}", bearer.header, bearer.secret), "ApiKey Sensitive «redacted»");
    }

    #[test]
    fn a_key_with_a_line_break_is_refused() {
        assert!(ApiKey::new(Secret::new("a\nb")).is_err());
    }

    #[test]
    fn the_key_is_read_again_and_the_last_one_is_used_while_that_fails() {
        let file = Arc::new(Mutex::new(Ok(Secret::new("one"))));
        let shared = Arc::clone(&file);
        let key = key("one").read_again(move || shared.lock().unwrap().clone());
        let other = key.clone();
        let cases = [
            (Ok(Secret::new("two")), "two"),
            (Err("it is empty".to_owned()), "two"),
            (Ok(Secret::new("a\nb")), "two"),
            (Ok(Secret::new("three")), "three"),
        ];
        for (content, expected) in cases {
            *file.lock().unwrap() = content;
            assert_eq!(key.current().secret.expose(), expected);
            assert_eq!(other.current().secret.expose(), expected);
        }
    }
}
