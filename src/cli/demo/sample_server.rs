//! The demo's MCP server: made-up customers on stdin and stdout (MCP 2025-11-25, stdio).
//!
//! An ordinary server that knows nothing of mcpx: it would give everything to everybody.

use std::path::Path;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::cli::error::CliError;
use crate::cli::ui::Ui;
use crate::store::customers::SampleCustomers;

const VERSIONS: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];

/// Serves until stdin ends.
pub(super) async fn run(database: &Path, ui: &Ui) -> Result<(), CliError> {
    let customers = SampleCustomers::open(database)
        .await
        .map_err(|error| CliError::failure("no customers").caused_by(Some(&error)))?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
        let (Some(id), Some(method)) = (message.get("id"), message["method"].as_str()) else {
            continue;
        };
        let answer = match answer(&customers, method, &message["params"]).await {
            Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
            Err((code, text)) => json!({
                "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": text },
            }),
        };
        ui.print_json(&answer)?;
    }
    Ok(())
}

async fn answer(
    customers: &SampleCustomers,
    method: &str,
    params: &Value,
) -> Result<Value, (i64, String)> {
    match method {
        "initialize" => {
            let asked = params["protocolVersion"].as_str().unwrap_or_default();
            let version = VERSIONS.into_iter().find(|known| *known == asked).unwrap_or(VERSIONS[0]);
            Ok(json!({
                "protocolVersion": version,
                "capabilities": { "tools": {} },
                "serverInfo": { "name": "sample-customers", "version": env!("CARGO_PKG_VERSION") },
            }))
        }
        "ping" => Ok(json!({})),
        "tools/list" => Ok(json!({ "tools": tools() })),
        "tools/call" => {
            let name = params["name"].as_str().unwrap_or_default();
            call(customers, name, &params["arguments"]).await
        }
        _ => Err((-32601, format!("{method} is not offered"))),
    }
}

fn tools() -> Value {
    let customer = json!({ "type": "object", "properties": {
        "id": { "type": "integer" },
        "name": { "type": "string" },
        "email": { "type": "string" },
        "card": { "type": "string" },
        "ssn": { "type": "string" },
        "plan": { "type": "string" },
    } });
    let rows = json!({
        "type": "object",
        "properties": { "customers": { "type": "array", "items": customer } },
        "required": ["customers"],
    });
    json!([
        {
            "name": "search_customers",
            "description": "Customers whose name contains a text; all of them without one",
            "inputSchema": { "type": "object", "properties": { "name": { "type": "string" } } },
            "outputSchema": rows,
            "annotations": { "readOnlyHint": true },
        },
        {
            "name": "delete_customer",
            "description": "Delete one customer for good",
            "inputSchema": {
                "type": "object",
                "properties": { "id": { "type": "integer" } },
                "required": ["id"],
            },
            "annotations": { "destructiveHint": true },
        },
        {
            "name": "export_customers",
            "description": "Every customer with every field, as one file",
            "inputSchema": { "type": "object" },
            "annotations": { "readOnlyHint": true },
        },
    ])
}

async fn call(
    customers: &SampleCustomers,
    tool: &str,
    arguments: &Value,
) -> Result<Value, (i64, String)> {
    let failed = |error: crate::store::StoreError| (-32603, error.to_string());
    match tool {
        "search_customers" | "export_customers" => {
            let name = arguments["name"].as_str().unwrap_or_default();
            let rows = json!({ "customers": customers.search(name).await.map_err(failed)? });
            let text = rows.to_string();
            Ok(json!({
                "content": [{ "type": "text", "text": text }], "structuredContent": rows,
            }))
        }
        "delete_customer" => {
            let Some(id) = arguments["id"].as_i64() else {
                return Err((-32602, "\"id\" must be an integer".to_owned()));
            };
            let done = customers.delete(id).await.map_err(failed)?;
            let text = if done {
                format!("customer {id} is deleted")
            } else {
                format!("there is no customer {id}")
            };
            Ok(json!({ "content": [{ "type": "text", "text": text }], "isError": !done }))
        }
        _ => Err((-32602, format!("there is no tool {tool:?}"))),
    }
}
