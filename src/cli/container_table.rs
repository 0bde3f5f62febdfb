//! The part of the table of settings that is about task containers: limits, network and rights, named as `docker run` names them.

use super::docker_values::{self, SecurityOption};
use super::settings::{Echo, Occurs, Reader, Setting};
use crate::policy::{Gpus, Ulimit};

pub(super) const MEMORY: Reader<i64> = Reader {
    setting: Setting {
        flag: Some("--memory"),
        variable: Some("OZ_MEMORY"),
        value_name: Some("SIZE"),
        help: "The most memory of a task, such as 512m or 2g, at least 6m; without swap. A shape may only lower it.",
        ..Setting::EMPTY
    },
    read: |given| docker_values::memory(given.value).map_err(|right| given.invalid(right)),
};

pub(super) const DEFAULT_MEMORY: Reader<i64> = Reader {
    setting: Setting {
        flag: Some("--default-memory"),
        variable: Some("OZ_DEFAULT_MEMORY"),
        value_name: Some("SIZE"),
        default: Some("the value of --memory"),
        help: "The memory of tasks whose assignment names none, such as 2g.",
        ..Setting::EMPTY
    },
    read: |given| docker_values::memory(given.value).map_err(|right| given.invalid(right)),
};

pub(super) const MEMORY_RESERVATION: Reader<i64> = Reader {
    setting: Setting {
        flag: Some("--memory-reservation"),
        variable: Some("OZ_MEMORY_RESERVATION"),
        value_name: Some("SIZE"),
        help: "The memory that the kernel leaves to a task when memory is short, such as 256m. At most --memory.",
        ..Setting::EMPTY
    },
    read: |given| docker_values::memory(given.value).map_err(|right| given.invalid(right)),
};

pub(super) const CPUS: Reader<i64> = Reader {
    setting: Setting {
        flag: Some("--cpus"),
        variable: Some("OZ_CPUS"),
        value_name: Some("NUMBER"),
        help: "The most processors of a task, such as 1.5, at least 0.01. More than the engine has counts as what it has. \
               A shape may only lower it.",
        ..Setting::EMPTY
    },
    read: |given| docker_values::cpus(given.value).map_err(|right| given.invalid(right)),
};

pub(super) const DEFAULT_CPUS: Reader<i64> = Reader {
    setting: Setting {
        flag: Some("--default-cpus"),
        variable: Some("OZ_DEFAULT_CPUS"),
        value_name: Some("NUMBER"),
        default: Some("the value of --cpus"),
        help: "The processors of tasks whose assignment names none, such as 2.",
        ..Setting::EMPTY
    },
    read: |given| docker_values::cpus(given.value).map_err(|right| given.invalid(right)),
};

pub(super) const PIDS_LIMIT: Reader<i64> = Reader {
    setting: Setting {
        flag: Some("--pids-limit"),
        variable: Some("OZ_PIDS_LIMIT"),
        value_name: Some("COUNT"),
        help: "The most processes and threads of a task; -1 means no limit.",
        ..Setting::EMPTY
    },
    read: |given| docker_values::pids_limit(given.value).map_err(|right| given.invalid(right)),
};

pub(super) const SHM_SIZE: Reader<i64> = Reader {
    setting: Setting {
        flag: Some("--shm-size"),
        variable: Some("OZ_SHM_SIZE"),
        value_name: Some("SIZE"),
        default: Some("chosen by the engine"),
        help: "The size of /dev/shm in a task, such as 64m. It counts as the task's memory.",
        ..Setting::EMPTY
    },
    read: |given| docker_values::shm_size(given.value).map_err(|right| given.invalid(right)),
};

pub(super) const ULIMIT: Reader<Ulimit> = Reader {
    setting: Setting {
        flag: Some("--ulimit"),
        variable: Some("OZ_ULIMIT"),
        value_name: Some("NAME=SOFT[:HARD]"),
        occurs: Occurs::Many,
        help: "A resource limit of each process of a task, such as nofile=1024:2048. -1 means no limit, except for nofile. May be \
               repeated; the last value of a name is used. In the variable, white space separates entries and quotes group.",
        ..Setting::EMPTY
    },
    read: |given| docker_values::ulimit(given.value).map_err(|right| given.invalid(right)),
};

