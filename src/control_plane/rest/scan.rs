//! Finds the fields of a run in the pieces of a response's body. What else is in the body is skipped and takes no memory: a run
//! repeats the whole output of its task.

use memchr::memchr2;

use super::answer::AnswerError;

/// The longest value that is kept, in bytes as it is written in JSON. An id may have 4096 bytes, each of which may be escaped.
pub(super) const MAX_KEPT: usize = 64 << 10;
/// The longest name of a field that is kept, in bytes.
const MAX_NAME: usize = 64;

/// The value of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// The field is missing, or `null`.
    Nothing,
    /// A string.
    Text(String),
    /// Any other value, or a string that is too long.
    Other,
}

/// The fields that are searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    RunId,
    State,
    UpdatedAt,
}

/// What comes next outside of a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Object,
    NameOrEnd,
    Name,
    Colon,
    Value,
    /// The rest of a number, `true`, `false` or `null`.
    Word,
    /// The rest of an array or object that is skipped, with this many brackets open.
    Nested(u64),
    CommaOrEnd,
    End,
}

/// A scanner of one body.
#[derive(Debug)]
pub(super) struct Scanner {
    next: Next,
    /// The bytes scanned so far.
    offset: u64,
    /// Whether it is inside a string, and whether the last byte was a backslash.
    string: Option<bool>,
    /// The current string or word as written, as far as it is kept.
    kept: Vec<u8>,
    /// Where that begins.
    kept_from: u64,
    /// `kept` has lost something.
    cut: bool,
    field: Option<Field>,
    run_id: Option<Found>,
    state: Option<Found>,
    updated_at: Option<Found>,
}

impl Scanner {
    pub(super) fn new() -> Self {
        Self {
            next: Next::Object,
            offset: 0,
            string: None,
            kept: Vec::new(),
            kept_from: 0,
            cut: false,
            field: None,
            run_id: None,
            state: None,
            updated_at: None,
        }
    }

    /// Scans the next piece. Returns whether everything that is searched was found; further pieces are not needed then.
    ///
    /// # Errors
    /// The body is not JSON.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Result<bool, AnswerError> {
        let mut rest = piece;
        while !self.has_all() {
            let Some(&byte) = rest.first() else { return Ok(false) };
            let taken = match self.string {
                Some(escaped) => self.in_string(rest, escaped)?,
                None => self.outside(byte)?,
            };
            rest = rest.get(taken..).unwrap_or_default();
            self.offset += taken as u64;
        }
        Ok(true)
    }

    /// Returns `run_id`, `state` and `updated_at`; [`Found::Nothing`] for those that did not come.
    ///
    /// # Errors
    /// The body is incomplete, and not everything was found.
    pub(super) fn finish(self) -> Result<[Found; 3], AnswerError> {
        if !self.has_all() && self.next != Next::End {
            return Err(self.not_json());
        }
        Ok([self.run_id, self.state, self.updated_at].map(|found| found.unwrap_or(Found::Nothing)))
    }

    /// Whether it holds no more than a value and a few bytes.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn is_small(&self) -> bool {
        self.kept.capacity() <= 2 * MAX_KEPT
    }

    fn has_all(&self) -> bool {
        self.state.is_some() && self.updated_at.is_some()
    }

    fn not_json(&self) -> AnswerError {
        AnswerError::Json { offset: self.offset }
    }

    /// Returns how many bytes of the string were taken: up to its end, or one escaped byte.
    fn in_string(&mut self, rest: &[u8], escaped: bool) -> Result<usize, AnswerError> {
        if escaped {
            self.keep(rest.get(..1).unwrap_or_default());
            self.string = Some(false);
            return Ok(1);
        }
        let plain = memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
        self.keep(rest.get(..plain).unwrap_or_default());
        match rest.get(plain) {
            None => Ok(plain),
            Some(b'\\') => {
                self.keep(b"\\");
                self.string = Some(true);
                Ok(plain + 1)
            }
            Some(_) => {
                self.string = None;
                self.string_ended()?;
                Ok(plain + 1)
            }
        }
    }

    /// Takes a byte outside of a string. Returns 1, or 0 if the byte also ends a word.
    fn outside(&mut self, byte: u8) -> Result<usize, AnswerError> {
        if self.next == Next::Word {
            if is_word(byte) {
                self.keep(&[byte]);
                return Ok(1);
            }
            let is_null = self.kept == b"null";
            self.value(if is_null { Found::Nothing } else { Found::Other });
            return Ok(0);
        }
        if byte.is_ascii_whitespace() {
            return Ok(1);
        }
        self.next = match (self.next, byte) {
            (Next::Object, b'{') => Next::NameOrEnd,
            (Next::NameOrEnd | Next::Name | Next::Value | Next::Nested(_), b'"') => {
                self.begin();
                self.string = Some(false);
                self.next
            }
            (Next::NameOrEnd | Next::CommaOrEnd, b'}') => Next::End,
            (Next::Colon, b':') => Next::Value,
            (Next::Value, b'{' | b'[') => Next::Nested(1),
            (Next::Value, byte) if is_word(byte) => {
                self.begin();
                self.keep(&[byte]);
                Next::Word
            }
            (Next::Nested(depth), b'{' | b'[') => Next::Nested(depth + 1),
            (Next::Nested(1), b'}' | b']') => {
                self.value(Found::Other);
                Next::CommaOrEnd
            }
            (Next::Nested(depth), b'}' | b']') => Next::Nested(depth - 1),
            (Next::Nested(depth), _) => Next::Nested(depth),
            (Next::CommaOrEnd, b',') => Next::Name,
            _ => return Err(self.not_json()),
        };
        Ok(1)
    }

    fn begin(&mut self) {
        self.kept.clear();
        self.kept_from = self.offset;
        self.cut = false;
    }

    /// Keeps bytes of a name, or of the value of a field that is searched.
    fn keep(&mut self, bytes: &[u8]) {
        let limit = match self.next {
            Next::NameOrEnd | Next::Name => MAX_NAME,
            Next::Value | Next::Word if self.field.is_some() => MAX_KEPT,
            _ => return,
        };
        if self.kept.len() + bytes.len() <= limit {
            self.kept.extend_from_slice(bytes);
        } else {
            self.cut = true;
        }
    }

    fn string_ended(&mut self) -> Result<(), AnswerError> {
        match self.next {
            Next::NameOrEnd | Next::Name => {
                let name = if self.cut { None } else { Some(self.text()?) };
                self.field = match name.as_deref() {
                    Some("run_id") => Some(Field::RunId),
                    Some("state") => Some(Field::State),
                    Some("updated_at") => Some(Field::UpdatedAt),
                    _ => None,
                };
                self.next = Next::Colon;
            }
            Next::Value => {
                let wanted = self.field.is_some() && !self.cut;
                let found = if wanted { Found::Text(self.text()?) } else { Found::Other };
                self.value(found);
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns the string that is kept.
    fn text(&self) -> Result<String, AnswerError> {
        let quoted = [b"\"", self.kept.as_slice(), b"\""].concat();
        serde_json::from_slice(&quoted).map_err(|_| AnswerError::Json { offset: self.kept_from })
    }

    /// Ends a value. Of several fields with one name the first counts.
    fn value(&mut self, found: Found) {
        self.next = Next::CommaOrEnd;
        let place = match self.field.take() {
            Some(Field::RunId) => &mut self.run_id,
            Some(Field::State) => &mut self.state,
            Some(Field::UpdatedAt) => &mut self.updated_at,
            None => return,
        };
        place.get_or_insert(found);
    }
}

/// Whether a byte can be in a number, `true`, `false` or `null`.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')
}
