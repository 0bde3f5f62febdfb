//! The words that settings take as values, and what each means.

use log::LevelFilter;

use super::docs::Page;
use crate::logging::Format;
use crate::policy::{LostRuns, PullPolicy};

/// For `--log-level`.
pub(super) const LEVELS: [(&str, LevelFilter); 4] = [
    ("debug", LevelFilter::Debug),
    ("info", LevelFilter::Info),
    ("warn", LevelFilter::Warn),
    ("error", LevelFilter::Error),
];

/// For `--log-format`.
pub(super) const LOG_FORMATS: [(&str, Format); 2] = [("text", Format::Text), ("json", Format::Json)];

/// For `--pull`.
pub(super) const PULL_POLICIES: [(&str, PullPolicy); 4] = [
    ("auto", PullPolicy::Auto),
    ("always", PullPolicy::Always),
    ("missing", PullPolicy::Missing),
    ("never", PullPolicy::Never),
];

/// For `--lost-runs`.
pub(super) const LOST_RUNS_WORDS: [(&str, LostRuns); 2] =
    [("stop", LostRuns::Stop), ("finish", LostRuns::Finish)];

/// For the variable of a switch.
pub(super) const SWITCH: [(&str, bool); 2] = [("true", true), ("false", false)];

/// For `--backend`.
pub(super) const BACKENDS: [(&str, ()); 1] = [("docker", ())];

/// What `--backend` of upstream's worker may be as well.
pub(super) const OTHER_BACKENDS: [&str; 3] = ["direct", "kubernetes", "command"];

/// For `--print`.
pub(super) const PAGES: [(&str, Page); 6] = [
    ("man", Page::Man),
    ("bash", Page::Bash),
    ("zsh", Page::Zsh),
    ("fish", Page::Fish),
    ("environment", Page::Environment),
    ("settings", Page::Settings),
];

/// The words without their meanings. Without iterators, since it is evaluated at compile time.
pub(super) const fn names<T: Copy, const N: usize>(words: &[(&'static str, T); N]) -> [&'static str; N] {
    let mut names = [""; N];
    let mut index = 0;
    while index < N {
        names[index] = words[index].0;
        index += 1;
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_unique_and_in_lower_case() {
        assert_eq!(names(&LOST_RUNS_WORDS), ["stop", "finish"]);
        for words in [&names(&LEVELS)[..], &names(&PULL_POLICIES), &names(&LOST_RUNS_WORDS), &names(&PAGES)] {
            let mut unique = words.to_vec();
            unique.sort_unstable();
            unique.dedup();
            assert_eq!(unique.len(), words.len(), "{words:?}");
            assert!(words.iter().all(|word| word.bytes().all(|byte| byte.is_ascii_lowercase())), "{words:?}");
        }
    }
}
