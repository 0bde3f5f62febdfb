//! The settings whose value is one of a few words: the one place where such a word is written down.
//!
//! Owns the words and what each stands for; the reader, the table of settings and the completions all take them from
//! here. It must not know where a word came from.

use log::LevelFilter;

use super::{LostRuns, Page, PullPolicy};

/// Of `--log-level`.
pub(super) const LEVELS: [(&str, LevelFilter); 4] = [
    ("debug", LevelFilter::Debug),
    ("info", LevelFilter::Info),
    ("warn", LevelFilter::Warn),
    ("error", LevelFilter::Error),
];

/// Of `--pull`.
pub(super) const POLICIES: [(&str, PullPolicy); 4] = [
    ("auto", PullPolicy::Auto),
    ("always", PullPolicy::Always),
    ("missing", PullPolicy::Missing),
    ("never", PullPolicy::Never),
];

/// Of `--lost-runs`.
pub(super) const LOST_RUNS: [(&str, LostRuns); 2] = [("stop", LostRuns::Stop), ("finish", LostRuns::Finish)];

/// Of `--print`.
pub(super) const PAGES: [(&str, Page); 5] = [
    ("man", Page::Man),
    ("bash", Page::Bash),
    ("zsh", Page::Zsh),
    ("fish", Page::Fish),
    ("environment", Page::Environment),
];

/// The words alone. It runs when the table of settings is compiled, so it has to do without iterators.
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
    fn no_word_is_lost_or_there_twice() {
        assert_eq!(names(&LOST_RUNS), ["stop", "finish"]);
        for words in [&names(&LEVELS)[..], &names(&POLICIES), &names(&LOST_RUNS), &names(&PAGES)] {
            let mut unique = words.to_vec();
            unique.sort_unstable();
            unique.dedup();
            assert_eq!(unique.len(), words.len(), "{words:?}");
            assert!(words.iter().all(|word| word.bytes().all(|byte| byte.is_ascii_lowercase())), "{words:?}");
        }
    }
}
