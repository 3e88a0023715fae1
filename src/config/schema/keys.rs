//! The declaration of every key. A key that is not here does not exist, and what is here is all that documents it.

use std::time::Duration;

use super::{KeySchema, TableSchema, ValueKind};

/// The permission bits of a file: the owner must be able to read it, and nobody may execute it or write it for the world.
const FILE_MODE: ValueKind = ValueKind::Mode { needed: 0o400, forbidden: 0o113 };
/// The same for a directory, which is entered by the execute bits.
const DIR_MODE: ValueKind = ValueKind::Mode { needed: 0o700, forbidden: 0o002 };
/// The same for a socket, to which one must write.
const SOCKET_MODE: ValueKind = ValueKind::Mode { needed: 0o600, forbidden: 0o113 };

const CALL: ValueKind = ValueKind::Duration { least: Duration::from_millis(100), most: Duration::from_mins(10) };
const RETRY_WAIT: ValueKind = ValueKind::Duration { least: Duration::from_millis(100), most: Duration::from_hours(24) };

/// The whole config.
pub(crate) const TOP: TableSchema = TableSchema {
    name: "the config",
    doc: "",
    keys: &[&[
        KeySchema { name: "api", kind: ValueKind::Table(&API), ..KeySchema::TABLE },
        KeySchema { name: "limits", kind: ValueKind::Table(&LIMITS), ..KeySchema::TABLE },
        KeySchema { name: "state", kind: ValueKind::Table(&STATE), ..KeySchema::TABLE },
        KeySchema { name: "control", kind: ValueKind::Table(&CONTROL), ..KeySchema::TABLE },
        KeySchema { name: "log", kind: ValueKind::Table(&LOG), ..KeySchema::TABLE },
        KeySchema { name: "defaults", kind: ValueKind::Table(&DEFAULTS), ..KeySchema::TABLE },
        KeySchema {
            name: "app",
            kind: ValueKind::Named { table: &APP, pattern: "^[a-z0-9][a-z0-9_-]{0,63}$" },
            ..KeySchema::TABLE
        },
    ]],
};

pub(crate) const API: TableSchema = TableSchema {
    name: "[api]",
    doc: "How the token endpoint is called, by all apps.",
    keys: &[&[
        KeySchema {
            name: "timeout",
            kind: CALL,
            default: Some("10s"),
            note: "for a whole call: 100ms to 10m",
            doc: "The time limit of a whole call, from the connection to the last byte of the answer.",
            ..KeySchema::VALUE
        },
        KeySchema {
            name: "connect_timeout",
            kind: CALL,
            default: Some("5s"),
            note: "for the connection alone, at most timeout",
            doc: "The time limit of a connection's set-up, TLS included. It cannot be longer than `timeout`; where it is not \
                  set, it is the shorter of five seconds and `timeout`.",
            ..KeySchema::VALUE
        },
        KeySchema {
            name: "max_in_flight",
            kind: ValueKind::Integer { least: 1, most: 10_000 },
            default: Some("64"),
            note: "calls in flight at once: 1 to 10000",
            doc: "The most calls in flight at once, all apps together.",
            ..KeySchema::VALUE
        },
        KeySchema {
            name: "ca_file",
            kind: ValueKind::Path,
            example: "/etc/ssl/corp-proxy.pem",
            note: "instead of the system's roots",
            doc: "A file of certificates in PEM to trust instead of the system's roots.",
            masked: true,
            ..KeySchema::VALUE
        },
        KeySchema {
            name: "local_address",
            kind: ValueKind::IpAddress,
            example: "192.0.2.10",
            note: "the address to call from, as on an allow-list",
            doc: "The local address that calls are made from, as the endpoint's allow-list has it.",
            ..KeySchema::VALUE
        },
    ]],
};

pub(crate) const LIMITS: TableSchema = TableSchema {
    name: "[limits]",
    doc: "Limits for all apps together.",
    keys: &[&[KeySchema {
        name: "total",
        kind: ValueKind::Rate,
        default: Some("400/s"),
        note: "all apps together; the endpoint bans an address at 10,000 calls in 20 s",
        doc: "The most calls a second or a minute, all apps together. The endpoint bans an address that makes 10,000 calls in \
              20 seconds.",
        ..KeySchema::VALUE
    }]],
};

