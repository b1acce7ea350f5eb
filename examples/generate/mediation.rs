//! `docs/mediation.md`, from `mcpx::policy::mediation`.

use std::fmt::Write as _;

use mcpx::mcp::Era;
use mcpx::policy::mediation::{Names, ROWS, Row, Rule, Sender, Shape};
use mcpx::policy::{Direction, Transport, Way};

const HEAD: &str = r#"# Who may send what
Made from the table in `src/policy/mediation.rs` by `cargo run --example generate`; the data path
decides by that table, a test walks every cell of it, and another fails when this page differs.

Every message and every act without message (HTTP GET, DELETE) is one row. The cell says what decides:

| cell | decides | on a no |
|---|---|---|
| policy | the [Cedar policies](policies.md) in force, by this action and what it names | the call is denied (`policy_denied`, HTTP 200): on record, not forwarded. A notification gets 202 and goes nowhere; a GET or DELETE gets 403 |
| policy, may wait | the same; where a policy asks for an [approval](policies.md#approval), the call waits for it. Everywhere else that is a no | |
| answer | what was asked: only the answer to a call that policies let through, with its id, passes | 502 in place of the answer |
| `protocol-…` | nobody: the protocol has no such message there, and no policy can permit it | as a denial by policy, with this rule |

- A method that the other era has, or that nobody has heard of, is judged like every other; that it
  does not know it is the server's to say (404 and -32601 in the modern era).
- A cell with two entries is one over HTTP and another over stdio. In front of a server on stdio the
  gateway also checks what an HTTP server checks itself: the envelope, `MCP-Protocol-Version`,
  `Mcp-Method`, `Mcp-Name`; GET without a legacy session is answered 405, everything legacy without
  one 400 (`session_needed`), a modern `initialize` 404.
- Modern servers ask the client for something inside a result (`input_required`). Each such request
  is put to the policies as the request that it stands for (`sampling/createMessage`,
  `elicitation/create`, `roots/list`); one that is denied, or would need an approval, refuses the
  result.
- A server's own request that would need an approval is denied, since nobody waits on that side.
- Everything that passes is recorded before it does, and masked ([masking.md](masking.md)): of a
  request the record, of everything else what is passed on as well.

Beside the decision:

| column | means |
|---|---|
| names | what becomes the Cedar resource: the tool, prompt or resource, in its connection; else the connection |
| gone | the modern era has it no more; a server of that era answers so |
| shown | what is named must also be something that lists may show (`tools/call`, `prompts/get`, `resources/read` of it might be permitted), because the message tells of it |
| pinned | a tool or prompt whose definition is in quarantine is refused, and an approval is bound to the definition |
| filtered | items of the result that may not be used are cut out, page by page; cursors stay, and an empty page is not the end. Definitions of tools and prompts are compared with their pins |
| private | `cacheScope` becomes `private`, and `ttlMs` ends with the grant |
| input | the result may ask for input; and a call that waits for approval is answered so where the client can take it |
"#;

/// The page.
pub(crate) fn page() -> String {
    let mut page = HEAD.to_owned();
    for (title, shape) in [
        ("Requests", Shape::Request),
        ("Notifications", Shape::Notification),
        ("Responses", Shape::Response),
        ("Acts without message", Shape::Act),
    ] {
        let _infallible = write!(
            page,
            "\n## {title}\n| method | groups | names | from the client, legacy | modern | \
             from the server, legacy | modern | beside |\n|---|---|---|---|---|---|---|---|\n"
        );
        for row in ROWS.iter().filter(|row| row.shape == shape) {
            line(&mut page, row);
        }
    }
    page.push_str(
        "\n`transport/listen` is HTTP GET, `transport/end` DELETE, `connect` the exchange of an \
         identity for a\ngrant. A `*` stands for every name that no other row has.\n",
    );
    page
}

fn line(page: &mut String, row: &Row) {
    let groups: Vec<_> = row.groups.iter().map(|group| format!("`{group}`")).collect();
    let cell = |direction, era| {
        let [http, sse, stdio] = [Transport::Http, Transport::Sse, Transport::Stdio]
            .map(|transport| decides(row, Way { direction, era, transport }));
        if http == sse && sse == stdio {
            http
        } else {
            format!("Streamable HTTP: {http}; HTTP+SSE: {sse}; stdio: {stdio}")
        }
    };
    let (up, down) = (Direction::ClientToServer, Direction::ServerToClient);
    let _infallible = writeln!(
        page,
        "| `{}` | {} | {} | {} | {} | {} | {} | {} |",
        row.method,
        groups.join(", "),
        names(row.names),
        cell(up, Era::Legacy),
        cell(up, Era::Modern),
        cell(down, Era::Legacy),
        within(row, cell(down, Era::Modern)),
        beside(row),
    );
}

fn decides(row: &Row, way: Way) -> String {
    if row.sender == Sender::Nobody {
        return "`protocol-shape`".to_owned();
    }
    match row.rule(way) {
        Rule::Policy { waits: true } => "policy, may wait".to_owned(),
        Rule::Policy { waits: false } => "policy".to_owned(),
        Rule::Answer => "answer".to_owned(),
        Rule::Refused(rule) => format!("`{rule}`"),
    }
}

fn within(row: &Row, alone: String) -> String {
    let asks = matches!(row.rule_within(), Rule::Policy { .. });
    if asks { format!("in a result: policy; else {alone}") } else { alone }
}

fn names(names: Names) -> &'static str {
    match names {
        Names::Nothing => "",
        Names::Tool => "tool, `name`",
        Names::Prompt => "prompt, `name`",
        Names::Resource => "resource, `uri`",
        Names::Reference => "prompt or resource, `ref`",
        Names::Subscriptions => "the connection; tells of `notifications.resourceSubscriptions`",
    }
}

fn beside(row: &Row) -> String {
    let filtered = row.list.map(|list| format!("filtered: `{}` by `{}`", list.member, list.key));
    let said = [
        row.gone.then(|| "gone".to_owned()),
        row.listed.then(|| "shown".to_owned()),
        matches!(row.names, Names::Tool | Names::Prompt).then(|| "pinned".to_owned()),
        filtered,
        row.hints.then(|| "private".to_owned()),
        row.input.then(|| "input".to_owned()),
    ];
    said.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