pub(super) const NETWORK: Reader<String> = Reader {
    setting: Setting {
        flag: Some("--network"),
        variable: Some("OZ_NETWORK"),
        value_name: Some("NETWORK"),
        default: Some("chosen by the engine"),
        help: "The network of tasks: the name of a network, bridge or none. host and container:NAME need \
               --allow-host-network.",
        ..Setting::EMPTY
    },
    read: |given| docker_values::network(given.value).map_err(|right| given.invalid(right)),
};

pub(super) const DNS: Reader<String> = Reader {
    setting: Setting {
        flag: Some("--dns"),
        variable: Some("OZ_DNS"),
        value_name: Some("IP"),
        occurs: Occurs::Many,
        default: Some("chosen by the engine"),
        help: "A DNS server for tasks. May be repeated.",
        ..Setting::EMPTY
    },
    read: |given| docker_values::dns(given.value).map_err(|right| given.invalid(right)),
};

pub(super) const DNS_SEARCH: Reader<String> = Reader {
    setting: Setting {
        flag: Some("--dns-search"),
        variable: Some("OZ_DNS_SEARCH"),
        value_name: Some("DOMAIN"),
        occurs: Occurs::Many,
        default: Some("chosen by the engine"),
        help: "A domain in which tasks look up names; . means none. May be repeated.",
        ..Setting::EMPTY
    },
    read: |given| docker_values::dns_search(given.value).map_err(|right| given.invalid(right)),
};

pub(super) const ADD_HOST: Reader<String> = Reader {
    setting: Setting {
        flag: Some("--add-host"),
        variable: Some("OZ_ADD_HOST"),
        value_name: Some("HOST:IP"),
        occurs: Occurs::Many,
        help: "A line for /etc/hosts in tasks. HOST:host-gateway means the engine's machine. May be repeated.",
        ..Setting::EMPTY
    },
    read: |given| docker_values::add_host(given.value).map_err(|right| given.invalid(right)),
};

pub(super) const CAP_DROP: Reader<String> = Reader {
    setting: Setting {
        flag: Some("--cap-drop"),
        variable: Some("OZ_CAP_DROP"),
        value_name: Some("CAPABILITY"),
        occurs: Occurs::Many,
        help: "A capability that tasks lose, such as NET_RAW, or ALL. May be repeated.",
        ..Setting::EMPTY
    },
    read: |given| docker_values::capability(given.value).map_err(|right| given.invalid(right)),
};

pub(super) const CAP_ADD: Reader<String> = Reader {
    setting: Setting {
        flag: Some("--cap-add"),
        variable: Some("OZ_CAP_ADD"),
        value_name: Some("CAPABILITY"),
        occurs: Occurs::Many,
        help: "A capability that tasks get, such as SYS_PTRACE, or ALL. May be repeated.",
        ..Setting::EMPTY
    },
    read: |given| docker_values::capability(given.value).map_err(|right| given.invalid(right)),
};

pub(super) const SECURITY_OPT: Reader<SecurityOption> = Reader {
    setting: Setting {
        flag: Some("--security-opt"),
        variable: Some("OZ_SECURITY_OPT"),
        value_name: Some("OPTION"),
        occurs: Occurs::Many,
        help: "A security option of task containers. One of no-new-privileges, apparmor=PROFILE, label=OPTION, seccomp=unconfined, and \
               seccomp=PATH with a profile of at most 64 KiB, which the worker reads at its start. May be repeated.",
        ..Setting::EMPTY
    },
    read: |given| docker_values::security_opt(given.value).map_err(|right| given.invalid(right)),
};

pub(super) const USER: Reader<String> = Reader {
    setting: Setting {
        flag: Some("--user"),
        variable: Some("OZ_USER"),
        value_name: Some("USER[:GROUP]"),
        default: Some("the image's user"),
        help: "The user of tasks, by name or number. The user must be able to write to /workspace, which the engine \
               creates for root if the image lacks it.",
        ..Setting::EMPTY
    },
    read: |given| docker_values::user(given.value).map_err(|right| given.invalid(right)),
};