pub(crate) const STATE: TableSchema = TableSchema {
    name: "[state]",
    doc: "What is kept over restarts. A change takes a restart.",
    keys: &[&[KeySchema {
        name: "path",
        kind: ValueKind::Path,
        default: Some("/var/lib/corptokend/state.redb"),
        note: "tokens and deadlines over restarts",
        doc: "The database of tokens and deadlines. By default it lies in `$STATE_DIRECTORY`, where that is set.",
        ..KeySchema::VALUE
    }]],
};

pub(crate) const CONTROL: TableSchema = TableSchema {
    name: "[control]",
    doc: "The socket of `status` and the other commands. A change takes a restart.",
    keys: &[&[
        KeySchema {
            name: "socket",
            kind: ValueKind::Path,
            default: Some("/run/corptokend/control.sock"),
            doc: "The socket. By default it lies in `$RUNTIME_DIRECTORY`, where that is set.",
            ..KeySchema::VALUE
        },
        KeySchema {
            name: "mode",
            kind: SOCKET_MODE,
            default: Some("0660"),
            doc: "The socket's permission bits.",
            ..KeySchema::VALUE
        },
        KeySchema {
            name: "group",
            kind: ValueKind::Group,
            example: "corptokend-admin",
            note: "where it exists",
            doc: "The socket's group, by name or number: its members may use it. By default `corptokend-admin`, where it exists.",
            masked: true,
            ..KeySchema::VALUE
        },
    ]],
};

pub(crate) const LOG: TableSchema = TableSchema {
    name: "[log]",
    doc: "What is logged, and how. A change takes a restart.",
    keys: &[&[
        KeySchema {
            name: "format",
            kind: ValueKind::Word(&["auto", "text", "json", "journald"]),
            default: Some("auto"),
            doc: "How a line looks: `auto` is the journal's own protocol when systemd started the daemon, and `text` otherwise.",
            ..KeySchema::VALUE
        },
        KeySchema {
            name: "level",
            kind: ValueKind::Word(&["error", "warn", "info", "debug", "trace"]),
            default: Some("info"),
            doc: "The least important level that is logged.",
            ..KeySchema::VALUE
        },
    ]],
};

/// What `[defaults]` and an app can both set.
const INHERITED: &[KeySchema] = &[
    KeySchema {
        name: "endpoint",
        kind: ValueKind::Endpoint,
        default: Some("https://api.dingtalk.com"),
        note: "http:// only to a loopback address",
        doc: "The base URL of the token endpoint. Plain `http://` is accepted only to a loopback address.",
        ..KeySchema::VALUE
    },
    KeySchema {
        name: "proxy",
        kind: ValueKind::Proxy,
        example: "http://proxy:3128",
        note: "else as HTTPS_PROXY and NO_PROXY say",
        doc: "The proxy that calls go through, perhaps with `user:password@`. By default as `HTTPS_PROXY` and `NO_PROXY` say.",
        ..KeySchema::VALUE
    },
    KeySchema {
        name: "rate",
        kind: ValueKind::Rate,
        default: Some("15/s"),
        note: "calls are spaced evenly; the endpoint throttles an app at 20/s",
        doc: "The most calls of an app. Calls are spaced evenly, without bursts. The endpoint throttles an app at 20 a second.",
        ..KeySchema::VALUE
    },
    KeySchema {
        name: "refresh",
        kind: ValueKind::Table(&REFRESH),
        note: "due after this fraction of a token's life, give or take",
        doc: "When a token is renewed.",
        ..KeySchema::VALUE
    },
    KeySchema {
        name: "retry",
        kind: ValueKind::Table(&RETRY),
        note: "after failures, exponentially: 100ms to 24h",
        doc: "How long a failed call waits for the next one.",
        ..KeySchema::VALUE
    },
    KeySchema {
        name: "on_remove",
        kind: ValueKind::Word(&["delete", "keep"]),
        default: Some("delete"),
        note: "the sinks of a tenant that left the config",
        doc: "What happens to the sinks of a tenant that leaves the config.",
        ..KeySchema::VALUE
    },
    KeySchema {
        name: "on_expiry",
        kind: ValueKind::Word(&["keep", "delete"]),
        default: Some("keep"),
        note: "a token that could not be renewed (keyrings: delete)",
        doc: "What happens to a published token that expires because it could not be renewed. The default of a keyring is \
              `delete`.",
        ..KeySchema::VALUE
    },
    KeySchema {
        name: "enabled",
        kind: ValueKind::Boolean,
        default: Some("true"),
        note: "false: no calls; the sinks stay",
        doc: "Whether the app's tenants are called for. Without calls, their sinks stay as they are.",
        ..KeySchema::VALUE
    },
    KeySchema {
        name: "sink",
        kind: ValueKind::Sinks(&SINK),
        doc: "The places where tokens are published. A tenant's sinks replace its app's, which replace the default ones. \
              Without any, tokens go to `/run/corptokend/tokens/{app}/{corp_id}`.",
        ..KeySchema::TABLE
    },
];

