//! Real MCP servers behind the gateway: everything they offer works, and what nobody may see is
//! masked.

use serde_json::{Value, json};

use crate::support::{Client, Person, Site, World, customers, ids};

crate::stories![
    server_everything_over_http,
    server_everything_over_stdio,
    git_over_stdio,
    customers_of_dbhub_over_http,
    customers_of_dbhub_over_stdio,
    customers_as_structured_content,
    an_upstream_with_a_secret_of_its_own,
];

fn server_everything_over_http(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let everything = world.everything()?;
    let server = Site::new(world, &idp).http("everything", &everything.url).start()?;
    everything_works(world, &Person::logged_in(world, "alice", &server, &idp)?)?;
    server.verify()?.exits(0);
    Ok(())
}

fn server_everything_over_stdio(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let command = world.everything_stdio()?;
    let server = Site::new(world, &idp).stdio("everything", &command).start()?;
    everything_works(world, &Person::logged_in(world, "alice", &server, &idp)?)?;
    server.verify()?.exits(0);
    Ok(())
}

fn everything_works(world: &World, alice: &Person) -> anyhow::Result<()> {
    let connected = alice.connect("everything")?;
    let target = connected.target();
    let call = |tool: &str, arguments: Value| {
        Client::TypeScript1.call(world, alice.home(), &target, tool, &arguments)
    };
    let seen = call("get-sum", json!({"a": 19, "b": 23}))?;
    assert!(seen.text().contains("42"), "{seen:#?}");
    assert!(seen.tools.len() >= 12, "{:?}", seen.tools);
    let seen = call("get-structured-content", json!({"location": "Chicago"}))?;
    assert!(seen.result["structuredContent"]["temperature"].is_number(), "{seen:#?}");
    let seen = call("get-tiny-image", json!({}))?;
    let image = seen.result["content"]
        .as_array()
        .and_then(|blocks| blocks.iter().find(|block| block["type"] == "image")?["data"].as_str());
    assert!(image.is_some_and(|data| data.starts_with("iVBORw0KGgo")), "no PNG: {seen:#?}");
    let seen = call("trigger-long-running-operation", json!({"duration": 1, "steps": 4}))?;
    assert!(seen.text().contains("completed"), "{seen:#?}");
    let steps: Vec<_> = seen.progress.iter().map(|step| step["progress"].as_u64()).collect();
    assert_eq!(steps, [Some(1), Some(2), Some(3), Some(4)], "progress on the way: {seen:#?}");
    let seen = call("get-resource-links", json!({"count": 3}))?;
    assert!(seen.result.to_string().contains("resource_link"), "{seen:#?}");
    let seen = call("echo", json!({"message": "ünïcödé \u{1F980} \u{2028} \"quoted\""}))?;
    assert_eq!(seen.text(), "Echo: ünïcödé \u{1F980} \u{2028} \"quoted\"");
    let seen = call("no-such-tool", json!({}))?;
    assert!(seen.is_error(), "the server's own error arrives: {seen:#?}");
    Ok(())
}

fn git_over_stdio(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let command = world.git_stdio()?;
    let server = Site::new(world, &idp).stdio("git", &command).start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let repository = json!({"repo_path": world.repository()});
    for client in [Client::Python, Client::PythonLegacy] {
        let seen = alice.call(client, "git", "git_log", &repository)?;
        assert!(seen.text().contains("Begin the story"), "{client:?}: {seen:#?}");
        assert!(!seen.text().contains("grace.story@example.com"), "{client:?}: {seen:#?}");
        let newest = client == Client::Python;
        assert_eq!(seen.protocol.as_deref() == Some("2026-07-28"), newest, "{seen:#?}");
    }
    server.holds_none_of(["grace.story@example.com"]);
    Ok(())
}

fn customers_of_dbhub_over_http(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let dbhub = world.dbhub()?;
    customers_are_masked(world, Site::new(world, &idp).http("crm", &dbhub.url), &idp)
}

fn customers_of_dbhub_over_stdio(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let command = world.dbhub_stdio()?;
    customers_are_masked(world, Site::new(world, &idp).stdio("crm", &command), &idp)
}

