//! The plan of the house: which crate may use which, and the floors of the rooms inside.

/// The crates, and what each may use of the project.
pub const CRATES: [(&str, &[&str]); 5] = [
    ("paradigm", &[]),
    ("artifacts", &[]),
    ("trainer", &["paradigm", "artifacts"]),
    ("daemon", &["paradigm", "artifacts"]),
    ("planner-wasm", &["paradigm"]),
];

/// Packages that a crate must not need, not even through another one, by the beginnings of their names.
pub const KEPT_OUT: [(&str, &[&str]); 3] = [
    ("paradigm", &["candle", "sled", "tokio"]),
    ("artifacts", &["candle", "sled", "tokio"]),
    ("daemon", &["candle"]),
];

/// For each folder of rooms its floors, the lowest first. A room uses only rooms on floors below its own. What a
/// folder's `mod.rs` (a crate's `lib.rs`) declares itself is the folder's face, free to all its rooms.
pub const FLOORS: &[(&str, &[&[&str]])] = &[
    (
        "paradigm",
        &[
            &["units", "decay", "band", "device"],
            &["settings", "increments", "model"],
            &["schedule", "memory", "cost", "published"],
            &["plan", "footprint"],
            &["fit", "timeline", "loss_law", "disk"],
            &["report", "alpha"],
        ],
    ),
    ("paradigm::memory", &[&["differentiated"]]),
    ("paradigm::model", &[&["config"]]),
    ("paradigm::loss_law", &[&["multi_power", "tissue"]]),
    (
        "artifacts",
        &[
            &["digest", "versioned"],
            &["storage", "job", "event", "shard", "stream"],
            &["manifest", "checkpoint"],
            &["tokens", "release"],
        ],
    ),
    ("artifacts::storage", &[&["disk", "hindrance", "output"], &["crash"]]),
    ("artifacts::storage::crash", &[&["tree"], &["images"]]),
    ("artifacts::shard", &[&["archive", "refusal"], &["lines", "text", "token_file"], &["jsonl"]]),
    ("artifacts::tokens", &[&["cutting", "reader"], &["writer"]]),
    ("artifacts::release", &[&["provenance", "weights"], &["finite"]]),
    (
        "trainer",
        &[
            &["kernels", "events", "patience", "spikes"],
            &["model", "data"],
            &["optimizer", "guard"],
            &["state"],
            &["failure"],
            &["device", "parallel"],
            &["machine", "task", "step", "generate", "logits"],
            &["evaluate", "memory", "start"],
            &["training", "bench"],
            &["main"],
        ],
    ),
    (
        "trainer::kernels",
        &[&["adjoint", "anywhere", "inplace", "slices", "cpu"], &["machine"], &["reference"], &["fused"]],
    ),
    ("trainer::kernels::fused", &[&["attention"]]),
    (
        "trainer::kernels::cpu",
        &[
            &["isa", "element", "matrix"],
            &["exp", "sums", "gemm"],
            &["gemv", "norm", "rope", "swiglu", "embedding", "attention", "cross_entropy", "adamw"],
        ],
    ),
    ("trainer::kernels::cpu::attention", &[&["softmax", "shared"], &["forward", "backward"]]),
    (
        "trainer::kernels::cpu::gemm",
        &[&["micro", "units"], &["portable", "avx2", "avx512"], &["version"], &["pack", "left"], &["tile"]],
    ),
    ("trainer::device", &[&["cuda"]]),
    ("trainer::memory", &[&["available"]]),
    ("trainer::step", &[&["autograd", "scheduled"], &["shared"], &["arithmetic"]]),
    ("trainer::bench", &[&["peak", "subject"], &["report"]]),
    (
        "trainer::step::scheduled",
        &[&["buffers", "parameters", "laps"], &["machine"], &["forward", "backward"]],
    ),
    ("trainer::model", &[&["family"], &["weights", "decoder"]]),
    (
        "daemon",
        &[
            &["ledger", "vocabulary"],
            &["config", "tokenizer"],
            &[
                "alias",
                "checkpoints",
                "devices",
                "outlook",
                "run_stream",
                "telemetry",
                "tensorboard",
                "hooks",
            ],
            &["withdrawal", "inbox", "scheduler", "jobs", "publish", "retention"],
            &["api"],
            &["edge"],
            &["service", "ctl"],
            &["bin"],
        ],
    ),
    ("daemon::devices", &[&["lock", "proc"], &["nvml"]]),
    ("daemon::bin", &[&["lrpathd", "lrpathctl"]]),
    (
        "daemon::ledger",
        &[
            &["path", "lock", "nesting"],
            &["transition"],
            &["node", "hindrances"],
            &["tree"],
            &["journal"],
            &["view"],
            &["follower", "probe"],
            &["start"],
            &["offline"],
        ],
    ),
    (
        "daemon::ledger::tree",
        &[
            &["evaluations", "orders"],
            &["generations", "questions", "versions", "parts"],
            &["rules"],
            &["changes"],
        ],
    ),
    ("daemon::ledger::view", &[&["entries", "folder"]]),
    ("daemon::ledger::journal", &[&["line"], &["walk"]]),
    (
        "daemon::inbox",
        &[
            &["reader", "scan", "settle", "tokenising", "watch"],
            &["cuts", "rejected", "sources"],
            &["workers"],
            &["accept"],
            &["work"],
        ],
    ),
    ("daemon::inbox::reader", &[&["body", "session"]]),
    ("daemon::telemetry", &[&["counters"], &["events"]]),
    ("daemon::hooks", &[&["command"]]),
    ("daemon::tensorboard", &[&["record"]]),
    ("daemon::tokenizer", &[&["training"]]),
    ("daemon::inbox::work", &[&["known"], &["looking", "training"], &["taking"]]),
    ("daemon::scheduler", &[&["cut", "decide"]]),
    (
        "daemon::jobs",
        &[
            &["executor", "process", "data", "adopt", "guard", "warnings"],
            &["log", "local", "follow", "prepare"],
            &["outcome"],
            &["supervise"],
        ],
    ),
    ("daemon::jobs::supervise", &[&["desk", "launch", "record"]]),
    ("daemon::alias", &[&["links"]]),
    ("daemon::retention", &[&["judge"], &["things"]]),
    ("daemon::publish", &[&["curve", "provenance"], &["card"], &["folder"], &["mark"]]),
    ("daemon::edge", &[&["look"], &["failure", "log"], &["lrpathd"]]),
    ("daemon::service", &[&["error", "manager", "neighbours", "settings", "sweep"], &["reload"], &["shift"]]),
    (
        "daemon::config",
        &[
            &["device", "keys", "nearest", "objection", "template"],
            &["files", "read", "outside"],
            &["check", "fixed"],
            &["settings"],
        ],
    ),
    (
        "daemon::api",
        &[
            &["types"],
            &["counters"],
            &["answers"],
            &["explain"],
            &["refused", "describe"],
            &["shared", "gate"],
            &["stream", "upkeep", "page", "status"],
            &["live", "metrics"],
            &["evaluations"],
            &["routes"],
            &["router"],
            &["server"],
        ],
    ),
    ("daemon::api::types", &[&["asked", "explain", "upkeep"]]),
    (
        "daemon::ctl",
        &[
            &["layout"],
            &["flags", "client"],
            &["screen", "place", "plan", "offline", "init"],
            &["check"],
            &["draw"],
            &["backup", "configuration", "course", "demo", "export", "manual", "upkeep", "watch"],
            &["shapes"],
            &["commands"],
        ],
    ),
    ("daemon::ctl::check", &[&["arithmetic", "look", "repair"]]),
    ("daemon::ctl::backup", &[&["contents"], &["copy"], &["restore"]]),
    (
        "daemon::ctl::draw",
        &[
            &["units", "table"],
            &["losses"],
            &["events", "explain", "lists", "plan", "status", "tree", "upkeep"],
        ],
    ),
    ("daemon::ctl::demo", &[&["era", "recount", "measure"], &["progress", "report"]]),
];
