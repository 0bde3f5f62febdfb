//! Named volumes: make, list, remove.
//!
//! Owns these three calls. It must not know what is in a volume.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::api::or_default;
use super::containers::accept;
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
    /// Makes a volume. One of that name that exists is given as it is: its labels stay.
    pub fn volume_create(
        &self,
        cancel: &CancelToken,
        name: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<Volume, Error> {
        let request =
            Request::post(RequestTarget::of("volumes/create")).json(&CreateVolume { name, labels })?;
        self.call(cancel, request)?.json()
    }

    /// Removes a volume; one that is gone is fine, one that is in use is a conflict.
    pub fn volume_remove(&self, cancel: &CancelToken, name: &str) -> Result<(), Error> {
        let target = RequestTarget::of("volumes").segment(name)?;
        accept(self.exchange(cancel, Request::delete(target))?, &[404])
    }

    /// All volumes that carry each of these labels. An empty value asks only for the key.
    pub fn volume_list(&self, cancel: &CancelToken, labels: &[(&str, &str)]) -> Result<Vec<Volume>, Error> {
        let target = RequestTarget::of("volumes").labelled(labels);
        let list: VolumeList = self.call(cancel, Request::get(target))?.json()?;
        Ok(list.volumes)
    }
}
