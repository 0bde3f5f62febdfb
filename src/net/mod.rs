//! What both socket stacks share: URLs.

pub(crate) mod url;
