//! HTTP/1.1 codecs without I/O (RFC 9112).

pub(super) mod body;
pub(super) mod head;
pub(super) mod request;

/// Why a response cannot be decoded, or a request not encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum HttpError {
    #[error("the response's head is not HTTP: {0}")]
    Head(#[from] httparse::Error),
    #[error("the response's head is longer than {} bytes", head::MAX_HEAD)]
    HeadTooLong,
    #[error("the response has more than {} headers", head::MAX_HEADERS)]
    TooManyHeaders,
    #[error("the response follows more than {} interim responses", head::MAX_INTERIM)]
    TooManyInterim,
    #[error("the engine switched to another protocol")]
    Switched,
    #[error("Content-Length is not a single number")]
    Length,
    #[error("Transfer-Encoding is not chunked")]
    Encoding,
    #[error("a chunk's size is not a number or too large")]
    ChunkSize,
    #[error("a chunk does not end after its size")]
    ChunkEnd,
    #[error("a chunk's extension or the trailer is longer than {} bytes", body::MAX_EXTRA)]
    ChunkExtra,
    #[error("a request header contains a control character")]
    HeaderValue,
}
