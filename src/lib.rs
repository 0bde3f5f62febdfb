//! A worker for an Oz control plane: takes agent tasks over a WebSocket and runs each in a Docker container.
//!
//! ```text
//! socket -> control_plane::ws (frame, message) -> coordinator (decision) -> pool (job) -> task -> docker
//!                  ^                                    |     ^                              |
//!                  +------------- outbox <--------------+     +----------- report <----------+
//! ```
//!
//! # Words
//!
//! - *run*: the control plane's record of a user's request.
//! - *task*: the work that this worker does for a run.
//! - *execution*: one launch of a task; its *key* is the run's id and, if the control plane names one, the execution's.
//! - *dialect*: what a control plane expects for an assignment, old or upstream.
//! - *job*: a task that holds one of the worker's slots.
//! - *claim*: the message that takes a run; *report*: the message that ends it.
//! - *settlement*: the outcome of a report, which decides whether the container is removed.
//! - *look-up*: a question about the state of a run, over REST.
//! - *link*: the WebSocket connection, through all reconnects; *epoch*: the number of one connection.
//! - *sidecar*: an image whose files are mounted into the task's container.
//! - *engine*: the Docker Engine, or another program with the same API.
//!
//! # A run, from its claim to the removal of its container
//!
//! ```text
//!              confirmed            stored
//! (claimed) -------------> Received -------> (starts) ... (ends) ---> Reporting
//!     |                     |  ^  |                                       | confirmed:
//!     | connection          |  |  | taken back                            v the slot is free
//!     v lost                +--+  v                        +--------- Settling <---+
//! (dropped unstarted;   sent again (dropped                |              |        | not stored:
//!  failed if it waits)              unstarted)             | stored       +--------+ sent again
//!                                                          v
//!                                                      (removed)
//! ```
//!
//! The states of a job are in `coordinator::job`, those of a received report in `coordinator::settle`, those of a stop in
//! `coordinator::stop`.
//!
//! # Threads
//!
//! | thread | may block in | never |
//! |---|---|---|
//! | `main` | one `select!` | does I/O, decodes or encodes |
//! | `oz-link` | `poll`, and connecting with deadlines; it decodes and encodes messages | decides |
//! | `oz-log` | writing a line | delays other threads |
//! | `oz-notify` | writing to the service manager; absent without one | delays other threads |
//! | `oz-metrics` | waiting for its clients, and 2 s for the main thread; absent without `--metrics-listen` | delays other threads |
//! | `oz-signals`, `ctrl-c` | waiting for a signal, which they pass on or log | do anything else |
//! | `oz-task-N` | calls to the engine, and waiting for a decision; it encodes its report | touches the WebSocket or another job |
//! | `oz-clean-N` | calls to the engine, to remove the container and volumes of a reported task | touches the WebSocket |
//! | `oz-poller-N` | one look-up, with a deadline; at most four | decides, touches the WebSocket |
//! | `oz-resolve` | resolving the host's name for a look-up | delays other threads |
//! | `oz-sweep` | calls to the engine, again after 10 min if it fails | touches what this process created |
//! | `oz-ping` | one call to the engine, and a check of its disk: once a minute, and for the log of the state | delays other threads |
//! | `oz-disk` | one check of the engine's disk, before or after a claim | delays other threads |
//! | `oz-limit` | waiting until an output that is read for an ended task has had its time | does anything else |
//! | `oz-step` | one step of a sub-command; abandoned after its time | runs in a worker |
//! | `oz-trust` | loading the trusted certificates, while `oz-link` connects | does anything else |
//!
//! An idle worker has the threads up to `ctrl-c`. The others are started when there is work for them, and end with it; but the
//! thread of the last job waits for the next one, and so do those of the last look-up and of the last removal. A job's thread is
//! started before its run is claimed, so that a run for which there is no thread is given back. While a task is prepared, its
//! job has several threads of the same name.
//!
//! # Rules
//!
//! `tests/tidy` checks them where a program can.
//!
//! - The modules that decide or decode are pure: no I/O, no clock, no thread. They are `protocol`, `coordinator`, `task::plan`,
//!   `task::output` and `docker::http`.
//! - A run is claimed when a slot is free. Its container is started once the claim is stored, and removed once the report is
//!   stored. The state of the run shows both; without look-ups, and in the other dialect, the confirmation counts.
//! - Everything is bounded: output, bodies, headers, frames, queues, retries, waits.
//! - A value that may be secret is a [`secret::Secret`] until it is sent.

pub mod app;
pub mod cli;
pub mod control_plane;
pub mod coordinator;
pub mod docker;
pub mod exit;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod job;
pub mod logging;
pub mod metrics;
mod net;
pub mod policy;
pub mod protocol;
pub mod secret;
pub mod sys;
pub mod task;