fn customers_are_masked(
    world: &World,
    site: Site,
    idp: &crate::support::Idp,
) -> anyhow::Result<()> {
    let server = site.start()?;
    let alice = Person::logged_in(world, "alice", &server, idp)?;
    // Renamed columns and values glued together hide nothing.
    let queries = [
        "select id, name, email, ssn, card, plan from customers order by id",
        "select id, plan, email as a, ssn as b, card as c from customers order by id",
        "select id, plan, name || ' <' || email || '> ' || ssn || ' / ' || card as line \
         from customers order by id",
    ];
    for client in [Client::Python, Client::TypeScript1] {
        for query in queries {
            let seen = alice.call(client, "crm", "execute_sql", &json!({"sql": query}))?;
            hides_customers(&seen.result.to_string());
            // The server answers with JSON inside text: it is still JSON, with every row.
            let answer: Value = serde_json::from_str(&seen.text())?;
            let rows = answer["data"]["statements"][0]["rows"].as_array().cloned();
            let rows = rows.unwrap_or_else(|| panic!("no rows: {answer}"));
            let plans: Vec<_> = rows.iter().map(|row| row["plan"].as_str()).collect();
            assert_eq!(plans, [Some("gold"), Some("basic"), Some("gold")], "{answer}");
        }
    }
    // Values in arguments go to the server as sent, and into the record masked.
    let by_ssn = json!({"sql": "select plan from customers where ssn = '078-05-1120'"});
    let seen = alice.call(Client::TypeScript1, "crm", "execute_sql", &by_ssn)?;
    assert!(seen.text().contains("basic"), "{seen:#?}");

    let sessions = alice.run(&["sessions", "--json"])?.exits(0);
    let sessions = ids(&sessions.stdout, "ses_");
    assert!(!sessions.is_empty());
    let mut replayed = String::new();
    for session in &sessions {
        let replay = alice.run(&["replay", session, "--json"])?.exits(0);
        hides_customers(&replay.stdout);
        replayed.push_str(&replay.stdout);
    }
    assert!(replayed.contains("execute_sql") && replayed.contains("gold"), "{replayed}");
    let customers = customers();
    server.holds_none_of(values(&customers));
    server.verify()?.exits(0);
    Ok(())
}

fn customers_as_structured_content(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = Site::new(world, &idp).http("ledger", &ledger.url).start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    for client in [Client::Python, Client::TypeScript1, Client::TypeScript2] {
        // The clients themselves check the result against the tool's output schema.
        let seen = alice.call(client, "ledger", "customer", &json!({"id": 1}))?;
        assert!(!seen.is_error(), "{client:?}: {seen:#?}");
        hides_customers(&seen.result.to_string());
        let structured = &seen.result["structuredContent"];
        assert_eq!(structured["plan"], "gold", "{client:?}: {seen:#?}");
        let text: Value = serde_json::from_str(&seen.text())?;
        assert_eq!(&text, structured, "{client:?}: text and structured content disagree");
    }
    Ok(())
}

fn an_upstream_with_a_secret_of_its_own(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let dbhub = world.dbhub_with(&["--auth-token", "upstream-secret-7f3a"])?;
    let site = Site::new(world, &idp)
        .http("crm", &dbhub.url)
        .with(
            "[connection.credential]\nheader = \"Authorization\"\nprefix = \"Bearer \"\n\
             from = \"env:UPSTREAM_TOKEN\"",
        )
        .http("crm-bare", &dbhub.url);
    let server = site.start_with(|command| {
        command.env("UPSTREAM_TOKEN", "upstream-secret-7f3a");
    })?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let query = json!({"sql": "select plan from customers"});
    let seen = alice.call(Client::TypeScript2, "crm", "execute_sql", &query)?;
    assert!(seen.text().contains("gold"), "{seen:#?}");
    let refused = alice.call(Client::TypeScript2, "crm-bare", "execute_sql", &query);
    assert!(refused.is_err(), "the server asks for no token: {refused:#?}");
    server.holds_none_of(["upstream-secret-7f3a"]);
    Ok(())
}

/// Fails if a text shows any value that nobody may see.
#[track_caller]
fn hides_customers(text: &str) {
    let customers = customers();
    for value in values(&customers) {
        assert!(!text.contains(value), "{value:?} is shown in {text}");
    }
}

fn values(customers: &Value) -> impl Iterator<Item = &str> {
    let kinds = customers.as_object().into_iter().flatten();
    kinds.flat_map(|(_, values)| values.as_array().into_iter().flatten()).filter_map(Value::as_str)
}