pub(crate) const DEFAULTS: TableSchema = TableSchema {
    name: "[defaults]",
    doc: "For all apps. An app can set each of these keys for itself.",
    keys: &[INHERITED],
};

pub(crate) const APP: TableSchema = TableSchema {
    name: "[app.NAME]",
    doc: "One application of the endpoint. The name is lower-case letters, digits, `_` and `-`.",
    keys: &[
        &[
            KeySchema {
                name: "client_id",
                kind: ValueKind::Text { what: "a client_id", pattern: "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$" },
                example: "ding123",
                doc: "The application's client_id. Required.",
                masked: true,
                ..KeySchema::VALUE
            },
            KeySchema {
                name: "client_secret",
                kind: ValueKind::OneOf(&CLIENT_SECRET),
                doc: "Where the application's client secret is kept. Required. The secret itself does not belong into the config.",
                ..KeySchema::VALUE
            },
            KeySchema {
                name: "corp_ids",
                kind: ValueKind::CorpIds,
                example: "[\"ding9f50b15bccd16741\", \"ding4a0c7f21e88b6d0a\"]",
                doc: "The organisations whose tokens the application keeps. The lists of several files are joined.",
                ..KeySchema::VALUE
            },
            KeySchema {
                name: "tenant",
                kind: ValueKind::Named { table: &TENANT, pattern: "^[A-Za-z0-9_-]{1,64}$" },
                ..KeySchema::TABLE
            },
        ],
        INHERITED,
    ],
};

pub(crate) const REFRESH: TableSchema = TableSchema {
    name: "refresh",
    doc: "When a token is renewed.",
    keys: &[&[
        KeySchema {
            name: "at",
            kind: ValueKind::Fraction { least: 0.05, most: 0.95 },
            default: Some("0.7"),
            doc: "A token is due after this fraction of its life.",
            ..KeySchema::VALUE
        },
        KeySchema {
            name: "jitter",
            kind: ValueKind::Fraction { least: 0.0, most: 0.5 },
            default: Some("0.05"),
            doc: "Each due point is moved by up to this fraction of the life, earlier or later, so that not all come at once.",
            ..KeySchema::VALUE
        },
    ]],
};

pub(crate) const RETRY: TableSchema = TableSchema {
    name: "retry",
    doc: "How long a failed call waits for the next one: exponentially longer, with jitter.",
    keys: &[&[
        KeySchema { name: "min", kind: RETRY_WAIT, default: Some("1s"), doc: "The shortest wait.", ..KeySchema::VALUE },
        KeySchema { name: "max", kind: RETRY_WAIT, default: Some("5m"), doc: "The longest wait.", ..KeySchema::VALUE },
    ]],
};

pub(crate) const CLIENT_SECRET: TableSchema = TableSchema {
    name: "client_secret",
    doc: "Where a client secret is kept: exactly one of these keys.",
    keys: &[&[
        KeySchema {
            name: "file",
            kind: ValueKind::Path,
            example: "/etc/corptokend/crm.secret",
            note: "mode 0640, group corptokend",
            doc: "A file that holds the secret in one line, mode 0640 with the group `corptokend`, or 0600.",
            masked: true,
            ..KeySchema::VALUE
        },
        KeySchema {
            name: "credential",
            kind: ValueKind::Text { what: "a credential's name", pattern: "^[^/:]{1,255}$" },
            example: "crm",
            note: "or: systemd's LoadCredential=crm:/path",
            doc: "The name of a credential that systemd hands over, as `LoadCredential=` names it.",
            masked: true,
            ..KeySchema::VALUE
        },
        KeySchema {
            name: "env",
            kind: ValueKind::Text { what: "an environment variable's name", pattern: "^[A-Za-z_][A-Za-z0-9_]*$" },
            example: "CRM_SECRET",
            note: "or: the environment",
            doc: "The name of an environment variable.",
            masked: true,
            ..KeySchema::VALUE
        },
    ]],
};

