//! What of a message is protocol and stays as it is, and what is data and is masked.
//!
//! Clients and servers act on method names, ids, cursors, URIs, MIME types and schemas; a changed
//! one breaks the call, so those are never touched (MCP `basic`, `server/*`, `client/*`, all
//! revisions up to 2026-07-28). Whatever is not known to be protocol is data.

/// What part of a message a value is, which decides what may be done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Protocol: nothing below is touched.
    Keep,
    /// A protocol string, number or boolean. An object or array in its place is not what the
    /// protocol puts there, and is data.
    KeepScalar,
    /// Data: field rules, patterns and keys.
    Data,
    /// Words for people: patterns only, but an object or array here is data.
    Text,
    /// Base64; if it is not, text.
    Blob,
    /// The message itself.
    Envelope,
    /// `params`; `named` if its `name` says what is called.
    Params { named: bool },
    /// `result`.
    Result,
    /// `error`.
    Error,
    /// `_meta`.
    Meta,
    /// A content block or a list of them; `media` if its `data` is encoded bytes.
    Block { media: bool },
    /// An entry of a `resources/read` result, or an embedded resource.
    Resource,
    /// A prompt's or sampling request's message, or a list of them.
    PromptMessage,
    /// A tool's definition, or a list of them.
    Tool,
    /// A prompt's definition, or a list of them.
    Prompt,
    /// A prompt's argument's definition, or a list of them.
    PromptArgument,
    /// A resource's, template's or root's description, or a list of them.
    Listed,
    /// A completion.
    Completion,
    /// A task's state, or a list of them.
    Task,
    /// A map of requests within a result (multi round-trip).
    Requests,
    /// One of those requests.
    Request,
    /// A map of the answers to those requests.
    Responses,
}

/// What the object that a key stands in says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts<'a> {
    /// The envelope's or request's `method`.
    pub(super) method: Option<&'a str>,
}

impl Role {
    /// The role of the member `key` of an object in this role.
    pub(super) fn member(self, key: &str, facts: Facts<'_>) -> Self {
        match self {
            Self::Keep => Self::Keep,
            Self::Data | Self::Text | Self::KeepScalar | Self::Blob => Self::Data,
            Self::Envelope | Self::Request => envelope(key, facts),
            Self::Params { named } => params(key, named),
            Self::Result => result(key),
            Self::Error => match key {
                "code" => Self::KeepScalar,
                "message" => Self::Text,
                _ => Self::Data,
            },
            Self::Meta => meta(key),
            Self::Block { media } => block(key, media),
            Self::Resource => match key {
                "uri" | "mimeType" => Self::KeepScalar,
                "text" => Self::Text,
                "blob" => Self::Blob,
                "_meta" => Self::Meta,
                _ => Self::Data,
            },
            Self::PromptMessage => match key {
                "role" => Self::KeepScalar,
                "content" => Self::Block { media: false },
                "_meta" => Self::Meta,
                _ => Self::Data,
            },
            Self::Tool => match key {
                "name" => Self::KeepScalar,
                "inputSchema" | "outputSchema" | "icons" | "execution" => Self::Keep,
                "title" | "description" | "annotations" => Self::Text,
                "_meta" => Self::Meta,
                _ => Self::Data,
            },
            Self::Prompt => match key {
                "name" => Self::KeepScalar,
                "icons" => Self::Keep,
                "arguments" => Self::PromptArgument,
                "title" | "description" => Self::Text,
                "_meta" => Self::Meta,
                _ => Self::Data,
            },
            Self::PromptArgument => match key {
                "name" | "required" => Self::KeepScalar,
                _ => Self::Text,
            },
            Self::Listed => match key {
                "uri" | "uriTemplate" | "mimeType" | "size" => Self::KeepScalar,
                "icons" => Self::Keep,
                "name" | "title" | "description" => Self::Text,
                "_meta" => Self::Meta,
                _ => Self::Data,
            },
            Self::Completion => match key {
                "total" | "hasMore" => Self::KeepScalar,
                _ => Self::Text,
            },
            Self::Task => task(key),
            Self::Requests => Self::Request,
            Self::Responses => Self::Result,
        }
    }

    /// The role of an element of an array in this role.
    pub(super) fn element(self) -> Self {
        match self {
            Self::KeepScalar => Self::Data,
            Self::Envelope | Self::Params { .. } | Self::Result | Self::Error | Self::Meta => {
                Self::Data
            }
            other => other,
        }
    }

    /// Whether keys of an object in this role are the server's own words.
    pub(super) fn has_data_keys(self) -> bool {
        matches!(self, Self::Data | Self::Text | Self::KeepScalar | Self::Blob)
    }
}

