//! The part of the table of settings that is about what the operator admits.

use std::path::PathBuf;

use super::ConfigError;
use super::invocation::Invocation;
use super::settings::{Occurs, Reader, Setting, ValueHint};
use super::table::{DEFAULT_IMAGE, SIDECAR_IMAGE};
use crate::policy::{Admission, Glob};

pub(super) const ALLOW_IMAGE: Reader<Glob> = Reader {
    setting: Setting {
        flag: Some("--allow-image"),
        variable: Some("OZ_ALLOW_IMAGE"),
        value_name: Some("GLOB"),
        occurs: Occurs::Many,
        default: Some("every image"),
        help: "The images that tasks and their sidecars may use. A pattern of complete names, such as ghcr.io/acme/* or \
               docker.io/library/alpine:3.*; * and ? match no slash, ** does. Tasks with other images are refused. May be repeated. In the \
               variable, white space separates patterns and quotes group.",
        ..Setting::EMPTY
    },
    read: |given| Glob::image(given.value).map_err(|right| given.invalid(right)),
};

pub(super) const ALLOW_ENV: Reader<Glob> = Reader {
    setting: Setting {
        flag: Some("--allow-env"),
        variable: Some("OZ_ALLOW_ENV"),
        value_name: Some("GLOB"),
        occurs: Occurs::Many,
        default: Some("every variable"),
        help: "The variables that assignments may set. A pattern of names, such as GITHUB_*. Tasks with others are refused. Variables that \
               the worker itself or --env sets are not affected. May be repeated. In the variable, white space separates patterns and \
               quotes group.",
        ..Setting::EMPTY
    },
    read: |given| Glob::variable(given.value).map_err(|right| given.invalid(right)),
};

pub(super) const DENY_ENV: Reader<Glob> = Reader {
    setting: Setting {
        flag: Some("--deny-env"),
        variable: Some("OZ_DENY_ENV"),
        value_name: Some("GLOB"),
        occurs: Occurs::Many,
        default: Some("no variable"),
        help: "The variables that assignments must not set, even if --allow-env allows them. A pattern of names, such as LD_*. Tasks with \
               such variables are refused. May be repeated. In the variable, white space separates patterns and quotes group.",
        ..Setting::EMPTY
    },
    read: |given| Glob::variable(given.value).map_err(|right| given.invalid(right)),
};

pub(super) const ALLOW_MOUNT_PATH: Reader<PathBuf> = Reader {
    setting: Setting {
        flag: Some("--allow-mount-path"),
        variable: Some("OZ_ALLOW_MOUNT_PATH"),
        value_name: Some("PREFIX"),
        values: ValueHint::Path,
        occurs: Occurs::Many,
        default: Some("every path"),
        help: "The directory of the host, with all below it, that --volumes may mount. Other paths are refused at start and for every task, \
               after symbolic links are resolved; the engine must be on this host. May be repeated. In the variable, white space separates \
               paths and quotes group.",
        ..Setting::EMPTY
    },
    read: |given| {
        let text = given.value;
        let is_valid = text.starts_with('/')
            && !text.split('/').any(|part| part == "..")
            && !text.contains(char::is_control);
        is_valid
            .then(|| PathBuf::from(text))
            .ok_or_else(|| given.invalid("must be an absolute path without .., such as /srv/tasks"))
    },
};

/// Returns the values of a setting that may be repeated.
///
/// # Errors
/// One of them is invalid, or the variable is set but blank: that would restrict nothing.
pub(super) fn list<T>(invocation: &Invocation<'_>, reader: &Reader<T>) -> Result<Vec<T>, ConfigError> {
    let mut values = Vec::new();
    invocation.for_each(&reader.setting, |given| {
        values.push((reader.read)(given)?);
        Ok(())
    })?;
    match invocation.given(&reader.setting)? {
        Some(given) if values.is_empty() => Err(given.invalid("must have at least one entry, or be empty")),
        _ => Ok(values),
    }
}

/// Returns what the operator admits.
///
/// # Errors
/// A pattern is invalid, or an image that the operator has set matches none.
pub(super) fn admission(invocation: &Invocation<'_>) -> Result<Admission, ConfigError> {
    let admission = Admission {
        images: list(invocation, &ALLOW_IMAGE)?,
        variables: list(invocation, &ALLOW_ENV)?,
        denied_variables: list(invocation, &DENY_ENV)?,
        default_image: invocation.read(&DEFAULT_IMAGE)?,
        replaces_sidecar: invocation.given(&SIDECAR_IMAGE.setting)?.is_some(),
    };
    for reader in [&DEFAULT_IMAGE, &SIDECAR_IMAGE] {
        let Some(given) = invocation.given(&reader.setting)? else { continue };
        let image = (reader.read)(&given)?;
        if !admission.admits(&image) {
            let (name, allowed) = (image.pulled(), invocation.name_of_setting(&ALLOW_IMAGE.setting));
            return Err(given.invalid(format!("must match {allowed}, which {name} does not")));
        }
    }
    Ok(admission)
}

