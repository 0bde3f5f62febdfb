//! HTTP/1.1 without I/O: bytes in, meaning out (after RFC 9112).
//!
//! Owns the codecs. Nothing here reads, writes, waits or knows what an engine is.

pub(super) mod body;
pub(super) mod head;
pub(super) mod request;

/// Why bytes are not the HTTP that we take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum HttpError {
    #[error("the response's head is not HTTP: {0}")]
    Head(#[from] httparse::Error),
    #[error("the response's head is longer than {} bytes", head::MAX_HEAD)]
    HeadTooLong,
    #[error("the response has more than {} headers", head::MAX_HEADERS)]
    TooManyHeaders,
    #[error("more than {} interim responses came first", head::MAX_INTERIM)]
    TooManyInterim,
    #[error("the connection was switched to another protocol")]
    Switched,
    #[error("Content-Length is not one number")]
    Length,
    #[error("Transfer-Encoding is not chunked")]
    Encoding,
    #[error("a chunk's size is not a number or too large")]
    ChunkSize,
    #[error("a chunk does not end where its size says")]
    ChunkEnd,
    #[error("a chunk's extension or the trailer is longer than {} bytes", body::MAX_EXTRA)]
    ChunkExtra,
    #[error("a header to be sent has a control character")]
    HeaderValue,
}