pub(super) const TMPFS: Reader<(String, String)> = Reader {
    setting: Setting {
        flag: Some("--tmpfs"),
        variable: Some("OZ_TMPFS"),
        value_name: Some("PATH[:OPTIONS]"),
        occurs: Occurs::Many,
        help: "Mount a file system in memory into tasks, such as /tmp:size=512m. It counts as the task's memory. \
               May be repeated.",
        ..Setting::EMPTY
    },
    read: |given| docker_values::tmpfs(given.value).map_err(|right| given.invalid(right)),
};

pub(super) const LABEL: Reader<(String, String)> = Reader {
    setting: Setting {
        flag: Some("--label"),
        variable: Some("OZ_LABEL"),
        value_name: Some("NAME[=VALUE]"),
        occurs: Occurs::Many,
        help: "A label of task containers. Names that begin with oz- are the worker's own. May be repeated; the last value of a name is used.",
        ..Setting::EMPTY
    },
    read: |given| docker_values::label(given.value).map_err(|right| given.invalid(right)),
};

pub(super) const GPUS: Reader<Gpus> = Reader {
    setting: Setting {
        flag: Some("--gpus"),
        variable: Some("OZ_GPUS"),
        value_name: Some("WHICH"),
        help: "The GPUs of a task: all, a number, or device=ID[,ID...] with indexes or ids. Tasks that run at the \
               same time share them.",
        ..Setting::EMPTY
    },
    read: |given| docker_values::gpus(given.value).map_err(|right| given.invalid(right)),
};

pub(super) const RUNTIME: Reader<String> = Reader {
    setting: Setting {
        flag: Some("--runtime"),
        variable: Some("OZ_RUNTIME"),
        value_name: Some("NAME"),
        default: Some("chosen by the engine"),
        help: "The OCI runtime of task containers, such as runsc.",
        ..Setting::EMPTY
    },
    read: |given| docker_values::runtime(given.value).map_err(|right| given.invalid(right)),
};

pub(super) const LOG_OPT: Reader<(String, String)> = Reader {
    setting: Setting {
        flag: Some("--log-opt"),
        variable: Some("OZ_LOG_OPT"),
        value_name: Some("NAME=VALUE"),
        occurs: Occurs::Many,
        echo: Echo::Nothing,
        help: "An option of the engine's log driver for task containers, such as max-size=100m. With json-file and local, max-size is 2g and \
               max-file 2 if neither this nor the engine sets max-size. May be repeated; the last value of a name is used.",
        ..Setting::EMPTY
    },
    read: |given| docker_values::log_opt(given.value).map_err(|right| given.invalid(right)),
};

pub(super) const ALLOW_HOST_NETWORK: Setting = Setting {
    flag: Some("--allow-host-network"),
    variable: Some("OZ_ALLOW_HOST_NETWORK"),
    help: "Allow --network host and container:NAME. With these, tasks reach every service of that network, also those that listen \
           only on localhost. The variable is true or false.",
    ..Setting::EMPTY
};

pub(super) const READ_ONLY: Setting = Setting {
    flag: Some("--read-only"),
    variable: Some("OZ_READ_ONLY"),
    help: "Make the root file system of tasks read-only, /workspace included; mount what they write to with -v \
               or --tmpfs. The variable is true or false.",
    ..Setting::EMPTY
};

pub(super) const INIT: Setting = Setting {
    flag: Some("--init"),
    variable: Some("OZ_INIT"),
    help: "Run an init process in task containers that reaps zombies. The variable is true or false.",
    ..Setting::EMPTY
};

pub(super) const HARDENED: Setting = Setting {
    flag: Some("--hardened"),
    variable: Some("OZ_HARDENED"),
    help: "Limit what tasks can do to the host. It means no-new-privileges, only the capabilities that package managers need, at \
           most 4096 processes unless --pids-limit is set, and --init; see CONTAINERS. The variable is true or false.",
    ..Setting::EMPTY
};