pub(crate) const TENANT: TableSchema = TableSchema {
    name: "[app.NAME.tenant.CORP_ID]",
    doc: "One tenant's own settings. They declare the tenant, too.",
    keys: &[&[
        KeySchema {
            name: "name",
            kind: ValueKind::Text { what: "a tenant's name", pattern: "^[^./][^/]{0,127}$" },
            example: "acme",
            note: "usable as {name}",
            doc: "A name for the tenant, usable as `{name}` in the paths of sinks.",
            masked: true,
            ..KeySchema::VALUE
        },
        KeySchema {
            name: "sink",
            kind: ValueKind::Sinks(&SINK),
            doc: "The tenant's sinks, instead of its app's.",
            ..KeySchema::TABLE
        },
    ]],
};

pub(crate) const SINK: TableSchema = TableSchema {
    name: "sink",
    doc: "One place where tokens are published: a `file` or a `keyring`.",
    keys: &[&[
        KeySchema {
            name: "file",
            kind: ValueKind::SinkPath,
            example: "/run/corptokend/tokens/{app}/{corp_id}",
            note: "{app} {corp_id} {name} {client_id}; {{ is a brace",
            doc: "The path of a file. `{app}`, `{corp_id}`, `{name}` and `{client_id}` are filled in; `{{` is a brace. Missing \
                  directories are made.",
            ..KeySchema::VALUE
        },
        KeySchema {
            name: "keyring",
            kind: ValueKind::KeyringPath,
            example: "@u/corptokend/{app}/{corp_id}",
            note: "@u or a keyring's number, keyrings on the way, the key's description",
            doc: "The path of a key in the kernel's keyrings: `@u` or the number of a keyring, the keyrings on the way, and the \
                  key's description.",
            ..KeySchema::VALUE
        },
        KeySchema {
            name: "format",
            kind: ValueKind::Word(&["raw", "line", "json", "env"]),
            default: Some("raw"),
            doc: "What stands in the file: the token alone, the token and a newline, a JSON object, or shell variables.",
            ..KeySchema::VALUE
        },
        KeySchema {
            name: "template",
            kind: ValueKind::Template,
            example: "TOKEN={token}\\n",
            note: "instead of a format; also {expires_at} and {expires_at_unix}",
            doc: "What stands in the file, instead of a `format`. `{token}`, `{expires_at}` (RFC 3339), `{expires_at_unix}` and \
                  the words of a path are filled in.",
            masked: true,
            ..KeySchema::VALUE
        },
        KeySchema {
            name: "mode",
            kind: FILE_MODE,
            default: Some("0640"),
            doc: "The file's permission bits.",
            ..KeySchema::VALUE
        },
        KeySchema {
            name: "dir_mode",
            kind: DIR_MODE,
            default: Some("0750"),
            note: "of directories that have to be made",
            doc: "The permission bits of directories that have to be made.",
            ..KeySchema::VALUE
        },
        KeySchema {
            name: "owner",
            kind: ValueKind::Owner,
            example: "legacy",
            note: "a name or a number; needs CAP_CHOWN",
            doc: "The file's owner, by name or number. It needs CAP_CHOWN. By default the daemon's user.",
            masked: true,
            ..KeySchema::VALUE
        },
        KeySchema {
            name: "group",
            kind: ValueKind::Group,
            example: "corptokend-readers",
            note: "where it exists; of other groups, the daemon's user must be a member",
            doc: "The file's group, by name or number. Without CAP_CHOWN, the daemon's user must be a member. By default, the \
                  sink that nobody configured gets `corptokend-readers`, where it exists, and others the directory's or the \
                  daemon's.",
            masked: true,
            ..KeySchema::VALUE
        },
        KeySchema {
            name: "trust_dir",
            kind: ValueKind::Boolean,
            default: Some("false"),
            note: "true: accept a directory that everybody can write",
            doc: "Whether a directory that everybody can write is accepted.",
            ..KeySchema::VALUE
        },
    ]],
};

/// All tables.
pub(crate) const ALL: [&TableSchema; 13] =
    [&TOP, &API, &LIMITS, &STATE, &CONTROL, &LOG, &DEFAULTS, &APP, &REFRESH, &RETRY, &CLIENT_SECRET, &TENANT, &SINK];
