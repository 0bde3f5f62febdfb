//! Every decision, for both dialects.

use super::Dialect::{Old, Upstream};
use super::*;

fn completed(exit_code: u8, out_of_memory: bool, note: Option<&str>) -> RunResult {
    RunResult::Completed { exit_code, out_of_memory, note: note.map(str::to_owned) }
}

fn failed(reason: FailureReason, step: FailureReason) -> RunResult {
    RunResult::Failed { reason, step, message: "m".into(), exit_code: Some(143) }
}

fn key(execution_id: Option<&str>) -> ExecutionKey {
    ExecutionKey::new("t", execution_id)
}

#[test]
fn the_dialect_follows_from_the_host_and_three_fields() {
    use Mark::{Absent, Odd, Present};
    let cases = [
        ((Absent, Absent, false), Old, false),
        ((Absent, Absent, true), Old, false),
        ((Present, Absent, false), Upstream, false),
        ((Present, Absent, true), Old, true),
        ((Absent, Present, false), Upstream, false),
        ((Absent, Present, true), Upstream, false),
        ((Present, Present, false), Upstream, false),
        ((Present, Present, true), Upstream, false),
        ((Odd, Absent, false), Upstream, true),
        ((Odd, Absent, true), Old, true),
        ((Absent, Odd, true), Upstream, true),
        ((Present, Odd, false), Upstream, true),
        ((Odd, Odd, true), Upstream, true),
    ];
    for ((execution_id, owner, trace_id), expected, is_guess) in cases {
        let marks = Marks { execution_id, owner, trace_id };
        let (dialect, guess) = Dialect::of(None, marks);
        assert_eq!((dialect, guess.is_some()), (expected, is_guess), "{marks:?}");
        let (dialect, guess) = Dialect::of(Some(Upstream), marks);
        let is_odd = execution_id == Odd || owner == Odd;
        assert_eq!((dialect, guess.is_some()), (Upstream, is_odd), "{marks:?} at a known host");
    }
}

#[test]
fn a_known_host_is_found_in_any_spelling_and_no_other() {
    for host in ["oz.warp.dev", "OZ.Warp.dev", "oz.warp.dev."] {
        assert_eq!(Dialect::of_host(host), Some(Upstream));
    }
    for host in ["localhost", "warp.dev", "x.oz.warp.dev", "oz.warp.dev.example", ""] {
        assert_eq!(Dialect::of_host(host), None);
    }
}

#[test]
fn a_name_is_read_back_and_others_are_old() {
    for dialect in [Old, Upstream] {
        assert_eq!(Dialect::of_name(dialect.name()), dialect);
    }
    assert_eq!((Dialect::of_name(""), Dialect::of_name("newer")), (Old, Old));
}

#[test]
fn claims_reports_and_cancels_differ() {
    let of = |dialect: Dialect| {
        [
            dialect.state_decides_for(&ExecutionKey::new("t", None)),
            dialect.waits_for_slot(),
            dialect.repeats_claims(),
            dialect.reports_output(),
            dialect.needs_sidecar(),
        ]
    };
    assert_eq!((of(Old), of(Upstream)), ([true; 5], [false; 5]));
    let of = |dialect: Dialect| {
        [
            dialect.shares_ids(),
            dialect.names_executions("task_claimed"),
            dialect.executes_script(),
            dialect.has_harness(),
            dialect.sorts_servers(),
        ]
    };
    assert_eq!((of(Old), of(Upstream)), ([false; 5], [true; 5]));
    let kinds = ["task_claimed", "task_completed", "task_failed", "task_rejected"];
    assert_eq!(kinds.map(|kind| Old.names_worker(kind)), [true, true, false, false]);
    assert_eq!(kinds.map(|kind| Upstream.names_worker(kind)), [true, false, false, false]);
    assert_eq!(kinds.map(|kind| Upstream.names_executions(kind)), [true, true, true, false]);
}

#[test]
fn only_upstream_executions_are_remembered_and_only_tasks_without_them_start_again() {
    for id in [None, Some("e")] {
        assert!(!Old.starts_ended_again(&key(id)) && !Old.remembers_ended(&key(id)));
        assert_eq!(Upstream.starts_ended_again(&key(id)), id.is_none());
        assert_eq!(Upstream.remembers_ended(&key(id)), id.is_some());
    }
}

#[test]
fn a_cancel_wins_over_a_failure_and_not_over_a_success() {
    let results = [completed(0, false, None), completed(3, false, None), {
        failed(FailureReason::ImagePull, FailureReason::ImagePull)
    }];
    assert_eq!(results.each_ref().map(|result| Upstream.cancel_wins(result)), [false, true, true]);
    assert_eq!(results.each_ref().map(|result| Old.cancel_wins(result)), [false; 3]);
}

