//! The manual page oz-agent-worker(1): the order of its sections, and those made from the tables.

use super::roff::{Roff, bold, italic};
use super::{NAME, VERSION, flags, manual};
use crate::cli::{COMMANDS, EXTERNAL, Occurs, SETTINGS, Setting};
use crate::exit::Exit;

/// The day of the last change to the text. Not the day of the build: that would make two builds differ.
const DATE: &str = "2026-11-26";

const DESCRIPTION: [&str; 5] = [
    "The worker connects to an Oz control plane by WebSocket, takes agent tasks, and runs each of them in a Docker container \
     on this machine: it pulls the image, mounts the agent (the sidecar image) at /agent, starts the container, waits for it, \
     collects its output and reports the result. Then it cleans up.",
    "A run is what somebody has asked the control plane to do. An assignment is the message that gives a run to this worker. A task \
     is the work on one assignment here, with its container; its id is that of the run. An execution is one attempt at a run; some \
     control planes give each an id. A slot is room for one task: --max-concurrent-tasks is their number. A shape (instance_shape) \
     is the processors and the memory that an assignment asks for.",
    "It needs a key for workers and an id that no other worker has; an engine that its user may use and that speaks the API of \
     Docker 20.10 or newer, such as dockerd or podman system service; and the address of the control plane, unless that is on \
     this machine. It needs no Docker command line, and keeps no files.",
    "It stays in the foreground, logs to stderr, one line per event, and runs until it gets a signal.",
    "A flag wins over its variable, and an empty variable counts as unset.",
];

const SIGNALS: [(&str, &str); 4] = [
    (
        "SIGTERM, SIGINT, SIGHUP",
        "At the first one, the worker takes no new tasks. Running tasks continue for --drain-timeout; then, or at the second \
         one, they are stopped within --stop-grace and reported. When every report is delivered, the worker ends with 0. \
         SIGHUP reloads nothing. See STOPPING.",
    ),
    (
        "a further one",
        "Ends the worker at once, with 130. The next start with the same id takes over the tasks that are left on the engine.",
    ),
    ("SIGUSR1", "Logs the state of the connection, the engine and every task."),
    ("SIGUSR2, SIGQUIT", "Are ignored, with a warning."),
];

const FILES: [(&str, &str); 4] = [
    (
        "/etc/oz-agent-worker/worker.env",
        "The variables of the service, read by systemd and not by the worker. OZ_WORKER_ARGS in it may hold flags. \
         `oz-agent-worker --print environment` prints a sample. It may contain the key, so other users must not be able to read it.",
    ),
    ("/etc/oz-agent-worker/ID.env", "The same for the instance ID of the service, read after worker.env."),
    (
        "~/.docker/config.json",
        "Registry credentials and the current Docker context; in the folder DOCKER_CONFIG when that is set.",
    ),
    ("/var/run/docker.sock", "The engine, unless DOCKER_HOST names another one."),
];

const EXAMPLES: [(&str, &[&str]); 6] = [
    (
        "One worker, with its key in a file:",
        &[
            "oz-agent-worker --api-key-file /etc/oz-agent-worker/key \\",
            "    --worker-id build-host-1 --server-root-url https://oz.example.com",
        ],
    ),
    (
        "The same with variables, and a folder of this machine in every task:",
        &[
            "export OZ_API_KEY_FILE=/etc/oz-agent-worker/key OZ_WORKER_ID=build-host-1",
            "export OZ_SERVER_ROOT_URL=https://oz.example.com",
            "oz-agent-worker --volumes /srv/cache:/cache:ro",
        ],
    ),
    (
        "With an engine on another machine:",
        &["DOCKER_HOST=tcp://engine.example.com DOCKER_TLS_VERIFY=1 oz-agent-worker"],
    ),
    (
        "What a worker would use, and where from:",
        &["oz-agent-worker --print settings --settings-file worker.env"],
    ),
    (
        "This page, the completions for the shell that reads them, and a file with every variable, commented out:",
        &[
            "oz-agent-worker --print man | man -l -",
            "source <(oz-agent-worker --print bash)",
            "source <(oz-agent-worker --print zsh)",
            "oz-agent-worker --print fish | source",
            "(umask 077; oz-agent-worker --print environment >worker.env)",
        ],
    ),
    (
        "To install them for all users:",
        &[
            "share=/usr/local/share",
            "oz-agent-worker --print man >$share/man/man1/oz-agent-worker.1",
            "oz-agent-worker --print bash \\",
            "    >$share/bash-completion/completions/oz-agent-worker",
            "oz-agent-worker --print zsh \\",
            "    >$share/zsh/site-functions/_oz-agent-worker",
            "oz-agent-worker --print fish \\",
            "    >$share/fish/vendor_completions.d/oz-agent-worker.fish",
        ],
    ),
];

