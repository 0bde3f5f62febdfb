//! HTTP/1.1 without I/O: bytes in, meaning out.
//!
//! Owns the codecs. Nothing here reads, writes, waits or knows what an engine is.