/// Type, state, reason, code and message.
type Fields = (&'static str, Option<&'static str>, Option<&'static str>, Option<u8>, Option<String>);

fn ending(dialect: Dialect, result: RunResult) -> Fields {
    let is_cancel = matches!(result, RunResult::Failed { reason: FailureReason::TaskCancelled, .. });
    let is_old_exit = dialect == Old && matches!(result, RunResult::Completed { .. });
    let Ending { kind, task_state, failure_reason, exit_code, message, needs_output } =
        dialect.ending(result);
    assert_eq!(needs_output, is_old_exit);
    if is_cancel {
        assert_eq!(dialect.failed_kind(FailureReason::TaskCancelled), kind);
    }
    (kind, task_state, failure_reason, exit_code, message)
}

#[test]
fn an_old_exit_completes_the_task_with_its_code() {
    let cases = [
        (completed(0, false, None), None, 0, None),
        (completed(3, false, None), None, 3, None),
        (completed(137, true, None), Some("container_oom"), 137, None),
        (completed(255, false, Some("n")), None, 255, Some("n".to_owned())),
    ];
    for (result, reason, code, message) in cases {
        assert_eq!(ending(Old, result), ("task_completed", None, reason, Some(code), message));
    }
    for (reason, name) in
        [(FailureReason::TaskCancelled, "task_cancelled"), (FailureReason::Internal, "internal")]
    {
        let expected = ("task_failed", None, Some(name), Some(143), Some("m".to_owned()));
        assert_eq!(ending(Old, failed(reason, FailureReason::ImagePull)), expected);
    }
}

#[test]
fn an_upstream_exit_completes_the_task_only_with_0() {
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(ending(Upstream, completed(0, false, None)), {
        ("task_completed", None, None, None, text("the task succeeded"))
    });
    let exit = "container_exit";
    let cases = [
        (completed(3, false, None), exit, 3, "the task exited with code 3"),
        (completed(137, false, None), exit, 137, "the task exited with code 137"),
        (completed(255, false, Some("n")), exit, 255, "n"),
        (
            completed(137, true, None),
            "container_oom",
            137,
            "the task exceeded its memory limit and exited with code 137",
        ),
        (completed(1, true, None), exit, 1, "the task exceeded its memory limit and exited with code 1"),
    ];
    for (result, reason, code, message) in cases {
        assert_eq!(ending(Upstream, result), ("task_failed", None, Some(reason), Some(code), text(message)));
    }
}

#[test]
fn an_upstream_failure_has_a_reason_of_the_closed_list_and_no_code() {
    use FailureReason::*;
    let list = [
        (ImagePull, "image_pull"),
        (SidecarPrep, "sidecar_prep"),
        (ContainerCreate, "container_create"),
        (ContainerStart, "container_start"),
        (ContainerWait, "container_wait"),
        (ContainerOom, "container_oom"),
        (TaskTimeout, "task_timeout"),
        (GracefulShutdown, "graceful_shutdown"),
    ];
    for (reason, name) in list {
        let expected = ("task_failed", None, Some(name), None, Some("m".to_owned()));
        assert_eq!(ending(Upstream, failed(reason, reason)), expected);
    }
    for reason in [InvalidAssignment, DockerUnreachable, Internal] {
        for (step, sent) in
            [(reason, "unknown"), (ImagePull, "image_pull"), (ContainerWait, "container_wait")]
        {
            let message = format!("{}: m", reason.name());
            let expected = ("task_failed", None, Some(sent), None, Some(message));
            assert_eq!(ending(Upstream, failed(reason, step)), expected);
        }
    }
    let expected = ("task_completed", Some("CANCELLED"), None, None, Some("m".to_owned()));
    assert_eq!(ending(Upstream, failed(TaskCancelled, TaskCancelled)), expected);
}

#[test]
fn an_old_session_is_always_shared_with_the_team_and_an_upstream_one_with_its_own() {
    for (owner, shared) in [(None, false), (Some("USER"), false), (Some("team"), false), (Some("TEAM"), true)]
    {
        assert_eq!((Old.shares_with_team(owner), Upstream.shares_with_team(owner)), (true, shared));
    }
}

#[test]
fn a_blank_image_is_absent_or_wrong() {
    for (text, old, upstream) in
        [("", None, None), (" ", None, Some(" ")), (" img ", Some("img"), Some("img"))]
    {
        let images = [Old, Upstream].map(|dialect| dialect.image(text));
        assert_eq!(images, [old, upstream].map(|image| image.map(str::to_owned)));
    }
}

#[test]
fn model_and_computer_use_depend_on_the_harness() {
    let model = |text: &str| Some(text.to_owned());
    for (harness, is_own) in
        [(None, true), (Some(""), true), (Some("oz"), true), (Some(" oz "), false), (Some("OZ"), false)]
    {
        assert_eq!(Old.model(model("m"), harness), model("m"));
        assert_eq!(Old.model(model("pending"), harness), None);
        for name in ["m", "pending"] {
            assert_eq!(Upstream.model(model(name), harness), model(name).filter(|_| is_own));
        }
        for explicit in [Some(true), Some(false)] {
            assert_eq!(Old.computer_use(explicit, harness), explicit);
            assert_eq!(Upstream.computer_use(explicit, harness), explicit);
        }
        assert_eq!(Old.computer_use(None, harness), None);
        assert_eq!(Upstream.computer_use(None, harness), Some(is_own));
        for on in [None, Some(true), Some(false)] {
            let expected = model("m").filter(|_| is_own && on == Some(true));
            assert_eq!(Upstream.computer_use_model(model("m"), on, harness), expected);
            assert_eq!(Old.computer_use_model(model("m"), on, harness), None);
        }
    }
}

#[test]
fn an_upstream_agent_stays_for_the_time_of_the_assignment_or_else_of_the_setting() {
    let time = |text: &str| Some(text.to_owned());
    assert_eq!(Upstream.idle_time(Some(5), Some("10m")), time("5m"));
    assert_eq!(Upstream.idle_time(None, Some("10m")), time("10m"));
    assert_eq!(Upstream.idle_time(None, None), None);
    assert_eq!(Old.idle_time(Some(5), Some("10m")), None);
    assert_eq!((Old.root_variable(), Upstream.root_variable()), (None, Some("WARP_SERVER_ROOT_URL")));
}