/// The types of content block that exist; anything else with a `content` of its own is data, as
/// the answers to an elicitation are.
const BLOCK_TYPES: &[&str] =
    &["text", "image", "audio", "resource", "resource_link", "tool_use", "tool_result"];

/// The role of an object in block position with this `type`; `listed` if it stands in a list,
/// where only blocks can stand.
pub(super) fn block_role(kind: Option<&str>, listed: bool) -> Role {
    match kind {
        Some("image" | "audio") => Role::Block { media: true },
        Some(kind) if listed || BLOCK_TYPES.contains(&kind) => Role::Block { media: false },
        _ => Role::Data,
    }
}

fn envelope(key: &str, facts: Facts<'_>) -> Role {
    match key {
        "jsonrpc" | "id" | "method" => Role::KeepScalar,
        "params" => {
            let named = matches!(facts.method, Some("tools/call" | "prompts/get"));
            Role::Params { named }
        }
        "result" => Role::Result,
        "error" => Role::Error,
        _ => Role::Data,
    }
}

fn params(key: &str, named: bool) -> Role {
    match key {
        "name" if named => Role::KeepScalar,
        "uri" | "cursor" | "requestState" | "protocolVersion" | "progressToken" | "requestId"
        | "taskId" | "elicitationId" | "mode" | "url" | "level" | "logger" | "progress"
        | "total" | "includeContext" | "maxTokens" | "temperature" | "resultType" => {
            Role::KeepScalar
        }
        "capabilities" | "clientInfo" | "ref" | "requestedSchema" | "modelPreferences"
        | "toolChoice" | "notifications" => Role::Keep,
        "_meta" => Role::Meta,
        "messages" => Role::PromptMessage,
        "tools" => Role::Tool,
        "inputResponses" => Role::Responses,
        "task" => Role::Task,
        "message" | "reason" | "systemPrompt" => Role::Text,
        _ => Role::Data,
    }
}

fn result(key: &str) -> Role {
    match key {
        "content" => Role::Block { media: false },
        "contents" => Role::Resource,
        "messages" => Role::PromptMessage,
        "tools" => Role::Tool,
        "prompts" => Role::Prompt,
        "resources" | "resourceTemplates" | "roots" => Role::Listed,
        "completion" => Role::Completion,
        "inputRequests" => Role::Requests,
        "inputResponses" => Role::Responses,
        "task" | "tasks" => Role::Task,
        "result" => Role::Result,
        "error" => Role::Error,
        "_meta" => Role::Meta,
        "capabilities" | "serverInfo" | "clientInfo" | "supportedVersions" => Role::Keep,
        "isError" | "resultType" | "nextCursor" | "requestState" | "protocolVersion" | "role"
        | "model" | "stopReason" | "action" | "ttlMs" | "cacheScope" | "taskId" => Role::KeepScalar,
        "instructions" | "description" => Role::Text,
        _ => task(key),
    }
}

fn task(key: &str) -> Role {
    match key {
        "taskId" | "status" | "createdAt" | "lastUpdatedAt" | "ttl" | "ttlMs" | "pollInterval"
        | "pollIntervalMs" | "resultType" | "requestState" => Role::KeepScalar,
        "statusMessage" => Role::Text,
        "result" => Role::Result,
        "error" => Role::Error,
        "inputRequests" => Role::Requests,
        "_meta" => Role::Meta,
        _ => Role::Data,
    }
}

/// Keys of the protocol in `_meta`: the few without a prefix, and prefixes whose second label is
/// `modelcontextprotocol` or `mcp`, which MCP reserves.
fn meta(key: &str) -> Role {
    const OWN: &[&str] =
        &["progressToken", "traceparent", "tracestate", "baggage", "subscriptionId"];
    let prefix = key.split_once('/').map_or("", |(prefix, _)| prefix);
    let reserved = matches!(prefix.split('.').nth(1), Some("modelcontextprotocol" | "mcp"));
    if OWN.contains(&key) || reserved { Role::Keep } else { Role::Data }
}

fn block(key: &str, media: bool) -> Role {
    match key {
        "type" | "mimeType" | "uri" | "role" | "id" | "toolUseId" | "size" | "isError" => {
            Role::KeepScalar
        }
        "data" if media => Role::Blob,
        "text" | "title" | "description" | "name" => Role::Text,
        "resource" => Role::Resource,
        "content" => Role::Block { media: false },
        "icons" => Role::Keep,
        "_meta" => Role::Meta,
        _ => Role::Data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_keys_of_the_protocol_are_kept() {
        for key in ["progressToken", "io.modelcontextprotocol/related-task", "dev.mcp/x"] {
            assert_eq!(meta(key), Role::Keep, "{key}");
        }
        for key in ["com.example.mcp/x", "com.example/ssn", "ssn", "mcp/x"] {
            assert_eq!(meta(key), Role::Data, "{key}");
        }
    }
}
