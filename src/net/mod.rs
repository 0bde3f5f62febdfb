//! Code shared by the link, the REST calls and the Docker client: sockets, URLs, numbers, dates and OpenSSL's error texts.

pub(crate) mod connect;
pub(crate) mod date;
pub(crate) mod digits;
pub(crate) mod poll;
pub(crate) mod tls;
pub(crate) mod url;
