//! Which assignments the operator admits: by their images and the names of their variables.

use super::Glob;
use crate::docker::Reference;
use crate::protocol::{Assignment, shown_name};

/// What the operator admits: everything, unless there are globs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// Images of tasks and sidecars must match one of these, unless there are none.
    pub images: Vec<Glob>,
    /// Variables of assignments must match one of these, unless there are none.
    pub variables: Vec<Glob>,
    /// Variables of assignments must match none of these.
    pub denied_variables: Vec<Glob>,
    /// The image for tasks whose assignment names none.
    pub default_image: Reference,
    /// Whether the operator's own image takes the place of [`Assignment::sidecar_image`].
    pub replaces_sidecar: bool,
}

impl Admission {
    /// Returns whether images are restricted.
    pub fn restricts_images(&self) -> bool {
        !self.images.is_empty()
    }

    /// Returns whether an image is admitted.
    pub fn admits(&self, image: &Reference) -> bool {
        let name = image.pulled();
        !self.restricts_images() || !image.is_like_id() && self.images.iter().any(|glob| glob.matches(&name))
    }

    /// Returns why an assignment is not admitted, for people; `None` if it is. Names the field, and of a variable never its value.
    pub fn refusal(&self, assignment: &Assignment) -> Option<String> {
        self.refused_image(assignment).or_else(|| self.refused_variable(assignment))
    }

    fn refused_image(&self, assignment: &Assignment) -> Option<String> {
        if !self.restricts_images() {
            return None;
        }
        let Assignment { docker_image, sidecar_image, additional_sidecars, .. } = assignment;
        if docker_image.is_none() && !self.admits(&self.default_image) {
            let name = self.default_image.pulled();
            return Some(format!(
                "data.docker_image: must be set, because the worker's default image {name} matches no --allow-image of the worker"
            ));
        }
        let sidecar = sidecar_image.as_ref().filter(|_| !self.replaces_sidecar);
        let fixed = [("data.docker_image", docker_image.as_ref()), ("data.sidecar_image", sidecar)];
        let fixed = fixed.into_iter().filter_map(|(field, name)| Some((field.to_owned(), name?)));
        let additional = additional_sidecars.iter().enumerate();
        let additional = additional
            .map(|(index, sidecar)| (format!("data.additional_sidecars[{index}].image"), &sidecar.image));
        fixed.chain(additional).find_map(|(field, name)| match Reference::parse(name) {
            Ok(image) if self.admits(&image) => None,
            Ok(image) if image.is_like_id() => {
                Some(format!("{field}: {name:?} may be the id of an image, which the worker does not allow with --allow-image"))
            }
            Ok(image) => Some(format!("{field}: {} matches no --allow-image of the worker", image.pulled())),
            Err(error) => Some(format!("{field}: {error}")),
        })
    }

    fn refused_variable(&self, assignment: &Assignment) -> Option<String> {
        assignment.env_vars.keys().find_map(|name| {
            let matches = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(name));
            let why = if matches(&self.denied_variables) {
                "matches --deny-env of the worker"
            } else if !self.variables.is_empty() && !matches(&self.variables) {
                "matches no --allow-env of the worker"
            } else {
                return None;
            };
            Some(format!("data.env_vars.{}: {why}", shown_name(name)))
        })
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