#[cfg(test)]
mod tests {
    use super::super::config_tests::{load, message};
    use super::*;

    #[test]
    fn every_pattern_of_a_list_counts() {
        let line = [
            "--allow-image=ghcr.io/acme/*",
            "--allow-image",
            "docker.io/library/alpine:*",
            "--deny-env=LD_*",
        ];
        let admission = load(&line, &[("OZ_ALLOW_ENV", "A* 'B'")]).unwrap().admission;
        let texts = |globs: &[Glob]| globs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(texts(&admission.images), "ghcr.io/acme/* docker.io/library/alpine:*");
        assert_eq!(
            (texts(&admission.variables), texts(&admission.denied_variables)),
            ("A* B".into(), "LD_*".into())
        );
        assert_eq!(admission.default_image.to_string(), "ubuntu:22.04");
        let paths = load(&["--allow-mount-path=/srv/a", "--allow-mount-path=/b"], &[]).unwrap().mount_paths;
        assert_eq!(paths, [PathBuf::from("/srv/a"), PathBuf::from("/b")]);
    }

    #[test]
    fn an_invalid_entry_says_what_would_be_valid() {
        let cases = [
            (
                "--allow-image",
                "alpine",
                "must match complete names, which begin with a registry, such as docker.io/library/alpine:* or ghcr.io/acme/*",
            ),
            (
                "--allow-image",
                "ghcr.io/acme/app",
                "must end with a tag, a digest or *, because every complete name has a tag or a digest",
            ),
            (
                "--allow-image",
                "ghcr.io/{a,b}:*",
                "must be a pattern of names of images, such as ghcr.io/acme/*, with the wildcards *, ** and ?",
            ),
            ("--allow-image", "GHCR.io/a:*", "must be in lower case up to the tag, as names are compared"),
            (
                "--allow-env",
                "A=B",
                "must be a pattern of names of variables, such as GITHUB_*, without = and spaces",
            ),
            (
                "--deny-env",
                "A B",
                "must be a pattern of names of variables, such as GITHUB_*, without = and spaces",
            ),
            ("--allow-mount-path", "srv", "must be an absolute path without .., such as /srv/tasks"),
            ("--allow-mount-path", "/srv/../etc", "must be an absolute path without .., such as /srv/tasks"),
        ];
        for (flag, text, right) in cases {
            assert_eq!(message(load(&[flag, text], &[])), format!("invalid {flag} {text:?}: {right}"));
        }
        // A blank variable restricts nothing, and that can hardly be meant.
        for variable in ["OZ_ALLOW_IMAGE", "OZ_ALLOW_ENV", "OZ_DENY_ENV", "OZ_ALLOW_MOUNT_PATH"] {
            let text = message(load(&[], &[(variable, " \n")]));
            assert_eq!(
                text,
                format!("invalid {variable} \" \\n\": must have at least one entry, or be empty")
            );
        }
    }

    #[test]
    fn an_image_that_the_operator_sets_must_be_admitted() {
        let allow = "--allow-image=ghcr.io/acme/*";
        for (flag, variable) in
            [("--default-image", "OZ_DEFAULT_IMAGE"), ("--sidecar-image", "OZ_SIDECAR_IMAGE")]
        {
            let right = "must match --allow-image, which docker.io/library/x:latest does not";
            assert_eq!(message(load(&[allow, flag, "x"], &[])), format!("invalid {flag} \"x\": {right}"));
            assert_eq!(
                message(load(&[allow], &[(variable, "x")])),
                format!("invalid {variable} \"x\": {right}")
            );
            assert!(load(&[allow, flag, "ghcr.io/acme/x"], &[]).is_ok());
            // Only one error.
            assert!(message(load(&[allow, flag, "X"], &[])).contains("must be the name of an image"));
            assert!(message(load(&["--allow-image=x", flag, "x"], &[])).contains("complete names"));
        }
        // The default is not a choice of the operator: tasks without an image are refused.
        let admission = load(&[allow], &[]).unwrap().admission;
        assert!(!admission.admits(&admission.default_image) && !admission.replaces_sidecar);
        let own = load(&[allow, "--sidecar-image=ghcr.io/acme/agent"], &[]).unwrap().admission;
        assert!(own.replaces_sidecar);
    }
}
