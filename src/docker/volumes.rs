//! Calls for named volumes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::api::or_default;
use super::containers::removed;
use super::{Docker, Error, Request, RequestTarget, Volume};
use crate::sys::cancel::CancelToken;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct CreateVolume<'a> {
    name: &'a str,
    labels: &'a BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct VolumeList {
    #[serde(default, deserialize_with = "or_default")]
    volumes: Vec<Volume>,
}

impl Docker {
    /// Creates a volume, or returns the existing one of that name, with its own labels.
    pub fn volume_create(
        &self,
        cancel: &CancelToken,
        name: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<Volume, Error> {
        let request =
            Request::post(RequestTarget::of("volumes/create")).json(&CreateVolume { name, labels })?;
        match self.call(cancel, request) {
            Ok(response) => response.long_json(),
            // Of two concurrent calls, Podman fails one.
            Err(error @ Error::Engine { .. }) => self.volume_inspect(cancel, name).map_err(|_| error),
            Err(error) => Err(error),
        }
    }

    fn volume_inspect(&self, cancel: &CancelToken, name: &str) -> Result<Volume, Error> {
        let target = RequestTarget::of("volumes").segment(name)?;
        self.call(cancel, Request::get(target))?.long_json()
    }

    /// Removes a volume. Returns whether there was one; a volume in use is a conflict.
    pub fn volume_remove(&self, cancel: &CancelToken, name: &str) -> Result<bool, Error> {
        let target = RequestTarget::of("volumes").segment(name)?;
        removed(self.exchange(cancel, Request::delete(target))?)
    }

    /// Returns all volumes that have all of these labels. An empty value matches any value.
    pub fn volume_list(&self, cancel: &CancelToken, labels: &[(&str, &str)]) -> Result<Vec<Volume>, Error> {
        let target = RequestTarget::of("volumes").labelled(labels);
        let request = Request::get(target).within(self.timeouts().list);
        let list: VolumeList = self.call(cancel, request)?.long_json()?;
        Ok(list.volumes)
    }
}