/// The page, with a final line break.
pub(super) fn page() -> String {
    let mut roff = Roff::new(NAME, DATE, VERSION, "User Commands");
    roff.section("NAME");
    roff.raw("oz\\-agent\\-worker \\- self\\-hosted worker for an Oz control plane");
    synopsis(&mut roff);
    roff.section("DESCRIPTION");
    DESCRIPTION.iter().for_each(|paragraph| roff.paragraph(paragraph));
    roff.section("OPTIONS");
    SETTINGS.iter().for_each(|setting| option(setting, &mut roff));
    commands(&mut roff);
    environment(&mut roff);
    roff.section("EXIT STATUS");
    for (exit, meaning) in Exit::ALL {
        roff.item(&bold(&exit.code().to_string()), meaning);
    }
    for (title, items) in [("SIGNALS", SIGNALS.as_slice()), ("FILES", &FILES)] {
        roff.section(title);
        items.iter().for_each(|(name, words)| roff.item(&bold(name), words));
    }
    manual::write(&mut roff);
    roff.section("EXAMPLES");
    for (words, lines) in EXAMPLES {
        roff.paragraph(words);
        roff.example(lines);
    }
    roff.section("SEE ALSO");
    roff.raw("\\fBdocker\\fR(1), \\fBpodman\\fR(1), \\fBsystemd.exec\\fR(5), \\fBdockerd\\fR(8)");
    roff.finish()
}

/// The required flag, and the flags that print something and end.
fn synopsis(roff: &mut Roff) {
    roff.section("SYNOPSIS");
    let name = bold(NAME);
    roff.raw(&format!("{name} {} {} [{}...]", bold("--worker-id"), italic("ID"), italic("OPTION")));
    for command in COMMANDS {
        roff.line_break();
        roff.raw(&format!("{name} {} [{}...]", bold(command.name), italic("OPTION")));
    }
    for setting in SETTINGS.iter().filter(|setting| setting.occurs == Occurs::Alone) {
        roff.line_break();
        roff.raw(&format!("{name} {}", usage(setting)));
    }
}

/// The flags of a setting and the name of its value.
fn usage(setting: &Setting) -> String {
    let flags: Vec<_> = flags(setting).into_iter().map(bold).collect();
    let value = setting.value_name.map(|name| format!(" {}", italic(name))).unwrap_or_default();
    format!("{}{value}", flags.join(", "))
}

fn option(setting: &Setting, roff: &mut Roff) {
    if setting.flag.is_none() {
        return;
    }
    roff.item(&usage(setting), setting.help);
    if let Some(variable) = setting.variable {
        roff.note(&format!("Variable: `{variable}`"));
    }
    default(setting, roff);
}

/// Each sub-command with its options.
fn commands(roff: &mut Roff) {
    roff.section("COMMANDS");
    for command in COMMANDS {
        roff.subsection(command.name);
        roff.paragraph(command.help);
        let options = command.options.iter().filter(|option| option.occurs != Occurs::Alone);
        options.for_each(|setting| option(setting, roff));
        if command.takes_settings {
            roff.paragraph("It takes the settings of OPTIONS too.");
        }
    }
}

fn default(setting: &Setting, roff: &mut Roff) {
    if let Some(default) = setting.default {
        roff.note(&format!("Default: `{default}`"));
    }
}

fn environment(roff: &mut Roff) {
    roff.section("ENVIRONMENT");
    for setting in SETTINGS {
        let Some(variable) = setting.variable else { continue };
        match setting.flag {
            Some(flag) => roff.item(&bold(variable), &format!("The same as {flag}.")),
            None => {
                roff.item(&bold(variable), setting.help);
                default(setting, roff);
            }
        }
    }
    for external in EXTERNAL {
        roff.item(&bold(external.variable), external.help);
    }
}
