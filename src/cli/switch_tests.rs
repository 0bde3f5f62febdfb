//! Switches that have a variable.

use super::config_tests::{load, message};

#[test]
fn a_switch_with_a_variable_is_on_if_either_says_so() {
    let shared = |line: &[&str], variable| load(line, &[("OZ_SHARED_ID", variable)]).map(|c| c.shared_id);
    assert!(shared(&["--shared-id"], "").unwrap() && shared(&["--shared-id"], "false").unwrap());
    assert!(shared(&[], "true").unwrap() && shared(&[], "TRUE").unwrap());
    assert!(!shared(&[], "").unwrap() && !shared(&[], "false").unwrap());
    let text = message(load(&[], &[("OZ_SHARED_ID", "1")]));
    assert_eq!(text, "invalid OZ_SHARED_ID \"1\": must be one of true, false");
}
